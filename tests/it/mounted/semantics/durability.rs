//! When a change is durable, and what is one change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::python;
use crate::mounted::helper::Mounted;
use crate::testkit::{KIB, NO_BACKGROUND_COMMITS, random_bytes, wait_until};

fn commits(m: &Mounted) -> u64 {
    m.ask_json(&["stats"], &[])["activity"]["commits"].as_u64().unwrap()
}

/// SEMANTICS §1.3: `O_SYNC` and `O_DSYNC` count for `write`, and for nothing else.
#[test]
fn o_sync_is_for_writes() {
    let m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    fs::write(m.path("other"), random_bytes(1, 100_000)).unwrap();
    for flag in ["os.O_SYNC", "os.O_DSYNC"] {
        let with = |lines: &str| {
            let open = format!("fd = os.open('f', os.O_RDWR | os.O_CREAT | {flag})\n");
            let before = commits(&m);
            python(&m, &(open + lines));
            commits(&m) - before
        };
        let others = "os.ftruncate(fd, 200000)\n\
                      syscall(285, fd, 0, ctypes.c_long(0), ctypes.c_long(300000))\n\
                      from_ = os.open('other', os.O_RDONLY)\n\
                      os.copy_file_range(from_, fd, 100000, 0, 0)";
        assert_eq!(with(others), 0, "{flag} counts for more than it is said to");
        assert_eq!(with("os.pwrite(fd, b'x', 5)"), 1, "{flag}");
    }
}

/// SEMANTICS §1.4: without any sync a change is durable after the commit interval.
#[test]
fn a_change_is_durable_after_the_interval() {
    let mut m = Mounted::with(&[], "[limits]\ncommit_interval_secs = 1\n");
    let data = random_bytes(1, 200 * KIB);
    let before = commits(&m);
    fs::write(m.path("f"), &data).unwrap();
    wait_until("a commit that nobody asked for", || commits(&m) > before);
    // That one may have begun before the write.
    fs::write(m.path("second"), b"").unwrap();
    let before = commits(&m);
    wait_until("another one", || commits(&m) > before);
    m.end_by("KILL");
    m.mount();
    assert!(fs::read(m.path("f")).unwrap() == data);
    m.assert_sound();
}

/// SEMANTICS §1.7: a `write` of up to 128 KiB, through a descriptor that only writes, is in a
/// snapshot whole or not at all.
#[test]
fn one_write_is_one_change() {
    const BYTES: usize = 128 * KIB;
    let m = Mounted::new();
    fs::write(m.path("f"), vec![0; BYTES]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let file = OpenOptions::new().write(true).open(m.path("f")).unwrap();
            for number in (0..=u8::MAX).cycle() {
                file.write_all_at(&vec![number; BYTES], 0).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        (0..20).for_each(|n| fs::create_dir(m.path(&format!(".snapshots/{n}"))).unwrap());
        done.store(true, Ordering::Relaxed);
    });
    for number in 0..20 {
        let found = fs::read(m.path(&format!(".snapshots/{number}/f"))).unwrap();
        assert_eq!(found.len(), BYTES);
        assert!(found.iter().all(|byte| *byte == found[0]), "snapshot {number} has half a write");
    }
}
