//! What fsync promises, one promise each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use stratafs::check::{self, CheckOptions};
use stratafs::env::{Fault, Faults, Point, SeededRandom};
use stratafs::error::Error;
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{NewInode, RenameMode, Volume};

use super::machine::{Left, Machine};
use super::work::{Site, env};
use crate::testkit::{random_bytes, read_all, wait_until};

const EROFS: i32 = 30;

/// A new volume whose fault points are watched.
struct Setup {
    site: Site,
    machine: Arc<Machine>,
    faults: Faults,
    volume: Arc<Volume>,
}

fn setup() -> Setup {
    let (site, machine) = Site::new();
    let machine = Arc::new(machine);
    let faults = Faults::watching(machine.power.clone());
    let volume = site.open(&machine, &env(1, faults.clone())).unwrap();
    Setup { site, machine, faults, volume }
}

impl Setup {
    /// Cuts the power now, and opens the least, or anything, that may be left.
    fn after_power_cut(self, left: Left, seed: u64) -> (Site, Arc<Volume>) {
        let Self { site, machine, volume, .. } = self;
        machine.power.cut();
        drop(volume);
        let machine = Arc::new(machine.after_power_cut(left, &SeededRandom::new(seed)));
        let volume = site.open(&machine, &env(2, Faults::default())).unwrap();
        (site, volume)
    }
}

fn make(volume: &Volume, name: &[u8]) -> Ino {
    let kind = FileKind::Regular;
    let new =
        NewInode { kind, perm: 0o644, uid: 0, gid: 0, rdev: 0, target: b"", xattrs: Vec::new() };
    volume.make(Ino::ROOT, name, &new).unwrap().ino
}

fn write(volume: &Arc<Volume>, name: &[u8], data: &[u8]) {
    let ino = make(volume, name);
    volume.open_file(At::Live, ino).unwrap().write(0, data).unwrap();
}

fn read(volume: &Arc<Volume>, name: &[u8]) -> Option<Vec<u8>> {
    let ino = volume.lookup(At::Live, Ino::ROOT, name).unwrap()?.ino;
    Some(read_all(&volume.open_file(At::Live, ino).unwrap()))
}

/// While one commit is under way eight callers come; the next one serves them all.
/// SEMANTICS §1.1: a commit covers what was changed before it began.
#[test]
fn concurrent_fsyncs_share_a_commit() {
    let t = setup();
    let (held, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tell, wait) = (Arc::clone(&held), Arc::clone(&go_on));
    let hold = move || {
        tell.store(true, SeqCst);
        wait_until("the others wait", || wait.load(SeqCst));
    };
    t.faults.arm(Point::CommitSeal, 1, Fault::Call(Arc::new(hold)));
    let before = t.volume.stats().activity.copy().commits;
    let returned = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = |number: u8| {
            write(&t.volume, &[b'a' + number], &random_bytes(number.into(), 5000));
            t.volume.commit().unwrap();
            returned.fetch_add(1, SeqCst);
        };
        scope.spawn(move || work(0));
        wait_until("the first commit is under way", || held.load(SeqCst));
        (1..9).for_each(|number| drop(scope.spawn(move || work(number))));
        wait_until("all wait", || t.volume.commit_waiters() == 9);
        assert_eq!(returned.load(SeqCst), 0);
        go_on.store(true, SeqCst);
    });
    assert_eq!(t.volume.stats().activity.copy().commits - before, 2);
    let (_site, volume) = t.after_power_cut(Left::Least, 0);
    for number in 0..9 {
        let data = random_bytes(number.into(), 5000);
        assert!(read(&volume, &[b'a' + number]) == Some(data), "file {number}");
    }
}

/// Whatever fails in a commit, the first cause stays, reading goes on, and opening again heals.
#[test]
fn a_failed_commit_poisons_and_the_first_cause_stays() {
    let poisons = [
        (Point::ContainerSync, Fault::Io),
        // What a sync did not confirm is not known to be there, full disk or not.
        (Point::ContainerSync, Fault::Full),
        (Point::FrameAppend, Fault::Io),
        (Point::SealRows, Fault::Io),
        (Point::CommitBatch, Fault::Io),
        (Point::CommitWritten, Fault::Io),
    ];
    for (point, fault) in poisons {
        let t = setup();
        write(&t.volume, b"old", b"durable");
        t.volume.commit().unwrap();
        t.faults.arm(point, 1, fault.clone());
        write(&t.volume, b"new", b"not yet");
        let failed = t.volume.commit();
        assert!(matches!(failed, Err(Error::Poisoned { .. })), "{point:?} {fault:?}: {failed:?}");
        t.faults.arm(Point::CommitBegin, 1, Fault::Io);
        assert_eq!(t.volume.commit().map_err(|e| e.errno()), Err(EROFS));
        let first = t.volume.status().unwrap().poisoned.expect("poisoned");
        assert!(first.contains(point.name()), "{first}");
        let old = t.volume.lookup(At::Live, Ino::ROOT, b"old").unwrap().unwrap().ino;
        let file = t.volume.open_file(At::Live, old).unwrap();
        assert_eq!(file.write(0, b"x").map_err(|e| e.errno()), Err(EROFS));
        assert_eq!(read_all(&file), b"durable");
        drop(file);
        assert_eq!(t.volume.shutdown().map_err(|e| e.errno()), Err(EROFS));
        let (_site, volume) = t.after_power_cut(Left::Least, 0);
        assert_eq!(read(&volume, b"old").as_deref(), Some(&b"durable"[..]));
        write(&volume, b"more", b"goes on");
        volume.commit().unwrap();
        assert_eq!(volume.status().unwrap().poisoned, None);
    }
}

/// What a full disk refused is tried again by the next commit, the batch included.
#[test]
fn a_full_disk_loses_nothing() {
    let points = [
        Point::CommitBegin,
        Point::DrainIngest,
        Point::DrainStage,
        Point::CommitGate,
        Point::CommitSeal,
        Point::SealDrain,
        Point::SealRows,
        Point::ContainerCreate,
        Point::ContainerHeader,
        Point::FrameAppend,
        Point::CommitBatch,
        Point::CommitWritten,
    ];
    for point in points {
        let t = setup();
        let data = random_bytes(7, 30_000);
        write(&t.volume, b"a", &data);
        t.faults.arm(point, 1, Fault::Full);
        let failed = t.volume.commit();
        assert!(matches!(failed, Err(Error::NoSpace { .. })), "{point:?}: {failed:?}");
        assert_eq!(t.volume.status().unwrap().poisoned, None);
        write(&t.volume, b"b", b"meanwhile");
        t.volume.commit().unwrap_or_else(|e| panic!("{point:?}: {e}"));
        let (_site, volume) = t.after_power_cut(Left::Least, 0);
        assert!(read(&volume, b"a") == Some(data), "{point:?}");
        assert_eq!(read(&volume, b"b").as_deref(), Some(&b"meanwhile"[..]));
    }
}

/// Rename without fsync, as rsync does: the cut shows the old file or the new one, whole.
#[test]
fn a_file_replaced_without_fsync_is_the_old_or_the_new_one() {
    let (old, new) = (random_bytes(1, 40_000), random_bytes(2, 50_000));
    let (mut olds, mut news) = (0, 0);
    let points = Point::ALL.iter().filter(|point| {
        let name = point.name();
        ["drain.", "container.", "frame.", "seal.", "commit."].iter().any(|p| name.starts_with(p))
    });
    for (number, point) in points.enumerate() {
        for fault in [Fault::Cut, Fault::CutDuring] {
            for left in [Left::Least, Left::Torn, Left::TornWithBatch] {
                let t = setup();
                write(&t.volume, b"good", &old);
                t.volume.commit().unwrap();
                t.faults.arm(*point, 1, fault.clone());
                write(&t.volume, b".good.Ab12Cd", &new);
                let names = ((Ino::ROOT, &b".good.Ab12Cd"[..]), (Ino::ROOT, &b"good"[..]));
                t.volume.rename(names.0, names.1, RenameMode::Replace).unwrap();
                let _ = t.volume.commit();
                let (_site, volume) = t.after_power_cut(left, number as u64);
                match read(&volume, b"good") {
                    Some(found) if found == old => olds += 1,
                    Some(found) if found == new => news += 1,
                    found => panic!(
                        "{} {fault:?} {left:?}: {:?} bytes of neither",
                        point.name(),
                        found.map(|f| f.len())
                    ),
                }
                assert_eq!(read(&volume, b".good.Ab12Cd"), None, "old or new, nothing between");
            }
        }
    }
    assert!(olds > 10 && news > 10, "{olds} old, {news} new: both are to be met");
}

/// Between two pieces of a removal a commit stores what was still buffered, before the place where
/// the removal goes on. Nothing of it may stay.
#[test]
fn a_commit_between_two_pieces_of_a_removal_leaves_nothing() {
    let t = setup();
    let ino = make(&t.volume, b"a.c");
    let file = t.volume.open_file(At::Live, ino).unwrap();
    file.write(0, &random_bytes(1, 600_000)).unwrap();
    t.volume.commit().unwrap();
    let (weak, committed) = (Arc::downgrade(&t.volume), Arc::new(AtomicBool::new(false)));
    let tell = Arc::clone(&committed);
    let commit = move || {
        weak.upgrade().unwrap().commit().unwrap();
        tell.store(true, SeqCst);
    };
    t.faults.arm(Point::ReapNext, 1, Fault::Call(Arc::new(commit)));
    file.write(0, &random_bytes(2, 20_000)).unwrap();
    drop(file);
    t.volume.unlink(Ino::ROOT, b"a.c").unwrap();
    wait_until("the file is removed", || t.volume.stat(At::Live, ino).is_err());
    assert!(committed.load(SeqCst), "there was a piece to come");
    t.volume.commit().unwrap();
    let report = check::run(&t.volume, CheckOptions { read_data: true }, &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}
