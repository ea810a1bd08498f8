//! Inodes as the database has them, decoded: a kernel asks for the same one when it lists, opens,
//! reads and has read a file.
//!
//! Guarantees: an inode is here only as its committed live row says. Relies on: who notes one holds
//! the lock of [`super::Meta`], and neither txg has a change of it; [`Known::forget`] is told of
//! each row that a commit wrote, before another reader gets the lock.
//! Memory: a fixed number of slots, each for an inode of fixed size.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::types::{Epoch, Ino, Inode};

/// Slots, by the lower bits of the number: inodes made together do not meet in one. Enough for what
/// a program that walks a tree of 20,000 files comes back to.
const SLOTS: usize = 32 * 1024;
/// Memory of an inode, with what the allocator adds.
const INODE_BYTES: usize = size_of::<(Ino, Epoch, Inode)>() + 16;

type Slot = Mutex<Option<Box<(Ino, Epoch, Inode)>>>;

/// See the module text.
pub(super) struct Known {
    slots: Box<[Slot]>,
    filled: AtomicUsize,
}

impl Known {
    /// Most bytes it takes.
    pub(super) const BYTES_MAX: usize = SLOTS * (size_of::<Slot>() + INODE_BYTES);

    pub(super) fn new() -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(SLOTS).collect();
        Self { slots, filled: AtomicUsize::new(0) }
    }

    fn slot(&self, ino: Ino) -> &Slot {
        &self.slots[usize::try_from(ino.0 % SLOTS as u64).expect("below the number of slots")]
    }

    /// The epoch it was born in, and the inode.
    pub(super) fn get(&self, ino: Ino) -> Option<(Epoch, Inode)> {
        let slot = self.slot(ino).lock();
        let known = slot.as_ref().filter(|known| known.0 == ino)?;
        Some((known.1, known.2.clone()))
    }

    /// Symlinks are left out: their targets are long, and a kernel keeps them.
    pub(super) fn note(&self, ino: Ino, birth: Epoch, inode: &Inode) {
        if !inode.target.is_empty() {
            return;
        }
        let known = Box::new((ino, birth, inode.clone()));
        if self.slot(ino).lock().replace(known).is_none() {
            self.filled.fetch_add(1, Relaxed);
        }
    }

    /// The rows of these inodes are other ones now.
    pub(super) fn forget(&self, changed: impl Iterator<Item = Ino>) {
        for ino in changed {
            let mut slot = self.slot(ino).lock();
            if slot.take_if(|known| known.0 == ino).is_some() {
                self.filled.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Memory that it takes now.
    pub(super) fn bytes(&self) -> usize {
        SLOTS * size_of::<Slot>() + self.filled.load(Relaxed) * INODE_BYTES
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
