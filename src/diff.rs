//! What differs between two states of the tree, from what was noted when it changed.
//!
//! Guarantees: the answer is that of two full walks, compared; what did not change is not looked
//! at, so one change in a million files costs what one change in ten costs. Either state may be
//! the older one. Relies on: one committed state of the tables in which the older of the two is a
//! snapshot's; change rows (`meta`). Does not: read content: a file's content counts as changed
//! when other chunks stand at its bytes.
//!
//! **What is the same thing.** An inode that both states have is the same wherever it is named. Of
//! the others, those are the same that lie at the same place: a file that was replaced, as rsync
//! does it, is one that changed. A directory that is no more and one that is new correspond if they
//! have the same name in corresponding directories; the root corresponds to itself.
//!
//! Each entry that changed is a *spot*: a place with what was there and what is there. What was
//! there is gone, or has moved to another spot; what is there is fresh, or has moved in. Gone and
//! fresh together is a change, gone alone a removal, fresh alone an addition; what moved is told
//! once, where it arrived. An inode with several names tells nothing about which of its names moved
//! where, so spots of such inodes wait until all are seen, and lost and gained names are paired.
//! Inodes that changed where they are come from their own rows.
//!
//! Memory: a page of keys, paths of directories, spots of inodes with several names, and inodes
//! whose name has to be looked for; each has a bound.

mod content;
mod run;
mod side;

use crate::error::Result;
use crate::kv::Kv;
use crate::meta::Committed;
use crate::types::{At, FileKind, Ino};

use self::run::Run;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Only the second state has it.
    Added,
    /// Only the first state has it.
    Removed,
    /// Both have it, in the same place, and it differs.
    Changed,
    /// Both have it, under different names.
    Renamed,
}

/// An attribute that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Permission bits.
    Mode,
    /// Owner.
    Owner,
    /// Group.
    Group,
    /// Time of the last change of content. Not told of directories.
    Mtime,
    /// Extended attributes and ACLs.
    Xattrs,
}

impl Attribute {
    /// All, in the order they are told.
    pub const ALL: [Self; 5] = [Self::Mode, Self::Owner, Self::Group, Self::Mtime, Self::Xattrs];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Mtime => "mtime",
            Self::Xattrs => "xattrs",
        }
    }
}

/// In what something differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facets {
    /// In its bytes; of a symlink its target, of a device its number.
    pub content: bool,
    /// In these attributes.
    pub attributes: Vec<Attribute>,
}

impl Facets {
    /// True if it does not differ.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.content && self.attributes.is_empty()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difference {
    /// What happened.
    pub change: Change,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Its path from the root, without a slash in front; of what was removed as it was.
    pub path: Vec<u8>,
    /// The path it was renamed from.
    pub old_path: Option<Vec<u8>>,
    /// Its inode, in the state that `path` is of.
    pub ino: Ino,
    /// In what it differs.
    pub facets: Facets,
    /// Bytes before, of a regular file that was there.
    pub old_size: Option<u64>,
    /// Bytes after, of a regular file that is there.
    pub size: Option<u64>,
}

/// A file kind with an order, for sorted lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Pipe, socket or device.
    Special,
}

impl From<FileKind> for Kind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::Regular => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Special => "special",
        }
    }
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything below a directory that was added or removed, too.
    Full,
    /// Only the directory itself.
    Tops,
}

/// Takes a difference; an error ends the comparison.
pub type Each<'a> = dyn FnMut(Difference) -> Result<()> + 'a;

/// Hands each difference between `from` and `to` to `each`, in no order that means anything.
///
/// # Errors
/// What `each` returns; `Corrupt`, `Kv`.
pub fn compare(kv: &dyn Kv, from: At, to: At, depth: Depth, each: &mut Each<'_>) -> Result<()> {
    let state = Committed::load(kv)?;
    Run::new(&state, from, to, depth, each).all()
}
