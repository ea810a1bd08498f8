//! The `.snapshots` directories.

use std::time::Duration;

use super::diffdirs::DIFF_DIR_NAME;
use super::gmt::{GMT_DIR_NAME, is_gmt_like};
use super::history::HISTORY_NAME;
use super::{Attr, Entry, Lookup, Node, Vfs, attr, reserved};
use crate::error::{Error, Result};
use crate::types::{At, FileKind, Ino, SNAPSHOTS_NAME, Snapshot, SnapshotId};
use crate::volume::{RenameMode, Stat};

/// In `.snapshots`: a link to the newest snapshot.
pub const LATEST_NAME: &[u8] = b".latest";

/// What lies in `.snapshots` can change behind the kernel's back: it has to ask each time.
pub(super) const TTL_NONE: Duration = Duration::ZERO;

/// Snapshots looked at between two chances for others; a kernel's buffer takes about as many.
const LISTED_AT_ONCE: usize = 64;

impl Vfs {
    /// Attributes of the `.snapshots` of `dir`: the owner of the volume's root owns it, so that
    /// nobody else makes or deletes snapshots, and everybody may look.
    pub(super) fn snapdir_attr(&self, dir: Ino) -> Result<Attr> {
        let root = self.volume.stat(At::Live, Ino::ROOT)?;
        let (count, newest) = self.volume.snapshots_so_far();
        let changed = newest.unwrap_or(root.inode.btime);
        let count = u32::try_from(count).unwrap_or(u32::MAX - 2);
        Ok(Attr {
            kind: FileKind::Directory,
            perm: 0o755,
            // All snapshots of the volume, although `dir` may be missing in some: finding out would
            // cost one lookup each.
            nlink: 2 + count,
            rdev: 0,
            size: 4096,
            blocks: 0,
            atime: changed,
            mtime: changed,
            ctime: changed,
            ttl: TTL_NONE,
            ..attr(Node::SnapDir(dir), &root)
        })
    }

    /// A snapshot by its name, else what is there besides. A snapshot that has such a name from
    /// times when it was allowed stays reachable.
    pub(super) fn snapdir_lookup(&self, dir: Ino, name: &[u8]) -> Result<Lookup> {
        let Some(snapshot) = self.volume.snapshot_named(name) else {
            return match name {
                LATEST_NAME => self.latest_lookup(dir),
                DIFF_DIR_NAME => self.diff_lookup(dir),
                HISTORY_NAME => self.past_dir_lookup(Node::PastDir(dir), dir),
                GMT_DIR_NAME => {
                    let attr = Attr { node: Node::GmtDir(dir), ..self.snapdir_attr(dir)? };
                    Ok(Lookup::Found(Entry { attr, ttl: TTL_NONE }))
                }
                name if is_gmt_like(name) => self.gmt_lookup(dir, name),
                _ => Ok(Lookup::Missing(TTL_NONE)),
            };
        };
        let found = self.directory_in(&snapshot, dir)?;
        Ok(found.map_or(Lookup::Missing(TTL_NONE), |stat| {
            Lookup::Found(snapshot_entry(&snapshot, dir, &stat))
        }))
    }

    /// A link to the newest snapshot in which `dir` was a directory.
    fn latest_lookup(&self, dir: Ino) -> Result<Lookup> {
        let Some(newest) = self.volume.newest_snapshot_with(dir)? else {
            return Ok(Lookup::Missing(TTL_NONE));
        };
        let attr = self.latest_attr(Node::latest(newest.id, &newest.name), newest.id)?;
        Ok(Lookup::Found(Entry { attr, ttl: TTL_NONE }))
    }

    /// Attributes of a link to a snapshot.
    pub(super) fn latest_attr(&self, node: Node, id: SnapshotId) -> Result<Attr> {
        let target = self.latest_target(id)?;
        let dir = self.snapdir_attr(Ino::ROOT)?;
        let size = target.len() as u64;
        Ok(Attr { node, kind: FileKind::Symlink, perm: 0o777, nlink: 1, size, ..dir })
    }

    /// Where the link leads, from `.snapshots`.
    pub(super) fn latest_target(&self, id: SnapshotId) -> Result<Box<[u8]>> {
        self.volume.snapshot(id).map(|snapshot| snapshot.name).ok_or(Error::Stale)
    }

    /// Hands the snapshots in which `dir` was a directory to `each`, by number, from the first
    /// after `after`, until it says that it has enough.
    pub(super) fn snapdir_list(
        &self,
        dir: Ino,
        mut after: SnapshotId,
        mut each: impl FnMut(&Snapshot, &Entry) -> bool,
    ) -> Result<()> {
        loop {
            let some = self.volume.snapshots_after(after, LISTED_AT_ONCE);
            for snapshot in &some {
                let Some(stat) = self.directory_in(snapshot, dir)? else { continue };
                if each(snapshot, &snapshot_entry(snapshot, dir, &stat)) {
                    return Ok(());
                }
            }
            match some.last() {
                Some(last) => after = last.id,
                None => return Ok(()),
            }
        }
    }

    /// `mkdir .snapshots/NAME`.
    pub(super) fn snapdir_mkdir(&self, dir: Ino, name: &[u8]) -> Result<Entry> {
        self.changeable_snapshots()?;
        let snapshot = self.volume.snapshot_create(name)?;
        let stat = self.directory_in(&snapshot, dir)?;
        let stat = stat.ok_or_else(|| Error::not_found("directory: it was removed meanwhile"))?;
        Ok(snapshot_entry(&snapshot, dir, &stat))
    }

    /// `rmdir .snapshots/NAME`.
    pub(super) fn snapdir_rmdir(&self, dir: Ino, name: &[u8]) -> Result<()> {
        self.changeable_snapshots()?;
        self.listed_in(dir, name)?;
        self.real_snapshot(name)?;
        self.volume.snapshot_delete(name)
    }

    /// `mv .snapshots/OLD .snapshots/NEW`. A snapshot never replaces another.
    pub(super) fn snapdir_rename(
        &self,
        dir: Ino,
        old: &[u8],
        new: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.changeable_snapshots()?;
        if mode == RenameMode::Exchange {
            return Err(Error::invalid("Snapshots cannot be exchanged"));
        }
        self.listed_in(dir, old)?;
        self.real_snapshot(old)?;
        self.volume.snapshot_rename(old, new)
    }

    fn changeable_snapshots(&self) -> Result<()> {
        self.writable(Node::ROOT).map(drop)
    }

    /// What is only another way to a snapshot cannot be deleted or renamed.
    fn real_snapshot(&self, name: &[u8]) -> Result<()> {
        self.volume.snapshot_named(name).map(drop).ok_or_else(reserved)
    }

    fn listed_in(&self, dir: Ino, name: &[u8]) -> Result<()> {
        match self.snapdir_lookup(dir, name)? {
            Lookup::Found(_) => Ok(()),
            Lookup::Missing(_) => Err(Error::not_found("snapshot of that name")),
        }
    }

    /// `dir` as it was in the snapshot, if it was a directory then.
    pub(super) fn directory_in(&self, snapshot: &Snapshot, dir: Ino) -> Result<Option<Stat>> {
        match self.volume.stat(At::Epoch(snapshot.epoch), dir) {
            Ok(stat) => Ok(Some(stat).filter(|s| s.inode.kind == FileKind::Directory)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Refuses `.snapshots` as the name of something in the live tree.
pub(super) fn not_reserved(name: &[u8]) -> Result<()> {
    if name == SNAPSHOTS_NAME { Err(reserved()) } else { Ok(()) }
}

pub(super) fn snapshot_entry(snapshot: &Snapshot, dir: Ino, stat: &Stat) -> Entry {
    Entry { attr: attr(Node::Snap(snapshot.id, dir), stat), ttl: TTL_NONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_is_reserved() {
        assert!(matches!(not_reserved(b".snapshots"), Err(Error::NotPermitted { .. })));
        for name in [&b".snapshot"[..], b".snapshots2", b"snapshots", b".SNAPSHOTS"] {
            assert!(not_reserved(name).is_ok());
        }
    }
}
