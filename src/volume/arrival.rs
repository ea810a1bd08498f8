//! Importing a large file: in pieces, under a reap row, and its name last.

use std::sync::Arc;

use bytes::Bytes;

use super::drain::CutBuffer;
use super::import::{check, inode_of};
use super::write::end_of;
use super::{Arrival, OpenFile, Placed, Spot, Volume};
use crate::error::{Error, Result};
use crate::types::{At, ClassId, Ino, Inode};

/// Bytes of a large file that are cut at a time. With what the cut before left, at most one largest
/// chunk more.
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Most extents compared at once: 100,000 take 4 MB. A larger file becomes a new one.
const KEEP_EXTENTS_MAX: usize = 100_000;

impl Volume {
    /// Begins a large file: nothing of it is seen before [`LargeFile::finish`], and dropping it
    /// leaves nothing. `head` are its first bytes.
    ///
    /// # Errors
    /// `NoSpace`, `NameTooLong`, `FileTooLarge`, `Poisoned`; faults.
    pub fn import_large(
        self: &Arc<Self>,
        spot: &Spot,
        arrival: &Arrival,
        head: &[u8],
    ) -> Result<LargeFile> {
        check(spot, arrival)?;
        let class = self.class_of_arrival(spot, arrival, head)?;
        let like = inode_of(arrival, spot, self.env.now(), (0, class));
        let file = self.make_nameless(&Inode { stamp: 0, ..like }, &[])?;
        Ok(LargeFile { file, class, at: 0, rest: Vec::new() })
    }

    /// As [`Volume::keep_content`], if both have the same extents.
    fn keep_large(&self, old: Ino, new: Ino, arrival: &Arrival) -> Result<Option<Placed>> {
        let content = {
            let view = self.meta.read();
            let (before, after) = (view.inode(At::Live, old)?, view.inode(At::Live, new)?);
            let mapped = |inode: Option<Inode>| inode.map(|inode| inode.mapped);
            if mapped(before) != mapped(after) {
                return Ok(None);
            }
            view.extents(At::Live, new, 0..u64::MAX, KEEP_EXTENTS_MAX)?
        };
        if content.len() >= KEEP_EXTENTS_MAX {
            return Ok(None);
        }
        self.keep_content(old, arrival, Some(&content))
    }
}

/// A large file on its way in.
pub struct LargeFile {
    file: OpenFile,
    class: ClassId,
    /// Everything before is cut.
    at: u64,
    /// What follows is known and not cut: the cut would have been forced.
    rest: Vec<u8>,
}

impl LargeFile {
    /// An empty buffer with room for what is read next, and what was left of the last one in it.
    #[must_use]
    pub fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.rest);
        buffer.reserve_exact(PIECE_BYTES);
        buffer
    }

    /// How many bytes to read into a buffer.
    #[must_use]
    pub fn piece_bytes() -> usize {
        PIECE_BYTES
    }

    /// Cuts and stores the bytes that follow what was taken before: a buffer of [`Self::buffer`]
    /// with more behind what was in it. With `more`, they go on.
    ///
    /// # Errors
    /// `NoSpace`, `FileTooLarge`, `Poisoned`; faults.
    pub fn take(&mut self, buffer: Vec<u8>, more: bool) -> Result<()> {
        let volume = &self.file.volume;
        if buffer.is_empty() {
            return Ok(());
        }
        end_of(self.at, buffer.len() as u64)?;
        volume.admit_data(buffer.len())?;
        let data = Bytes::from_owner(CutBuffer::new(buffer, &volume.held.cutting));
        let spec = volume.classifier.class(self.class);
        let _gate = volume.gate.read();
        let cut = volume.ingest_region(self.file.ino, spec, self.at, &data, more)?;
        self.at += cut as u64;
        self.rest = data[cut..].to_vec();
        Ok(())
    }

    /// A hole of so many bytes follows.
    ///
    /// # Panics
    /// If what came before was taken with `more`.
    pub fn skip(&mut self, len: u64) {
        assert!(self.rest.is_empty(), "a hole ends what is cut");
        self.at += len;
    }

    /// All bytes are there: gives the file its attributes and its name, over whatever has it that
    /// is no directory. `existing` as in [`SmallFile`].
    ///
    /// # Errors
    /// `IsDirectory`, `NotFound`; `NoSpace`, `Poisoned`; faults.
    pub fn finish(self, spot: &Spot, arrival: &Arrival, existing: Option<Ino>) -> Result<Placed> {
        let Self { file, class, .. } = self;
        let (volume, ino) = (&file.volume, file.ino);
        volume.admit_change()?;
        let _gate = volume.gate.read();
        if let Some(old) = existing
            && let Some(kept) = volume.keep_large(old, ino, arrival)?
        {
            return Ok(kept);
        }
        let now = volume.env.now();
        volume.stage(|edit| {
            let nameless = edit.view().inode(At::Live, ino)?.ok_or(Error::Stale)?;
            let inode = inode_of(arrival, spot, now, (nameless.mapped, class));
            let placed = volume.place(edit, spot, ino, &inode, now)?;
            if placed.is_ok() {
                for (name, value) in &arrival.xattrs {
                    edit.put_xattr(ino, name, value)?;
                }
                volume.reaps.delete(edit, ino)?;
            }
            Ok(placed)
        })?
    }
}

impl std::fmt::Debug for LargeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LargeFile({} at {})", self.file.ino, self.at)
    }
}
