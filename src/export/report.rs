//! What an export did, or would do.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::types::shown_path;
use crate::volume::Problem;

/// Most changes named one by one; beyond that they are counted.
const CHANGES_NAMED: usize = 10_000;
/// The same of what went wrong.
const PROBLEMS_NAMED: usize = 1_000;

/// What happened to a name outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportWhat {
    /// It was missing.
    Created,
    /// Something else had it.
    Replaced,
    /// Only its attributes were different.
    Attributes,
}

/// One name that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportChange {
    /// How.
    pub what: ExportWhat,
    /// The path outside; bytes that are not text as `\xNN`.
    pub path: String,
}

/// Counts of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Names that were missing.
    pub created: u64,
    /// Names that had something else.
    pub replaced: u64,
    /// Names of which only attributes were different.
    pub attributes: u64,
    /// Names that are as they were.
    pub unchanged: u64,
    /// What could not be exported as it is.
    pub failed: u64,
    /// Bytes written into files.
    pub written_bytes: u64,
    /// The first 10,000 changes.
    pub changes: Vec<ExportChange>,
    /// The first 1,000 of what went wrong.
    pub problems: Vec<Problem>,
}

impl ExportReport {
    pub(super) fn note(&mut self, what: ExportWhat, path: &Path) {
        *match what {
            ExportWhat::Created => &mut self.created,
            ExportWhat::Replaced => &mut self.replaced,
            ExportWhat::Attributes => &mut self.attributes,
        } += 1;
        if self.changes.len() < CHANGES_NAMED {
            let path = shown_path(path.as_os_str().as_bytes());
            self.changes.push(ExportChange { what, path });
        }
    }

    pub(super) fn problem(&mut self, path: &Path, why: String) {
        self.failed += 1;
        if self.problems.len() < PROBLEMS_NAMED {
            self.problems.push(Problem { path: shown_path(path.as_os_str().as_bytes()), why });
        }
    }

    /// Names looked at.
    pub(super) fn seen(&self) -> u64 {
        self.created + self.replaced + self.attributes + self.unchanged + self.failed
    }

    /// True if not everything is as the snapshot has it.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.failed > 0
    }
}
