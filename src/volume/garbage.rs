//! What is known of unused space without looking for it, and what gc does about it.
//!
//! The hint counts raw bytes whose last reference in the live tree, or in the history that was
//! pruned, went away. It is no more than a hint: other files may refer to the same chunks. It is
//! kept over remounts in the row `garbage`, with what the last marking and the last run found.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use log::info;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::Volume;
use crate::cursor::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::types::Timestamp;

/// Row of `super`.
pub(super) const GARBAGE_ROW: &[u8] = b"garbage";
/// Numbers in it.
const FIELDS: usize = 13;
/// How long a command waits until a run that began by itself has made room for it: a piece of work
/// and a commit.
const PREEMPT_WAIT: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcOutcome {
    /// There was none yet.
    #[default]
    Never,
    /// It came to its end.
    Done,
    /// It was stopped: by an unmount, a command, or somebody who had started it.
    Stopped,
    /// It failed; the log says why.
    Failed,
}

/// What the last marking found. Exact at its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkResult {
    /// When, in seconds since 1970; 0 for never.
    pub at_secs: u64,
    /// Chunks in use.
    pub chunks_marked: u64,
    /// Chunk numbers given out.
    pub chunks_total: u64,
    /// Bytes of containers that a run would free.
    pub reclaimable_bytes: u64,
    /// Raw bytes that it would store anew for that.
    pub repack_bytes: u64,
    /// Raw bytes of all unused chunks.
    pub dead_bytes: u64,
}

/// What the last run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// When it ended, in seconds since 1970; 0 for never.
    pub at_secs: u64,
    /// How.
    pub outcome: GcOutcome,
    /// Containers it freed.
    pub containers_freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Raw bytes it stored anew.
    pub repacked_bytes: u64,
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcProgress {
    /// What it does: "pruning", "marking", "counting", "freeing", "repacking".
    pub phase: String,
    /// Rows, chunks or containers it has done of that.
    pub done: u64,
    /// Of how many; 0 if that is not known.
    pub of: u64,
    /// It began by itself.
    pub automatic: bool,
    /// Bytes of containers it is about to free.
    pub reclaiming_bytes: u64,
}

/// What is known of unused space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcStatus {
    /// Raw bytes that lost a reference since the last marking: an upper bound of what a run would
    /// find beyond [`MarkResult::dead_bytes`].
    pub dropped_bytes: u64,
    /// Snapshots deleted whose history is not pruned yet.
    pub snapshots_deleted: u64,
    /// The last marking.
    pub mark: MarkResult,
    /// The last run.
    pub last: RunResult,
    /// The run in progress.
    pub running: Option<GcProgress>,
}

#[derive(Debug, Default)]
struct Known {
    mark: MarkResult,
    last: RunResult,
    running: Option<GcProgress>,
}

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    dropped: AtomicU64,
    snapshots_deleted: AtomicU64,
    /// A writer met a full volume since the last marking.
    refused: AtomicBool,
    known: Mutex<Known>,
    /// Rises when those who run should end.
    stop: Mutex<u64>,
    /// With `stop`: somebody should look.
    woken: Condvar,
    /// Calls of those who gc has to let pass.
    foreground: AtomicU64,
}

/// Numbers that decide whether gc begins by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageFacts {
    /// See [`GcStatus::dropped_bytes`].
    pub dropped_bytes: u64,
    /// See [`GcStatus::snapshots_deleted`].
    pub snapshots_deleted: u64,
    /// Bytes of all containers.
    pub stored_bytes: u64,
    /// Little room is left, or a writer was refused.
    pub space_is_low: bool,
}

impl Garbage {
    /// As the row says; what does not read is forgotten: these are hints.
    pub(super) fn load(row: Option<&[u8]>) -> Self {
        let this = Self::default();
        let Some(row) = row else { return this };
        let mut reader = Reader::new(row);
        let fields: Option<Vec<u64>> = (0..FIELDS).map(|_| reader.varint()).collect();
        let Some(fields) = fields.filter(|_| reader.is_empty()) else { return this };
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap_or(0);
        this.dropped.store(next(), Relaxed);
        this.snapshots_deleted.store(next(), Relaxed);
        {
            let mut known = this.known.lock();
            known.mark = MarkResult {
                at_secs: next(),
                chunks_marked: next(),
                chunks_total: next(),
                reclaimable_bytes: next(),
                repack_bytes: next(),
                dead_bytes: next(),
            };
            known.last = RunResult {
                at_secs: next(),
                outcome: match next() {
                    1 => GcOutcome::Done,
                    2 => GcOutcome::Stopped,
                    3 => GcOutcome::Failed,
                    _ => GcOutcome::Never,
                },
                containers_freed: next(),
                freed_bytes: next(),
                repacked_bytes: next(),
            };
        }
        this
    }

    /// The row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Known { mark, last, .. } = &*self.known.lock();
        let fields: [u64; FIELDS] = [
            self.dropped.load(Relaxed),
            self.snapshots_deleted.load(Relaxed),
            mark.at_secs,
            mark.chunks_marked,
            mark.chunks_total,
            mark.reclaimable_bytes,
            mark.repack_bytes,
            mark.dead_bytes,
            last.at_secs,
            last.outcome as u64,
            last.containers_freed,
            last.freed_bytes,
            last.repacked_bytes,
        ];
        let mut out = Vec::with_capacity(64);
        fields.iter().for_each(|field| put_varint(&mut out, *field));
        out
    }

    /// Raw bytes lost a reference.
    pub(super) fn note_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Relaxed);
    }

    pub(super) fn note_snapshot_deleted(&self) {
        self.snapshots_deleted.fetch_add(1, Relaxed);
    }

    /// A writer was refused: gc should not wait for its time.
    pub(super) fn note_refused(&self) {
        if !self.refused.swap(true, Relaxed) {
            self.woken.notify_all();
        }
    }

    pub(super) fn note_foreground(&self) {
        self.foreground.fetch_add(1, Relaxed);
    }

    pub(super) fn foreground(&self) -> u64 {
        self.foreground.load(Relaxed)
    }
}

/// A run that others can see and stop. Dropping it ends that.
pub struct GcTicket<'a> {
    volume: &'a Volume,
    stop_at_begin: u64,
}

impl Volume {
    /// Keeps gc and other checks out while the result lives. A gc that began by itself is stopped
    /// for it.
    ///
    /// # Errors
    /// `Busy` if one of them is running.
    pub fn maintenance(&self) -> Result<MutexGuard<'_, ()>> {
        if let Some(alone) = self.upkeep.maintenance.try_lock() {
            return Ok(alone);
        }
        let automatic = self.garbage.known.lock().running.as_ref().is_some_and(|r| r.automatic);
        let alone = if automatic {
            self.stop_gc();
            self.upkeep.maintenance.try_lock_for(PREEMPT_WAIT)
        } else {
            None
        };
        alone.ok_or_else(|| Error::Busy {
            what: "Another gc or check of this volume is running; wait until it is done".to_owned(),
        })
    }

    /// Ends a run of gc that is under way, after its piece of work; what it freed stays free.
    pub fn stop_gc(&self) {
        *self.garbage.stop.lock() += 1;
        self.garbage.woken.notify_all();
    }

    /// Registers a run.
    #[must_use]
    pub fn gc_begins(&self, automatic: bool) -> GcTicket<'_> {
        let stop_at_begin = *self.garbage.stop.lock();
        let progress = GcProgress { automatic, ..GcProgress::default() };
        self.garbage.known.lock().running = Some(progress);
        GcTicket { volume: self, stop_at_begin }
    }

    /// What is known of unused space.
    #[must_use]
    pub fn gc_status(&self) -> GcStatus {
        let known = self.garbage.known.lock();
        GcStatus {
            dropped_bytes: self.garbage.dropped.load(Relaxed),
            snapshots_deleted: self.garbage.snapshots_deleted.load(Relaxed),
            mark: known.mark,
            last: known.last,
            running: known.running.clone(),
        }
    }

    /// What decides whether gc begins by itself. Reads the container table if anything was deleted.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn garbage_facts(&self) -> Result<GarbageFacts> {
        let mut facts = GarbageFacts {
            dropped_bytes: self.garbage.dropped.load(Relaxed),
            snapshots_deleted: self.garbage.snapshots_deleted.load(Relaxed),
            ..GarbageFacts::default()
        };
        if facts.dropped_bytes > 0 || facts.snapshots_deleted > 0 {
            self.store.each_container(|_, row| {
                facts.stored_bytes += row.bytes;
                Ok(())
            })?;
            facts.space_is_low = self.garbage.refused.load(Relaxed) || self.space_is_low();
        }
        Ok(facts)
    }

    /// Sleeps until somebody should look for garbage, at most so long; false if that was because of
    /// [`Volume::stop_gc`] or the end of the volume.
    pub fn wait_for_garbage(&self, at_most: Duration) -> bool {
        let mut stop = self.garbage.stop.lock();
        let before = *stop;
        if !self.is_stopping() {
            self.garbage.woken.wait_for(&mut stop, at_most);
        }
        *stop == before && !self.is_stopping()
    }

    /// Lets those who wait for garbage look whether the volume ends.
    pub(super) fn wake_gc(&self) {
        self.garbage.woken.notify_all();
    }
}

impl GcTicket<'_> {
    /// True when the run should end now.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.volume.garbage.stop.lock() != self.stop_at_begin || self.volume.is_stopping()
    }

    /// Sleeps, unless the run should end; true if it should.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let mut stop = self.volume.garbage.stop.lock();
        if *stop == self.stop_at_begin && !self.volume.is_stopping() {
            self.volume.garbage.woken.wait_for(&mut stop, time);
        }
        drop(stop);
        self.is_stopped()
    }

    /// Calls answered so far by those who come first.
    #[must_use]
    pub fn foreground(&self) -> u64 {
        let requests = self.volume.stats.activity.requests.load(Relaxed);
        self.volume.garbage.foreground().wrapping_add(requests)
    }

    /// Raw bytes on their way to the shards, everybody's.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.volume.store.queued_bytes()
    }

    /// Tells how far the run has come.
    pub fn progress(&self, phase: &str, done: u64, of: u64) {
        if let Some(running) = &mut self.volume.garbage.known.lock().running {
            if running.phase != phase {
                phase.clone_into(&mut running.phase);
            }
            (running.done, running.of) = (done, of);
        }
    }

    /// Says what is about to be freed.
    pub fn reclaiming(&self, bytes: u64) {
        if let Some(running) = &mut self.volume.garbage.known.lock().running {
            running.reclaiming_bytes = bytes;
        }
    }

    /// The hint as it is before a marking, for [`GcTicket::marked`].
    #[must_use]
    pub fn hint(&self) -> (u64, u64) {
        let garbage = &self.volume.garbage;
        (garbage.dropped.load(Relaxed), garbage.snapshots_deleted.load(Relaxed))
    }

    /// Keeps what a marking found; the hint it began with is used up.
    pub fn marked(&self, found: MarkResult, (dropped, deleted): (u64, u64)) {
        let garbage = &self.volume.garbage;
        garbage.known.lock().mark = MarkResult { at_secs: self.now().at_secs, ..found };
        garbage.refused.store(false, Relaxed);
        garbage.dropped.fetch_sub(dropped, Relaxed);
        garbage.snapshots_deleted.fetch_sub(deleted, Relaxed);
    }

    /// The history that only these deleted snapshots showed is pruned.
    pub fn pruned(&self, snapshots_deleted: u64) {
        self.volume.garbage.snapshots_deleted.fetch_sub(snapshots_deleted, Relaxed);
    }

    /// What is left after a run that began with that marking.
    pub fn left(&self, reclaimable_bytes: u64, repack_bytes: u64, dead_bytes: u64) {
        let mark = &mut self.volume.garbage.known.lock().mark;
        *mark = MarkResult { reclaimable_bytes, repack_bytes, dead_bytes, ..*mark };
    }

    fn now(&self) -> RunResult {
        let Timestamp { secs, .. } = self.volume.env.now();
        RunResult { at_secs: u64::try_from(secs).unwrap_or(0), ..RunResult::default() }
    }

    /// Keeps how the run ended; durable with the next commit, which it asks for if it may.
    ///
    /// # Errors
    /// What the commit says.
    pub fn ended(self, result: RunResult) -> Result<()> {
        let volume = self.volume;
        volume.garbage.known.lock().last = RunResult { at_secs: self.now().at_secs, ..result };
        info!(
            "Gc ended outcome={:?} containers={} freed_bytes={} repacked_bytes={}",
            result.outcome, result.containers_freed, result.freed_bytes, result.repacked_bytes
        );
        if volume.check_writable().is_err() {
            return Ok(());
        }
        {
            let _gate = volume.gate.read();
            volume.stage(|edit| {
                edit.super_put(GARBAGE_ROW, &volume.garbage.encode());
                Ok(())
            })?;
        }
        volume.commit()
    }
}

impl Drop for GcTicket<'_> {
    fn drop(&mut self) {
        self.volume.garbage.known.lock().running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_has_golden_bytes_and_reads_back() {
        let garbage = Garbage::default();
        garbage.note_dropped(300);
        garbage.note_snapshot_deleted();
        {
            let mut known = garbage.known.lock();
            known.mark = MarkResult {
                at_secs: 2,
                chunks_marked: 3,
                chunks_total: 4,
                reclaimable_bytes: 5,
                repack_bytes: 6,
                dead_bytes: 7,
            };
            known.last = RunResult {
                at_secs: 8,
                outcome: GcOutcome::Stopped,
                containers_freed: 9,
                freed_bytes: 10,
                repacked_bytes: 11,
            };
        }
        let row = garbage.encode();
        assert_eq!(row, [0xac, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9, 10, 11]);
        assert_eq!(Garbage::load(Some(&row)).encode(), row);
        assert_eq!(Garbage::load(Some(&row[..13])).encode(), [0; FIELDS]);
        assert_eq!(Garbage::load(Some(&[row, vec![0]].concat())).encode(), [0; FIELDS]);
    }
}
