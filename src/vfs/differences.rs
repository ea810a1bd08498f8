//! What differs between two snapshots, laid out as the three folders that show it.
//!
//! Guarantees: a path is in `added` if only the second snapshot has it, in `removed` if only the
//! first has it, in `changed` if both have it and it differs; a directory that came or went as a
//! whole is one entry; memory of one comparison, and of those kept, is bounded. Relies on: a
//! comparison that tells tops only (`diff::Depth::Tops`). Does not: know nodes or permissions.
//!
//! Each folder is a list of paths in byte order, so what lies below a directory lies together, and
//! a place in the list is where a listing goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::diff::{Change, Difference, Kind};
use crate::error::{Error, Result};
use crate::limits::DIFFERENCE_BYTES_MAX;
use crate::types::{Ino, SnapshotId};

/// Comparisons kept, at most.
const KEPT: usize = 64;
/// Memory of them all: room for one of the largest beside others.
const KEPT_BYTES_MAX: u64 = 2 * DIFFERENCE_BYTES_MAX;
/// Memory of an entry besides its path.
const LEAF_BYTES: u64 = 64;

/// Two snapshots, in the order in which they were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) from: SnapshotId,
    pub(super) to: SnapshotId,
}

/// One of the three folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Folder {
    Added,
    Removed,
    Changed,
}

impl Folder {
    pub(super) const ALL: [Self; 3] = [Self::Added, Self::Removed, Self::Changed];

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Added => b"added",
            Self::Removed => b"removed",
            Self::Changed => b"changed",
        }
    }

    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|folder| folder.name() == name)
    }
}

/// Something that a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    path: Box<[u8]>,
    ino: Ino,
    kind: Kind,
}

/// What a folder has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    /// A directory on the way.
    Way,
    /// What the snapshot has.
    Inode(Ino, Kind),
}

/// One name of a directory in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a [u8],
    pub(super) child: Child,
    /// Where a listing goes on.
    pub(super) next: usize,
}

/// A comparison.
#[derive(Debug, Default)]
pub(super) struct Folders {
    added: Vec<Leaf>,
    removed: Vec<Leaf>,
    changed: Vec<Leaf>,
    bytes: u64,
}

impl Folders {
    /// Takes what the comparison tells.
    ///
    /// # Errors
    /// `TooLarge` for more than memory is set aside for.
    pub(super) fn take(&mut self, found: Difference) -> Result<()> {
        let Difference { change, kind, path, old_path, ino, .. } = found;
        if path.is_empty() {
            // The root has no place in itself.
            return Ok(());
        }
        if let Some(old) = old_path {
            self.put(Folder::Removed, old, ino, kind)?;
        }
        let folder = match change {
            Change::Added | Change::Renamed => Folder::Added,
            Change::Removed => Folder::Removed,
            Change::Changed => Folder::Changed,
        };
        self.put(folder, path, ino, kind)
    }

    fn put(&mut self, folder: Folder, path: Vec<u8>, ino: Ino, kind: Kind) -> Result<()> {
        self.bytes += path.len() as u64 + LEAF_BYTES;
        if self.bytes > DIFFERENCE_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        self.of_mut(folder).push(Leaf { path: path.into(), ino, kind });
        Ok(())
    }

    /// Puts everything in its place, when all is told.
    pub(super) fn finish(mut self) -> Self {
        for folder in Folder::ALL {
            self.of_mut(folder).sort_unstable_by(|a, b| a.path.cmp(&b.path));
        }
        self.replaced_are_changed();
        for list in [&mut self.added, &mut self.removed] {
            without_covered(list);
        }
        for folder in Folder::ALL {
            let list = self.of_mut(folder);
            list.dedup_by(|later, first| later.path == first.path);
            list.shrink_to_fit();
        }
        self.bytes = Folder::ALL
            .iter()
            .flat_map(|folder| self.of(*folder))
            .map(|leaf| leaf.path.len() as u64 + LEAF_BYTES)
            .sum();
        self
    }

    /// Where something went and another of the same kind moved in, the path is in both snapshots.
    /// Directories stay: each is shown as a whole.
    fn replaced_are_changed(&mut self) {
        let removed = &self.removed;
        let is_replaced = |leaf: &Leaf| {
            leaf.kind != Kind::Directory
                && found(removed, &leaf.path).is_some_and(|old| old.kind == leaf.kind)
        };
        let (replaced, added): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.added).into_iter().partition(is_replaced);
        self.removed.retain(|leaf| found(&replaced, &leaf.path).is_none());
        self.added = added;
        self.changed.extend(replaced);
        self.changed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }

    fn of(&self, folder: Folder) -> &Vec<Leaf> {
        match folder {
            Folder::Added => &self.added,
            Folder::Removed => &self.removed,
            Folder::Changed => &self.changed,
        }
    }

    fn of_mut(&mut self, folder: Folder) -> &mut Vec<Leaf> {
        match folder {
            Folder::Added => &mut self.added,
            Folder::Removed => &mut self.removed,
            Folder::Changed => &mut self.changed,
        }
    }

    /// What `folder` has at `path`.
    pub(super) fn child(&self, folder: Folder, path: &[u8]) -> Option<Child> {
        let list = self.of(folder);
        if let Some(leaf) = found(list, path) {
            return Some(shown(folder, leaf));
        }
        let below = below(path);
        let first = list.get(list.partition_point(|leaf| *leaf.path < *below))?;
        first.path.starts_with(&below).then_some(Child::Way)
    }

    /// The first name of the directory `dir` in `folder` at or behind place `from`.
    pub(super) fn listed(&self, folder: Folder, dir: &[u8], from: usize) -> Option<Listed<'_>> {
        let list = self.of(folder);
        let prefix = below(dir);
        let mut at = list.partition_point(|leaf| *leaf.path < *prefix).max(from);
        loop {
            let leaf = list.get(at)?;
            let rest = leaf.path.strip_prefix(&*prefix)?;
            let Some(end) = rest.iter().position(|byte| *byte == b'/') else {
                return Some(Listed { name: rest, child: shown(folder, leaf), next: at + 1 });
            };
            let path = leaf.path.get(..prefix.len() + end)?;
            let behind = [path, b"0"].concat();
            let next = list.partition_point(|leaf| *leaf.path < *behind);
            if found(list, path).is_none() {
                let name = rest.get(..end)?;
                return Some(Listed { name, child: Child::Way, next });
            }
            // It changed itself and was listed where its own name stands.
            at = next;
        }
    }
}

/// What all paths below a directory begin with.
fn below(dir: &[u8]) -> Vec<u8> {
    if dir.is_empty() { Vec::new() } else { [dir, b"/"].concat() }
}

fn found<'a>(list: &'a [Leaf], path: &[u8]) -> Option<&'a Leaf> {
    let at = list.binary_search_by(|leaf| (*leaf.path).cmp(path)).ok()?;
    list.get(at)
}

/// A directory that changed is not shown as a whole: most in it did not.
fn shown(folder: Folder, leaf: &Leaf) -> Child {
    if folder == Folder::Changed && leaf.kind == Kind::Directory {
        Child::Way
    } else {
        Child::Inode(leaf.ino, leaf.kind)
    }
}

/// Drops what a directory of the list shows anyway.
fn without_covered(list: &mut Vec<Leaf>) {
    let mut tops: Vec<Leaf> = Vec::new();
    for leaf in list.iter().filter(|leaf| leaf.kind == Kind::Directory) {
        if !is_covered(&tops, &leaf.path) {
            tops.push(leaf.clone());
        }
    }
    list.retain(|leaf| !is_covered(&tops, &leaf.path));
}

/// True if a directory above `path` is in `tops`.
fn is_covered(tops: &[Leaf], path: &[u8]) -> bool {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut above = slashes.filter_map(|(at, _)| path.get(..at));
    above.any(|dir| found(tops, dir).is_some())
}

type List = VecDeque<(Pair, Arc<Folders>)>;

/// The comparisons used last, oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    list: Mutex<List>,
    /// Held while one is made, so that there is room for it and nobody makes it twice. Taken
    /// before all others.
    making: Mutex<()>,
}

impl Kept {
    pub(super) fn get(&self, pair: Pair) -> Option<Arc<Folders>> {
        let mut list = self.list.lock();
        let at = list.iter().position(|(known, _)| *known == pair)?;
        let known = list.remove(at)?;
        let found = Arc::clone(&known.1);
        list.push_back(known);
        Some(found)
    }

    pub(super) fn has(&self, pair: Pair) -> bool {
        self.list.lock().iter().any(|(known, _)| *known == pair)
    }

    /// The right to make one, alone.
    pub(super) fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock()
    }

    /// Forgets the oldest, as long as there is no room for one of the largest.
    pub(super) fn make_room(&self) {
        let mut list = self.list.lock();
        while list.len() >= KEPT || bytes_of(&list) > KEPT_BYTES_MAX - DIFFERENCE_BYTES_MAX {
            list.pop_front();
        }
    }

    pub(super) fn keep(&self, pair: Pair, made: Folders) -> Arc<Folders> {
        let made = Arc::new(made);
        self.list.lock().push_back((pair, Arc::clone(&made)));
        made
    }

    /// Memory they take.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(&self.list.lock())
    }

    /// What they take at most.
    pub(super) fn bytes_max() -> u64 {
        KEPT_BYTES_MAX
    }
}

fn bytes_of(list: &List) -> u64 {
    list.iter().map(|(_, one)| one.bytes).sum()
}

#[cfg(test)]
mod tests;
