//! Virtual extended attributes: what the volume knows of a file, a subtree or a snapshot, as text.
//!
//! Lists do not show them, so nothing copies them; setting them is refused. Some take time, since
//! they read or walk: whoever serves the kernel asks for those ([`is_slow`]) where nobody waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Node, Vfs};
use crate::error::{Error, Result};
use crate::types::{At, FileKind, Fingerprint, Snapshot, Timestamp};
use crate::volume::Measure;

/// What all of them begin with.
const PREFIX: &[u8] = b"user.stratafs.";
/// Answers kept: programs ask twice, first for the length.
const KEPT: usize = 256;
/// How long a measure is kept: gc may move what it counts.
const MEASURE_HOLDS: Duration = Duration::from_secs(2);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Class,
    Shards,
    Raw,
    Unique,
    Stored,
    Ratio,
    Blake3,
    Snapshot,
    SnapshotId,
    SnapshotCreated,
    SnapshotHeld,
    SnapshotLocked,
}

impl Shown {
    /// The attribute with this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(match name.strip_prefix(PREFIX)? {
            b"class" => Self::Class,
            b"shards" => Self::Shards,
            b"raw" => Self::Raw,
            b"unique" => Self::Unique,
            b"stored" => Self::Stored,
            b"ratio" => Self::Ratio,
            b"blake3" => Self::Blake3,
            b"snapshot" => Self::Snapshot,
            b"snapshot.id" => Self::SnapshotId,
            b"snapshot.created" => Self::SnapshotCreated,
            b"snapshot.held" => Self::SnapshotHeld,
            b"snapshot.locked_until" => Self::SnapshotLocked,
            _ => return None,
        })
    }
}

/// True for an attribute that takes time to find out.
#[must_use]
pub fn is_slow(name: &[u8]) -> bool {
    use Shown::{Blake3, Class, Ratio, Raw, Shards, Stored, Unique};
    matches!(Shown::named(name), Some(Class | Shards | Raw | Unique | Stored | Ratio | Blake3))
}

/// Answers that were found out lately, by node and the time of its last change.
#[derive(Debug, Default)]
pub(super) struct Answers {
    hashes: Mutex<HashMap<(Node, Timestamp), Fingerprint>>,
    measures: Mutex<HashMap<(Node, Timestamp), (Instant, Measure)>>,
}

impl Vfs {
    /// The value of a virtual attribute.
    pub(super) fn shown(&self, node: Node, what: Shown) -> Result<Vec<u8>> {
        let text = match what {
            Shown::Snapshot => return Ok(self.snapshot_of(node)?.name.into_vec()),
            Shown::SnapshotId => self.snapshot_of(node)?.id.to_string(),
            Shown::SnapshotCreated => self.snapshot_of(node)?.time.iso_utc(),
            Shown::SnapshotHeld => if self.snapshot_of(node)?.held { "yes" } else { "no" }.into(),
            Shown::SnapshotLocked => {
                let until = self.snapshot_of(node)?.locked_until.ok_or(Error::NoAttribute)?;
                Timestamp { secs: until, nanos: 0 }.iso_utc()
            }
            Shown::Blake3 => self.hash_of(node)?.to_string(),
            Shown::Class => joined(&self.measure_of(node)?.classes)?,
            Shown::Shards => joined(&self.measure_of(node)?.shards)?,
            Shown::Raw => self.measure_of(node)?.raw_bytes.to_string(),
            Shown::Unique => self.measure_of(node)?.unique_bytes.to_string(),
            Shown::Stored => self.measure_of(node)?.stored_bytes.to_string(),
            Shown::Ratio => ratio(&self.measure_of(node)?)?,
        };
        Ok(text.into_bytes())
    }

    fn snapshot_of(&self, node: Node) -> Result<Snapshot> {
        let Node::Snap(id, _) = node else { return Err(Error::NoAttribute) };
        self.volume.snapshot(id).ok_or(Error::Stale)
    }

    fn hash_of(&self, node: Node) -> Result<Fingerprint> {
        let (at, ino) = self.place(node)?;
        let inode = self.volume.stat(at, ino)?.inode;
        if inode.kind != FileKind::Regular {
            return Err(Error::NoAttribute);
        }
        let key = (node, inode.ctime);
        if let Some(known) = self.answers.hashes.lock().get(&key) {
            return Ok(*known);
        }
        let found = self.volume.content_hash(at, ino)?;
        keep(&self.answers.hashes, key, found);
        Ok(found)
    }

    fn measure_of(&self, node: Node) -> Result<Measure> {
        let (at, ino) = self.place(node)?;
        let inode = self.volume.stat(at, ino)?.inode;
        let key = (node, inode.ctime);
        let known = self.answers.measures.lock().get(&key).cloned();
        if let Some((when, measure)) = known
            && when.elapsed() < MEASURE_HOLDS
        {
            return Ok(measure);
        }
        if at == At::Live && !self.volume.is_read_only() {
            // What is not written yet has no place; a full disk is no reason not to answer.
            let _ = self.volume.commit();
        }
        let measure = self.volume.measure(at, ino)?;
        keep(&self.answers.measures, key, (Instant::now(), measure.clone()));
        Ok(measure)
    }
}

fn keep<V>(map: &Mutex<HashMap<(Node, Timestamp), V>>, key: (Node, Timestamp), value: V) {
    let mut map = map.lock();
    if map.len() >= KEPT {
        map.clear();
    }
    map.insert(key, value);
}

fn joined(names: &[String]) -> Result<String> {
    if names.is_empty() { Err(Error::NoAttribute) } else { Ok(names.join(",")) }
}

/// Bytes referred to for each byte stored, in hundredths.
fn ratio(measure: &Measure) -> Result<String> {
    let hundredths = u128::from(measure.raw_bytes) * 100;
    let stored = u128::from(measure.stored_bytes);
    let ratio = hundredths.checked_div(stored).ok_or(Error::NoAttribute)?;
    Ok(format!("{}.{:02}", ratio / 100, ratio % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_two_digits() {
        let measure =
            |raw_bytes, stored_bytes| Measure { raw_bytes, stored_bytes, ..Measure::default() };
        assert_eq!(ratio(&measure(1000, 300)).unwrap(), "3.33");
        assert_eq!(ratio(&measure(10, 1000)).unwrap(), "0.01");
        assert_eq!(ratio(&measure(u64::MAX, 1)).unwrap(), "18446744073709551615.00");
        assert!(matches!(ratio(&measure(0, 0)), Err(Error::NoAttribute)), "a hole takes nothing");
    }

    #[test]
    fn only_exact_names_are_shown() {
        assert_eq!(Shown::named(b"user.stratafs.snapshot.id"), Some(Shown::SnapshotId));
        for name in [&b"user.stratafs."[..], b"user.stratafs.classes", b"user.class", b"class"] {
            assert_eq!(Shown::named(name), None);
        }
        assert!(is_slow(b"user.stratafs.blake3") && !is_slow(b"user.stratafs.snapshot"));
    }
}
