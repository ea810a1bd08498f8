//! Last known names of inodes, for the classifier: a write comes with an inode only.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::types::Ino;

/// Names kept. A file that is written was looked up or made just before; 16,384 names are about
/// 2 MB and outlast the files any copying tool has in flight.
const NAMES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// A name and the directory it is in.
type Hint = (Ino, Box<[u8]>);

/// Inode → parent and name. A hint may be old or missing; nothing but the class depends on it.
#[derive(Debug)]
pub(super) struct NameHints(Mutex<LruCache<Ino, Hint>>);

impl Default for NameHints {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NAMES)))
    }
}

impl NameHints {
    pub(super) fn note(&self, ino: Ino, parent: Ino, name: &[u8]) {
        self.0.lock().put(ino, (parent, name.into()));
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Hint> {
        self.0.lock().get(&ino).cloned()
    }
}
