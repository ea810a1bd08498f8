//! What must be the same as in StrataFS, or the floor is that of another file system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, Generation, INodeNo, InitFlags, TimeOrNow};

/// As `vfs::TTL_LONG`: only this mount changes anything.
pub const TTL: Duration = Duration::from_hours(1);
/// As in `fuse::handshake`.
pub const WRITE_BYTES_MAX: u32 = 1024 * 1024;
/// As in `fuse`.
pub const THREADS: std::ops::RangeInclusive<usize> = 2..=4;
pub const GENERATION: Generation = Generation(0);

/// As in `fuse::handshake`.
pub const WANTED: [InitFlags; 12] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_BIG_WRITES,
];

/// As `vfs::files`.
pub const COPY_BYTES_MAX: u64 = 1 << 30;

/// The reply that makes the kernel remember that a name does not exist.
pub fn missing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub fn kind_of(mode: u32) -> FileType {
    match mode & 0o170_000 {
        0o010_000 => FileType::NamedPipe,
        0o020_000 => FileType::CharDevice,
        0o060_000 => FileType::BlockDevice,
        0o140_000 => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

pub fn perm_of(mode: u32, umask: u32) -> u16 {
    u16::try_from(mode & !umask & 0o7777).expect("four octal digits fit")
}

/// As `classify::is_rsync_temp`: `.NAME.XXXXXX`.
pub fn is_rsync_temp(name: &[u8]) -> bool {
    let Some((_, tail)) = name.split_at_checked(name.len().wrapping_sub(7)) else { return false };
    name.starts_with(b".") && tail[0] == b'.' && tail[1..].iter().all(u8::is_ascii_alphanumeric)
}

/// As `fuse::translate::opened_flags`.
pub fn open_flags(direct: bool, keep_cache: bool) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_NOFLUSH;
    flags.set(FopenFlags::FOPEN_DIRECT_IO, direct);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep_cache && !direct);
    flags
}

pub fn time_of(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}
