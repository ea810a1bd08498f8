//! Last known names of inodes, for the classifier: a write comes with an inode only.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lru::LruCache;
use parking_lot::Mutex;

use crate::limits::NAME_BYTES_MAX;
use crate::types::Ino;

/// Names kept. A file that is written was looked up or made just before; 16,384 names are about
/// 2 MB and outlast the files any copying tool has in flight.
const NAMES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// A name and the directory it is in.
type Hint = (Ino, Box<[u8]>);

/// Memory of a hint without its name: a node of the list, a slot of a map that may be half empty,
/// and what the allocator adds.
const HINT_BYTES: usize = 160;

/// Inode → parent and name. A hint may be old or missing; nothing but the class depends on it.
#[derive(Debug)]
pub(super) struct NameHints {
    hints: Mutex<LruCache<Ino, Hint>>,
    name_bytes: AtomicUsize,
}

impl Default for NameHints {
    fn default() -> Self {
        Self { hints: Mutex::new(LruCache::new(NAMES)), name_bytes: AtomicUsize::new(0) }
    }
}

impl NameHints {
    pub(super) fn note(&self, ino: Ino, parent: Ino, name: &[u8]) {
        let gone = self.hints.lock().push(ino, (parent, name.into()));
        self.name_bytes.fetch_add(name.len(), Relaxed);
        let freed = gone.map_or(0, |(_, (_, old))| old.len());
        self.name_bytes.fetch_sub(freed, Relaxed);
    }

    /// Memory of all hints.
    pub(super) fn bytes(&self) -> usize {
        HINT_BYTES * self.hints.lock().len() + self.name_bytes.load(Relaxed)
    }

    /// The most that can be.
    pub(super) const BOUND: usize = NAMES.get() * (HINT_BYTES + NAME_BYTES_MAX);

    pub(super) fn get(&self, ino: Ino) -> Option<Hint> {
        self.hints.lock().get(&ino).cloned()
    }
}
