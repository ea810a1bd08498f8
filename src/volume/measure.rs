//! What a file or a subtree takes: bytes it refers to, distinct ones among them, and their shares
//! of what is stored. And the fingerprint of a whole content.
//!
//! Bounded: a subtree beyond [`MEASURED_INODES_MAX`] or [`MEASURED_EXTENTS_MAX`] is refused.

use std::collections::{BTreeSet, HashSet};

use super::Volume;
use crate::error::{Error, Result};
use crate::limits::{MEASURED_EXTENTS_MAX, MEASURED_INODES_MAX};
use crate::types::{At, ClassId, Cookie, FileKind, Fingerprint, Hashing, Ino, ShardId};

/// Extents, names or chunks looked at between two chances for writers.
const AT_ONCE: usize = 1000;
/// Read at a time for a fingerprint.
const READ_BYTES: usize = 1024 * 1024;

/// What a file, or all files below a directory, take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes that are data, not holes. A file with several names counts once.
    pub raw_bytes: u64,
    /// Raw bytes of the distinct chunks they lie in.
    pub unique_bytes: u64,
    /// What these chunks take on the shards, as far as they are written there.
    pub stored_bytes: u64,
    /// Names of their shards.
    pub shards: Vec<String>,
    /// Names of the classes of the files.
    pub classes: Vec<String>,
}

#[derive(Default)]
struct Sum {
    inodes: usize,
    raw_bytes: u64,
    chunks: Vec<u64>,
    classes: BTreeSet<ClassId>,
    linked: HashSet<Ino>,
}

impl Volume {
    /// Measures a file, or a directory with all below it.
    ///
    /// # Errors
    /// `TooLarge` beyond the bounds; `NotFound`, `Stale` when the volume is being closed; faults.
    pub fn measure(&self, at: At, ino: Ino) -> Result<Measure> {
        let mut sum = Sum::default();
        let mut dirs = Vec::new();
        let kind = self.stat(at, ino)?.inode.kind;
        self.measure_one(at, (ino, kind), &mut sum, &mut dirs)?;
        while let Some((dir, after)) = dirs.pop() {
            let page = self.list(at, dir, after, AT_ONCE)?;
            if let Some(last) = page.last() {
                dirs.push((dir, last.cookie));
            }
            for item in page {
                match self.measure_one(at, (item.ino, item.kind), &mut sum, &mut dirs) {
                    // Removed meanwhile.
                    Err(Error::NotFound { .. }) if at == At::Live => {}
                    done => done?,
                }
            }
        }
        self.add_up(sum)
    }

    fn measure_one(
        &self,
        at: At,
        (ino, kind): (Ino, FileKind),
        sum: &mut Sum,
        dirs: &mut Vec<(Ino, Cookie)>,
    ) -> Result<()> {
        sum.inodes += 1;
        if sum.inodes > MEASURED_INODES_MAX {
            return Err(Error::TooLarge);
        }
        if self.is_stopping() {
            return Err(Error::Stale);
        }
        match kind {
            FileKind::Directory => dirs.push((ino, Cookie(0))),
            FileKind::Regular => self.measure_file(at, ino, sum)?,
            _ => {}
        }
        Ok(())
    }

    fn measure_file(&self, at: At, ino: Ino, sum: &mut Sum) -> Result<()> {
        if at == At::Live && !self.read_only {
            self.drain_ino(ino)?;
        }
        let inode = self.stat(at, ino)?.inode;
        if inode.nlink > 1 && !sum.linked.insert(ino) {
            return Ok(());
        }
        if inode.size > 0 {
            sum.classes.insert(inode.class);
        }
        let mut from = 0;
        while from < inode.size {
            let some = self.meta.read().extents(at, ino, from..inode.size, AT_ONCE)?;
            let Some(last) = some.last() else { break };
            from = last.end();
            sum.raw_bytes += some.iter().map(|extent| u64::from(extent.len)).sum::<u64>();
            sum.chunks.extend(some.iter().map(|extent| extent.chunk.0));
            if sum.chunks.len() > MEASURED_EXTENTS_MAX {
                sum.chunks.sort_unstable();
                sum.chunks.dedup();
                if sum.chunks.len() > MEASURED_EXTENTS_MAX / 2 {
                    return Err(Error::TooLarge);
                }
            }
        }
        Ok(())
    }

    fn add_up(&self, mut sum: Sum) -> Result<Measure> {
        let mut measure = Measure { raw_bytes: sum.raw_bytes, ..Measure::default() };
        let mut shards: BTreeSet<ShardId> = BTreeSet::new();
        sum.chunks.sort_unstable();
        sum.chunks.dedup();
        for chunk in sum.chunks {
            let place = self.store.place_of(crate::types::ChunkNo(chunk))?;
            measure.unique_bytes += u64::from(place.raw_len);
            measure.stored_bytes += u64::from(place.stored_len);
            shards.insert(place.shard);
        }
        measure.shards = shards.into_iter().map(|id| self.shard_place(id)).collect();
        measure.classes = sum.classes.into_iter().map(|id| self.class_name(id)).collect();
        Ok(measure)
    }

    /// BLAKE3 of a file's whole content, holes as zeros. Everything that is read is verified.
    ///
    /// # Errors
    /// `Busy` when it is written to meanwhile; `Stale` when the volume is being closed; those of
    /// reading.
    pub fn content_hash(self: &std::sync::Arc<Self>, at: At, ino: Ino) -> Result<Fingerprint> {
        let file = self.open_file(at, ino)?;
        let before = file.stat()?.inode;
        let mut hashing = Hashing::default();
        let mut offset = 0;
        while offset < before.size && !self.is_stopping() {
            let piece = file.read(offset, READ_BYTES)?;
            if piece.is_empty() {
                break;
            }
            hashing.add(&piece);
            offset += piece.len() as u64;
        }
        let after = file.stat()?.inode;
        if offset < before.size && self.is_stopping() {
            return Err(Error::Stale);
        }
        if (after.size, after.ctime) != (before.size, before.ctime) {
            return Err(Error::Busy { what: "The file is being written to".to_owned() });
        }
        Ok(hashing.finish())
    }
}
