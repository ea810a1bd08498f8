//! Files in use: one node per inode that is open or has dirty bytes.
//!
//! Lock order: `commit gate` → a node's `state` → `meta`. The table's own lock is a leaf.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};

use super::dirty::{DirtyRanges, overlay_piece};
use crate::types::{ClassId, Ino};

/// A file in use.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) ino: Ino,
    /// Copy of the bytes that are not extents yet, to be read without the lock.
    dirty_bytes: AtomicUsize,
    /// Copy of `state.dirty.memory()`.
    dirty_memory: AtomicUsize,
    pub(super) state: RwLock<FileState>,
    /// Takes that have ended; raised while `state` is locked.
    cuts: Mutex<u64>,
    cut: Condvar,
}

impl FileNode {
    /// The state when nothing of the file is taken: for all who change or drain it at any place.
    pub(super) fn settled(&self) -> RwLockWriteGuard<'_, FileState> {
        self.when(|state| state.taken.is_none())
    }

    /// The state once `ready` says so; looks again whenever a take has ended. Only a thread that
    /// has the gate open takes, so this may wait with the gate open, but not with it closed.
    pub(super) fn when(
        &self,
        ready: impl Fn(&FileState) -> bool,
    ) -> RwLockWriteGuard<'_, FileState> {
        loop {
            let state = self.state.write();
            if ready(&state) {
                return state;
            }
            let seen = *self.cuts.lock();
            drop(state);
            let mut cuts = self.cuts.lock();
            while *cuts == seen {
                self.cut.wait(&mut cuts);
            }
        }
    }

    /// A take has ended. The caller holds the state.
    pub(super) fn note_cut(&self) {
        *self.cuts.lock() += 1;
        self.cut.notify_all();
    }
}

/// What the lock of a node guards: the buffered bytes and, by convention, the extents of the inode.
#[derive(Debug, Default)]
pub(super) struct FileState {
    pub(super) dirty: DirtyRanges,
    /// Class of the content being written, once its first bytes were seen.
    pub(super) class: Option<ClassId>,
    /// Offset at which the chunker itself made the last cut of a stream: a cut here needs no look
    /// back at the chunk before it.
    pub(super) clean_cut: Option<u64>,
    /// Bytes that are being cut beside the writer: older than `dirty`, newer than the extents.
    pub(super) taken: Option<Taken>,
}

/// Bytes that were taken out of the buffer.
#[derive(Debug)]
pub(super) enum Taken {
    /// Of a stream, from `start` on.
    Stream {
        /// Offset of the first byte.
        start: u64,
        /// What is being cut.
        data: Bytes,
    },
    /// A copy of what was written here and there.
    Scattered(DirtyRanges),
}

impl Taken {
    fn len(&self) -> usize {
        match self {
            Self::Stream { data, .. } => data.len(),
            Self::Scattered(ranges) => ranges.bytes(),
        }
    }

    /// True if a stream was taken up to `offset`.
    pub(super) fn is_stream_to(&self, offset: u64) -> bool {
        matches!(self, Self::Stream { start, data } if start + data.len() as u64 == offset)
    }

    fn overlay(&self, offset: u64, buf: &mut [u8]) {
        match self {
            Self::Stream { start, data } => overlay_piece(*start, data, offset, buf),
            Self::Scattered(ranges) => ranges.overlay(offset, buf),
        }
    }
}

impl FileState {
    /// Bytes that are not extents yet.
    fn buffered_bytes(&self) -> usize {
        self.dirty.bytes() + self.taken.as_ref().map_or(0, Taken::len)
    }

    /// Copies what is not extents yet of the `buf.len()` bytes from `offset` over `buf`.
    pub(super) fn overlay(&self, offset: u64, buf: &mut [u8]) {
        if let Some(taken) = &self.taken {
            taken.overlay(offset, buf);
        }
        self.dirty.overlay(offset, buf);
    }
}

#[derive(Debug, Default)]
struct Entry {
    opens: usize,
    node: Option<Arc<FileNode>>,
}

/// The nodes, and the sum of their dirty bytes.
#[derive(Debug, Default)]
pub(super) struct FileTable {
    nodes: Mutex<HashMap<Ino, Entry>>,
    dirty_bytes: AtomicUsize,
    dirty_memory: AtomicUsize,
    /// What writes that were let in may still add to it.
    coming: AtomicUsize,
}

/// A write that was let in; dropped when its bytes are counted as dirty.
pub(super) struct Coming<'a> {
    table: &'a FileTable,
    bytes: usize,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.table.coming.fetch_sub(self.bytes, Relaxed);
    }
}

impl FileTable {
    /// The node of `ino`, with one more user.
    pub(super) fn open(&self, ino: Ino) -> Arc<FileNode> {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(ino).or_default();
        entry.opens += 1;
        let node = entry.node.get_or_insert_with(|| {
            let (dirty_bytes, dirty_memory) = Default::default();
            let (state, cuts, cut) = Default::default();
            Arc::new(FileNode { ino, dirty_bytes, dirty_memory, state, cuts, cut })
        });
        Arc::clone(node)
    }

    /// One user less; true if it was the last.
    pub(super) fn close(&self, ino: Ino) -> bool {
        let mut nodes = self.nodes.lock();
        let entry = nodes.get_mut(&ino).expect("closed more often than opened");
        entry.opens -= 1;
        let last = entry.opens == 0;
        Self::drop_if_idle(&mut nodes, ino);
        last
    }

    /// True while somebody has the inode open.
    pub(super) fn is_open(&self, ino: Ino) -> bool {
        self.nodes.lock().get(&ino).is_some_and(|entry| entry.opens > 0)
    }

    /// All inodes that somebody has open.
    pub(super) fn all_open(&self) -> HashSet<Ino> {
        let nodes = self.nodes.lock();
        nodes.iter().filter(|(_, entry)| entry.opens > 0).map(|(ino, _)| *ino).collect()
    }

    /// True while more than one user has the inode open.
    pub(super) fn is_shared(&self, ino: Ino) -> bool {
        self.nodes.lock().get(&ino).is_some_and(|entry| entry.opens > 1)
    }

    /// The node of `ino`, if it is in use.
    pub(super) fn get(&self, ino: Ino) -> Option<Arc<FileNode>> {
        self.nodes.lock().get(&ino)?.node.clone()
    }

    /// Records how many dirty bytes the node has now, and forgets it if nothing holds it.
    pub(super) fn note_dirty(&self, node: &FileNode, state: &FileState) {
        let copies = [
            (&node.dirty_bytes, &self.dirty_bytes, state.buffered_bytes()),
            (&node.dirty_memory, &self.dirty_memory, state.dirty.memory()),
        ];
        for (copy, sum, now) in copies {
            let before = copy.swap(now, Relaxed);
            sum.fetch_add(now, Relaxed);
            sum.fetch_sub(before, Relaxed);
        }
        if state.buffered_bytes() == 0 {
            Self::drop_if_idle(&mut self.nodes.lock(), node.ino);
        }
    }

    /// Announces a write that may add so much memory.
    pub(super) fn announce(&self, bytes: usize) -> Coming<'_> {
        self.coming.fetch_add(bytes, Relaxed);
        Coming { table: self, bytes }
    }

    /// Memory of all dirty bytes, and of those that are announced.
    pub(super) fn expected_memory(&self) -> usize {
        self.dirty_memory() + self.coming.load(Relaxed)
    }

    /// Memory of the dirty bytes of all files.
    pub(super) fn dirty_memory(&self) -> usize {
        self.dirty_memory.load(Relaxed)
    }

    /// Nodes that have dirty bytes.
    pub(super) fn dirty(&self) -> Vec<Arc<FileNode>> {
        let nodes = self.nodes.lock();
        let dirty = nodes.values().filter_map(|e| e.node.as_ref());
        dirty.filter(|node| node.dirty_bytes.load(Relaxed) > 0).cloned().collect()
    }

    /// Dirty bytes of `ino`.
    pub(super) fn dirty_bytes_of(&self, ino: Ino) -> usize {
        if self.dirty_bytes() == 0 {
            return 0;
        }
        self.get(ino).map_or(0, |node| node.dirty_bytes.load(Relaxed))
    }

    /// Dirty bytes of all files.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes.load(Relaxed)
    }

    fn drop_if_idle(nodes: &mut HashMap<Ino, Entry>, ino: Ino) {
        let idle = nodes.get(&ino).is_some_and(|entry| {
            let dirty = entry.node.as_ref().map_or(0, |n| n.dirty_bytes.load(Relaxed));
            entry.opens == 0 && dirty == 0
        });
        if idle {
            nodes.remove(&ino);
        }
    }
}
