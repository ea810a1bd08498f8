//! The writing end of one lane: a shard's open container of one class.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::container::{ContainerHeader, FooterBuilder, HEADER_BYTES};
use super::pending::{Lane, StoredChunk};
use super::rows::{ContainerRow, ContainerState};
use super::scan::footer_so_far;
use crate::env::{Faults, Point};
use crate::error::{Error, Result};
use crate::shard::{Appender, Shard};
use crate::types::{ChunkNo, ContainerId, VolumeId};

/// Zeros after a payload; a frame never needs as many as its alignment.
const ZEROS: [u8; 8] = [0; 8];

/// A container is sealed when its footer has this many bytes: 47,000 chunks; one of 32 MiB whose
/// chunks have 16 KiB has about 2,000.
pub(super) const FOOTER_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What a writer needs to know of its store.
pub(super) struct Site<'a> {
    pub(super) shard: &'a dyn Shard,
    pub(super) lane: Lane,
    pub(super) volume: VolumeId,
    pub(super) next_container: &'a AtomicU64,
    pub(super) container_bytes: u32,
    pub(super) faults: &'a Faults,
}

/// A frame ready to be written.
pub(super) struct ReadyFrame<'a> {
    /// Header and directory.
    pub(super) head: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) padding: u32,
    pub(super) raw_len: u32,
    /// Numbers of its chunks.
    pub(super) chunks: &'a [ChunkNo],
}

pub(super) struct OpenContainer {
    id: ContainerId,
    appender: Box<dyn Appender>,
    footer: FooterBuilder,
    /// Where its frames are, until its footer so far was collected from them.
    unread: Option<Arc<dyn Shard>>,
    /// Bytes at which it is full.
    full_at: u64,
    /// Up to date but for `bytes`, which the next seal sets.
    row: ContainerRow,
    /// Its row or bytes changed since the last seal.
    dirty: bool,
    /// Its file is complete and durable.
    ended: bool,
}

impl OpenContainer {
    fn create(site: &Site<'_>) -> Result<Self> {
        site.faults.hit(Point::ContainerCreate)?;
        let (id, mut appender) = loop {
            let id = ContainerId(site.next_container.fetch_add(1, Ordering::Relaxed));
            match site.shard.create(id) {
                Ok(appender) => break (id, appender),
                // A leftover of a crash on a shard that was added later: its number is burnt.
                Err(Error::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        let (shard, class) = site.lane;
        let header = ContainerHeader { class, shard, id, volume: site.volume };
        let begun = site.faults.hit(Point::ContainerHeader);
        if let Err(error) = begun.and_then(|()| appender.append(&[&header.to_bytes()])) {
            drop(appender);
            // Without a row it is a leftover; the next opening would remove it as well.
            if let Err(error) = site.shard.delete(id) {
                log::warn!("Leftover container stays container={id} cause={error}");
            }
            return Err(error);
        }
        let row = ContainerRow {
            state: ContainerState::Open,
            class,
            shard,
            bytes: 0,
            chunks: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            first: ChunkNo(u64::MAX),
            last: ChunkNo(0),
        };
        let (footer, full_at) = (FooterBuilder::default(), u64::from(site.container_bytes));
        Ok(Self { id, appender, footer, unread: None, full_at, row, dirty: true, ended: false })
    }

    /// One that was open when the volume was closed, cut to its committed length.
    pub(super) fn reopened(
        id: ContainerId,
        appender: Box<dyn Appender>,
        row: ContainerRow,
        full_at: u32,
        shard: &Arc<dyn Shard>,
    ) -> Self {
        let (footer, unread) = (FooterBuilder::default(), Some(Arc::clone(shard)));
        let full_at = full_at.into();
        Self { id, appender, footer, unread, full_at, row, dirty: false, ended: false }
    }

    /// Collects the footer so far of one that was reopened. If its frames are not to be found, it
    /// has ended as it is: without a footer, as the frames tell what it holds.
    fn know_footer(&mut self, faults: &Faults) -> Result<()> {
        let Some(shard) = &self.unread else { return Ok(()) };
        faults.hit(Point::RecoverScan)?;
        match footer_so_far(&**shard, self.id, self.row.bytes) {
            Ok(footer) => self.footer = footer,
            Err(cause) => {
                // Nothing is said against a container whose whole shard is gone.
                shard.probe()?;
                if !is_lasting(&cause) {
                    return Err(cause);
                }
                log_closed(self.id, &cause);
                self.row.state = ContainerState::Sealed;
                (self.ended, self.dirty) = (true, true);
            }
        }
        self.unread = None;
        Ok(())
    }

    /// The footer counts: chunks of a few bytes need more directory than data. It is in memory
    /// until then, so it is bounded by itself, too.
    fn is_full(&self) -> bool {
        let full = self.footer.len() >= FOOTER_BYTES_MAX || self.sealed_bytes() >= self.full_at;
        full || self.ended
    }

    /// Bytes it has when it is sealed now.
    fn sealed_bytes(&self) -> u64 {
        self.appender.len() + self.footer.len()
    }

    fn append(&mut self, frame: &ReadyFrame<'_>, faults: &Faults) -> Result<u32> {
        faults.hit(Point::FrameAppend)?;
        let padding = &ZEROS[..frame.padding as usize];
        let before = self.appender.len();
        let offset = self.appender.append(&[frame.head, frame.payload, padding])?;
        faults.pass(Point::FrameAppended);
        let offset = u32::try_from(offset).expect("a container is sealed far below 4 GiB");
        self.footer.push(offset, frame.head);
        self.dirty = true;
        let row = &mut self.row;
        row.chunks += frame.chunks.len() as u64;
        row.raw_bytes += u64::from(frame.raw_len);
        row.stored_bytes += self.appender.len() - before;
        for chunk in frame.chunks {
            row.first = row.first.min(*chunk);
            row.last = row.last.max(*chunk);
        }
        Ok(offset)
    }

    /// Writes the footer and makes the container durable; nothing is appended any more.
    fn finish(&mut self, faults: &Faults) -> Result<()> {
        self.know_footer(faults)?;
        if self.row.state == ContainerState::Open {
            faults.hit(Point::FooterAppend)?;
            self.appender.append(&[&self.footer.to_bytes()])?;
            self.row.state = ContainerState::Sealed;
            self.footer = FooterBuilder::default();
            self.dirty = true;
        }
        if !self.ended {
            faults.hit(Point::ContainerSeal)?;
            self.appender.seal()?;
            faults.pass(Point::ContainerSealed);
            self.row.bytes = self.appender.len();
            self.ended = true;
        }
        Ok(())
    }
}

/// What is readable of it stays readable; nothing more is appended.
pub(super) fn log_closed(container: ContainerId, cause: &Error) {
    log::error!("Open container closed container={container} cause={cause}");
}

/// Damage, as opposed to a disk that will answer later.
fn is_lasting(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::NotFound { .. }) || error.is_medium_error()
}

/// A container that gets no more frames; it waits for its footer or its sync.
pub(super) struct Closing {
    id: ContainerId,
    container: Mutex<OpenContainer>,
    /// Bytes of its footer, until that is written.
    footer_bytes: u64,
}

impl Closing {
    fn new(container: OpenContainer) -> Arc<Self> {
        let (id, footer_bytes) = (container.id, container.footer.len());
        Arc::new(Self { id, container: Mutex::new(container), footer_bytes })
    }

    /// Writes the footer and makes the container durable before the seal that would do it, and
    /// without the writer's lock: others go on with the next container meanwhile.
    pub(super) fn finish(&self, faults: &Faults) {
        // The frames are safe with or without the footer: the seal tries again and reports.
        if let Err(error) = self.container.lock().finish(faults) {
            log::warn!("Footer not written yet container={} cause={error}", self.id);
        }
    }

    fn footer_bytes(&self) -> u64 {
        // Who holds it is writing the footer.
        self.container.try_lock().map_or(self.footer_bytes, |container| container.footer.len())
    }
}

/// Where a frame was put.
pub(super) struct Placed {
    pub(super) container: ContainerId,
    pub(super) offset: u32,
    /// The frame filled its container: to be finished when the writer has been let go.
    pub(super) full: Option<Arc<Closing>>,
}

#[derive(Default)]
pub(super) struct Writer {
    current: Option<OpenContainer>,
    /// Full.
    closing: Vec<Arc<Closing>>,
    /// The most that their footers can still take in memory.
    closing_bytes: u64,
    /// Rows made since the last seal.
    stored: Vec<StoredChunk>,
}

/// Container rows of one seal.
pub(super) type ContainerRows = Vec<(ContainerId, ContainerRow)>;

impl Writer {
    /// Takes over a container that was open when the volume was closed.
    pub(super) fn adopt(&mut self, container: OpenContainer) {
        if self.current.is_none() && !container.is_full() {
            self.current = Some(container);
        } else {
            self.set_aside(container);
        }
    }

    /// Writes a frame.
    pub(super) fn append(&mut self, site: &Site<'_>, frame: &ReadyFrame<'_>) -> Result<Placed> {
        self.settle(site.faults)?;
        let mut container = match self.current.take() {
            Some(container) => container,
            None => OpenContainer::create(site)?,
        };
        let offset = container.append(frame, site.faults);
        let id = container.id;
        let full = if container.is_full() {
            Some(self.set_aside(container))
        } else {
            self.current = Some(container);
            None
        };
        let growing = self.current.as_ref().map_or(0, |open| open.footer.len());
        if self.closing_bytes + growing >= FOOTER_BYTES_MAX {
            // They are bounded together: those that are not written yet are waited for.
            self.closing.iter().for_each(|full| full.finish(site.faults));
            self.closing_bytes = 0;
        }
        Ok(Placed { container: id, offset: offset?, full })
    }

    /// Has the footer of the open container in memory, or sets aside one that turns out to be full
    /// or damaged.
    fn settle(&mut self, faults: &Faults) -> Result<()> {
        if let Some(open) = &mut self.current {
            open.know_footer(faults)?;
        }
        if let Some(full) = self.current.take_if(|open| open.is_full()) {
            self.set_aside(full);
        }
        Ok(())
    }

    /// A container that gets no more frames.
    fn set_aside(&mut self, container: OpenContainer) -> Arc<Closing> {
        let closing = Closing::new(container);
        self.closing_bytes += closing.footer_bytes;
        self.closing.push(Arc::clone(&closing));
        closing
    }

    /// Notes rows for the next seal.
    pub(super) fn note(&mut self, stored: Vec<StoredChunk>) {
        self.stored.extend(stored);
    }

    /// Lets the next seal close the open container, however small, if `which` names it.
    pub(super) fn close(&mut self, which: impl Fn(ContainerId) -> bool) {
        if let Some(closed) = self.current.take_if(|open| which(open.id)) {
            self.set_aside(closed);
        }
    }

    /// Bytes the open container would have if it were sealed now.
    ///
    /// # Errors
    /// What the shard says when it is asked for the frames.
    pub(super) fn if_closed(&mut self, faults: &Faults) -> Result<Option<(ContainerId, u64)>> {
        self.settle(faults)?;
        Ok(self.current.as_ref().map(|open| (open.id, open.sealed_bytes())))
    }

    /// Lets go of the open container, unless something in it is not committed: then false.
    pub(super) fn release(&mut self) -> bool {
        let committed = self.is_sealed();
        if committed {
            self.current = None;
        }
        committed
    }

    /// True if it has this container open.
    pub(super) fn has(&self, id: ContainerId) -> bool {
        let closing = self.closing.iter().any(|closing| closing.id == id);
        closing || self.current.as_ref().is_some_and(|open| open.id == id)
    }

    /// Bytes of the footers of what is not sealed.
    pub(super) fn footer_bytes(&self) -> u64 {
        let closing = self.closing.iter().map(|closing| closing.footer_bytes());
        closing.chain(self.current.as_ref().map(|open| open.footer.len())).sum()
    }

    /// True if a seal would do nothing.
    pub(super) fn is_sealed(&self) -> bool {
        let dirty = self.current.as_ref().is_some_and(|container| container.dirty);
        !dirty && self.closing.is_empty() && self.stored.is_empty()
    }

    /// Makes everything durable; returns the rows that say so.
    pub(super) fn seal(&mut self, faults: &Faults) -> Result<(ContainerRows, Vec<StoredChunk>)> {
        let mut rows = Vec::new();
        let mut closing: Vec<_> = self.closing.iter().map(|full| full.container.lock()).collect();
        for container in &mut closing {
            match container.finish(faults) {
                // It stays open, durable as it is, until there is room.
                Err(error @ Error::NoSpace { .. }) => {
                    log::warn!("Footer not written container={} cause={error}", container.id);
                }
                other => other?,
            }
        }
        let all = closing.iter_mut().map(|guard| &mut **guard).chain(&mut self.current);
        for container in all {
            if container.dirty {
                if !container.ended {
                    faults.hit(Point::ContainerSync)?;
                    container.appender.sync()?;
                    faults.pass(Point::ContainerSynced);
                    container.row.bytes = container.appender.len();
                }
                container.dirty = false;
                rows.push((container.id, container.row));
            }
        }
        // Looked at before they are let go: a worker may finish one right after, and the next seal
        // has to write its row then.
        let open: Vec<_> = closing.iter().map(|c| c.row.state == ContainerState::Open).collect();
        drop(closing);
        let mut open = open.into_iter();
        self.closing.retain(|_| open.next() == Some(true));
        self.closing_bytes = self.closing.iter().map(|full| full.footer_bytes()).sum();
        debug_assert!(rows.iter().all(|(_, row)| row.bytes >= u64::from(HEADER_BYTES)));
        Ok((rows, std::mem::take(&mut self.stored)))
    }
}
