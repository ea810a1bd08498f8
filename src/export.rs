//! Writes trees of snapshots to directories outside, without a kernel's round trip per operation.
//!
//! Guarantees: each file has its name only once it is whole, with its attributes; a name that was
//! there keeps what it had until then. What has the size and mtime of the snapshot's already is not
//! written again. Bytes that cannot be read are said, and their file is left out. When [`run`]
//! returns, all is durable.
//! Relies on: `volume` for each step. Does not: remove anything; write to the volume.
//!
//! One thread walks the snapshot and makes directories; others write files, in the order of their
//! inode numbers, which is about the order in which their bytes lie in containers. Memory is
//! bounded, but for hard-linked files: their paths, up to a million.

mod attributes;
mod file;
mod report;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

pub use report::{ExportChange, ExportReport, ExportWhat};

use self::file::Job;
use self::walk::Walk;
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::sys::disk;
use crate::types::{Epoch, Ino};
use crate::volume::Volume;

/// Threads that write files.
const WRITERS_MIN: usize = 2;
const WRITERS_MAX: usize = 8;

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Epoch of the snapshot.
    pub epoch: Epoch,
    /// The inode.
    pub ino: Ino,
    /// The name it gets in the destination; `None` for what is in a directory, not itself.
    pub name: Option<Box<[u8]>>,
}

/// Who asked.
pub struct Host<'a> {
    /// Is told how far it is.
    pub progress: &'a mut dyn FnMut(&str),
    /// True ends the work between two files.
    pub stop: &'a dyn Fn() -> bool,
}

/// What the threads of an export share.
struct Shared<'a> {
    volume: &'a Arc<Volume>,
    epoch: Epoch,
    report: Mutex<ExportReport>,
    written_bytes: AtomicU64,
    /// What ended the work.
    failure: Mutex<Option<Error>>,
    stop: AtomicBool,
    /// We may give files to others.
    is_root: bool,
}

impl Shared<'_> {
    /// Ends the work with the first cause.
    fn fail(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Exports into the directory `dest`, which is made if only its last name is missing.
///
/// # Errors
/// `Io` for a destination that cannot be used or is full; `Invalid`; `Busy` when it was stopped;
/// faults of the metadata. What was written before stays. Single files that cannot be read or
/// written are no errors: the report has them.
pub fn run(
    volume: &Arc<Volume>,
    origin: &Origin,
    dest: &Path,
    dry_run: bool,
    host: Host<'_>,
) -> Result<ExportReport> {
    let _kept = volume.keep_epoch(origin.epoch)?;
    let existed = open_destination(dest, dry_run)?;
    let shared = Shared {
        volume,
        epoch: origin.epoch,
        report: Mutex::new(ExportReport { dry_run, ..ExportReport::default() }),
        written_bytes: AtomicU64::new(0),
        failure: Mutex::new(None),
        stop: AtomicBool::new(false),
        is_root: crate::sys::mount::effective_ids().0 == 0,
    };
    let queue = Queue::new();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let writers = if dry_run { 0 } else { cores.clamp(WRITERS_MIN, WRITERS_MAX) };
    thread::scope(|scope| {
        let _close = queue.closer();
        for number in 0..writers {
            let builder = thread::Builder::new().name(format!("export-{number}"));
            let work = || work(&shared, &queue);
            if let Err(e) = builder.spawn_scoped(scope, work)
                && number == 0
            {
                let e = Error::io("start a thread for", Path::new("the export"), e);
                return shared.fail(e);
            }
        }
        let mut walk = Walk::new(&shared, &queue, host);
        if let Err(error) = walk.all(origin, PathBuf::from(dest), existed) {
            shared.fail(error);
        }
    });
    drop(queue);
    let durable = if dry_run { Ok(()) } else { disk::sync_all_of(dest) };
    let mut report = shared.report.into_inner();
    report.written_bytes = shared.written_bytes.into_inner();
    match shared.failure.into_inner() {
        Some(error) => Err(error),
        None => durable.map(|()| report).map_err(|e| Error::io("sync", dest, e)),
    }
}

fn work(shared: &Shared<'_>, queue: &Queue<Job>) {
    while let Some(job) = queue.take() {
        for task in job {
            if shared.stopped() {
                break;
            }
            if let Err(error) = file::export(shared, &task) {
                shared.fail(error);
            }
        }
        queue.done();
    }
}

/// True if the destination was there.
fn open_destination(dest: &Path, dry_run: bool) -> Result<bool> {
    match std::fs::metadata(dest) {
        Ok(facts) if facts.is_dir() => Ok(true),
        Ok(_) => Err(Error::invalid(format!("{} is not a directory", dest.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if !dry_run {
                std::fs::create_dir(dest).map_err(|e| Error::io("make", dest, e))?;
            }
            Ok(false)
        }
        Err(e) => Err(Error::io("look at", dest, e)),
    }
}
