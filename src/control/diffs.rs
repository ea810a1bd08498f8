//! `snapshot diff`: two states of the tree, told in parts.

use serde::{Deserialize, Serialize};

use super::parts::{EachPart, Gather, Part};
use super::protocol::{Name, Response};
use super::snapshots::named;
use crate::diff::{Change, Depth, Difference, Kind};
use crate::error::Result;
use crate::volume::{TreeState, Volume};

/// The name of the live tree beside snapshots; a snapshot of this name is not reached by it.
pub const LIVE: &[u8] = b"live";

/// Which states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffRequest {
    /// A snapshot, or `live`.
    pub from: Name,
    /// A snapshot, or `live`.
    pub to: Name,
    /// Only the sums.
    pub sums_only: bool,
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeName {
    /// Only the second state has it.
    Added,
    /// Only the first state has it.
    Removed,
    /// Both have it in one place, and it differs.
    Changed,
    /// Both have it, under different names.
    Renamed,
}

/// A difference, as commands show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferenceInfo {
    /// What happened.
    pub change: ChangeName,
    /// `file`, `directory`, `symlink` or `special`.
    pub kind: String,
    /// Path from the root; as it was, of what was removed.
    pub path: Name,
    /// The path it was renamed from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old_path: Option<Name>,
    /// Its content differs.
    pub content: bool,
    /// Attributes that differ: `mode`, `owner`, `group`, `mtime`, `xattrs`.
    pub attributes: Vec<String>,
    /// Bytes of the file before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old_size: Option<u64>,
    /// Bytes of the file after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Its inode number.
    pub ino: u64,
}

impl From<Difference> for DifferenceInfo {
    fn from(found: Difference) -> Self {
        Self {
            change: match found.change {
                Change::Added => ChangeName::Added,
                Change::Removed => ChangeName::Removed,
                Change::Changed => ChangeName::Changed,
                Change::Renamed => ChangeName::Renamed,
            },
            kind: found.kind.name().to_owned(),
            path: Name(found.path),
            old_path: found.old_path.map(Name),
            content: found.facets.content,
            attributes: found.facets.attributes.iter().map(|a| a.name().to_owned()).collect(),
            old_size: found.old_size,
            size: found.size,
            ino: found.ino.0,
        }
    }
}

/// Counts of things that came or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, kind: Kind, bytes: Option<u64>) {
        match kind {
            Kind::File => self.files += 1,
            Kind::Directory => self.directories += 1,
            _ => self.others += 1,
        }
        self.bytes += bytes.unwrap_or(0);
    }
}

/// What differs, in sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffSums {
    /// The first state.
    pub from: Name,
    /// The second state.
    pub to: Name,
    /// What only the second state has.
    pub added: Tally,
    /// What only the first state has.
    pub removed: Tally,
    /// Things whose content differs.
    pub changed: u64,
    /// Bytes of these before.
    pub changed_old_bytes: u64,
    /// Bytes of these after.
    pub changed_bytes: u64,
    /// Things of which only attributes differ.
    pub attributes_changed: u64,
    /// Things with another name; those that also differ count above, too.
    pub renamed: u64,
}

impl DiffSums {
    fn add(&mut self, found: &Difference) {
        match found.change {
            Change::Added => self.added.add(found.kind, found.size),
            Change::Removed => self.removed.add(found.kind, found.old_size),
            Change::Renamed => self.renamed += 1,
            Change::Changed => {}
        }
        if found.facets.content {
            self.changed += 1;
            self.changed_old_bytes += found.old_size.unwrap_or(0);
            self.changed_bytes += found.size.unwrap_or(0);
        } else if !found.facets.attributes.is_empty() {
            self.attributes_changed += 1;
        }
    }
}

/// The state that a word of the command line names.
pub(super) fn state(volume: &Volume, name: &Name) -> Result<TreeState> {
    if name.0 == LIVE {
        return Ok(TreeState::Live);
    }
    named(volume, name).map(TreeState::Snapshot)
}

pub(super) fn serve(
    volume: &Volume,
    request: &DiffRequest,
    part: &mut EachPart<'_>,
) -> Result<Response> {
    let (from, to) = (state(volume, &request.from)?, state(volume, &request.to)?);
    let mut sums = DiffSums {
        from: request.from.clone(),
        to: request.to.clone(),
        added: Tally::default(),
        removed: Tally::default(),
        changed: 0,
        changed_old_bytes: 0,
        changed_bytes: 0,
        attributes_changed: 0,
        renamed: 0,
    };
    let mut gather = Gather::new(Part::Differences, part);
    volume.compare(&from, &to, Depth::Full, &mut |found| {
        sums.add(&found);
        if request.sums_only { Ok(()) } else { gather.push(found.into()) }
    })?;
    gather.send()?;
    Ok(Response::Diff(Box::new(sums)))
}
