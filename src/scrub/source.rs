//! A tree of good copies: regular files below a directory, and nothing else. Follows no symlink,
//! opens no device, writes nothing.

use std::fs::{self, File, ReadDir};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::disk::open_no_follow;

/// Deeper directories are left out: every level keeps one file open, of the usual 1024.
const DEPTH_MAX: usize = 256;

/// A regular file of the tree.
pub(super) struct SourceFile {
    /// Open for reading.
    pub(super) file: File,
    /// Its path from the tree's root.
    pub(super) path: PathBuf,
    /// Its bytes when it was opened.
    pub(super) len: u64,
}

/// The tree.
pub(super) struct Source {
    /// Without symlinks.
    root: PathBuf,
}

impl Source {
    /// The tree below `root`.
    ///
    /// # Errors
    /// `Io` if it cannot be read; `Invalid` if it is no directory.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(|e| Error::io("open", root, e))?;
        if !root.is_dir() {
            let what = format!("{} is not a directory; name a tree of good copies", root.display());
            return Err(Error::invalid(what));
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The regular file at `path` from the root, if there is one that no symlink leads to.
    pub(super) fn file(&self, path: &Path) -> Option<SourceFile> {
        let whole = self.root.join(path);
        let parent = whole.parent()?;
        // As it is written, or a symlink is on the way.
        if fs::canonicalize(parent).ok()? != parent {
            return None;
        }
        open(&whole, path.to_owned())
    }

    /// All regular files, one directory after the other.
    pub(super) fn files(&self) -> Files<'_> {
        Files { source: self, open: Vec::new(), begun: false, skipped: 0 }
    }
}

fn open(whole: &Path, path: PathBuf) -> Option<SourceFile> {
    let file = open_no_follow(whole).ok()?;
    let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some(SourceFile { file, path, len: found.len() })
}

/// A walk over the tree. Keeps one open directory per level.
pub(super) struct Files<'a> {
    source: &'a Source,
    open: Vec<ReadDir>,
    begun: bool,
    /// Files and directories that could not be read.
    pub(super) skipped: u64,
}

impl Files<'_> {
    fn enter(&mut self, dir: &Path) {
        let entries = if self.open.len() < DEPTH_MAX { fs::read_dir(dir).ok() } else { None };
        match entries {
            Some(entries) => self.open.push(entries),
            None => self.skipped += 1,
        }
    }
}

impl Iterator for Files<'_> {
    type Item = SourceFile;

    fn next(&mut self) -> Option<SourceFile> {
        if !std::mem::replace(&mut self.begun, true) {
            self.enter(&self.source.root.clone());
        }
        loop {
            let entry = match self.open.last_mut()?.next() {
                None => {
                    self.open.pop();
                    continue;
                }
                Some(Err(_)) => {
                    self.skipped += 1;
                    continue;
                }
                Some(Ok(entry)) => entry,
            };
            // Of the entry itself: a symlink is neither a file nor a directory.
            let Ok(kind) = entry.file_type() else {
                self.skipped += 1;
                continue;
            };
            let whole = entry.path();
            if kind.is_dir() && entry.file_name() != ".snapshots" {
                self.enter(&whole);
            } else if kind.is_file() {
                let path = whole.strip_prefix(&self.source.root).unwrap_or(&whole).to_owned();
                match open(&whole, path) {
                    Some(file) => return Some(file),
                    None => self.skipped += 1,
                }
            }
        }
    }
}

/// A path of the volume and every shorter tail of it: the tree may be a copy of a part.
pub(super) fn tails(path: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let starts = std::iter::once(0);
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    starts.chain(slashes).map(|at| PathBuf::from(std::ffi::OsStr::from_bytes(&path[at..])))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_below_the_root_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/secret"), "s").unwrap();
        fs::write(root.join("a/b/file"), "12345").unwrap();
        symlink(temp.path().join("outside"), root.join("dir-link")).unwrap();
        symlink(temp.path().join("outside/secret"), root.join("file-link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let source = Source::open(&root).unwrap();
        let found: Vec<_> = source.files().map(|file| (file.path, file.len)).collect();
        assert_eq!(found, [(PathBuf::from("a/b/file"), 5)]);
        assert!(source.file(Path::new("a/b/file")).is_some());
        for refused in ["dir-link/secret", "file-link", "socket", "a", "none", "../outside/secret"]
        {
            assert!(source.file(Path::new(refused)).is_none(), "{refused}");
        }
        assert!(Source::open(&root.join("a/b/file")).is_err());
    }

    #[test]
    fn tails_get_shorter() {
        let found: Vec<_> = tails(b"home/a/x").collect();
        assert_eq!(found, [PathBuf::from("home/a/x"), PathBuf::from("a/x"), PathBuf::from("x")]);
    }
}
