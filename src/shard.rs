//! Where containers lie: a directory today; a bucket or a node later.
//!
//! Guarantees (the contract suite in `shard/tests.rs` runs on every implementation): what
//! [`Appender::sync`] confirmed stays, across crashes; a read gives the whole range or an error.
//! Relies on: one writer per volume. Does not: know what a container holds.

mod budget;
mod direct;
#[doc(hidden)]
pub mod fuzz;
mod local;
mod marker;
mod memory;
mod tail;
#[cfg(test)]
mod tests;

pub use budget::AppendBudget;
pub use local::LocalShard;
pub use memory::MemoryShard;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::ContainerId;

/// Room on a shard, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Capacity of the file system below.
    pub total_bytes: u64,
    /// What we may still write.
    pub free_bytes: u64,
    /// What nobody uses, also where we may not write it.
    pub unused_bytes: u64,
    /// The disk, if another shard may lie on it, too.
    pub disk: Option<u64>,
}

/// A place for containers.
pub trait Shard: Send + Sync {
    /// Makes a new, empty container.
    ///
    /// # Errors
    /// `Exists` if the container is there already (it is untouched); `NoSpace`; `Io`.
    fn create(&self, id: ContainerId) -> Result<Box<dyn Appender>>;

    /// Opens a container to append after its first `len` bytes; what lies behind them is cut off.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the container is shorter than `len`; `Io`.
    fn reopen(&self, id: ContainerId, len: u64) -> Result<Box<dyn Appender>>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the container ends before `offset + buf.len()`; `Io`.
    fn read_at(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Bytes of a container.
    ///
    /// # Errors
    /// `NotFound`; `Io`.
    fn len(&self, id: ContainerId) -> Result<u64>;

    /// Removes a container; a missing one is no error. Nothing says when that is durable: after a
    /// crash the container may be there again, so a caller deletes only what no row names, and
    /// deletes it again when it is opened.
    ///
    /// # Errors
    /// `Io`.
    fn delete(&self, id: ContainerId) -> Result<()>;

    /// All containers, in rising order. Foreign files are ignored.
    ///
    /// # Errors
    /// `Io`.
    fn list(&self) -> Result<Vec<ContainerId>>;

    /// Room that is left.
    ///
    /// # Errors
    /// `Io`.
    fn space(&self) -> Result<Space>;

    /// Lets go of what the system keeps of a container in memory, so that the next read comes from
    /// the medium. Best effort.
    fn drop_cached(&self, _id: ContainerId) {}

    /// Shares the bound on append buffers with other shards, before anything is appended.
    fn share_budget(&self, _budget: &Arc<AppendBudget>) {}

    /// Is it still there, and still itself?
    ///
    /// # Errors
    /// `ShardMissing`, or why nobody can tell.
    fn probe(&self) -> Result<()> {
        Ok(())
    }

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// The writing end of one container.
#[expect(clippy::len_without_is_empty, reason = "nobody asks: a container begins with a header")]
pub trait Appender: Send {
    /// Appends the parts, joined; returns the offset of the first byte.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; the container may then hold a part of the bytes beyond [`Appender::len`].
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64>;

    /// Bytes appended so far, and zeros that a sync put behind them up to the next 4096 bytes.
    fn len(&self) -> u64;

    /// Makes all that was appended durable, and the container's name with it.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; after an error nothing since the last success may be relied on, and every
    /// later call fails too: a second sync may say yes to what the first one lost.
    fn sync(&mut self) -> Result<()>;

    /// As [`Appender::sync`], for the last time: the container ends with the last byte appended,
    /// and nothing is appended any more.
    ///
    /// # Errors
    /// As [`Appender::sync`].
    fn seal(&mut self) -> Result<()> {
        self.sync()
    }
}

/// The error of a read or a reopening beyond the end of a container.
fn too_short(id: ContainerId, place: &str, have: u64, need: u64) -> Error {
    Error::corrupt(
        format!("container {id} on {place}"),
        format!("it ends at byte {have} where at least {need} were written"),
    )
}
