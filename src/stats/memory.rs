//! What is held in memory, by what holds it: bytes now, the bound, and what sets the bound.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One holder of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes it holds now.
    pub bytes: u64,
    /// Bytes it may hold.
    pub bound_bytes: u64,
    /// What sets the bound: keys of `[limits]`, or what it is fixed by.
    pub limit: String,
}

impl MemoryUse {
    /// See the fields.
    #[must_use]
    pub fn new(bytes: u64, bound_bytes: u64, limit: &str) -> Self {
        Self { bytes, bound_bytes, limit: limit.to_owned() }
    }
}

/// Holders by name.
pub type MemoryMap = BTreeMap<String, MemoryUse>;

type Look = Box<dyn Fn() -> MemoryUse + Send + Sync>;

/// Holders in rooms that the volume does not know: they announce themselves.
#[derive(Default)]
pub struct MemoryHolders(Mutex<Vec<(String, Look)>>);

impl MemoryHolders {
    /// Adds a holder, in place of one with the same name.
    pub fn announce(&self, name: &str, look: impl Fn() -> MemoryUse + Send + Sync + 'static) {
        let mut holders = self.0.lock();
        holders.retain(|(other, _)| other != name);
        holders.push((name.to_owned(), Box::new(look)));
    }

    /// What they hold now.
    pub fn add_to(&self, map: &mut MemoryMap) {
        let holders = self.0.lock();
        map.extend(holders.iter().map(|(name, look)| (name.clone(), look())));
    }
}

impl std::fmt::Debug for MemoryHolders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryHolders({})", self.0.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryHolders, MemoryMap, MemoryUse};

    #[test]
    fn a_holder_replaces_its_namesake() {
        let holders = MemoryHolders::default();
        holders.announce("a", || MemoryUse::new(1, 2, "x"));
        holders.announce("a", || MemoryUse::new(3, 4, "y"));
        let mut map = MemoryMap::new();
        holders.add_to(&mut map);
        assert_eq!(map, [("a".to_owned(), MemoryUse::new(3, 4, "y"))].into());
    }
}
