//! Removing what is large, and what is still open.

use stratafs::gc;
use stratafs::types::At;

use crate::testkit::{KIB, MIB, TestVolume, errno, random_bytes, read_all, wait_until};

/// Many more extents than one txg removes, although they are few bytes: every second cell of a
/// file with fixed cells of 4 KiB holds the same chunk.
const SMALL_CELLS: &str = r#"
[limits]
commit_interval_secs = 3600
[classes.image]
chunking = "fixed"
avg_bytes = "4KiB"
"#;
const EXTENTS: u64 = 9_000;
const STEP: u64 = 8 * KIB as u64;

fn with_many_extents() -> TestVolume {
    let t = TestVolume::with_config(SMALL_CELLS);
    let file = t.create("/huge.img");
    let cell = random_bytes(1, 4 * KIB);
    for number in 0..EXTENTS {
        file.write(number * STEP, &cell).unwrap();
    }
    file.finish().unwrap();
    drop(file);
    t.commit().unwrap();
    assert_eq!(t.explain(At::Live, b"/huge.img").unwrap().extents, EXTENTS);
    t
}

fn live_bytes(t: &TestVolume) -> u64 {
    t.stats_report().unwrap().live_bytes
}

#[test]
fn a_huge_file_is_removed_in_pieces() {
    for crash in [false, true] {
        let mut t = with_many_extents();
        t.remove("/huge.img");
        assert!(t.resolve(At::Live, b"/huge.img").is_err());
        t.commit().unwrap();
        if crash {
            t.crash();
        } else {
            t.reopen();
        }
        wait_until("the extents are removed", || live_bytes(&t) == 0);
        gc::run(&t).unwrap();
        t.assert_sound();
    }
}

#[test]
fn a_huge_cut_is_seen_at_once_and_finished_later() {
    for crash in [false, true] {
        let mut t = with_many_extents();
        t.truncate("/huge.img", 5000);
        if crash {
            t.commit().unwrap();
            t.crash();
        }
        // Growing again must not show what is not yet removed.
        t.truncate("/huge.img", EXTENTS * STEP);
        let file = t.open("/huge.img");
        let mut expected = random_bytes(1, 4 * KIB);
        expected.resize(MIB, 0);
        assert_eq!(file.read(0, MIB).unwrap(), expected);
        assert!(read_all(&file)[4 * KIB..].iter().all(|b| *b == 0));
        file.write(STEP * 5, b"new").unwrap();
        drop(file);
        t.reopen();
        assert_eq!(t.open("/huge.img").read(STEP * 5, 3).unwrap(), b"new");
        wait_until("the extents are removed", || live_bytes(&t) < 20_000);
        t.assert_sound();
    }
}

#[test]
fn a_snapshot_keeps_a_huge_file_that_was_removed() {
    let mut t = with_many_extents();
    let before = read_all(&t.open("/huge.img"));
    let snapshot = t.snapshot_create(b"s").unwrap();
    t.remove("/huge.img");
    t.reopen();
    gc::run(&t).unwrap();
    assert!(t.read_in(&snapshot, "/huge.img") == before);
    t.assert_sound();
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let (file, second) = (t.open("/a.bin"), t.open("/a.bin"));
    t.remove("/a.bin");
    file.write(500, b"still here").unwrap();
    t.commit().unwrap();
    gc::run(&t).unwrap();
    let mut expected = random_bytes(1, MIB);
    expected[500..510].copy_from_slice(b"still here");
    assert!(read_all(&file) == expected);
    assert_eq!(file.stat().unwrap().inode.nlink, 0);
    drop(file);
    assert!(read_all(&second) == expected, "another one has it open");
    let ino = second.ino();
    drop(second);
    wait_until("the inode is gone", || errno(&t.stat(At::Live, ino)).is_some());
    assert_eq!(live_bytes(&t), 0);
    t.assert_sound();
}

/// The name goes while an old tail is still being cut: what lies before the tail is read on.
#[test]
fn a_cut_file_that_is_unlinked_keeps_what_was_not_cut() {
    let t = with_many_extents();
    let file = t.open("/huge.img");
    let expected = file.read(0, 24 * KIB).unwrap();
    assert!(expected.iter().any(|byte| *byte != 0));
    t.truncate("/huge.img", 24 * KIB as u64);
    t.remove("/huge.img");
    file.write(24 * KIB as u64, b"new").unwrap();
    t.finish_removals().unwrap();
    assert_eq!(file.read(0, 24 * KIB).unwrap(), expected);
    assert_eq!(file.read(24 * KIB as u64, 10).unwrap(), b"new");
    t.commit().unwrap();
    drop(file);
    wait_until("the rest is removed", || live_bytes(&t) == 0);
    t.assert_sound();
}

/// SEMANTICS §2.16: the next opening removes it.
#[test]
fn an_unlinked_open_file_is_gone_after_a_crash() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let file = t.open("/a.bin");
    let ino = file.ino();
    t.remove("/a.bin");
    t.commit().unwrap();
    drop(file);
    t.crash();
    wait_until("the inode is gone", || errno(&t.stat(At::Live, ino)).is_some());
    t.assert_sound();
}

/// The content of a file in a deleted snapshot stays while somebody has it open.
#[test]
fn a_deleted_snapshot_stays_readable_where_it_is_open() {
    let t = TestVolume::new();
    let data = random_bytes(1, 40 * MIB);
    t.write_file("/a.bin", &data);
    let snapshot = t.snapshot_create(b"s").unwrap();
    let at = At::Epoch(snapshot.epoch);
    let file = t.open_file(at, t.ino("/a.bin")).unwrap();
    t.remove("/a.bin");
    t.snapshot_delete(b"s").unwrap();
    gc::run(&t).unwrap();
    gc::run(&t).unwrap();
    assert!(read_all(&file) == data);
    drop(file);
    let report = gc::run(&t).unwrap();
    assert!(report.history_pruned > 0 && report.containers_freed >= 1, "{report:#?}");
}
