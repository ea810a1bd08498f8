//! Imports trees of files from outside, without a kernel's round trip per operation.
//!
//! Guarantees: each file is there as its source was or as before, never in part; what an import
//! left and nobody changed since, neither here nor there, is not read again; when [`run`] returns,
//! everything is durable. What cannot be read is said and left as it is here. A run that was cut
//! off is run again: what was complete at the last commit is recognized.
//! Relies on: `volume` for each step. Does not: know the mount; who has one passes a [`Host`].
//!
//! One thread walks the sources, compares, removes and makes directories; others read files, many
//! small ones at once, and store them. Neighbours travel together, so they lie together. Memory is
//! bounded, but for 48 bytes per hard-linked file, up to a million of them.

mod delete;
mod destination;
mod file;
mod hardlinks;
mod listing;
mod options;
mod report;
mod source;
mod walk;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use options::{ImportOptions, Rule, Rules};
pub use report::{ImportChange, ImportReport, ImportWhat};

use self::file::Job;
use self::walk::Walk;
use crate::error::{Error, Result};
use crate::queue::{Failure, Queue};
use crate::types::Changed;
use crate::volume::Volume;

/// Something to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// An absolute path.
    pub path: PathBuf,
    /// What is in this directory, not the directory itself.
    pub contents: bool,
}

/// Who asked.
pub struct Host<'a> {
    /// Is told what changed, by several threads.
    pub changed: &'a (dyn Fn(Changed<'_>) + Sync),
    /// Is told how far it is.
    pub progress: &'a mut dyn FnMut(&str),
    /// True ends the work between two files.
    pub stop: &'a dyn Fn() -> bool,
    /// Where the volume itself lies and is seen: what must not be imported into it.
    pub own: &'a [PathBuf],
}

/// What the threads of an import share.
struct Shared<'a> {
    volume: &'a Arc<Volume>,
    changed: &'a (dyn Fn(Changed<'_>) + Sync),
    report: Mutex<ImportReport>,
    read_bytes: AtomicU64,
    /// What ended the work.
    failure: Failure,
    /// Who reads.
    reader: u32,
}

/// Imports `sources` into the directory `dest` of the live tree, a path from the root.
///
/// # Errors
/// `NotFound` for a source that is not there; `Invalid` for sources and destinations that cannot
/// be used; `NoSpace`, `ReadOnly`, `Poisoned`; `Busy` when it was stopped; faults. What was
/// imported before stays. Single files that cannot be read are no errors: the report has them.
pub fn run(
    volume: &Arc<Volume>,
    sources: &[Source],
    dest: &[u8],
    options: &ImportOptions,
    host: Host<'_>,
) -> Result<ImportReport> {
    check(sources, options, host.own)?;
    let dest = destination::open(volume, dest, options.dry_run, host.changed)?;
    let shared = Shared {
        volume,
        changed: host.changed,
        report: Mutex::new(ImportReport { dry_run: options.dry_run, ..ImportReport::default() }),
        read_bytes: AtomicU64::new(0),
        failure: Failure::default(),
        reader: crate::sys::mount::effective_ids().0,
    };
    let queue = Queue::new();
    let import = |job: Job| file::import(&shared, job);
    queue.work_beside(("import", !options.dry_run), &shared.failure, &import, || {
        let mut walk = Walk::new(&shared, &queue, options, host);
        sources.iter().try_for_each(|source| walk.source(source, dest))?;
        walk.finish()
    });
    let mut report = shared.report.into_inner();
    report.read_bytes = shared.read_bytes.into_inner();
    let durable = if options.dry_run { Ok(()) } else { volume.commit() };
    shared.failure.into_result()?;
    durable.map(|()| report)
}

/// Refuses what would go wrong later.
fn check(sources: &[Source], options: &ImportOptions, own: &[PathBuf]) -> Result<()> {
    let of_contents = sources.iter().filter(|source| source.contents).count();
    if options.delete && of_contents > 1 {
        return Err(Error::invalid(
            "With --delete only one source may end with /: each would delete what is of the others",
        ));
    }
    let mut names = HashSet::new();
    for Source { path, contents } in sources {
        let shown = path.display();
        std::fs::symlink_metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("source {shown}")),
            std::io::ErrorKind::NotADirectory => {
                Error::invalid(format!("Source {shown} is not a directory"))
            }
            _ => Error::io("look at", path, e),
        })?;
        if *contents && !std::fs::metadata(path).is_ok_and(|m| m.is_dir()) {
            return Err(Error::invalid(format!("Source {shown}/ is not a directory")));
        }
        if !contents && !names.insert(path.file_name()) {
            return Err(Error::invalid(format!(
                "Two sources have the name of {shown}; import them into different directories"
            )));
        }
        let above = path.parent().filter(|_| !contents).zip(path.file_name());
        let real = match above {
            Some((above, name)) => std::fs::canonicalize(above).map(|above| above.join(name)),
            None => std::fs::canonicalize(path),
        };
        let real = real.map_err(|e| Error::io("look at", path, e))?;
        let root =
            if *contents { Path::new("") } else { Path::new(path.file_name().unwrap_or_default()) };
        refuse_own((path, &real, root), options, own)?;
    }
    Ok(())
}

/// What is imported must not grow by being imported. `root` is where rules begin.
fn refuse_own(
    (path, real, root): (&Path, &Path, &Path),
    options: &ImportOptions,
    own: &[PathBuf],
) -> Result<()> {
    for place in own {
        let place = std::fs::canonicalize(place).unwrap_or_else(|_| place.clone());
        let shown = place.display();
        if real.starts_with(&place) {
            return Err(Error::invalid(format!(
                "Source {} lies in {shown}, which is of this volume",
                path.display()
            )));
        }
        let Ok(below) = place.strip_prefix(real) else { continue };
        let below = root.join(below);
        if !options.rules.exclude_below(&below) && !options.one_file_system {
            return Err(Error::invalid(format!(
                "Source {} holds {shown}, which is of this volume; exclude it, as with \
                 --exclude /{}",
                path.display(),
                below.display()
            )));
        }
    }
    Ok(())
}
