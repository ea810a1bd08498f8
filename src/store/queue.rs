//! Jobs on their way to the workers, bounded by their raw bytes.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use super::pending::Job;

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Raw bytes of queued jobs and of those a worker has in hand.
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    limit_bytes: usize,
    waiting: Mutex<Waiting>,
    work: Condvar,
    room: Condvar,
}

impl Queue {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, waiting: Mutex::default(), work: Condvar::new(), room: Condvar::new() }
    }

    /// Adds a job, or gives it back when the queue is full. A job larger than the bound goes alone.
    pub(super) fn try_push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting.lock();
        if waiting.bytes > 0 && waiting.bytes + job.raw_bytes > self.limit_bytes {
            return Err(job);
        }
        waiting.bytes += job.raw_bytes;
        waiting.jobs.push_back(job);
        self.work.notify_one();
        Ok(())
    }

    /// The next job, for somebody who met a full queue. `None` when workers have all in hand: then
    /// there is room, or it has been waited for.
    pub(super) fn take_or_wait(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        let job = waiting.jobs.pop_front();
        if job.is_none() && waiting.bytes > 0 {
            self.room.wait(&mut waiting);
        }
        job
    }

    /// The next job; waits for one. `None` when the queue is closed, whatever it holds.
    pub(super) fn take(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            self.work.wait(&mut waiting);
        }
    }

    /// A worker is done with a job of so many raw bytes.
    pub(super) fn done(&self, raw_bytes: usize) {
        let mut waiting = self.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(raw_bytes);
        self.room.notify_all();
    }

    /// Raw bytes of queued jobs and of those a worker has in hand.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// True while it is a quarter full: writers will wait soon, and workers should be fast.
    pub(super) fn is_pressed(&self) -> bool {
        self.bytes() > self.limit_bytes / 4
    }

    /// Sends the workers home.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.work.notify_all();
    }
}
