//! Check: does everything fit together, and is every byte what it was?
//!
//! Looks at one committed state of the tables, so it runs while the volume is in use; gc waits.
//! Names, extents and old versions are audited by `meta`, containers by `store`; this room joins
//! them: every reference must resolve. With `read_data` every chunk is read, decoded and compared
//! with its fingerprint. A table that cannot be read to its end is a problem like others. Memory:
//! 160 MB for 8 million chunks at a time, 60 MB for a million inodes at a time. Does not: repair.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::kv::Kv;
use crate::meta;
use crate::store::{self, Stray};
use crate::types::ContainerId;
use crate::volume::{DamagedFile, Volume};

/// Problems listed one by one; further ones are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read and verify every chunk.
    pub read_data: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Live inodes.
    pub inodes: u64,
    /// Live entries.
    pub dirents: u64,
    /// Live extents.
    pub extents: u64,
    /// Old versions kept for snapshots.
    pub old_versions: u64,
    /// Chunks.
    pub chunks: u64,
    /// Containers.
    pub containers: u64,
    /// Container bytes read and verified.
    pub bytes_read: u64,
    /// What is wrong, one sentence each; empty when all is well.
    pub problems: Vec<String>,
    /// Problems beyond those listed.
    pub more_problems: u64,
}

impl CheckReport {
    fn add(&mut self, problems: impl IntoIterator<Item = String>) {
        for problem in problems {
            if self.problems.len() < PROBLEMS_MAX {
                self.problems.push(problem);
            } else {
                self.more_problems += 1;
            }
        }
    }
}

/// Checks the volume as its last commit left it.
///
/// # Errors
/// `Busy` if gc or check is running; `Kv`, `Poisoned`. What is damaged is in the report.
pub fn run(
    volume: &Volume,
    options: CheckOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<CheckReport> {
    let _alone = volume.maintenance()?;
    volume.commit()?;
    let state = volume.metadata_snapshot();
    let mut report = CheckReport::default();
    report.add(volume.damage_at_opening().iter().cloned());
    progress("Checking chunks and containers");
    let containers = chunks(volume, &*state, &mut report);
    progress("Checking names and extents");
    let audit = meta::audit(&*state, meta::PASS_INODES)?;
    report.inodes = audit.inodes;
    report.dirents = audit.dirents;
    report.extents = audit.extents;
    report.old_versions = audit.old_versions;
    report.more_problems += audit.more_problems;
    report.add(volume.check_counters(&*state, &audit)?);
    report.add(audit.problems);
    // A crash leaves containers that a commit has forgotten; where nothing is missing, nobody needs
    // them, and gc clears them. Where something is, they may hold it.
    if report.problems.len() as u64 + report.more_problems > 0 {
        report.add(strays(volume, &*state)?);
    }
    if options.read_data {
        for (at, (id, bytes)) in containers.iter().enumerate() {
            progress(&format!("Reading container {} of {}", at + 1, containers.len()));
            report.bytes_read += bytes;
            match volume.store_for_check().verify_container(*id) {
                Ok(found) => {
                    let damaged = found.damaged.iter();
                    report.add(
                        damaged.map(|d| format!("Chunk {} is damaged: {}", d.chunk, d.detail)),
                    );
                    report.add(found.flaws);
                }
                Err(e) => report.add([format!("Container {id} was not checked: {e}")]),
            }
        }
    }
    match volume.damage() {
        Ok(damage) => report.add(damage.files.iter().map(DamagedFile::sentence)),
        Err(e) => report.add([format!("Files with damaged chunks were not looked for: {e}")]),
    }
    Ok(report)
}

/// Chunks, fingerprints and containers, and every reference to a chunk. Returns the containers.
fn chunks(volume: &Volume, state: &dyn Kv, report: &mut CheckReport) -> Vec<(ContainerId, u64)> {
    let mut audit = store::Audit::begin(state, volume.store_for_check());
    while let Some(window) = audit.next_window(state, store::WINDOW_CHUNKS) {
        meta::each_reference(state, &mut |r| {
            if let Some(raw_len) = window.raw_len(r.chunk).filter(|raw_len| *raw_len < r.end) {
                report.add([format!(
                    "Inode {} refers to {} bytes of chunk {}, which has {raw_len}",
                    r.ino, r.end, r.chunk
                )]);
            }
        });
    }
    audit.finish(state);
    report.chunks = audit.chunks;
    report.containers = audit.containers.len() as u64;
    report.more_problems += audit.more_problems;
    report.add(audit.problems);
    audit.containers
}

/// Container files that no row names and that hold what extents refer to. What is being written has
/// its row after the next commit; what nobody needs is a leftover that gc removes.
fn strays(volume: &Volume, state: &dyn Kv) -> Result<Vec<String>> {
    let store = volume.store_for_check();
    let before = match store.strays() {
        Ok(before) if before.is_empty() => return Ok(Vec::new()),
        Ok(before) => before,
        Err(e) => return Ok(vec![format!("Files without a row were not looked for: {e}")]),
    };
    volume.commit()?;
    let after = store.strays()?;
    let stays = before.iter().filter(|stray| after.iter().any(|other| other.id == stray.id));
    let mut holders = HashMap::new();
    for Stray { shard, id, chunks } in stays {
        holders.extend(chunks.iter().map(|chunk| (*chunk, (*shard, *id))));
    }
    let mut needed = BTreeSet::new();
    meta::each_reference(state, &mut |r| needed.extend(holders.get(&r.chunk)));
    let needed = needed.into_iter();
    Ok(needed
        .map(|(shard, id)| {
            format!(
                "Container {id} on shard {shard} has no row and holds what files need; unmount and \
                 run `stratafs rebuild-index`"
            )
        })
        .collect())
}
