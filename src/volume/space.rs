//! Room: what may be accepted, and where new chunks go.
//!
//! `ENOSPC` comes before anything is accepted that cannot be kept (P5): a write is let in only if
//! what is buffered already, and it, fit what the shards have free beyond their reserve. The
//! reserve keeps deleting, commits and unmounting possible. Free space is asked for after every
//! commit and whenever 16 MiB were accepted since.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use log::warn;
use serde::{Deserialize, Serialize};

use super::Volume;
use crate::classify::{ClassSpec, pick_shard};
use crate::error::{Error, Result};
use crate::sys::disk;
use crate::types::{Ino, ShardId};

/// Bytes accepted before free space is asked for again: small against any reserve.
const REFRESH_BYTES: u64 = 16 * 1024 * 1024;
/// A reserve takes at most this share of a small disk.
const RESERVE_SHARE: u64 = 8;
/// This share of the reserve gc leaves for the commit that gives space back.
const LAST_SHARE: u64 = 8;

/// Sixths of the bound on uncommitted metadata at which changes wait for a commit. Removals may
/// use more, so that writers cannot keep them out.
const WRITERS_SHARE: u64 = 4;
const REMOVALS_SHARE: u64 = 5;

/// Room of the whole volume, for statfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpace {
    /// Capacity of all disks that shards lie on.
    pub total_bytes: u64,
    /// What nobody uses of it, the reserves with it.
    pub unused_bytes: u64,
    /// What may still be written, without the reserves.
    pub free_bytes: u64,
    /// Inode numbers given out so far.
    pub inodes_used: u64,
}

impl Volume {
    /// Lets a write of `len` bytes in, or says why not. May wait for a commit: memory is bounded.
    pub(super) fn admit_data(&self, len: usize) -> Result<()> {
        self.garbage.note_foreground();
        self.throttle(WRITERS_SHARE)?;
        self.check_room(len as u64)
    }

    /// Lets a change of metadata in.
    pub(super) fn admit_change(&self) -> Result<()> {
        self.garbage.note_foreground();
        self.throttle(WRITERS_SHARE)?;
        self.check_room(0)
    }

    /// Lets a change in that gives space back: also on a full volume.
    pub(super) fn admit_removal(&self) -> Result<()> {
        self.throttle(REMOVALS_SHARE)
    }

    /// Lets gc store `len` bytes on a shard anew: it gives back more soon, so it may use all but a
    /// little of the reserve, or a full volume could never be repacked.
    pub(super) fn admit_repack(&self, id: ShardId, len: u64) -> Result<()> {
        self.check_writable()?;
        let shards = self.shards.read();
        let Some(state) = shards.iter().find(|s| s.id == id) else { return Ok(()) };
        let took = state.usable.fetch_update(Relaxed, Relaxed, |u| u.checked_sub(len));
        if took.is_ok() && self.meta_usable.load(Relaxed) > 0 {
            return Ok(());
        }
        let space = state.get()?.space()?;
        let pending = self.store.pending_bytes() as u64;
        let reserve = self.config.limits.reserve_bytes.min(space.total_bytes / RESERVE_SHARE);
        if space.free_bytes > reserve / LAST_SHARE + pending + len {
            return Ok(());
        }
        Err(Error::NoSpace { place: state.path.clone() })
    }

    /// True if less than a twentieth of the room, or than the reserve once more, is left.
    pub(super) fn space_is_low(&self) -> bool {
        let Ok(space) = self.space() else { return false };
        let low = (space.total_bytes / 20).max(self.config.limits.reserve_bytes);
        space.free_bytes < low.min(space.total_bytes / 4)
    }

    /// Metadata that is not committed: the open txg, the frozen one, and rows of new chunks.
    pub(super) fn uncommitted_bytes(&self) -> u64 {
        (self.meta.overlay_bytes() + self.store.uncommitted_bytes()) as u64
    }

    /// Asks for a commit when a third of the bound is used, so that there is room for what comes
    /// while it runs, and waits for one beyond `share` sixths. The rest of the bound is for what
    /// the changes bring that are let in at the same time, and a commit's own drain.
    ///
    /// Nobody who comes here holds the gate or a lock, so the commit waits for none of them.
    fn throttle(&self, share: u64) -> Result<()> {
        self.check_writable()?;
        let part = self.config.limits.overlay_bytes / 6;
        let all = self.uncommitted_bytes();
        if all <= 2 * part {
            return Ok(());
        }
        let (_, frozen) = self.meta.uncommitted_bytes();
        if all.saturating_sub(2 * frozen as u64) > 2 * part {
            self.signal.kick();
        }
        while self.uncommitted_bytes() > share * part {
            // A full shard keeps commits from ending: then nothing more is taken.
            self.signal.wait_end()?;
            self.check_writable()?;
        }
        Ok(())
    }

    fn check_room(&self, len: u64) -> Result<()> {
        let accepted = self.accepted.fetch_add(len, Relaxed) + len;
        let buffered = self.files.dirty_bytes() as u64;
        if accepted < REFRESH_BYTES && self.usable() > buffered + accepted + len {
            return Ok(());
        }
        self.refresh_space();
        if self.usable() > buffered + len {
            return Ok(());
        }
        self.garbage.note_refused();
        let shards = self.shards.read();
        let there = shards.iter().filter(|s| s.shard.is_ok());
        let places: Vec<&str> = there.map(|s| s.path.as_str()).collect();
        if places.is_empty() {
            drop(shards);
            return Err(self.no_shard());
        }
        Err(Error::NoSpace { place: places.join(", ") })
    }

    /// Bytes that all shards can take; 0 when the metadata has no room left.
    fn usable(&self) -> u64 {
        if self.meta_usable.load(Relaxed) == 0 {
            return 0;
        }
        self.shards.read().iter().map(|s| s.usable.load(Relaxed)).sum()
    }

    /// Asks all shards for their free space.
    pub(super) fn refresh_space(&self) {
        self.accepted.store(0, Relaxed);
        // On their way to one of the shards: which one does not matter, a reserve is no fine art.
        let pending = self.store.pending_bytes() as u64;
        for state in self.shards.read().iter() {
            let Ok(shard) = &state.shard else {
                state.usable.store(0, Relaxed);
                continue;
            };
            let usable = match shard.space() {
                Ok(space) => self.beyond_reserve(space.total_bytes, space.free_bytes),
                Err(e) => {
                    warn!("Free space is unknown shard={} cause={e}", state.id);
                    0
                }
            };
            state.usable.store(usable.saturating_sub(pending), Relaxed);
        }
        let usable = match disk::space(&self.dir) {
            Ok(space) => self.beyond_reserve(space.total_bytes, space.free_bytes),
            Err(_) => 0,
        };
        self.meta_usable.store(usable, Relaxed);
    }

    fn beyond_reserve(&self, total: u64, free: u64) -> u64 {
        free.saturating_sub(self.config.limits.reserve_bytes.min(total / RESERVE_SHARE))
    }

    /// The shard for `len` bytes of new chunks of `ino`: one of its class, by weight; else the
    /// fallback; else any with room, for what was accepted must be kept. The bytes count as taken
    /// until free space is asked for again, or a full shard would be chosen up to the next commit.
    pub(super) fn choose_shard(&self, spec: &ClassSpec, ino: Ino, len: usize) -> Result<ShardId> {
        let len = len as u64;
        // Known bytes were counted too, so a shard is full only when it was just asked.
        let id = match self.shard_with_room(spec, ino, len) {
            Some(id) => id,
            None => {
                self.refresh_space();
                let found = self.shard_with_room(spec, ino, len).or_else(|| self.roomiest());
                found.ok_or_else(|| self.no_shard())?
            }
        };
        if let Some(chosen) = self.shards.read().iter().find(|s| s.id == id) {
            let _ = chosen.usable.fetch_update(Relaxed, Relaxed, |u| Some(u.saturating_sub(len)));
        }
        Ok(id)
    }

    fn shard_with_room(&self, spec: &ClassSpec, ino: Ino, len: u64) -> Option<ShardId> {
        let shards = self.shards.read();
        let named = |name: &str| shards.iter().find(|s| s.name == name);
        let has_room = |name: &str| named(name).is_some_and(|s| s.usable.load(Relaxed) > len);
        let all: Vec<(String, u32)>;
        let choice = if spec.shards.is_empty() {
            all = shards.iter().map(|s| (s.name.clone(), s.weight)).collect();
            &all
        } else {
            &spec.shards
        };
        let picked = pick_shard(choice, spec.fallback.as_deref(), ino.0, has_room);
        picked.and_then(named).map(|s| s.id)
    }

    fn roomiest(&self) -> Option<ShardId> {
        let shards = self.shards.read();
        let there = shards.iter().filter(|s| s.shard.is_ok());
        there.max_by_key(|s| s.usable.load(Relaxed)).map(|s| s.id)
    }

    /// Why nothing can be stored: no shard is there.
    fn no_shard(&self) -> Error {
        let shards = self.shards.read();
        let why: Vec<&str> =
            shards.iter().filter_map(|s| s.shard.as_ref().err()).map(String::as_str).collect();
        Error::ShardMissing { what: format!("No shard is there: {}", why.join("; ")) }
    }

    /// Room for statfs.
    ///
    /// # Errors
    /// None today; a shard that does not answer counts as full.
    pub fn space(&self) -> Result<VolumeSpace> {
        let mut space = VolumeSpace {
            total_bytes: 0,
            unused_bytes: 0,
            free_bytes: 0,
            inodes_used: self.next_ino.load(Relaxed).saturating_sub(1),
        };
        let mut disks = HashSet::new();
        for state in self.shards.read().iter() {
            let room = state.shard.as_ref().ok().and_then(|shard| shard.space().ok());
            // Shards on one disk share its room.
            if let Some(shard) = room.filter(|room| room.disk.is_none_or(|disk| disks.insert(disk)))
            {
                space.total_bytes += shard.total_bytes;
                space.unused_bytes += shard.unused_bytes;
                space.free_bytes += self.beyond_reserve(shard.total_bytes, shard.free_bytes);
            }
        }
        Ok(space)
    }
}
