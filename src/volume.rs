//! The volume: the only room that knows names and bytes.
//!
//! Guarantees: after [`Volume::commit`] returns, every change made before the call is durable, and
//! after any crash the volume opens as one commit left it (P1). A snapshot is one record and an
//! exact image (P2). Bytes read are verified by `store` (P3).
//! Relies on: `meta` for versions and the open txg, `store` for chunks, one process per volume (the
//! lock). Does not: know FUSE, handles of the kernel, paths with `..`, permissions.
//!
//! Locks, in the order they are taken; nobody takes one to the left while holding one to the right:
//!
//! | lock | held for | by |
//! |---|---|---|
//! | `gate` (read) | one change, from its first look to its last staged row | every change |
//! | `gate` (write) | the drain of what is left, then freeze or snapshot | commit, snapshot, gc |
//! | a file's `state` | a write, a drain, a read | files |
//! | `meta` | one look or one edit | everybody |
//! | leaves: file table, hints, sets of inodes, the store's | a few instructions | everybody |
//!
//! A chunk number that ingest returned stays valid as long as the gate is held: gc decides what
//! dies only with the gate closed, so nothing is lost between "known" and the extent that says so
//! (`gate` has the whole argument).

mod arrival;
mod attributes;
mod commit;
mod cuts;
mod damage;
mod diff;
mod dirty;
mod drain;
mod ends;
mod extent;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod garbage;
mod gate;
mod hints;
mod import;
mod init;
mod marks;
mod measure;
mod memory;
mod names;
mod open;
mod past;
mod read;
mod reaps;
mod rebuild;
mod removal;
mod rename;
mod report;
mod request;
mod resize;
mod restore;
mod shards;
mod snapshots;
mod space;
mod storage;
mod stream;
mod superblock;
mod sync;
mod upkeep;
mod usage;
mod witness;
mod write;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use log::error;
use parking_lot::{Mutex, RwLock};

use crate::classify::Classifier;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::limits::INO_BITS;
use crate::meta::{Edit, Meta};
use crate::stats::Stats;
use crate::store::Store;
use crate::types::{
    At, ChunkNo, ContainerId, Cookie, Epoch, FileKind, Ino, Inode, ShardId, Timestamp, Txg,
    VolumeId,
};

pub use arrival::LargeFile;
use commit::{Background, CommitSignal, Frozen};
pub use damage::{Damage, DamagedChunk, DamagedFile};
pub use diff::TreeState;
use files::{FileNode, FileTable};
use garbage::Garbage;
pub use garbage::{GarbageFacts, GcOutcome, GcProgress, GcStatus, GcTicket, MarkResult, RunResult};
use gate::Gate;
pub use gate::Marks;
use hints::NameHints;
pub use import::{Arrival, Placed, SmallFile, Spot};
pub use init::InitOptions;
pub use marks::{ChunkCount, LookOnly, Marking, Pruned};
pub use measure::Measure;
pub use open::OpenOptions;
pub use past::{PastNames, PastVersion};
use reaps::ReapIndex;
pub use rebuild::RebuildReport;
pub use report::{ClassReport, Explanation, ShardInfo, StatsReport, Status};
pub use request::{AttrChange, NewInode, Problem, RenameMode, Seek, SetTime, XattrMode};
pub use restore::Nameless;
pub use snapshots::KeptEpoch;
pub use space::VolumeSpace;
pub use storage::{Bounds, LocalStorage, Opening, Storage};
pub use superblock::{FORMAT_VERSION, SUPERBLOCK_FILE};
pub use upkeep::{Pass, Turn, Verified};
pub use usage::{Amount, SnapshotUsage};

/// An open volume.
pub struct Volume {
    dir: PathBuf,
    id: VolumeId,
    read_only: bool,
    env: Env,
    storage: Arc<dyn Storage>,
    bounds: Bounds,
    config: Config,
    classifier: Classifier,
    stats: Arc<Stats>,
    kv: Arc<dyn Kv>,
    meta: Meta,
    store: Store,
    gate: Gate,
    files: FileTable,
    names: NameHints,
    ends: ends::Ends,
    shards: RwLock<Vec<shards::ShardState>>,
    last_look: shards::LastLook,
    /// What is still to be removed: tails of files, and inodes without names.
    reaps: ReapIndex,
    /// Counters of memory.
    held: memory::Held,
    next_ino: AtomicU64,
    next_snapshot: Mutex<u32>,
    live_bytes: LiveBytes,
    txg: AtomicU64,
    /// Bytes let in since free space was last asked for.
    accepted: AtomicU64,
    /// Free bytes beyond the reserve where the metadata lies.
    meta_usable: AtomicU64,
    /// The txg that is being made durable, or waits for room.
    frozen: Mutex<Option<Frozen>>,
    garbage: Garbage,
    upkeep: upkeep::Upkeep,
    signal: Arc<CommitSignal>,
    reaper: Arc<Background>,
    streams: Arc<stream::Streams>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    poison: OnceLock<Arc<Error>>,
    stopping: AtomicBool,
    /// Says beside the database which commit was the last.
    witness: witness::Witness,
    /// Directories in which a listing met a row that does not read; one entry for each.
    damaged_dirs: Mutex<HashSet<(At, Ino)>>,
    /// Damage met while opening read-only, one sentence each.
    damage: Vec<String>,
    /// Last, so that it is released after everything else is closed.
    _lock: std::fs::File,
}

/// Raw bytes that the extents of the live tree map.
#[derive(Debug, Default)]
struct LiveBytes(AtomicU64);

impl LiveBytes {
    fn replace(&self, before: u64, after: u64) {
        self.0.fetch_add(after, Ordering::Relaxed);
        self.0.fetch_sub(before, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An inode's attributes and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub ino: Ino,
    /// Its attributes.
    pub inode: Inode,
    /// Bytes that are data, not holes: mapped ones and those still buffered (an upper bound).
    pub allocated_bytes: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where a listing goes on after this entry.
    pub cookie: Cookie,
    /// Its name.
    pub name: Box<[u8]>,
    /// Its inode.
    pub ino: Ino,
    /// Kind of that inode.
    pub kind: FileKind,
}

/// An open file of the live tree or of a snapshot. While it exists, its content does: an unlinked
/// inode is not removed and a deleted snapshot's versions are kept.
pub struct OpenFile {
    volume: Arc<Volume>,
    ino: Ino,
    content: Content,
}

enum Content {
    Live(Arc<FileNode>),
    /// What it was in this epoch, and its length.
    Past(Epoch, u64),
}

impl Volume {
    /// The volume directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The volume's id.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// File classes and rules.
    #[must_use]
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What its clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.env.now()
    }

    /// Clock, randomness and fault points it runs with.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// True if every change is refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The last durable commit.
    #[must_use]
    pub fn txg(&self) -> Txg {
        Txg(self.txg.load(Ordering::Acquire))
    }

    /// Opens a file of the live tree or of a snapshot.
    ///
    /// # Errors
    /// `NotFound` when the inode is gone; `IsDirectory`; `Invalid` for special files.
    pub fn open_file(self: &Arc<Self>, at: At, ino: Ino) -> Result<OpenFile> {
        self.held.open_file(self.config.limits.open_files)?;
        let content = match at {
            At::Live => Content::Live(self.files.open(ino)),
            At::Epoch(epoch) => {
                if !self.meta.try_pin(epoch) {
                    self.held.close_file();
                    return Err(Error::Stale);
                }
                Content::Past(epoch, 0)
            }
        };
        // From here on dropping `file` undoes the opening.
        let mut file = OpenFile { volume: Arc::clone(self), ino, content };
        let inode = self.meta.read().inode(at, ino)?.ok_or_else(|| Error::not_found("inode"))?;
        if let Content::Past(_, len) = &mut file.content {
            *len = inode.size;
        }
        match inode.kind {
            FileKind::Regular => Ok(file),
            FileKind::Directory => Err(Error::IsDirectory),
            _ => Err(Error::invalid("Only a regular file has content")),
        }
    }

    /// A user of a file is gone; the last one of an unlinked inode leaves it to the reaper.
    fn closed(&self, ino: Ino) {
        // If the table cannot be read, the reaper meets that, too, and says so.
        if self.files.close(ino) && self.reaps.is_orphan(&self.meta.read(), ino).unwrap_or(true) {
            self.reaper.wake();
        }
    }

    fn next_ino(&self) -> Result<Ino> {
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        if ino >> INO_BITS != 0 {
            return Err(Error::NoSpace { place: "the inode numbers (2^40)".to_owned() });
        }
        Ok(Ino(ino))
    }

    /// Runs one change of the open txg. A fault after the first staged row would leave half a
    /// change in the next commit, so it stops all writing.
    fn stage<T>(&self, change: impl FnOnce(&mut Edit<'_>) -> Result<T>) -> Result<T> {
        let mut edit = self.meta.edit();
        let done = change(&mut edit);
        match done {
            Err(e) if edit.has_staged() => Err(self.poison(e)),
            done => done,
        }
    }

    /// Stops all writing for good; the first cause is kept.
    fn poison(&self, cause: Error) -> Error {
        // The store may have stopped before us: its cause is the first one.
        let cause = match cause {
            Error::Poisoned { cause } => cause,
            cause => Arc::new(cause),
        };
        let cause = self.poison.get_or_init(|| {
            error!("Volume stops accepting writes cause={cause}");
            cause
        });
        Error::Poisoned { cause: Arc::clone(cause) }
    }

    fn check_writable(&self) -> Result<()> {
        if let Some(cause) = self.poison.get() {
            return Err(Error::Poisoned { cause: Arc::clone(cause) });
        }
        if self.read_only || self.stopping.load(Ordering::Acquire) {
            return Err(Error::ReadOnly { what: "the volume".to_owned() });
        }
        Ok(())
    }

    /// True once the volume is being closed: what takes long should end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn shard_place(&self, id: ShardId) -> String {
        let shards = self.shards.read();
        shards.iter().find(|s| s.id == id).map_or_else(|| format!("shard {id}"), |s| s.name.clone())
    }
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({})", self.dir.display())
    }
}

impl OpenFile {
    /// Its inode.
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The state of the tree it belongs to.
    #[must_use]
    pub fn at(&self) -> At {
        match self.content {
            Content::Live(_) => At::Live,
            Content::Past(epoch, _) => At::Epoch(epoch),
        }
    }

    /// Its attributes now.
    ///
    /// # Errors
    /// `NotFound`, `Kv`, `Corrupt`.
    pub fn stat(&self) -> Result<Stat> {
        self.volume.stat(self.at(), self.ino)
    }

    fn node(&self) -> Result<&FileNode> {
        match &self.content {
            Content::Live(node) => Ok(node),
            Content::Past(..) => Err(Error::ReadOnly { what: "a snapshot".to_owned() }),
        }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `ReadOnly`, `FileTooLarge`, `NoSpace`, `Poisoned`; after an error nothing of `data` counts
    /// as written.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.volume.write(self.node()?, offset, data)
    }

    /// Hands what is buffered to ingest; the last writer is closing the file.
    ///
    /// # Errors
    /// What storing it says; the bytes stay buffered and are tried again by the next commit.
    pub fn finish(&self) -> Result<()> {
        match &self.content {
            Content::Live(_) => self.volume.drain_ino(self.ino),
            Content::Past(..) => Ok(()),
        }
    }

    /// Up to `len` bytes from `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are damaged; `Io`, `Kv`.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.volume.garbage.note_foreground();
        match &self.content {
            Content::Live(node) => self.volume.read_live(node, offset, len),
            Content::Past(epoch, size) => {
                let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
                self.volume.read_past(At::Epoch(*epoch), self.ino, offset, len.min(left))
            }
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.volume.held.close_file();
        match &self.content {
            Content::Live(node) => self.volume.closed(node.ino),
            Content::Past(epoch, _) => self.volume.meta.unpin(*epoch),
        }
    }
}
