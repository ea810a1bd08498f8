//! What callers ask of a volume: the parameters of its methods.

use serde::{Deserialize, Serialize};

use crate::types::{FileKind, Timestamp};

/// What [`Volume::make`](super::Volume::make) makes.
#[derive(Clone, Debug)]
pub struct NewInode<'a> {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, else 0.
    pub rdev: u32,
    /// Target of a symlink, else empty.
    pub target: &'a [u8],
    /// Extended attributes it begins with.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a rename does with an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It is an error.
    NoReplace,
    /// It must be there and takes the old name.
    Exchange,
}

/// What setting an extended attribute expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Nothing.
    Any,
    /// That it is new.
    Create,
    /// That it is there.
    Replace,
    /// Both, so it always fails.
    Never,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The volume's clock.
    Now,
    /// This one.
    At(Timestamp),
}

/// Attributes to change; `None` keeps what is.
#[derive(Clone, Debug, Default)]
pub struct AttrChange {
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of attributes; the clock's time unless given.
    pub ctime: Option<Timestamp>,
    /// Extended attributes to set, or remove, in the same change.
    pub xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What [`OpenFile::seek`](super::OpenFile::seek) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Bytes that are mapped.
    Data,
    /// A hole, or the end of the file.
    Hole,
}

/// A file outside that an import or export could not take as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Its path outside; bytes that are not text as `\xNN`.
    pub path: String,
    /// Why.
    pub why: String,
}
