//! Reading files and storing them: what the threads do.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::report::ImportWhat;
use super::source::{arrival, is_same, kind, sentence};
use crate::error::{Error, Result};
use crate::limits::MAGIC_BYTES;
use crate::sys::disk::open_no_follow;
use crate::sys::tree::{next_data, next_hole};
use crate::types::{Changed, FileKind, Ino};
use crate::volume::{Arrival, LargeFile, Placed, SmallFile, Spot};

/// Larger files are read and stored in pieces.
pub(super) const SMALL_BYTES: u64 = 512 * 1024;
/// Holes below this are read as zeros: they would tear chunks for little.
const HOLE_BYTES_MIN: u64 = 64 * 1024;
/// What an allocation unit of the kernel's is, for holes that begin inside one.
const PAGE_BYTES: u64 = 4096;

/// Something but a directory that is to be imported.
pub(super) struct Task {
    /// Its path outside.
    pub(super) path: PathBuf,
    /// What the walk saw of it.
    pub(super) facts: Metadata,
    pub(super) spot: Spot,
    /// What has the name and no other.
    pub(super) existing: Option<Ino>,
    pub(super) what: ImportWhat,
    /// From the root of the transfer on.
    pub(super) shown: Vec<u8>,
}

/// Neighbours, or one large file.
pub(super) type Job = Vec<Task>;

/// Why something was not read as it is.
enum Trouble {
    /// It cannot be read.
    Outside(io::Error),
    /// It is not what it was.
    Changed,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Outside(error)
    }
}

/// Imports them; what cannot be read goes into the report.
///
/// # Errors
/// What ends the import: of the volume, not of a source.
pub(super) fn import(shared: &Shared<'_>, job: Job) -> Result<()> {
    let mut small = Vec::with_capacity(job.len());
    let mut tasks = Vec::with_capacity(job.len());
    for task in job {
        if task.facts.is_file() && task.facts.len() > SMALL_BYTES {
            large(shared, task)?;
            continue;
        }
        match read_small(shared, &task) {
            Ok((arrival, data)) => {
                let Task { spot, existing, .. } = &task;
                let (spot, existing) = (spot.clone(), *existing);
                small.push(SmallFile { spot, arrival, data, existing });
                tasks.push(task);
            }
            Err(Trouble::Outside(error)) => refuse(shared, &task, sentence(&error)),
            Err(Trouble::Changed) => {
                // It may have grown large; read to where it ended, it is of one moment.
                let facts = std::fs::symlink_metadata(&task.path);
                match facts {
                    Ok(facts) if facts.is_file() => {
                        large(shared, Task { facts, ..task })?;
                    }
                    Ok(_) => refuse(shared, &task, "It became something else".to_owned()),
                    Err(error) => refuse(shared, &task, sentence(&error)),
                }
            }
        }
    }
    if small.is_empty() {
        return Ok(());
    }
    let placed = shared.volume.import_small(small)?;
    for (task, placed) in tasks.iter().zip(placed) {
        settle(shared, task, placed)?;
    }
    Ok(())
}

/// Imports one thing at once, and says what it became.
///
/// # Errors
/// As [`import`].
pub(super) fn import_now(shared: &Shared<'_>, task: Task) -> Result<Option<Ino>> {
    if task.facts.is_file() && task.facts.len() > SMALL_BYTES {
        return large(shared, task);
    }
    match read_small(shared, &task) {
        Ok((arrival, data)) => {
            let (spot, existing) = (task.spot.clone(), task.existing);
            let file = SmallFile { spot, arrival, data, existing };
            let mut placed = shared.volume.import_small(vec![file])?;
            let Some(placed) = placed.pop() else { return Ok(None) };
            settle(shared, &task, placed)
        }
        Err(Trouble::Outside(error)) => {
            refuse(shared, &task, sentence(&error));
            Ok(None)
        }
        Err(Trouble::Changed) => large(shared, task),
    }
}

fn refuse(shared: &Shared<'_>, task: &Task, why: String) {
    shared.report.lock().problem(&task.path, why);
}

/// Notes what became of a task, and makes the kernel forget what it knew.
fn settle(shared: &Shared<'_>, task: &Task, placed: Result<Placed>) -> Result<Option<Ino>> {
    let placed = match placed {
        Ok(placed) => placed,
        Err(error) if is_of_one(&error) => {
            refuse(shared, task, error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if placed.kept {
        (shared.changed)(Changed::Inode(placed.ino));
    } else {
        (shared.changed)(Changed::Name(task.spot.parent, &task.spot.name));
    }
    if let Some(replaced) = placed.replaced {
        // Its other names, if there are any, show one link less.
        (shared.changed)(Changed::Inode(replaced));
    }
    let what = if placed.kept { ImportWhat::Attributes } else { task.what };
    shared.report.lock().note(what, &task.shown);
    Ok(Some(placed.ino))
}

/// True for what hits one file only: somebody else works on the same directory, or it is too much.
fn is_of_one(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::NotDirectory
            | Error::IsDirectory
            | Error::NameTooLong { .. }
            | Error::FileTooLarge
    )
}

/// All of a small file, or of what is no regular file.
fn read_small(shared: &Shared<'_>, task: &Task) -> Result<(Arrival, Vec<u8>), Trouble> {
    let read_at = shared.volume.now();
    if !task.facts.is_file() {
        let facts = std::fs::symlink_metadata(&task.path)?;
        let kind = kind(&facts).filter(|_| !facts.is_file() && !facts.is_dir());
        let kind = kind.ok_or(Trouble::Changed)?;
        return Ok((arrival(shared, &task.path, &facts, kind, read_at)?, Vec::new()));
    }
    let file = open_no_follow(&task.path)?;
    let before = file.metadata()?;
    if !before.is_file() || before.len() > SMALL_BYTES {
        return Err(Trouble::Changed);
    }
    let mut data = Vec::with_capacity(before.len() as usize);
    (&file).take(before.len() + 1).read_to_end(&mut data)?;
    shared.read_bytes.fetch_add(data.len() as u64, Relaxed);
    let arrival = arrival(shared, &task.path, &before, FileKind::Regular, read_at)?;
    let whole = data.len() as u64 == before.len();
    if whole && is_same(&before, &file.metadata()?) {
        Ok((arrival, data))
    } else {
        Err(Trouble::Changed)
    }
}

/// A file in pieces, as long as it was when it was opened.
fn large(shared: &Shared<'_>, task: Task) -> Result<Option<Ino>> {
    let read_at = shared.volume.now();
    let opened = open_no_follow(&task.path).and_then(|file| Ok((file.metadata()?, file)));
    let (before, mut file) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            refuse(shared, &task, sentence(&error));
            return Ok(None);
        }
    };
    let seen = if before.is_file() {
        arrival(shared, &task.path, &before, FileKind::Regular, read_at)
    } else {
        Err(io::Error::other("it became something else"))
    };
    let copied = match seen {
        Ok(arrival) => copy(shared, &task, &mut file, &before, &arrival)?.map(|it| (it, arrival)),
        Err(error) => Err(error),
    };
    let ((large, len), mut arrival) = match copied {
        Ok(copied) => copied,
        Err(error) => {
            refuse(shared, &task, sentence(&error));
            return Ok(None);
        }
    };
    arrival.size = len;
    let after = file.metadata();
    let settled = len == before.len() && after.is_ok_and(|after| is_same(&before, &after));
    if !settled {
        arrival.mark = None;
        refuse(shared, &task, "It changed while it was read".to_owned());
    }
    let placed = large.finish(&task.spot, &arrival, task.existing);
    settle(shared, &task, placed)
}

/// Reads a file into the volume; the inner error is the source's.
fn copy(
    shared: &Shared<'_>,
    task: &Task,
    file: &mut File,
    facts: &Metadata,
    arrival: &Arrival,
) -> Result<io::Result<(LargeFile, u64)>> {
    let mut head = [0; MAGIC_BYTES];
    let head = match read_head(file, &mut head) {
        Ok(len) => &head[..len],
        Err(error) => return Ok(Err(error)),
    };
    let mut large = shared.volume.import_large(&task.spot, arrival, head)?;
    let mut reading = Reading { sparse: facts.blocks() * 512 < facts.len(), at: 0, end: 0 };
    while reading.at < facts.len() {
        if shared.failure.is_there() {
            return Err(Error::Busy { what: "Stopped".to_owned() });
        }
        let len = facts.len();
        match reading.next_run(file, len) {
            Ok(0) => {}
            Ok(hole) => large.skip(hole),
            Err(error) => return Ok(Err(error)),
        }
        if reading.at >= len {
            break;
        }
        let want = (reading.end - reading.at).min(LargeFile::piece_bytes() as u64);
        let mut buffer = large.buffer();
        let before = buffer.len();
        if let Err(error) = (&mut *file).take(want).read_to_end(&mut buffer) {
            return Ok(Err(error));
        }
        let got = (buffer.len() - before) as u64;
        reading.at += got;
        shared.read_bytes.fetch_add(got, Relaxed);
        // It was cut short: what was there is stored, and said.
        let ends = got < want;
        large.take(buffer, !ends && reading.at < reading.end)?;
        if ends {
            return Ok(Ok((large, reading.at)));
        }
    }
    Ok(Ok((large, reading.at)))
}

fn read_head(file: &mut File, head: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < head.len() {
        match file.read(&mut head[len..])? {
            0 => break,
            more => len += more,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(len)
}

/// Where in a file reading is.
struct Reading {
    /// It may have holes.
    sparse: bool,
    /// Everything before is read or a hole.
    at: u64,
    /// Up to here there is no hole worth skipping.
    end: u64,
}

impl Reading {
    /// Makes sure that bytes follow at `at`, and says how large a hole it stepped over.
    fn next_run(&mut self, file: &mut File, len: u64) -> io::Result<u64> {
        if self.at < self.end {
            return Ok(0);
        }
        if !self.sparse {
            self.end = len;
            return Ok(0);
        }
        let begin = next_data(file, self.at)?.unwrap_or(len).min(len);
        // A hole inside a chunk's cell is read as zeros.
        let from = self.at.next_multiple_of(PAGE_BYTES);
        let hole = if begin.saturating_sub(from) >= HOLE_BYTES_MIN && from == self.at {
            begin - self.at
        } else {
            0
        };
        self.at += hole;
        self.end = begin;
        // Small holes belong to the run.
        while self.end < len {
            let hole = next_hole(file, self.end)?.unwrap_or(len).min(len);
            let data = next_data(file, hole)?.unwrap_or(len).min(len);
            self.end = hole;
            if data - hole >= HOLE_BYTES_MIN || hole >= len {
                break;
            }
            self.end = data;
        }
        file.seek(SeekFrom::Start(self.at))?;
        Ok(hole)
    }
}
