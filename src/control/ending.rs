//! The end of a mount, as those who wait for it see it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::Result;

/// How far the end has come: not begun; begun (no new requests); over, with its outcome.
#[derive(Default)]
pub struct Ending {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Default)]
enum Stage {
    #[default]
    Mounted,
    Begun,
    Over(Result<()>),
}

impl Ending {
    /// The session is over; the last commit comes next.
    pub fn begin(&self) {
        *self.stage.lock() = Stage::Begun;
        self.changed.notify_all();
    }

    /// True once [`Ending::begin`] was called.
    #[must_use]
    pub fn begun(&self) -> bool {
        !matches!(*self.stage.lock(), Stage::Mounted)
    }

    /// Waits for [`Ending::begin`]; false when it was not called in time.
    #[must_use]
    pub fn begins_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut stage = self.stage.lock();
        while matches!(*stage, Stage::Mounted) {
            if self.changed.wait_until(&mut stage, deadline).timed_out() {
                return !matches!(*stage, Stage::Mounted);
            }
        }
        true
    }

    /// The volume is closed, with this outcome.
    pub fn tell(&self, outcome: Result<()>) {
        *self.stage.lock() = Stage::Over(outcome);
        self.changed.notify_all();
    }

    /// Waits until the volume is closed.
    ///
    /// # Errors
    /// What the last commit failed with.
    pub fn wait(&self) -> Result<()> {
        let mut stage = self.stage.lock();
        loop {
            if let Stage::Over(outcome) = &*stage {
                return outcome.clone();
            }
            self.changed.wait(&mut stage);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::error::Error;

    #[test]
    fn waiters_hear_the_outcome() {
        let ending = Arc::new(Ending::default());
        assert!(!ending.begun() && !ending.begins_within(Duration::from_millis(1)));
        let waiter = thread::spawn({
            let ending = Arc::clone(&ending);
            move || (ending.begins_within(Duration::from_mins(1)), ending.wait())
        });
        ending.begin();
        ending.tell(Err(Error::Stale));
        let (begun, outcome) = waiter.join().unwrap();
        assert!(begun && matches!(outcome, Err(Error::Stale)));
        assert!(ending.begun() && ending.wait().is_err());
    }
}
