//! Values of FUSE and Linux, and ours.

use std::time::UNIX_EPOCH;

use fuser::{FileAttr, FileType, FopenFlags, Generation, INodeNo, RenameFlags, Request};

use super::time;
use crate::error::{Error, Result};
use crate::sys::abi;
use crate::types::FileKind;
use crate::vfs::{Allocate, Attr, BLOCK_BYTES, Caller, Node, OpenHow, Opened};
use crate::volume::{RenameMode, Seek, XattrMode};

/// Inode numbers are never used again, so no generation tells two inodes of one number apart.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn node_of(number: INodeNo) -> Result<Node> {
    Node::from_number(number.0).ok_or(Error::Stale)
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Kind and permission bits of a `mode_t`. No kind at all is a regular file, as mknod(2) says.
pub(super) fn kind_and_perm(mode: u32) -> (Option<FileKind>, u16) {
    let kind = match mode & abi::S_IFMT {
        0 | abi::S_IFREG => Some(FileKind::Regular),
        abi::S_IFDIR => Some(FileKind::Directory),
        abi::S_IFLNK => Some(FileKind::Symlink),
        abi::S_IFIFO => Some(FileKind::Fifo),
        abi::S_IFSOCK => Some(FileKind::Socket),
        abi::S_IFCHR => Some(FileKind::CharDevice),
        abi::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    };
    let perm = u16::try_from(mode & 0o7777).expect("twelve bits");
    (kind, perm)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        size: attr.size,
        blocks: attr.blocks,
        atime: time::to_reply(attr.atime),
        mtime: time::to_reply(attr.mtime),
        ctime: time::to_reply(attr.ctime),
        crtime: time::to_reply(attr.btime),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        ..bare_attr(attr.node, attr.kind)
    }
}

/// Attributes of which only number and kind mean something.
pub(super) fn bare_attr(node: Node, kind: FileKind) -> FileAttr {
    FileAttr { ino: INodeNo(node.number()), kind: file_type(kind), ..missing() }
}

/// The entry that says "there is no such name, and you may remember that": number 0.
pub(super) fn missing() -> FileAttr {
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
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn open_how(flags: i32) -> OpenHow {
    let access = flags & abi::O_ACCMODE;
    OpenHow {
        read: access != abi::O_WRONLY,
        write: access != abi::O_RDONLY,
        truncate: flags & abi::O_TRUNC != 0,
    }
}

/// No flush: closing waits for nothing here, neither locks nor data, and it saves a request.
pub(super) fn opened_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_NOFLUSH;
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct);
    flags
}

/// Without `KEEP_CACHE` the kernel would drop a listing whenever a directory is opened.
pub(super) fn dir_flags(cacheable: bool) -> FopenFlags {
    if cacheable {
        FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}

/// What to do, and whether to leave a whiteout.
pub(super) fn rename_mode(flags: RenameFlags) -> Result<(RenameMode, bool)> {
    let whiteout = flags.contains(RenameFlags::RENAME_WHITEOUT);
    let mode = match flags.difference(RenameFlags::RENAME_WHITEOUT) {
        RenameFlags::RENAME_EXCHANGE if whiteout => {
            Err(Error::invalid("An exchange leaves no whiteout"))
        }
        none if none.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Error::invalid("This combination of rename flags is not supported")),
    };
    Ok((mode?, whiteout))
}

pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode> {
    const BOTH: i32 = abi::XATTR_CREATE | abi::XATTR_REPLACE;
    match flags {
        0 => Ok(XattrMode::Any),
        abi::XATTR_CREATE => Ok(XattrMode::Create),
        abi::XATTR_REPLACE => Ok(XattrMode::Replace),
        BOTH => Ok(XattrMode::Never),
        _ => Err(Error::invalid("Unknown setxattr flags")),
    }
}

pub(super) fn allocate(mode: i32) -> Result<Allocate> {
    const KEEP: i32 = abi::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = abi::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = abi::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Allocate::Reserve { keep_size: false }),
        KEEP => Ok(Allocate::Reserve { keep_size: true }),
        PUNCH => Ok(Allocate::Punch),
        ZERO => Ok(Allocate::Zero { keep_size: false }),
        ZERO_KEEP => Ok(Allocate::Zero { keep_size: true }),
        _ => Err(Error::Unsupported { what: "This fallocate mode" }),
    }
}

/// The kernel answers the other kinds of seek itself.
pub(super) fn seek(offset: i64, whence: i32) -> Result<(u64, Seek)> {
    let what = match whence {
        abi::SEEK_DATA => Seek::Data,
        abi::SEEK_HOLE => Seek::Hole,
        _ => return Err(Error::invalid("Unknown kind of seek")),
    };
    match u64::try_from(offset) {
        Ok(offset) => Ok((offset, what)),
        // As lseek(2) says of an offset at which there is neither data nor a hole.
        Err(_) => Ok((u64::MAX, what)),
    }
}

/// For lengths that a request bounds below 2^32 anyway.
pub(super) fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_split_into_kind_and_permissions() {
        assert_eq!(kind_and_perm(0o104_755), (Some(FileKind::Regular), 0o4755));
        assert_eq!(kind_and_perm(0o644), (Some(FileKind::Regular), 0o644));
        assert_eq!(kind_and_perm(0o041_777), (Some(FileKind::Directory), 0o1777));
        assert_eq!(kind_and_perm(0o010_600), (Some(FileKind::Fifo), 0o600));
        assert_eq!(kind_and_perm(0o160_000).0, None);
    }

    #[test]
    fn open_flags_name_what_is_done() {
        let how = open_how(abi::O_RDWR | abi::O_TRUNC);
        assert!(how.read && how.write && how.truncate);
        let how = open_how(abi::O_WRONLY);
        assert!(!how.read && how.write && !how.truncate);
        assert!(!open_how(abi::O_RDONLY).write);
    }

    #[test]
    fn a_direct_handle_keeps_no_pages() {
        let opened = Opened { handle: 1, direct: true, keep_cache: true };
        let flags = opened_flags(opened);
        assert!(flags.contains(FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH));
        assert!(!flags.contains(FopenFlags::FOPEN_KEEP_CACHE));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(matches!(allocate(abi::FALLOC_FL_PUNCH_HOLE), Err(Error::Unsupported { .. })));
        assert!(matches!(allocate(0x08), Err(Error::Unsupported { .. })), "collapse range");
        let whiteout = RenameFlags::RENAME_WHITEOUT;
        assert_eq!(rename_mode(whiteout).unwrap(), (RenameMode::Replace, true));
        assert!(rename_mode(whiteout | RenameFlags::RENAME_EXCHANGE).is_err());
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        assert!(rename_mode(both).is_err());
        assert!(xattr_mode(4).is_err());
        assert!(seek(0, 0).is_err());
        assert_eq!(seek(-1, abi::SEEK_DATA).unwrap().0, u64::MAX, "behind the end of every file");
    }
}
