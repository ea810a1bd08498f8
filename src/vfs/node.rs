//! Node numbers: what the kernel, and `stat`, see as inode numbers.

use crate::limits::{INO_BITS, SNAPSHOT_ID_MAX};
use crate::types::{Ino, SnapshotId};

/// Upper bits of a node number from which on it is no inode's.
const FIRST_MARK: u64 = SNAPSHOT_ID_MAX as u64 + 1;
/// The `.snapshots` directories.
const SNAP_DIR: u64 = (1 << 23) - 1;
/// The `.snapshots/.gmt` directories.
const GMT_DIR: u64 = SNAP_DIR - 1;
/// The `.history` directories.
const PAST_DIR: u64 = SNAP_DIR - 2;
/// The `.snapshots/.latest` links.
const LATEST: u64 = SNAP_DIR - 3;
/// What is known by a table only.
const VIRTUAL: u64 = SNAP_DIR - 4;
/// The `.history` directories beside the names of the live tree.
const BESIDE: u64 = SNAP_DIR - 5;

/// Bits of a [`Node::Latest`] that tell one name of a snapshot from another.
const TAG_BITS: u32 = 17;

const _: () = assert!(SNAP_DIR < 1 << (63 - INO_BITS), "node numbers must stay positive");
const _: () = assert!(BESIDE >= FIRST_MARK);
const _: () = assert!(SNAPSHOT_ID_MAX < 1 << (INO_BITS - TAG_BITS));

/// An object in the tree as users see it.
///
/// A node and its number convert into each other without any table, so numbers are stable over
/// remounts and nothing grows with the files the kernel has seen. [`Node::Virtual`] is the
/// exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// An inode of the live tree; its number is the inode's.
    Live(Ino),
    /// An inode as a snapshot froze it: snapshot · 2^40 + ino.
    Snap(SnapshotId, Ino),
    /// The `.snapshots` directory of a live directory: (2^23 - 1) · 2^40 + ino.
    SnapDir(Ino),
    /// The `.snapshots/.gmt` directory of a live directory.
    GmtDir(Ino),
    /// The `.history` directory of a directory, in its `.snapshots` or in a snapshot.
    PastDir(Ino),
    /// The same in the live tree, where it gives way to whoever writes into it.
    Beside(Ino),
    /// The link `.snapshots/.latest` to a snapshot. The kernel keeps targets of links, so another
    /// name of the snapshot makes another number: the tag is a hash of it.
    Latest(SnapshotId, u32),
    /// A number in the table of virtual directories, given while the kernel knows it.
    Virtual(u64),
}

impl Node {
    /// The root of the mount.
    pub const ROOT: Self = Self::Live(Ino::ROOT);

    /// The link to a snapshot with this name.
    #[must_use]
    pub fn latest(id: SnapshotId, name: &[u8]) -> Self {
        let hash = crate::types::Cookie::of(name).0 & ((1 << TAG_BITS) - 1);
        Self::Latest(id, u32::try_from(hash).unwrap_or_default())
    }

    /// True for directories that show what was, and keep nothing.
    pub(super) fn only_shows(self) -> bool {
        matches!(self, Self::PastDir(_) | Self::Beside(_) | Self::Virtual(_))
    }

    /// The number of this node.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Live(ino) => ino.0,
            Self::Snap(id, ino) => u64::from(id.0) << INO_BITS | ino.0,
            Self::SnapDir(ino) => SNAP_DIR << INO_BITS | ino.0,
            Self::GmtDir(ino) => GMT_DIR << INO_BITS | ino.0,
            Self::PastDir(ino) => PAST_DIR << INO_BITS | ino.0,
            Self::Beside(ino) => BESIDE << INO_BITS | ino.0,
            Self::Latest(id, tag) => {
                LATEST << INO_BITS | u64::from(id.0) << TAG_BITS | u64::from(tag)
            }
            Self::Virtual(number) => VIRTUAL << INO_BITS | number,
        }
    }

    /// The node with this number, if there can be one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let lower = number & ((1 << INO_BITS) - 1);
        let ino = Ino(lower);
        let upper = number >> INO_BITS;
        if lower == 0 {
            return None;
        }
        match upper {
            0 => Some(Self::Live(ino)),
            SNAP_DIR => Some(Self::SnapDir(ino)),
            GMT_DIR => Some(Self::GmtDir(ino)),
            PAST_DIR => Some(Self::PastDir(ino)),
            BESIDE => Some(Self::Beside(ino)),
            LATEST => {
                let id = u32::try_from(lower >> TAG_BITS).ok().filter(|id| *id > 0)?;
                let tag = u32::try_from(lower & ((1 << TAG_BITS) - 1)).ok()?;
                Some(Self::Latest(SnapshotId(id), tag))
            }
            VIRTUAL => Some(Self::Virtual(lower)),
            _ => {
                let id = u32::try_from(upper).ok().filter(|id| *id <= SNAPSHOT_ID_MAX)?;
                Some(Self::Snap(SnapshotId(id), ino))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_nodes_convert_both_ways() {
        let last = Ino((1 << INO_BITS) - 1);
        for node in [
            Node::ROOT,
            Node::Live(last),
            Node::Snap(SnapshotId(1), Ino::ROOT),
            Node::Snap(SnapshotId(SNAPSHOT_ID_MAX), last),
            Node::SnapDir(Ino::ROOT),
            Node::SnapDir(last),
            Node::GmtDir(last),
            Node::PastDir(Ino::ROOT),
            Node::Beside(Ino::ROOT),
            Node::Latest(SnapshotId(SNAPSHOT_ID_MAX), (1 << TAG_BITS) - 1),
            Node::Latest(SnapshotId(1), 0),
            Node::Virtual(1),
            Node::Virtual(last.0),
        ] {
            assert_eq!(Node::from_number(node.number()), Some(node));
            assert!(i64::try_from(node.number()).is_ok(), "{node:?} would be negative");
        }
        assert_eq!(Node::ROOT.number(), 1, "FUSE fixes the root's number");
    }

    #[test]
    fn numbers_that_name_nothing_are_refused() {
        let unused = FIRST_MARK << INO_BITS | 1;
        for number in [0, 1 << INO_BITS, SNAP_DIR << INO_BITS, unused, 1 << 63 | 1, u64::MAX] {
            assert_eq!(Node::from_number(number), None, "{number:#x}");
        }
    }

    #[test]
    fn a_link_to_a_renamed_snapshot_is_another_one() {
        let id = SnapshotId(7);
        assert_eq!(Node::latest(id, b"a"), Node::latest(id, b"a"));
        assert_ne!(Node::latest(id, b"a"), Node::latest(id, b"b"));
    }
}
