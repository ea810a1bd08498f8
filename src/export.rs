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
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use report::{ExportChange, ExportReport, ExportWhat};

use self::file::Job;
use self::walk::Walk;
use crate::error::{Error, Result};
use crate::queue::{Failure, Queue};
use crate::sys::disk;
use crate::types::{Epoch, Ino};
use crate::volume::Volume;

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
    failure: Failure,
    /// We may give files to others.
    is_root: bool,
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
        failure: Failure::default(),
        is_root: crate::sys::mount::effective_ids().0 == 0,
    };
    let queue = Queue::new();
    let export = |job: Job| {
        let mut tasks = job.into_iter().take_while(|_| !shared.failure.is_there());
        tasks.try_for_each(|task| file::export(&shared, &task))
    };
    queue.work_beside(("export", !dry_run), &shared.failure, &export, || {
        Walk::new(&shared, &queue, host).all(origin, PathBuf::from(dest), existed)
    });
    drop(queue);
    let durable = if dry_run { Ok(()) } else { disk::sync_all_of(dest) };
    let mut report = shared.report.into_inner();
    report.written_bytes = shared.written_bytes.into_inner();
    shared.failure.into_result()?;
    durable.map(|()| report).map_err(|e| Error::io("sync", dest, e))
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
