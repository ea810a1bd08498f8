//! Reading: dirty bytes over extents over zeros.

use std::ops::Range;

use super::Volume;
use super::files::FileNode;
use crate::error::{Error, Result};
use crate::types::{At, Extent, Ino};

/// Most extents looked up at a time; a read of 1 MiB in 4 KiB cells needs 257.
const READ_EXTENTS: usize = 512;

impl Volume {
    pub(super) fn read_live(&self, node: &FileNode, offset: u64, len: usize) -> Result<Vec<u8>> {
        let state = node.state.read();
        let Some(mut buf) = self.buffer_for(At::Live, node.ino, offset, len)? else {
            return Ok(Vec::new());
        };
        let range = offset..offset + buf.len() as u64;
        if !state.dirty.covers(&range) {
            self.read_extents(At::Live, node.ino, offset, &mut buf)?;
        }
        state.overlay(offset, &mut buf);
        Ok(buf)
    }

    /// Bytes of a file of a snapshot, all of them within the file.
    pub(super) fn read_past(&self, at: At, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        if len > 0 {
            self.read_extents(at, ino, offset, &mut buf)?;
        }
        Ok(buf)
    }

    /// Zeros for what a read of `len` bytes at `offset` can give; `None` at the end of the file.
    fn buffer_for(&self, at: At, ino: Ino, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let inode = self.meta.read().inode(at, ino)?.ok_or(Error::Stale)?;
        let left = inode.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        Ok((len > 0).then(|| vec![0; len]))
    }

    /// The extents for a read, as [`crate::meta::View::extents`]. Most files have one extent and
    /// are read from their beginning.
    fn extents_for(&self, at: At, ino: Ino, range: Range<u64>) -> Result<Vec<Extent>> {
        let view = self.meta.read();
        if range.start == 0 {
            let first = view.extent_at(at, ino, 0)?;
            if let Some(only) = first.filter(|first| first.end() >= range.end) {
                return Ok(vec![only]);
            }
        }
        view.extents(at, ino, range, READ_EXTENTS)
    }

    /// Copies what the extents of `ino` map into `buf`, which stands for the bytes from `offset`.
    pub(super) fn read_extents(&self, at: At, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut from = offset;
        while from < end {
            let extents = self.extents_for(at, ino, from..end)?;
            let Some(last) = extents.last() else { return Ok(()) };
            from = if extents.len() < READ_EXTENTS { end } else { last.end() };
            for extent in &extents {
                let chunk = self.store.read(extent.chunk).inspect_err(|e| {
                    self.tell_unreadable(ino, extent, e);
                })?;
                let start = extent.chunk_offset as usize;
                let bytes = chunk.get(start..start + extent.len as usize).ok_or_else(|| {
                    Error::corrupt(
                        format!("extent {} of inode {ino}", extent.offset),
                        format!("chunk {} is shorter than the extent says", extent.chunk),
                    )
                })?;
                let first = offset.max(extent.offset);
                let bytes = &bytes[(first - extent.offset) as usize..];
                let target = &mut buf[(first - offset) as usize..];
                let len = bytes.len().min(target.len());
                target[..len].copy_from_slice(&bytes[..len]);
            }
        }
        Ok(())
    }
}
