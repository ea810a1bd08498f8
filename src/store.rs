//! Chunk store: keeps every distinct chunk once and gives it back verified.
//!
//! Guarantees: after [`Store::seal`] returns, every chunk put before it is durable on its shard,
//! and the rows in its batch point only at durable frames. Every byte that [`Store::read`] returns
//! has the fingerprint it was stored under. A chunk found damaged is not used for dedup until the
//! same bytes are put again; they are then stored under the old number, which heals all who use it.
//! Relies on: one commit at a time ([`Store::seal`], write the batch, [`Store::committed`]); the
//! caller persists [`NextIds`]; shards that keep what they synced.
//! Does not: know files, inodes or snapshots; decide where a chunk goes (the hint does) or what is
//! garbage (gc does); write to the database.
//!
//! Half of "data before reference" lives here: data. The volume's commit owns the other half.
//!
//! | lock          | guards                          | taken while holding  |
//! |---------------|---------------------------------|----------------------|
//! | sealing       | one commit at a time            | nothing              |
//! | writer (lane) | the open container of a lane    | sealing              |
//! | pending       | what is not committed           | sealing, writer      |
//! | shards        | the list of shards              | any                  |
//! | queue, cache  | themselves, briefly             | nothing              |

mod audit;
mod away;
mod cache;
mod commit;
mod container;
mod core;
mod find;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod ledger;
mod load;
mod neighbours;
mod pending;
mod queue;
mod reader;
mod rebuild;
mod recover;
mod rows;
mod scan;
mod share;
mod strays;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod workers;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use bytes::Bytes;

pub use self::audit::{Audit, WINDOW_CHUNKS, Window};
pub use self::commit::Sealed;
pub use self::container::{ContainerHeader, PlacedFrame};
pub use self::frame::{FrameDirectory, FrameEntry};
pub use self::ledger::ScrubRow;
pub use self::load::StoreLoad;
pub use self::rebuild::{ChunkSet, OldContainers, Rebuild, Rebuilt, old_containers, rebuild};
pub use self::rows::{ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health};
pub use self::scan::{FrameScan, read_footer, scan_frames};
pub use self::share::each_share;
pub use self::strays::{Stray, StrayReport};
pub use self::verify::{DamagedChunk, Report};

use self::core::Core;
use self::pending::{Known, NewChunk};
use crate::codec::CodecChoice;
use crate::env::Faults;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::limits::{CHUNK_BYTES_MAX, CONTAINER_BYTES, COPIED_CHUNK_BYTES_MAX};
use crate::shard::Shard;
use crate::stats::Stats;
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId, VolumeId};

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of decoded frames kept for readers.
    pub cache_bytes: usize,
    /// Raw bytes on their way to the shards; a put waits beyond it. Open groups come on top: at
    /// most 1 MiB for each class and shard in use, and half as much together.
    pub queue_bytes: usize,
    /// Threads that compress and write.
    pub workers: usize,
    /// Whose containers these are.
    pub volume: VolumeId,
    /// Change nothing on the shards; nothing may be put then.
    pub read_only: bool,
    /// A container is full when it has as many bytes with its footer.
    pub container_bytes: u32,
}

impl StoreOptions {
    /// 64 MiB of cache, 16 MiB of queue, a worker for every core, at most 8: beyond that one disk
    /// is the limit. Two with one core too: while one waits for the disk the other compresses.
    #[must_use]
    pub fn new(volume: VolumeId) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cache_bytes: 64 << 20,
            queue_bytes: 16 << 20,
            workers: cores.clamp(2, 8),
            volume,
            read_only: false,
            container_bytes: CONTAINER_BYTES,
        }
    }
}

/// Where a chunk goes if it is new.
#[derive(Clone, Copy, Debug)]
pub struct PutHint {
    /// Its class: a container holds one.
    pub class: ClassId,
    /// Its shard.
    pub shard: ShardId,
    /// What to try on it.
    pub codec: CodecChoice,
    /// A group of small chunks is closed at so many raw bytes, at most `GROUP_BYTES_MAX`; a chunk
    /// of half as many has a frame of its own.
    pub group_bytes: u32,
}

/// Answer of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// The chunk with these bytes.
    pub chunk: ChunkNo,
    /// True if it was there already.
    pub known: bool,
}

/// Numbers not yet given away. Smaller ones are never given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextIds {
    /// Next chunk.
    pub chunk: ChunkNo,
    /// Next container.
    pub container: ContainerId,
}

/// Where a chunk lies, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Its container; `None` while it waits to be written.
    pub container: Option<ContainerId>,
    /// Its shard.
    pub shard: ShardId,
    /// The class that first stored it.
    pub class: ClassId,
    /// Its bytes.
    pub raw_len: u32,
    /// Its share of the frame's stored bytes; 0 while it waits.
    pub stored_len: u32,
}

/// See the module text.
pub struct Store {
    core: Arc<Core>,
    workers: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the store as the last commit left it: cuts open containers to their committed length,
    /// and deletes containers without a row, which a crash left. One that may hold what a lost row
    /// spoke of is kept until [`Store::free_strays`]. A damaged open container is closed, not
    /// refused. Read-only it touches nothing: what no row covers is not read either.
    ///
    /// # Errors
    /// `Corrupt` if rows do not parse or contradict `next`; what `kv` and the shards say.
    pub fn open(
        kv: Arc<dyn Kv>,
        shards: Vec<(ShardId, Arc<dyn Shard>)>,
        options: StoreOptions,
        next: NextIds,
        stats: Arc<Stats>,
    ) -> Result<Self> {
        Self::open_with(kv, shards, options, next, stats, Faults::default())
    }

    /// As [`Store::open`], passing fault points.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        kv: Arc<dyn Kv>,
        shards: Vec<(ShardId, Arc<dyn Shard>)>,
        options: StoreOptions,
        next: NextIds,
        stats: Arc<Stats>,
        faults: Faults,
    ) -> Result<Self> {
        let core = Arc::new(Core::new(kv, options, next, stats, faults));
        core.check_numbers(next)?;
        core.look_for_damage();
        for (id, shard) in shards {
            core.attach(id, shard)?;
        }
        let workers = workers::start(&core, options.workers.max(1))?;
        Ok(Self { core, workers })
    }

    /// Adds a shard, or one that was away.
    ///
    /// # Errors
    /// As [`Store::open`]; `Busy` while something written to it before it went is not committed.
    pub fn add_shard(&self, id: ShardId, shard: Arc<dyn Shard>) -> Result<()> {
        self.core.attach(id, shard)
    }

    /// Finds the chunk with the bytes `raw`, or adds it. Exact over the whole volume, also for
    /// chunks not committed yet and for puts at the same time. Waits while the queue is full.
    ///
    /// A large `raw` is kept until it is written: a slice of a larger buffer keeps the buffer.
    ///
    /// # Errors
    /// `Invalid` for 0 or too many bytes; `Shard` for a shard that is not there; `NoSpace` or
    /// another first cause if chunks put before could not be written.
    pub fn put(&self, raw: Bytes, hint: PutHint) -> Result<Put> {
        self.put_of(None, raw, hint)
    }

    /// As [`Store::put`], of a slice of `buffer`, of which most is new: it is kept until the chunk
    /// is written. Without a buffer a small chunk is copied; those that lie side by side in one are
    /// encoded where they are.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_of(&self, buffer: Option<&Bytes>, raw: Bytes, hint: PutHint) -> Result<Put> {
        if raw.is_empty() || raw.len() > CHUNK_BYTES_MAX as usize {
            return Err(Error::invalid(format!("A chunk cannot have {} bytes", raw.len())));
        }
        let fingerprint = Fingerprint::of(&raw);
        let bytes = raw.len() as u64;
        let class = self.core.stats.class(hint.class);
        let put = self.find_or_add(fingerprint, buffer, raw, hint)?;
        if put.known {
            class.duplicate_chunks.fetch_add(1, Relaxed);
            class.duplicate_bytes.fetch_add(bytes, Relaxed);
        } else {
            class.new_chunks.fetch_add(1, Relaxed);
            class.new_bytes.fetch_add(bytes, Relaxed);
        }
        Ok(put)
    }

    fn find_or_add(
        &self,
        fingerprint: Fingerprint,
        buffer: Option<&Bytes>,
        raw: Bytes,
        hint: PutHint,
    ) -> Result<Put> {
        loop {
            let all_there = !self.core.is_any_away();
            let commits = {
                let mut pending = self.core.pending.lock();
                let known = match pending.known(&fingerprint, None) {
                    Known::No if all_there => pending.known_nearby(&fingerprint),
                    known => known,
                };
                if let Known::Yes(chunk) = known {
                    return Ok(Put { chunk, known: true });
                }
                pending.commits
            };
            self.core.stats.activity.index_gets.fetch_add(1, Relaxed);
            let row = self.core.fingerprint_row(fingerprint);
            let row = row.map(|row| self.core.distrust_away(row));
            let mut pending = self.core.pending.lock();
            if pending.commits != commits {
                // A commit came between: what was pending may be in the database now.
                continue;
            }
            let known = pending.known(&fingerprint, row);
            if let Known::Yes(chunk) = known {
                drop(pending);
                self.core.load_neighbours(chunk);
                return Ok(Put { chunk, known: true });
            }
            if let Some(cause) = &pending.failure {
                return Err(cause.clone());
            }
            self.core.shard(hint.shard)?;
            let chunk = match known {
                Known::Bad(chunk) => chunk,
                _ => pending.take_number(),
            };
            // A small chunk may wait long for its group to fill: alone it must not keep a large
            // buffer.
            let small = raw.len() < COPIED_CHUNK_BYTES_MAX as usize && buffer.is_none();
            let raw = if small { Bytes::copy_from_slice(&raw) } else { raw };
            let new = NewChunk { chunk, fingerprint, raw, buffer: buffer.cloned() };
            let jobs = pending.add(new, hint);
            drop(pending);
            jobs.into_iter().for_each(|job| workers::submit(&self.core, job));
            return Ok(Put { chunk, known: false });
        }
    }

    /// The verified bytes of a chunk, committed or not.
    ///
    /// # Errors
    /// `Corrupt` naming chunk, container and shard; `Shard` if the shard is not there; `Io`, `Kv`.
    pub fn read(&self, chunk: ChunkNo) -> Result<Bytes> {
        self.core.read(chunk)
    }

    /// Tries again what a full shard refused; until then every put of a new chunk is refused, too.
    pub fn retry(&self) {
        self.core.retry();
    }

    /// Ends the open txg: containers doomed until now go with the next [`Store::seal`], later ones
    /// with the one after. Called in the moment in which the metadata is frozen: the deletions that
    /// emptied a container may be in the txg after the one that is sealed now.
    pub fn freeze(&self) {
        self.core.pending.lock().freeze();
    }

    /// Closes groups, waits for the workers, makes all containers durable, and returns what the
    /// commit's batch must carry. Puts may go on meanwhile; those that returned before the call
    /// are in the batch.
    ///
    /// # Errors
    /// The first cause that kept a chunk from being written or synced. After `NoSpace` nothing is
    /// lost and the call may be repeated; after anything else the store must be opened again.
    /// `Invalid` if the commit before did not end with [`Store::committed`].
    pub fn seal(&self) -> Result<Sealed> {
        self.core.seal()
    }

    /// Says that the batch of `sealed` is durable. Deletes the files of doomed containers.
    pub fn committed(&self, sealed: Sealed) {
        self.core.committed(sealed);
    }

    /// Numbers the next chunk and the next container will get: gc's horizon.
    #[must_use]
    pub fn next_ids(&self) -> NextIds {
        self.core.next_ids()
    }

    /// Raw bytes that are not yet in a container.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.core.pending.lock().waiting_bytes
    }

    /// True if every chunk and every container is as the last commit says.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        let writers = self.core.writers();
        writers.iter().all(|writer| writer.lock().is_sealed())
            && self.core.pending.lock().is_empty()
    }

    /// Bytes of decoded frames in memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.core.cache.bytes()
    }

    /// The committed containers.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn containers(&self) -> Result<Vec<(ContainerId, ContainerRow)>> {
        self.core.containers()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.core.queue.close();
        for worker in self.workers.drain(..) {
            // A worker catches its panics; there is nobody to tell about another one.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("next", &self.next_ids()).finish_non_exhaustive()
    }
}
