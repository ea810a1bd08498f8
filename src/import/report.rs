//! What an import did, or would do.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::types::shown_path;
use crate::volume::Problem;

/// Most changes named one by one; beyond that they are counted.
const CHANGES_NAMED: usize = 10_000;
/// The same of what went wrong.
const PROBLEMS_NAMED: usize = 1_000;

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportWhat {
    /// It was missing.
    Created,
    /// Something else had the name, or it was not known to be the same.
    Replaced,
    /// Only its attributes were different.
    Attributes,
    /// The source does not have it.
    Deleted,
    /// Left as it is: a directory with entries, where the source has something else.
    InTheWay,
}

/// One name that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportChange {
    /// How.
    pub what: ImportWhat,
    /// From the root of the transfer on; bytes that are not text as `\xNN`.
    pub path: String,
}

/// Counts of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Names that were missing.
    pub created: u64,
    /// Names that led to something else, or to what was not known to be the same.
    pub replaced: u64,
    /// Names of which only attributes were different.
    pub attributes: u64,
    /// Files and links that were known to be the same.
    pub unchanged: u64,
    /// Names, with all below them, that the source does not have.
    pub deleted: u64,
    /// Names that the rules left out, with all below them.
    pub excluded: u64,
    /// Names that were left as they are because a directory with entries was in the way.
    pub in_the_way: u64,
    /// What could not be imported as it is: unreadable, gone meanwhile, or changed while it was
    /// read.
    pub failed: u64,
    /// Bytes read from files.
    pub read_bytes: u64,
    /// The first 10,000 changes.
    pub changes: Vec<ImportChange>,
    /// The first 1,000 of what went wrong.
    pub problems: Vec<Problem>,
}

impl ImportReport {
    pub(super) fn note(&mut self, what: ImportWhat, path: &[u8]) {
        *match what {
            ImportWhat::Created => &mut self.created,
            ImportWhat::Replaced => &mut self.replaced,
            ImportWhat::Attributes => &mut self.attributes,
            ImportWhat::Deleted => &mut self.deleted,
            ImportWhat::InTheWay => &mut self.in_the_way,
        } += 1;
        if self.changes.len() < CHANGES_NAMED {
            self.changes.push(ImportChange { what, path: shown_path(path) });
        }
    }

    pub(super) fn problem(&mut self, path: &Path, why: String) {
        use std::os::unix::ffi::OsStrExt;
        self.failed += 1;
        if self.problems.len() < PROBLEMS_NAMED {
            self.problems.push(Problem { path: shown_path(path.as_os_str().as_bytes()), why });
        }
    }

    /// Names looked at.
    pub(super) fn seen(&self) -> u64 {
        self.created + self.replaced + self.attributes + self.unchanged + self.deleted + self.failed
    }

    /// True if not everything is as the source has it.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.failed > 0 || self.in_the_way > 0
    }
}
