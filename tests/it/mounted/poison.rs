//! A commit that fails stops all writing, keeps what can be read readable, says why, and is over
//! with the next mount.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::helper::{Mounted, os_error};
use crate::testkit::{MIB, NO_BACKGROUND_COMMITS, random_bytes, run, stratafs, try_run};

const EIO: i32 = 5;
const EROFS: i32 = 30;

/// Every way to change something is refused, every way to look works; `cause` is what is said.
fn assert_stopped(m: &Mounted, good: &[u8], cause: &str) {
    assert_eq!(os_error(fs::write(m.path("late"), b"x")), EROFS);
    assert_eq!(os_error(fs::create_dir(m.path("late"))), EROFS);
    assert_eq!(os_error(fs::remove_file(m.path("good"))), EROFS);
    assert_eq!(os_error(fs::rename(m.path("good"), m.path("late"))), EROFS);
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots/late"))), EROFS);
    assert_eq!(os_error(File::open(m.path("")).unwrap().sync_all()), EIO, "not a success, ever");
    assert!(fs::read(m.path("good")).unwrap() == good);
    assert!(fs::read(m.path(".snapshots/s/good")).unwrap() == good);
    assert!(fs::read_dir(m.path("")).unwrap().count() >= 1);
    m.ask(&["snapshot", "create"], &["late"]).refused(10, &["stopped accepting writes", cause]);
    let status = m.ask_json(&["status"], &[]);
    let told = status["poisoned"].as_str().unwrap_or_else(|| panic!("{status:#}"));
    assert!(told.contains(cause), "{told}");
    let log = fs::read_to_string(m.volume().join("stratafs.log")).unwrap();
    assert_eq!(log.matches("Volume stops accepting writes").count(), 1, "the first cause, once");
}

fn with_good_file(m: &Mounted) -> Vec<u8> {
    let good = random_bytes(1, MIB);
    fs::write(m.path("good"), &good).unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    good
}

fn assert_healed(m: &mut Mounted, good: &[u8]) {
    m.mount();
    assert!(m.ask_json(&["status"], &[])["poisoned"].is_null());
    assert!(fs::read(m.path("good")).unwrap() == good);
    assert!(!m.path("late").exists());
    fs::write(m.path("again"), good).unwrap();
    File::open(m.path("again")).unwrap().sync_all().unwrap();
    m.remount();
    assert!(fs::read(m.path("again")).unwrap() == good);
    m.assert_sound();
}

/// The next container cannot be made: a file lies where its folder should be.
/// SEMANTICS §5.2.
#[test]
fn a_shard_that_takes_no_container_stops_writing_and_nothing_else() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let good = with_good_file(&m);
    let folders = m.volume().join("shards/0/containers");
    let free = (0..=255).map(|n| folders.join(format!("{n:02x}")));
    let planted: Vec<_> = free.filter(|folder| !folder.exists()).collect();
    assert!(planted.len() > 200);
    planted.iter().for_each(|folder| fs::write(folder, b"").unwrap());
    // Another class, and so another container.
    let mut file = File::create(m.path("new.jpg")).unwrap();
    file.write_all(b"\xff\xd8\xff\xe0").unwrap();
    file.write_all(&random_bytes(2, MIB)).unwrap();
    assert_eq!(os_error(file.sync_all()), EIO);
    drop(file);

    assert_stopped(&m, &good, "shards/0/containers/");
    stratafs(&["umount", &m.text("")]).refused(10, &["stopped accepting writes"]);
    assert!(!m.is_mounted(), "it is unmounted all the same");
    planted.iter().for_each(|folder| fs::remove_file(folder).unwrap());
    assert_healed(&mut m, &good);
}

/// The metadata log cannot be written. Whether a failed batch is on the disk nobody knows, so this
/// must not be tried again.
/// SEMANTICS §1.9: `EIO` once, and from then on. SEMANTICS §5.2.
#[test]
fn a_metadata_log_that_takes_nothing_stops_writing() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let good = with_good_file(&m);
    let meta = m.volume().join("meta");
    let names = fs::read_dir(&meta).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<_> = names.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    assert!(!logs.is_empty());
    let frozen = Immutable::new(&logs);
    fs::create_dir(m.path("late")).unwrap();
    assert_eq!(os_error(File::open(m.path("")).unwrap().sync_all()), EIO);
    drop(frozen);

    // The log can be written again, and still nothing is.
    fs::write(m.path("good"), b"x").unwrap_err();
    assert_eq!(os_error(File::open(m.path("")).unwrap().sync_all()), EIO);
    let status = m.ask_json(&["status"], &[]);
    assert!(status["poisoned"].as_str().unwrap().contains("Metadata write failed"), "{status:#}");
    assert!(fs::read(m.path("good")).unwrap() == good);
    m.end_by("KILL");
    assert_healed(&mut m, &good);
}

/// Files that nobody may write, not even through a descriptor that is open.
struct Immutable<'a>(Vec<&'a Path>);

impl<'a> Immutable<'a> {
    fn new(paths: &'a [std::path::PathBuf]) -> Self {
        let this = Self(paths.iter().map(std::path::PathBuf::as_path).collect());
        this.0.iter().for_each(|path| drop(run("chattr", &["+i", path.to_str().unwrap()])));
        this
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(try_run("chattr", &["-i", path.to_str().unwrap()])));
    }
}
