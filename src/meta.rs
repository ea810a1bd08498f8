//! Names: inodes, entries, extents, xattrs and snapshots, with versions, over ordered tables.
//!
//! Guarantees: a reader sees all edits of the open txg at once or not at all ([`View`] and [`Edit`]
//! hold one lock); what a snapshot or a pinned epoch can see stays readable until it is deleted or
//! unpinned; a row's older version moves to `history` the first time it changes after a snapshot.
//! Relies on: `volume` for the rules between rows (links, sizes, extents that do not overlap) and
//! for the commit: [`Meta::freeze`], write [`Meta::frozen`], [`Meta::committed`].
//! Does not: write to the database, know what a chunk number stands for, delete a file's extents
//! with the file (see [`Reap`]).
//!
//! Layers: edits go to the overlay of the open txg; a lookup asks open → frozen → database.
//!
//! Locking: one reader-writer lock over all of it. A thread that holds a `View` or an `Edit` must
//! not ask `Meta` for another one, nor call any method of `Meta`: it would wait for itself.

mod audit;
mod ceilings;
mod changes;
mod cursor;
mod edit;
mod everywhere;
#[doc(hidden)]
pub mod fuzz;
mod home;
mod key;
mod known;
mod layers;
mod lives;
mod overlay;
mod past;
mod record;
mod reverse;
mod state;
#[cfg(test)]
mod tests;
mod versions;
mod view;
mod walk;

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::RwLock;

pub use audit::{Audit, ChunkRef, PASS_INODES, audit, each_reference};
pub use changes::{Committed, Place, Span};
pub use edit::Edit;
pub use everywhere::EachName;
pub use lives::{Life, extent_lives, snapshots};
pub use past::{Instant, Version};
pub use record::{Reap, ShardRow};
pub use reverse::{Extents, Reference, Reverse};
pub use view::View;
pub use walk::{DeadRow, DeadRows};

use crate::error::{Error, Result};
use crate::kv::{Batch, Changes, EachChange, Kv, Table};
use crate::types::{ChunkNo, Epoch, Ino};

use known::Known;
use state::State;

/// Name of the `super` row that holds the current epoch.
const EPOCH_ROW: &[u8] = b"epoch";

/// The metadata of a volume.
pub struct Meta {
    kv: Arc<dyn Kv>,
    state: RwLock<State>,
}

impl Meta {
    /// Metadata as the last commit left it in `kv`.
    ///
    /// # Errors
    /// `Corrupt` if the snapshot records or the epoch do not read; `Kv`.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self> {
        let (meta, mut damaged) = Self::open_with_damage(kv)?;
        if damaged.is_empty() { Ok(meta) } else { Err(damaged.swap_remove(0)) }
    }

    /// As [`Meta::open`], without the snapshots whose records do not read; these are returned as
    /// `Corrupt`. While there are any, nothing may be written or pruned: it would not be known
    /// which old versions they need.
    ///
    /// # Errors
    /// `Corrupt` if the epoch does not read; `Kv`.
    pub fn open_with_damage(kv: Arc<dyn Kv>) -> Result<(Self, Vec<Error>)> {
        let (mut state, damaged) = State::load(&*kv)?;
        state.known = Some(Known::new());
        Ok((Self { kv, state: RwLock::new(state) }, damaged))
    }

    /// The caller knows that no row belongs to this inode or to one with a higher number, and that
    /// it never gives a lower one to a new inode: lookups spare themselves the database.
    pub fn none_from(&self, ino: Ino) {
        self.state.write().ceilings.none_from(ino);
    }

    /// A view of the current state. Edits wait for as long as it lives.
    pub fn read(&self) -> View<'_> {
        View::shared(&*self.kv, self.state.read())
    }

    /// The right to edit. Everybody else waits for as long as it lives; its edits become visible
    /// together.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(&*self.kv, self.state.write())
    }

    /// Approximate memory of the changes that are not yet in the database.
    pub fn overlay_bytes(&self) -> usize {
        let (open, frozen) = self.uncommitted_bytes();
        open + frozen
    }

    /// The same, apart: the open txg, and the one that is being committed.
    pub fn uncommitted_bytes(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.open.bytes(), state.frozen.as_ref().map_or(0, |frozen| frozen.bytes()))
    }

    /// Memory of the committed inodes that are kept for the next reader, and the most it can be.
    pub fn known_bytes(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.known.as_ref().map_or(0, Known::bytes), Known::BYTES_MAX)
    }

    /// Ends the open txg: its changes are frozen until [`Meta::committed`].
    ///
    /// # Panics
    /// If a frozen txg is not committed yet.
    pub fn freeze(&self) {
        let mut state = self.state.write();
        assert!(state.frozen.is_none(), "one txg commits at a time");
        let frozen = std::mem::take(&mut state.open);
        state.changes_before += frozen.changes();
        state.frozen = Some(Arc::new(frozen));
    }

    /// The frozen changes, to be written. Readers go on seeing them as changes, and nobody waits
    /// while they are looked at.
    pub fn frozen(&self) -> Frozen {
        Frozen(self.state.read().frozen.as_ref().map(Arc::clone).unwrap_or_default())
    }

    /// A copy of them.
    pub fn frozen_batch(&self) -> Batch {
        self.frozen().0.to_batch()
    }

    /// The frozen changes are in the database now: forget them.
    pub fn committed(&self) {
        let done = {
            let mut state = self.state.write();
            let done = state.frozen.take();
            if let Some(written) = &done {
                state.ceilings.raise(written);
                if let Some(known) = &state.known {
                    let changed = written.keys(Table::Inode);
                    known.forget(changed.filter_map(|key| key::read_inode(key).ok()));
                }
            }
            done
        };
        // A large map takes a while to free; the lock is gone by now.
        drop(done);
    }

    /// True if there is nothing to commit.
    pub fn is_clean(&self) -> bool {
        let state = self.state.read();
        state.open.changes() == 0 && state.frozen.is_none()
    }

    /// As [`Meta::pin`], if a snapshot or another pin protects the epoch now; else false.
    pub fn try_pin(&self, epoch: Epoch) -> bool {
        let mut state = self.state.write();
        let protected = state.is_protected(epoch);
        if protected {
            state.protect(epoch);
        }
        protected
    }

    /// Keeps what `epoch` sees as if a snapshot with this epoch existed, until [`Meta::unpin`].
    /// The epoch must be protected already, by its snapshot or another pin. Pins are counted; they
    /// are not persistent.
    pub fn pin(&self, epoch: Epoch) {
        self.state.write().protect(epoch);
    }

    /// Takes one [`Meta::pin`] back.
    pub fn unpin(&self, epoch: Epoch) {
        self.state.write().unprotect(epoch);
    }

    /// One bounded piece of pruning: looks at up to `limit` committed rows of `history` and
    /// `change` for those that no snapshot and no pin needs. Blocks nobody. Nobody will need them
    /// later either, so [`Meta::drop_rows`] may follow at any time.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn find_dead(&self, resume: Option<Vec<u8>>, limit: usize) -> Result<DeadRows> {
        let protected = self.state.read().protected();
        walk::find_dead(&protected, &*self.kv, resume, limit)
    }

    /// Stages the deletion of rows that [`Meta::find_dead`] found. Readers wait meanwhile.
    pub fn drop_rows(&self, rows: &[DeadRow]) {
        let mut state = self.state.write();
        for row in rows {
            state.open.set(row.table, &row.key, None);
        }
    }

    /// One piece of all committed references: hands the chunks of up to `limit` extents, live ones
    /// first, then old ones, to `each`, and returns where to go on (`None` at the end). Blocks
    /// nobody. A reference that was committed before the first piece is met, wherever it moves
    /// meanwhile; of one that is made later, the caller must know by itself.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn chunk_refs(
        &self,
        resume: Option<Vec<u8>>,
        limit: usize,
        each: &mut dyn FnMut(ChunkNo),
    ) -> Result<Option<Vec<u8>>> {
        walk::chunks(&*self.kv, resume, limit, &mut |seen| each(seen.extent.chunk))
    }

    /// As [`Meta::chunk_refs`], without what would be gone after pruning and after the reaper has
    /// removed what `gone` says: the extents of an inode from this offset on.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn needed_chunk_refs(
        &self,
        resume: Option<Vec<u8>>,
        limit: usize,
        gone: &dyn Fn(Ino) -> Option<u64>,
        each: &mut dyn FnMut(ChunkNo),
    ) -> Result<Option<Vec<u8>>> {
        let protected = self.state.read().protected();
        walk::chunks(&*self.kv, resume, limit, &mut |seen| {
            let needed = match seen.end {
                Some(end) => protected.need(seen.birth..end),
                None => {
                    let removed = gone(seen.ino).is_some_and(|from| seen.extent.offset >= from);
                    !removed || protected.need_live(seen.birth)
                }
            };
            if needed {
                each(seen.extent.chunk);
            }
        })
    }
}

/// The changes of a txg that is being committed, where they are.
pub struct Frozen(Arc<overlay::Overlay>);

impl Frozen {
    /// How many rows change.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }
}

impl Changes for Frozen {
    fn each(&self, change: &mut EachChange<'_>) {
        self.0.each(change);
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meta")
    }
}

/// `Corrupt` that names the row.
fn damaged(table: Table, key: &[u8], detail: &str) -> Error {
    let mut object = String::from("row ");
    for byte in key {
        // Writing into a string does not fail.
        let _ = write!(object, "{byte:02x}");
    }
    object.push_str(" of metadata table ");
    object.push_str(table.name());
    Error::corrupt(object, detail)
}
