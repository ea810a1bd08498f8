//! Owner, mode, extended attributes and times of what lies outside.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::Shared;
use crate::sys::tree::{attributes, narrow_device, remove_attribute, set_attribute, set_times};
use crate::types::{FileKind, Inode, Timestamp};

/// Name and value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

fn kind_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Fifo => 0o010_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::Directory => 0o040_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::Regular => 0o100_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Socket => 0o140_000,
    }
}

/// What `mknod` and `stat` call its kind and permissions.
pub(super) fn mode(inode: &Inode) -> u32 {
    kind_bits(inode.kind) | u32::from(inode.perm)
}

fn mtime(facts: &Metadata) -> Timestamp {
    Timestamp { secs: facts.mtime(), nanos: u32::try_from(facts.mtime_nsec()).unwrap_or(0) }
}

/// True if both are of one kind, size and mtime: then the content is taken for the same, as rsync
/// does.
pub(super) fn has_content(facts: &Metadata, inode: &Inode) -> bool {
    let kind = facts.mode() & 0o170_000 == kind_bits(inode.kind);
    match inode.kind {
        FileKind::Regular => kind && facts.len() == inode.size && mtime(facts) == inode.mtime,
        FileKind::Symlink => false,
        FileKind::CharDevice | FileKind::BlockDevice => {
            kind && narrow_device(facts.rdev()) == inode.rdev
        }
        _ => kind,
    }
}

/// True if mode, owner and times are as they should be; of attributes see [`xattrs_differ`].
pub(super) fn has_attributes(shared: &Shared<'_>, facts: &Metadata, inode: &Inode) -> bool {
    let owner = !shared.is_root || (facts.uid(), facts.gid()) == (inode.uid, inode.gid);
    owner && facts.mode() & 0o7777 == u32::from(inode.perm) && mtime(facts) == inode.mtime
}

/// True if the extended attributes of `path` are others.
pub(super) fn xattrs_differ(
    shared: &Shared<'_>,
    path: &Path,
    wanted: &[Xattr],
) -> io::Result<bool> {
    let mut there = attributes(path)?;
    let mut wanted: Vec<_> = wanted.iter().filter(|x| is_settable(shared, x)).collect();
    there.retain(|x| is_settable(shared, x));
    there.sort();
    wanted.sort();
    Ok(!there.iter().eq(wanted))
}

/// What we may set: as rsync, only root copies more than the user's own.
fn is_settable(shared: &Shared<'_>, (name, _): &Xattr) -> bool {
    shared.is_root || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// Gives `path` all of them; the owner first, since that takes rights away, times last.
///
/// # Errors
/// What the kernel says of the first that fails.
pub(super) fn set(
    shared: &Shared<'_>,
    path: &Path,
    inode: &Inode,
    wanted: &[Xattr],
    is_new: bool,
) -> io::Result<()> {
    if shared.is_root {
        lchown(path, Some(inode.uid), Some(inode.gid))?;
    }
    if inode.kind != FileKind::Symlink {
        std::fs::set_permissions(path, Permissions::from_mode(u32::from(inode.perm)))?;
    }
    if !is_new {
        for (name, _) in attributes(path)?.iter().filter(|x| is_settable(shared, x)) {
            if wanted.iter().all(|(other, _)| other != name) {
                remove_attribute(path, name)?;
            }
        }
    }
    for (name, value) in wanted.iter().filter(|x| is_settable(shared, x)) {
        set_attribute(path, name, value)?;
    }
    let times = [inode.atime, inode.mtime].map(|time| (time.secs, time.nanos));
    set_times(path, times)
}
