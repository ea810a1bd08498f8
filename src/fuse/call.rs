//! What happens around every request: counting, logging, and no way out for a panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fuser::{Errno, INodeNo};
use log::{debug, error, warn};
use parking_lot::Mutex;

use super::adapter::Adapter;
use super::translate::node_of;
use crate::error::{Error, Result};
use crate::stats::Stats;
use crate::vfs::{Node, Vfs};

/// Faults logged per [`WINDOW`]: a dead disk fails every request, and a full log helps nobody.
const FAULTS_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Lets a bounded number of messages through.
#[derive(Debug, Default)]
pub(super) struct FaultLog {
    window: Mutex<Option<(Instant, u32)>>,
}

impl FaultLog {
    /// `None` to stay silent, else how many messages were dropped before this one.
    fn admit(&self, now: Instant) -> Option<u32> {
        let mut window = self.window.lock();
        let (start, count) = window.unwrap_or((now, 0));
        if now.duration_since(start) >= WINDOW {
            *window = Some((now, 1));
            return Some(count.saturating_sub(FAULTS_PER_WINDOW));
        }
        *window = Some((start, count.saturating_add(1)));
        (count < FAULTS_PER_WINDOW).then_some(0)
    }
}

impl Adapter {
    /// Runs a request about a node.
    pub(super) fn on<T>(
        &self,
        op: &'static str,
        number: INodeNo,
        request: impl FnOnce(&Vfs, Node) -> Result<T>,
    ) -> Result<T, Errno> {
        self.ease();
        self.pulse.beat();
        run(op, number, (self.vfs.stats(), &self.faults), || request(&self.vfs, node_of(number)?))
    }

    /// Runs a request about a node that a path led to, and nothing but the node. If it is gone, the
    /// name leads elsewhere by now, as when a file was renamed over it: told that, and not that
    /// there is none, the kernel looks the name up again.
    pub(super) fn about<T>(
        &self,
        op: &'static str,
        number: INodeNo,
        request: impl FnOnce(&Vfs, Node) -> Result<T>,
    ) -> Result<T, Errno> {
        self.on(op, number, |vfs, node| match request(vfs, node) {
            Err(Error::NotFound { .. }) => Err(Error::Stale),
            done => done,
        })
    }
}

/// Runs one request and says what to answer.
pub(super) fn run<T>(
    op: &'static str,
    node: INodeNo,
    (stats, faults): (&Stats, &FaultLog),
    request: impl FnOnce() -> Result<T>,
) -> Result<T, Errno> {
    stats.activity.requests.fetch_add(1, Relaxed);
    // A panic that left a lock-free invariant broken would be a bug twice over; locks here do not
    // poison, and the next request finds the state the failed one left.
    match catch_unwind(AssertUnwindSafe(request)) {
        Ok(done) => settle(op, node, (stats, faults), done),
        Err(panic) => {
            stats.activity.faults.fetch_add(1, Relaxed);
            error!("Request panicked op={op} node={node} cause={}", text_of(&*panic));
            Err(Errno::EIO)
        }
    }
}

/// Counts and logs how a request ended, and says what to answer.
pub(super) fn settle<T>(
    op: &'static str,
    node: INodeNo,
    (stats, faults): (&Stats, &FaultLog),
    done: Result<T>,
) -> Result<T, Errno> {
    let failure = match done {
        Ok(value) => return Ok(value),
        Err(e) => e,
    };
    if failure.is_fault() {
        stats.activity.faults.fetch_add(1, Relaxed);
        if let Some(dropped) = faults.admit(Instant::now()) {
            log_fault(op, node, &failure, dropped);
        }
    } else {
        debug!("Request refused op={op} node={node} cause={failure}");
    }
    Err(Errno::from_i32(failure.errno()))
}

fn log_fault(op: &str, node: INodeNo, failure: &Error, dropped: u32) {
    match failure {
        Error::Corrupt { .. } => {
            error!("Request failed op={op} node={node} cause={failure} unlogged={dropped}");
        }
        _ => warn!("Request failed op={op} node={node} cause={failure} unlogged={dropped}"),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(stats: &Stats) -> (u64, u64) {
        let now = stats.activity.copy();
        (now.requests, now.faults)
    }

    #[test]
    fn a_panic_becomes_eio_and_a_fault() {
        let (stats, faults) = (Stats::default(), FaultLog::default());
        let answer = run("test", INodeNo(1), (&stats, &faults), || -> Result<()> {
            panic!("on purpose");
        });
        assert_eq!(answer.unwrap_err().code(), Errno::EIO.code());
        assert_eq!(counts(&stats), (1, 1));
    }

    #[test]
    fn refusals_are_no_faults_and_damage_is() {
        let (stats, faults) = (Stats::default(), FaultLog::default());
        let around = (&stats, &faults);
        let answer = run("test", INodeNo(1), around, || Err::<(), _>(Error::NotEmpty));
        assert_eq!(answer.unwrap_err().code(), Errno::ENOTEMPTY.code());
        assert_eq!(counts(&stats), (1, 0));
        let damage = || Err::<(), _>(Error::corrupt("container 7", "checksum"));
        assert_eq!(run("test", INodeNo(1), around, damage).unwrap_err().code(), Errno::EIO.code());
        assert_eq!(counts(&stats), (2, 1));
    }

    #[test]
    fn a_flood_of_faults_is_cut_and_counted() {
        let log = FaultLog::default();
        let start = Instant::now();
        let through = (0..100).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(through, FAULTS_PER_WINDOW as usize);
        assert_eq!(log.admit(start + WINDOW), Some(100 - FAULTS_PER_WINDOW));
        assert_eq!(log.admit(start + WINDOW), Some(0));
    }
}
