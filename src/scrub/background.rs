//! Scrub in the background of a mount: slowly, and only what is due.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use parking_lot::{Condvar, Mutex};

use super::pace::{Budget, SLEEP_MAX};
use super::{Looked, candidates, end_pass, look};
use crate::error::{Error, Result};
use crate::volume::{Turn, Volume};

/// Rest between two looks at what is due: the look is a walk over all containers, a third of a
/// second for 10 TB, and verifications are days old.
const REST: Duration = Duration::from_mins(10);
/// Rest while somebody else scrubs, or the volume takes no changes.
const RETRY: Duration = Duration::from_secs(5);
/// Damage is named while a long round goes on, but not more often: it walks all extents.
const NAMING_REST: Duration = Duration::from_hours(1);
/// Files named in the log by one naming.
const LOGGED_MAX: usize = 100;
const MICROS_PER_DAY: u64 = 86_400_000_000;

/// The thread that scrubs a mounted volume; dropping it stops it, at once.
pub struct Background {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Sleeps; true when it is time to stop.
    fn sleep(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut stopped = self.stopped.lock();
        while !*stopped {
            if self.changed.wait_until(&mut stopped, deadline).timed_out() {
                break;
            }
        }
        *stopped
    }

    fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }
}

impl Background {
    /// Starts scrubbing if the configuration says so.
    ///
    /// # Errors
    /// `Io` when the thread cannot be started.
    pub fn start(volume: &Arc<Volume>) -> Result<Self> {
        let signal = Arc::new(Signal::default());
        let interval = u64::from(volume.config().scrub.interval_days) * MICROS_PER_DAY;
        if interval == 0 {
            return Ok(Self { signal, thread: None });
        }
        let mut work = Work {
            volume: Arc::clone(volume),
            signal: Arc::clone(&signal),
            budget: Budget::new(volume.config().scrub.rate_bytes),
            begun: Instant::now(),
            requests: volume.requests(),
            unnamed: false,
            named: None,
        };
        let thread = thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || work.run(interval))
            .map_err(|e| Error::io("start a thread for", volume.dir(), e))?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.signal.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("The scrub thread panicked");
        }
    }
}

struct Work {
    volume: Arc<Volume>,
    signal: Arc<Signal>,
    budget: Budget,
    begun: Instant,
    /// Requests answered when it was looked last.
    requests: u64,
    /// Damage was found and not yet named.
    unnamed: bool,
    named: Option<Instant>,
}

/// How a round ended.
enum Round {
    Done,
    /// Somebody else has the turn.
    Away,
    Stopped,
}

impl Work {
    fn run(&mut self, interval_micros: u64) {
        loop {
            let rest = match self.round(interval_micros) {
                Ok(Round::Done) => REST,
                Ok(Round::Away) => RETRY,
                Ok(Round::Stopped) => return,
                Err(error) => {
                    warn!("Scrub in the background failed cause={error}");
                    REST
                }
            };
            if self.signal.sleep(rest) {
                return;
            }
        }
    }

    /// Verifies what is due now.
    fn round(&mut self, interval_micros: u64) -> Result<Round> {
        let volume = Arc::clone(&self.volume);
        let oldest = volume.now_micros().saturating_sub(interval_micros);
        let due = candidates(&volume, |due| due.time_micros < oldest || due.has_grown)?;
        if due.is_empty() {
            return Ok(Round::Done);
        }
        let Some(turn) = volume.scrub_in_background() else { return Ok(Round::Away) };
        let pass = volume.scrub_pass()?;
        debug!("Scrub begins containers={}", due.len());
        let mut verified = 0;
        for candidate in due {
            let looked = look(&volume, candidate.id, &mut |len| self.pause(len, &turn))?;
            match looked {
                Looked::Verified(report) => {
                    verified += 1;
                    self.unnamed |= !report.damaged.is_empty();
                }
                Looked::Gone => {}
                Looked::Away(error) => warn!("Container not verified cause={error}"),
                Looked::Stopped if turn.is_over() => return Ok(Round::Away),
                Looked::Stopped => return Ok(Round::Stopped),
            }
            if self.named.is_none_or(|named| named.elapsed() >= NAMING_REST) {
                self.name()?;
            }
        }
        self.name()?;
        end_pass(&volume, pass)?;
        info!("Scrub verified what was due containers={verified}");
        Ok(Round::Done)
    }

    /// Waits until `len` more bytes may be read; false when it is time to stop.
    fn pause(&mut self, len: u64, turn: &Turn<'_>) -> bool {
        let requests = self.volume.requests();
        let others_work = requests != self.requests;
        self.requests = requests;
        let until = Instant::now() + self.budget.wait(self.begun.elapsed(), len, others_work);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.signal.sleep(left.min(SLEEP_MAX)) || turn.is_over() {
                return false;
            }
            if left <= SLEEP_MAX {
                return true;
            }
        }
    }

    /// Logs whom the damage hits that was found since the last time.
    fn name(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.unnamed) {
            return Ok(());
        }
        self.named = Some(Instant::now());
        self.volume.commit()?;
        let damage = self.volume.damage()?;
        let files = damage.files.len() as u64 + damage.more_files;
        error!("Damage is known chunks={} files={files}", damage.chunks);
        for file in damage.files.iter().take(LOGGED_MAX) {
            error!(
                "File is damaged ino={} bytes={} live={} snapshots={}",
                file.ino, file.bytes, file.live, file.snapshot_count
            );
        }
        Ok(())
    }
}
