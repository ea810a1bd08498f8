//! What the store's rooms share: the tables, the shards, the writers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::cache::FrameCache;
use super::pending::{Lane, Load, Pending};
use super::queue::Queue;
use super::rows::{ChunkRow, ContainerRow, FingerprintRow, chunk_key, container_key, parse_key};
use super::writer::Writer;
use super::{NextIds, StoreOptions};
use crate::env::Faults;
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::shard::Shard;
use crate::stats::Stats;
use crate::types::{ChunkNo, ContainerId, Fingerprint, ShardId};

/// Open groups may have this part of the queue's bound.
const GROUPS_SHARE: usize = 2;

pub(super) struct Core {
    pub(super) kv: Arc<dyn Kv>,
    pub(super) options: StoreOptions,
    pub(super) stats: Arc<Stats>,
    pub(super) pending: Mutex<Pending>,
    /// What it takes in memory.
    pub(super) load: Arc<Load>,
    /// A job is done or has failed; goes with `pending`.
    pub(super) progress: Condvar,
    pub(super) queue: Queue,
    pub(super) cache: FrameCache,
    pub(super) next_container: AtomicU64,
    /// Where a frame was read last, by anybody.
    pub(super) last_read: AtomicU64,
    pub(super) faults: Faults,
    /// True between a seal and its `committed`.
    pub(super) sealing: Mutex<bool>,
    /// Containers without a row that opening found and kept.
    pub(super) strays: Mutex<Vec<(ShardId, ContainerId)>>,
    /// False if table `damaged` is empty, as it nearly always is: nobody needs to ask it then.
    pub(super) has_damage: AtomicBool,
    pub(super) shards: RwLock<HashMap<ShardId, Arc<dyn Shard>>>,
    /// Shards that the volume has and that are not there now, with the sentence that says so.
    pub(super) away: RwLock<HashMap<ShardId, String>>,
    pub(super) writers: Mutex<HashMap<Lane, Arc<Mutex<Writer>>>>,
}

impl Core {
    pub(super) fn new(
        kv: Arc<dyn Kv>,
        options: StoreOptions,
        next: NextIds,
        stats: Arc<Stats>,
        faults: Faults,
    ) -> Self {
        let pending = Pending::new(next, options.queue_bytes / GROUPS_SHARE);
        Self {
            kv,
            options,
            stats,
            load: pending.load(),
            pending: Mutex::new(pending),
            progress: Condvar::new(),
            queue: Queue::new(options.queue_bytes),
            cache: FrameCache::new(options.cache_bytes),
            next_container: AtomicU64::new(next.container.0),
            last_read: AtomicU64::new(u64::MAX),
            sealing: Mutex::new(false),
            strays: Mutex::default(),
            has_damage: AtomicBool::new(true),
            faults,
            shards: RwLock::default(),
            away: RwLock::default(),
            writers: Mutex::default(),
        }
    }

    pub(super) fn next_ids(&self) -> NextIds {
        let chunk = self.pending.lock().next_chunk();
        NextIds { chunk, container: ContainerId(self.next_container.load(Ordering::Relaxed)) }
    }

    pub(super) fn shard(&self, id: ShardId) -> Result<Arc<dyn Shard>> {
        let found = self.shards.read().get(&id).cloned();
        found.ok_or_else(|| match self.away.read().get(&id) {
            Some(why) => Error::ShardMissing { what: why.clone() },
            None => Error::Shard {
                what: format!("Shard {id} is not there; see `stratafs shard list` for its place"),
            },
        })
    }

    pub(super) fn all_shards(&self) -> Vec<(ShardId, Arc<dyn Shard>)> {
        self.shards.read().iter().map(|(id, shard)| (*id, Arc::clone(shard))).collect()
    }

    pub(super) fn has_shard(&self, id: ShardId) -> bool {
        self.shards.read().contains_key(&id)
    }

    pub(super) fn insert_shard(&self, id: ShardId, shard: Arc<dyn Shard>) {
        self.shards.write().insert(id, shard);
        self.away.write().remove(&id);
    }

    /// The writer of a lane, made when it is first asked for.
    pub(super) fn writer(&self, lane: Lane) -> Arc<Mutex<Writer>> {
        Arc::clone(self.writers.lock().entry(lane).or_default())
    }

    pub(super) fn writers(&self) -> Vec<Arc<Mutex<Writer>>> {
        self.writers.lock().values().cloned().collect()
    }

    /// The committed row of a container.
    pub(super) fn container(&self, id: ContainerId) -> Result<ContainerRow> {
        self.find_container(id)?.ok_or_else(|| Error::not_found(format!("container {id}")))
    }

    /// The committed row of a container, if there is one.
    pub(super) fn find_container(&self, id: ContainerId) -> Result<Option<ContainerRow>> {
        let bytes = self.kv.get(Table::Container, &container_key(id))?;
        bytes.map(|bytes| ContainerRow::parse(id, &bytes)).transpose()
    }

    pub(super) fn containers(&self) -> Result<Vec<(ContainerId, ContainerRow)>> {
        self.container_rows().collect()
    }

    /// The committed containers in number order, one by one.
    pub(super) fn container_rows(
        &self,
    ) -> impl Iterator<Item = Result<(ContainerId, ContainerRow)>> + '_ {
        let rows = self.kv.scan(Table::Container, &KeyRange::all(), Order::Forward);
        rows.map(|row| {
            let (key, value) = row?;
            let id = ContainerId(parse_key("container", &key)?);
            Ok((id, ContainerRow::parse(id, &value)?))
        })
    }

    /// The committed row of a chunk.
    pub(super) fn chunk_row(&self, chunk: ChunkNo) -> Result<Option<ChunkRow>> {
        let bytes = self.kv.get(Table::Chunk, &chunk_key(chunk))?;
        bytes.map(|bytes| ChunkRow::parse(chunk, &bytes)).transpose()
    }

    /// The committed row of a fingerprint. One that does not read counts as missing: storing the
    /// bytes once more is always right, and writes a good row in its place.
    pub(super) fn fingerprint_row(&self, fingerprint: Fingerprint) -> Option<FingerprintRow> {
        let bytes = self.kv.get(Table::Fingerprint, &fingerprint.0);
        let row = bytes.and_then(|bytes| {
            bytes.map(|bytes| FingerprintRow::parse(fingerprint, &bytes)).transpose()
        });
        row.unwrap_or_else(|cause| {
            log::error!("Fingerprint not readable, taken for unknown cause={cause}");
            None
        })
    }

    /// Committed rows of the chunks from `first` to `last` (inclusive; `None` is the end).
    pub(super) fn chunk_rows(
        &self,
        first: ChunkNo,
        last: Option<ChunkNo>,
    ) -> Result<impl Iterator<Item = Result<(ChunkNo, ChunkRow)>> + '_> {
        let upper = last.and_then(|chunk| chunk.0.checked_add(1));
        let range = KeyRange {
            lower: chunk_key(first).to_vec(),
            upper: upper.map(|no| chunk_key(ChunkNo(no)).to_vec()),
        };
        let rows = self.kv.scan_once(Table::Chunk, &range);
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let chunk = ChunkNo(parse_key("chunk", &key)?);
            Ok((chunk, ChunkRow::parse(chunk, &value)?))
        }))
    }
}
