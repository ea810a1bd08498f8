//! Gc frees what nothing needs any more, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use stratafs::error::Error;
use stratafs::gc;

use crate::testkit::{MIB, TestVolume, random_bytes};

/// More than two containers' worth, a little less than 64 MiB of which fill whole ones.
const LARGE: usize = 70 * MIB;

#[test]
fn what_only_a_deleted_snapshot_needed_is_freed() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, LARGE));
    t.snapshot_create(b"old").unwrap();
    t.remove("/a.bin");
    t.write_file("/b.bin", &random_bytes(2, MIB));
    t.reopen();
    let kept = gc::run(&t).unwrap();
    assert_eq!(kept.containers_freed, 0, "a snapshot needs them: {kept:#?}");
    let before = t.stats_report().unwrap().stored_bytes;

    t.snapshot_delete(b"old").unwrap();
    let report = gc::run(&t).unwrap();

    assert!(report.history_pruned > 0, "{report:#?}");
    assert!(report.freed_bytes >= 60 * MIB as u64, "{report:#?}");
    let after = t.stats_report().unwrap().stored_bytes;
    // The file that is left was stored anew, for its container was mostly dead.
    let gained = before - after + report.repacked_bytes;
    assert!(gained.abs_diff(report.freed_bytes) < 64 * 1024, "but for footers: {report:#?}");
    t.assert_content("/b.bin", &random_bytes(2, MIB));
    t.assert_sound();
    t.crash();
    t.assert_sound();
}

/// The space is free on the disk, too, not only in the books.
#[test]
fn freed_containers_leave_the_shard() {
    fn bytes_below(dir: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| match entry.metadata().unwrap() {
                found if found.is_dir() => bytes_below(&entry.path()),
                found => found.len(),
            })
            .sum()
    }
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, LARGE));
    t.reopen();
    let shards = t.volume_dir().join("shards");
    assert!(bytes_below(&shards) >= LARGE as u64);
    t.remove("/a.bin");
    let report = gc::run(&t).unwrap();
    t.reopen();
    assert!(bytes_below(&shards) <= (LARGE - 60 * MIB) as u64, "{report:#?}");
}

/// A chunk whose container was freed is stored anew when it is written again.
#[test]
fn freed_content_can_be_written_again() {
    let mut t = TestVolume::new();
    let data = random_bytes(1, LARGE);
    t.write_file("/a.bin", &data);
    t.reopen();
    t.remove("/a.bin");
    assert!(gc::run(&t).unwrap().containers_freed >= 2);

    let again = t.counting(|| t.write_file("/b.bin", &data));

    assert!(again.new_bytes >= 60 * MIB as u64, "{again:#?}");
    t.assert_content("/b.bin", &data);
    t.assert_sound();
}

/// Between marking and sweeping, dead content is found again and used: it must not be swept.
#[test]
fn content_that_comes_back_to_life_while_gc_runs_stays() {
    let mut t = TestVolume::new();
    let data = random_bytes(1, LARGE);
    t.write_file("/a.bin", &data);
    t.reopen();
    t.remove("/a.bin");
    t.finish_removals().unwrap();
    t.commit().unwrap();
    let marking = t.begin_marking().unwrap();
    assert_eq!(marking.piece(None, usize::MAX).unwrap(), None);
    assert_eq!(marking.marks().count(), 0, "nothing refers to it");

    let again = t.counting(|| t.write_file("/b.bin", &data));

    assert_eq!(again.new_chunks, 0, "it is known still: {again:#?}");
    for (id, _) in t.store_for_check().containers().unwrap() {
        assert!(!marking.free_if_dead(id).unwrap(), "container {id} is in use again");
    }
    drop(marking);
    t.reopen();
    t.assert_content("/b.bin", &data);
    t.assert_sound();
}

/// What is swept is unknown from that moment on, also before the sweep is durable.
#[test]
fn content_that_comes_back_after_the_sweep_is_stored_anew() {
    for crash in [false, true] {
        let mut t = TestVolume::new();
        let data = random_bytes(1, LARGE);
        t.write_file("/a.bin", &data);
        t.reopen();
        t.remove("/a.bin");
        t.finish_removals().unwrap();
        t.commit().unwrap();
        let marking = t.begin_marking().unwrap();
        marking.piece(None, usize::MAX).unwrap();
        let swept = t.store_for_check().containers().unwrap();
        let swept = swept.iter().filter(|(id, _)| marking.free_if_dead(*id).unwrap());
        assert!(swept.count() >= 2);
        drop(marking);

        let before = t.stats().totals();
        t.write_file("/b.bin", &data);
        let again = t.stats().totals().since(&before);

        assert!(again.new_bytes >= 60 * MIB as u64, "{again:#?}");
        if crash {
            t.crash();
            t.write_file("/b.bin", &data);
        }
        t.commit().unwrap();
        t.crash();
        t.assert_content("/b.bin", &data);
        t.assert_sound();
    }
}

#[test]
fn an_old_version_needed_by_one_snapshot_stays() {
    let t = TestVolume::new();
    let versions: Vec<_> = (0..4).map(|n| random_bytes(n, 300_000)).collect();
    let mut snapshots = Vec::new();
    for (number, data) in versions.iter().enumerate() {
        if number > 0 {
            t.remove("/a.bin");
        }
        t.write_file("/a.bin", data);
        snapshots.push(t.snapshot_create(format!("s{number}").as_bytes()).unwrap());
    }
    for gone in [1, 3, 0] {
        t.snapshot_delete(format!("s{gone}").as_bytes()).unwrap();
        gc::run(&t).unwrap();
        assert_eq!(t.read_in(&snapshots[2], "/a.bin"), versions[2]);
        t.assert_content("/a.bin", &versions[3]);
        t.assert_sound();
    }
}

#[test]
fn gc_and_check_wait_for_no_one_and_say_so() {
    let t = TestVolume::new();
    let alone = t.maintenance().unwrap();
    let error = gc::run(&t).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(alone);
    gc::run(&t).unwrap();
}

/// Writers store, find again, snapshot and remove the same contents while gc runs: whatever order
/// they come in, what is there at the end is whole.
#[test]
fn gc_under_writers_frees_nothing_that_is_needed() {
    let mut t = TestVolume::new();
    let contents: Vec<_> = (0..40).map(|seed| random_bytes(seed, MIB)).collect();
    let done = AtomicBool::new(false);
    let (t_ref, contents_ref, done_ref) = (&t, &contents, &done);
    let freed: u64 = std::thread::scope(|threads| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                threads.spawn(move || {
                    t_ref.mkdir(&format!("/{writer}"));
                    for round in 0..150u64 {
                        let number = (round * 7 + writer * 13 + round / 40) as usize % 40;
                        let path = format!("/{writer}/{}", round % 10);
                        if round >= 10 {
                            t_ref.remove(&path);
                        }
                        t_ref.write_file(&path, &contents_ref[number]);
                        if round % 50 == 25 {
                            let name = format!("{writer}-{round}");
                            t_ref.snapshot_create(name.as_bytes()).unwrap();
                            t_ref.snapshot_delete(name.as_bytes()).unwrap();
                        }
                    }
                })
            })
            .collect();
        let collector = threads.spawn(move || {
            let mut freed = 0;
            while !done_ref.load(Ordering::Relaxed) {
                freed += gc::run(t_ref).unwrap().containers_freed;
            }
            freed
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        collector.join().unwrap()
    });
    log::info!("{freed} containers were freed meanwhile");
    for writer in 0..3u64 {
        for last in 140..150u64 {
            let number = (last * 7 + writer * 13 + last / 40) as usize % 40;
            t.assert_content(&format!("/{writer}/{}", last % 10), &contents[number]);
        }
    }
    t.assert_sound();
    t.reopen();
    t.assert_sound();
}

/// Live chunks between dead ones do not keep the space: they move, and nobody notices.
#[test]
fn mostly_dead_containers_are_repacked() {
    let mut t = TestVolume::new();
    let content = |n: u64| random_bytes(100 + n, MIB);
    for n in 0..60 {
        t.write_file(&format!("/{n}.bin"), &content(n));
    }
    t.snapshot_create(b"keeps-7").unwrap();
    for n in (0..60).filter(|n| n % 5 != 0) {
        t.remove(&format!("/{n}.bin"));
    }
    let kept = gc::run(&t).unwrap();
    assert_eq!((kept.freed_bytes, kept.repacked_bytes), (0, 0), "the snapshot has all of it");
    t.snapshot_delete(b"keeps-7").unwrap();
    let before = t.stats_report().unwrap().stored_bytes;

    let report = gc::run(&t).unwrap();

    assert!(report.repacked_bytes >= 12 * MIB as u64, "{report:#?}");
    assert!(report.repacked_bytes <= 14 * MIB as u64, "only live data is copied: {report:#?}");
    let after = t.stats_report().unwrap().stored_bytes;
    assert!(before - after >= 45 * MIB as u64, "{before} to {after}: {report:#?}");
    t.assert_sound();
    t.crash();
    for n in (0..60).filter(|n| n % 5 == 0) {
        t.assert_content(&format!("/{n}.bin"), &content(n));
    }
    t.assert_sound();
    let again = gc::run(&t).unwrap();
    assert_eq!((again.freed_bytes, again.repacked_bytes), (0, 0), "{again:#?}");
}
