//! Removed directories that somebody still stands in or has open.
//!
//! Nothing can be found or made in one any more, but it still has attributes. They are kept until
//! the kernel forgets the inode, which it does when nobody uses it; a mount that ends forgets all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::types::Ino;
use crate::volume::Stat;

/// Most of them, half a MiB. Beyond, a newly removed one has no attributes.
const REMOVED_MAX: usize = 1024;

/// Attributes by inode. Numbers are never used again, so a removed one means nothing else.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// How many there are, nearly always none.
    count: AtomicUsize,
    dirs: Mutex<HashMap<Ino, Stat>>,
}

impl Removed {
    /// The directory was removed just now.
    pub(super) fn note(&self, mut stat: Stat) {
        stat.inode.nlink = 0;
        let mut dirs = self.dirs.lock();
        if dirs.len() < REMOVED_MAX {
            dirs.insert(stat.ino, stat);
        }
        self.count.store(dirs.len(), Relaxed);
    }

    /// What is known of a removed directory.
    pub(super) fn get(&self, ino: Ino) -> Option<Stat> {
        self.change(ino, |_| ())
    }

    /// Changes what is known, and returns it.
    pub(super) fn change(&self, ino: Ino, change: impl FnOnce(&mut Stat)) -> Option<Stat> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut dirs = self.dirs.lock();
        let stat = dirs.get_mut(&ino)?;
        change(stat);
        Some(stat.clone())
    }

    /// Nobody uses the inode any more.
    pub(super) fn forget(&self, ino: Ino) {
        if self.count.load(Relaxed) > 0 {
            let mut dirs = self.dirs.lock();
            dirs.remove(&ino);
            self.count.store(dirs.len(), Relaxed);
        }
    }
}
