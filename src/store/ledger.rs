//! What is known of the health of chunks and containers, and how it gets into the database.
//!
//! Three things are found between two commits and recorded with the next one: chunks that cannot be
//! read, chunks that were recorded as bad and read well again, and containers that were verified.
//! Each is recorded only if it still holds for the committed place: a chunk may have been stored
//! anew meanwhile, a container may be gone. Table `damaged` has exactly the chunks whose row says
//! bad, so that nobody needs to walk all chunks to find the few.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::core::Core;
use super::pending::{NewChunk, Pending};
use super::rows::{
    ChunkRow, ContainerRow, FingerprintRow, Health, chunk_key, container_key, parse_key,
};
use super::verify::Report;
use super::workers;
use super::{PutHint, Store};
use crate::cursor::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::kv::{Batch, KeyRange, Kv, Order, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint};

/// Value in `scrub`: what the last verification of a container found.
///
/// | field   | form   | rule                                    |
/// |---------|--------|-----------------------------------------|
/// | time    | varint | microseconds since 1970, when it ended  |
/// | bytes   | varint | committed length that was verified      |
/// | damaged | varint | chunks that could not be read           |
/// | flaws   | varint | damage that hits no chunk               |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubRow {
    /// When it ended, in microseconds since 1970.
    pub time_micros: u64,
    /// Committed length of the container that was verified.
    pub bytes: u64,
    /// Chunks that could not be read.
    pub damaged: u64,
    /// Damage that hits no chunk: header, footer, checksums.
    pub flaws: u64,
}

impl ScrubRow {
    /// The row as stored.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        for field in [self.time_micros, self.bytes, self.damaged, self.flaws] {
            put_varint(&mut out, field);
        }
        out
    }

    /// Parses the row of container `id`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn parse(id: ContainerId, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut parse = || {
            let row = Self {
                time_micros: reader.varint()?,
                bytes: reader.varint()?,
                damaged: reader.varint()?,
                flaws: reader.varint()?,
            };
            reader.finish(row)
        };
        parse()
            .ok_or_else(|| Error::corrupt(format!("row {id} of table scrub"), "it does not parse"))
    }
}

/// What waits to be recorded.
pub(super) struct Found {
    bad: HashMap<ChunkNo, ChunkRow>,
    good: HashMap<ChunkNo, ChunkRow>,
    pub(super) verified: HashMap<ContainerId, ScrubRow>,
}

impl Found {
    pub(super) fn of(pending: &Pending) -> Self {
        Self {
            bad: pending.bad.clone(),
            good: pending.good.clone(),
            verified: pending.verified.clone(),
        }
    }
}

/// What a batch records of the health of chunks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Marked bad by it.
    bad: HashMap<ChunkNo, ChunkRow>,
    /// Not true any more: the chunk is gone or lies elsewhere.
    stale: HashMap<ChunkNo, ChunkRow>,
    /// Looked at as good, whatever became of it.
    good: HashMap<ChunkNo, ChunkRow>,
}

impl Marks {
    /// True if the batch marks a chunk bad.
    pub(super) fn has_bad(&self) -> bool {
        !self.bad.is_empty()
    }

    /// The batch is durable: forgets what it recorded, unless something newer was found since.
    pub(super) fn drop_recorded(&self, pending: &mut Pending) {
        for (chunk, row) in self.bad.iter().chain(&self.stale) {
            if pending.bad.get(chunk) == Some(row) {
                pending.bad.remove(chunk);
            }
        }
        for (chunk, row) in &self.good {
            if pending.good.get(chunk) == Some(row) {
                pending.good.remove(chunk);
            }
        }
    }
}

/// Verifications that a batch records, or that were of containers that are gone.
pub(super) type Verified = HashMap<ContainerId, ScrubRow>;

/// The batch is durable: forgets the verifications in it.
pub(super) fn drop_recorded(verified: &Verified, pending: &mut Pending) {
    for (id, row) in verified {
        if pending.verified.get(id) == Some(row) {
            pending.verified.remove(id);
        }
    }
}

impl Core {
    /// Puts what was found about chunks into the batch.
    pub(super) fn health_rows(&self, found: &Found, changes: &mut Batch) -> Result<Marks> {
        let mut marks = Marks { good: found.good.clone(), ..Marks::default() };
        for (chunk, place) in &found.bad {
            match self.chunk_row(*chunk)? {
                Some(row) if row.same_place(place) => {
                    self.mark(*chunk, &row, Health::Bad, changes)?;
                    marks.bad.insert(*chunk, *place);
                }
                // It was found before its row is committed: the next batch marks it.
                _ if self.pending.lock().is_stored_at(*chunk, place) => {}
                _ => {
                    marks.stale.insert(*chunk, *place);
                }
            }
        }
        for (chunk, place) in &found.good {
            let row = self.chunk_row(*chunk)?;
            if let Some(row) = row.filter(|row| row.same_place(place)) {
                self.mark(*chunk, &row, Health::Good, changes)?;
            }
        }
        if !marks.bad.is_empty() {
            self.has_damage.store(true, Relaxed);
        }
        Ok(marks)
    }

    fn mark(
        &self,
        chunk: ChunkNo,
        row: &ChunkRow,
        health: Health,
        changes: &mut Batch,
    ) -> Result<()> {
        let row = ChunkRow { health, ..*row };
        changes.put(Table::Chunk, chunk_key(chunk), row.to_bytes());
        if self.chunk_with(row.fingerprint) == Some(chunk) {
            let by_fingerprint = FingerprintRow { health, chunk };
            changes.put(Table::Fingerprint, row.fingerprint.0, by_fingerprint.to_bytes());
        }
        match health {
            Health::Bad => changes.put(Table::Damaged, chunk_key(chunk), Vec::new()),
            Health::Good => changes.delete(Table::Damaged, chunk_key(chunk)),
        }
        Ok(())
    }

    /// A chunk that is stored anew is not damaged any more.
    pub(super) fn forget_damage(
        &self,
        chunk: ChunkNo,
        marks: &Marks,
        changes: &mut Batch,
    ) -> Result<()> {
        let key = chunk_key(chunk);
        let asked = self.has_damage.load(Relaxed);
        if marks.bad.contains_key(&chunk) || (asked && self.kv.get(Table::Damaged, &key)?.is_some())
        {
            changes.delete(Table::Damaged, key);
        }
        Ok(())
    }

    /// Puts the verifications of containers that are still there into the batch.
    pub(super) fn verified_rows(
        &self,
        verified: Verified,
        changes: &mut Batch,
    ) -> Result<Verified> {
        for (id, row) in &verified {
            if self.kv.get(Table::Container, &container_key(*id))?.is_some() {
                changes.put(Table::Scrub, container_key(*id), row.to_bytes());
            }
        }
        Ok(verified)
    }

    /// After a commit, or at the beginning: is there any damaged chunk left?
    pub(super) fn look_for_damage(&self) {
        if self.has_damage.load(Relaxed) {
            let first = self.kv.scan(Table::Damaged, &KeyRange::all(), Order::Forward).next();
            self.has_damage.store(first.is_some(), Relaxed);
        }
    }

    /// Committed numbers of damaged chunks above `after`, at most `limit`.
    pub(super) fn damaged(&self, after: Option<ChunkNo>, limit: usize) -> Result<Vec<ChunkNo>> {
        let lower = after.and_then(|chunk| chunk.0.checked_add(1)).unwrap_or(0);
        let range = KeyRange { lower: chunk_key(ChunkNo(lower)).to_vec(), upper: None };
        let rows = self.kv.scan(Table::Damaged, &range, Order::Forward).take(limit);
        rows.map(|row| Ok(ChunkNo(parse_key("damaged", &row?.0)?))).collect()
    }

    /// Calls `each` for every committed container, in number order, with its last verification,
    /// recorded or not. Both tables are walked side by side: memory does not grow with them.
    pub(super) fn each_verified(
        &self,
        mut each: impl FnMut(ContainerId, &ContainerRow, Option<ScrubRow>),
    ) -> Result<()> {
        let fresh = self.pending.lock().verified.clone();
        let scan = |table| self.kv.scan(table, &KeyRange::all(), Order::Forward);
        let mut ledger = scan(Table::Scrub).peekable();
        for row in scan(Table::Container) {
            let (key, value) = row?;
            let id = ContainerId(parse_key("container", &key)?);
            let row = ContainerRow::parse(id, &value)?;
            // Rows of containers that are gone are possible only in a damaged database.
            while ledger.next_if(|row| matches!(row, Ok((other, _)) if *other < key)).is_some() {}
            let same = |row: &Result<_>| matches!(row, Ok((other, _)) if *other == key);
            let recorded = match ledger.next_if(|row| row.is_err() || same(row)).transpose()? {
                Some((_, value)) => Some(ScrubRow::parse(id, &value)?),
                None => None,
            };
            each(id, &row, fresh.get(&id).copied().or(recorded));
        }
        Ok(())
    }
}

/// Checks that table `damaged` has exactly the chunks whose rows say bad.
pub(super) fn audit_damaged(kv: &dyn Kv, bad: u64, problems: &mut Vec<String>) -> Result<()> {
    let mut listed = 0;
    for row in kv.scan(Table::Damaged, &KeyRange::all(), Order::Forward) {
        let chunk = match parse_key("damaged", &row?.0) {
            Ok(number) => ChunkNo(number),
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let row = kv.get(Table::Chunk, &chunk_key(chunk))?;
        let row = row.and_then(|row| ChunkRow::parse(chunk, &row).ok());
        if row.is_some_and(|row| row.health == Health::Bad) {
            listed += 1;
        } else {
            problems.push(format!("Chunk {chunk} is listed as damaged and its row says otherwise"));
        }
    }
    if listed != bad {
        problems.push(format!("{bad} chunks are damaged and {listed} of them are listed"));
    }
    Ok(())
}

impl Store {
    /// Reads and verifies a committed container: header, footer, every frame and chunk. Damaged
    /// chunks are remembered, as when a read meets them.
    ///
    /// # Errors
    /// `NotFound`; `Shard` if its shard is not there; `Kv`. Damage is in the report.
    pub fn verify_container(&self, id: ContainerId) -> Result<Report> {
        let report = self.core.verify_container(id, &mut |_| true)?;
        report.ok_or_else(|| Error::invalid("The verification was stopped"))
    }

    /// As [`Store::verify_container`], at the pace of the caller: `pace` hears the length of every
    /// frame before it is read and may wait; when it says false, the rest is left (`None`).
    ///
    /// # Errors
    /// As [`Store::verify_container`]; `NotFound` also if the container was freed meanwhile.
    pub fn verify_paced(
        &self,
        id: ContainerId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Report>> {
        self.core.verify_container(id, pace)
    }

    /// Remembers that a container was verified; recorded with the next commit.
    pub fn note_verified(&self, id: ContainerId, row: ScrubRow) {
        self.core.pending.lock().verified.insert(id, row);
    }

    /// Calls `each` for every committed container in number order, with its last verification.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn each_verified(
        &self,
        each: impl FnMut(ContainerId, &ContainerRow, Option<ScrubRow>),
    ) -> Result<()> {
        self.core.each_verified(each)
    }

    /// Chunks recorded as damaged with a number above `after`, rising, at most `limit`. What was
    /// found since the last commit is not among them.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn damaged(&self, after: Option<ChunkNo>, limit: usize) -> Result<Vec<ChunkNo>> {
        self.core.damaged(after, limit)
    }

    /// Chunks found damaged since the last commit.
    #[must_use]
    pub fn found_bad(&self) -> Vec<ChunkNo> {
        self.core.pending.lock().bad.keys().copied().collect()
    }

    /// The committed row of a chunk.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn row_of(&self, chunk: ChunkNo) -> Result<Option<ChunkRow>> {
        self.core.chunk_row(chunk)
    }

    /// The committed row of a container.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt`, `Kv`.
    pub fn container(&self, id: ContainerId) -> Result<ContainerRow> {
        self.core.container(id)
    }

    /// Stores the bytes of a damaged chunk anew, under its number: all who refer to it are healed.
    /// False if the chunk is gone, is good or on its way, or these are not its bytes.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn restore(&self, chunk: ChunkNo, raw: Bytes, hint: PutHint) -> Result<bool> {
        let fingerprint = Fingerprint::of(&raw);
        let row = self.core.chunk_row(chunk)?;
        let wanted = |row: &ChunkRow| row.health == Health::Bad && row.fingerprint == fingerprint;
        if !row.as_ref().is_some_and(wanted) {
            return Ok(false);
        }
        self.core.shard(hint.shard)?;
        let jobs = {
            let mut pending = self.core.pending.lock();
            if let Some(cause) = &pending.failure {
                return Err(cause.clone());
            }
            if pending.contains(chunk) || pending.is_doomed(chunk) {
                return Ok(false);
            }
            pending.add(NewChunk { chunk, fingerprint, raw, buffer: None }, hint)
        };
        jobs.into_iter().for_each(|job| workers::submit(&self.core, job));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrub_rows_have_golden_bytes() {
        let row = ScrubRow { time_micros: 300, bytes: 4096, damaged: 2, flaws: 1 };
        assert_eq!(row.to_bytes(), [0xac, 2, 0x80, 0x20, 2, 1]);
        let id = ContainerId(1);
        assert_eq!(ScrubRow::parse(id, &row.to_bytes()).unwrap(), row);
        assert!(ScrubRow::parse(id, &row.to_bytes()[..5]).is_err());
        assert!(ScrubRow::parse(id, &[0, 0, 0, 0, 0]).is_err());
    }
}
