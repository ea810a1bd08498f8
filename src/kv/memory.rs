//! Tables in memory, for tests and models: the same contract, nothing durable.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::{Batch, KeyRange, Kv, KvUsage, Order, Row, Rows, Table};
use crate::error::Result;

type Rowmap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// All tables in memory. A scan copies its range when it starts.
#[derive(Debug, Default)]
pub struct MemoryKv {
    tables: RwLock<[Rowmap; Table::ALL.len()]>,
}

impl MemoryKv {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn index(table: Table) -> usize {
    usize::from(table.tag()) - 1
}

impl Kv for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tables.read()[index(table)].get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        let lower = range.lower.as_slice();
        let upper = range.upper.as_deref();
        if upper.is_some_and(|upper| upper <= lower) {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(lower), upper.map_or(Bound::Unbounded, Bound::Excluded));
        let tables = self.tables.read();
        let rows: Vec<Row> = tables[index(table)]
            .range::<[u8], _>(bounds)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        match order {
            Order::Forward => Box::new(rows.into_iter().map(Ok)),
            Order::Backward => Box::new(rows.into_iter().rev().map(Ok)),
        }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let mut tables = self.tables.write();
        for change in batch.changes {
            let rows = &mut tables[index(change.table)];
            match change.value {
                Some(value) => rows.insert(change.key, value),
                None => rows.remove(&change.key),
            };
        }
        Ok(())
    }

    fn usage(&self) -> KvUsage {
        let tables = self.tables.read();
        let bytes: usize =
            tables.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
        KvUsage { disk_bytes: 0, memory_bytes: bytes as u64 }
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        // A copy; writing to it harms nobody, so it need not be refused.
        Box::new(Self { tables: RwLock::new(self.tables.read().clone()) })
    }
}
