//! Last known names of inodes, for the classifier: a write comes with an inode only.

use parking_lot::Mutex;

use crate::limits::NAME_BYTES_MAX;
use crate::types::Ino;

/// Names kept. A file that is written was looked up or made just before; 16,384 names are about
/// 2 MB and outlast the files any copying tool has in flight.
const NAMES: usize = 16 * 1024;

/// The last inode whose number falls into a slot. Numbers follow each other, so files that are made
/// together do not push each other out, and noting a name touches one place in memory.
#[derive(Clone, Debug, Default)]
struct Slot {
    ino: Option<Ino>,
    parent: Ino,
    name: Vec<u8>,
}

/// Inode → parent and name. A hint may be old or missing; nothing but the class depends on it.
#[derive(Debug)]
pub(super) struct NameHints {
    hints: Mutex<Hints>,
}

#[derive(Debug)]
struct Hints {
    slots: Vec<Slot>,
    name_bytes: usize,
}

impl Default for NameHints {
    fn default() -> Self {
        Self { hints: Mutex::new(Hints { slots: vec![Slot::default(); NAMES], name_bytes: 0 }) }
    }
}

fn place(ino: Ino) -> usize {
    (ino.0 % NAMES as u64) as usize
}

impl NameHints {
    pub(super) fn note(&self, ino: Ino, parent: Ino, name: &[u8]) {
        let mut hints = self.hints.lock();
        let slot = &mut hints.slots[place(ino)];
        let before = slot.name.capacity();
        slot.ino = Some(ino);
        slot.parent = parent;
        slot.name.clear();
        slot.name.reserve_exact(name.len());
        slot.name.extend_from_slice(name);
        let after = slot.name.capacity();
        hints.name_bytes = hints.name_bytes + after - before;
    }

    /// Memory of all hints.
    pub(super) fn bytes(&self) -> usize {
        NAMES * size_of::<Slot>() + self.hints.lock().name_bytes
    }

    /// The most that can be.
    pub(super) const BOUND: usize = NAMES * (size_of::<Slot>() + NAME_BYTES_MAX);

    pub(super) fn get(&self, ino: Ino) -> Option<(Ino, Box<[u8]>)> {
        let hints = self.hints.lock();
        let slot = &hints.slots[place(ino)];
        (slot.ino == Some(ino)).then(|| (slot.parent, slot.name.as_slice().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_counts_and_no_other_inode_gets_it() {
        let hints = NameHints::default();
        let (old, new) = (Ino(7), Ino(7 + NAMES as u64));
        assert_eq!(hints.get(old), None);
        hints.note(old, Ino(1), b"a");
        hints.note(old, Ino(2), b"longer");
        assert_eq!(hints.get(old), Some((Ino(2), (*b"longer").into())));
        assert_eq!(hints.get(new), None, "the same slot");
        hints.note(new, Ino(3), b"b");
        assert_eq!((hints.get(old), hints.get(new)), (None, Some((Ino(3), (*b"b").into()))));
    }

    #[test]
    fn memory_is_bounded() {
        let hints = NameHints::default();
        for ino in 0..2 * NAMES as u64 {
            hints.note(Ino(ino), Ino(1), &[b'x'; NAME_BYTES_MAX]);
        }
        assert!(hints.bytes() <= NameHints::BOUND);
    }
}
