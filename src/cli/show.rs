//! Answers as text for people and as JSON for programs.

mod snapshots;

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::format::{Align::Left, Align::Right, Table, count, percent, plain, size};
use super::{export, gc, import, restore, scrub};
use crate::check::CheckReport;
use crate::control::{ClassInfo, Response};
use crate::volume::{ClassReport, Explanation, ShardInfo, StatsReport, Status};

/// The text of an answer; empty when there is nothing to say.
pub(super) fn text(response: &Response) -> String {
    match response {
        Response::Snapshot(_)
        | Response::Deleted(_)
        | Response::Remounted
        | Response::Unmounted
        | Response::Detached => String::new(),
        Response::Snapshots(list) => snapshots::list(list),
        Response::WouldFree(amount) => snapshots::would_free(amount),
        Response::Diff(sums) => super::diff::sums_text(sums),
        Response::Found(sums) => format!("{} paths\n", count(sums.paths)),
        Response::Prune(report) => snapshots::prune(report),
        Response::Status(status) => status_text(status),
        Response::Stats(report) => stats(report),
        Response::Classes(list) => classes(list),
        Response::Explanation(explanation) => explain(explanation),
        Response::Shards(list) => shards(list),
        Response::Shard(shard) => shards(std::slice::from_ref(shard)),
        Response::Check(report) => check(report),
        Response::Gc(report) => gc::text(report),
        Response::Restored(report) => restore::text(report),
        Response::Exported(report) => export::text(report),
        Response::Imported(report) => import::text(report),
        Response::Scrub(answer) => scrub::text(answer),
    }
}

/// The JSON document of an answer: always an object.
pub(super) fn document(response: &Response) -> serde_json::Result<Value> {
    Ok(match response {
        Response::Snapshot(snapshot) => serde_json::to_value(snapshot)?,
        Response::Snapshots(list) => json!({ "snapshots": list }),
        Response::Deleted(count) => json!({ "deleted": count }),
        Response::WouldFree(amount) => json!({ "would_free": amount }),
        Response::Diff(sums) => serde_json::to_value(sums)?,
        Response::Found(sums) => serde_json::to_value(sums)?,
        Response::Prune(report) => serde_json::to_value(report)?,
        Response::Status(status) => {
            let mut document = serde_json::to_value(status)?;
            document["state"] = json!(status.state());
            document
        }
        Response::Stats(report) => serde_json::to_value(report)?,
        Response::Classes(list) => json!({ "classes": list }),
        Response::Explanation(explanation) => serde_json::to_value(explanation)?,
        Response::Shards(list) => json!({ "shards": list }),
        Response::Shard(shard) => serde_json::to_value(shard)?,
        Response::Check(report) => serde_json::to_value(report)?,
        Response::Gc(report) => serde_json::to_value(report)?,
        Response::Restored(report) => serde_json::to_value(report)?,
        Response::Exported(report) => serde_json::to_value(report)?,
        Response::Imported(report) => serde_json::to_value(report)?,
        Response::Scrub(answer) => scrub::document(answer)?,
        Response::Remounted => json!({ "remounted": true }),
        Response::Unmounted => json!({ "unmounted": true }),
        Response::Detached => json!({ "unmounted": false, "detached": true }),
    })
}

/// Name and value in two columns.
fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<width$}  {value}");
        text
    })
}

/// An ISO time without its fraction of a second.
fn to_seconds(iso: &str) -> String {
    iso.split_once('.').map_or_else(|| iso.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

fn shards(list: &[ShardInfo]) -> String {
    let mut columns = vec![
        ("SHARD", Left),
        ("ID", Right),
        ("WEIGHT", Right),
        ("CONTAINERS", Right),
        ("STORED", Right),
        ("FREE", Right),
        ("OF", Right),
        ("PATH", Left),
    ];
    let some_missing = list.iter().any(|shard| shard.missing.is_some());
    if some_missing {
        columns.push(("STATE", Left));
    }
    let mut table = Table::new(&columns);
    for shard in list {
        let mut row = vec![
            plain(&shard.name),
            shard.id.to_string(),
            shard.weight.to_string(),
            count(shard.containers),
            size(shard.stored_bytes),
            size(shard.free_bytes),
            size(shard.total_bytes),
            plain(&shard.path),
        ];
        if some_missing {
            row.push(if shard.missing.is_some() { "missing" } else { "there" }.to_owned());
        }
        table.row(row);
    }
    table.render()
}

fn status_text(status: &Status) -> String {
    // Not mounted, it is this command that opened it, and only to look.
    let read_only = status.read_only && status.mounted_on.is_some();
    let state = match (&status.poisoned, &status.commit_failure) {
        (Some(cause), _) => format!("stopped accepting writes: {}", plain(cause)),
        (None, Some(cause)) => format!("waits to commit: {}", plain(cause)),
        (None, None) if read_only => "well, read-only".to_owned(),
        (None, None) => "well".to_owned(),
    };
    let missing = status.shards.iter().filter(|shard| shard.missing.is_some());
    let state = missing
        .fold(state, |state, shard| format!("{state}; shard {} is missing", plain(&shard.name)));
    let mounted = match &status.mounted_on {
        Some(mountpoint) => format!("on {} by process {}", plain(mountpoint), status.pid),
        None => "no".to_owned(),
    };
    let waiting = status.open_txg_bytes.saturating_add(status.dirty_bytes);
    let mut lines = vec![
        ("Volume", format!("{} (format {})", status.volume_id, status.format_version)),
        ("Directory", plain(&status.dir)),
        ("Mounted", mounted),
        ("State", state),
        ("Snapshots", count(status.snapshots)),
        ("Commit", format!("{} (epoch {})", status.txg, status.epoch)),
        ("Not yet durable", size(waiting)),
        ("Stored", stored_in(status.stored_bytes, status.containers)),
        ("Verified", scrub::verified(&status.verified)),
    ];
    lines.extend(gc::facts(&status.gc));
    let mut text = facts(&lines);
    text.push('\n');
    text += &shards(&status.shards);
    text
}

fn stored_in(bytes: u64, containers: u64) -> String {
    let noun = if containers == 1 { "container" } else { "containers" };
    format!("{} in {} {noun}", size(bytes), count(containers))
}

/// What compression saved of the new bytes.
fn compressed_away(report: &ClassReport) -> u64 {
    report.new_bytes.saturating_sub(report.stored_bytes)
}

/// Classes that anything was written to, the largest first.
fn used_classes(report: &StatsReport) -> Vec<&ClassReport> {
    let mut used: Vec<_> = report
        .classes
        .iter()
        .filter(|c| c.written_bytes > 0 || c.now_stored_bytes > 0 || c.now_unique_bytes > 0)
        .collect();
    used.sort_by_key(|c| std::cmp::Reverse(c.written_bytes));
    used
}

/// One line that says how many bytes were written, how many are stored, and why.
pub(super) fn summary(report: &StatsReport) -> String {
    let all = &report.totals;
    let mut line = format!(
        "Written {}, stored {} ({}): duplicates saved {}, zeros {}, compression {}",
        size(all.written_bytes),
        size(all.stored_bytes),
        percent(all.stored_bytes, all.written_bytes),
        size(all.duplicate_bytes),
        size(all.zero_bytes),
        size(compressed_away(all)),
    );
    let mut sign = ';';
    for class in used_classes(report) {
        let (written, stored) = (size(class.written_bytes), size(class.stored_bytes));
        let _ = write!(line, "{sign} {} {written} → {stored}", plain(&class.class));
        sign = ',';
    }
    line.push('\n');
    line
}

fn stats(report: &StatsReport) -> String {
    let all = &report.totals;
    let share = |name, bytes, why: &str| {
        let share = percent(bytes, all.written_bytes);
        [name, size(bytes), share, why.to_owned()]
    };
    let mut table =
        Table::new(&[("SINCE THE VOLUME WAS MADE", Left), ("", Right), ("", Right), ("", Left)]);
    let name = str::to_owned;
    table.row(share(name("written"), all.written_bytes, "raw bytes that reached the volume"));
    table.row(share(name("  zeros"), all.zero_bytes, "became holes"));
    table.row(share(name("  duplicates"), all.duplicate_bytes, "were stored already"));
    table.row(share(name("  new"), all.new_bytes, "had to be stored"));
    table.row(share(name("stored"), all.stored_bytes, "what the new bytes take, compressed"));
    let mut text = table.render();
    text.push('\n');
    text += &facts(&[
        ("Live tree", size(report.live_bytes)),
        ("Unique now", format!("{} in {} chunks", size(report.unique_bytes), count(report.chunks))),
        ("Stored now", stored_in(report.stored_bytes, report.containers)),
        ("Metadata", size(report.metadata_bytes)),
        (
            "Ratios",
            format!(
                "dedup {:.2}, compression {:.2}, total {:.2}",
                report.dedup_ratio, report.compression_ratio, report.total_ratio
            ),
        ),
    ]);
    text.push('\n');
    text += &class_table(report);
    text.push('\n');
    text += &shards(&report.shards);
    text.push('\n');
    text += &memory(report);
    text
}

fn class_table(report: &StatsReport) -> String {
    let mut table = Table::new(&[
        ("CLASS", Left),
        ("WRITTEN", Right),
        ("ZEROS", Right),
        ("DUPLICATES", Right),
        ("NEW", Right),
        ("STORED", Right),
        ("UNIQUE NOW", Right),
        ("STORED NOW", Right),
    ]);
    for class in used_classes(report).into_iter().chain([&report.totals]) {
        let numbers = [
            class.written_bytes,
            class.zero_bytes,
            class.duplicate_bytes,
            class.new_bytes,
            class.stored_bytes,
            class.now_unique_bytes,
            class.now_stored_bytes,
        ];
        table.row([plain(&class.class)].into_iter().chain(numbers.map(size)));
    }
    table.render()
}

fn memory(report: &StatsReport) -> String {
    let columns = [("MEMORY", Left), ("NOW", Right), ("AT MOST", Right), ("LIMIT", Left)];
    let mut table = Table::new(&columns);
    for (what, held) in &report.memory {
        table.row([plain(what), size(held.bytes), size(held.bound_bytes), plain(&held.limit)]);
    }
    let (total, resident) = (&report.memory_total, size(report.resident_bytes));
    let note = format!("(the process has {resident})");
    table.row(["total".to_owned(), size(total.bytes), size(total.bound_bytes), note]);
    table.render()
}

fn classes(list: &[ClassInfo]) -> String {
    let mut table = Table::new(&[
        ("ID", Right),
        ("CLASS", Left),
        ("CHUNKING", Left),
        ("CODEC", Left),
        ("SHARDS", Left),
    ]);
    for class in list {
        table.row([
            class.id.to_string(),
            plain(&class.name),
            plain(&class.chunking),
            plain(&class.codec),
            if class.shards.is_empty() {
                "all".to_owned()
            } else {
                plain(&class.shards.join(", "))
            },
        ]);
    }
    table.render()
}

fn explain(explanation: &Explanation) -> String {
    let parts = |list: &[(String, u64)]| {
        let parts: Vec<String> =
            list.iter().map(|(name, bytes)| format!("{} {}", plain(name), size(*bytes))).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
    };
    facts(&[
        ("Path", plain(&explanation.path)),
        ("Class", plain(&explanation.class)),
        ("Because", plain(&explanation.rule)),
        ("Written as", plain(&explanation.stored_class)),
        (
            "Size",
            format!("{}, of that holes {}", size(explanation.size), size(explanation.hole_bytes)),
        ),
        ("Extents", count(explanation.extents)),
        ("On shards", parts(&explanation.shards)),
        ("In classes", parts(&explanation.classes)),
        ("Takes about", stored_in(explanation.stored_bytes_estimate, explanation.containers)),
    ])
}

fn check(report: &CheckReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{}", plain(problem));
    }
    let listed = u64::try_from(report.problems.len()).unwrap_or(u64::MAX);
    let verdict = match listed.saturating_add(report.more_problems) {
        0 => "No problems".to_owned(),
        1 => "1 problem".to_owned(),
        several => format!("{} problems", count(several)),
    };
    let _ = writeln!(
        text,
        "{verdict} in {} inodes, {} names, {} extents, {} old versions, {} chunks, {} containers; \
         {} read",
        count(report.inodes),
        count(report.dirents),
        count(report.extents),
        count(report.old_versions),
        count(report.chunks),
        count(report.containers),
        size(report.bytes_read)
    );
    text
}

#[cfg(test)]
mod tests;
