//! Comparing states of the tree: snapshots with each other, or with the live tree.

use super::Volume;
use crate::diff::{self, Depth};
use crate::error::{Error, Result};
use crate::find::{self, LIVE_EPOCH, Query};
use crate::kv::Kv;
use crate::types::{At, Epoch, Snapshot};

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeState {
    /// The live tree.
    Live,
    /// A snapshot.
    Snapshot(Snapshot),
}

impl TreeState {
    fn at(&self) -> At {
        match self {
            Self::Live => At::Live,
            Self::Snapshot(snapshot) => At::Epoch(snapshot.epoch),
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Self::Live => LIVE_EPOCH,
            Self::Snapshot(snapshot) => snapshot.epoch,
        }
    }
}

impl Volume {
    /// Hands each difference between two states to `each`. For the live tree everything changed
    /// before the call is committed first and counted; what changes meanwhile is not. Blocks
    /// nobody.
    ///
    /// # Errors
    /// What `each` returns; `NotFound` for a snapshot that is gone; what the commit says;
    /// `Corrupt`, `Kv`.
    pub fn compare(
        &self,
        from: &TreeState,
        to: &TreeState,
        depth: Depth,
        each: &mut diff::Each<'_>,
    ) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let tables = self.tables_with(&[from, to])?;
        diff::compare(&*tables, from.at(), to.at(), depth, each)
    }

    /// Hands every path that was found in these states, oldest first, to `each`. What is said of
    /// the live tree in [`Volume::compare`] holds here, too.
    ///
    /// # Errors
    /// As [`Volume::compare`].
    pub fn search(
        &self,
        states: &[TreeState],
        query: Query<'_>,
        each: &mut find::Each<'_>,
    ) -> Result<()> {
        let tables = self.tables_with(&states.iter().collect::<Vec<_>>())?;
        let epochs: Vec<Epoch> = states.iter().map(TreeState::epoch).collect();
        find::search(&*tables, &Query { states: &epochs, ..query }, each)
    }

    /// The committed tables, with all that these states need.
    fn tables_with(&self, states: &[&TreeState]) -> Result<Box<dyn Kv + '_>> {
        if states.contains(&&TreeState::Live) && !self.is_read_only() {
            self.commit()?;
        }
        let tables = self.kv.snapshot();
        for state in states {
            // Rows that only a deleted snapshot needs may be gone already.
            if let TreeState::Snapshot(snapshot) = state
                && self.snapshot(snapshot.id).is_none()
            {
                let name = String::from_utf8_lossy(&snapshot.name);
                return Err(Error::not_found(format!("snapshot {name}")));
            }
        }
        Ok(tables)
    }
}
