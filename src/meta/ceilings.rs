//! What the database certainly has no row of, without asking it.
//!
//! Inode numbers rise and are never given twice. So of an inode made since the last commit the
//! database has no row, in any table whose keys begin with an inode's number: what is not in
//! memory is not there. Copying programs ask about hardly anything else: whether a new name is
//! taken in a new directory, whether a new file has an ACL, which extents it has.
//!
//! Per table one number: every row belongs to an inode below it.

use super::overlay::Overlay;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::Ino;

/// Tables whose keys begin with the number of an inode.
const TABLES: [Table; 5] = [Table::Inode, Table::Dirent, Table::Extent, Table::Xattr, Table::Reap];

/// See the module text.
#[derive(Clone, Debug)]
pub(super) struct Ceilings([u64; TABLES.len()]);

impl Default for Ceilings {
    /// Nothing is known.
    fn default() -> Self {
        Self([u64::MAX; TABLES.len()])
    }
}

impl Ceilings {
    /// Nothing is known, but for attributes: most volumes have few or none.
    pub(super) fn load(kv: &dyn Kv) -> Self {
        let mut ceilings = Self::default();
        let last = kv.scan(Table::Xattr, &KeyRange::all(), Order::Backward).next();
        let ceiling = match last {
            None => Some(0),
            Some(row) => row.ok().and_then(|(key, _)| number(&key)).map(|n| n.saturating_add(1)),
        };
        if let (Some(ceiling), Some(slot)) = (ceiling, ceilings.slot(Table::Xattr)) {
            *slot = ceiling;
        }
        ceilings
    }

    /// No row in the database belongs to this inode or to one with a higher number.
    pub(super) fn none_from(&mut self, ino: Ino) {
        self.0.iter_mut().for_each(|ceiling| *ceiling = ino.0.min(*ceiling));
    }

    /// These changes are in the database from now on.
    pub(super) fn raise(&mut self, written: &Overlay) {
        for table in TABLES {
            let last = written.last_key(table).and_then(number);
            if let (Some(last), Some(slot)) = (last, self.slot(table)) {
                *slot = last.saturating_add(1).max(*slot);
            }
        }
    }

    /// False if the database certainly has no row whose key is `key` or follows it below the same
    /// inode, or that of any higher one.
    pub(super) fn may_have(&self, table: Table, key: &[u8]) -> bool {
        let at = TABLES.iter().position(|known| *known == table);
        match (at.and_then(|at| self.0.get(at)), number(key)) {
            (Some(ceiling), Some(number)) => number < *ceiling,
            _ => true,
        }
    }

    fn slot(&mut self, table: Table) -> Option<&mut u64> {
        let at = TABLES.iter().position(|known| *known == table)?;
        self.0.get_mut(at)
    }
}

fn number(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|first| u64::from_be_bytes(*first))
}
