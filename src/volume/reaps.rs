//! Which inodes the reaper has work for, in memory of a fixed size.
//!
//! The truth is table `reap`. Writes ask on every call whether an old tail is in their way, so a
//! count per slot of inode numbers answers "certainly not" without a look at the table. Only for
//! files without a name the row does not say whether a tail is being cut; those are noted one by
//! one, and there are no more of them than open files.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::error::Result;
use crate::meta::{Edit, Meta, Reap, View};
use crate::types::Ino;

/// Numbers follow each other, so few files in use share a slot. 64 KiB.
const SLOTS: usize = 16 * 1024;
/// A number in a hash set that is half empty at worst.
const NOTE_BYTES: usize = 2 * (size_of::<Ino>() + 1);

/// See the module text.
#[derive(Debug)]
pub(super) struct ReapIndex {
    slots: Vec<AtomicU32>,
    rows: AtomicU64,
    /// Files without a name whose old tail is still to be removed.
    nameless_trims: Mutex<HashSet<Ino>>,
    /// How far the work that was done last has come.
    progress: Mutex<Option<Progress>>,
}

/// Of the extents of `ino` from `from` on, those before `reached` are gone. Looking for the next
/// ones from the beginning would step over every removed row again, piece after piece.
#[derive(Clone, Copy, Debug)]
struct Progress {
    ino: Ino,
    from: u64,
    reached: u64,
}

impl ReapIndex {
    /// As the table says. Nobody has a nameless file open yet, so no tail of one is asked for.
    pub(super) fn load(meta: &Meta) -> Result<Self> {
        let this = Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            rows: AtomicU64::new(0),
            nameless_trims: Mutex::default(),
            progress: Mutex::default(),
        };
        let mut after = None;
        loop {
            let rows = meta.read().reaps(after, 1000)?;
            let Some((last, _)) = rows.last() else { return Ok(this) };
            after = Some(*last);
            rows.iter().for_each(|(ino, _)| this.count(*ino, 1));
        }
    }

    fn slot(&self, ino: Ino) -> &AtomicU32 {
        &self.slots[(ino.0 % SLOTS as u64) as usize]
    }

    fn count(&self, ino: Ino, by: i32) {
        if by > 0 {
            self.slot(ino).fetch_add(1, Relaxed);
            self.rows.fetch_add(1, Relaxed);
        } else {
            self.slot(ino).fetch_sub(1, Relaxed);
            self.rows.fetch_sub(1, Relaxed);
        }
    }

    /// True if the reaper has nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.load(Relaxed) == 0
    }

    /// False if the table certainly has no row of `ino`.
    pub(super) fn may_have(&self, ino: Ino) -> bool {
        self.slot(ino).load(Relaxed) > 0
    }

    /// True if an old tail of `ino` is still to be removed.
    pub(super) fn is_trimming(&self, view: &View<'_>, ino: Ino) -> Result<bool> {
        if !self.may_have(ino) {
            return Ok(false);
        }
        Ok(match view.reap(ino)? {
            None => false,
            Some(reap) => !reap.delete || self.is_nameless_trim(ino),
        })
    }

    /// True if an old tail of this file without a name is still to be removed.
    pub(super) fn is_nameless_trim(&self, ino: Ino) -> bool {
        self.nameless_trims.lock().contains(&ino)
    }

    /// True if `ino` waits for its last close, or for the reaper, to be removed.
    pub(super) fn is_orphan(&self, view: &View<'_>, ino: Ino) -> Result<bool> {
        Ok(self.may_have(ino) && view.reap(ino)?.is_some_and(|reap| reap.delete))
    }

    /// Leaves work to the reaper; `trim` if extents beyond the end of the file are part of it.
    pub(super) fn put(&self, edit: &mut Edit<'_>, ino: Ino, reap: Reap, trim: bool) -> Result<()> {
        if !self.may_have(ino) || edit.view().reap(ino)?.is_none() {
            self.count(ino, 1);
        }
        edit.put_reap(ino, reap);
        self.begin_again(ino);
        if trim && reap.delete {
            self.nameless_trims.lock().insert(ino);
        }
        Ok(())
    }

    /// The work is done.
    pub(super) fn delete(&self, edit: &mut Edit<'_>, ino: Ino) -> Result<()> {
        if self.may_have(ino) && edit.view().reap(ino)?.is_some() {
            self.count(ino, -1);
            edit.delete_reap(ino);
        }
        self.trimmed(ino);
        Ok(())
    }

    /// The old tail of a file without a name is removed.
    pub(super) fn trimmed(&self, ino: Ino) {
        self.nameless_trims.lock().remove(&ino);
        self.begin_again(ino);
    }

    /// Where the first extent may lie of those to be removed from `from` on.
    pub(super) fn reached(&self, ino: Ino, from: u64) -> u64 {
        let progress = self.progress.lock().filter(|p| (p.ino, p.from) == (ino, from));
        progress.map_or(from, |p| p.reached)
    }

    /// Before `reached` there is nothing left to remove. The caller holds the file's state, so that
    /// no extent comes in between.
    pub(super) fn note_reached(&self, ino: Ino, from: u64, reached: u64) {
        *self.progress.lock() = Some(Progress { ino, from, reached });
    }

    fn begin_again(&self, ino: Ino) {
        self.progress.lock().take_if(|progress| progress.ino == ino);
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        SLOTS * size_of::<AtomicU32>() + NOTE_BYTES * self.nameless_trims.lock().len()
    }

    /// The most they can be with so many open files.
    pub(super) fn bound(open_files: u64) -> u64 {
        (SLOTS * size_of::<AtomicU32>()) as u64 + NOTE_BYTES as u64 * open_files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> ReapIndex {
        ReapIndex {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            rows: AtomicU64::new(0),
            nameless_trims: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    #[test]
    fn work_goes_on_where_it_was_but_never_where_it_began_otherwise() {
        let (index, ino) = (empty(), Ino(7));
        assert_eq!(index.reached(ino, 100), 100);
        index.note_reached(ino, 100, 5000);
        assert_eq!(index.reached(ino, 100), 5000);
        assert_eq!(index.reached(ino, 50), 50, "cut again, further down");
        assert_eq!(index.reached(Ino(8), 100), 100, "another file");
        index.trimmed(Ino(8));
        assert_eq!(index.reached(ino, 100), 5000);
        index.trimmed(ino);
        assert_eq!(index.reached(ino, 100), 100, "the file may have grown again");
    }
}
