//! What a volume stands on: where its database and its shards come from.
//!
//! The real one is [`LocalStorage`]. Tests put tables and shards in memory under the same volume,
//! on power that they can cut. The superblock and the lock are files in any case.

use std::path::Path;
use std::sync::Arc;

use super::open::{META_DIR, in_memory, open_database};
use crate::config::Config;
use crate::env::Faults;
use crate::error::Result;
use crate::kv::{Kv, RocksKv, RocksOptions};
use crate::limits::{CONTAINER_BYTES, REAP_PIECE_EXTENTS};
use crate::shard::{LocalShard, Shard};
use crate::types::{ShardId, VolumeId};

/// What the database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To be made: there is none yet.
    Create,
    /// To be read and written.
    Write,
    /// To be read; none of its rows changes.
    ReadOnly,
}

/// Sizes that a test wants smaller, so that little data meets all edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A container is sealed at this size.
    pub container_bytes: u32,
    /// Most extents removed in one change.
    pub reap_piece_extents: usize,
}

impl Default for Bounds {
    /// Those of `limits`.
    fn default() -> Self {
        Self { container_bytes: CONTAINER_BYTES, reap_piece_extents: REAP_PIECE_EXTENTS }
    }
}

/// Where the parts of a volume come from.
pub trait Storage: Send + Sync {
    /// Opens the metadata database of the volume in `dir`, or makes it.
    ///
    /// # Errors
    /// `NotAVolume`, `Corrupt`, `Busy`, `Unknown`, `Io`.
    fn tables(&self, dir: &Path, config: &Config, how: Opening) -> Result<Arc<dyn Kv>>;

    /// Makes shard `id` of `volume` in `dir`, or opens it if it is just that already.
    ///
    /// # Errors
    /// As [`LocalShard::create`].
    fn create_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>>;

    /// Opens shard `id` of `volume` in `dir`.
    ///
    /// # Errors
    /// As [`LocalShard::open`].
    fn open_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>>;

    /// Its sizes.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
}

/// RocksDB and directories.
#[derive(Clone, Copy, Debug)]
pub struct LocalStorage;

impl Storage for LocalStorage {
    fn tables(&self, dir: &Path, config: &Config, how: Opening) -> Result<Arc<dyn Kv>> {
        let options = RocksOptions {
            block_cache_bytes: in_memory(config.limits.block_cache_bytes),
            write_buffer_bytes: in_memory(config.limits.write_buffer_bytes),
            create: how == Opening::Create,
            read_only: how == Opening::ReadOnly,
            ..RocksOptions::default()
        };
        Ok(Arc::new(match how {
            Opening::Create => RocksKv::open(&dir.join(META_DIR), &options)?,
            Opening::Write | Opening::ReadOnly => open_database(dir, &options)?,
        }))
    }

    fn create_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        Ok(Arc::new(LocalShard::create_with(dir, volume, id, faults.clone())?))
    }

    fn open_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        Ok(Arc::new(LocalShard::open_with(dir, volume, id, faults.clone())?))
    }
}
