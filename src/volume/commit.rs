//! Commit: gate → drain → freeze → sync containers → one synced batch → wake.
//!
//! Data before reference: [`Store::seal`](crate::store::Store::seal) makes the containers durable
//! before the batch that points into them is written, and the batch is one atomic synced write.
//! What the batch forgets is deleted only afterwards. Commits run one at a time in their own
//! thread; every caller that waits, or wants to be told, when one begins is served by it, so
//! concurrent fsyncs share a commit.
//!
//! A commit that meets a full disk keeps everything, what is sealed too, and is tried again: its
//! batch is the same then, so it does not matter whether the first one reached the disk. Any other
//! failure poisons the volume: whether its batch reached the disk is unknown, so nothing more is
//! written until the volume is opened again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use log::{debug, error, info, warn};
use parking_lot::{Condvar, Mutex};

use super::Volume;
use super::garbage::GARBAGE_ROW;
use super::open::Counters;
use super::stream::cut_loop;
use crate::env::Point;
use crate::error::{Error, Result};
use crate::kv::{Batch, Changes, Table};
use crate::store::Sealed;
use crate::sys::process;

/// A commit of more than this leaves memory behind that is worth giving back: some ten thousand
/// files, or what gc freed.
const LARGE_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Threads that cut streams beside their writers: a few files are written at a time, and with one
/// processor nobody has time for it.
const CUTTERS_MAX: usize = 3;

/// Who waits for which commit. Numbers count commits begun since the volume was opened.
#[derive(Default)]
pub(super) struct CommitSignal {
    state: Mutex<SignalState>,
    wanted: Condvar,
    done: Condvar,
}

/// Told how a commit ended.
type Told = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
struct SignalState {
    requested: u64,
    begun: u64,
    completed: u64,
    /// Callers that wait.
    waiting: usize,
    /// Who wants to be told of which commit. As many as there are calls that wait: the kernel
    /// bounds them by its callers.
    to_tell: Vec<(u64, Told)>,
    /// Why the last commit failed, if it did.
    failure: Option<Error>,
    stop: bool,
}

impl SignalState {
    /// Asks for a commit that begins from now on; returns its number.
    fn request(&mut self) -> u64 {
        let mine = self.begun + 1;
        self.requested = self.requested.max(mine);
        mine
    }
}

fn shut_down() -> Error {
    Error::ReadOnly { what: "the volume is shut down".to_owned() }
}

impl CommitSignal {
    /// Waits for a request or until `interval` has passed; false when it is time to stop.
    fn next(&self, interval: Duration) -> bool {
        let mut state = self.state.lock();
        if state.requested <= state.begun && !state.stop {
            self.wanted.wait_for(&mut state, interval);
        }
        if state.stop && state.requested <= state.begun {
            return false;
        }
        state.begun += 1;
        true
    }

    fn finish(&self, result: Result<()>) {
        let served = {
            let mut state = self.state.lock();
            state.completed = state.begun;
            state.failure = result.as_ref().err().cloned();
            self.done.notify_all();
            let completed = state.completed;
            state.to_tell.extract_if(.., |(number, _)| *number <= completed).collect::<Vec<_>>()
        };
        served.into_iter().for_each(|(_, told)| told(result.clone()));
    }

    /// Has `told` called when a commit that begins after this call has ended: by the thread that
    /// commits, or at once when no commit will come.
    fn tell(&self, told: Told) {
        let mut state = self.state.lock();
        if state.stop {
            drop(state);
            return told(Err(shut_down()));
        }
        let mine = state.request();
        state.to_tell.push((mine, told));
        self.wanted.notify_one();
    }

    /// Asks for a commit that begins from now on, without waiting.
    pub(super) fn kick(&self) {
        self.state.lock().request();
        self.wanted.notify_one();
    }

    /// Waits until a commit that began after this call has ended; says how.
    fn wait(&self) -> Result<()> {
        let mut state = self.state.lock();
        let mine = state.request();
        self.wanted.notify_one();
        state.waiting += 1;
        while state.completed < mine && !state.stop {
            self.done.wait(&mut state);
        }
        state.waiting -= 1;
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None if state.completed < mine => Err(shut_down()),
            None => Ok(()),
        }
    }

    /// Waits until the commit that runs now, or else the next one, has ended; says how.
    pub(super) fn wait_end(&self) -> Result<()> {
        let mut state = self.state.lock();
        let seen = state.completed;
        if state.begun == seen {
            state.requested = state.requested.max(seen + 1);
            self.wanted.notify_one();
        }
        while state.completed == seen && !state.stop {
            self.done.wait(&mut state);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn stop(&self) {
        let left = {
            let mut state = self.state.lock();
            state.stop = true;
            self.wanted.notify_all();
            self.done.notify_all();
            std::mem::take(&mut state.to_tell)
        };
        left.into_iter().for_each(|(_, told)| told(Err(shut_down())));
    }
}

/// A frozen txg on its way to the disk.
#[derive(Debug)]
pub(super) struct Frozen {
    counters: Counters,
    /// What the store had sealed for it when the database met a full disk.
    sealed: Option<Sealed>,
}

/// A background thread that sleeps until it is woken.
#[derive(Debug, Default)]
pub(super) struct Background {
    state: Mutex<(bool, bool)>,
    woken: Condvar,
}

impl Background {
    pub(super) fn wake(&self) {
        self.state.lock().0 = true;
        self.woken.notify_one();
    }

    fn stop(&self) {
        self.state.lock().1 = true;
        self.woken.notify_one();
    }

    /// Sleeps until woken; false when it is time to stop.
    fn next(&self) -> bool {
        let mut state = self.state.lock();
        while !state.0 && !state.1 {
            self.woken.wait(&mut state);
        }
        state.0 = false;
        !state.1
    }
}

impl Volume {
    /// Makes everything that was changed before this call durable.
    ///
    /// # Errors
    /// `Poisoned` with the first cause when this or an earlier commit failed; `NoSpace` when a
    /// shard is full, `ShardMissing` when none is there (the changes stay in memory and are tried
    /// again); `ReadOnly` when the volume
    /// was shut down before the changes were durable.
    pub fn commit(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.signal.wait()
    }

    /// Callers that wait for a commit right now.
    #[must_use]
    pub fn commit_waiters(&self) -> usize {
        let state = self.signal.state.lock();
        state.waiting + state.to_tell.len()
    }

    /// As [`Volume::commit`] without waiting: `told` hears the outcome, from the thread that
    /// commits. So a server with few threads keeps serving, and any number of callers share one
    /// commit.
    pub fn commit_then(&self, told: impl FnOnce(Result<()>) + Send + 'static) {
        if self.read_only {
            told(Ok(()));
        } else {
            self.signal.tell(Box::new(told));
        }
    }

    /// Why the last commit failed, if it did.
    pub(super) fn last_failure(&self) -> Option<Error> {
        self.signal.state.lock().failure.clone()
    }

    /// One commit, in the calling thread. Only the commit thread and shutdown come here.
    pub(super) fn commit_now(&self) -> Result<()> {
        if let Some(cause) = self.poison.get() {
            return Err(Error::Poisoned { cause: Arc::clone(cause) });
        }
        self.try_commit().map_err(|e| match e {
            // Nothing is lost: the changes stay in memory and the next commit tries again.
            Error::NoSpace { .. } => {
                self.refresh_space();
                e
            }
            Error::ShardMissing { .. } => e,
            // The store lost what it had taken; its cause is the one to name.
            Error::Poisoned { cause } => self.poison((*cause).clone()),
            e => self.poison(e),
        })
    }

    fn try_commit(&self) -> Result<()> {
        self.env.hit(Point::CommitBegin)?;
        // A shard that was full may have room by now; without this, draining would be refused and
        // the store never asked again.
        self.store.retry();
        // A commit that met a full shard is frozen still and goes first.
        self.finish_frozen()?;
        // The long drain keeps nobody out; the second one only meets what came meanwhile.
        self.drain_files(false)?;
        {
            let _gate = self.gate.write();
            self.drain_files(true)?;
            self.env.hit(Point::CommitGate)?;
            if self.meta.is_clean() && self.store.is_committed() {
                return Ok(());
            }
            self.meta.freeze();
            self.store.freeze();
            *self.frozen.lock() = Some(Frozen { counters: self.counters(), sealed: None });
        }
        self.finish_frozen()
    }

    /// Makes the frozen txg durable, if there is one.
    fn finish_frozen(&self) -> Result<()> {
        if self.frozen.lock().is_none() {
            return Ok(());
        }
        self.env.hit(Point::CommitSeal)?;
        let Some(Frozen { counters, sealed }) = self.frozen.lock().take() else { return Ok(()) };
        let sealed = match sealed.map_or_else(|| self.store.seal(), Ok) {
            Ok(sealed) => sealed,
            Err(e) => {
                *self.frozen.lock() = Some(Frozen { counters, sealed: None });
                return Err(e);
            }
        };
        let frozen = self.meta.frozen();
        let mut batch = Batch::default();
        let txg = self.txg.load(Ordering::Relaxed) + 1;
        let written = Counters { txg, next: sealed.next, ..counters };
        batch.put(Table::Super, &b"counters"[..], written.encode());
        batch.put(Table::Super, &b"totals"[..], self.encode_totals());
        batch.put(Table::Super, GARBAGE_ROW, self.garbage.encode());
        let rows = frozen.rows() + sealed.rows() + batch.changes.len();
        let (bytes, done) = self.write_batch(&[&frozen, &sealed, &batch]);
        drop(frozen);
        match done {
            Ok(()) => self.witness.note(txg),
            // Whether the batch reached the disk is unknown, but the next try writes the same rows.
            Err(e @ Error::NoSpace { .. }) => {
                *self.frozen.lock() = Some(Frozen { counters, sealed: Some(sealed) });
                return Err(e);
            }
            // Of any other failure nobody knows what it means: there is no second try.
            Err(e) => return Err(self.poison(e)),
        }
        self.txg.store(txg, Ordering::Release);
        self.meta.committed();
        self.env.faults().pass(Point::CommitForget);
        self.store.committed(sealed);
        self.env.faults().pass(Point::CommitDone);
        self.stats.activity.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.last_commit_secs.store(self.now_micros() / 1_000_000, Ordering::Relaxed);
        self.refresh_space();
        if bytes > LARGE_BATCH_BYTES {
            process::return_free_memory();
        }
        debug!("Commit done txg={txg} rows={rows}");
        Ok(())
    }

    /// Writes the parts as one batch; says how large it was, more or less.
    fn write_batch(&self, parts: &[&dyn Changes]) -> (usize, Result<()>) {
        let bytes = parts.iter().map(|part| part.bytes()).sum();
        self.held.committing.store(bytes, Ordering::Relaxed);
        let write = || {
            self.env.hit(Point::CommitBatch)?;
            self.kv.write_parts(parts)?;
            self.env.hit(Point::CommitWritten)
        };
        let done = write();
        self.held.committing.store(0, Ordering::Relaxed);
        (bytes, done)
    }

    /// Starts the commit thread and the reaper.
    pub(super) fn start_threads(self: &Arc<Self>) -> Result<()> {
        let interval = Duration::from_secs(self.config.limits.commit_interval_secs.into());
        let (signal, weak) = (Arc::clone(&self.signal), Arc::downgrade(self));
        let committer = move || commit_loop(&signal, &weak, interval);
        let (reaper, weak) = (Arc::clone(&self.reaper), Arc::downgrade(self));
        let reap = move || reap_loop(&reaper, &weak);
        let mut bodies = vec![
            ("commit", Box::new(committer) as Box<dyn FnOnce() + Send>),
            ("reaper", Box::new(reap)),
        ];
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let cutters = processors.saturating_sub(1).min(CUTTERS_MAX);
        self.streams.begin(cutters);
        for _ in 0..cutters {
            let (streams, weak) = (Arc::clone(&self.streams), Arc::downgrade(self));
            bodies.push(("cutter", Box::new(move || cut_loop(&streams, &weak))));
        }
        let mut threads = self.threads.lock();
        for (name, body) in bodies {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
            threads.push(thread.map_err(|e| Error::io("start a thread for", &self.dir, e))?);
        }
        Ok(())
    }

    /// The last commit, then the end: background threads are joined. The lock goes last, when the
    /// last reference is dropped and the database with it: whoever gets it can open the database.
    ///
    /// # Errors
    /// What the last commit says; the volume is closed all the same.
    pub fn shutdown(&self) -> Result<()> {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.stop_threads();
        if self.read_only {
            return Ok(());
        }
        self.env.hit(Point::ShutdownCommit)?;
        let done = self.commit_now();
        self.env.faults().pass(Point::ShutdownDone);
        done
    }

    fn stop_threads(&self) {
        self.wake_gc();
        self.signal.stop();
        self.reaper.stop();
        self.streams.stop();
        for thread in self.threads.lock().drain(..) {
            // The last reference may be dropped by one of these threads itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                error!("A background thread panicked");
            }
        }
    }
}

impl Drop for Volume {
    /// Without [`Volume::shutdown`] this is a crash: nothing is committed.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.stop_threads();
    }
}

fn commit_loop(signal: &CommitSignal, volume: &Weak<Volume>, interval: Duration) {
    while signal.next(interval) {
        let Some(volume) = volume.upgrade() else { return };
        volume.look_after_shards_now_and_then();
        let result = volume.commit_now();
        match (&result, volume.last_failure()) {
            // Nothing is lost, and it is tried again and again: one line says it all.
            (Err(Error::NoSpace { .. }), Some(Error::NoSpace { .. })) => {}
            (Err(e @ Error::NoSpace { .. }), _) => warn!("Commit waits for room cause={e}"),
            (Err(e), _) => error!("Commit failed cause={e}"),
            (Ok(()), Some(_)) => info!("Commits go on"),
            (Ok(()), None) => {}
        }
        signal.finish(result);
    }
}

fn reap_loop(reaper: &Background, volume: &Weak<Volume>) {
    while reaper.next() {
        let Some(volume) = volume.upgrade() else { return };
        if let Err(e) = volume.reap_all() {
            error!("Removing extents of deleted files failed cause={e}");
        }
    }
}
