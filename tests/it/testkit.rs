//! What the tests share: volumes in temporary directories, bytes, disks, the built program.

mod bytes;
mod disk;
mod program;
mod rot;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use stratafs::check::{self, CheckOptions};
use stratafs::env::{Env, StepClock};
use stratafs::error::{Error, Result};
use stratafs::stats::{ActivityTotals, ClassTotals};
use stratafs::types::{At, Cookie, FileKind, Ino, Snapshot};
use stratafs::volume::{
    AttrChange, InitOptions, Listed, NewInode, OpenFile, OpenOptions, RenameMode, Volume,
};
use tempfile::TempDir;

pub use bytes::{KIB, MIB, random_bytes, splitmix64, text_bytes};
pub use disk::SmallDisk;
pub use program::{Ran, run, run_in, run_with, stratafs, try_run, wait_until};
pub use rot::{container_files, rot};

/// No commit but those that are asked for.
pub const NO_BACKGROUND_COMMITS: &str = "[limits]\ncommit_interval_secs = 3600\n";

/// What a kernel would hand over in one write.
const WRITE_BYTES: usize = 256 * KIB;

/// A volume in a temporary directory that is removed with it. Dropping it is a crash.
pub struct TestVolume {
    volume: Option<Arc<Volume>>,
    env: Env,
    dir: PathBuf,
    /// Removed after the volume in it was closed.
    temp: Option<TempDir>,
}

impl TestVolume {
    /// With default classes, and commits only when asked for.
    pub fn new() -> Self {
        Self::with_config(NO_BACKGROUND_COMMITS)
    }

    /// With this configuration file.
    pub fn with_config(config: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("volume");
        let mut this = Self::in_dir(&dir, config);
        this.temp = Some(temp);
        this
    }

    /// In a directory of the caller's, for example on a small disk.
    pub fn in_dir(dir: &Path, config: &str) -> Self {
        let env = Env::with_clock(Arc::new(StepClock::default()));
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("config.toml"), config).unwrap();
        Volume::init(dir, &InitOptions { env: env.clone() }).unwrap();
        let mut this = Self { volume: None, env, dir: dir.to_owned(), temp: None };
        this.open_again();
        this
    }

    /// The volume that lies in `dir`, for example a copy of another one.
    pub fn at(dir: &Path) -> Self {
        let env = Env::with_clock(Arc::new(StepClock::default()));
        let mut this = Self { volume: None, env, dir: dir.to_owned(), temp: None };
        this.open_again();
        this
    }

    pub fn volume_dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the configuration file; it counts from the next opening on.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.dir.join("config.toml"), text).unwrap();
    }

    /// Adds a shard on a directory of its own and returns where.
    pub fn add_shard(&self, name: &str) -> PathBuf {
        let path = self.dir.with_file_name(format!("shard-{name}"));
        self.shard_add(&path, name, 1).unwrap();
        path
    }

    pub fn try_open(&self, read_only: bool) -> Result<Arc<Volume>> {
        let purpose = "a test".to_owned();
        Volume::open(&self.dir, OpenOptions { env: self.env.clone(), purpose, read_only })
    }

    fn open_again(&mut self) {
        // A child that another test starts has a copy of our lock until it becomes its program.
        wait_until("the lock is free", || match self.try_open(false) {
            Err(Error::Busy { .. }) => false,
            opened => {
                self.volume = Some(opened.unwrap());
                true
            }
        });
    }

    /// Shuts down and opens again.
    pub fn reopen(&mut self) {
        self.close();
        self.open_again();
    }

    /// Shuts down.
    pub fn close(&mut self) {
        let volume = self.volume.take().expect("open");
        volume.shutdown().unwrap();
        drop_last(volume);
    }

    /// Loses everything since the last commit, as a crash does, and opens again.
    pub fn crash(&mut self) {
        drop_last(self.volume.take().expect("open"));
        self.open_again();
    }

    /// Loses everything since the last commit, and stays closed.
    pub fn abandon(&mut self) {
        drop_last(self.volume.take().expect("open"));
    }

    /// Opens after [`TestVolume::close`].
    pub fn open_closed(&mut self) {
        assert!(self.volume.is_none());
        self.open_again();
    }

    // ---- names

    pub fn ino(&self, path: &str) -> Ino {
        self.resolve(At::Live, path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}")).ino
    }

    fn split<'a>(&self, path: &'a str) -> (Ino, &'a [u8]) {
        let path = path.trim_start_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(dir), name.as_bytes())
    }

    pub fn make_kind(&self, path: &str, kind: FileKind, target: &str) -> Ino {
        let (parent, name) = self.split(path);
        let perm = if kind == FileKind::Directory { 0o755 } else { 0o644 };
        let target = target.as_bytes();
        let new = NewInode { kind, perm, uid: 0, gid: 0, rdev: 0, target, xattrs: Vec::new() };
        self.make(parent, name, &new).unwrap_or_else(|e| panic!("{path}: {e}")).ino
    }

    pub fn mkdir(&self, path: &str) -> Ino {
        self.make_kind(path, FileKind::Directory, "")
    }

    pub fn create(&self, path: &str) -> OpenFile {
        let ino = self.make_kind(path, FileKind::Regular, "");
        self.open_file(At::Live, ino).unwrap()
    }

    pub fn open(&self, path: &str) -> OpenFile {
        self.open_file(At::Live, self.ino(path)).unwrap()
    }

    pub fn remove(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.unlink(parent, name).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    pub fn move_to(&self, from: &str, to: &str) {
        self.rename(self.split(from), self.split(to), RenameMode::Replace).unwrap();
    }

    pub fn truncate(&self, path: &str, size: u64) {
        let change = AttrChange { size: Some(size), ..AttrChange::default() };
        self.set_attributes(self.ino(path), &change).unwrap();
    }

    pub fn list_all(&self, at: At, dir: Ino) -> Vec<Listed> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map_or(Cookie(0), |last| last.cookie);
            let some = self.list(at, dir, after, 3).unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    // ---- bytes

    /// Makes a file and writes it in kernel-sized pieces, as rsync does.
    pub fn write_file(&self, path: &str, data: &[u8]) {
        self.try_write_file(path, data).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    pub fn try_write_file(&self, path: &str, data: &[u8]) -> Result<()> {
        let (parent, name) = self.split(path);
        let new = NewInode {
            kind: FileKind::Regular,
            perm: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
            xattrs: Vec::new(),
        };
        let ino = self.make(parent, name, &new)?.ino;
        let file = self.open_file(At::Live, ino)?;
        for (piece, bytes) in data.chunks(WRITE_BYTES).enumerate() {
            file.write((piece * WRITE_BYTES) as u64, bytes)?;
        }
        file.finish()
    }

    pub fn read_file(&self, path: &str) -> Vec<u8> {
        self.read_file_at(At::Live, path)
    }

    pub fn read_in(&self, snapshot: &Snapshot, path: &str) -> Vec<u8> {
        self.read_file_at(At::Epoch(snapshot.epoch), path)
    }

    fn read_file_at(&self, at: At, path: &str) -> Vec<u8> {
        let ino = self.resolve(at, path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}")).ino;
        read_all(&self.open_file(at, ino).unwrap())
    }

    pub fn assert_content(&self, path: &str, expected: &[u8]) {
        assert_same_bytes(&self.read_file(path), expected, path);
    }

    // ---- counters

    /// What `work` and the commit after it counted.
    pub fn counting(&self, work: impl FnOnce()) -> ClassTotals {
        self.commit().unwrap();
        let before = self.stats().totals();
        work();
        self.commit().unwrap();
        self.stats().totals().since(&before)
    }

    /// What the volume did during `work`.
    pub fn activity(&self, work: impl FnOnce()) -> ActivityTotals {
        let before = self.stats().activity.copy();
        work();
        self.stats().activity.copy().since(&before)
    }

    /// Every reference resolves and every chunk reads.
    pub fn assert_sound(&self) {
        self.commit().unwrap();
        let report = check::run(self, CheckOptions { read_data: true }, &mut |_| {}).unwrap();
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }
}

impl Deref for TestVolume {
    type Target = Arc<Volume>;
    fn deref(&self) -> &Arc<Volume> {
        self.volume.as_ref().expect("open")
    }
}

impl Drop for TestVolume {
    /// The directory goes after the database is closed, or it could not be removed.
    fn drop(&mut self) {
        let Some(volume) = self.volume.take() else { return };
        if std::thread::panicking() {
            // Others may hold it for good; a second panic would hide the first.
            drop(volume);
        } else {
            drop_last(volume);
        }
    }
}

/// Drops what should be the last reference: a background thread may hold another for a moment.
fn drop_last(volume: Arc<Volume>) {
    let gone: Weak<Volume> = Arc::downgrade(&volume);
    drop(volume);
    wait_until("the volume is dropped", || gone.strong_count() == 0);
}

/// The whole content of an open file.
pub fn read_all(file: &OpenFile) -> Vec<u8> {
    let size = file.stat().unwrap().inode.size;
    let mut data = Vec::with_capacity(usize::try_from(size).unwrap());
    while (data.len() as u64) < size {
        let piece = file.read(data.len() as u64, MIB).unwrap();
        assert!(!piece.is_empty(), "a read of {} stops at {} of {size}", file.ino(), data.len());
        data.extend(piece);
    }
    data
}

/// Like `assert_eq`, without printing megabytes.
pub fn assert_same_bytes(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    assert_eq!(found.len(), expected.len(), "length of {what}");
    let at = found.iter().zip(expected).position(|(f, e)| f != e).unwrap();
    let wrong = found.iter().zip(expected).filter(|(f, e)| f != e).count();
    let end = (at + 8).min(found.len());
    panic!(
        "{what}: {wrong} bytes differ from byte {at} on: {:02x?} instead of {:02x?}",
        &found[at..end],
        &expected[at..end]
    );
}

/// The error's number, for comparing with what POSIX says.
pub fn errno<T>(result: &Result<T>) -> Option<i32> {
    result.as_ref().err().map(Error::errno)
}
