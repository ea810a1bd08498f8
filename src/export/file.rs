//! One file, link or special file: left alone, or written under another name and renamed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::attributes::{Xattr, has_attributes, has_content, mode, set, xattrs_differ};
use super::report::ExportWhat;
use crate::error::{Error, Result};
use crate::sys::disk::{is_full, open_direct};
use crate::sys::tree::make_node;
use crate::types::{At, FileKind, Ino, Inode};
use crate::volume::{OpenFile, Seek};

/// Bytes read and written at a time.
const PIECE_BYTES: usize = 1024 * 1024;
/// From here on a file is written past the page cache: measured 4 GB/s against 0.55 GB/s.
const DIRECT_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// What memory, offsets and lengths are aligned to then.
const BLOCK: usize = 4096;

/// A directory outside. Its attributes are set when the last file in it is done.
pub(super) struct Directory<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) path: PathBuf,
    pub(super) ino: Ino,
    /// Its attributes, unless it stays as it is.
    pub(super) inode: Option<Inode>,
    pub(super) is_new: bool,
}

impl Drop for Directory<'_> {
    fn drop(&mut self) {
        let Some(inode) = &self.inode else { return };
        let xattrs = xattrs(self.shared, self.ino);
        let done = xattrs.map_err(|e| e.to_string()).and_then(|xattrs| {
            let done = set(self.shared, &self.path, inode, &xattrs, self.is_new);
            done.map_err(|e| format!("Its attributes cannot be set: {e}"))
        });
        if let Err(why) = done {
            self.shared.report.lock().problem(&self.path, why);
        }
    }
}

/// Something but a directory that is to be exported.
pub(super) struct Task<'a> {
    pub(super) dir: Arc<Directory<'a>>,
    pub(super) name: OsString,
    pub(super) ino: Ino,
}

/// Neighbours, or one large file.
pub(super) type Job<'a> = Vec<Task<'a>>;

pub(super) fn xattrs(shared: &Shared<'_>, ino: Ino) -> Result<Vec<Xattr>> {
    let at = At::Epoch(shared.epoch);
    let mut found = Vec::new();
    for name in shared.volume.xattr_names(at, ino)? {
        if let Some(value) = shared.volume.xattr(at, ino, &name)? {
            found.push((name.into_vec(), value));
        }
    }
    Ok(found)
}

/// Exports one; what goes wrong with it alone is in the report.
///
/// # Errors
/// What ends the export: a full disk, faults of the volume's metadata.
pub(super) fn export(shared: &Shared<'_>, task: &Task<'_>) -> Result<()> {
    let path = task.dir.path.join(&task.name);
    match one(shared, task, &path) {
        Ok(()) => Ok(()),
        Err(Error::Io { source, .. }) if is_full(&source) => {
            Err(Error::NoSpace { place: task.dir.path.display().to_string() })
        }
        Err(error @ (Error::Io { .. } | Error::Corrupt { .. } | Error::ShardMissing { .. })) => {
            shared.report.lock().problem(&path, error.to_string());
            Ok(())
        }
        Err(error @ (Error::Shard { .. } | Error::Invalid { .. } | Error::IsDirectory)) => {
            shared.report.lock().problem(&path, error.to_string());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn one(shared: &Shared<'_>, task: &Task<'_>, path: &Path) -> Result<()> {
    let inode = shared.volume.stat(At::Epoch(shared.epoch), task.ino)?.inode;
    let xattrs = xattrs(shared, task.ino)?;
    let failed = |e| Error::io("write", path, e);
    let existing = existing(path).map_err(failed)?;
    if let Some(facts) = &existing
        && is_there(facts, &inode, path)
    {
        let differ = xattrs_differ(shared, path, &xattrs).map_err(failed)?;
        if !differ && has_attributes(shared, facts, &inode) {
            shared.report.lock().unchanged += 1;
            return Ok(());
        }
        shared.report.lock().note(ExportWhat::Attributes, path);
        return set(shared, path, &inode, &xattrs, false).map_err(failed);
    }
    let what = what(existing.as_ref(), path)?;
    let temporary = temporary(path, task.ino);
    remove_if_there(&temporary).map_err(failed)?;
    let made = make(shared, task.ino, &inode, &temporary).and_then(|()| {
        let set = set(shared, &temporary, &inode, &xattrs, true);
        set.and_then(|()| std::fs::rename(&temporary, path)).map_err(failed)
    });
    if made.is_err() {
        // The cause counts, not what cleaning up says.
        let _ = std::fs::remove_file(&temporary);
    }
    made?;
    shared.report.lock().note(what, path);
    Ok(())
}

/// What is to be said of a name, or why it stays.
///
/// # Errors
/// `Invalid` for a directory in the way.
pub(super) fn what(existing: Option<&Metadata>, path: &Path) -> Result<ExportWhat> {
    match existing {
        Some(facts) if facts.is_dir() => Err(Error::invalid(format!(
            "Directory {} is in the way of what is none",
            path.display()
        ))),
        Some(_) => Ok(ExportWhat::Replaced),
        None => Ok(ExportWhat::Created),
    }
}

/// True if `path` has the content already.
pub(super) fn is_there(facts: &Metadata, inode: &Inode, path: &Path) -> bool {
    match inode.kind {
        FileKind::Symlink => std::fs::read_link(path)
            .is_ok_and(|target| target.as_os_str().as_bytes() == &*inode.target),
        _ => has_content(facts, inode),
    }
}

pub(super) fn existing(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(facts) => Ok(Some(facts)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The name it has until it is whole: always the same, so that what a crash left is used up.
pub(super) fn temporary(path: &Path, ino: Ino) -> PathBuf {
    path.with_file_name(format!(".stratafs-export-{ino}"))
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes something under a name that nobody looks for.
fn make(shared: &Shared<'_>, ino: Ino, inode: &Inode, path: &Path) -> Result<()> {
    let failed = |e| Error::io("make", path, e);
    match inode.kind {
        FileKind::Regular => write(shared, ino, inode.size, path),
        FileKind::Symlink => symlink(OsStr::from_bytes(&inode.target), path).map_err(failed),
        FileKind::Directory => Err(Error::IsDirectory),
        _ => make_node(path, mode(inode) & !0o7777 | 0o600, inode.rdev).map_err(failed),
    }
}

fn write(shared: &Shared<'_>, ino: Ino, size: u64, path: &Path) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let source = shared.volume.open_file(At::Epoch(shared.epoch), ino)?;
    let options = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = options.map_err(failed)?;
    if size <= PIECE_BYTES as u64 {
        let bytes = source.read(0, PIECE_BYTES)?;
        if source.seek(0, Seek::Hole)? == Some(size) {
            shared.written_bytes.fetch_add(bytes.len() as u64, Relaxed);
            return file.write_all(&bytes).map_err(failed);
        }
    }
    let direct = (size >= DIRECT_BYTES_MIN).then(|| open_direct(path).ok()).flatten();
    let mut target = Target { file, direct, buffer: Vec::new() };
    target.file.set_len(size).map_err(failed)?;
    let mut at = 0;
    while let Some(begin) = source.seek(at, Seek::Data)? {
        let end = source.seek(begin, Seek::Hole)?.unwrap_or(size);
        at = copy(shared, &source, &mut target, begin..end, path)?;
    }
    Ok(())
}

/// Copies a run of bytes; returns its end.
fn copy(
    shared: &Shared<'_>,
    source: &OpenFile,
    target: &mut Target,
    run: std::ops::Range<u64>,
    path: &Path,
) -> Result<u64> {
    let mut at = run.start;
    while at < run.end {
        if shared.failure.is_there() {
            return Err(Error::Busy { what: "Stopped".to_owned() });
        }
        // Pieces end where pieces of the file end, so that they are aligned.
        let piece = PIECE_BYTES as u64;
        let next = (at / piece + 1).saturating_mul(piece).min(run.end);
        let bytes = source.read(at, (next - at) as usize)?;
        if bytes.is_empty() {
            return Err(Error::corrupt(format!("inode {}", source.ino()), "it ends too early"));
        }
        target.write(at, &bytes).map_err(|e| Error::io("write", path, e))?;
        shared.written_bytes.fetch_add(bytes.len() as u64, Relaxed);
        at += bytes.len() as u64;
    }
    Ok(at)
}

/// A file that is written past the page cache as far as it is aligned.
struct Target {
    file: File,
    direct: Option<File>,
    buffer: Vec<u8>,
}

impl Target {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = bytes.len() / BLOCK * BLOCK;
        let Some(direct) = self
            .direct
            .as_ref()
            .filter(|_| at.is_multiple_of(BLOCK as u64) && aligned == bytes.len() && aligned > 0)
        else {
            return self.file.write_all_at(bytes, at);
        };
        self.buffer.resize(PIECE_BYTES + BLOCK, 0);
        let skip = self.buffer.as_ptr().align_offset(BLOCK);
        let piece = &mut self.buffer[skip..skip + aligned];
        piece.copy_from_slice(bytes);
        match direct.write_all_at(piece, at) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                self.direct = None;
                self.file.write_all_at(bytes, at)
            }
            done => done,
        }
    }
}
