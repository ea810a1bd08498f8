//! Words every room shares: numbers, names, times and attributes.
//!
//! Ground floor: knows nothing of files on disk, tables or FUSE. Every number that could be mixed
//! up with another has its own type. `blake3` lives here, with [`Fingerprint`].

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Inode number of the live tree, 1..2^40. Never reused.
    Ino(u64)
);
number!(
    /// Number of a chunk: dense, rising in write order, never reused.
    ChunkNo(u64)
);
number!(
    /// Number of a container: dense, rising, never reused. Unique over all shards of the volume.
    ContainerId(u64)
);
number!(
    /// Number of a shard in its volume; 0 is the one inside the volume directory.
    ShardId(u16)
);
number!(
    /// Place of a class in the volume's class list; stable for the built-in classes.
    ClassId(u8)
);
number!(
    /// Version stamp in metadata: +1 per snapshot. Starts at 1; always below 2^56.
    Epoch(u64)
);
number!(
    /// Number of a durable commit. Starts at 1.
    Txg(u64)
);
number!(
    /// Number of a snapshot, 1..=2^23 - 17. Never reused.
    SnapshotId(u32)
);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// The name under which every live directory shows its snapshots. Nothing else can have it.
pub const SNAPSHOTS_NAME: &[u8] = b".snapshots";

impl Epoch {
    /// The epoch of a new volume.
    pub const FIRST: Self = Self(1);
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// 32-byte BLAKE3 of a raw chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Fingerprint of `raw`.
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        Self(*blake3::hash(raw).as_bytes())
    }
}

/// A fingerprint in the making, of bytes that come in pieces.
#[derive(Default)]
pub struct Hashing(blake3::Hasher);

impl Hashing {
    /// More bytes.
    pub fn add(&mut self, raw: &[u8]) {
        self.0.update(raw);
    }

    /// The fingerprint of all of them.
    #[must_use]
    pub fn finish(&self) -> Fingerprint {
        Fingerprint(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Readdir cookie of a name: a 62-bit hash, never below [`Cookie::FIRST`].
///
/// Directories are stored in cookie order, so a listing goes on from any cookie whatever was added
/// or removed meanwhile. 0 means "from the start"; 1 and 2 are `.` and `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// Smallest cookie of a real name.
    pub const FIRST: Self = Self(16);

    /// The cookie of `name`: the first 8 bytes of its BLAKE3, big-endian, 62 bits of them.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let hash = blake3::hash(name);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self((u64::from_be_bytes(first) >> 2).max(Self::FIRST.0))
    }

    /// Its upper half: enough to find a name again among the millions of a directory.
    #[must_use]
    pub fn upper(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds 0..10^9 after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

impl Timestamp {
    /// `2026-11-03T10:11:12.000000005Z`.
    #[must_use]
    pub fn iso_utc(self) -> String {
        let (days, second) = (self.secs.div_euclid(86_400), self.secs.rem_euclid(86_400));
        // Days to civil date: Howard Hinnant's algorithm, in i128 so that no time overflows.
        let shifted = i128::from(days) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i128::from(month <= 2);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.nanos
        )
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// Regular file.
    Regular = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Unix domain socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

impl FileKind {
    /// The kind with this on-disk tag, if there is one.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharDevice,
            7 => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// Attributes of an inode, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 0..=0o7777.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; 2 + subdirectories for a directory; 0 when unlinked but still open.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Bytes; length of the target for a symlink; 4096 for a directory.
    pub size: u64,
    /// Bytes that extents cover (not holes, not data still in the dirty buffer).
    pub mapped: u64,
    /// Last access (set on creation and by utimens only).
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// File class of the content; [`ClassId`] of the last data written.
    pub class: ClassId,
    /// Directory that holds one of its names; `Ino(0)` if that is not known. A directory has one
    /// name, so this is its parent, always. Of other inodes it is a hint: the name may be gone.
    pub parent: Ino,
    /// [`Cookie::upper`] of that name; 0 if it is not known.
    pub home: u32,
    /// What an import noted of its source ([`SourceMark::stamp`]); 0 if it did not.
    pub stamp: u64,
    /// Symlink target; empty for everything else.
    pub target: Box<[u8]>,
}

/// What is seen of a file outside before it is imported, beyond the attributes it then has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMark {
    /// Its inode number there.
    pub ino: u64,
    /// Last change of its attributes or content there.
    pub ctime: Timestamp,
    /// Who reads it: not everybody sees all extended attributes.
    pub reader: u32,
}

impl SourceMark {
    /// A number that is another one as soon as the source has changed, or the imported inode: each
    /// change of an inode moves its `ctime`. Two are equal by chance once in 2^64. Never 0.
    #[must_use]
    pub fn stamp(&self, imported: &Inode) -> u64 {
        let mut hasher = blake3::Hasher::new();
        // FORMAT.md §2.1.
        for number in [self.ino, u64::from(self.reader), imported.size] {
            hasher.update(&number.to_le_bytes());
        }
        for time in [self.ctime, imported.mtime, imported.ctime] {
            hasher.update(&time.secs.to_le_bytes());
            hasher.update(&time.nanos.to_le_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first).max(1)
    }
}

/// Something of the live tree that is not as a kernel may remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed<'a> {
    /// A name leads elsewhere, or nowhere.
    Name(Ino, &'a [u8]),
    /// Attributes of an inode, and the listing if it is a directory.
    Inode(Ino),
}

/// A path for people: bytes that are not text as `\xNN`.
#[must_use]
pub fn shown_path(path: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        text.push_str(part.valid());
        for byte in part.invalid() {
            // Writing into a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A directory entry's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent {
    /// The inode it names.
    pub ino: Ino,
    /// Kind of that inode.
    pub kind: FileKind,
}

/// Part of a file that lies in a chunk: `len` bytes at `offset` of the file are the bytes
/// `chunk_offset..chunk_offset + len` of chunk `chunk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes, 1..=`CHUNK_BYTES_MAX`.
    pub len: u32,
    /// The chunk.
    pub chunk: ChunkNo,
    /// Byte offset in the chunk.
    pub chunk_offset: u32,
}

impl Extent {
    /// File offset after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// Which state of the tree a reader looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The live tree.
    Live,
    /// The tree as a snapshot with this epoch froze it.
    Epoch(Epoch),
}

/// A snapshot's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub id: SnapshotId,
    /// Its name: bytes as a directory entry's.
    pub name: Box<[u8]>,
    /// The last epoch it sees.
    pub epoch: Epoch,
    /// When it was taken.
    pub time: Timestamp,
    /// Held: it cannot be deleted until it is released.
    pub held: bool,
    /// Nobody can delete it before this second.
    pub locked_until: Option<i64>,
}

/// 16 random bytes that name a volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({self})")
    }
}
