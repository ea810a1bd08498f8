//! Small contents that come with the answer to an opening.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::helper::{Mounted, take};
use crate::testkit::random_bytes;

const FILES: u64 = 60;

fn content(n: u64) -> Vec<u8> {
    random_bytes(n, 100 + 2_000 * usize::try_from(n).unwrap())
}

fn requests(m: &Mounted) -> u64 {
    m.ask_json(&["stats"], &[])["activity"]["requests"].as_u64().unwrap()
}

/// Requests that reading all files below `dir` takes.
fn read_all(m: &Mounted, dir: &str) -> u64 {
    let at = |n: u64| m.path(&format!("{dir}/f{n}"));
    (0..FILES).for_each(|n| assert_eq!(fs::metadata(at(n)).unwrap().nlink(), 1));
    let before = requests(m);
    (0..FILES).for_each(|n| assert!(fs::read(at(n)).unwrap() == content(n), "f{n}"));
    requests(m) - before
}

/// An opening and a closing each, and nobody asks to read: in a snapshot, where two names on the
/// way are looked up each time, and in the live tree; whether the kernel has the pages or is given
/// them.
#[test]
fn reading_a_small_file_takes_no_request_of_its_own() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    (0..FILES).for_each(|n| fs::write(m.path(&format!("d/f{n}")), content(n)).unwrap());
    take(&m, "s");
    for mounted in ["first", "second"] {
        for (dir, each) in [(".snapshots/s/d", 4), ("d", 2)] {
            for time in ["first", "second"] {
                let requests = read_all(&m, dir);
                let said = format!("{requests} requests, {time} time in {dir}, {mounted} mount");
                assert!(requests <= each * FILES + 10, "{said}");
            }
        }
        m.remount();
    }
    m.assert_sound();
}

/// What one change of many leaves in the file, told beforehand.
fn change(path: &Path, now: &mut Vec<u8>, step: u64) {
    let fresh = random_bytes(step, 1 + usize::try_from(step * 37 % 9_000).unwrap());
    let open = |truncate| OpenOptions::new().write(true).truncate(truncate).open(path).unwrap();
    match step % 4 {
        0 => {
            fs::write(path, &fresh).unwrap();
            *now = fresh;
        }
        1 => {
            let at = now.len() / 2;
            open(false).write_all_at(&fresh, at as u64).unwrap();
            now.resize(now.len().max(at + fresh.len()), 0);
            now[at..at + fresh.len()].copy_from_slice(&fresh);
        }
        2 => {
            now.resize(now.len() / 3, 0);
            // truncate(2) takes no descriptor that a writer would have.
            open(false).set_len(now.len() as u64).unwrap();
        }
        _ => {
            now.resize(now.len() + 5_000, 0);
            open(false).set_len(now.len() as u64).unwrap();
        }
    }
}

/// Whoever opens a file while it changes may see the one or the other; what the kernel keeps is
/// the newer one.
#[test]
fn what_was_given_while_a_file_changed_is_not_what_is_kept() {
    let m = Mounted::new();
    let paths: Vec<_> = (0..4).map(|n| m.path(&format!("f{n}"))).collect();
    paths.iter().for_each(|path| fs::write(path, b"x").unwrap());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for path in &paths {
                        drop(File::open(path).unwrap());
                    }
                }
            });
        }
        let writers: Vec<_> = paths
            .chunks(2)
            .map(|mine| {
                threads.spawn(move || {
                    let mut now = vec![b"x".to_vec(), b"x".to_vec()];
                    for step in 0..400 {
                        for (path, now) in mine.iter().zip(&mut now) {
                            change(path, now, step);
                            let found = fs::read(path).unwrap();
                            assert!(found == *now, "step {step} of {}", path.display());
                            assert_eq!(fs::metadata(path).unwrap().len(), now.len() as u64);
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    m.assert_sound();
}
