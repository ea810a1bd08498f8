//! `find`: names in all states of the tree, told in parts.

use serde::{Deserialize, Serialize};

use super::diffs::LIVE;
use super::parts::{EachPart, Gather, Part};
use super::protocol::{Name, Response};
use super::snapshots::named;
use crate::classify::PathGlob;
use crate::diff::Kind;
use crate::error::Result;
use crate::find::{Found, FoundVersion, Query};
use crate::types::Inode;
use crate::volume::{TreeState, Volume};

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindRequest {
    /// A pattern for names, or for paths if it has a slash.
    pub pattern: String,
    /// Letter case does not count.
    pub ignore_case: bool,
    /// Only these snapshots, or `live`; all of them if there are none.
    pub states: Vec<Name>,
    /// Only these kinds: `file`, `directory`, `symlink`, `special`; all if there are none.
    pub kinds: Vec<String>,
    /// Only files of at least so many bytes.
    pub min_bytes: Option<u64>,
    /// Only files of at most so many bytes.
    pub max_bytes: Option<u64>,
}

impl FindRequest {
    fn means(&self, inode: &Inode) -> bool {
        let kind = Kind::from(inode.kind);
        let sized = self.min_bytes.is_some() || self.max_bytes.is_some();
        (self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind.name()))
            && (!sized || kind == Kind::File)
            && self.min_bytes.is_none_or(|min| inode.size >= min)
            && self.max_bytes.is_none_or(|max| inode.size <= max)
    }
}

/// A path that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundInfo {
    /// From the root, without a slash in front.
    pub path: Name,
    /// What was there, oldest first.
    pub versions: Vec<VersionInfo>,
}

/// One version, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionInfo {
    /// `file`, `directory`, `symlink` or `special`.
    pub kind: String,
    /// Its bytes.
    pub size: u64,
    /// When its content changed: ISO 8601, UTC, nanoseconds.
    pub mtime: String,
    /// Its inode number.
    pub ino: u64,
    /// The snapshots that have it, oldest first.
    pub snapshots: Vec<Name>,
    /// The live tree has it.
    pub live: bool,
}

/// How much was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindSums {
    /// Paths.
    pub paths: u64,
    /// Versions at them.
    pub versions: u64,
    /// Snapshots that were searched.
    pub snapshots: u64,
}

pub(super) fn serve(
    volume: &Volume,
    request: &FindRequest,
    part: &mut EachPart<'_>,
) -> Result<Response> {
    let glob = PathGlob::new(&request.pattern, request.ignore_case)?;
    let states = states(volume, request)?;
    let snapshots = states.iter().filter(|state| **state != TreeState::Live).count() as u64;
    let mut sums = FindSums { snapshots, ..FindSums::default() };
    let mut gather = Gather::new(Part::Found, part);
    let query = Query {
        states: &[],
        name: &|name| glob.may_match_name(name),
        path: &|path| glob.matches_path(path),
        inode: &|inode| request.means(inode),
    };
    volume.search(&states, query, &mut |found| {
        sums.paths += 1;
        sums.versions += found.versions.len() as u64;
        gather.push(info(found, &states))
    })?;
    gather.send()?;
    Ok(Response::Found(sums))
}

/// The states that are asked for, oldest first.
fn states(volume: &Volume, request: &FindRequest) -> Result<Vec<TreeState>> {
    let mut snapshots = volume.snapshots();
    if !request.states.is_empty() {
        for name in request.states.iter().filter(|name| name.0 != LIVE) {
            named(volume, name)?;
        }
        snapshots.retain(|s| request.states.iter().any(|name| name.0 == *s.name));
    }
    snapshots.sort_by_key(|snapshot| snapshot.epoch);
    let mut states: Vec<_> = snapshots.into_iter().map(TreeState::Snapshot).collect();
    if request.states.is_empty() || request.states.iter().any(|name| name.0 == LIVE) {
        states.push(TreeState::Live);
    }
    Ok(states)
}

fn info(found: Found, states: &[TreeState]) -> FoundInfo {
    let version = |version: FoundVersion| {
        let seen = || version.states.iter().filter_map(|place| states.get(*place));
        VersionInfo {
            kind: Kind::from(version.kind).name().to_owned(),
            size: version.size,
            mtime: version.mtime.iso_utc(),
            ino: version.ino.0,
            snapshots: seen()
                .filter_map(|state| match state {
                    TreeState::Snapshot(snapshot) => Some(Name(snapshot.name.to_vec())),
                    TreeState::Live => None,
                })
                .collect(),
            live: seen().any(|state| *state == TreeState::Live),
        }
    };
    FoundInfo {
        path: Name(found.path),
        versions: found.versions.into_iter().map(version).collect(),
    }
}
