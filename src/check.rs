//! Check: does everything fit together, and is every byte what it was?
//!
//! Looks at one committed state of the tables, so it runs while the volume is in use; gc waits.
//! Names and extents are audited by `meta`, containers by `store`; this room joins them: every
//! reference must resolve. With `read_data` every chunk is read, decoded and compared with its
//! fingerprint. Memory: four bytes per chunk number and about 60 per inode. Does not: repair.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::meta;
use crate::store;
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
    progress("Checking chunks and containers");
    let chunks = store::audit(&*state, volume.store_for_check())?;
    report.chunks = chunks.chunks;
    report.containers = chunks.containers.len() as u64;
    report.add(chunks.problems.iter().cloned());
    progress("Checking names and extents");
    let mut dangling = Vec::new();
    let audit = meta::audit(&*state, &mut |r| {
        if chunks.raw_len(r.chunk) < r.end {
            dangling.push(format!(
                "Inode {} refers to {} bytes of chunk {}, which has {}",
                r.ino,
                r.end,
                r.chunk,
                chunks.raw_len(r.chunk)
            ));
        }
    })?;
    report.inodes = audit.inodes;
    report.dirents = audit.dirents;
    report.extents = audit.extents;
    report.old_versions = audit.old_versions;
    report.add(audit.problems);
    report.add(dangling);
    report.add(volume.check_counters(&*state, audit.last_ino, audit.live_bytes)?);
    if options.read_data {
        for (id, bytes) in &chunks.containers {
            progress(&format!("Reading container {id} of {}", chunks.containers.len()));
            report.bytes_read += bytes;
            let found = volume.store_for_check().verify_container(*id)?;
            let damaged = found.damaged.iter();
            report.add(damaged.map(|d| format!("Chunk {} is damaged: {}", d.chunk, d.detail)));
            report.add(found.flaws);
        }
    }
    let damage = volume.damage()?;
    report.add(damage.files.iter().map(DamagedFile::sentence));
    Ok(report)
}
