//! A snapshot, and a commit, is one instant of the whole tree.

use std::sync::atomic::{AtomicBool, Ordering};

use stratafs::types::{At, Snapshot};

use crate::testkit::{TestVolume, random_bytes};

fn number_in(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// So many that draining them takes a while: whoever looks at them one by one sees them differ.
const FILES: usize = 30;

fn make_files(t: &TestVolume) {
    (0..FILES).for_each(|file| t.write_file(&format!("/{file}"), &0u64.to_le_bytes()));
}

/// Writes a rising number into one file after the other, until told to stop.
fn write_in_turns(t: &TestVolume, done: &AtomicBool) {
    let files: Vec<_> = (0..FILES).map(|file| t.open(&format!("/{file}"))).collect();
    let mut number = number_in(&t.read_file("/0"));
    while !done.load(Ordering::Relaxed) {
        // The first turn ends what a crash cut off: it may be the only one, on a busy machine.
        for (place, file) in files.iter().enumerate() {
            file.write(0, &number.to_le_bytes()).unwrap();
            if (number + place as u64).is_multiple_of(41) {
                file.finish().unwrap();
            }
        }
        number += 1;
    }
}

/// One instant shows the same number everywhere, or one less from some file on.
fn assert_one_instant(numbers: &[u64], what: &str) {
    assert!(numbers.is_sorted_by(|before, after| before >= after), "{what}: {numbers:?}");
    assert!(numbers[0] - numbers[FILES - 1] <= 1, "{what}: {numbers:?}");
}

/// SEMANTICS §4.1: of the whole volume at one instant.
#[test]
fn a_snapshot_under_writers_is_one_instant() {
    let t = TestVolume::new();
    make_files(&t);
    let done = AtomicBool::new(false);
    let snapshots: Vec<Snapshot> = std::thread::scope(|threads| {
        threads.spawn(|| write_in_turns(&t, &done));
        let taken = (0..30).map(|n| t.snapshot_create(format!("{n}").as_bytes()).unwrap());
        let taken = taken.collect();
        done.store(true, Ordering::Relaxed);
        taken
    });

    let mut before = 0;
    for snapshot in &snapshots {
        let read = |file| number_in(&t.read_in(snapshot, &format!("/{file}")));
        let numbers: Vec<u64> = (0..FILES).map(read).collect();
        assert_one_instant(&numbers, "a snapshot");
        assert!(numbers[0] >= before, "a later snapshot shows an earlier state");
        before = numbers[0];
    }
    assert!(before > 0, "the writer never ran");
}

/// A crash shows one instant, too: the last commit.
/// SEMANTICS §1.5.
#[test]
fn a_crash_under_writers_leaves_one_instant() {
    let mut t = TestVolume::new();
    make_files(&t);
    t.commit().unwrap();
    for _ in 0..20 {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| write_in_turns(&t, &done));
            (0..4).for_each(|_| t.commit().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        t.crash();
        let read = |file| number_in(&t.read_file(&format!("/{file}")));
        assert_one_instant(&(0..FILES).map(read).collect::<Vec<_>>(), "after a crash");
    }
    t.assert_sound();
}

/// rsync's last step: a good file is replaced by a new one, never by an empty one.
/// SEMANTICS §1.5.
#[test]
fn a_crash_never_leaves_an_empty_file_where_a_good_one_was() {
    let mut t = TestVolume::new();
    let (old, new) = (random_bytes(1, 100_000), random_bytes(2, 100_000));
    t.write_file("/file", &old);
    t.commit().unwrap();
    t.write_file("/.file.Ab12Cd", &new);
    t.move_to("/.file.Ab12Cd", "/file");
    t.crash();
    t.assert_content("/file", &old);
    assert!(t.resolve(At::Live, b"/.file.Ab12Cd").is_err());
    t.write_file("/.file.Ab12Cd", &new);
    t.move_to("/.file.Ab12Cd", "/file");
    t.commit().unwrap();
    t.crash();
    t.assert_content("/file", &new);
}

#[test]
fn concurrent_commits_share_one() {
    let t = TestVolume::new();
    t.write_file("/warm", b"up");
    t.commit().unwrap();
    let activity = t.activity(|| {
        std::thread::scope(|threads| {
            for number in 0..32 {
                let t = &t;
                threads.spawn(move || {
                    t.write_file(&format!("/{number}"), &random_bytes(number, 1000));
                    t.commit().unwrap();
                });
            }
        });
    });
    assert!((1..=32).contains(&activity.commits), "{activity:#?}");
}
