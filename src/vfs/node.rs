//! Node numbers: what the kernel, and `stat`, see as inode numbers.

use crate::limits::{INO_BITS, SNAPSHOT_ID_MAX};
use crate::types::{Ino, SnapshotId};

/// Marks the `.snapshots` directories in the upper bits of a node number.
const SNAP_DIR: u64 = SNAPSHOT_ID_MAX as u64 + 1;

const _: () = assert!(SNAP_DIR < 1 << (63 - INO_BITS), "node numbers must stay positive");

/// An object in the tree as users see it.
///
/// A node and its number convert into each other without any table, so numbers are stable over
/// remounts and nothing grows with the files the kernel has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// An inode of the live tree; its number is the inode's.
    Live(Ino),
    /// An inode as a snapshot froze it: snapshot · 2^40 + ino.
    Snap(SnapshotId, Ino),
    /// The `.snapshots` directory of a live directory: (2^23 - 1) · 2^40 + ino.
    SnapDir(Ino),
}

impl Node {
    /// The root of the mount.
    pub const ROOT: Self = Self::Live(Ino::ROOT);

    /// The number of this node.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Live(ino) => ino.0,
            Self::Snap(id, ino) => u64::from(id.0) << INO_BITS | ino.0,
            Self::SnapDir(ino) => SNAP_DIR << INO_BITS | ino.0,
        }
    }

    /// The node with this number, if there can be one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let ino = Ino(number & ((1 << INO_BITS) - 1));
        let upper = number >> INO_BITS;
        if ino.0 == 0 {
            return None;
        }
        match upper {
            0 => Some(Self::Live(ino)),
            SNAP_DIR => Some(Self::SnapDir(ino)),
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
        ] {
            assert_eq!(Node::from_number(node.number()), Some(node));
            assert!(i64::try_from(node.number()).is_ok(), "{node:?} would be negative");
        }
        assert_eq!(Node::ROOT.number(), 1, "FUSE fixes the root's number");
    }

    #[test]
    fn numbers_that_name_nothing_are_refused() {
        for number in [0, 1 << INO_BITS, SNAP_DIR << INO_BITS, 1 << 63 | 1, u64::MAX] {
            assert_eq!(Node::from_number(number), None, "{number:#x}");
        }
    }
}
