//! Bytes of a container that are not in its file yet, and the thread that brings them there.
//!
//! What is appended gathers in an aligned buffer. A full one is handed to the shard's [`Flusher`],
//! which writes them in the order in which they were filled: meanwhile the next one is filled and
//! frames for it are encoded, so neither the disk nor the processors wait for the other. A sync
//! waits until all have landed.
//!
//! Guarantees: what is not in the file is read from here, also after a write failed; a failure is
//! told to the next who appends or syncs. Memory: full buffers on their way count in `budget`; if
//! it has no room for one more, the buffer is written by who filled it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::budget::{AppendBudget, Buffer};
use super::direct::{BLOCK, PIECE};

/// Full buffers of a shard that wait while one is written: enough that the disk never waits for
/// the next, and few enough to be a small part of the budget.
const FLIGHTS_MAX: usize = 2;

/// See the module text.
#[derive(Debug)]
pub(super) struct Tail {
    state: Mutex<State>,
    /// A flight has landed; goes with `state`.
    landed: Condvar,
    budget: Arc<AppendBudget>,
}

#[derive(Debug, Default)]
struct State {
    /// Full buffers on their way to the file with their offsets there, without gaps. From one that
    /// could not be written on, all stay.
    flights: VecDeque<(u64, Arc<Buffer>)>,
    /// Flights that have not landed.
    airborne: usize,
    /// `None` while nothing is buffered: an idle container costs no memory.
    buffer: Option<Buffer>,
    /// Has landed and will be filled again.
    spare: Option<Buffer>,
    /// Offset in the file of the first byte of `buffer`; a multiple of [`BLOCK`].
    start: u64,
    /// Bytes in `buffer`.
    filled: usize,
    /// Why a flight could not be written.
    failed: Option<io::Error>,
}

impl State {
    fn end(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// Offset up to which everything is in the file.
    fn written(&self) -> u64 {
        self.flights.front().map_or(self.start, |(start, _)| *start)
    }

    /// What is buffered, in order.
    fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let flights = self.flights.iter().map(|(start, buffer)| (*start, buffer.bytes()));
        let last = self.buffer.as_ref().map(|buffer| (self.start, &buffer.bytes()[..self.filled]));
        flights.chain(last)
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Writes the buffer, whose length is a multiple of the block, and empties it.
    fn write(&mut self, file: &File) -> io::Result<()> {
        assert!(self.filled.is_multiple_of(BLOCK), "direct writes are aligned");
        let Some(buffer) = &self.buffer else { return Ok(()) };
        write_all_at(file, &buffer.bytes()[..self.filled], self.start)?;
        self.start += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

impl Tail {
    /// Of a file that is complete up to `start`; `torn` is what follows of a block that was cut.
    /// The rest of that block becomes padding.
    pub(super) fn new(start: u64, torn: &[u8], budget: Arc<AppendBudget>) -> Self {
        let mut state = State { start, ..State::default() };
        if !torn.is_empty() {
            let mut buffer = budget.take();
            buffer.bytes_mut()[..torn.len()].copy_from_slice(torn);
            state.filled = torn.len().next_multiple_of(BLOCK);
            state.buffer = Some(buffer);
        }
        Self { state: Mutex::new(state), landed: Condvar::new(), budget }
    }

    /// Offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.state.lock().end()
    }

    /// True if everything is in the file.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.written() == state.end()
    }

    /// The file, in which everything is, was cut to `len` bytes.
    pub(super) fn cut_to(&self, len: u64) {
        *self.state.lock() = State { start: len, ..State::default() };
    }

    /// Copies what is buffered of the `buf.len()` bytes from `offset` into `buf`; returns how many
    /// bytes at its front must come from the file. An error is the end, if `buf` reaches beyond.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, u64> {
        let state = self.state.lock();
        let end = offset.saturating_add(buf.len() as u64);
        if end > state.end() {
            return Err(state.end());
        }
        for (start, bytes) in state.pieces() {
            let from = start.max(offset);
            let to = (start + bytes.len() as u64).min(end);
            if from < to {
                let place = |at: u64, base: u64| usize::try_from(at - base).expect("in a buffer");
                let piece = &bytes[place(from, start)..place(to, start)];
                buf[place(from, offset)..place(to, offset)].copy_from_slice(piece);
            }
        }
        let front = state.written().clamp(offset, end) - offset;
        Ok(usize::try_from(front).expect("at most the length of a slice"))
    }

    /// Takes bytes; full buffers go to `flusher`.
    pub(super) fn fill(
        self: &Arc<Self>,
        parts: &[&[u8]],
        file: &Arc<File>,
        flusher: &Flusher,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if state.buffer.as_ref().is_some_and(|full| full.bytes().len() == state.filled) {
                    self.pass_on(&mut state, file, flusher)?;
                }
                let filled = state.filled;
                let buffer = state.buffer.get_or_insert_with(|| self.budget.take()).bytes_mut();
                let (now, later) = rest.split_at(rest.len().min(buffer.len() - filled));
                buffer[filled..filled + now.len()].copy_from_slice(now);
                state.filled += now.len();
                rest = later;
            }
        }
        Ok(())
    }

    /// Hands the full buffer to the flusher, if there is memory for another one.
    fn pass_on(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        file: &Arc<File>,
        flusher: &Flusher,
    ) -> io::Result<()> {
        state.check()?;
        let Some(next) = state.spare.take().or_else(|| self.budget.take_whole()) else {
            self.settle(state)?;
            return state.write(file);
        };
        let Some(full) = state.buffer.replace(next).map(Arc::new) else { return Ok(()) };
        let start = state.start;
        state.flights.push_back((start, Arc::clone(&full)));
        state.airborne += 1;
        state.start += state.filled as u64;
        state.filled = 0;
        let flight = Flight { tail: Arc::clone(self), file: Arc::clone(file), start, buffer: full };
        // The flusher needs the lock to let others land.
        MutexGuard::unlocked(state, || flusher.take(flight));
        Ok(())
    }

    fn wait_for_flights(&self, state: &mut MutexGuard<'_, State>) {
        while state.airborne > 0 {
            self.landed.wait(state);
        }
    }

    /// Waits until all flights have landed.
    fn settle(&self, state: &mut MutexGuard<'_, State>) -> io::Result<()> {
        self.wait_for_flights(state);
        state.check()
    }

    /// As [`Tail::settle`]; what became of them is told to the next who asks.
    pub(super) fn wait(&self) {
        self.wait_for_flights(&mut self.state.lock());
    }

    /// Brings everything to the file, with zeros up to the next block, and frees the memory.
    /// Returns the end.
    pub(super) fn flush(&self, file: &File) -> io::Result<u64> {
        let mut state = self.state.lock();
        self.settle(&mut state)?;
        let (filled, padded) = (state.filled, state.filled.next_multiple_of(BLOCK));
        if let Some(buffer) = state.buffer.as_mut().filter(|_| filled > 0) {
            buffer.bytes_mut()[filled..padded].fill(0);
            state.filled = padded;
            state.write(file)?;
        }
        state.buffer = None;
        state.spare = None;
        Ok(state.start)
    }

    fn land(&self, buffer: Arc<Buffer>, written: io::Result<()>) {
        let mut state = self.state.lock();
        state.airborne -= 1;
        let first = state.flights.front().is_some_and(|(_, first)| Arc::ptr_eq(first, &buffer));
        match written {
            // Behind one that failed they stay, too.
            Ok(()) if first => {
                state.flights.pop_front();
                let whole = Arc::into_inner(buffer).filter(|buffer| buffer.bytes().len() == PIECE);
                state.spare = whole.or_else(|| state.spare.take());
            }
            Ok(()) => {}
            Err(cause) => state.failed = state.failed.take().or(Some(cause)),
        }
        drop(state);
        self.landed.notify_all();
    }
}

/// A full buffer on its way.
#[derive(Debug)]
struct Flight {
    tail: Arc<Tail>,
    file: Arc<File>,
    start: u64,
    buffer: Arc<Buffer>,
}

impl Flight {
    fn fly(self) {
        let written = write_all_at(&self.file, self.buffer.bytes(), self.start);
        self.tail.land(self.buffer, written);
    }
}

/// Writes the full buffers of a shard's containers. Its thread is started when it is first needed
/// and ends with the shard.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    sender: OnceLock<Option<SyncSender<Flight>>>,
}

impl Flusher {
    /// Takes a flight; waits while there are too many. Without a thread it is written here.
    fn take(&self, flight: Flight) {
        let sent = match self.sender.get_or_init(start) {
            Some(sender) => sender.send(flight).map_err(|unsent| unsent.0),
            None => Err(flight),
        };
        if let Err(flight) = sent {
            flight.fly();
        }
    }
}

fn start() -> Option<SyncSender<Flight>> {
    let (sender, flights) = sync_channel(FLIGHTS_MAX);
    let serve = |flights: Receiver<Flight>| flights.iter().for_each(Flight::fly);
    let thread = std::thread::Builder::new().name("flusher".to_owned());
    match thread.spawn(move || serve(flights)) {
        Ok(_) => Some(sender),
        Err(cause) => {
            log::warn!("Containers are written by those who fill them cause={cause}");
            None
        }
    }
}

fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            // The rest of a short write would not be aligned.
            Ok(written) if written == 0 || !written.is_multiple_of(BLOCK) => {
                return Err(ErrorKind::WriteZero.into());
            }
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk;
    use std::fs::OpenOptions;
    use tempfile::TempDir;

    const WHOLE: usize = PIECE + BLOCK;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 7 % 251) as u8).collect()
    }

    /// A tail of an empty file, and the file.
    fn tail(dir: &TempDir, budget: usize) -> (Arc<Tail>, Arc<File>, std::path::PathBuf) {
        let path = dir.path().join("container");
        File::create(&path).unwrap();
        let file = Arc::new(disk::open_direct(&path).unwrap());
        (Arc::new(Tail::new(0, &[], AppendBudget::new(budget))), file, path)
    }

    /// Reads as the shard does: the front from the file, the rest from the tail.
    fn read(tail: &Tail, path: &std::path::Path, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let front = tail.read(offset, &mut buf).unwrap();
        File::open(path).unwrap().read_exact_at(&mut buf[..front], offset).unwrap();
        buf
    }

    #[test]
    fn bytes_are_read_wherever_they_are_on_their_way() {
        let dir = TempDir::new().unwrap();
        for whole_buffers in [0, 1, 2, 8] {
            let (tail, file, path) = tail(&dir, whole_buffers * WHOLE);
            let (flusher, data) = (Flusher::default(), bytes(6 * PIECE + 12_345));
            let mut at = 0;
            while at < data.len() {
                let end = (at + 300_001).min(data.len());
                tail.fill(&[&data[at..=at], &data[at + 1..end]], &file, &flusher).unwrap();
                let from = at.saturating_sub(2 * PIECE);
                assert!(read(&tail, &path, from as u64, end - from) == data[from..end]);
                let budget = &tail.budget;
                assert!(budget.bytes() <= budget.most(1), "{} used", budget.bytes());
                at = end;
            }
            assert_eq!(tail.read(0, &mut vec![0; data.len() + 1]), Err(data.len() as u64));
            let end = data.len().next_multiple_of(BLOCK) as u64;
            assert_eq!(tail.flush(&file).unwrap(), end);
            assert!(tail.is_empty() && tail.budget.bytes() == 0);
            let stored = std::fs::read(&path).unwrap();
            assert!(stored[..data.len()] == data && stored.len() as u64 == end);
        }
    }

    #[test]
    fn a_failure_is_told_and_what_was_not_written_stays_readable() {
        let dir = TempDir::new().unwrap();
        let (tail, _, path) = tail(&dir, 8 * WHOLE);
        let closed = Arc::new(OpenOptions::new().read(true).open(&path).unwrap());
        let (flusher, data) = (Flusher::default(), bytes(3 * PIECE));
        tail.fill(&[&data[..2 * PIECE]], &closed, &flusher).unwrap();
        tail.wait();
        let told = tail.fill(&[&data[2 * PIECE..], b"more"], &closed, &flusher).unwrap_err();
        assert!(told.raw_os_error().is_some(), "what the system said: {told}");
        assert!(read(&tail, &path, 0, 2 * PIECE) == data[..2 * PIECE]);
        drop(tail);

        let (tail, _, _) = self::tail(&dir, 8 * WHOLE);
        tail.fill(&[&data[..=PIECE]], &closed, &flusher).unwrap();
        assert!(tail.flush(&closed).is_err(), "a sync is told, too");
        assert!(read(&tail, &path, 0, PIECE + 1) == data[..=PIECE]);
    }
}
