//! What gc did, and what is known of unused space, for people.

use super::format::{count, percent, size};
use crate::gc::GcReport;
use crate::types::Timestamp;
use crate::volume::{GcOutcome, GcStatus};

/// The answer to `gc`.
pub(super) fn text(report: &GcReport) -> String {
    let (freed, pruned) = match report.dry_run {
        true => ("Would free", "would be pruned; nothing was changed"),
        false => ("Freed", "pruned"),
    };
    format!(
        "Found {} unused in {} chunks. {freed} {} in {} containers, storing {} anew; {} of {} \
         chunks are in use; {} of unused data left in containers that are mostly in use; {} old \
         versions {pruned}\n",
        size(report.unused.stored_bytes),
        count(report.unused.chunks),
        size(report.freed_bytes),
        count(report.containers_freed),
        size(report.repacked_bytes),
        count(report.chunks_marked),
        count(report.chunks_total),
        size(report.dead_bytes_left),
        count(report.history_pruned)
    )
}

/// What `status` says of it.
pub(super) fn facts(status: &GcStatus) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Reclaimable", reclaimable(status))];
    if let Some(run) = &status.running {
        let share = match run.of {
            0 => count(run.done),
            of => percent(run.done, of),
        };
        let by = if run.automatic { ", begun by itself" } else { "" };
        facts.push((
            "Reclaiming",
            format!("{} now; {} {share}{by}", size(run.reclaiming_bytes), run.phase),
        ));
    }
    if status.last.outcome != GcOutcome::Never {
        let how = match status.last.outcome {
            GcOutcome::Stopped => "stopped early, ",
            GcOutcome::Failed => "failed (the log says why), ",
            GcOutcome::Done | GcOutcome::Never => "",
        };
        facts.push((
            "Last gc",
            format!(
                "{}: {how}freed {} in {} containers, storing {} anew",
                time(status.last.at_secs),
                size(status.last.freed_bytes),
                count(status.last.containers_freed),
                size(status.last.repacked_bytes)
            ),
        ));
    }
    facts
}

fn reclaimable(status: &GcStatus) -> String {
    let mark = &status.mark;
    let since = match (status.dropped_bytes, status.snapshots_deleted) {
        (0, 0) => String::new(),
        (bytes, 0) => format!("; since then up to {} more", size(bytes)),
        (bytes, 1) => format!("; since then up to {} more, and a deleted snapshot", size(bytes)),
        (bytes, n) => {
            format!("; since then up to {} more, and {n} deleted snapshots", size(bytes))
        }
    };
    if mark.at_secs == 0 {
        return match since.strip_prefix("; since then ") {
            Some(since) => format!("{since} (gc has not looked yet)"),
            None => "nothing known (gc has not looked yet)".to_owned(),
        };
    }
    let price = match mark.repack_bytes {
        0 => String::new(),
        bytes => format!(" by storing {} anew", size(bytes)),
    };
    format!(
        "{}{price}, {} unused in all, as of {}{since}",
        size(mark.reclaimable_bytes),
        size(mark.dead_bytes),
        time(mark.at_secs)
    )
}

fn time(secs: u64) -> String {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    let iso = Timestamp { secs, nanos: 0 }.iso_utc();
    iso.split_once('.').map_or_else(|| iso.clone(), |(seconds, _)| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use crate::volume::{GcProgress, MarkResult, RunResult};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn status_tells_what_can_be_had_and_what_is_going_on() {
        let mut status = GcStatus::default();
        assert_eq!(reclaimable(&status), "nothing known (gc has not looked yet)");
        status.dropped_bytes = MIB;
        assert_eq!(reclaimable(&status), "up to 1.0 MiB more (gc has not looked yet)");
        status.snapshots_deleted = 2;
        status.mark = MarkResult {
            at_secs: 1_793_700_672,
            reclaimable_bytes: 32 * MIB,
            repack_bytes: 10 * MIB,
            dead_bytes: 40 * MIB,
            ..MarkResult::default()
        };
        status.running = Some(GcProgress {
            phase: "repacking".to_owned(),
            done: 1,
            of: 4,
            automatic: true,
            reclaiming_bytes: 32 * MIB,
        });
        status.last = RunResult {
            at_secs: 0,
            outcome: GcOutcome::Stopped,
            containers_freed: 3,
            freed_bytes: 96 * MIB,
            repacked_bytes: 0,
        };
        assert_eq!(
            facts(&status),
            [
                (
                    "Reclaimable",
                    "32.0 MiB by storing 10.0 MiB anew, 40.0 MiB unused in all, as of \
                     2026-11-03T10:11:12Z; since then up to 1.0 MiB more, and 2 deleted snapshots"
                        .to_owned()
                ),
                ("Reclaiming", "32.0 MiB now; repacking 25 %, begun by itself".to_owned()),
                (
                    "Last gc",
                    "1970-01-01T00:00:00Z: stopped early, freed 96.0 MiB in 3 containers, storing \
                     0 B anew"
                        .to_owned()
                ),
            ]
        );
    }
}
