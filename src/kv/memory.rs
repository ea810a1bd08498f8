//! Tables in memory, for tests and models: the same contract, on power that can be cut.
//!
//! A written batch is durable at once. One that was being written when the power went is there as
//! a whole or not at all: [`MemoryKv::after_power_cut`] makes both.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::{Mutex, RwLock};

use super::{Batch, KeyRange, Kv, KvUsage, Order, Row, Rows, Table};
use crate::env::Power;
use crate::error::Result;

type Rowmap = BTreeMap<Box<[u8]>, Box<[u8]>>;
type Tables = [Rowmap; Table::ALL.len()];

/// All tables in memory. A scan copies its range when it starts.
#[derive(Debug, Default)]
pub struct MemoryKv {
    tables: RwLock<Tables>,
    power: Power,
    /// The batch that the power cut met.
    interrupted: Mutex<Option<Batch>>,
}

impl MemoryKv {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power cut leaves: all batches that were written, and, if it `arrived`, the one that
    /// was being written. Runs on `power`.
    #[must_use]
    pub fn after_power_cut(&self, arrived: bool, power: Power) -> Self {
        let mut tables = self.tables.read().clone();
        let interrupted = self.interrupted.lock().clone();
        interrupted.filter(|_| arrived).into_iter().for_each(|batch| apply(&mut tables, batch));
        Self { tables: RwLock::new(tables), power, interrupted: Mutex::default() }
    }

    /// True if the power was cut while a batch was being written.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.interrupted.lock().is_some()
    }
}

fn apply(tables: &mut Tables, batch: Batch) {
    for change in batch.changes {
        let rows = &mut tables[index(change.table)];
        match change.value {
            Some(value) => rows.insert(change.key, value),
            None => rows.remove(&change.key),
        };
    }
}

fn index(table: Table) -> usize {
    usize::from(table.tag()) - 1
}

impl Kv for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _on = self.power.hold()?;
        Ok(self.tables.read()[index(table)].get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        let lower = range.lower.as_slice();
        let upper = range.upper.as_deref();
        if upper.is_some_and(|upper| upper <= lower) {
            return Box::new(std::iter::empty());
        }
        let _on = match self.power.hold() {
            Ok(on) => on,
            Err(gone) => return Box::new(std::iter::once(Err(gone))),
        };
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
        match self.power.hold() {
            Ok(_on) => {
                apply(&mut self.tables.write(), batch);
                Ok(())
            }
            Err(gone) => {
                // What came before it was confirmed, or the caller would not be here: so the power
                // went just now. Only the first one can have been under way.
                self.interrupted.lock().get_or_insert(batch);
                Err(gone)
            }
        }
    }

    fn usage(&self) -> KvUsage {
        let tables = self.tables.read();
        let bytes: usize =
            tables.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
        KvUsage { memory_bytes: bytes as u64, ..KvUsage::default() }
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        // A copy; writing to it harms nobody, so it need not be refused.
        let tables = RwLock::new(self.tables.read().clone());
        Box::new(Self { tables, power: self.power.clone(), interrupted: Mutex::default() })
    }
}
