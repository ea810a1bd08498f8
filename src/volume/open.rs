//! Opening volumes.

use std::fs::{self, File, OpenOptions as FileOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use log::{debug, error, warn};
use parking_lot::{Mutex, RwLock};

use super::cuts;
use super::garbage::{GARBAGE_ROW, Garbage};
use super::memory::Held;
use super::reaps::ReapIndex;
use super::shards::{LastLook, ShardState, attach_all, open_shards};
use super::storage::{Bounds, LocalStorage, Opening, Storage};
use super::superblock::Superblock;
use super::witness::{self, Witness};
use super::{LiveBytes, Volume, rebuild};
use crate::classify::Classifier;
use crate::config::{CONFIG_FILE, Config, Cuts, new_cuts};
use crate::cursor::{Reader, put_varint};
use crate::env::{Env, Point};
use crate::error::{Error, Result};
use crate::kv::{Kv, RocksKv, RocksOptions, Table};
use crate::meta::{Meta, ShardRow};
use crate::stats::{ClassTotals, Stats};
use crate::store::{NextIds, Store, StoreOptions};
use crate::sys::disk;
use crate::types::{ChunkNo, ClassId, ContainerId, Ino, ShardId, VolumeId};

/// Directory of the metadata database in the volume directory.
pub(super) const META_DIR: &str = "meta";
/// Held, with flock, by the process that has the volume open; its text says who.
const LOCK_FILE: &str = "lock";
/// The most that is read of it: two sentences with a path.
const LOCK_TEXT_MAX: u64 = 8 * 1024;

/// How to open a volume.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Clock and randomness.
    pub env: Env,
    /// For the lock file: what others are told, as in "mounted on /mnt".
    pub purpose: String,
    /// Refuse every change.
    pub read_only: bool,
}

/// The row `counters` in `super`, written with every commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) txg: u64,
    pub(super) next_ino: u64,
    pub(super) next_snapshot: u32,
    pub(super) live_bytes: u64,
    pub(super) next: NextIds,
}

impl Counters {
    /// Six varints: txg, next inode, next snapshot, live bytes, next chunk, next container.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        for number in [
            self.txg,
            self.next_ino,
            u64::from(self.next_snapshot),
            self.live_bytes,
            self.next.chunk.0,
            self.next.container.0,
        ] {
            put_varint(&mut out, number);
        }
        out
    }

    /// The counters in `kv`.
    pub(super) fn load(kv: &dyn Kv) -> Result<Self> {
        let damaged = || {
            let detail = "it does not read; `stratafs rebuild-index` makes it anew";
            Error::corrupt("row counters of table super", detail)
        };
        let row = kv.get(Table::Super, b"counters")?.ok_or_else(damaged)?;
        Self::decode(&row).ok_or_else(damaged)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let counters = Self {
            txg: r.varint()?,
            next_ino: r.varint()?,
            next_snapshot: u32::try_from(r.varint()?).ok()?,
            live_bytes: r.varint()?,
            next: NextIds { chunk: ChunkNo(r.varint()?), container: ContainerId(r.varint()?) },
        };
        r.finish(counters)
    }
}

/// What must be had before a volume can be put together.
struct Footing {
    dir: PathBuf,
    superblock: Superblock,
    storage: Arc<dyn Storage>,
    lock: File,
}

impl Volume {
    /// Opens the volume in `dir` for this process alone.
    ///
    /// Read-only, no file of the volume changes but those of RocksDB, and a volume is opened that
    /// has lost commits or a snapshot's record: what is wrong is logged, and `check` says it.
    ///
    /// # Errors
    /// `NotAVolume`, `Unknown`, `Corrupt`, `Busy` that names the process, `Config`, `Shard`, `Io`.
    pub fn open(dir: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        Self::open_on(dir, options, Arc::new(LocalStorage))
    }

    /// As [`Volume::open`], with the tables and shards from `storage`.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn open_on(
        dir: &Path,
        options: OpenOptions,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Self>> {
        let superblock = Superblock::load(dir)?;
        let dir = fs::canonicalize(dir).map_err(|e| Error::io("open", dir, e))?;
        let lock = take_lock(&dir, &options.purpose, options.read_only)?;
        let config = load_config(&dir, &new_cuts())?;
        let footing = Footing { dir, superblock, storage, lock };
        let volume = Self::assemble(footing, config, options)?;
        if !volume.read_only {
            volume.start_threads()?;
            if !volume.reaps.is_empty() {
                volume.reaper.wake();
            }
        }
        Ok(volume)
    }

    /// True while some process has the volume in `dir` open.
    #[must_use]
    pub fn is_in_use(dir: &Path) -> bool {
        let lock = File::open(dir.join(LOCK_FILE));
        lock.is_ok_and(|lock| !disk::try_lock(&lock).unwrap_or(true))
    }

    /// What the last process that had the volume in `dir` open wanted: [`OpenOptions::purpose`], or
    /// nothing when that is not known.
    #[must_use]
    pub fn last_purpose(dir: &Path) -> Option<String> {
        let mut text = String::new();
        File::open(dir.join(LOCK_FILE)).ok()?.take(LOCK_TEXT_MAX).read_to_string(&mut text).ok()?;
        let (_, purpose) = text.trim_end().split_once('(')?;
        Some(purpose.strip_suffix(')')?.to_owned())
    }

    fn assemble(footing: Footing, config: Config, options: OpenOptions) -> Result<Arc<Self>> {
        let Footing { dir, superblock, storage, lock } = footing;
        let OpenOptions { env, read_only, .. } = options;
        let mut damage = Vec::new();
        env.hit(Point::OpenTables)?;
        let how = if read_only { Opening::ReadOnly } else { Opening::Write };
        let kv = storage.tables(&dir, &config, how)?;
        let config = cuts::over_recorded(config, (&dir, &*kv), read_only, &mut damage)?;
        env.hit(Point::OpenShards)?;
        let (meta, counters) = load_state(&kv, (&dir, superblock.id), read_only, &mut damage)?;
        let held = Held::new(&config.limits);
        let mut shards = open_shards(&dir, superblock.id, &meta, &*storage, &env)?;
        check_names(&config, &shards)?;
        let stats = Arc::new(load_totals(&meta)?);
        let garbage = Garbage::load(meta.read().super_get(GARBAGE_ROW)?.as_deref());
        env.hit(Point::OpenStore)?;
        let store = Store::open_with(
            Arc::clone(&kv),
            Vec::new(),
            store_options(&config, superblock.id, storage.bounds(), read_only),
            counters.next,
            Arc::clone(&stats),
            env.faults().clone(),
        )?;
        attach_all(&store, &mut shards, &held.append)?;
        env.hit(Point::OpenThreads)?;
        let volume = Self {
            id: superblock.id,
            read_only,
            env,
            classifier: Classifier::new(&config)?,
            config,
            stats,
            kv,
            reaps: ReapIndex::load(&meta)?,
            meta,
            store,
            gate: super::Gate::new(),
            files: super::FileTable::default(),
            names: super::NameHints::default(),
            ends: super::ends::Ends::default(),
            shards: RwLock::new(shards),
            last_look: LastLook::default(),
            held,
            next_ino: AtomicU64::new(counters.next_ino),
            next_snapshot: Mutex::new(counters.next_snapshot),
            live_bytes: LiveBytes(AtomicU64::new(counters.live_bytes)),
            txg: AtomicU64::new(counters.txg),
            accepted: AtomicU64::new(0),
            meta_usable: AtomicU64::new(0),
            frozen: Mutex::new(None),
            garbage,
            upkeep: super::upkeep::Upkeep::default(),
            signal: Arc::default(),
            reaper: Arc::default(),
            streams: Arc::default(),
            threads: Mutex::default(),
            poison: OnceLock::new(),
            stopping: AtomicBool::new(false),
            witness: Witness::new(&dir, superblock.id),
            damaged_dirs: Mutex::default(),
            damage,
            dir,
            bounds: storage.bounds(),
            storage,
            _lock: lock,
        };
        volume.refresh_space();
        Ok(Arc::new(volume))
    }

    /// Counters as they are now, without the ones the sealed store knows better.
    pub(super) fn counters(&self) -> Counters {
        use std::sync::atomic::Ordering::Relaxed;
        Counters {
            txg: self.txg.load(Relaxed),
            next_ino: self.next_ino.load(Relaxed),
            next_snapshot: *self.next_snapshot.lock(),
            live_bytes: self.live_bytes.get(),
            next: self.store.next_ids(),
        }
    }

    /// The row `totals`: per class that counted anything, its id, the number of fields, the fields.
    pub(super) fn encode_totals(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, totals) in self.stats.totals_by_class().iter().enumerate() {
            let fields = totals.to_fields();
            if fields.iter().any(|f| *f > 0) {
                put_varint(&mut out, id as u64);
                put_varint(&mut out, fields.len() as u64);
                fields.iter().for_each(|field| put_varint(&mut out, *field));
            }
        }
        out
    }

    /// Adds a shard in directory `path`.
    ///
    /// # Errors
    /// `Exists` for the name, `Invalid`, `Shard` if the directory is another's, `Io`, `Poisoned`.
    pub fn shard_add(&self, path: &Path, name: &str, weight: u32) -> Result<super::ShardInfo> {
        check_shard_name(name, weight)?;
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let path = fs::canonicalize(path).map_err(|e| Error::io("open", path, e))?;
        if path.starts_with(&self.dir) {
            return Err(Error::invalid(format!(
                "Shard directory {} lies inside the volume directory; choose one outside",
                path.display()
            )));
        }
        let _alone = self.maintenance()?;
        self.admit_change()?;
        let id = {
            let shards = self.shards.read();
            if shards.iter().any(|s| s.name == name) {
                return Err(Error::Exists { what: format!("Shard {name}") });
            }
            if shards.len() >= crate::limits::SHARDS_MAX {
                return Err(Error::NoSpace { place: "the list of shards".to_owned() });
            }
            ShardId(shards.iter().map(|s| s.id.0 + 1).max().unwrap_or(0))
        };
        let shard = self.storage.create_shard(&path, self.id, id, self.env.faults())?;
        shard.share_budget(&self.held.append);
        self.env.hit(Point::ShardAdd)?;
        {
            let _gate = self.gate.read();
            let row = ShardRow { name: name.to_owned(), path: path.clone(), weight };
            self.stage(|edit| {
                edit.put_shard(id, &row);
                Ok(())
            })?;
        }
        self.env.hit(Point::ShardAddStaged)?;
        self.commit()?;
        self.env.hit(Point::ShardAddAttach)?;
        self.store.add_shard(id, Arc::clone(&shard))?;
        let place = path.display().to_string();
        self.shards.write().push(ShardState::new(id, name.to_owned(), place, weight, Ok(shard)));
        self.refresh_space();
        let list = self.shard_list()?;
        list.into_iter().find(|s| s.id == id.0).ok_or_else(|| Error::not_found("shard"))
    }
}

fn check_shard_name(name: &str, weight: u32) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(Error::invalid(format!(
            "{name:?} cannot name a shard: use 1 to 64 letters, digits, \"-\", \"_\" and \".\""
        )));
    }
    if weight == 0 {
        return Err(Error::invalid("A shard's weight must be at least 1"));
    }
    Ok(())
}

/// The configuration of the volume in `dir`, over `cuts`.
pub(super) fn load_config(dir: &Path, cuts: &Cuts) -> Result<Config> {
    Config::load_over(&dir.join(CONFIG_FILE), cuts)
}

/// A bound of the configuration as a number of bytes in memory.
pub(super) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The database of the volume in `dir`, which has a superblock: without one it is damaged.
pub(super) fn open_database(dir: &Path, options: &RocksOptions) -> Result<RocksKv> {
    let meta = dir.join(META_DIR);
    RocksKv::open(&meta, options).map_err(|e| match e {
        Error::NotAVolume { .. } => Error::corrupt(
            format!("metadata database in {}", meta.display()),
            "it has no file CURRENT; restore the directory from a copy of the volume directory",
        ),
        other => other,
    })
}

/// Lets damage pass that a reader can live with.
pub(super) fn tolerate(damage: Error, read_only: bool, met: &mut Vec<String>) -> Result<()> {
    if !read_only {
        return Err(damage);
    }
    error!("Opened read-only in spite of damage cause={damage}");
    met.push(damage.to_string());
    Ok(())
}

fn check_names(config: &Config, shards: &[ShardState]) -> Result<()> {
    let names: Vec<&str> = shards.iter().map(|s| s.name.as_str()).collect();
    config.check_shards(&names)
}

/// Names and counters, if the tables are those of the last commit and complete.
fn load_state(
    kv: &Arc<dyn Kv>,
    (dir, volume): (&Path, VolumeId),
    read_only: bool,
    met: &mut Vec<String>,
) -> Result<(Meta, Counters)> {
    let meta = open_meta(kv, dir, read_only, met)?;
    let counters = Counters::load(&**kv)?;
    meta.none_from(Ino(counters.next_ino));
    let witnessed = witness::read(dir, volume);
    if let Some(lost) = witness::lost_commits(dir, counters.txg, witnessed) {
        tolerate(lost, read_only, met)?;
    }
    if let Some(interrupted) = rebuild::interrupted(&**kv, dir)? {
        tolerate(interrupted, read_only, met)?;
    }
    Ok((meta, counters))
}

fn open_meta(kv: &Arc<dyn Kv>, dir: &Path, read_only: bool, met: &mut Vec<String>) -> Result<Meta> {
    let (meta, damaged) = Meta::open_with_damage(Arc::clone(kv))?;
    for damage in damaged {
        let Error::Corrupt { object, detail } = damage else { return Err(damage) };
        let way_out = format!(
            "{detail}; mount with -o ro to copy out what is there, or restore {} from a copy",
            dir.join(META_DIR).display()
        );
        tolerate(Error::corrupt(object, way_out), read_only, met)?;
    }
    Ok(meta)
}

fn store_options(
    config: &Config,
    volume: VolumeId,
    bounds: Bounds,
    read_only: bool,
) -> StoreOptions {
    let limits = &config.limits;
    let mut options = StoreOptions::new(volume);
    options.read_only = read_only;
    let container_bytes = u32::try_from(limits.container_bytes).unwrap_or(u32::MAX);
    options.container_bytes = bounds.container_bytes.min(container_bytes);
    options.cache_bytes = in_memory(limits.cache_bytes);
    options.queue_bytes = in_memory(limits.queue_bytes);
    if limits.workers > 0 {
        options.workers = limits.workers;
    }
    options
}

fn load_totals(meta: &Meta) -> Result<Stats> {
    let stats = Stats::default();
    let Some(row) = meta.read().super_get(b"totals")? else { return Ok(stats) };
    let whole = read_totals(&row, |class, fields| {
        stats.class(class).load(&ClassTotals::from_fields(fields));
    });
    if !whole {
        warn!("Row totals does not read: statistics begin anew for some classes");
    }
    Ok(stats)
}

/// Hands the classes of a row `totals` to `each`; false if it does not read to its end.
pub(super) fn read_totals(row: &[u8], mut each: impl FnMut(ClassId, &[u64])) -> bool {
    let mut reader = Reader::new(row);
    while !reader.is_empty() {
        let mut next = || {
            let id = u8::try_from(reader.varint()?).ok().filter(|id| *id < 64)?;
            let count = reader.varint().filter(|count| *count < 100)?;
            let fields: Option<Vec<u64>> = (0..count).map(|_| reader.varint()).collect();
            Some((ClassId(id), fields?))
        };
        let Some((class, fields)) = next() else { return false };
        each(class, &fields);
    }
    true
}

/// Takes the volume's lock and writes into it who has it.
pub(super) fn take_lock(dir: &Path, purpose: &str, read_only: bool) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let failed = |e| Error::io("lock", &path, e);
    let open = FileOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = match open {
        // A disk that is read-only: the lock works, only its text cannot say who has it.
        Err(e) if read_only && e.kind() == ErrorKind::ReadOnlyFilesystem => {
            File::open(&path).map_err(failed)?
        }
        open => open.map_err(failed)?,
    };
    if !disk::try_lock(&file).map_err(failed)? {
        let mut holder = String::new();
        // The text is a help, not a promise: its writer may not have finished.
        file.take(LOCK_TEXT_MAX).read_to_string(&mut holder).map_err(failed)?;
        let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
        return Err(Error::Busy {
            what: format!("Volume {} is in use by {holder}; unmount it there first", dir.display()),
        });
    }
    let text = format!("process {} ({})\n", std::process::id(), purpose);
    let write = |file: &mut File| {
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    };
    if let Err(error) = write(&mut file) {
        // On a full disk, for example: nothing depends on it.
        debug!("Lock file does not say who has it cause={error}");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_golden_bytes() {
        let counters = Counters {
            txg: 1,
            next_ino: 300,
            next_snapshot: 3,
            live_bytes: 4,
            next: NextIds { chunk: ChunkNo(5), container: ContainerId(6) },
        };
        assert_eq!(counters.encode(), [1, 0xac, 0x02, 3, 4, 5, 6]);
        assert_eq!(Counters::decode(&counters.encode()), Some(counters));
        assert_eq!(Counters::decode(&[1, 2, 3]), None);
        assert_eq!(Counters::decode(&[1, 2, 3, 4, 5, 6, 7]), None);
    }
}
