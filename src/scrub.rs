//! Scrub: reads what is stored before somebody needs it, says what is damaged, and puts it right.
//!
//! Guarantees: every chunk, header and footer of a container is compared with its fingerprint and
//! checksums, the container verified longest ago first. What was verified is recorded container by
//! container, so that a scrub that ends early, or a crash, costs at most the container in hand and
//! what the commit interval had not made durable. Holds no lock that keeps writers, snapshots or gc
//! waiting; what gc frees meanwhile is no damage. Memory: the rows of one container, 24 bytes per
//! container, one bit per chunk while damage is named.
//! Relies on: `store` for verifying and for keeping damaged chunks from being used, `meta` for the
//! way back from chunks to names. Does not: judge metadata (`check` does), repair without good
//! copies.

mod background;
mod pace;
mod repair;
mod source;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::background::Background;
pub use self::repair::{RepairReport, repair};

use self::pace::Pacer;
use crate::error::{Error, Result};
use crate::store::{Report, ScrubRow};
use crate::types::ContainerId;
use crate::volume::{Damage, Pass, Verified, Volume};

/// Sentences listed one by one; further ones are only counted.
const LISTED_MAX: usize = 1000;
/// Containers verified between two commits: half a second of a fast disk.
const COMMIT_CONTAINERS: u64 = 16;

/// What to scrub.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScrubOptions {
    /// Begin no further container after this time.
    pub max_duration: Option<Duration>,
    /// Most bytes read in a second; as fast as it goes without.
    pub rate_bytes: Option<u64>,
}

/// Why a scrub ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Every container was verified.
    #[default]
    Complete,
    /// Its time was over.
    OutOfTime,
    /// It was told to stop: an unmount, or whoever asked is gone.
    Stopped,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubReport {
    /// Why it ended.
    pub ended: Ended,
    /// Containers verified.
    pub containers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks verified.
    pub chunks: u64,
    /// Chunks found damaged, known ones too.
    pub damaged_chunks: u64,
    /// Chunks that were known as damaged and are good again.
    pub recovered_chunks: u64,
    /// Containers that were left for the next scrub.
    pub containers_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Damage that hits no chunk, and containers that could not be looked at; one sentence each.
    pub flaws: Vec<String>,
    /// Flaws beyond those listed.
    pub more_flaws: u64,
    /// All damage that is known now, and whom it hits.
    pub damage: Damage,
    /// What was verified when.
    pub verified: Verified,
}

impl ScrubReport {
    /// True if nothing is wrong with what is stored.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.chunks == 0 && self.flaws.is_empty()
    }

    fn add(&mut self, container: &Report) {
        self.containers += 1;
        self.bytes += container.bytes;
        self.chunks += container.chunks;
        self.damaged_chunks += container.damaged.len() as u64;
        self.recovered_chunks += container.recovered;
        container.flaws.iter().for_each(|flaw| self.flaw(flaw.clone()));
    }

    fn flaw(&mut self, flaw: String) {
        if self.flaws.len() < LISTED_MAX {
            self.flaws.push(flaw);
        } else {
            self.more_flaws += 1;
        }
    }
}

/// A container to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// When it was verified last; 0 is never.
    time_micros: u64,
    id: ContainerId,
    bytes: u64,
}

/// What became of a container.
enum Looked {
    Verified(Report),
    /// Told to stop in the middle.
    Stopped,
    /// Gc freed it.
    Gone,
    /// Its shard does not answer.
    Away(Error),
}

/// What is known without reading anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubState {
    /// What was verified when.
    pub verified: Verified,
    /// All damage that is known, and whom it hits.
    pub damage: Damage,
}

/// What was verified when, and what is known to be damaged.
///
/// # Errors
/// `Kv`, `Corrupt`, `Poisoned`.
pub fn state(volume: &Volume) -> Result<ScrubState> {
    volume.commit()?;
    Ok(ScrubState { verified: volume.verified()?, damage: volume.damage()? })
}

/// Verifies the containers of a volume, the one verified longest ago first. `stop` is asked between
/// frames.
///
/// # Errors
/// `Busy` if another scrub runs; `Poisoned`, `ReadOnly`, `Kv`. Damage is in the report.
pub fn run(
    volume: &Volume,
    options: ScrubOptions,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(&str),
) -> Result<ScrubReport> {
    let turn = volume.scrub_on_demand()?;
    volume.commit()?;
    let pass = volume.scrub_pass()?;
    let begun = volume.now_micros();
    let limit = options.max_duration.map(|limit| u64::try_from(limit.as_micros()));
    let deadline = limit.map(|limit| begun.saturating_add(limit.unwrap_or(u64::MAX)));
    let queue = candidates(volume, |_| true)?;
    let total_bytes = queue.iter().map(|candidate| candidate.bytes).sum();
    let mut report = ScrubReport::default();
    let mut pacer = Pacer::new(options.rate_bytes);
    let mut talk = Talk { progress, total_bytes, last: None };
    let mut queue = queue.into_iter();
    for candidate in queue.by_ref() {
        let before = (report.bytes, report.damaged_chunks);
        let mut done = before.0;
        let looked = look(volume, candidate.id, &mut |len| {
            done += len;
            talk.say(done, before.1);
            pacer.pause(len, stop)
        })?;
        match looked {
            Looked::Verified(container) => report.add(&container),
            Looked::Away(error) => {
                report.flaw(format!("Container {} is not verified: {error}", candidate.id));
            }
            Looked::Gone => {}
            Looked::Stopped => {
                report.ended = Ended::Stopped;
                leave(&mut report, candidate);
                break;
            }
        }
        if report.damaged_chunks > before.1 || report.containers.is_multiple_of(COMMIT_CONTAINERS) {
            volume.commit()?;
        }
        if deadline.is_some_and(|deadline| volume.now_micros() >= deadline) {
            report.ended = Ended::OutOfTime;
            break;
        }
    }
    queue.for_each(|candidate| leave(&mut report, candidate));
    if report.containers_left == 0 {
        report.ended = Ended::Complete;
    }
    end_pass(volume, pass)?;
    volume.commit()?;
    drop(turn);
    report.damage = volume.damage()?;
    report.verified = volume.verified()?;
    Ok(report)
}

fn leave(report: &mut ScrubReport, candidate: Candidate) {
    report.containers_left += 1;
    report.bytes_left += candidate.bytes;
}

/// The containers that are `due`, the one verified longest ago first, those never verified before
/// all others.
fn candidates(volume: &Volume, due: impl Fn(&Due) -> bool) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    volume.store_for_check().each_verified(|id, row, last| {
        let candidate =
            Candidate { time_micros: last.map_or(0, |row| row.time_micros), id, bytes: row.bytes };
        let sealed = row.state == crate::store::ContainerState::Sealed;
        let has_grown = sealed && last.is_some_and(|last| last.bytes < row.bytes);
        if due(&Due { time_micros: candidate.time_micros, has_grown }) {
            found.push(candidate);
        }
    })?;
    found.sort_unstable();
    Ok(found)
}

/// What decides whether a container is due.
struct Due {
    time_micros: u64,
    /// It was open when it was verified, and is complete now.
    has_grown: bool,
}

/// Verifies one container and remembers that.
fn look(volume: &Volume, id: ContainerId, pace: &mut dyn FnMut(u64) -> bool) -> Result<Looked> {
    let report = match volume.store_for_check().verify_paced(id, pace) {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(Looked::Stopped),
        Err(Error::NotFound { .. }) => return Ok(Looked::Gone),
        Err(error @ (Error::Shard { .. } | Error::ShardMissing { .. })) => {
            return Ok(Looked::Away(error));
        }
        Err(error) => return Err(error),
    };
    let row = ScrubRow {
        time_micros: volume.now_micros(),
        bytes: report.bytes,
        damaged: report.damaged.len() as u64,
        flaws: report.flaws.len() as u64,
    };
    volume.store_for_check().note_verified(id, row);
    Ok(Looked::Verified(report))
}

/// Ends the pass if every container that was there at its begin was verified since.
fn end_pass(volume: &Volume, pass: Pass) -> Result<()> {
    let missing = |id: ContainerId, time: u64| id < pass.horizon && time < pass.begun_micros;
    let mut complete = true;
    volume.store_for_check().each_verified(|id, _, last| {
        complete &= !missing(id, last.map_or(0, |last| last.time_micros));
    })?;
    if complete {
        volume.record_pass(Pass { ended_micros: volume.now_micros(), ..pass })?;
    }
    Ok(())
}

/// Progress for people, about once a second. A client that is gone is noticed by it, too.
struct Talk<'a> {
    progress: &'a mut dyn FnMut(&str),
    total_bytes: u64,
    last: Option<std::time::Instant>,
}

impl Talk<'_> {
    fn say(&mut self, done: u64, damaged: u64) {
        const MIB: u64 = 1024 * 1024;
        let now = std::time::Instant::now();
        if self.last.is_some_and(|last| now - last < Duration::from_secs(1)) {
            return;
        }
        self.last = Some(now);
        (self.progress)(&format!(
            "Verified {} of {} MiB, {damaged} damaged chunks",
            done / MIB,
            self.total_bytes.div_ceil(MIB)
        ));
    }
}
