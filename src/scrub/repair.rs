//! Repair: finds the bytes of damaged chunks in a tree of good copies.
//!
//! First where they should be: at the same path and offset as in the volume. Then everywhere: every
//! file of the tree is cut as its class says, and as the classes of the damaged chunks say, and the
//! fingerprints are compared. What has the fingerprint has the bytes: a wrong tree does no harm.
//! Memory: [`BATCH_CHUNKS`] damaged chunks at a time, about 100 bytes each, and one window.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::source::{Source, SourceFile, tails};
use crate::classify::{Chunking, Facts};
use crate::error::{Error, Result};
use crate::ingest;
use crate::limits::CHUNK_BYTES_MAX;
use crate::meta::{Extents, Reference, Reverse};
use crate::types::{At, ChunkNo, Fingerprint, Ino};
use crate::volume::{Damage, Volume};

/// Damaged chunks looked for at a time; a tree is walked once for each batch.
const BATCH_CHUNKS: usize = 500_000;
/// Inodes whose paths are looked up at a time.
const PLACES_INODES: usize = 10_000;
/// Raw bytes stored between two commits, as gc does.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
/// How much of a file is cut at a time: room for several largest chunks.
const WINDOW_BYTES: usize = 8 * CHUNK_BYTES_MAX as usize;

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairReport {
    /// Damaged chunks there were.
    pub damaged_chunks: u64,
    /// Chunks that were found and stored anew.
    pub repaired_chunks: u64,
    /// Their bytes.
    pub repaired_bytes: u64,
    /// Of these chunks: found at their path and offset.
    pub found_in_place: u64,
    /// Files of the tree that were searched.
    pub files_searched: u64,
    /// Files and directories of the tree that could not be read.
    pub files_skipped: u64,
    /// True if it was told to stop.
    pub stopped: bool,
    /// What is still damaged, and whom it hits.
    pub damage: Damage,
}

/// Stores the bytes of damaged chunks anew that lie in the tree `from`.
///
/// # Errors
/// `Busy` if a scrub runs; `Invalid`, `Io` for a tree that cannot be used; `NoSpace`, `Poisoned`,
/// `ReadOnly`, `Kv`, `Corrupt`.
pub fn repair(
    volume: &Volume,
    from: &Path,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(&str),
) -> Result<RepairReport> {
    let source = Source::open(from)?;
    if source.root().starts_with(volume.dir()) {
        let what = format!("{} lies in the volume itself; name another copy", from.display());
        return Err(Error::invalid(what));
    }
    let _turn = volume.scrub_on_demand()?;
    volume.commit()?;
    let mut work =
        Work { volume, source, stop, progress, report: RepairReport::default(), uncommitted: 0 };
    let mut after = None;
    loop {
        let batch = volume.store_for_check().damaged(after, BATCH_CHUNKS)?;
        let Some(last) = batch.last() else { break };
        after = Some(*last);
        work.report.damaged_chunks += batch.len() as u64;
        let mut missing = Missing::of(volume, &batch)?;
        if !work.stopped() {
            work.in_place(&mut missing)?;
            work.everywhere(&mut missing)?;
        }
    }
    volume.commit()?;
    let mut report = work.report;
    report.damage = volume.damage()?;
    Ok(report)
}

/// Chunks whose bytes are looked for.
#[derive(Default)]
struct Missing {
    by_fingerprint: HashMap<Fingerprint, (ChunkNo, u32)>,
    by_chunk: HashMap<ChunkNo, (Fingerprint, u32)>,
    /// Their lengths: only a chunk with one of them needs a fingerprint.
    lens: HashSet<usize>,
    /// How the classes of their containers cut.
    chunkings: Vec<Chunking>,
}

impl Missing {
    fn of(volume: &Volume, batch: &[ChunkNo]) -> Result<Self> {
        let store = volume.store_for_check();
        let mut missing = Self::default();
        for chunk in batch {
            let Some(row) = store.row_of(*chunk)? else { continue };
            missing.by_fingerprint.insert(row.fingerprint, (*chunk, row.raw_len));
            missing.by_chunk.insert(*chunk, (row.fingerprint, row.raw_len));
            missing.lens.insert(row.raw_len as usize);
            if let Ok(home) = store.container(row.container) {
                missing.add_chunking(volume.classifier().class(home.class).chunking);
            }
        }
        Ok(missing)
    }

    fn add_chunking(&mut self, chunking: Chunking) {
        if !self.chunkings.contains(&chunking) {
            self.chunkings.push(chunking);
        }
    }

    fn found(&mut self, fingerprint: &Fingerprint) {
        if let Some((chunk, _)) = self.by_fingerprint.remove(fingerprint) {
            self.by_chunk.remove(&chunk);
        }
    }

    fn is_empty(&self) -> bool {
        self.by_fingerprint.is_empty()
    }
}

/// Where a chunk begins in a file of the volume: inode → offset → chunk.
type Places = BTreeMap<Ino, BTreeMap<u64, ChunkNo>>;

struct Work<'a> {
    volume: &'a Volume,
    source: Source,
    stop: &'a dyn Fn() -> bool,
    progress: &'a mut dyn FnMut(&str),
    report: RepairReport,
    /// Raw bytes stored since the last commit.
    uncommitted: u64,
}

impl Work<'_> {
    fn stopped(&mut self) -> bool {
        self.report.stopped |= (self.stop)();
        self.report.stopped
    }

    /// Looks at the paths and offsets where the volume has the chunks.
    fn in_place(&mut self, missing: &mut Missing) -> Result<()> {
        (self.progress)("Looking for the damaged bytes at their own paths");
        let state = self.volume.metadata_snapshot();
        let reverse = Reverse::new(&*state);
        let mut epochs: Vec<_> = self.volume.snapshots().iter().map(|s| s.epoch).collect();
        epochs.sort_unstable();
        let newest = |found: &Reference| {
            epochs.iter().rev().find(|epoch| found.is_seen_at(**epoch)).copied()
        };
        for part in [Extents::Live, Extents::Past] {
            let mut from = Some(Ino(0));
            while let Some(first) = from.take() {
                let (mut places, mut wanted) = (Places::new(), HashMap::new());
                let is_missing = |chunk| missing.by_chunk.contains_key(&chunk);
                reverse.references(part, first, &is_missing, &mut |reference| {
                    let ino = reference.ino;
                    if places.len() >= PLACES_INODES && !places.contains_key(&ino) {
                        from = Some(ino);
                        return ControlFlow::Break(());
                    }
                    let at = match part {
                        Extents::Live => Some(At::Live),
                        Extents::Past => newest(&reference).map(At::Epoch),
                    };
                    let extent = reference.extent;
                    let start = extent.offset.checked_sub(u64::from(extent.chunk_offset));
                    if let Some((at, start)) = at.zip(start) {
                        wanted.insert(ino, at);
                        places.entry(ino).or_default().insert(start, extent.chunk);
                    }
                    ControlFlow::Continue(())
                })?;
                let paths = reverse.paths(&wanted)?;
                for (ino, chunks) in places {
                    if self.stopped() || missing.is_empty() {
                        return Ok(());
                    }
                    self.at_paths(paths.get(&ino).map_or(&[], Vec::as_slice), &chunks, missing)?;
                }
            }
        }
        Ok(())
    }

    fn at_paths(
        &mut self,
        paths: &[Vec<u8>],
        chunks: &BTreeMap<u64, ChunkNo>,
        missing: &mut Missing,
    ) -> Result<()> {
        for path in paths.iter().flat_map(|path| tails(path)) {
            let Some(copy) = self.source.file(&path) else { continue };
            for (offset, chunk) in chunks {
                let Some((fingerprint, len)) = missing.by_chunk.get(chunk).copied() else {
                    continue;
                };
                let mut raw = vec![0; len as usize];
                if copy.file.read_exact_at(&mut raw, *offset).is_ok()
                    && Fingerprint::of(&raw) == fingerprint
                    && self.store(fingerprint, raw.into(), missing)?
                {
                    self.report.found_in_place += 1;
                }
            }
        }
        Ok(())
    }

    /// Cuts every file of the tree.
    fn everywhere(&mut self, missing: &mut Missing) -> Result<()> {
        if missing.is_empty() || self.stopped() {
            return Ok(());
        }
        let source = Source::open(self.source.root())?;
        let mut files = source.files();
        let mut window = Vec::new();
        for copy in files.by_ref() {
            if missing.is_empty() || self.stopped() {
                break;
            }
            if self.report.files_searched.is_multiple_of(100) {
                (self.progress)(&format!(
                    "Searching, {} files done, {} chunks repaired",
                    self.report.files_searched, self.report.repaired_chunks
                ));
            }
            self.report.files_searched += 1;
            self.search(&copy, missing, &mut window)?;
        }
        self.report.files_skipped += files.skipped;
        Ok(())
    }

    /// Cuts one file in every way that may find something.
    fn search(
        &mut self,
        copy: &SourceFile,
        missing: &mut Missing,
        window: &mut Vec<u8>,
    ) -> Result<()> {
        let mut chunkings = missing.chunkings.clone();
        let own = self.chunking_of(copy);
        if !chunkings.contains(&own) {
            chunkings.push(own);
        }
        for chunking in chunkings {
            if copy.len > 0 && !missing.is_empty() && !self.cut(copy, chunking, missing, window)? {
                self.report.files_skipped += 1;
                return Ok(());
            }
        }
        Ok(())
    }

    /// How the file would be cut if it was written into the volume now.
    fn chunking_of(&self, copy: &SourceFile) -> Chunking {
        let classifier = self.volume.classifier();
        let mut head = vec![0; classifier.head_bytes()];
        let len = copy.file.read_at(&mut head, 0).unwrap_or(0);
        let owner = copy.file.metadata().map_or((0, 0), |found| (found.uid(), found.gid()));
        let verdict = classifier.classify(&Facts {
            name: copy.path.file_name().unwrap_or_default().as_bytes(),
            path: Some(copy.path.as_os_str().as_bytes()),
            uid: owner.0,
            gid: owner.1,
            size: copy.len,
            head: &head[..len],
        });
        classifier.class(verdict.class).chunking
    }

    /// Cuts one file in one way and compares. False if it cannot be read to its end.
    fn cut(
        &mut self,
        copy: &SourceFile,
        chunking: Chunking,
        missing: &mut Missing,
        window: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut begin = 0;
        window.clear();
        loop {
            let Some(ended) = fill(copy, begin, window) else { return Ok(false) };
            let (chunks, rest) = ingest::cuts(chunking, window, begin, !ended);
            for range in chunks {
                if !missing.lens.contains(&range.len()) {
                    continue;
                }
                let raw = &window[range];
                let fingerprint = Fingerprint::of(raw);
                if missing.by_fingerprint.contains_key(&fingerprint) {
                    self.store(fingerprint, Bytes::copy_from_slice(raw), missing)?;
                }
            }
            if ended || missing.is_empty() || self.stopped() {
                return Ok(true);
            }
            // A window holds several largest chunks, so something was cut.
            assert!(rest > 0, "cutting goes on");
            window.drain(..rest);
            begin += rest as u64;
        }
    }

    /// Stores what was found; false if the volume does not need it any more.
    fn store(&mut self, found: Fingerprint, raw: Bytes, missing: &mut Missing) -> Result<bool> {
        let Some((chunk, len)) = missing.by_fingerprint.get(&found).copied() else {
            return Ok(false);
        };
        missing.found(&found);
        if !self.volume.restore_chunk(chunk, raw)? {
            return Ok(false);
        }
        self.report.repaired_chunks += 1;
        self.report.repaired_bytes += u64::from(len);
        self.uncommitted += u64::from(len);
        if self.uncommitted >= COMMIT_BYTES {
            self.volume.commit()?;
            self.uncommitted = 0;
        }
        Ok(true)
    }
}

/// Fills the window, whose first byte is byte `begin` of the file. True if the file ends with it;
/// `None` if the file cannot be read.
fn fill(copy: &SourceFile, begin: u64, window: &mut Vec<u8>) -> Option<bool> {
    let mut len = window.len();
    window.resize(WINDOW_BYTES, 0);
    while len < WINDOW_BYTES {
        match copy.file.read_at(&mut window[len..], begin + len as u64) {
            Ok(0) => {
                window.truncate(len);
                return Some(true);
            }
            Ok(read) => len += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(false)
}
