//! Being awake, while requests come.
//!
//! A request loop that sleeps in read(2) is woken for every request, and its caller for every
//! answer: if their processors sleep, too, that is most of what a small request costs; in a virtual
//! machine it is a way out to the hypervisor and back. While requests follow each other closely,
//! one of two things is therefore done:
//!
//! - In a virtual machine with few processors, if we may ask for it, [idle processors stay
//!   awake](IdleLatency). That takes nothing from those who have work.
//! - Elsewhere one of the loops polls: its descriptor of `/dev/fuse` is made non-blocking, and
//!   fuser's loop tries again at once. That takes a processor.
//!
//! A loop and its caller take turns, and on a busy machine each of them waits until somebody else
//! has had all of his: milliseconds for requests of microseconds, and worst where caller and loops
//! are in different sessions, which the kernel schedules as groups. So loops ask for [short
//! turns](take_short_turns) when they serve their first request.
//!
//! Guarantees: when no request came for [`LINGER`] and one [`LOOK`], nothing polls, no thread wakes
//! up, and processors may sleep; with one processor nothing is done. Relies on: fuser's loop, which
//! answers `EAGAIN` with another try; the other loops' descriptors, which are clones and keep
//! sleeping, so a request that takes long in the polling loop holds up nobody. Does not: look at
//! requests.

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
/// So many in a row begin it.
const STREAK: u32 = 16;
/// It goes on so long without a request.
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

/// Counts requests, and decides between being awake and sleeping.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// When the newest request came, in nanoseconds since `begun`.
    last: AtomicU64,
    streak: AtomicU32,
    awake: AtomicBool,
    /// How often that began.
    begins: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    ended: bool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            // Nothing to decide before there is a governor.
            awake: AtomicBool::new(true),
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
        if self.awake.load(Relaxed) {
            return;
        }
        if u128::from(gap) > CLOSE.as_nanos() {
            self.streak.store(0, Relaxed);
        } else if self.streak.fetch_add(1, Relaxed) >= STREAK && !self.awake.swap(true, Relaxed) {
            self.state.lock().wanted = true;
            self.wake.notify_one();
        }
    }

    /// How often requests came so closely that something was done.
    #[must_use]
    pub fn begins(&self) -> u64 {
        self.begins.load(Relaxed)
    }

    fn since_last(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_nanos(self.last.load(Relaxed)))
    }

    /// Decides until it is told to end.
    fn govern(&self, means: &Means) {
        let mut state = self.state.lock();
        loop {
            while !state.wanted && !state.ended {
                self.wake.wait(&mut state);
            }
            if state.ended || !means.switch(true) {
                return;
            }
            state.wanted = false;
            self.begins.fetch_add(1, Relaxed);
            while !state.ended && self.since_last() < LINGER {
                self.wake.wait_for(&mut state, LOOK);
            }
            means.switch(false);
            self.streak.store(0, Relaxed);
            self.awake.store(false, Relaxed);
        }
    }
}

/// What is done while requests come.
#[derive(Debug)]
enum Means {
    /// Idle processors stay awake.
    Processors(IdleLatency),
    /// The loop that reads from this descriptor polls.
    Poll(OwnedFd),
}

impl Means {
    /// The best that this machine has.
    fn of_machine(processors: usize, device: OwnedFd) -> Self {
        if processors > AWAKE_MAX {
            return Self::Poll(device);
        }
        match IdleLatency::of_guest() {
            Ok(idle) => Self::Processors(idle),
            Err(e) => {
                debug!("Request loop polls, idle processors may sleep cause={e}");
                Self::Poll(device)
            }
        }
    }

    fn switch(&self, awake: bool) -> bool {
        let switched = match self {
            Self::Processors(idle) => idle.keep_awake(awake),
            Self::Poll(device) => set_nonblocking(device.as_fd(), awake),
        };
        if let Err(e) = &switched {
            debug!("Request loops sleep as before cause={e}");
        }
        switched.is_ok()
    }
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
        if processors == 1 {
            return Self { pulse: Arc::clone(pulse), thread: None };
        }
        Self::with(pulse, Means::of_machine(processors, device))
    }

    fn with(pulse: &Arc<Pulse>, means: Means) -> Self {
        let governed = Arc::clone(pulse);
        let thread = thread::Builder::new()
            .name("pulse".to_owned())
            .spawn(move || governed.govern(&means))
            .inspect_err(|e| debug!("Request loops sleep as before cause={e}"))
            .ok();
        pulse.awake.store(thread.is_none(), Relaxed);
        Self { pulse: Arc::clone(pulse), thread }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.pulse.awake.store(true, Relaxed);
        self.pulse.state.lock().ended = true;
        self.pulse.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Beats until it began `begins` times; the machine may be busy, so some streaks break.
    fn beat_until(pulse: &Pulse, begins: u64) {
        let start = Instant::now();
        while pulse.begins() < begins {
            pulse.beat();
            assert!(start.elapsed() < Duration::from_mins(1), "it never begins");
        }
    }

    fn wait_until_it_sleeps(pulse: &Pulse) {
        let start = Instant::now();
        while pulse.awake.load(Relaxed) {
            thread::sleep(LOOK);
            assert!(start.elapsed() < Duration::from_mins(1), "it never ends");
        }
    }

    fn polls(device: &UnixStream) -> bool {
        // Nobody writes: a read of a descriptor that is switched back would hang the test.
        crate::sys::process::is_nonblocking(device.as_fd()).unwrap()
    }

    /// As the system says; others may keep processors awake, too.
    fn is_awake(means: &Means) -> bool {
        match means {
            Means::Processors(idle) => idle.is_awake().unwrap(),
            Means::Poll(device) => crate::sys::process::is_nonblocking(device.as_fd()).unwrap(),
        }
    }

    /// With what the governor has: `seen` are means of the same kind.
    fn begins_and_ends(pulse: &Pulse, device: &UnixStream, seen: &Means) {
        assert!(!polls(device));
        for round in 1..=3 {
            beat_until(pulse, round);
            // The governor switches with this lock held.
            let held = pulse.state.lock();
            assert!(is_awake(seen) || !pulse.awake.load(Relaxed));
            drop(held);
            wait_until_it_sleeps(pulse);
            assert!(!polls(device));
        }
    }

    #[test]
    fn polls_while_requests_come_and_sleeps_when_they_stop() {
        let (device, _other) = UnixStream::pair().unwrap();
        let pulse = Arc::new(Pulse::default());
        let means = || Means::Poll(device.try_clone().unwrap().into());
        let governor = Governor::with(&pulse, means());
        begins_and_ends(&pulse, &device, &means());
        drop(governor);
        assert_eq!(pulse.begins(), 3);
        for _ in 0..10 * STREAK {
            pulse.beat();
        }
        assert_eq!(pulse.begins(), 3, "nobody is left to decide");
    }

    #[test]
    fn what_the_machine_has_is_used() {
        let (device, _other) = UnixStream::pair().unwrap();
        let pulse = Arc::new(Pulse::default());
        let governor = Governor::start(&pulse, device.try_clone().unwrap().into());
        if governor.thread.is_none() {
            return; // One processor.
        }
        let processors = thread::available_parallelism().unwrap().get();
        let means = Means::of_machine(processors, device.try_clone().unwrap().into());
        begins_and_ends(&pulse, &device, &means);
    }

    #[test]
    fn where_processors_stay_awake_no_loop_polls() {
        // Not everybody may ask for it.
        if IdleLatency::of_guest().is_err() {
            return;
        }
        let (device, _other) = UnixStream::pair().unwrap();
        let means = |processors| Means::of_machine(processors, device.try_clone().unwrap().into());
        assert!(matches!(means(AWAKE_MAX), Means::Processors(_)));
        assert!(matches!(means(AWAKE_MAX + 1), Means::Poll(_)), "too many to keep awake");
    }

    #[test]
    fn a_few_requests_do_not_begin_it() {
        let (device, _other) = UnixStream::pair().unwrap();
        let pulse = Arc::new(Pulse::default());
        let _governor = Governor::with(&pulse, Means::Poll(device.try_clone().unwrap().into()));
        for _ in 0..STREAK {
            pulse.beat();
        }
        assert_eq!(pulse.begins(), 0);
        assert!(!polls(&device));
    }
}
