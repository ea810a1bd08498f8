//! Making volumes.
//!
//! Guarantees: interrupted at any instant, also by a power cut, the directory is a volume, or is
//! refused as none and can be given to `init` again; what belongs to somebody else is never
//! touched. A file says that the rest of the directory is ours, from before anything else is made
//! until the superblock is durable.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::{Counters, META_DIR, load_config};
use super::shards::FIRST_SHARD_DIR;
use super::storage::{LocalStorage, Opening, Storage};
use super::superblock::{SUPERBLOCK_FILE, Superblock};
use super::{Volume, cuts, names};
use crate::config::{CONFIG_FILE, DEFAULT_SHARD, new_cuts};
use crate::env::{Env, Point};
use crate::error::{Error, Result};
use crate::kv::{Kv, Table};
use crate::meta::{Meta, ShardRow};
use crate::store::NextIds;
use crate::sys::disk;
use crate::types::{ChunkNo, ContainerId, Ino, ShardId, VolumeId};

/// There while a volume is made: everything beside it but the configuration is a leftover.
const UNFINISHED_FILE: &str = "init.unfinished";
/// What it holds. A file of that name with other bytes is somebody else's.
const UNFINISHED_TEXT: &str = "This directory is becoming a StrataFS volume. \
                               If `stratafs init` was interrupted, run it again.\n";
/// Directory above that of shard 0.
const SHARDS_DIR: &str = "shards";

/// How to make a volume.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Clock and randomness.
    pub env: Env,
}

/// `NoSpace` for a full disk, `Io` for the rest.
fn failed(op: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| {
        if disk::is_full(&error) {
            Error::NoSpace { place: path.display().to_string() }
        } else {
            Error::io(op, path, error)
        }
    }
}

impl Volume {
    /// Makes a volume in a directory that is missing, empty, or left by an interrupted `init`.
    ///
    /// # Errors
    /// `Exists` if there is a volume already; `Invalid` if the directory is not empty; `Busy` if
    /// another process makes a volume there; `Io`, `NoSpace`, `Kv`.
    pub fn init(dir: &Path, options: &InitOptions) -> Result<VolumeId> {
        Self::init_on(dir, options, &LocalStorage)
    }

    /// As [`Volume::init`], with the tables and shard 0 from `storage`.
    ///
    /// # Errors
    /// As [`Volume::init`].
    pub fn init_on(dir: &Path, options: &InitOptions, storage: &dyn Storage) -> Result<VolumeId> {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let dir = &fs::canonicalize(dir).map_err(failed("open", dir))?;
        if dir.join(SUPERBLOCK_FILE).exists() {
            return Err(Error::Exists { what: format!("A volume in {}", dir.display()) });
        }
        refuse_foreign_files(dir)?;
        let config = load_config(dir, &new_cuts())?;
        config.check_shards(&[DEFAULT_SHARD])?;
        let unfinished = begin(dir)?;
        let env = &options.env;
        let id = VolumeId(env.random_id());
        env.hit(Point::InitShard)?;
        storage.create_shard(&dir.join(FIRST_SHARD_DIR), id, ShardId(0), env.faults())?;
        env.hit(Point::InitTables)?;
        let kv = storage.tables(dir, &config, Opening::Create)?;
        env.hit(Point::InitRows)?;
        write_first_rows(&kv, dir, env)?;
        drop(kv);
        env.hit(Point::InitSuperblock)?;
        // The names of what the superblock vouches for, before its own.
        disk::sync_dir(dir).map_err(failed("sync", dir))?;
        // Last: only now is the directory a volume.
        Superblock { id, created: env.now() }.store(dir)?;
        let mark = dir.join(UNFINISHED_FILE);
        if let Err(error) = fs::remove_file(&mark) {
            // It means nothing beside a superblock.
            log::warn!("File stays file={} cause={error}", mark.display());
        }
        drop(unfinished);
        if let Some(parent) = dir.parent() {
            disk::sync_dir(parent).map_err(failed("sync", parent))?;
        }
        Ok(id)
    }
}

/// Everything but a configuration and what an interrupted `init` left is somebody's data.
fn refuse_foreign_files(dir: &Path) -> Result<()> {
    let ours = is_unfinished(dir)?;
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        let leftover = [META_DIR, SHARDS_DIR, UNFINISHED_FILE, "superblock.tmp"];
        if name == CONFIG_FILE || ours && leftover.iter().any(|ours| name == *ours) {
            continue;
        }
        return Err(Error::invalid(format!(
            "Directory {} is not empty (it holds {}); give the volume a directory of its own",
            dir.display(),
            name.to_string_lossy()
        )));
    }
    Ok(())
}

/// True if `init` was interrupted here. Before its mark is whole it makes nothing else, so a torn
/// mark counts only where it is alone.
fn is_unfinished(dir: &Path) -> Result<bool> {
    let path = dir.join(UNFINISHED_FILE);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => {
            let most = UNFINISHED_TEXT.len() as u64 + 1;
            file.take(most).read_to_end(&mut text).map_err(failed("read", &path))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed("read", &path)(e)),
    }
    let alone = [META_DIR, SHARDS_DIR].iter().all(|name| !dir.join(name).exists());
    Ok(alone || text == UNFINISHED_TEXT.as_bytes())
}

/// Marks the directory as ours and takes leftovers away. The mark is locked as long as its handle
/// lives: two at a time would mix their volumes.
fn begin(dir: &Path) -> Result<File> {
    let path = dir.join(UNFINISHED_FILE);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(failed("create", &path))?;
    if !disk::try_lock(&file).map_err(failed("lock", &path))? {
        let what = format!("Another process is making a volume in {}", dir.display());
        return Err(Error::Busy { what });
    }
    let write = |mut file: &File| {
        std::io::Write::write_all(&mut file, UNFINISHED_TEXT.as_bytes())?;
        file.set_len(UNFINISHED_TEXT.len() as u64)?;
        file.sync_all()
    };
    write(&file).map_err(failed("write", &path))?;
    disk::sync_dir(dir).map_err(failed("sync", dir))?;
    for name in [META_DIR, SHARDS_DIR] {
        let path = dir.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(e));
            }
            _ => {}
        }
    }
    Ok(file)
}

fn write_first_rows(kv: &Arc<dyn Kv>, dir: &Path, env: &Env) -> Result<()> {
    let owner = fs::metadata(dir).map_err(failed("open", dir))?;
    let meta = Meta::open(Arc::clone(kv))?;
    {
        let mut edit = meta.edit();
        let root = names::root_inode(env.now(), owner.uid(), owner.gid());
        edit.put_inode(Ino::ROOT, &root)?;
        let name = DEFAULT_SHARD.to_owned();
        edit.put_shard(ShardId(0), &ShardRow { name, path: PathBuf::new(), weight: 1 });
    }
    meta.freeze();
    let mut batch = meta.frozen_batch();
    let counters = Counters {
        txg: 0,
        next_ino: Ino::ROOT.0 + 1,
        next_snapshot: 1,
        live_bytes: 0,
        next: NextIds { chunk: ChunkNo(0), container: ContainerId(0) },
    };
    batch.put(Table::Super, &b"counters"[..], counters.encode());
    cuts::record(&mut batch);
    kv.write(batch)
}
