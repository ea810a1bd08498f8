//! What a restore did, or would do.

use serde::{Deserialize, Serialize};

use crate::types::shown_path;

/// Most changes named one by one; beyond that they are counted.
const CHANGES_NAMED: usize = 10_000;

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was missing.
    Created,
    /// Something else had the name.
    Replaced,
    /// Only its attributes were different.
    Attributes,
    /// The snapshot does not have it.
    Deleted,
    /// Left as it is: a directory with entries, where the snapshot has something else.
    InTheWay,
}

/// One name that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// How.
    pub what: What,
    /// From what was restored on; bytes that are not text as `\xNN`.
    pub path: String,
}

/// Counts of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Names that were missing.
    pub created: u64,
    /// Names that led to something else.
    pub replaced: u64,
    /// Files and directories of which only attributes were different.
    pub attributes: u64,
    /// Files that are as they were.
    pub unchanged: u64,
    /// Names, with all below them, that the snapshot does not have.
    pub deleted: u64,
    /// Directories that were not replaced because they are not empty.
    pub in_the_way: u64,
    /// Bytes of the files that were put back, none of them copied.
    pub file_bytes: u64,
    /// The first 10,000 changes.
    pub changes: Vec<Change>,
}

impl RestoreReport {
    pub(super) fn note(&mut self, what: What, path: &[u8]) {
        *match what {
            What::Created => &mut self.created,
            What::Replaced => &mut self.replaced,
            What::Attributes => &mut self.attributes,
            What::Deleted => &mut self.deleted,
            What::InTheWay => &mut self.in_the_way,
        } += 1;
        if self.changes.len() < CHANGES_NAMED {
            self.changes.push(Change { what, path: shown_path(path) });
        }
    }

    /// Names looked at.
    pub(super) fn seen(&self) -> u64 {
        self.created + self.replaced + self.attributes + self.unchanged + self.deleted
    }

    /// True if anything changed, or would.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.created + self.replaced + self.attributes + self.deleted > 0
    }
}
