//! Ordered tables: the tool under all metadata.
//!
//! Guarantees: [`Kv::write`] is atomic over all tables and durable when it returns; keys come back
//! in byte order. Relies on: one writer of the database at a time (the volume's lock).
//! Does not: know what a key or value means, keep versions, cache rows above RocksDB's own caches.
//! `rocksdb` lives here and nowhere else.

mod bulk;
mod memory;
mod rocks;
#[cfg(test)]
mod tests;

pub use bulk::RowSink;
pub use memory::MemoryKv;
pub use rocks::{RocksKv, RocksOptions};

use crate::error::Result;

/// A table of the design; one RocksDB column family each. The tag is on disk in `history` keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// ino → attributes.
    Inode = 1,
    /// parent · cookie · name → child.
    Dirent = 2,
    /// ino · offset → place in a chunk.
    Extent = 3,
    /// ino · name → value.
    Xattr = 4,
    /// table tag · key · end epoch → old value.
    History = 5,
    /// snapshot id → record.
    Snapshot = 6,
    /// chunk number → place in a container.
    Chunk = 7,
    /// fingerprint → chunk number.
    Fingerprint = 8,
    /// container id → shard, class, sizes, state.
    Container = 9,
    /// epoch · table tag · key: what changed first in which epoch.
    Change = 10,
    /// ino → work left to the reaper.
    Reap = 11,
    /// shard id → name, place, weight.
    Shard = 12,
    /// name → counters.
    Super = 13,
    /// chunk number → nothing: this chunk is known to be bad.
    Damaged = 14,
    /// container id → its last verification.
    Scrub = 15,
}

impl Table {
    /// All tables, in tag order.
    pub const ALL: [Self; 15] = [
        Self::Inode,
        Self::Dirent,
        Self::Extent,
        Self::Xattr,
        Self::History,
        Self::Snapshot,
        Self::Chunk,
        Self::Fingerprint,
        Self::Container,
        Self::Change,
        Self::Reap,
        Self::Shard,
        Self::Super,
        Self::Damaged,
        Self::Scrub,
    ];

    /// Name of the column family.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Dirent => "dirent",
            Self::Extent => "extent",
            Self::Xattr => "xattr",
            Self::History => "history",
            Self::Snapshot => "snapshot",
            Self::Chunk => "chunk",
            Self::Fingerprint => "fingerprint",
            Self::Container => "container",
            Self::Change => "change",
            Self::Reap => "reap",
            Self::Shard => "shard",
            Self::Super => "super",
            Self::Damaged => "damaged",
            Self::Scrub => "scrub",
        }
    }

    /// The tag in `history` and `change` keys.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }
}

/// Keys from `lower` (inclusive) to `upper` (exclusive; `None` is the end of the table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key that may be returned.
    pub lower: Vec<u8>,
    /// First key that is not returned any more.
    pub upper: Option<Vec<u8>>,
}

impl KeyRange {
    /// The whole table.
    #[must_use]
    pub fn all() -> Self {
        Self { lower: Vec::new(), upper: None }
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { lower: prefix.to_vec(), upper: successor(prefix) }
    }
}

/// The smallest key greater than every key that begins with `prefix`; `None` if there is none.
#[must_use]
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(key);
        }
        key.pop();
    }
    None
}

/// A key and its value.
pub type Row = (Box<[u8]>, Box<[u8]>);
/// Rows in key order (or against it), each with its own error.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + 'a>;

/// Order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Rising keys.
    Forward,
    /// Falling keys.
    Backward,
}

/// One change of one row. `None` deletes.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Box<[u8]>,
    /// The new value, or `None` to delete the row.
    pub value: Option<Box<[u8]>>,
}

/// Changes that become durable together. Later changes of the same row win.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Adds or replaces a row.
    pub fn put(&mut self, table: Table, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.changes.push(Change { table, key: key.into(), value: Some(value.into()) });
    }

    /// Removes a row; a missing one is no error.
    pub fn delete(&mut self, table: Table, key: impl Into<Box<[u8]>>) {
        self.changes.push(Change { table, key: key.into(), value: None });
    }
}

/// Hears of a change: table, key, and the new value or `None` to delete.
pub type EachChange<'a> = dyn FnMut(Table, &[u8], Option<&[u8]>) + 'a;

/// Changes that lie where they were made, so that writing them needs no copy of them all.
pub trait Changes {
    /// Hands over each change in order.
    fn each(&self, change: &mut EachChange<'_>);

    /// Most bytes they take in memory once they are written: room is made for them beforehand.
    fn bytes(&self) -> usize;
}

/// What RocksDB adds to a row in a memtable, at most: a node of a skip list, lengths, a sequence.
const ROW_BYTES: usize = 64;

impl Changes for Batch {
    fn each(&self, change: &mut EachChange<'_>) {
        for Change { table, key, value } in &self.changes {
            change(*table, key, value.as_deref());
        }
    }

    fn bytes(&self) -> usize {
        let value = |change: &Change| change.value.as_ref().map_or(0, |value| value.len());
        self.changes.iter().map(|change| ROW_BYTES + change.key.len() + value(change)).sum()
    }
}

/// Sizes of the database, for `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Bytes of its files: tables, log and what belongs to them.
    pub disk_bytes: u64,
    /// Bytes held in memory: the sum of those below.
    pub memory_bytes: u64,
    /// Memtables: what was written and is not yet in a table file.
    pub write_buffer_bytes: u64,
    /// Memtables that are in a table file by now, and that a scan still reads.
    pub scanned_buffer_bytes: u64,
    /// Cached blocks, indexes and filters.
    pub block_cache_bytes: u64,
    /// What open table files keep outside of the cache.
    pub reader_bytes: u64,
}

/// An ordered, transactional set of tables.
pub trait Kv: Send + Sync {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// `Kv` when the database cannot read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The rows of `range`. The iterator sees one consistent state of the database, taken now.
    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_>;

    /// As [`Kv::scan`] forward, for passes over whole tables: what others have in caches stays.
    fn scan_once(&self, table: Table, range: &KeyRange) -> Rows<'_> {
        self.scan(table, range, Order::Forward)
    }

    /// Applies the whole batch or nothing, durable on return.
    ///
    /// # Errors
    /// `NoSpace`: whether the batch was written is unknown, and the very same batch may be tried
    /// again. `Kv`: the caller must treat the database as unusable for writing afterwards.
    fn write(&self, batch: Batch) -> Result<()>;

    /// As [`Kv::write`], for several parts that together are one batch; later ones win.
    ///
    /// # Errors
    /// As [`Kv::write`].
    fn write_parts(&self, parts: &[&dyn Changes]) -> Result<()> {
        let mut batch = Batch::default();
        for part in parts {
            part.each(&mut |table, key, value| match value {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key),
            });
        }
        self.write(batch)
    }

    /// Sizes for `stats`.
    fn usage(&self) -> KvUsage;

    /// The tables as they are now, for as long as the result lives; it refuses to write.
    fn snapshot(&self) -> Box<dyn Kv + '_>;
}
