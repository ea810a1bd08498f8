//! Streams: what is written on and on is cut beside its writer.
//!
//! A writer of a large file waits for each write. If the write also cut, fingerprinted and looked
//! up what has gathered, one processor would work and the others wait. So a thread of its own takes
//! the gathered bytes out of the buffer (`FileState::taken`), works on them without the file's
//! lock, and stages their extents; the writer goes on filling the buffer meanwhile.
//!
//! What was written here and there, a little at each place, is drained by that thread, too; readers
//! see a copy of it meanwhile.
//!
//! Guarantees: while bytes are taken, the thread holds the gate open, so a commit sees them as
//! extents or in the buffer; readers see them; whoever changes or drains the file in another way
//! waits for them ([`FileNode::settled`]). Bytes that cannot be stored go back into the buffer,
//! under what was written since. What a stream gathers has room in front for the rest of a cut, so
//! that putting that back moves nothing (`dirty`). What waits for the thread is bounded: a writer
//! that is too far ahead waits, or drains itself.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use log::error;
use parking_lot::{Condvar, Mutex, RwLockWriteGuard};

use super::Volume;
use super::drain::{Counted, CutBuffer, Drain, Region};
use super::files::{FileNode, FileState, Taken};
use crate::classify::ClassSpec;
use crate::error::{Error, Result};
use crate::types::{At, Ino};

/// Takes in a row with the gate held open: a commit waits for them.
const TAKES_AT_ONCE: usize = 4;

/// Files whose streams wait for the thread that cuts.
#[derive(Debug, Default)]
pub(super) struct Streams {
    state: Mutex<Waiting>,
    come: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    files: VecDeque<Ino>,
    /// Threads that serve them.
    threads: usize,
}

impl Streams {
    /// Lets a thread take what `ino` has gathered; false if there is none to do it.
    pub(super) fn add(&self, ino: Ino) -> bool {
        let mut state = self.state.lock();
        if state.threads > 0 && !state.files.contains(&ino) {
            state.files.push_back(ino);
            self.come.notify_one();
        }
        state.threads > 0
    }

    /// Says that so many threads will serve.
    pub(super) fn begin(&self, threads: usize) {
        self.state.lock().threads = threads;
    }

    /// Sends the threads home.
    pub(super) fn stop(&self) {
        self.state.lock().threads = 0;
        self.come.notify_all();
    }

    /// The next file; `None` when it is time to stop.
    pub(super) fn next(&self) -> Option<Ino> {
        let mut state = self.state.lock();
        loop {
            if state.threads == 0 {
                return None;
            }
            if let Some(ino) = state.files.pop_front() {
                return Some(ino);
            }
            self.come.wait(&mut state);
        }
    }
}

impl Volume {
    /// Cuts what the stream of `ino` has gathered, until it is less than is worth it.
    pub(super) fn cut_stream(&self, ino: Ino) {
        loop {
            let _gate = self.gate.read();
            let file = self.borrow_node(ino);
            match self.cut_some(&file.node) {
                Ok(true) => {}
                Ok(false) => return,
                // The bytes are in the buffer again: who drains them next is told.
                Err(Error::NoSpace { .. }) => return,
                Err(e) => return error!("Stream could not be stored ino={ino} cause={e}"),
            }
        }
    }

    /// A few takes under one hold of the gate; true if there may be more.
    fn cut_some(&self, node: &FileNode) -> Result<bool> {
        let mut state = node.state.write();
        for _ in 0..TAKES_AT_ONCE {
            let Some((spec, start, data)) = self.take_stream(node, &mut state)? else {
                if state.taken.is_some() || !self.is_worth_a_take(&state) {
                    return Ok(false);
                }
                state = self.drain_scattered(node, state)?;
                continue;
            };
            drop(state);
            let cut = catch_unwind(AssertUnwindSafe(|| {
                self.ingest_bytes(node.ino, spec, start, &data, true)
            }));
            let cut = cut.unwrap_or_else(|_| Err(panicked()));
            state = node.state.write();
            state.taken = None;
            let staged = cut.and_then(|done| {
                self.stage_cut(node.ino, spec, start, &done)?;
                Ok(done.rest)
            });
            let rest = *staged.as_ref().unwrap_or(&0);
            let next = start + rest as u64;
            let room = self.stream_room(&state);
            state.dirty.write_under(next, &data[rest..], room);
            state.clean_cut = staged.is_ok().then_some(next);
            self.files.note_dirty(node, &state);
            node.note_cut();
            staged?;
        }
        Ok(true)
    }

    /// Drains some of what was written here and there. Readers see a copy of it meanwhile; who else
    /// would change the file waits, as for a stream. With the copy it takes `file_dirty_bytes`.
    fn drain_scattered<'a>(
        &self,
        node: &'a FileNode,
        mut state: RwLockWriteGuard<'a, FileState>,
    ) -> Result<RwLockWriteGuard<'a, FileState>> {
        let dirty = state.dirty.take_first(self.file_dirty_max() / 2);
        let _counted = Counted::new(2 * dirty.memory(), &self.held.cutting);
        state.taken = Some(Taken::Scattered(dirty.clone()));
        let class = state.class;
        let mut older = FileState { dirty, class, ..FileState::default() };
        self.files.note_dirty(node, &state);
        drop(state);
        let drained =
            catch_unwind(AssertUnwindSafe(|| self.drain_state(node, &mut older, Drain::All)));
        let drained = drained.unwrap_or_else(|_| Err(panicked()));
        state = node.state.write();
        state.taken = None;
        state.class = state.class.or(older.class);
        state.clean_cut = None;
        state.dirty.put_under(older.dirty);
        self.files.note_dirty(node, &state);
        node.note_cut();
        drained.map(|()| state)
    }

    /// Takes a stream that has gathered enough.
    fn take_stream(
        &self,
        node: &FileNode,
        state: &mut FileState,
    ) -> Result<Option<(&ClassSpec, u64, Bytes)>> {
        let Some(longest) = state.dirty.longest() else { return Ok(None) };
        if state.taken.is_some() || longest.end - longest.start < self.stream_bytes(state) as u64 {
            return Ok(None);
        }
        let Some(inode) = self.meta.read().inode(At::Live, node.ino)? else { return Ok(None) };
        let class = self.content_class(node.ino, state, &inode, longest.start)?;
        let spec = self.classifier.class(class);
        let Region { start, data } =
            self.take_region(node.ino, state, spec, longest.start, Drain::Stream)?;
        let data = Bytes::from_owner(CutBuffer::new(data, &self.held.cutting));
        state.taken = Some(Taken::Stream { start, data: data.clone() });
        self.files.note_dirty(node, state);
        Ok(Some((spec, start, data)))
    }
}

fn panicked() -> Error {
    Error::invalid("Cutting panicked; see the log")
}

/// Serves the streams of a volume until it stops.
pub(super) fn cut_loop(streams: &Arc<Streams>, volume: &std::sync::Weak<Volume>) {
    while let Some(ino) = streams.next() {
        let Some(volume) = volume.upgrade() else { return };
        volume.cut_stream(ino);
    }
}
