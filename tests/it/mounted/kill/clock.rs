//! What the threads of a round share: the order of events, what was promised, when it is over.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::testkit::splitmix64;

/// A moment in the order of events; no two events share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

#[derive(Default)]
pub struct Clock {
    ticks: AtomicU64,
    /// Everything that was done before this tick must survive.
    promised: AtomicU64,
    /// Calls that succeeded.
    calls: AtomicU64,
    /// Nobody should begin anything.
    over: AtomicBool,
    /// The process is being killed: calls may fail.
    killed: AtomicBool,
}

impl Clock {
    pub fn tick(&self) -> Tick {
        Tick(self.ticks.fetch_add(1, SeqCst) + 1)
    }

    pub fn promise(&self, begun: Tick) {
        self.promised.fetch_max(begun.0, SeqCst);
    }

    pub fn promised(&self) -> Tick {
        Tick(self.promised.load(SeqCst))
    }

    pub fn count(&self) {
        self.calls.fetch_add(1, SeqCst);
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    pub fn end(&self) {
        self.over.store(true, SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// To be called before the signal is sent.
    pub fn killing(&self) {
        self.killed.store(true, SeqCst);
        self.end();
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(SeqCst)
    }

    /// A call may fail only because the process was killed.
    pub fn accept<T>(&self, outcome: &io::Result<T>, what: impl FnOnce() -> String) {
        if let Err(e) = outcome
            && !self.is_killed()
        {
            self.end();
            panic!("{} failed although nobody was killed: {e}", what());
        }
    }
}

/// SplitMix64: numbers that a seed brings back.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        splitmix64(&mut self.0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}
