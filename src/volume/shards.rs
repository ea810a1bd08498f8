//! The shards: opening them, and looking whether they go and come back (P6).
//!
//! A shard whose directory is not there, or holds no marker, does not keep the volume from being
//! opened, and does not stop it: what lies there gives `EIO`, new data goes elsewhere. It is taken
//! back as soon as it is there again. A directory that is another shard is refused, and so is a
//! volume directory without its own shard: that is no unmounted disk, that is damage.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use log::{debug, info, warn};
use parking_lot::Mutex;

use super::Volume;
use super::storage::Storage;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::shard::{AppendBudget, Shard};
use crate::store::Store;
use crate::types::{ShardId, VolumeId};

/// Directory of shard 0 in the volume directory.
pub(super) const FIRST_SHARD_DIR: &str = "shards/0";

/// A shard as the volume knows it.
pub(super) struct ShardState {
    pub(super) id: ShardId,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) weight: u32,
    /// Its containers, or the sentence that says why it is not there.
    pub(super) shard: Result<Arc<dyn Shard>, String>,
    /// It lies in the volume directory.
    inside: bool,
    /// Free bytes beyond the reserve, when last asked.
    pub(super) usable: AtomicU64,
}

impl ShardState {
    /// A shard in a directory of its own.
    pub(super) fn new(
        id: ShardId,
        name: String,
        path: String,
        weight: u32,
        shard: Result<Arc<dyn Shard>, String>,
    ) -> Self {
        Self { id, name, path, weight, shard, inside: false, usable: AtomicU64::new(0) }
    }

    /// Its containers.
    ///
    /// # Errors
    /// `ShardMissing`.
    pub(super) fn get(&self) -> Result<Arc<dyn Shard>> {
        self.shard.clone().map_err(|what| Error::ShardMissing { what })
    }
}

impl ShardState {
    fn is_gone(&self) -> bool {
        self.shard.as_ref().map_or(true, |shard| shard.probe().is_err())
    }
}

/// When the shards were last looked at, in seconds of the volume's clock.
#[derive(Debug, Default)]
pub(super) struct LastLook {
    secs: AtomicI64,
    /// One look at a time: an older one that ends later would undo what a newer one found.
    one: Mutex<()>,
}

/// All shards that the metadata names.
///
/// # Errors
/// `Shard`, `Unknown` for a directory that is something else; `ShardMissing`, `Io` for the one in
/// the volume directory; `Kv`, `Corrupt`.
pub(super) fn open_shards(
    dir: &Path,
    volume: VolumeId,
    meta: &Meta,
    storage: &dyn Storage,
    env: &Env,
) -> Result<Vec<ShardState>> {
    let rows = meta.read().shards()?.into_iter();
    let open = rows.map(|(id, row)| {
        let inside = row.path.as_os_str().as_bytes().is_empty();
        let path = if inside { dir.join(FIRST_SHARD_DIR) } else { row.path };
        let shard = match storage.open_shard(&path, volume, id, env.faults()) {
            Ok(shard) => Ok(shard),
            Err(Error::ShardMissing { what }) if !inside => Err(what),
            Err(cause) => return Err(cause),
        };
        let place = path.display().to_string();
        Ok(ShardState { inside, ..ShardState::new(id, row.name, place, row.weight, shard) })
    });
    open.collect()
}

/// Hands the shards that are there to the store; one that is lost meanwhile is missing.
///
/// # Errors
/// As `Store::add_shard`.
pub(super) fn attach_all(
    store: &Store,
    shards: &mut [ShardState],
    budget: &Arc<AppendBudget>,
) -> Result<()> {
    for state in shards {
        if let Ok(shard) = &state.shard {
            shard.share_budget(budget);
        }
        let attached = state.get().and_then(|shard| store.add_shard(state.id, shard));
        match attached {
            Ok(()) => {}
            Err(cause) if !state.inside && state.is_gone() => {
                warn!("Shard is missing shard={} cause={cause}", state.name);
                store.set_away(state.id, cause.to_string());
                state.shard = Err(cause.to_string());
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

impl Volume {
    /// As [`Volume::look_after_shards`], at most once in a second.
    pub(super) fn look_after_shards_now_and_then(&self) {
        let now = self.env.now().secs;
        if self.last_look.secs.swap(now, Relaxed) != now {
            self.look_after_shards();
        }
    }

    /// Looks whether shards are gone, and takes those back that are there again.
    pub fn look_after_shards(&self) {
        let _one = self.last_look.one.lock();
        let all: Vec<(ShardId, PathBuf, _)> = {
            let shards = self.shards.read();
            shards.iter().map(|s| (s.id, PathBuf::from(&s.path), s.shard.clone())).collect()
        };
        let mut changed = false;
        for (id, path, shard) in all {
            let now = match &shard {
                Ok(shard) => shard.probe().err().map(|cause| self.is_gone(id, &cause)),
                Err(_) => self.is_back(id, &path).map(Ok),
            };
            if let Some(now) = now {
                changed = true;
                let mut shards = self.shards.write();
                if let Some(state) = shards.iter_mut().find(|state| state.id == id) {
                    state.shard = now;
                }
            }
        }
        if changed {
            self.refresh_space();
        }
    }

    fn is_gone(&self, id: ShardId, cause: &Error) -> Result<Arc<dyn Shard>, String> {
        warn!("Shard is missing shard={} cause={cause}", self.shard_place(id));
        self.store.set_away(id, cause.to_string());
        Err(cause.to_string())
    }

    fn is_back(&self, id: ShardId, path: &Path) -> Option<Arc<dyn Shard>> {
        let opened = self.storage.open_shard(path, self.id, id, self.env.faults());
        let opened = opened.and_then(|shard| {
            shard.share_budget(&self.held.append);
            self.store.add_shard(id, Arc::clone(&shard)).map(|()| shard)
        });
        match opened {
            Ok(shard) => {
                info!("Shard is back shard={}", self.shard_place(id));
                Some(shard)
            }
            Err(cause) => {
                debug!("Shard stays missing shard={} cause={cause}", self.shard_place(id));
                None
            }
        }
    }
}
