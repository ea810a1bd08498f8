//! Contents that the kernel gets before it asks for them.
//!
//! Who opens a small file reads it. So the answer to the opening follows a message that puts the
//! content into the kernel's page cache, and the request to read it never comes: one wait of two.
//!
//! Guarantees: what is given was read as any reader's bytes are, verified; between our look and the
//! message nobody changes the file: for as long, who would open it or change its length waits
//! (`handles`). A live file that somebody else has open is not given. Relies on: new contents that
//! come past the kernel, as restored and imported ones, coming with new inodes. Does not: report
//! what cannot be read; the request that then comes does. Memory: a table of fixed size.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Node, Vfs};
use crate::types::At;

/// Largest content that is given whole. Larger files are read ahead by the kernel, in requests of
/// up to 1 MiB, and more of those who open one may want a part of it only.
const GIVEN_BYTES_MAX: u64 = 128 * 1024;

/// Places in the table: inodes made together do not meet in one.
const SLOTS: usize = 64 * 1024;

/// Nodes whose content the kernel was given and has not forgotten. Of two that meet in one place
/// the later one stays; the other is given once more.
pub(super) struct Given {
    slots: Box<[AtomicU64]>,
}

impl Default for Given {
    fn default() -> Self {
        // No node has the number 0.
        Self { slots: std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect() }
    }
}

impl Given {
    /// Bytes it takes.
    pub(super) const BYTES: u64 = (SLOTS * size_of::<AtomicU64>()) as u64;

    fn slot(&self, node: Node) -> &AtomicU64 {
        let slot = node.number() % SLOTS as u64;
        &self.slots[usize::try_from(slot).expect("below the number of slots")]
    }

    fn has(&self, node: Node) -> bool {
        self.slot(node).load(Relaxed) == node.number()
    }

    fn note(&self, node: Node) {
        self.slot(node).store(node.number(), Relaxed);
    }

    /// The kernel has no pages of the node any more.
    pub(super) fn forget(&self, node: Node) {
        let _ = self.slot(node).compare_exchange(node.number(), 0, Relaxed, Relaxed);
    }
}

impl Vfs {
    /// Hands the content of a file that was just opened to `tell`, which says whether the kernel
    /// took it; if the file is small, was not given yet, and nobody else has it open.
    pub fn give(&self, node: Node, handle: u64, tell: impl FnOnce(&[u8]) -> bool) {
        if self.given.has(node) {
            return;
        }
        let Some(handle) = self.handles.get(handle) else { return };
        let _alone = match handle.file.at() {
            At::Live => match self.handles.alone(&handle) {
                Some(alone) => Some(alone),
                None => return,
            },
            At::Epoch(_) => None,
        };
        let Ok(stat) = handle.file.stat() else { return };
        let len = stat.inode.size;
        if !(1..=GIVEN_BYTES_MAX).contains(&len) {
            return;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if handle.file.read(0, len).is_ok_and(|content| tell(&content)) {
            self.given.note(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Ino;

    #[test]
    fn a_node_is_given_until_it_is_forgotten_or_another_takes_its_place() {
        let given = Given::default();
        let (one, other) = (Node::Live(Ino(7)), Node::Live(Ino(7 + SLOTS as u64)));
        given.note(one);
        assert!(given.has(one) && !given.has(other));
        given.forget(other);
        assert!(given.has(one), "another one was forgotten");
        given.note(other);
        assert!(given.has(other) && !given.has(one));
        given.forget(other);
        assert!(!given.has(other));
    }
}
