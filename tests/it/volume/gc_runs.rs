//! Runs of gc: looking only, ending early, crashing in between, making room on a full disk.

use std::collections::BTreeMap;
use std::path::Path;

use stratafs::check;
use stratafs::error::Error;
use stratafs::gc::{self, GcOptions, GcReport};
use stratafs::kv::{KeyRange, Order, Table};
use stratafs::types::{At, Ino};
use stratafs::volume::GcOutcome;

use crate::testkit::{KIB, MIB, SmallDisk, TestVolume, random_bytes, read_all, wait_until};

/// Containers of 1 MiB, so that a few files make many.
pub(crate) const TINY_CONTAINERS: &str =
    "[limits]\ncommit_interval_secs = 3600\ncontainer_bytes = \"1MiB\"\n";
const DRY: GcOptions = GcOptions { dry_run: true, min_dead_percent: None, automatic: false };

fn look(t: &TestVolume) -> GcReport {
    gc::run_with(t, DRY, &mut |_| ()).unwrap()
}

/// Keys and values.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All rows of all tables.
fn tables(t: &TestVolume) -> BTreeMap<&'static str, Rows> {
    let state = t.metadata_snapshot();
    let rows = |table| {
        let rows = state.scan(table, &KeyRange::all(), Order::Forward).map(Result::unwrap);
        rows.map(|(key, value)| (key.into_vec(), value.into_vec())).collect()
    };
    Table::ALL.into_iter().map(|table| (table.name(), rows(table))).collect()
}

fn count(t: &TestVolume, table: Table) -> usize {
    t.metadata_snapshot().scan(table, &KeyRange::all(), Order::Forward).count()
}

fn files_below(dir: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.insert(entry.path().display().to_string(), entry.metadata().unwrap().len());
        }
    }
    files
}

/// Files of several sizes and classes, snapshots, deletions: what is left depends on `seed`.
fn untidy(t: &TestVolume, seed: u64) {
    let name = |n: u64| format!("/{n}.{}", ["bin", "txt", "jpg"][n as usize % 3]);
    let content = |n: u64| random_bytes(seed * 1000 + n, (20 + 37 * n as usize % 300) * KIB);
    for n in 0..40 {
        t.write_file(&name(n), &content(n));
    }
    t.snapshot_create(b"one").unwrap();
    for n in (0..40).filter(|n| !(n + seed).is_multiple_of(3)) {
        t.remove(&name(n));
    }
    t.snapshot_create(b"two").unwrap();
    for n in 0..10 {
        t.write_file(&format!("/new{n}.bin"), &content(100 + n));
    }
    t.snapshot_delete([&b"one"[..], b"two"][seed as usize % 2]).unwrap();
    for n in (0..10).filter(|n| (n + seed).is_multiple_of(2)) {
        t.remove(&format!("/new{n}.bin"));
    }
    if seed.is_multiple_of(3) {
        t.snapshot_delete([&b"one"[..], b"two"][1 - seed as usize % 2]).unwrap();
    }
}

/// What `--dry-run` says is what the next run does, to the byte; and it does nothing.
#[test]
fn a_dry_run_says_exactly_what_a_run_does() {
    let (mut freed, mut repacked) = (0, 0);
    for seed in 0..12 {
        let t = TestVolume::with_config(TINY_CONTAINERS);
        untidy(&t, seed);
        t.commit().unwrap();
        let (rows, files) = (tables(&t), files_below(&t.volume_dir().join("shards")));

        let said = look(&t);

        assert_eq!(tables(&t), rows, "seed {seed}");
        assert_eq!(files_below(&t.volume_dir().join("shards")), files, "seed {seed}");
        assert_eq!(t.gc_status().mark.reclaimable_bytes, said.freed_bytes);
        assert_eq!(t.gc_status().last.outcome, GcOutcome::Never);
        let did = gc::run(&t).unwrap();
        let times = |report: GcReport| GcReport {
            dry_run: false,
            mark_millis: 0,
            millis: 0,
            longest_hold_micros: 0,
            ..report
        };
        assert_eq!(times(said), times(did.clone()), "seed {seed}");
        freed += did.containers_freed - did.containers_repacked;
        repacked += did.containers_repacked;
        let left = t.gc_status();
        assert_eq!((left.mark.reclaimable_bytes, left.mark.dead_bytes), (0, did.dead_bytes_left));
        assert_eq!(left.last.freed_bytes, did.freed_bytes);
        t.assert_sound();
        let again = look(&t);
        assert_eq!((again.freed_bytes, again.repacked_bytes), (0, 0), "seed {seed}: {again:#?}");
    }
    assert!(freed > 10 && repacked > 5, "the volumes were too tidy: {freed} {repacked}");
}

/// What is removed but not yet taken apart counts as gone, unless it is open or in a snapshot.
#[test]
fn a_dry_run_sees_through_removals_that_are_not_done() {
    for (open, snapshot) in [(false, false), (true, false), (false, true)] {
        let t = TestVolume::with_config(TINY_CONTAINERS);
        t.write_file("/a.bin", &random_bytes(1, 3 * MIB));
        t.write_file("/b.bin", &random_bytes(2, 3 * MIB));
        t.commit().unwrap();
        if snapshot {
            t.snapshot_create(b"keeps").unwrap();
        }
        let file = t.open("/a.bin");
        t.remove("/a.bin");
        if !open {
            drop(file);
        }
        let said = look(&t);
        assert_eq!(said.freed_bytes > 2 * MIB as u64, !open && !snapshot, "{said:#?}");
        let did = gc::run(&t).unwrap();
        assert_eq!((said.freed_bytes, said.repacked_bytes), (did.freed_bytes, did.repacked_bytes));
        t.assert_sound();
    }
}

/// At every commit of a run the volume is copied as it lies there, which is what a crash leaves.
#[test]
fn a_crash_between_any_two_commits_of_a_run_loses_nothing() {
    let t = TestVolume::with_config(TINY_CONTAINERS);
    let name = |n: u64| format!("/{n}.bin");
    let content = |n: u64| random_bytes(n, 130 * KIB);
    for n in 0..160 {
        t.write_file(&name(n), &content(n));
    }
    t.commit().unwrap();
    // The first third is dead as a whole, of the rest every fifth file stays.
    let stays = |n: u64| n >= 53 && n.is_multiple_of(5);
    (0..160).filter(|n| !stays(*n)).for_each(|n| t.remove(&name(n)));
    let images = tempfile::tempdir().unwrap();
    let mut taken = 0;
    let report = gc::run_with(&t, GcOptions::default(), &mut |_| {
        taken += 1;
        let to = images.path().join(taken.to_string());
        let copied =
            std::process::Command::new("cp").arg("-r").arg(t.volume_dir()).arg(to).status();
        assert!(copied.unwrap().success());
    })
    .unwrap();
    assert!(report.containers_freed > 10 && report.containers_repacked > 5, "{report:#?}");
    assert!(taken >= 5, "only {taken} images");
    for image in 1..=taken {
        let crashed = TestVolume::at(&images.path().join(image.to_string()));
        for n in 0..160 {
            let found = crashed.resolve(At::Live, name(n).as_bytes());
            assert_eq!(found.is_ok(), stays(n), "{n} in image {image}");
            if stays(n) {
                crashed.assert_content(&name(n), &content(n));
            }
        }
        crashed.assert_sound();
        gc::run(&crashed).unwrap();
        assert!(look(&crashed).freed_bytes == 0, "image {image}");
        crashed.assert_sound();
    }
}

/// Stopped at whatever it does, a run leaves a sound volume, and the next one does the rest.
#[test]
fn a_run_that_is_stopped_leaves_the_rest_to_the_next() {
    let mut stops = 0;
    for stop_at in 1.. {
        let t = TestVolume::with_config(TINY_CONTAINERS);
        untidy(&t, 4);
        let expected = look(&t).freed_bytes;
        let mut steps = 0;
        let ended = gc::run_with(&t, GcOptions::default(), &mut |_| {
            steps += 1;
            if steps == stop_at {
                t.stop_gc();
            }
        });
        let last = t.gc_status().last;
        assert!(t.gc_status().running.is_none());
        let Err(error) = ended else {
            assert!(last.outcome == GcOutcome::Done && last.freed_bytes == expected);
            break;
        };
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert!(error.to_string().contains("stopped"), "{error}");
        assert_eq!(last.outcome, GcOutcome::Stopped);
        stops += 1;
        t.assert_sound();
        let rest = gc::run(&t).unwrap();
        assert!(look(&t).freed_bytes == 0 && last.freed_bytes <= expected, "{rest:#?}");
        t.assert_sound();
    }
    assert!(stops >= 4, "only {stops} places to stop at");
}

/// A command does not wait for a run that began by itself: it ends it.
#[test]
fn a_check_takes_over_from_a_run_that_began_by_itself() {
    let t = TestVolume::new();
    let (alone, ticket) = (t.maintenance().unwrap(), t.gc_begins(true));
    std::thread::scope(|threads| {
        let checking =
            threads.spawn(|| check::run(&t, check::CheckOptions::default(), &mut |_| ()));
        wait_until("the run is told to end", || ticket.is_stopped());
        drop(alone);
        assert!(checking.join().unwrap().is_ok());
    });
    drop(ticket);
    let (alone, ticket) = (t.maintenance().unwrap(), t.gc_begins(false));
    let refused = check::run(&t, check::CheckOptions::default(), &mut |_| ());
    assert!(matches!(refused, Err(Error::Busy { .. })), "one that was asked for goes on");
    assert!(!ticket.is_stopped());
    drop(alone);
}

/// Rows of the past vanish with the snapshots that showed them: history and notes of changes.
#[test]
fn pruning_leaves_no_row_that_nobody_sees() {
    let t = TestVolume::with_config(TINY_CONTAINERS);
    for n in 0..50 {
        t.write_file(&format!("/{n}"), &random_bytes(n, 5000));
    }
    for round in 0..3 {
        t.snapshot_create(format!("s{round}").as_bytes()).unwrap();
        for n in 0..50 {
            t.remove(&format!("/{n}"));
            t.write_file(&format!("/{n}"), &random_bytes(100 * round + n, 5000));
        }
    }
    t.commit().unwrap();
    let (history, changes) = (count(&t, Table::History), count(&t, Table::Change));
    assert!(history > 300 && changes > 300, "{history} {changes}");

    t.snapshot_delete(b"s1").unwrap();
    let kept = t.read_in(&t.snapshot_named(b"s0").unwrap(), "/7");
    let report = gc::run(&t).unwrap();
    assert!(report.history_pruned > 0);
    assert_eq!(count(&t, Table::History) as u64, history as u64 - report.history_pruned);
    assert_eq!(t.read_in(&t.snapshot_named(b"s0").unwrap(), "/7"), kept);

    t.snapshot_delete(b"s0").unwrap();
    t.snapshot_delete(b"s2").unwrap();
    let before = count(&t, Table::Change) as u64;
    let report = gc::run(&t).unwrap();
    assert_eq!(report.changes_pruned, before, "{report:#?}");
    assert_eq!((count(&t, Table::History), count(&t, Table::Change)), (0, 0));
    t.assert_sound();
}

/// Nothing is dead as a whole, and the disk is full but for the reserve: gc still finds a way.
#[test]
fn a_full_disk_can_be_repacked_out_of_the_reserve() {
    let disk = SmallDisk::new(200);
    let t = TestVolume::in_dir(&disk.join("volume"), TINY_CONTAINERS);
    let mut accepted = 0;
    while t.try_write_file(&format!("/{accepted}.bin"), &random_bytes(accepted, 200 * KIB)).is_ok()
    {
        accepted += 1;
        assert!(accepted < 2000, "a small disk holds everything");
    }
    t.commit().unwrap();
    for entry in t.list_all(At::Live, Ino::ROOT) {
        let number = String::from_utf8_lossy(&entry.name);
        let number: u64 = number.trim_end_matches(".bin").parse().unwrap();
        if !number.is_multiple_of(4) {
            t.unlink(Ino::ROOT, &entry.name).unwrap();
        }
    }
    let said = look(&t);
    assert!(said.containers_repacked > 20, "{said:#?}");

    let did = gc::run(&t).unwrap();

    assert_eq!(did.freed_bytes, said.freed_bytes, "{did:#?}");
    t.write_file("/more.bin", &random_bytes(9999, 20 * MIB));
    for number in (0..accepted).step_by(4) {
        t.assert_content(&format!("/{number}.bin"), &random_bytes(number, 200 * KIB));
    }
    t.assert_sound();
}

/// `--min-dead`: what is mostly alive stays, unless it is asked for.
#[test]
fn the_share_that_must_be_dead_can_be_chosen() {
    let t = TestVolume::with_config(TINY_CONTAINERS);
    for n in 0..40 {
        t.write_file(&format!("/{n}.bin"), &random_bytes(n, 250 * KIB));
    }
    t.commit().unwrap();
    (0..40).step_by(4).for_each(|n| t.remove(&format!("/{n}.bin")));
    let run = |percent| {
        let options = GcOptions { min_dead_percent: percent, ..GcOptions::default() };
        gc::run_with(&t, options, &mut |_| ()).unwrap()
    };
    let all = run(None);
    assert_eq!(all.containers_repacked, 0, "a quarter is dead: {all:#?}");
    assert!(all.dead_bytes_left > 2 * MIB as u64, "{all:#?}");
    let all = run(Some(1));
    assert!(all.containers_repacked > 5 && all.dead_bytes_left == 0, "{all:#?}");
    t.assert_sound();
}

/// The hint follows what is removed and survives a remount; a run uses it up.
#[test]
fn what_was_dropped_is_known_without_looking() {
    let mut t = TestVolume::with_config(TINY_CONTAINERS);
    let dropped = |t: &TestVolume| t.gc_status().dropped_bytes;
    t.write_file("/a.bin", &random_bytes(1, 3 * MIB));
    t.write_file("/b.bin", &random_bytes(2, MIB));
    t.commit().unwrap();
    assert_eq!(dropped(&t), 0);
    t.remove("/a.bin");
    t.finish_removals().unwrap();
    assert_eq!(dropped(&t), 3 * MIB as u64);
    t.snapshot_create(b"s").unwrap();
    t.remove("/b.bin");
    t.commit().unwrap();
    assert_eq!(dropped(&t), 3 * MIB as u64, "the snapshot has it");
    t.snapshot_delete(b"s").unwrap();
    t.crash();
    assert_eq!((dropped(&t), t.gc_status().snapshots_deleted), (3 * MIB as u64, 1));
    let report = gc::run(&t).unwrap();
    assert!(report.freed_bytes >= 4 * MIB as u64);
    t.reopen();
    let status = t.gc_status();
    assert_eq!((status.dropped_bytes, status.snapshots_deleted), (0, 0), "{status:#?}");
    assert_eq!(status.last.freed_bytes, report.freed_bytes);
    assert_eq!(status.mark.chunks_total, report.chunks_total);
}

/// A reader that opened a file of a snapshot keeps it through deletion, pruning and repacking.
#[test]
fn an_open_file_of_a_deleted_snapshot_survives_gc() {
    let t = TestVolume::with_config(TINY_CONTAINERS);
    for n in 0..40 {
        t.write_file(&format!("/{n}.bin"), &random_bytes(n, 200 * KIB));
    }
    t.snapshot_create(b"before").unwrap();
    (0..40).filter(|n| n % 8 != 3).for_each(|n| t.remove(&format!("/{n}.bin")));
    let snapshot = t.snapshot_create(b"s").unwrap();
    let at = At::Epoch(snapshot.epoch);
    let open = t.open_file(at, t.ino("/3.bin")).unwrap();
    (0..40).filter(|n| n % 8 == 3).for_each(|n| t.remove(&format!("/{n}.bin")));
    t.snapshot_delete(b"before").unwrap();
    t.snapshot_delete(b"s").unwrap();
    let report = gc::run(&t).unwrap();
    assert!(report.freed_bytes > 4 * MIB as u64 && report.repacked_bytes > 0, "{report:#?}");
    assert_eq!(read_all(&open), random_bytes(3, 200 * KIB));
    drop(open);
    gc::run(&t).unwrap();
    assert_eq!(t.stats_report().unwrap().unique_bytes, 0);
    t.assert_sound();
}
