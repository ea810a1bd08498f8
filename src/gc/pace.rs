//! Others first: when gc rests, how fast it copies, and when it ends early.

use std::time::{Duration, Instant};

use super::stopped;
use crate::error::Result;
use crate::volume::GcTicket;

/// While others work, gc rests so many times as long as it worked: a fifth of a core is its share,
/// and of ten calls that meet it on two cores, eight do not.
const REST: u32 = 4;
/// Shortest rest: below it a sleep costs more than it gives.
const REST_MIN: Duration = Duration::from_micros(500);
/// Longest rest: one slow piece, a commit say, must not stop gc for seconds.
const REST_MAX: Duration = Duration::from_millis(20);
/// Raw bytes that may wait for the workers when gc adds more: what a commit finds there delays it.
const QUEUE_BYTES: usize = 256 * 1024;
/// Longest wait for that queue: against writers that never pause, gc still gets on.
const QUEUE_WAIT: Duration = Duration::from_millis(50);
/// Time whose bytes may be copied at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// Paces one run.
pub(super) struct Pace<'a> {
    ticket: &'a GcTicket<'a>,
    /// Calls of others when it was last looked.
    seen: u64,
    /// Since when gc works.
    since: Instant,
    bytes_per_sec: u64,
    /// When the rate allows the next byte.
    next_copy: Instant,
}

impl<'a> Pace<'a> {
    /// A rate of 0 is no bound.
    pub(super) fn new(ticket: &'a GcTicket<'a>, bytes_per_sec: u64) -> Self {
        let now = Instant::now();
        let seen = ticket.foreground();
        Self { ticket, seen, since: now, bytes_per_sec, next_copy: now }
    }

    /// Between two pieces of work.
    ///
    /// # Errors
    /// `Busy` when the run should end.
    pub(super) fn breathe(&mut self) -> Result<()> {
        let calls = self.ticket.foreground();
        let is_stopped = if calls == self.seen {
            self.ticket.is_stopped()
        } else {
            self.seen = calls;
            self.ticket.sleep((self.since.elapsed() * REST).clamp(REST_MIN, REST_MAX))
        };
        self.since = Instant::now();
        if is_stopped { Err(stopped()) } else { Ok(()) }
    }

    /// Before `bytes` are copied.
    ///
    /// # Errors
    /// `Busy` when the run should end.
    pub(super) fn copy(&mut self, bytes: u64) -> Result<()> {
        self.breathe()?;
        let queue_deadline = Instant::now() + QUEUE_WAIT;
        while self.ticket.queued_bytes() > QUEUE_BYTES && Instant::now() < queue_deadline {
            self.rest(REST_MIN)?;
        }
        if self.bytes_per_sec > 0 {
            let now = Instant::now();
            let wait = self.next_copy.saturating_duration_since(now);
            if wait > BURST {
                self.rest(wait.saturating_sub(BURST))?;
            }
            let takes = Duration::from_secs_f64(to_secs(bytes, self.bytes_per_sec));
            self.next_copy = self.next_copy.max(now) + takes;
        }
        self.since = Instant::now();
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        if self.ticket.sleep(time) { Err(stopped()) } else { Ok(()) }
    }
}

#[allow(clippy::cast_precision_loss)] // a time to sleep
fn to_secs(bytes: u64, per_sec: u64) -> f64 {
    bytes as f64 / per_sec as f64
}
