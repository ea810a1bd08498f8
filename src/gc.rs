//! Garbage collection: mark what extents refer to, free what nobody refers to.
//!
//! A run prunes history that no snapshot shows, marks the chunks of all extents, adds up what is
//! alive in each container, frees containers without live chunks, and repacks those that are mostly
//! dead, most dead first: their live chunks are stored anew, under their numbers, and the container
//! is freed then. Why nothing alive can die, whatever writes, finds duplicates, takes and deletes
//! snapshots meanwhile, is said in `volume/gate.rs`. After a crash, or when it is stopped at any
//! point, the next run starts anew: rows go in one commit and files only after it.
//!
//! Others come first (`pace`): work is done in pieces of about a millisecond; while calls of the
//! file system are answered, each piece is followed by a rest; copying keeps to a rate and to a
//! short queue. Walks hold no lock and pin no old state of the database. The gate is closed once
//! per batch of containers, for a look at some thousand bits.
//!
//! Memory: one bit per chunk number and [`plan::ENTRY_BYTES`] per container, and some MiB for the
//! batch at hand. Nothing grows with files, extents or snapshots.

mod auto;
mod pace;
mod plan;
mod sweep;

use std::time::Instant;

use log::info;
use serde::{Deserialize, Serialize};

pub use auto::Keeper;

use crate::env::Point;
use crate::error::{Error, Result};
use crate::volume::{
    Amount, ChunkCount, GcOutcome, GcTicket, LookOnly, MarkResult, Marking, Pruned, RunResult,
    Volume,
};
use pace::Pace;
use plan::Plan;

/// Rows looked at between two chances for others: about a millisecond.
const PIECE_ROWS: usize = 1024;

/// How to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// Repack containers of which at least this share is dead, in percent; the configuration's if
    /// not given. Below 50 a run may copy more than it frees.
    pub min_dead_percent: Option<u8>,
    /// It begins by itself, and makes room for others.
    pub automatic: bool,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// True if nothing was done: this is what a run would do.
    pub dry_run: bool,
    /// Chunks that are in use.
    pub chunks_marked: u64,
    /// Chunk numbers given out before the run.
    pub chunks_total: u64,
    /// Chunks found that nothing refers to; their containers may be freed now or later.
    pub unused: Amount,
    /// Containers freed.
    pub containers_freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Of the containers freed: those with live chunks, which were stored anew.
    pub containers_repacked: u64,
    /// Raw bytes of these chunks.
    pub repacked_bytes: u64,
    /// Old versions dropped that no snapshot shows.
    pub history_pruned: u64,
    /// Notes of changes dropped that no snapshot asks for.
    pub changes_pruned: u64,
    /// Raw bytes of dead chunks that lie in containers with live ones.
    pub dead_bytes_left: u64,
    /// Milliseconds that marking took, rests included.
    pub mark_millis: u64,
    /// Milliseconds of the whole run.
    pub millis: u64,
    /// The longest time for which all changes had to wait for the freeing of a batch.
    pub longest_hold_micros: u64,
}

/// One run of gc as the configuration says.
///
/// # Errors
/// As [`run_with`].
pub fn run(volume: &Volume) -> Result<GcReport> {
    run_with(volume, GcOptions::default(), &mut |_| ())
}

/// One run of gc. `progress` takes sentences for somebody who waits.
///
/// # Errors
/// `Busy` if gc or check is running, or when the run was stopped; `Poisoned`, `ReadOnly`, `Kv`,
/// `Corrupt`, those of the shards.
pub fn run_with(
    volume: &Volume,
    options: GcOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<GcReport> {
    let alone = volume.maintenance()?;
    let ticket = volume.gc_begins(options.automatic);
    let mut run = Run {
        volume,
        options,
        min_dead: options.min_dead_percent.unwrap_or(volume.config().gc.min_dead_percent),
        pace: Pace::new(&ticket, volume.config().gc.repack_bytes_per_sec),
        ticket: &ticket,
        progress,
        report: GcReport { dry_run: options.dry_run, ..GcReport::default() },
    };
    let begun = Instant::now();
    let outcome = run.work(alone);
    let mut report = run.report;
    report.millis = millis(begun);
    let result = RunResult {
        outcome: match &outcome {
            Ok(()) => GcOutcome::Done,
            Err(_) if ticket.is_stopped() => GcOutcome::Stopped,
            Err(_) => GcOutcome::Failed,
        },
        containers_freed: report.containers_freed,
        freed_bytes: report.freed_bytes,
        repacked_bytes: report.repacked_bytes,
        ..RunResult::default()
    };
    if options.dry_run {
        return outcome.map(|()| report);
    }
    let ended = ticket.ended(result);
    outcome?;
    ended?;
    info!(
        "Gc done marked={} of={} mark_ms={} longest_hold_us={} ms={}",
        report.chunks_marked,
        report.chunks_total,
        report.mark_millis,
        report.longest_hold_micros,
        report.millis
    );
    Ok(report)
}

/// Drops history that no snapshot shows, without looking for dead chunks.
///
/// # Errors
/// As [`run_with`].
fn prune(volume: &Volume) -> Result<()> {
    let _alone = volume.maintenance()?;
    let ticket = volume.gc_begins(true);
    let mut pace = Pace::new(&ticket, 0);
    let (_, deleted) = ticket.hint();
    prune_all(volume, &ticket, &mut pace, false, &mut |_| ())?;
    ticket.pruned(deleted);
    volume.commit()
}

fn prune_all(
    volume: &Volume,
    ticket: &GcTicket<'_>,
    pace: &mut Pace<'_>,
    look_only: bool,
    each: &mut dyn FnMut(&Pruned),
) -> Result<()> {
    let (mut resume, mut looked) = (None, 0);
    loop {
        let piece = volume.prune_piece(resume, PIECE_ROWS, look_only)?;
        each(&piece);
        looked += PIECE_ROWS as u64;
        ticket.progress("pruning", looked, 0);
        pace.breathe()?;
        resume = piece.resume;
        if resume.is_none() {
            return Ok(());
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A run under way.
struct Run<'a> {
    volume: &'a Volume,
    options: GcOptions,
    min_dead: u8,
    ticket: &'a GcTicket<'a>,
    pace: Pace<'a>,
    progress: &'a mut dyn FnMut(&str),
    report: GcReport,
}

impl Run<'_> {
    fn work(&mut self, alone: parking_lot::MutexGuard<'_, ()>) -> Result<()> {
        let dry_run = self.options.dry_run;
        if !dry_run {
            self.volume.finish_removals()?;
        }
        // What just ended lies in memory yet; pruning looks at the database.
        self.volume.commit()?;
        let (_, deleted) = self.ticket.hint();
        self.prune()?;
        // With what pruning added to it, and the marking is going to see.
        let hint = (self.ticket.hint().0, deleted);
        let volume = self.volume;
        volume.env().hit(Point::GcPruned)?;
        let marking = volume.marking(alone, dry_run.then_some(LookOnly))?;
        self.mark(&marking)?;
        volume.env().hit(Point::GcSweep)?;
        let plan = self.plan(&marking)?;
        let found = MarkResult {
            chunks_marked: self.report.chunks_marked,
            chunks_total: self.report.chunks_total,
            reclaimable_bytes: plan.freed_bytes(),
            repack_bytes: plan.repacked_bytes(),
            dead_bytes: plan.dead_bytes,
            ..MarkResult::default()
        };
        self.ticket.marked(found, hint);
        let dead_bytes = plan.dead_bytes;
        if dry_run {
            self.report.containers_freed += (plan.dead.len() + plan.repack.len()) as u64;
            self.report.containers_repacked = plan.repack.len() as u64;
            self.report.freed_bytes += plan.freed_bytes();
            self.report.repacked_bytes = plan.repacked_bytes();
            self.report.dead_bytes_left = dead_bytes - plan.dead_in_victims();
            return Ok(());
        }
        let swept = self.sweep(&marking, plan);
        self.report.longest_hold_micros =
            u64::try_from(marking.longest_hold().as_micros()).unwrap_or(u64::MAX);
        let left = swept?;
        self.report.dead_bytes_left = dead_bytes - left.dead_freed;
        volume.env().hit(Point::GcCommit)?;
        self.ticket.left(left.reclaimable, left.repack, self.report.dead_bytes_left);
        Ok(())
    }

    fn prune(&mut self) -> Result<()> {
        (self.progress)("Pruning history that no snapshot shows");
        let report = &mut self.report;
        let dry_run = self.options.dry_run;
        prune_all(self.volume, self.ticket, &mut self.pace, dry_run, &mut |piece| {
            report.history_pruned += piece.history;
            report.changes_pruned += piece.changes;
        })
    }

    fn mark(&mut self, marking: &Marking<'_>) -> Result<()> {
        (self.progress)("Marking the chunks in use");
        let begun = Instant::now();
        let (mut resume, mut looked) = (None, 0);
        loop {
            resume = marking.piece(resume, PIECE_ROWS)?;
            looked += PIECE_ROWS as u64;
            self.ticket.progress("marking", looked, 0);
            (self.progress)(&format!("Marking the chunks in use, {looked} rows read"));
            if resume.is_none() {
                break;
            }
            self.pace.breathe()?;
        }
        self.report.chunks_marked = marking.marks().count();
        self.report.chunks_total = marking.marks().horizon().0;
        self.report.mark_millis = millis(begun);
        Ok(())
    }

    /// Adds up what is alive where, and chooses what is worth freeing.
    fn plan(&mut self, marking: &Marking<'_>) -> Result<Plan> {
        (self.progress)("Adding up what is in use in each container");
        let mut tally = plan::Tally::of(marking)?;
        let (mut count, total) = (ChunkCount::default(), self.report.chunks_total);
        while marking.count_piece(&mut count, PIECE_ROWS, |id, raw| tally.add(id, raw))? {
            let done = count.next().0.min(total);
            self.ticket.progress("counting", done, total);
            (self.progress)(&format!("Counting chunk {done} of {total}"));
            self.pace.breathe()?;
        }
        marking.check_places(&count)?;
        self.report.unused = count.unused;
        let strays = marking.free_strays()?;
        self.report.containers_freed += strays.freed;
        self.report.freed_bytes += strays.freed_bytes;
        let open = tally.mostly_dead_open(self.min_dead);
        if !open.is_empty() {
            if self.options.dry_run {
                tally.assume_closed(&open, &marking.if_closed()?);
            } else {
                marking.close(&open)?;
                tally.refresh(&open, marking)?;
            }
        }
        Ok(tally.plan(self.min_dead))
    }
}

/// What is said when a run was stopped.
fn stopped() -> Error {
    Error::Busy {
        what: "Gc was stopped before its end, by an unmount or by another command; what it freed \
               stays free, and the next run does the rest"
            .to_owned(),
    }
}
