//! What scrub needs of a volume: a turn, what was verified when, and a way to put bytes back.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use log::{Level, log};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::Volume;
use crate::error::{Error, Result};
use crate::ingest::codec_choice;
use crate::store::PutHint;
use crate::types::{ChunkNo, ContainerId, Extent, Ino, ShardId};

/// Name of the `super` row that holds the pass.
const PASS_ROW: &[u8] = b"scrub";
/// Damaged chunks are counted up to here: a status must not walk a lost disk.
const DAMAGED_COUNT_MAX: usize = 1_000_000;
/// Damaged chunks looked at in one step.
const DAMAGED_PIECE: usize = 10_000;
const MICROS_PER_DAY: u64 = 86_400_000_000;

/// What gc, check and scrub share.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Held by gc and check: they must not run at the same time.
    pub(super) maintenance: Mutex<()>,
    turn: ScrubTurn,
    told: ToldReads,
}

/// Failed reads that were told, so that the reader who tries again does not fill the log.
#[derive(Debug, Default)]
struct ToldReads(Mutex<HashSet<(Ino, ChunkNo)>>);

/// Failed reads remembered; then it begins anew.
const TOLD_MAX: usize = 1000;

/// Who scrubs: one at a time, and who asks for it goes before what runs in the background.
#[derive(Debug, Default)]
struct ScrubTurn {
    asked: AtomicBool,
    running: Mutex<()>,
}

/// The right to scrub.
pub struct Turn<'a> {
    of: &'a ScrubTurn,
    on_demand: bool,
    _alone: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// True if somebody asked for a scrub and the background has to make way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.on_demand && self.of.asked.load(Ordering::Acquire)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.on_demand {
            self.of.asked.store(false, Ordering::Release);
        }
    }
}

/// A full pass over the containers: begun, and ended when each was verified since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// When it began, in microseconds since 1970.
    pub begun_micros: u64,
    /// Containers from this number on were made later and do not count.
    pub horizon: ContainerId,
    /// When the last one ended; 0 if none did.
    pub ended_micros: u64,
}

/// What share of the stored bytes was verified when. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Containers there are.
    pub containers: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Of these, verified in the last 7 days.
    pub verified_7_days_bytes: u64,
    /// Verified in the last 30 days.
    pub verified_30_days_bytes: u64,
    /// Never verified.
    pub never_verified_bytes: u64,
    /// When what was verified longest ago was; none if nothing was.
    pub oldest_verified: Option<u64>,
    /// When the last full pass ended: since its begin every container was verified.
    pub last_pass_ended: Option<u64>,
    /// Chunks known to be damaged; not counted beyond a million.
    pub damaged_chunks: u64,
    /// Containers with damage that hits no chunk.
    pub flawed_containers: u64,
    /// Bytes a second in the background.
    pub rate_bytes: u64,
    /// Days after which a container is verified again; 0 if the background never does.
    pub interval_days: u32,
}

impl Volume {
    /// Logs that bytes of a file cannot be read: as an error the first time, then for debugging.
    pub(super) fn tell_unreadable(&self, ino: Ino, extent: &Extent, cause: &Error) {
        let mut told = self.upkeep.told.0.lock();
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        let level = if told.insert((ino, extent.chunk)) { Level::Error } else { Level::Debug };
        drop(told);
        log!(level, "Read failed ino={ino} offset={} cause={cause}", extent.offset);
    }

    /// The volume's clock, in microseconds since 1970.
    #[must_use]
    pub fn now_micros(&self) -> u64 {
        let now = self.env.now();
        let micros = now.secs.saturating_mul(1_000_000).saturating_add(i64::from(now.nanos / 1000));
        u64::try_from(micros).unwrap_or(0)
    }

    /// Takes the turn for a scrub that somebody asked for; what runs in the background makes way.
    ///
    /// # Errors
    /// `Busy` if another one runs; `Poisoned`, `ReadOnly`: findings could not be recorded.
    pub fn scrub_on_demand(&self) -> Result<Turn<'_>> {
        self.check_writable()?;
        let turn = &self.upkeep.turn;
        if turn.asked.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy {
                what: "Another scrub of this volume is running; wait until it is done".to_owned(),
            });
        }
        Ok(Turn { of: turn, on_demand: true, _alone: turn.running.lock() })
    }

    /// Takes the turn for the background, if nobody else has it or wants it and the volume takes
    /// changes.
    #[must_use]
    pub fn scrub_in_background(&self) -> Option<Turn<'_>> {
        let turn = &self.upkeep.turn;
        if self.check_writable().is_err() || turn.asked.load(Ordering::Acquire) {
            return None;
        }
        Some(Turn { of: turn, on_demand: false, _alone: turn.running.try_lock()? })
    }

    /// Requests answered since the volume was opened: who works in the background sees by it
    /// whether somebody else is at work.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.stats.activity.requests.load(Ordering::Relaxed)
    }

    /// The current pass; begun anew after the last one ended.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`, `Poisoned`.
    pub fn scrub_pass(&self) -> Result<Pass> {
        let pass = self.recorded_pass()?;
        if pass.begun_micros > pass.ended_micros {
            return Ok(pass);
        }
        let horizon = self.store.next_ids().container;
        let pass = Pass { begun_micros: self.now_micros(), horizon, ..pass };
        self.record_pass(pass)?;
        Ok(pass)
    }

    fn recorded_pass(&self) -> Result<Pass> {
        let numbers = self.meta.read().super_numbers(PASS_ROW)?;
        match numbers.as_deref() {
            None => Ok(Pass::default()),
            Some(&[begun_micros, horizon, ended_micros]) => {
                Ok(Pass { begun_micros, horizon: ContainerId(horizon), ended_micros })
            }
            Some(_) => Err(Error::corrupt("row scrub of table super", "it does not read")),
        }
    }

    /// Records the pass with the next commit.
    ///
    /// # Errors
    /// `Poisoned`, `ReadOnly`.
    pub fn record_pass(&self, pass: Pass) -> Result<()> {
        self.admit_removal()?;
        let _gate = self.gate.read();
        self.stage(|edit| {
            let numbers = [pass.begun_micros, pass.horizon.0, pass.ended_micros];
            edit.super_put_numbers(PASS_ROW, &numbers);
            Ok(())
        })
    }

    /// What was verified when.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn verified(&self) -> Result<Verified> {
        let now = self.now_micros();
        let since = |days: u64| now.saturating_sub(days * MICROS_PER_DAY);
        let (week, month) = (since(7), since(30));
        let mut all = Verified {
            rate_bytes: self.config.scrub.rate_bytes,
            interval_days: self.config.scrub.interval_days,
            ..Verified::default()
        };
        let mut oldest = None;
        self.store.each_verified(|_, row, last| {
            all.containers += 1;
            all.stored_bytes += row.bytes;
            let Some(last) = last else {
                all.never_verified_bytes += row.bytes;
                return;
            };
            // An open container has grown since.
            let bytes = last.bytes.min(row.bytes);
            all.never_verified_bytes += row.bytes - bytes;
            all.verified_7_days_bytes += if last.time_micros >= week { bytes } else { 0 };
            all.verified_30_days_bytes += if last.time_micros >= month { bytes } else { 0 };
            all.flawed_containers += u64::from(last.flaws > 0);
            oldest = Some(oldest.map_or(last.time_micros, |time: u64| time.min(last.time_micros)));
        })?;
        all.oldest_verified = oldest.map(|micros| micros / 1_000_000);
        let ended = self.recorded_pass()?.ended_micros;
        all.last_pass_ended = (ended > 0).then_some(ended / 1_000_000);
        self.each_damaged(DAMAGED_COUNT_MAX, &mut |_| {
            all.damaged_chunks += 1;
            Ok(())
        })?;
        Ok(all)
    }

    /// Calls `each` for up to `limit` chunks that are recorded as damaged, by number.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`, and what `each` says.
    pub fn each_damaged(
        &self,
        limit: usize,
        each: &mut dyn FnMut(ChunkNo) -> Result<()>,
    ) -> Result<()> {
        let (mut after, mut left) = (None, limit);
        loop {
            let some = self.store.damaged(after, left.min(DAMAGED_PIECE))?;
            let Some(last) = some.last() else { return Ok(()) };
            after = Some(*last);
            left -= some.len();
            some.into_iter().try_for_each(&mut *each)?;
        }
    }

    /// Stores the bytes of a damaged chunk anew, under its number. False if it does not need them,
    /// or they are not its bytes.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`, `ReadOnly`, `Kv`, `Corrupt`.
    pub fn restore_chunk(&self, chunk: ChunkNo, raw: Bytes) -> Result<bool> {
        let Some(row) = self.store.row_of(chunk)? else { return Ok(false) };
        self.admit_data(raw.len())?;
        let class = match self.store.container(row.container) {
            Ok(home) => home.class,
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(e) => return Err(e),
        };
        let spec = self.classifier.class(class);
        // Not where it was: that disk may be the one that fails.
        let shard = self.choose_shard(spec, Ino(chunk.0), raw.len())?;
        let (codec, group_bytes) = (codec_choice(spec.codec), spec.group_bytes);
        let hint = PutHint { class, shard, codec, group_bytes };
        self.store.restore(chunk, raw, hint)
    }

    /// The name of a shard.
    #[must_use]
    pub fn shard_name(&self, id: ShardId) -> String {
        self.shard_place(id)
    }
}
