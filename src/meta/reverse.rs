//! From chunks back to files: which inodes refer to some chunks, and what these are called.
//!
//! Works on one state of the tables without a lock, so it may take its time: one pass over extents
//! for the references, one over entries for the names, and for every directory on the way up its
//! parent's entries. Memory: what the caller keeps, and a path per inode that was asked for.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::ceilings::Ceilings;
use super::layers::Layers;
use super::overlay::Overlay;
use super::{damaged, home, key, record, versions};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::limits::EPOCH_MAX;
use crate::types::{At, ChunkNo, Epoch, Extent, Ino};

/// Deeper paths are not resolved: Linux does not open them either, and a damaged table may hold a
/// circle.
const DEPTH_MAX: usize = 4096;
/// Names of one inode that are told; a file may have 65,000.
const LINKS_TOLD_MAX: usize = 8;

/// An extent that refers to a chunk somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The inode.
    pub ino: Ino,
    /// Its extent.
    pub extent: Extent,
    /// First epoch that sees it.
    pub birth: Epoch,
    /// First epoch that does not see it any more; `None` if it is live.
    pub end: Option<Epoch>,
}

impl Reference {
    /// True if a snapshot with this epoch sees it.
    #[must_use]
    pub fn is_seen_at(&self, epoch: Epoch) -> bool {
        self.birth <= epoch && self.end.is_none_or(|end| epoch < end)
    }
}

/// Which extents to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extents {
    /// Those of the live tree.
    Live,
    /// Those that only snapshots see.
    Past,
}

/// One state of the tables, to be asked backwards.
pub struct Reverse<'a> {
    kv: &'a dyn Kv,
    nothing: Overlay,
    ceilings: Ceilings,
}

/// Names of inodes: the directory each is in, and the name there.
pub(super) type Names = HashMap<Ino, Vec<(Ino, Box<[u8]>)>>;

impl<'a> Reverse<'a> {
    /// Asks the tables in `kv`, best a snapshot of them.
    #[must_use]
    pub fn new(kv: &'a dyn Kv) -> Self {
        Self { kv, nothing: Overlay::default(), ceilings: Ceilings::default() }
    }

    fn layers(&self) -> Layers<'_> {
        let (open, ceilings) = (&self.nothing, &self.ceilings);
        Layers { open, frozen: None, kv: self.kv, ceilings }
    }

    /// Hands every extent of inodes from `from` on whose chunk is `wanted` to `each`, by rising
    /// inode, until it breaks.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn references(
        &self,
        extents: Extents,
        from: Ino,
        wanted: &dyn Fn(ChunkNo) -> bool,
        each: &mut dyn FnMut(Reference) -> ControlFlow<()>,
    ) -> Result<()> {
        let range = KeyRange { lower: key::inode(from).to_vec(), upper: None };
        let (table, range) = match extents {
            Extents::Live => (Table::Extent, range),
            Extents::Past => (Table::History, key::versions_of(Table::Extent, &range)),
        };
        for row in self.kv.scan(table, &range, Order::Forward) {
            let (key, value) = row?;
            let reference =
                reference(table, &key, &value).map_err(|why| damaged(table, &key, why))?;
            if wanted(reference.extent.chunk) && each(reference).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The paths, from the root, that the inodes have at their state of the tree; none for one
    /// without a name. Of many hard links some are told.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn paths(&self, wanted: &HashMap<Ino, At>) -> Result<HashMap<Ino, Vec<Vec<u8>>>> {
        let names = self.names(wanted)?;
        let mut known = HashMap::new();
        let mut paths = HashMap::with_capacity(names.len());
        for (ino, links) in names {
            let at = wanted[&ino];
            let mut found = Vec::with_capacity(links.len());
            for (parent, name) in links {
                if let Some(mut path) = self.directory(at, parent, &mut known)? {
                    path.extend_from_slice(&name);
                    found.push(path);
                }
            }
            found.sort_unstable();
            paths.insert(ino, found);
        }
        Ok(paths)
    }

    /// One pass over all entries, and one over old ones if a snapshot is asked about.
    pub(super) fn names(&self, wanted: &HashMap<Ino, At>) -> Result<Names> {
        let mut names = Names::new();
        let mut note = |ino, parent, name: &[u8]| {
            let links: &mut Vec<_> = names.entry(ino).or_default();
            if links.len() < LINKS_TOLD_MAX {
                links.push((parent, name.into()));
            }
        };
        let any_past = wanted.values().any(|at| *at != At::Live);
        let history = KeyRange::prefix(&[Table::Dirent.tag()]);
        let parts = [(Table::Dirent, KeyRange::all()), (Table::History, history)];
        for (table, range) in parts.iter().take(if any_past { 2 } else { 1 }) {
            for row in self.kv.scan(*table, range, Order::Forward) {
                let (key, value) = row?;
                let why = |why| damaged(*table, &key, why);
                let (live_key, end) = match table {
                    Table::History => {
                        let (_, live, end) = key::read_history(&key).map_err(why)?;
                        (live, end)
                    }
                    _ => (&key[..], Epoch(EPOCH_MAX + 1)),
                };
                let (birth, payload) = record::split_birth(&value).map_err(why)?;
                let child = record::dirent(payload).map_err(why)?.ino;
                let seen = match wanted.get(&child) {
                    None => false,
                    Some(At::Live) => *table == Table::Dirent,
                    Some(At::Epoch(epoch)) => birth <= *epoch && *epoch < end,
                };
                if seen {
                    let (parent, _, name) = key::read_dirent(live_key).map_err(why)?;
                    note(child, parent, name);
                }
            }
        }
        Ok(names)
    }

    /// The path of a directory with a slash at its end; `None` if it does not lead to the root.
    fn directory(
        &self,
        at: At,
        ino: Ino,
        known: &mut HashMap<(At, Ino), Option<Vec<u8>>>,
    ) -> Result<Option<Vec<u8>>> {
        let mut below = Vec::new();
        let mut dir = ino;
        let mut base = None;
        while base.is_none() && below.len() < DEPTH_MAX {
            if dir == Ino::ROOT {
                base = Some(Some(Vec::new()));
            } else if let Some(path) = known.get(&(at, dir)) {
                base = Some(path.clone());
            } else if let Some((parent, name)) = self.name_of(at, dir)? {
                below.push((dir, name));
                dir = parent;
            } else {
                base = Some(None);
            }
        }
        let mut path = base.flatten();
        for (dir, name) in below.into_iter().rev() {
            if let Some(path) = &mut path {
                path.extend_from_slice(&name);
                path.push(b'/');
            }
            known.insert((at, dir), path.clone());
        }
        Ok(path)
    }

    /// Parent and name of a directory.
    fn name_of(&self, at: At, dir: Ino) -> Result<Option<(Ino, Box<[u8]>)>> {
        let key = key::inode(dir);
        let Some(row) = versions::get(self.layers(), at, Table::Inode, &key)? else {
            return Ok(None);
        };
        let inode = record::inode(&row).map_err(|why| damaged(Table::Inode, &key, why))?;
        // Its name is one read away; a whole directory is read only for inodes without a home.
        home::name_of(self.layers(), at, dir, &inode)
    }
}

fn reference(table: Table, key: &[u8], value: &[u8]) -> Result<Reference, &'static str> {
    let (live, end) = match table {
        Table::History => {
            let (_, live, end) = key::read_history(key)?;
            (live, Some(end))
        }
        _ => (key, None),
    };
    let (ino, offset) = key::read_extent(live)?;
    let (birth, payload) = record::split_birth(value)?;
    Ok(Reference { ino, extent: record::extent(offset, payload)?, birth, end })
}
