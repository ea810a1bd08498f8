//! A machine whose power can be cut: tables and shards in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use stratafs::config::Config;
use stratafs::env::{Faults, Power, SeededRandom};
use stratafs::error::{Error, Result};
use stratafs::kv::{Kv, MemoryKv};
use stratafs::shard::{MemoryShard, Shard};
use stratafs::types::{ShardId, VolumeId};
use stratafs::volume::{Bounds, Opening, Storage};

/// What the disks hold when the power comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Only what was confirmed.
    Least,
    /// Anything that a disk may have kept of the rest, without the batch that was being written.
    Torn,
    /// The same, and that batch.
    TornWithBatch,
}

#[derive(Default)]
pub struct Machine {
    pub power: Power,
    tables: Arc<MemoryKv>,
    shards: Mutex<BTreeMap<ShardId, MemoryShard>>,
}

impl Machine {
    /// What the cut left, on new power.
    pub fn after_power_cut(&self, left: Left, random: &SeededRandom) -> Self {
        let power = Power::default();
        let arrived = left == Left::TornWithBatch;
        let tables = Arc::new(self.tables.after_power_cut(arrived, power.clone()));
        let shards = self.shards.lock();
        let shards = shards.iter().map(|(id, shard)| {
            let mut pick = |bound: u64| match left {
                Left::Least => 0,
                _ => random.below(bound),
            };
            (*id, shard.torn_by_power_cut(power.clone(), &mut pick))
        });
        let shards = Mutex::new(shards.collect());
        Self { power, tables, shards }
    }

    /// What may be left of it: always two ways, and the batch in both if it was under way.
    pub fn ways(&self) -> [Left; 2] {
        if self.tables.was_interrupted() {
            [Left::Torn, Left::TornWithBatch]
        } else {
            [Left::Least, Left::Torn]
        }
    }
}

impl Storage for Machine {
    fn tables(&self, _: &Path, _: &Config, _: Opening) -> Result<Arc<dyn Kv>> {
        drop(self.power.hold()?);
        Ok(Arc::clone(&self.tables) as Arc<dyn Kv>)
    }

    fn create_shard(
        &self,
        _: &Path,
        _: VolumeId,
        id: ShardId,
        _: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        drop(self.power.hold()?);
        let new = || MemoryShard::powered_by(self.power.clone());
        Ok(Arc::new(self.shards.lock().entry(id).or_insert_with(new).clone()))
    }

    fn open_shard(
        &self,
        dir: &Path,
        _: VolumeId,
        id: ShardId,
        _: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        drop(self.power.hold()?);
        let what = || Error::Shard { what: format!("Shard {id} in {} is missing", dir.display()) };
        Ok(Arc::new(self.shards.lock().get(&id).ok_or_else(what)?.clone()))
    }

    /// So small that a few files fill containers, and a large file is removed in pieces.
    fn bounds(&self) -> Bounds {
        Bounds { container_bytes: 48 * 1024, reap_piece_extents: 4 }
    }
}
