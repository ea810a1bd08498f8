//! Polling instead of sleeping, while requests come.
//!
//! A request loop that sleeps in read(2) is woken for every request, and its caller for every
//! answer: on two processors of a virtual machine that is most of what a small request costs.
//! While requests follow each other closely, one of the loops therefore polls: its descriptor of
//! `/dev/fuse` is made non-blocking, and fuser's loop tries again at once. When nothing came for
//! [`LINGER`], it sleeps again.
//!
//! A loop and its caller take turns, and on a busy machine each of them waits until somebody else
//! has had all of his: milliseconds for requests of microseconds, and worst where caller and loops
//! are in different sessions, which the kernel schedules as groups. So loops ask for [short
//! turns](take_short_turns) when they serve their first request.
//!
//! The caller's processor has nothing to do while it waits for the answer, and goes to sleep. In a
//! virtual machine that is a way out to the hypervisor and back, longer than the request itself. So
//! while a loop polls there, [idle processors stay awake](IdleLatency), if we may ask for it and
//! there are few: all of them do.
//!
//! Guarantees: nothing polls longer than [`LINGER`] and one [`LOOK`] after the last request; no
//! thread wakes up, and no processor stays awake, while no request comes; with one processor
//! nothing polls. Relies on: fuser's loop, which answers `EAGAIN` with another try; the other
//! loops' descriptors, which are clones and keep sleeping, so a request that takes long in the
//! polling loop holds up nobody. Does not: look at requests.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::{Condvar, Mutex};

use crate::sys::process::{IdleLatency, set_nonblocking, take_short_turns};

/// Requests closer than this follow each other.
const CLOSE: Duration = Duration::from_micros(500);
/// So many in a row begin the polling.
const STREAK: u32 = 16;
/// The polling goes on so long without a request.
const LINGER: Duration = Duration::from_millis(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Idle processors stay awake where there are at most so many.
const AWAKE_MAX: usize = 8;

/// The shortest turns a kernel gives.
const TURN_NANOS: u64 = 100_000;

thread_local! {
    /// This loop asked for them.
    static SHORT_TURNS: Cell<bool> = const { Cell::new(false) };
}

/// Counts requests, and decides between polling and sleeping.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// When the newest request came, in nanoseconds since `begun`.
    last: AtomicU64,
    streak: AtomicU32,
    polling: AtomicBool,
    /// How often polling began.
    begins: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    device: Option<OwnedFd>,
    idle: Option<IdleLatency>,
    wanted: bool,
    ended: bool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            // Nothing to decide before a descriptor is there.
            polling: AtomicBool::new(true),
            begins: AtomicU64::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }
}

impl Pulse {
    /// A request came, in one of the loops. Costs a look at the clock.
    pub fn beat(&self) {
        if !SHORT_TURNS.replace(true)
            && let Err(e) = take_short_turns(TURN_NANOS)
        {
            debug!("Request loop takes turns as others do cause={e}");
        }
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let gap = now.saturating_sub(self.last.swap(now, Relaxed));
        if self.polling.load(Relaxed) {
            return;
        }
        if u128::from(gap) > CLOSE.as_nanos() {
            self.streak.store(0, Relaxed);
        } else if self.streak.fetch_add(1, Relaxed) >= STREAK && !self.polling.swap(true, Relaxed) {
            self.state.lock().wanted = true;
            self.wake.notify_one();
        }
    }

    /// How often polling began.
    #[must_use]
    pub fn begins(&self) -> u64 {
        self.begins.load(Relaxed)
    }

    fn since_last(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_nanos(self.last.load(Relaxed)))
    }

    /// Decides until it is told to end.
    fn govern(&self) {
        let mut state = self.state.lock();
        loop {
            while !state.wanted && !state.ended {
                self.wake.wait(&mut state);
            }
            if state.ended || !switch(&state, true) {
                return;
            }
            state.wanted = false;
            self.begins.fetch_add(1, Relaxed);
            while !state.ended && self.since_last() < LINGER {
                self.wake.wait_for(&mut state, LOOK);
            }
            switch(&state, false);
            self.streak.store(0, Relaxed);
            self.polling.store(false, Relaxed);
        }
    }
}

fn switch(state: &State, polling: bool) -> bool {
    let Some(device) = &state.device else { return false };
    let switched = set_nonblocking(device.as_fd(), polling);
    if let Err(e) = &switched {
        debug!("Request loop keeps sleeping cause={e}");
    }
    if let Some(idle) = &state.idle
        && let Err(e) = idle.keep_awake(polling)
    {
        debug!("Idle processors may sleep cause={e}");
    }
    switched.is_ok()
}

/// The thread that decides. Ends when dropped.
#[derive(Debug)]
pub struct Governor {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Governor {
    /// Lets `pulse` decide for the loop that reads from `device`, a duplicate of its descriptor.
    #[must_use]
    pub fn start(pulse: &Arc<Pulse>, device: OwnedFd) -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut thread = None;
        if processors > 1 {
            let mut state = pulse.state.lock();
            state.device = Some(device);
            if processors <= AWAKE_MAX {
                state.idle = IdleLatency::of_guest()
                    .inspect_err(|e| debug!("Idle processors may sleep cause={e}"))
                    .ok();
            }
            drop(state);
            let governed = Arc::clone(pulse);
            thread = thread::Builder::new()
                .name("pulse".to_owned())
                .spawn(move || governed.govern())
                .inspect_err(|e| debug!("Request loops keep sleeping cause={e}"))
                .ok();
            pulse.polling.store(thread.is_none(), Relaxed);
        }
        Self { pulse: Arc::clone(pulse), thread }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.pulse.polling.store(true, Relaxed);
        self.pulse.state.lock().ended = true;
        self.pulse.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut state = self.pulse.state.lock();
        (state.device, state.idle) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Beats until polling began `begins` times; the machine may be busy, so some streaks break.
    fn beat_until(pulse: &Pulse, begins: u64) {
        let start = Instant::now();
        while pulse.begins() < begins {
            pulse.beat();
            assert!(start.elapsed() < Duration::from_mins(1), "polling never begins");
        }
    }

    fn wait_until_it_sleeps(pulse: &Pulse) {
        let start = Instant::now();
        while pulse.polling.load(Relaxed) {
            thread::sleep(LOOK);
            assert!(start.elapsed() < Duration::from_mins(1), "polling never ends");
        }
    }

    fn polls(device: &UnixStream) -> bool {
        // Nobody writes: a read of a descriptor that is switched back would hang the test.
        crate::sys::process::is_nonblocking(device.as_fd()).unwrap()
    }

    /// Whether idle processors stay awake; `None` if nobody may ask, or polling has ended again.
    fn awake(pulse: &Pulse) -> Option<bool> {
        let state = pulse.state.lock();
        let awake = state.idle.as_ref()?.is_awake().unwrap();
        pulse.polling.load(Relaxed).then_some(awake)
    }

    #[test]
    fn polls_while_requests_come_and_sleeps_when_they_stop() {
        let (device, _other) = UnixStream::pair().unwrap();
        let pulse = Arc::new(Pulse::default());
        let governor = Governor::start(&pulse, device.try_clone().unwrap().into());
        if governor.thread.is_none() {
            return; // One processor.
        }
        assert!(!polls(&device));
        for round in 1..=3 {
            beat_until(&pulse, round);
            assert_ne!(awake(&pulse), Some(false));
            wait_until_it_sleeps(&pulse);
            assert!(!polls(&device));
        }
        drop(governor);
        assert_eq!(pulse.begins(), 3);
        for _ in 0..10 * STREAK {
            pulse.beat();
        }
        assert_eq!(pulse.begins(), 3, "nobody is left to decide");
    }

    #[test]
    fn a_few_requests_do_not_begin_it() {
        let (device, _other) = UnixStream::pair().unwrap();
        let pulse = Arc::new(Pulse::default());
        let _governor = Governor::start(&pulse, device.try_clone().unwrap().into());
        for _ in 0..STREAK {
            pulse.beat();
        }
        assert_eq!(pulse.begins(), 0);
        assert!(!polls(&device));
    }
}
