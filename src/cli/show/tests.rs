//! Every answer has a text and a document; the lines that the demo quotes are held word by word.

use super::*;
use crate::control::{KeptSnapshot, Name, PruneReport, SnapshotInfo, SnapshotSpace};
use crate::stats::{ActivityTotals, MemoryUse};
use crate::volume::Amount;

const MIB: u64 = 1024 * 1024;

fn class(name: &str, written: u64, duplicate: u64, zero: u64, stored: u64) -> ClassReport {
    ClassReport {
        class: name.to_owned(),
        written_bytes: written,
        zero_bytes: zero,
        duplicate_bytes: duplicate,
        new_bytes: written - duplicate - zero,
        stored_bytes: stored,
        now_unique_bytes: 0,
        now_stored_bytes: 0,
    }
}

fn shard() -> ShardInfo {
    ShardInfo {
        id: 0,
        name: "local".to_owned(),
        path: "/v/shard".to_owned(),
        weight: 1,
        containers: 2,
        stored_bytes: 20 * MIB,
        total_bytes: 1000 * MIB,
        free_bytes: 500 * MIB,
        missing: None,
    }
}

fn report() -> StatsReport {
    StatsReport {
        live_bytes: 60 * MIB,
        unique_bytes: 40 * MIB,
        stored_bytes: 20 * MIB,
        metadata_bytes: MIB,
        dedup_ratio: 1.5,
        compression_ratio: 2.0,
        total_ratio: 3.0,
        chunks: 1234,
        containers: 2,
        totals: class("all", 120 * MIB, 70 * MIB, 10 * MIB, 20 * MIB),
        classes: vec![
            class("other", 0, 0, 0, 0),
            class("binary", 20 * MIB, 0, 10 * MIB, 10 * MIB),
            class("source", 100 * MIB, 70 * MIB, 0, 10 * MIB),
        ],
        shards: vec![shard()],
        memory: [("queue".to_owned(), MemoryUse::new(2 * MIB, 16 * MIB, "queue_bytes"))].into(),
        memory_total: MemoryUse::new(2 * MIB, 16 * MIB, ""),
        resident_bytes: 40 * MIB,
        activity: ActivityTotals::default(),
    }
}

#[test]
fn the_summary_is_one_line_with_the_reasons() {
    assert_eq!(
        summary(&report()),
        "Written 120.0 MiB, stored 20.0 MiB (17 %): duplicates saved 70.0 MiB, zeros 10.0 MiB, \
         compression 20.0 MiB; source 100.0 MiB → 10.0 MiB, binary 20.0 MiB → 10.0 MiB\n"
    );
}

#[test]
fn an_empty_volume_has_a_summary_too() {
    let empty = class("all", 0, 0, 0, 0);
    let report = StatsReport { totals: empty, classes: vec![], ..report() };
    let line = summary(&report);
    assert!(line.starts_with("Written 0 B, stored 0 B (0 %)") && line.lines().count() == 1);
}

fn snapshot() -> SnapshotInfo {
    SnapshotInfo {
        id: 7,
        name: Name(b"mon\xffday".to_vec()),
        created: "2026-11-03T10:11:12.123456789Z".to_owned(),
        epoch: 3,
        held: false,
        locked_until: None,
        space: None,
    }
}

#[test]
fn snapshots_are_listed_with_name_time_and_id() {
    let snapshot = snapshot();
    assert_eq!(
        text(&Response::Snapshots(vec![snapshot.clone()])),
        "NAME        CREATED               ID\nmon\\xffday  2026-11-03T10:11:12Z   7\n"
    );
    let json = document(&Response::Snapshots(vec![snapshot])).unwrap();
    assert_eq!(json["snapshots"][0]["name"], "mon\\xffday");
}

#[test]
fn what_snapshots_hold_and_what_protects_them_is_listed() {
    let alone = Amount { chunks: 3, raw_bytes: 3 * MIB, stored_bytes: MIB };
    let counted = SnapshotInfo {
        space: Some(SnapshotSpace { referenced_bytes: 20 * MIB, alone }),
        held: true,
        locked_until: Some("2027-01-31T00:00:00.000000000Z".to_owned()),
        ..snapshot()
    };
    assert_eq!(
        text(&Response::Snapshots(vec![counted, snapshot()])),
        "NAME        CREATED               ID     USED      RAW  REFERENCED  PROTECTED\n\
         mon\\xffday  2026-11-03T10:11:12Z   7  1.0 MiB  3.0 MiB    20.0 MiB  held, locked until \
         2027-01-31T00:00:00Z\n\
         mon\\xffday  2026-11-03T10:11:12Z   7        ?        ?           ?\n"
    );
    let kept = KeptSnapshot { snapshot: snapshot(), reasons: vec!["daily snapshot".to_owned()] };
    let report = PruneReport {
        dry_run: true,
        keep: vec![kept],
        remove: vec![snapshot()],
        would_free: Some(alone),
    };
    assert_eq!(
        text(&Response::Prune(Box::new(report))),
        "        NAME        CREATED               WHY\n\
         keep    mon\\xffday  2026-11-03T10:11:12Z  daily snapshot\n\
         remove  mon\\xffday  2026-11-03T10:11:12Z\n\
         1 kept, 1 would be removed\n\
         Deleting them would free 1.0 MiB (3.0 MiB before compression) in 3 chunks, with the next \
         gc\n"
    );
}

#[test]
fn every_answer_has_a_document_that_is_an_object() {
    let explanation = Explanation {
        path: "/a\nb".to_owned(),
        class: "source".to_owned(),
        rule: "built-in glob *.c".to_owned(),
        stored_class: "source".to_owned(),
        size: 10,
        extents: 1,
        hole_bytes: 0,
        shards: vec![("local".to_owned(), 10)],
        classes: vec![],
        containers: 1,
        stored_bytes_estimate: 9,
    };
    let check = CheckReport {
        inodes: 1,
        dirents: 2,
        extents: 3,
        old_versions: 0,
        chunks: 4,
        containers: 5,
        bytes_read: 6,
        problems: vec!["Extent without chunk".to_owned()],
        more_problems: 1000,
    };
    let all = [
        Response::Deleted(2),
        Response::WouldFree(Amount::default()),
        Response::Stats(Box::new(report())),
        Response::Classes(vec![]),
        Response::Explanation(Box::new(explanation)),
        Response::Shards(vec![shard()]),
        Response::Shard(shard()),
        Response::Check(Box::new(check)),
        Response::Unmounted,
        Response::Detached,
    ];
    for response in &all {
        assert!(document(response).unwrap().is_object(), "{response:?}");
        let text = text(response);
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
    }
    assert!(text(&all[4]).contains("/a\\nb"));
    assert!(text(&all[7]).starts_with("Extent without chunk\n1,001 problems in 1 inodes"));
}
