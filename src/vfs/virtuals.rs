//! Virtual directories that no number could stand for: the table of those the kernel knows.
//!
//! Guarantees: what the kernel has looked up keeps its number until it has forgotten it as often;
//! the same thing has the same number meanwhile; numbers are not given twice; memory is bounded.
//! Relies on: the kernel's count of lookups: [`Virtuals::looked_up`] once per entry answered, those
//! of a listing with attributes too, and [`Virtuals::forget`].
//! Does not: know what a thing shows.
//!
//! The lock is a leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Node;
use super::diffdirs::Place;
use crate::error::{Error, Result};
use crate::limits::{INO_BITS, VIRTUAL_BYTES_MAX};
use crate::types::Ino;

/// What a virtual directory stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    /// `.history/NAME`: what the name was in snapshots.
    Past {
        /// The `.history` that shows it.
        shown: Node,
        /// The directory.
        dir: Ino,
        /// The name in it.
        name: Box<[u8]>,
    },
    /// A directory in `.diff`, or `.diff` itself.
    Diff {
        /// The directory above.
        parent: Node,
        /// Which one.
        place: Place,
    },
}

impl Thing {
    /// The directory in which the kernel found it, and its name there.
    pub(super) fn found_at(&self) -> (Node, Box<[u8]>) {
        match self {
            Self::Past { shown, name, .. } => (*shown, name.clone()),
            Self::Diff { parent, place } => (*parent, place.name().into()),
        }
    }

    /// Memory it takes, with its places in two maps that may be half empty.
    fn bytes(&self) -> u64 {
        let named = match self {
            Self::Past { name, .. } => name.len(),
            Self::Diff { place, .. } => place.named(),
        };
        named as u64 + 256
    }
}

/// All virtual directories that the kernel knows.
#[derive(Debug, Default)]
pub(super) struct Virtuals {
    table: Mutex<Table>,
    /// Memory it takes; changed under the lock.
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    numbers: HashMap<Arc<Thing>, u64>,
    known: BTreeMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    thing: Arc<Thing>,
    lookups: u64,
}

impl Virtuals {
    /// The node of `thing` for an answer that the kernel counts as one lookup.
    ///
    /// # Errors
    /// `TooManyVirtual`.
    pub(super) fn looked_up(&self, thing: Thing) -> Result<Node> {
        let mut table = self.table.lock();
        let table = &mut *table;
        if let Some(number) = table.numbers.get(&thing) {
            if let Some(known) = table.known.get_mut(number) {
                known.lookups += 1;
            }
            return Ok(Node::Virtual(*number));
        }
        let bytes = self.bytes() + thing.bytes();
        if bytes > VIRTUAL_BYTES_MAX || table.last >> INO_BITS != 0 {
            return Err(Error::TooManyVirtual);
        }
        self.bytes.store(bytes, Relaxed);
        table.last += 1;
        let thing = Arc::new(thing);
        table.numbers.insert(Arc::clone(&thing), table.last);
        table.known.insert(table.last, Known { thing, lookups: 1 });
        Ok(Node::Virtual(table.last))
    }

    /// What a number stands for.
    ///
    /// # Errors
    /// `Stale` for one that the kernel has forgotten, or has from an earlier mount.
    pub(super) fn get(&self, number: u64) -> Result<Arc<Thing>> {
        let table = self.table.lock();
        table.known.get(&number).map(|known| Arc::clone(&known.thing)).ok_or(Error::Stale)
    }

    /// The kernel takes back `lookups`.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut table = self.table.lock();
        let Some(known) = table.known.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0
            && let Some(known) = table.known.remove(&number)
        {
            table.numbers.remove(&known.thing);
            self.bytes.fetch_sub(known.thing.bytes(), Relaxed);
        }
    }

    /// Memory it takes now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Those that are known for longest.
    pub(super) fn older_half(&self) -> Vec<Arc<Thing>> {
        let table = self.table.lock();
        let half = table.known.len() / 2 + 1;
        table.known.values().take(half).map(|known| Arc::clone(&known.thing)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(name: &[u8]) -> Thing {
        Thing::Past { shown: Node::PastDir(Ino(1)), dir: Ino(1), name: name.into() }
    }

    fn number(node: Node) -> u64 {
        match node {
            Node::Virtual(number) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_thing_keeps_its_number_until_every_lookup_is_forgotten() {
        let virtuals = Virtuals::default();
        let first = virtuals.looked_up(thing(b"a")).unwrap();
        assert_eq!(virtuals.looked_up(thing(b"a")).unwrap(), first);
        let other = virtuals.looked_up(thing(b"b")).unwrap();
        assert_ne!(other, first);
        virtuals.forget(number(first), 1);
        assert_eq!(*virtuals.get(number(first)).unwrap(), thing(b"a"));
        virtuals.forget(number(first), 1);
        assert!(matches!(virtuals.get(number(first)), Err(Error::Stale)));
        let again = virtuals.looked_up(thing(b"a")).unwrap();
        assert!(![first, other].contains(&again), "numbers are not given twice");
        virtuals.forget(number(other), 5);
        virtuals.forget(number(again), 1);
        virtuals.forget(999, 1);
        assert_eq!(virtuals.bytes(), 0, "nothing leaks");
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let virtuals = Virtuals::default();
        let mut made = Vec::new();
        let refused = loop {
            let name = format!("{:0>200}", made.len());
            match virtuals.looked_up(thing(name.as_bytes())) {
                Ok(node) => made.push(node),
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, Error::TooManyVirtual));
        assert!(virtuals.bytes() <= VIRTUAL_BYTES_MAX && made.len() > 5_000);
        virtuals.forget(number(made[0]), 1);
        virtuals.looked_up(thing(b"there is room again")).unwrap();
    }
}
