//! One of the two states: its inodes, entries, places and paths.

use std::collections::HashMap;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::meta::{Committed, Place};
use crate::types::{At, Dirent, FileKind, Ino, Inode};

/// Deeper paths are not resolved: Linux opens none, and a damaged table may hold a circle.
const DEPTH_MAX: usize = 4096;
/// Bytes of paths that are kept; more than that, and they are found anew.
const PATHS_BYTES_MAX: usize = 8 << 20;
/// What a kept path takes beside its bytes.
const PATH_OVERHEAD: usize = 64;

pub(super) struct Side<'a> {
    state: &'a Committed<'a>,
    at: At,
    /// Paths of directories, with a slash at the end.
    paths: HashMap<Ino, Rc<[u8]>>,
    paths_bytes: usize,
    /// The last inode asked for: a directory's entries come one after the other.
    last: Option<(Ino, Option<Rc<Inode>>)>,
}

impl<'a> Side<'a> {
    pub(super) fn new(state: &'a Committed<'a>, at: At) -> Self {
        Self { state, at, paths: HashMap::new(), paths_bytes: 0, last: None }
    }

    pub(super) fn at(&self) -> At {
        self.at
    }

    /// An inode that has a name.
    pub(super) fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        Ok(self.state.view().inode(self.at, ino)?.filter(|inode| inode.nlink > 0))
    }

    /// True if the directory is there.
    pub(super) fn has_directory(&mut self, ino: Ino) -> Result<bool> {
        let known = match &self.last {
            Some((last, inode)) if *last == ino => inode.clone(),
            _ => {
                let inode = self.inode(ino)?.map(Rc::new);
                self.last = Some((ino, inode.clone()));
                inode
            }
        };
        Ok(known.is_some_and(|inode| inode.kind == FileKind::Directory))
    }

    pub(super) fn entry(&self, dir: Ino, name: &[u8]) -> Result<Option<Dirent>> {
        self.state.view().dirent(self.at, dir, name)
    }

    /// Where the inode says it is named, if it is.
    pub(super) fn place(&self, ino: Ino, inode: &Inode) -> Result<Option<Place>> {
        self.state.name_of(self.at, ino, inode)
    }

    /// Path of a place.
    pub(super) fn path(&mut self, dir: Ino, name: &[u8]) -> Result<Vec<u8>> {
        Ok([&*self.directory(dir)?, name].concat())
    }

    /// Path of a directory with a slash at its end; empty for the root.
    fn directory(&mut self, ino: Ino) -> Result<Rc<[u8]>> {
        let mut below: Vec<(Ino, Box<[u8]>)> = Vec::new();
        let mut here = ino;
        let mut path: Rc<[u8]> = loop {
            if here == Ino::ROOT {
                break Rc::from(&b""[..]);
            }
            if let Some(known) = self.paths.get(&here) {
                break Rc::clone(known);
            }
            let inode = self.inode(here)?.filter(|inode| inode.kind == FileKind::Directory);
            let place = inode.map(|inode| self.place(here, &inode)).transpose()?.flatten();
            let place = place.filter(|_| below.len() < DEPTH_MAX);
            let Some((parent, name)) = place else {
                return Err(Error::corrupt(format!("directory {ino}"), "no path leads to it"));
            };
            below.push((here, name));
            here = parent;
        };
        for (dir, name) in below.into_iter().rev() {
            path = [&*path, &*name, b"/"].concat().into();
            self.keep(dir, &path);
        }
        Ok(path)
    }

    fn keep(&mut self, dir: Ino, path: &Rc<[u8]>) {
        if self.paths_bytes > PATHS_BYTES_MAX {
            self.paths.clear();
            self.paths_bytes = 0;
        }
        self.paths_bytes += path.len() + PATH_OVERHEAD;
        self.paths.insert(dir, Rc::clone(path));
    }
}
