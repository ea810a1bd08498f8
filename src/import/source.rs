//! What is seen of a file outside.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::Shared;
use crate::sys::tree::{Attribute, attributes, narrow_device};
use crate::types::{FileKind, SourceMark, Timestamp};
use crate::volume::Arrival;

/// What was changed less than this before it is read could change again without its ctime telling:
/// clocks of file systems tick in steps, of 4 ms on ext4, of 2 s on FAT. It is read again next
/// time.
const SETTLED_SECS: i64 = 2;

/// The namespaces of attributes that a volume has, as rsync -AX copies them.
const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

/// What kind of file it is; `None` for kinds that Linux has not.
pub(super) fn kind(facts: &Metadata) -> Option<FileKind> {
    let kind = facts.file_type();
    let table = [
        (kind.is_file(), FileKind::Regular),
        (kind.is_dir(), FileKind::Directory),
        (kind.is_symlink(), FileKind::Symlink),
        (kind.is_fifo(), FileKind::Fifo),
        (kind.is_socket(), FileKind::Socket),
        (kind.is_char_device(), FileKind::CharDevice),
        (kind.is_block_device(), FileKind::BlockDevice),
    ];
    table.into_iter().find_map(|(is, kind)| is.then_some(kind))
}

/// A time as `stat` has it.
fn time(secs: i64, nanos: i64) -> Timestamp {
    Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0).min(999_999_999) }
}

pub(super) fn mtime(facts: &Metadata) -> Timestamp {
    time(facts.mtime(), facts.mtime_nsec())
}

fn ctime(facts: &Metadata) -> Timestamp {
    time(facts.ctime(), facts.ctime_nsec())
}

pub(super) fn mark(shared: &Shared<'_>, facts: &Metadata) -> SourceMark {
    SourceMark { ino: facts.ino(), ctime: ctime(facts), reader: shared.reader }
}

/// The size that an imported inode has.
pub(super) fn size(facts: &Metadata, kind: FileKind) -> u64 {
    if matches!(kind, FileKind::Regular | FileKind::Symlink) { facts.len() } else { 0 }
}

/// True if both are of one file, unchanged in between.
pub(super) fn is_same(before: &Metadata, after: &Metadata) -> bool {
    let of = |m: &Metadata| (m.dev(), m.ino(), m.mode(), m.len(), mtime(m), ctime(m));
    of(before) == of(after)
}

/// All of a file but its content. `read_at` is when reading it began.
///
/// # Errors
/// What reading the target of a link or the extended attributes says.
pub(super) fn arrival(
    shared: &Shared<'_>,
    path: &Path,
    facts: &Metadata,
    kind: FileKind,
    read_at: Timestamp,
) -> io::Result<Arrival> {
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let target = match kind {
        FileKind::Symlink => std::fs::read_link(path)?.into_os_string().into_vec(),
        _ => Vec::new(),
    };
    let settled = ctime(facts).secs < read_at.secs.saturating_sub(SETTLED_SECS);
    Ok(Arrival {
        kind,
        perm: (facts.mode() & 0o7777) as u16,
        uid: facts.uid(),
        gid: facts.gid(),
        rdev: if is_device { narrow_device(facts.rdev()) } else { 0 },
        size: size(facts, kind),
        atime: time(facts.atime(), facts.atime_nsec()),
        mtime: mtime(facts),
        target: target.into(),
        xattrs: attributes(path)?.into_iter().filter(is_ours).collect(),
        mark: settled.then(|| mark(shared, facts)),
    })
}

fn is_ours((name, _): &Attribute) -> bool {
    NAMESPACES.iter().any(|space| name.starts_with(space))
}

/// Why a source cannot be read, for people.
pub(super) fn sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "It vanished before it was read".to_owned(),
        _ => format!("It cannot be read: {error}"),
    }
}
