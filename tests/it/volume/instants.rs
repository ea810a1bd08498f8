//! A snapshot, and a commit, is one instant of the whole tree.

use std::sync::atomic::{AtomicBool, Ordering};

use stratafs::types::{At, Snapshot};

use crate::testkit::{TestVolume, random_bytes};

fn number_in(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Somebody writes a number into A and then the same into B: no instant shows B ahead of A.
#[test]
fn a_snapshot_under_writers_is_one_instant() {
    let t = TestVolume::new();
    t.write_file("/a", &0u64.to_le_bytes());
    t.write_file("/b", &0u64.to_le_bytes());
    let done = AtomicBool::new(false);
    let snapshots: Vec<Snapshot> = std::thread::scope(|threads| {
        threads.spawn(|| {
            let (a, b) = (t.open("/a"), t.open("/b"));
            let mut number = 0u64;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                a.write(0, &number.to_le_bytes()).unwrap();
                if number.is_multiple_of(7) {
                    a.finish().unwrap();
                }
                b.write(0, &number.to_le_bytes()).unwrap();
            }
        });
        let taken = (0..30).map(|n| t.snapshot_create(format!("{n}").as_bytes()).unwrap());
        let taken = taken.collect();
        done.store(true, Ordering::Relaxed);
        taken
    });

    let mut before = 0;
    for snapshot in &snapshots {
        let a = number_in(&t.read_in(snapshot, "/a"));
        let b = number_in(&t.read_in(snapshot, "/b"));
        assert!(b <= a && a <= b + 1, "a snapshot shows a = {a} and b = {b}");
        assert!(a >= before, "a later snapshot shows an earlier state");
        before = a;
    }
    assert!(before > 0, "the writer never ran");
}

/// A crash shows one instant, too: the last commit.
#[test]
fn a_crash_under_writers_leaves_one_instant() {
    let mut t = TestVolume::new();
    for round in 0..5 {
        let (a, b) = (format!("/a{round}"), format!("/b{round}"));
        t.write_file(&a, &0u64.to_le_bytes());
        t.write_file(&b, &0u64.to_le_bytes());
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let (a, b) = (t.open(&a), t.open(&b));
                let mut number = 0u64;
                while !done.load(Ordering::Relaxed) {
                    number += 1;
                    a.write(0, &number.to_le_bytes()).unwrap();
                    b.write(0, &number.to_le_bytes()).unwrap();
                }
            });
            (0..10).for_each(|_| t.commit().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        t.crash();
        let (a, b) = (number_in(&t.read_file(&a)), number_in(&t.read_file(&b)));
        assert!(b <= a && a <= b + 1, "a crash left a = {a} and b = {b}");
    }
    t.assert_sound();
}

/// rsync's last step: a good file is replaced by a new one, never by an empty one.
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
