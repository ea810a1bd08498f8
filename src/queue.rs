//! Work on its way to threads: bounded, and whoever waits looks up now and then.
//!
//! Guarantees: jobs are taken in the order in which they were added; who adds them waits for no
//! longer than 200 ms without a look at whether to go on; the first failure ends the work of all.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Jobs that wait: a job has at most some megabytes once it is read, which a thread does.
const JOBS_MAX: usize = 16;
/// How often whoever waits looks up.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Threads that work beside who adds the jobs: they wait for disks, too, so more than one on a
/// small machine.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;

struct State<T> {
    waiting: VecDeque<T>,
    /// Jobs that are given out and not done.
    busy: usize,
    closed: bool,
}

/// See the module text.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
    room: Condvar,
}

/// Closes the queue when dropped.
pub struct Closer<'a, T>(&'a Queue<T>);

impl<T> Drop for Closer<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_all();
    }
}

impl<T> Queue<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let state = State { waiting: VecDeque::new(), busy: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Closes the queue when it is dropped: threads that wait for work end.
    pub fn closer(&self) -> Closer<'_, T> {
        Closer(self)
    }

    /// Adds a job; while there is no room, `look` is called now and then, and may end it.
    ///
    /// # Errors
    /// What `look` returns; the job is dropped then.
    pub fn push(&self, job: T, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.wait(look, |state| state.waiting.len() < JOBS_MAX)?;
        self.state.lock().waiting.push_back(job);
        self.work.notify_one();
        Ok(())
    }

    /// Waits until all jobs are done.
    ///
    /// # Errors
    /// What `look` returns.
    pub fn drain(&self, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.wait(look, |state| state.waiting.is_empty() && state.busy == 0)
    }

    fn wait(
        &self,
        look: &mut dyn FnMut() -> Result<()>,
        until: impl Fn(&State<T>) -> bool,
    ) -> Result<()> {
        loop {
            let mut state = self.state.lock();
            if until(&state) {
                return Ok(());
            }
            self.room.wait_for(&mut state, LOOK_EVERY);
            drop(state);
            look()?;
        }
    }

    /// The next job; `None` when the queue is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.busy += 1;
                self.room.notify_one();
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.work.wait(&mut state);
        }
    }

    /// A job that was taken is done.
    pub fn done(&self) {
        self.state.lock().busy -= 1;
        self.room.notify_one();
    }
}

impl<T: Send> Queue<T> {
    /// Runs `feed`, which adds jobs, beside threads that do them; returns when all have ended. With
    /// `threads` unset nobody takes jobs. What fails is in `failure`.
    pub fn work_beside(
        &self,
        (name, threads): (&str, bool),
        failure: &Failure,
        work: &(dyn Fn(T) -> Result<()> + Sync),
        feed: impl FnOnce() -> Result<()>,
    ) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads { cores.clamp(THREADS_MIN, THREADS_MAX) } else { 0 };
        thread::scope(|scope| {
            let _close = self.closer();
            for number in 0..threads {
                let builder = thread::Builder::new().name(format!("{name}-{number}"));
                if let Err(e) = builder.spawn_scoped(scope, || self.work(failure, work))
                    && number == 0
                {
                    let what = PathBuf::from(format!("the {name}"));
                    return failure.note(Error::io("start a thread for", &what, e));
                }
            }
            if let Err(error) = feed() {
                failure.note(error);
            }
        });
    }

    fn work(&self, failure: &Failure, work: &(dyn Fn(T) -> Result<()> + Sync)) {
        while let Some(job) = self.take() {
            if !failure.is_there()
                && let Err(error) = work(job)
            {
                failure.note(error);
            }
            self.done();
        }
    }
}

/// The first thing that went wrong: it ends the work of all who look.
#[derive(Debug, Default)]
pub struct Failure {
    first: Mutex<Option<Error>>,
    there: AtomicBool,
}

impl Failure {
    /// Ends the work; the first cause counts.
    pub fn note(&self, error: Error) {
        self.first.lock().get_or_insert(error);
        self.there.store(true, Ordering::Relaxed);
    }

    /// True if the work is to end.
    pub fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// The cause.
    ///
    /// # Errors
    /// What was noted first.
    pub fn into_result(self) -> Result<()> {
        self.first.into_inner().map_or(Ok(()), Err)
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl<T> std::fmt::Debug for Closer<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closer")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn all_that_is_pushed_is_done_and_who_waits_may_give_up() {
        let (queue, done) = (Queue::new(), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _close = queue.closer();
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(number) = queue.take() {
                        done.fetch_add(number, Ordering::Relaxed);
                        queue.done();
                    }
                });
            }
            (1..=1000).for_each(|number| queue.push(number, &mut || Ok(())).unwrap());
            queue.drain(&mut || Ok(())).unwrap();
            assert_eq!(done.load(Ordering::Relaxed), 500_500);
        });
        let alone = Queue::new();
        let gone = || Error::invalid("gone");
        let pushed = (0..).find_map(|number| alone.push(number, &mut || Err(gone())).err());
        assert_eq!(pushed.unwrap().to_string(), gone().to_string());
    }
}
