//! The changes of one txg: per table an ordered map of puts and deletes.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use crate::kv::{Batch, Changes, EachChange, KeyRange, Order, Table};

/// Memory of a row besides its bytes: two fat pointers in a tree node that is two thirds full,
/// and what the allocator adds to two small allocations.
const ROW_OVERHEAD_BYTES: usize = 80;

/// `None` is a tombstone: the row is gone, whatever lies below.
pub(super) type Slot = Option<Box<[u8]>>;
type Slots = BTreeMap<Box<[u8]>, Slot>;

/// Changes over the tables below, not yet durable.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    tables: [Slots; Table::ALL.len()],
    bytes: usize,
    changes: u64,
}

fn index(table: Table) -> usize {
    usize::from(table.tag()) - 1
}

impl Overlay {
    /// Puts (`Some`) or deletes (`None`) a row.
    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.changes += 1;
        let rows = &mut self.tables[index(table)];
        let new_bytes = value.map_or(0, <[u8]>::len);
        if let Some(slot) = rows.get_mut(key) {
            self.bytes -= slot.as_ref().map_or(0, |old| old.len());
            match (slot, value) {
                // One file's attributes change a dozen times while it is made.
                (Some(old), Some(value)) if old.len() == value.len() => old.copy_from_slice(value),
                (slot, value) => *slot = value.map(Box::from),
            }
        } else {
            rows.insert(key.into(), value.map(Box::from));
            self.bytes += key.len() + ROW_OVERHEAD_BYTES;
        }
        self.bytes += new_bytes;
    }

    /// Deletes a row that is nowhere below: nothing needs to be said about it.
    pub(super) fn forget(&mut self, table: Table, key: &[u8]) {
        self.changes += 1;
        if let Some(old) = self.tables[index(table)].remove(key) {
            self.bytes -= key.len() + ROW_OVERHEAD_BYTES + old.map_or(0, |old| old.len());
        }
    }

    /// What this overlay says about a row: nothing, that it is gone, or its value.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Slot> {
        self.tables[index(table)].get(key)
    }

    /// The last key of a table that this overlay says anything about.
    pub(super) fn last_key(&self, table: Table) -> Option<&[u8]> {
        self.tables[index(table)].last_key_value().map(|(key, _)| &**key)
    }

    /// Keys of the rows of `table` that it changes.
    pub(super) fn keys(&self, table: Table) -> impl Iterator<Item = &[u8]> {
        self.tables[index(table)].keys().map(|key| &**key)
    }

    /// Puts and deletes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Approximate memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes of `range`, tombstones included.
    pub(super) fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Scan<'_> {
        let lower = range.lower.as_slice();
        let upper = range.upper.as_deref();
        let rows = &self.tables[index(table)];
        if rows.is_empty() || upper.is_some_and(|upper| upper <= lower) {
            return Scan::empty();
        }
        let bounds = (Bound::Included(lower), upper.map_or(Bound::Unbounded, Bound::Excluded));
        Scan { rows: rows.range::<[u8], _>(bounds), order }
    }

    /// Rows that differ from what lies below.
    pub(super) fn rows(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// A copy of all changes.
    pub(super) fn to_batch(&self) -> Batch {
        let mut batch = Batch::default();
        batch.changes.reserve_exact(self.rows());
        self.each(&mut |table, key, value| match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        });
        batch
    }
}

impl Changes for Overlay {
    fn each(&self, change: &mut EachChange<'_>) {
        for table in Table::ALL {
            for (key, value) in &self.tables[index(table)] {
                change(table, key, value.as_deref());
            }
        }
    }

    /// The overhead in memory is more than what RocksDB adds to a row.
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Changes of a range in either order.
pub(super) struct Scan<'a> {
    rows: btree_map::Range<'a, Box<[u8]>, Slot>,
    order: Order,
}

impl Scan<'_> {
    pub(super) fn empty() -> Self {
        Scan { rows: btree_map::Range::default(), order: Order::Forward }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = match self.order {
            Order::Forward => self.rows.next()?,
            Order::Backward => self.rows.next_back()?,
        };
        Some((key, value.as_deref()))
    }
}
