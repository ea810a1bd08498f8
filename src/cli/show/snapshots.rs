//! Snapshots as text.

use std::fmt::Write as _;

use super::super::format::{Align::Left, Align::Right, Table, count, plain, size};
use super::to_seconds;
use crate::control::{PruneReport, SnapshotInfo};
use crate::volume::Amount;

/// What `snapshot list` prints. USED is what the snapshot alone holds, RAW the same before
/// compression.
pub(super) fn list(list: &[SnapshotInfo]) -> String {
    let with_space = list.iter().any(|snapshot| snapshot.space.is_some());
    let mut columns = vec![("NAME", Left), ("CREATED", Left), ("ID", Right)];
    if with_space {
        columns.extend([("USED", Right), ("RAW", Right), ("REFERENCED", Right)]);
    }
    let with_protection = list.iter().any(|s| s.held || s.locked_until.is_some());
    if with_protection {
        columns.push(("PROTECTED", Left));
    }
    let mut table = Table::new(&columns);
    for snapshot in list {
        let name = plain(&snapshot.name.to_string());
        let mut row = vec![name, to_seconds(&snapshot.created), snapshot.id.to_string()];
        if with_space {
            let known = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), size);
            row.push(known(snapshot.space.map(|space| space.alone.stored_bytes)));
            row.push(known(snapshot.space.map(|space| space.alone.raw_bytes)));
            row.push(known(snapshot.space.map(|space| space.referenced_bytes)));
        }
        if with_protection {
            row.push(protection(snapshot));
        }
        table.row(row);
    }
    table.render()
}

fn protection(snapshot: &SnapshotInfo) -> String {
    let held = snapshot.held.then(|| "held".to_owned());
    let locked =
        snapshot.locked_until.as_ref().map(|until| format!("locked until {}", to_seconds(until)));
    let both: Vec<String> = held.into_iter().chain(locked).collect();
    both.join(", ")
}

/// What `snapshot delete --dry-run` prints.
pub(super) fn would_free(amount: &Amount) -> String {
    format!(
        "Deleting them would free {} ({} before compression) in {} chunks, with the next gc\n",
        size(amount.stored_bytes),
        size(amount.raw_bytes),
        count(amount.chunks)
    )
}

/// What `prune` prints.
pub(super) fn prune(report: &PruneReport) -> String {
    let mut text = String::new();
    let mut table = Table::new(&[("", Left), ("NAME", Left), ("CREATED", Left), ("WHY", Left)]);
    let mut row = |what: &str, snapshot: &SnapshotInfo, why: String| {
        let name = plain(&snapshot.name.to_string());
        table.row([what.to_owned(), name, to_seconds(&snapshot.created), why]);
    };
    for kept in &report.keep {
        row("keep", &kept.snapshot, plain(&kept.reasons.join(", ")));
    }
    for gone in &report.remove {
        row("remove", gone, String::new());
    }
    if !report.keep.is_empty() || !report.remove.is_empty() {
        text += &table.render();
    }
    let (keep, remove) = (report.keep.len() as u64, report.remove.len() as u64);
    let verb = if report.dry_run { "would be removed" } else { "removed" };
    let _ = writeln!(text, "{} kept, {} {verb}", count(keep), count(remove));
    if let Some(amount) = report.would_free.filter(|_| remove > 0) {
        text += &would_free(&amount);
    }
    text
}
