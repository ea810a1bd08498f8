//! What a name of a directory was in the snapshots: one entry per content that differs from the
//! one before.
//!
//! Walks the versions of that entry and of the inodes it named, never the snapshots one by one, so
//! a file that did not change in a thousand snapshots costs one row.

use std::ops::Range;

use super::Volume;
use crate::error::Result;
use crate::limits::COMPARED_EXTENTS_MAX;
use crate::meta::Instant;
use crate::types::{
    At, Cookie, Epoch, Extent, FileKind, Ino, Inode, Snapshot, SnapshotId, Timestamp,
};

/// Extents compared between two chances for writers.
const COMPARED_AT_ONCE: usize = 1024;
/// Rows looked at between two chances for writers.
const NAMES_AT_ONCE: usize = 1024;

/// A content that a name had in at least one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastVersion {
    /// The time of the oldest snapshot that has it.
    pub since: Timestamp,
    /// The newest snapshot that has it.
    pub snapshot: SnapshotId,
    /// The inode that the name named then.
    pub ino: Ino,
    /// The kind of that inode.
    pub kind: FileKind,
}

/// Names of a directory that snapshots know.
#[derive(Clone, Debug, Default)]
pub struct PastNames {
    /// With their cookies, in their order.
    pub found: Vec<(Cookie, Box<[u8]>)>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cookie>,
}

/// Snapshots in a row that see one version of the inode.
struct Run {
    snapshots: Range<usize>,
    ino: Ino,
    inode: Inode,
}

impl Volume {
    /// The contents that `name` of the directory `dir` had in snapshots, oldest first, each
    /// different from the one before. A directory counts as changed when its own entries did.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn past_versions(&self, dir: Ino, name: &[u8]) -> Result<Vec<PastVersion>> {
        let (instants, runs) = self.runs_of(dir, name)?;
        let mut budget = COMPARED_EXTENTS_MAX;
        let mut found: Vec<(PastVersion, Run)> = Vec::new();
        for run in runs {
            let newest = instants[run.snapshots.end - 1];
            if let Some((version, last)) = found.last_mut()
                && self.is_same_content(&instants, last, &run, &mut budget)?
            {
                version.snapshot = newest.id;
                version.ino = run.ino;
                *last = run;
                continue;
            }
            let since = instants[run.snapshots.start].time;
            let kind = run.inode.kind;
            let version = PastVersion { since, snapshot: newest.id, ino: run.ino, kind };
            found.push((version, run));
        }
        Ok(found.into_iter().map(|(version, _)| version).collect())
    }

    fn runs_of(&self, dir: Ino, name: &[u8]) -> Result<(Vec<Instant>, Vec<Run>)> {
        let view = self.meta.read();
        let instants = view.instants();
        let mut runs = Vec::new();
        for named in view.dirent_versions(dir, name)? {
            if seeing(&instants, named.birth, named.end).is_empty() {
                continue;
            }
            for inode in view.inode_versions(named.value.ino)? {
                let (birth, end) = (named.birth.max(inode.birth), named.end.min(inode.end));
                let snapshots = seeing(&instants, birth, end);
                if !snapshots.is_empty() {
                    runs.push(Run { snapshots, ino: named.value.ino, inode: inode.value });
                }
            }
        }
        runs.sort_by_key(|run| run.snapshots.start);
        Ok((instants, runs))
    }

    fn is_same_content(
        &self,
        instants: &[Instant],
        old: &Run,
        new: &Run,
        budget: &mut usize,
    ) -> Result<bool> {
        let (a, b) = (&old.inode, &new.inode);
        if a.kind != b.kind || a.size != b.size {
            return Ok(false);
        }
        match a.kind {
            FileKind::Regular if *budget == 0 => Ok(a.mtime == b.mtime),
            FileKind::Regular => {
                let at = |run: &Run| (At::Epoch(instants[run.snapshots.start].epoch), run.ino);
                self.has_same_extents(at(old), at(new), budget)
            }
            FileKind::Directory => Ok(old.ino == new.ino && a.mtime == b.mtime),
            _ => Ok(a.target == b.target && a.rdev == b.rdev),
        }
    }

    /// Whether two states of files refer to the same bytes of the same chunks everywhere.
    pub(super) fn has_same_extents(
        &self,
        a: (At, Ino),
        b: (At, Ino),
        budget: &mut usize,
    ) -> Result<bool> {
        let mut from = 0;
        loop {
            let view = self.meta.read();
            let page =
                |(at, ino): (At, Ino)| view.extents(at, ino, from..u64::MAX, COMPARED_AT_ONCE);
            let (a, b) = (page(a)?, page(b)?);
            drop(view);
            if a != b {
                return Ok(false);
            }
            *budget = budget.saturating_sub(a.len());
            match a.last().map(Extent::end) {
                Some(end) if a.len() == COMPARED_AT_ONCE => from = end,
                _ => return Ok(true),
            }
        }
    }

    /// A piece of the names that `dir` had in snapshots, from the first above the cookie `after`.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn past_names(&self, dir: Ino, after: Cookie) -> Result<PastNames> {
        let view = self.meta.read();
        let instants = view.instants();
        let (rows, next) = view.dirent_lives(dir, after, NAMES_AT_ONCE)?;
        let mut names = PastNames { found: Vec::new(), next };
        for (cookie, name, lives) in rows {
            if lives.iter().any(|life| !seeing(&instants, life.start, life.end).is_empty()) {
                names.found.push((cookie, name));
            }
        }
        Ok(names)
    }

    /// The newest snapshot in which `dir` was a directory.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn newest_snapshot_with(&self, dir: Ino) -> Result<Option<Snapshot>> {
        let view = self.meta.read();
        let instants = view.instants();
        let versions = view.inode_versions(dir)?;
        let is_dir = versions.iter().filter(|v| v.value.kind == FileKind::Directory);
        let newest = is_dir.filter_map(|v| seeing(&instants, v.birth, v.end).next_back()).max();
        Ok(newest.and_then(|at| view.snapshot(instants[at].id)))
    }

    /// The attributes that `ino` had in snapshots, and has now.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn attributes_over_time(&self, ino: Ino) -> Result<Vec<Inode>> {
        let view = self.meta.read();
        let instants = view.instants();
        let all = view.inode_versions(ino)?.into_iter();
        let seen = all.filter(|v| {
            v.end.0 == crate::limits::EPOCH_MAX || !seeing(&instants, v.birth, v.end).is_empty()
        });
        Ok(seen.map(|v| v.value).collect())
    }

    /// Snapshots that were taken in this second of 1970-01-01 UTC, newest first.
    #[must_use]
    pub fn snapshots_taken_in(&self, secs: i64) -> Vec<Snapshot> {
        let view = self.meta.read();
        let instants = view.instants();
        let taken = instants.iter().rev().filter(|instant| instant.time.secs == secs);
        taken.filter_map(|instant| view.snapshot(instant.id)).collect()
    }
}

/// The snapshots with an epoch in `birth..end`.
fn seeing(instants: &[Instant], birth: Epoch, end: Epoch) -> Range<usize> {
    let start = instants.partition_point(|instant| instant.epoch < birth);
    let after = instants.partition_point(|instant| instant.epoch < end);
    start..after.max(start)
}
