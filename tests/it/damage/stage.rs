//! A volume that is prepared once and copied for every cell, and the judgement of a damaged copy.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stratafs::check::{self, CheckOptions, CheckReport};
use stratafs::env::Env;
use stratafs::error::{Error, Result};
use stratafs::kv::{RocksKv, RocksOptions};
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{NewInode, OpenOptions, Volume};
use tempfile::TempDir;

use crate::testkit::{
    KIB, NO_BACKGROUND_COMMITS, TestVolume, random_bytes, text_bytes, wait_until,
};

/// A cell that takes longer hangs.
const CELL_TIME_MAX: Duration = Duration::from_mins(1);

/// Files by path, with their bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The prepared volume: closed by a crash, with table files, a log with three commits in it, sealed
/// and open containers of several classes, and a snapshot.
pub struct Original {
    _temp: TempDir,
    pub dir: PathBuf,
    /// In the live tree, all committed.
    pub live: Files,
    /// In snapshot `old`.
    pub old: Files,
    /// Of the live files, those that only the log knows.
    pub in_log: Vec<String>,
}

pub fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(prepare)
}

fn prepare() -> Original {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("volume");
    let mut t = TestVolume::in_dir(&dir, NO_BACKGROUND_COMMITS);
    let mut live = Files::new();
    let put = |t: &TestVolume, live: &mut Files, path: &str, data: Vec<u8>| {
        t.write_file(path, &data);
        live.insert(path.to_owned(), data);
    };
    t.mkdir("/src");
    for n in 0..60 {
        let data = text_bytes(n, 3000 + 200 * usize::try_from(n).unwrap());
        put(&t, &mut live, &format!("/src/file{n}.rs"), data);
    }
    put(&t, &mut live, "/film.mp4", random_bytes(1, 900 * KIB));
    put(&t, &mut live, "/table.db", random_bytes(2, 200 * KIB));
    put(&t, &mut live, "/junk.bin", random_bytes(3, 700 * KIB));
    t.commit().unwrap();
    t.snapshot_create(b"old").unwrap();
    let old = live.clone();
    // Closed containers have footers to damage.
    put(&t, &mut live, "/dead.zip", random_bytes(4, 400 * KIB));
    t.commit().unwrap();
    for path in ["/dead.zip", "/src/file7.rs"] {
        t.remove(path);
        live.remove(path);
    }
    t.store_for_check().close_open();
    stratafs::gc::run(&t).unwrap();
    put(&t, &mut live, "/second.mp4", random_bytes(5, 500 * KIB));
    t.close();
    let meta = RocksKv::open(&dir.join("meta"), &RocksOptions::default()).unwrap();
    meta.flush().unwrap();
    drop(meta);
    t.open_closed();
    let mut in_log = Vec::new();
    for n in 0..3 {
        let path = format!("/src/late{n}.rs");
        put(&t, &mut live, &path, text_bytes(100 + n, 9000));
        in_log.push(path);
        t.commit().unwrap();
    }
    leave(t);
    Original { _temp: temp, dir, live, old, in_log }
}

/// Leaves a volume as a crash does.
fn leave(mut t: TestVolume) {
    t.abandon();
}

/// A copy of the original, to be damaged.
pub struct Copy {
    _temp: TempDir,
    pub dir: PathBuf,
}

impl Copy {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("volume");
        copy_tree(&original().dir, &dir);
        Self { _temp: temp, dir }
    }

    pub fn open(&self, read_only: bool) -> Result<Arc<Volume>> {
        let mut opened = None;
        wait_until("the lock is free", || {
            let options =
                OpenOptions { env: Env::system(), purpose: "a test".to_owned(), read_only };
            match Volume::open(&self.dir, options) {
                Err(Error::Busy { .. }) => false,
                result => {
                    opened = Some(result);
                    true
                }
            }
        });
        opened.expect("set above")
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What became of a damaged copy.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why it was not opened for writing.
    pub refused: Option<(u8, String)>,
    /// It could be read, for writing or not.
    pub readable: bool,
    /// Paths (with `old:` before those of the snapshot) that gave errors, or were not there.
    pub failed: Vec<String>,
    /// Of these, those that were missing without an error.
    pub missing: Vec<String>,
    /// What `check --read-data` said.
    pub problems: Vec<String>,
    /// It took a new file and kept it over a reopening.
    pub writable: bool,
}

/// Opens a copy and looks at everything in it. Panics, hangs and wrong bytes fail the test.
pub fn judge(copy: Copy, what: &str) -> Outcome {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| look(&copy)));
        let _ = sender.send(outcome);
    });
    match receiver.recv_timeout(CELL_TIME_MAX) {
        Ok(Ok(outcome)) => {
            thread.join().unwrap();
            outcome
        }
        Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => panic!("{what}: panicked"),
        Err(RecvTimeoutError::Timeout) => panic!("{what}: hangs"),
    }
}

fn look(copy: &Copy) -> Outcome {
    let mut outcome = Outcome::default();
    let volume = match copy.open(false) {
        Ok(volume) => Some(volume),
        Err(e) => {
            outcome.refused = Some((e.exit_code(), e.to_string()));
            copy.open(true).ok()
        }
    };
    let Some(volume) = volume else { return outcome };
    outcome.readable = true;
    let original = original();
    read_all_files(&volume, At::Live, "", &original.live, &mut outcome);
    match volume.snapshot_named(b"old") {
        Some(old) => {
            read_all_files(&volume, At::Epoch(old.epoch), "old:", &original.old, &mut outcome);
        }
        None => outcome.failed.push("old:".to_owned()),
    }
    outcome.problems = match run_check(&volume) {
        Ok(report) => report.problems,
        Err(e) => vec![e.to_string()],
    };
    let writable = outcome.refused.is_none() && take_a_file(&volume);
    let _ = volume.shutdown();
    close(volume);
    outcome.writable = writable && keeps_it(copy);
    outcome
}

pub fn run_check(volume: &Volume) -> Result<CheckReport> {
    check::run(volume, CheckOptions { read_data: true }, &mut |_| {})
}

pub fn close(volume: Arc<Volume>) {
    let gone = Arc::downgrade(&volume);
    drop(volume);
    wait_until("the volume is dropped", || gone.strong_count() == 0);
}

/// Every byte that a read returns has to be the one that was written.
fn read_all_files(volume: &Arc<Volume>, at: At, prefix: &str, files: &Files, out: &mut Outcome) {
    for (path, expected) in files {
        let name = format!("{prefix}{path}");
        let stat = match volume.resolve(at, path.as_bytes()) {
            Ok(stat) => stat,
            Err(Error::NotFound { .. }) => {
                out.missing.push(name.clone());
                out.failed.push(name);
                continue;
            }
            Err(_) => {
                out.failed.push(name);
                continue;
            }
        };
        assert_eq!(stat.inode.size, expected.len() as u64, "size of {name}");
        let Ok(file) = volume.open_file(at, stat.ino) else {
            out.failed.push(name);
            continue;
        };
        let mut failed = false;
        for offset in (0..expected.len()).step_by(16 * KIB) {
            let end = expected.len().min(offset + 16 * KIB);
            match file.read(offset as u64, 16 * KIB) {
                Ok(bytes) => assert!(bytes == expected[offset..end], "wrong bytes in {name}"),
                Err(e) => {
                    assert_eq!(e.errno(), 5, "{name}: {e}");
                    failed = true;
                }
            }
        }
        if failed {
            out.failed.push(name);
        }
    }
}

fn take_a_file(volume: &Arc<Volume>) -> bool {
    put_file(volume, b"after.mp4", &random_bytes(77, 100 * KIB))
}

/// Makes a file in the root and commits it.
pub fn put_file(volume: &Arc<Volume>, name: &[u8], data: &[u8]) -> bool {
    let new = NewInode {
        kind: FileKind::Regular,
        perm: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: b"",
        xattrs: Vec::new(),
    };
    let done = volume.make(Ino::ROOT, name, &new).and_then(|made| {
        volume.open_file(At::Live, made.ino)?.write(0, data)?;
        volume.commit()
    });
    done.is_ok()
}

fn keeps_it(copy: &Copy) -> bool {
    let Ok(volume) = copy.open(false) else { return false };
    let read = volume
        .resolve(At::Live, b"after.mp4")
        .and_then(|stat| volume.open_file(At::Live, stat.ino)?.read(0, 100 * KIB));
    let kept = read.is_ok_and(|bytes| bytes == random_bytes(77, 100 * KIB));
    close(volume);
    kept
}
