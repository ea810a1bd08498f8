//! Whom damage hits: chunks, the files that refer to them, the snapshots that show these.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Volume;
use crate::error::Result;
use crate::meta::{Extents, Reference, Reverse};
use crate::store::ChunkSet;
use crate::types::{At, ChunkNo, Ino, Snapshot};

/// Chunks and files listed one by one; further ones are only counted.
const LISTED_MAX: usize = 1000;
/// Snapshots and places listed of one file.
const TOLD_MAX: usize = 20;

/// A chunk that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamagedChunk {
    /// Its number.
    pub chunk: u64,
    /// Its container.
    pub container: u64,
    /// Name of the shard that has it.
    pub shard: String,
    /// Its bytes.
    pub bytes: u32,
}

/// A file with damaged bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamagedFile {
    /// Its inode.
    pub ino: u64,
    /// Its path from the root; below `.snapshots/NAME` if only snapshots show the damage. Bytes
    /// that are not UTF-8 are `\xNN`. Of a file without a name: its inode.
    pub path: String,
    /// Other paths of the same file (hard links); not more than a few.
    pub links: Vec<String>,
    /// True if the live tree shows the damage.
    pub live: bool,
    /// Damaged bytes of all its versions.
    pub bytes: u64,
    /// Where: offset, length and chunk; the first ones.
    pub ranges: Vec<(u64, u32, u64)>,
    /// Snapshots that show the damage; the newest ones.
    pub snapshots: Vec<String>,
    /// How many snapshots show it.
    pub snapshot_count: u64,
}

impl DamagedFile {
    /// All of it in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let names = [&self.path].into_iter().chain(&self.links).map(String::as_str);
        let names = names.collect::<Vec<_>>().join(", also ");
        let from = self.ranges.first().map_or(0, |(offset, _, _)| *offset);
        let bytes = self.bytes;
        let mut text = format!("File {names}: {bytes} damaged bytes, the first of them at {from}");
        if !self.snapshots.is_empty() {
            text = format!("{text}; in snapshots {}", self.snapshots.join(", "));
        }
        let told = self.snapshots.len() as u64;
        if self.snapshot_count > told {
            text = format!("{text} and {} more", self.snapshot_count - told);
        }
        text
    }
}

/// All damage that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// Damaged chunks.
    pub chunks: u64,
    /// The first of them.
    pub listed: Vec<DamagedChunk>,
    /// Files that they hit, by inode.
    pub files: Vec<DamagedFile>,
    /// Files beyond those listed; one that is in the live tree and in snapshots may count twice.
    pub more_files: u64,
}

/// What a file has lost so far.
struct Hit {
    live: bool,
    bytes: u64,
    ranges: Vec<(u64, u32, u64)>,
    /// One bit per snapshot, by age.
    snapshots: Vec<u64>,
}

impl Volume {
    /// Names all damage that is known: chunks, files, snapshots. Looks at the last commit, and at
    /// what was found since; costs a walk over all extents and all names if there is any damage,
    /// and nothing else.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn damage(&self) -> Result<Damage> {
        let mut damage = Damage::default();
        let mut set = ChunkSet::default();
        let mut add = |chunk| {
            if set.insert(chunk) {
                damage.chunks += 1;
                if damage.listed.len() < LISTED_MAX {
                    damage.listed.extend(self.damaged_chunk(chunk)?);
                }
            }
            Ok(())
        };
        self.each_damaged(usize::MAX, &mut add)?;
        self.store.found_bad().into_iter().try_for_each(&mut add)?;
        if damage.chunks > 0 {
            self.name_files(&set, &mut damage)?;
        }
        Ok(damage)
    }

    fn damaged_chunk(&self, chunk: ChunkNo) -> Result<Option<DamagedChunk>> {
        let Some(row) = self.store.row_of(chunk)? else { return Ok(None) };
        let home = self.store.container(row.container);
        Ok(Some(DamagedChunk {
            chunk: chunk.0,
            container: row.container.0,
            shard: home.map_or_else(|e| e.to_string(), |home| self.shard_place(home.shard)),
            bytes: row.raw_len,
        }))
    }

    fn name_files(&self, set: &ChunkSet, damage: &mut Damage) -> Result<()> {
        let state = self.kv.snapshot();
        let reverse = Reverse::new(&*state);
        let mut snapshots = self.snapshots();
        snapshots.sort_unstable_by_key(|snapshot| snapshot.epoch);
        let mut hits: BTreeMap<Ino, Hit> = BTreeMap::new();
        let mut last_more = None;
        for part in [Extents::Live, Extents::Past] {
            reverse.references(part, Ino(0), &|chunk| set.contains(chunk), &mut |reference| {
                let ino = reference.ino;
                if hits.len() < LISTED_MAX || hits.contains_key(&ino) {
                    let hit = hits.entry(ino).or_insert_with(|| Hit::new(snapshots.len()));
                    hit.add(&reference, &snapshots);
                } else if last_more != Some(ino) {
                    last_more = Some(ino);
                    damage.more_files += 1;
                }
                ControlFlow::Continue(())
            })?;
        }
        damage.files = named(&reverse, hits, &snapshots)?;
        Ok(())
    }
}

impl Hit {
    fn new(snapshots: usize) -> Self {
        let snapshots = vec![0; snapshots.div_ceil(64)];
        Self { live: false, bytes: 0, ranges: Vec::new(), snapshots }
    }

    fn add(&mut self, reference: &Reference, snapshots: &[Snapshot]) {
        self.live |= reference.end.is_none();
        self.bytes += u64::from(reference.extent.len);
        if self.ranges.len() < TOLD_MAX {
            let extent = reference.extent;
            self.ranges.push((extent.offset, extent.len, extent.chunk.0));
        }
        // Sorted by epoch, so those that see it lie together.
        let first = snapshots.partition_point(|snapshot| snapshot.epoch < reference.birth);
        for (at, snapshot) in snapshots.iter().enumerate().skip(first) {
            if !reference.is_seen_at(snapshot.epoch) {
                break;
            }
            self.snapshots[at / 64] |= 1 << (at % 64);
        }
    }

    /// The snapshots that show it, newest first.
    fn seen_in<'a>(&self, snapshots: &'a [Snapshot]) -> Vec<&'a Snapshot> {
        let all = snapshots.iter().enumerate().rev();
        all.filter(|(at, _)| self.snapshots[at / 64] & (1 << (at % 64)) != 0)
            .map(|(_, snapshot)| snapshot)
            .collect()
    }
}

fn named(
    reverse: &Reverse<'_>,
    hits: BTreeMap<Ino, Hit>,
    snapshots: &[Snapshot],
) -> Result<Vec<DamagedFile>> {
    let mut wanted = HashMap::new();
    for (ino, hit) in &hits {
        let newest = hit.seen_in(snapshots).first().map(|snapshot| At::Epoch(snapshot.epoch));
        if let Some(at) = if hit.live { Some(At::Live) } else { newest } {
            wanted.insert(*ino, at);
        }
    }
    let mut paths = reverse.paths(&wanted)?;
    // What neither the live tree nor a snapshot shows waits for gc.
    let shown = hits.into_iter().filter(|(ino, _)| wanted.contains_key(ino));
    Ok(shown
        .map(|(ino, hit)| {
            let seen = hit.seen_in(snapshots);
            let name = |snapshot: &Snapshot| text(&snapshot.name);
            let prefix = match seen.first() {
                Some(newest) if !hit.live => format!(".snapshots/{}/", name(newest)),
                _ => String::new(),
            };
            let paths = paths.remove(&ino).unwrap_or_default().into_iter();
            let mut paths = paths.map(|path| format!("{prefix}{}", text(&path)));
            DamagedFile {
                ino: ino.0,
                path: paths.next().unwrap_or_else(|| format!("inode {ino}, which has no name")),
                links: paths.collect(),
                live: hit.live,
                bytes: hit.bytes,
                ranges: hit.ranges,
                snapshot_count: seen.len() as u64,
                snapshots: seen.into_iter().take(TOLD_MAX).map(name).collect(),
            }
        })
        .collect())
}

/// Bytes as text: what is not UTF-8 as `\xNN`, a backslash doubled.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        text.push_str(&part.valid().replace('\\', "\\\\"));
        for byte in part.invalid() {
            // Writing into a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_can_be_told() {
        assert_eq!(text(b"a/\xff\\b"), "a/\\xff\\\\b");
    }
}
