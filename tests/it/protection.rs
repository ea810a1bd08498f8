//! Holds and locks: what is protected stays, whoever asks, and is let go only as promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use stratafs::env::{Clock, Env};
use stratafs::error::{Error, Result};
use stratafs::types::Timestamp;
use stratafs::volume::{InitOptions, OpenOptions, Volume};

use crate::testkit::{errno, wait_until};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const DAY: i64 = 86_400;

/// A clock that somebody sets.
#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp { secs: self.0.load(Ordering::Relaxed), nanos: 0 }
    }
}

struct Stage {
    clock: Arc<SetClock>,
    volume: Option<Arc<Volume>>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(1000 * DAY)));
        let mut stage = Self { clock, volume: None, dir };
        Volume::init(&stage.dir.path().join("v"), &InitOptions { env: stage.env() }).unwrap();
        stage.open();
        stage
    }

    fn env(&self) -> Env {
        Env::with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    fn open(&mut self) {
        if let Some(volume) = self.volume.take() {
            volume.shutdown().unwrap();
        }
        let (dir, env) = (self.dir.path().join("v"), self.env());
        wait_until("the lock is free", || {
            let purpose = "a test".to_owned();
            let options = OpenOptions { env: env.clone(), purpose, read_only: false };
            match Volume::open(&dir, options) {
                Err(Error::Busy { .. }) => false,
                opened => {
                    self.volume = Some(opened.unwrap());
                    true
                }
            }
        });
    }

    fn set_day(&self, day: i64) {
        self.clock.0.store(day * DAY, Ordering::Relaxed);
    }

    fn v(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.v().snapshot_delete(name.as_bytes())
    }
}

/// SEMANTICS §4.11.
#[test]
fn a_held_snapshot_stays_until_it_is_released() {
    let mut t = Stage::new();
    t.v().snapshot_create(b"a").unwrap();
    t.v().snapshot_create(b"b").unwrap();
    t.v().snapshot_hold(b"a", true).unwrap();
    for _ in 0..2 {
        let refused = t.delete("a");
        assert_eq!(errno(&refused), Some(EBUSY));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("Snapshot a is held") && text.contains("release"), "{text}");
        assert_eq!(errno(&t.v().snapshots_delete(&[b"b", b"a"])), Some(EBUSY));
        assert_eq!(t.v().snapshots().len(), 2, "all or none");
        t.open();
    }
    t.v().snapshot_rename(b"a", b"renamed").unwrap();
    assert_eq!(errno(&t.delete("renamed")), Some(EBUSY), "the hold is the snapshot's");
    t.v().snapshot_hold(b"renamed", true).unwrap();
    t.v().snapshot_hold(b"renamed", false).unwrap();
    t.v().snapshot_hold(b"renamed", false).unwrap();
    t.delete("renamed").unwrap();
    assert_eq!(errno(&t.v().snapshot_hold(b"renamed", true)), Some(ENOENT));
}

/// SEMANTICS §4.12.
#[test]
fn a_lock_only_grows_and_ends_by_itself() {
    let mut t = Stage::new();
    t.v().snapshot_create(b"a").unwrap();
    let lock = |t: &Stage, day: i64| t.v().snapshot_lock(b"a", day * DAY);
    assert_eq!(errno(&lock(&t, 1000)), Some(EINVAL), "now is no lock");
    assert_eq!(errno(&lock(&t, 1001 + 36_500)), Some(EINVAL), "a typo nobody could take back");
    lock(&t, 1010).unwrap();
    assert_eq!(errno(&lock(&t, 1009)), Some(EPERM), "it cannot shrink");
    lock(&t, 1010).unwrap();
    lock(&t, 1020).unwrap();
    t.v().snapshot_hold(b"a", true).unwrap();
    t.v().snapshot_hold(b"a", false).unwrap();
    for _ in 0..2 {
        let refused = t.delete("a");
        assert_eq!(errno(&refused), Some(EPERM), "releasing a hold does not unlock");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("locked until 1972-10-17T00:00:00Z"), "{text}");
        assert_eq!(errno(&t.v().snapshot_rename(b"a", b"b")), Some(EPERM));
        t.open();
    }
    t.set_day(900);
    assert_eq!(errno(&t.delete("a")), Some(EPERM), "a clock set back only makes it longer");
    t.clock.0.store(1020 * DAY - 1, Ordering::Relaxed);
    assert_eq!(errno(&t.delete("a")), Some(EPERM));
    t.set_day(1020);
    assert_eq!(t.v().snapshot_protection(&t.v().snapshots()[0]), None);
    t.delete("a").unwrap();
}

#[test]
fn a_lock_that_ended_can_begin_again() {
    let t = Stage::new();
    t.v().snapshot_create(b"a").unwrap();
    t.v().snapshot_lock(b"a", 1005 * DAY).unwrap();
    t.set_day(1006);
    t.v().snapshot_rename(b"a", b"b").unwrap();
    t.v().snapshot_lock(b"b", 1010 * DAY).unwrap();
    assert_eq!(errno(&t.delete("b")), Some(EPERM));
}
