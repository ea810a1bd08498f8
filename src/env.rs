//! What a test wants to replace: the clock, randomness, and whether the next step works.
//!
//! Guarantees: no other room asks the system for the time of day or for random bytes. What a test
//! arms belongs to the environment it made, not to the process.

mod faults;
mod power;
mod random;

pub use faults::{Fault, Faults, Point};
pub use power::{Hold, Power};
pub use random::{Random, SeededRandom, SystemRandom};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::types::Timestamp;

/// Source of wall-clock time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is a broken clock; 0 keeps the order of events.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }
}

/// A clock that moves one microsecond per question, for tests.
#[derive(Debug, Default)]
pub struct StepClock(AtomicI64);

impl Clock for StepClock {
    fn now(&self) -> Timestamp {
        let micros = self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp {
            secs: 1_700_000_000 + micros / 1_000_000,
            nanos: u32::try_from(micros % 1_000_000).unwrap_or(0) * 1000,
        }
    }
}

/// The environment a volume runs in.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    faults: Faults,
}

impl Env {
    /// The real one.
    #[must_use]
    pub fn system() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// One with a clock of the caller's.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, random: Arc::new(SystemRandom), faults: Faults::default() }
    }

    /// The same with randomness of the caller's.
    #[must_use]
    pub fn with_random(self, random: Arc<dyn Random>) -> Self {
        Self { random, ..self }
    }

    /// The same with fault points that somebody watches.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// 16 random bytes, for names that must not collide.
    #[must_use]
    pub fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.random.fill(&mut id);
        id
    }

    /// The fault points.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Passes a fault point before a step that can fail.
    ///
    /// # Errors
    /// What a test has armed; never in production.
    pub fn hit(&self, point: Point) -> Result<()> {
        self.faults.hit(point)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
