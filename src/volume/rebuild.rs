//! `rebuild-index`: the tables chunk, fingerprint and container out of the containers.
//!
//! Offline, under the volume's lock. The row `rebuilding` in `super` is written first and goes with
//! the last batch, which also brings the counters: a run that was cut off leaves a volume that is
//! refused for writing until another run is done. Names, extents and snapshots are only read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use log::info;
use serde::Serialize;

use super::open::{self, Counters};
use super::shards::open_shards;
use super::storage::LocalStorage;
use super::superblock::Superblock;
use super::{Volume, witness};
use crate::cursor::put_varint;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::kv::{Batch, Kv, RocksKv, RocksOptions, Table};
use crate::meta::{self, Meta};
use crate::store::{self, ChunkSet, NextIds, OldContainers, Rebuild, Rebuilt};
use crate::types::{ChunkNo, ContainerId};

/// The row of `super` that says that the index is being rebuilt.
const REBUILDING: &[u8] = b"rebuilding";
/// The row of `super` that says how many chunks are referred to and were in no container: gc goes
/// on in spite of so many.
pub(super) const LOST_CHUNKS: &[u8] = b"lost_chunks";
/// Tables that containers can give back.
const INDEX: [Table; 5] =
    [Table::Chunk, Table::Fingerprint, Table::Container, Table::Damaged, Table::Scrub];

/// What `rebuild-index` found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RebuildReport {
    /// False if it only looked.
    pub rebuilt: bool,
    /// Containers that hold committed chunks.
    pub containers: u64,
    /// Containers that hold nothing that was committed.
    pub leftovers: u64,
    /// Chunks that have a place.
    pub chunks: u64,
    /// Of these, chunks whose bytes cannot be read.
    pub unreadable_chunks: u64,
    /// Chunks found at more than one place.
    pub moved_chunks: u64,
    /// Extents, live and old, that refer to a chunk that no container holds.
    pub lost_extents: u64,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Problems beyond those listed.
    pub more_problems: u64,
}

/// What the metadata says before anything is changed.
struct Known {
    shards: Vec<super::shards::ShardState>,
    counters: Counters,
    /// False if the counters are only what the other tables suggest.
    read: bool,
    old: OldContainers,
}

impl Volume {
    /// Restores the tables chunk, fingerprint and container of the closed volume in `dir` by
    /// scanning all containers, and the counters. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// `Busy` if the volume is open; as [`Volume::open`] for what containers cannot give back.
    pub fn rebuild_index(
        dir: &Path,
        dry_run: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<RebuildReport> {
        let superblock = Superblock::load(dir)?;
        let dir = fs::canonicalize(dir).map_err(|e| Error::io("open", dir, e))?;
        let _lock = open::take_lock(&dir, "rebuild-index", false)?;
        let options = RocksOptions { tolerant: true, ..RocksOptions::default() };
        progress("Reading names and extents");
        let kv = Arc::new(open::open_database(&dir, &options)?);
        let known = Known::read(&dir, &superblock, Arc::clone(&kv) as Arc<dyn Kv>)?;
        // All of them: what lies on one that is not there would have no row any more.
        let shards: Result<_> = known.shards.iter().map(|s| Ok((s.id, s.get()?))).collect();
        let shards = shards?;
        let limit = known.counters.next.chunk;
        // What shared it is gone by now.
        let in_use = || Error::invalid("The metadata database is still in use");
        let mut kv = Arc::into_inner(kv).ok_or_else(in_use)?;
        if !dry_run {
            mark(&kv)?;
            kv.clear(&INDEX)?;
        }
        let what = Rebuild {
            kv: (!dry_run).then_some(&kv as &dyn Kv),
            shards,
            volume: superblock.id,
            limit,
            old: known.old,
        };
        let mut found = store::rebuild(&what, progress)?;
        progress("Looking for what files need");
        let (lost_extents, lost_chunks) = lost(&kv, &mut found);
        if !known.read {
            found.problem("The counters did not read; they were made anew".to_owned());
        }
        if !dry_run {
            finish(&kv, known.counters, found.next, lost_chunks)?;
            info!("Index rebuilt chunks={} containers={}", found.chunks, found.containers);
        }
        Ok(report(found, lost_extents, !dry_run))
    }
}

/// What is wrong if a run of `rebuild-index` was cut off.
pub(super) fn interrupted(kv: &dyn Kv, dir: &Path) -> Result<Option<Error>> {
    Ok(kv.get(Table::Super, REBUILDING)?.map(|_| {
        let detail = "rebuild-index did not finish; run it again".to_owned();
        Error::corrupt(format!("index of volume {}", dir.display()), detail)
    }))
}

impl Known {
    fn read(dir: &Path, superblock: &Superblock, kv: Arc<dyn Kv>) -> Result<Self> {
        let (meta, _) = Meta::open_with_damage(Arc::clone(&kv))?;
        let shards = open_shards(dir, superblock.id, &meta, &LocalStorage, &Env::system())?;
        let stored = Counters::load(&*kv);
        let read = stored.is_ok();
        let counters = stored.or_else(|_| Self::guess(dir, superblock, &*kv))?;
        Ok(Self { shards, counters, read, old: store::old_containers(&*kv) })
    }

    /// Counters as the other tables suggest them.
    fn guess(dir: &Path, superblock: &Superblock, kv: &dyn Kv) -> Result<Counters> {
        let mut last_chunk = None;
        meta::each_reference(kv, &mut |r| last_chunk = last_chunk.max(Some(r.chunk.0)));
        let audit = meta::audit(kv, meta::PASS_INODES)?;
        Ok(Counters {
            txg: witness::read(dir, superblock.id),
            next_ino: audit.last_ino.saturating_add(1),
            next_snapshot: audit.last_snapshot.saturating_add(1),
            live_bytes: audit.live_bytes,
            next: NextIds {
                chunk: ChunkNo(last_chunk.map_or(0, |last: u64| last.saturating_add(1))),
                container: ContainerId(0),
            },
        })
    }
}

fn mark(kv: &RocksKv) -> Result<()> {
    let mut batch = Batch::default();
    batch.put(Table::Super, REBUILDING, &[1][..]);
    kv.write(batch)
}

fn finish(kv: &RocksKv, counters: Counters, found: NextIds, lost_chunks: u64) -> Result<()> {
    let next = NextIds {
        chunk: counters.next.chunk.max(found.chunk),
        container: counters.next.container.max(found.container),
    };
    let mut batch = Batch::default();
    batch.put(Table::Super, &b"counters"[..], Counters { next, ..counters }.encode());
    let mut accepted = Vec::new();
    put_varint(&mut accepted, lost_chunks);
    batch.put(Table::Super, LOST_CHUNKS, accepted);
    batch.delete(Table::Super, REBUILDING);
    kv.write(batch)
}

/// Extents without a chunk, and the chunks they refer to.
fn lost(kv: &dyn Kv, found: &mut Rebuilt) -> (u64, u64) {
    let (mut lost, mut lost_chunks) = (0, 0);
    let mut missing = ChunkSet::default();
    let mut named = Vec::new();
    meta::each_reference(kv, &mut |r| {
        if !found.has(r.chunk) {
            lost += 1;
            lost_chunks += u64::from(missing.insert(r.chunk));
            if named.len() < 100 {
                named.push(format!(
                    "Inode {} refers to chunk {}, which no container holds",
                    r.ino, r.chunk
                ));
            }
        }
    });
    named.into_iter().for_each(|text| found.problem(text));
    (lost, lost_chunks)
}

fn report(found: Rebuilt, lost_extents: u64, rebuilt: bool) -> RebuildReport {
    RebuildReport {
        rebuilt,
        containers: found.containers,
        leftovers: found.leftovers,
        chunks: found.chunks,
        unreadable_chunks: found.unreadable_chunks,
        moved_chunks: found.moved_chunks,
        lost_extents,
        problems: found.problems,
        more_problems: found.more_problems,
    }
}
