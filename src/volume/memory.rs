//! What an open volume holds in memory, each with its bound (P7). The table in docs/OPERATIONS.md
//! §4.1 says what stands behind the names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::Volume;
use super::hints::NameHints;
use super::open::in_memory;
use super::reaps::ReapIndex;
use crate::config::Limits;
use crate::error::{Error, Result};
use crate::kv::KvUsage;
use crate::limits::{NAME_BYTES_MAX, SNAPSHOTS_MAX};
use crate::shard::AppendBudget;
use crate::stats::{MemoryMap, MemoryUse};
use crate::store::StoreLoad;

/// Memory of an open file without what is buffered: its node, its handle and their places in three
/// maps that may be half empty.
const OPEN_FILE_BYTES: u64 = 640;
/// Memory of a snapshot's record with the longest name.
const SNAPSHOT_BYTES_MAX: u64 = 2 * NAME_BYTES_MAX as u64 + 400;
/// Threads that cut buffers at a time, more or less: four request loops, the commit, the reaper,
/// three beside writers.
const CUTTING_THREADS: u64 = 9;
/// Table readers outside of the block cache: 512 files of about 16 KiB.
const READER_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What the volume itself counts of it.
#[derive(Debug)]
pub(super) struct Held {
    /// Buffers of the containers that are appended to, on all shards.
    pub(super) append: Arc<AppendBudget>,
    /// Open files.
    pub(super) opened: AtomicU64,
    /// Bytes of the buffers that are being cut, or that chunks on their way still keep.
    pub(super) cutting: Arc<AtomicUsize>,
    /// Bytes of the batch that is being written.
    pub(super) committing: AtomicUsize,
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(limits: &Limits) -> Self {
        let append = AppendBudget::new(in_memory(limits.append_bytes));
        let (opened, cutting, committing) = Default::default();
        Self { append, opened, cutting, committing }
    }

    /// Counts one more open file, unless there are `max`.
    pub(super) fn open_file(&self, max: u64) -> Result<()> {
        if self.opened.fetch_add(1, Relaxed) < max {
            return Ok(());
        }
        self.close_file();
        Err(Error::TooManyOpen { max })
    }

    /// Counts one less.
    pub(super) fn close_file(&self) {
        self.opened.fetch_sub(1, Relaxed);
    }
}

impl Volume {
    pub(super) fn memory(&self, kv: &KvUsage) -> MemoryMap {
        let limits = &self.config.limits;
        let mut map = MemoryMap::new();
        let mut add = |name: &str, bytes: u64, bound: u64, limit: &str| {
            map.insert(name.to_owned(), MemoryUse::new(bytes, bound, limit));
        };
        add("dirty", self.files.dirty_memory() as u64, limits.dirty_bytes, "dirty_bytes");
        add("open_txg", self.uncommitted_bytes(), limits.overlay_bytes, "overlay_bytes");
        let writing = self.held.committing.load(Relaxed) as u64;
        add("commit_batch", writing, limits.overlay_bytes, "overlay_bytes");
        add("frame_cache", self.store.cache_bytes() as u64, limits.cache_bytes, "cache_bytes");
        let files = self.held.opened.load(Relaxed);
        let bound = limits.open_files * OPEN_FILE_BYTES;
        add("open_files", files * OPEN_FILE_BYTES, bound, "open_files");
        let bound = ReapIndex::bound(limits.open_files);
        add("reap_index", self.reaps.bytes() as u64, bound, "open_files");
        add("name_hints", self.names.bytes() as u64, NameHints::BOUND as u64, "fixed");
        let snapshots = self.meta.read().snapshot_bytes() as u64;
        add("snapshots", snapshots, SNAPSHOTS_MAX as u64 * SNAPSHOT_BYTES_MAX, "fixed");
        let (known, known_max) = self.meta.known_bytes();
        add("known_inodes", known as u64, known_max as u64, "fixed");
        let marks = self.gate.marks_bytes();
        add("gc_marks", marks, self.store.next_ids().chunk.0.div_ceil(8) + 8, "one bit per chunk");
        let cache = limits.block_cache_bytes;
        add("block_cache", kv.block_cache_bytes, cache, "block_cache_bytes");
        let buffers = limits.write_buffer_bytes;
        add("write_buffers", kv.write_buffer_bytes, buffers, "write_buffer_bytes");
        add("scanned_buffers", kv.scanned_buffer_bytes, buffers, "write_buffer_bytes");
        add("table_readers", kv.reader_bytes, READER_BYTES_MAX, "fixed");
        self.store_memory(&mut map);
        self.stats.holders.add_to(&mut map);
        map
    }

    /// What is on its way to the shards.
    fn store_memory(&self, map: &mut MemoryMap) {
        let limits = &self.config.limits;
        let load = self.store.load();
        let lanes = load.lanes.max(1);
        let cut = self.held.cutting.load(Relaxed) as u64;
        let cut_bound = limits.queue_bytes + CUTTING_THREADS * limits.file_dirty_bytes;
        let append = self.held.append.most(usize::try_from(lanes).unwrap_or(usize::MAX)) as u64;
        let footers = lanes * StoreLoad::FOOTER_BYTES_MAX;
        let lines = [
            ("cutting", cut, cut_bound, "queue_bytes, file_dirty_bytes"),
            ("queue", load.queue_bytes, limits.queue_bytes, "queue_bytes"),
            ("groups", load.group_bytes, limits.queue_bytes / 2, "queue_bytes"),
            ("append_buffers", self.held.append.bytes() as u64, append, "append_bytes"),
            ("neighbours", load.neighbour_bytes, StoreLoad::NEIGHBOUR_BYTES_MAX, "fixed"),
            ("footers", load.footer_bytes, footers, "classes and shards in use"),
        ];
        for (name, bytes, bound, limit) in lines {
            map.insert(name.to_owned(), MemoryUse::new(bytes, bound, limit));
        }
    }
}
