//! `.history`: for each name of a directory, the contents it had in snapshots.
//!
//! `DIR/.history/NAME/` has one entry for each content that differs from the one before, named by
//! the time of the first snapshot that has it. The entries are nodes of snapshots, so reading them
//! is reading the snapshot.
//!
//! Nobody sees more than the directory let them see: see [`Vfs::past_guard`].

use std::collections::HashMap;

use super::acl::ACCESS;
use super::names::What;
use super::snapdir::TTL_NONE;
use super::virtuals::Thing;
use super::{Attr, Caller, DirItem, Entry, Lookup, NewMode, Node, Sink, Vfs, entry};
use crate::error::{Error, Result};
use crate::types::{At, Cookie, FileKind, Ino, Timestamp};
use crate::volume::PastVersion;

/// The name under which a directory shows what its entries were.
pub const HISTORY_NAME: &[u8] = b".history";
/// A longer ending than this is no file name extension.
const EXTENSION_BYTES_MAX: usize = 16;

/// Who may list and pass.
#[derive(Clone, Copy)]
struct Guard {
    perm: u16,
    uid: u32,
    gid: u32,
    changed: Timestamp,
}

impl Vfs {
    /// The `.history` of `dir`, which is `node`, if a snapshot knows that directory.
    pub(super) fn past_dir_lookup(&self, node: Node, dir: Ino) -> Result<Lookup> {
        if self.volume.newest_snapshot_with(dir)?.is_none() {
            return Ok(Lookup::Missing(TTL_NONE));
        }
        Ok(Lookup::Found(Entry { attr: self.past_attr(node, dir)?, ttl: TTL_NONE }))
    }

    /// The real directory that `node` gave way to, or `node`: somebody may stand in what was shown.
    pub(super) fn settled(&self, node: Node) -> Result<Node> {
        let Node::Beside(dir) = node else { return Ok(node) };
        let real = self.volume.lookup(At::Live, dir, HISTORY_NAME)?;
        let real = real.filter(|stat| stat.inode.kind == FileKind::Directory);
        Ok(real.map_or(node, |stat| Node::Live(stat.ino)))
    }

    /// Where something can be made that is to be made in `node`: the `.history` beside live names
    /// gives way to a real directory, for a copied tree may have one of that name.
    pub(super) fn give_way(&self, node: Node) -> Result<Node> {
        let node = self.settled(node)?;
        let Node::Beside(dir) = node else { return Ok(node) };
        self.writable(Node::Live(dir))?;
        let above = self.volume.stat(At::Live, dir)?.inode;
        let new = NewMode { kind: FileKind::Directory, perm: above.perm & 0o777, umask: 0 };
        let caller = Caller { uid: above.uid, gid: above.gid, pid: 0 };
        match self.make(Node::Live(dir), HISTORY_NAME, new, caller, What::Device(0)) {
            Ok(stat) => Ok(Node::Live(stat.ino)),
            Err(Error::Exists { .. }) => self.settled(node),
            Err(e) => Err(e),
        }
    }

    /// As [`Vfs::give_way`], before `node` itself is changed. The kernel, told `Stale`, looks the
    /// name up again and asks once more.
    pub(super) fn give_way_itself(&self, node: Node) -> Result<()> {
        if self.give_way(node)? == node { Ok(()) } else { Err(Error::Stale) }
    }

    /// Attributes of `.history` of `dir`, and of the directories in it.
    pub(super) fn past_attr(&self, node: Node, dir: Ino) -> Result<Attr> {
        let mut guard = self.past_guard(dir)?;
        if let Node::Beside(dir) = node {
            // Who may write beside it may make it give way.
            let above = self.volume.stat(At::Live, dir)?.inode;
            let has_acl = self.volume.xattr(At::Live, dir, ACCESS)?.is_some();
            if (above.uid, above.gid) == (guard.uid, guard.gid) {
                guard.perm |= above.perm & if has_acl { 0o200 } else { 0o222 };
            }
        }
        Ok(virtual_attr(node, guard))
    }

    /// Permissions that let nobody see more than every state of `dir` did: the bits that all of
    /// them have. Where the owner changed, or an ACL says more than the bits, only what everybody
    /// could do counts.
    fn past_guard(&self, dir: Ino) -> Result<Guard> {
        let states = self.volume.attributes_over_time(dir)?;
        let last = states.last().ok_or(Error::Stale)?;
        let mut guard = Guard { perm: 0o555, uid: last.uid, gid: last.gid, changed: last.mtime };
        for state in &states {
            guard.perm &= state.perm;
        }
        let same_owner = states.iter().all(|s| (s.uid, s.gid) == (last.uid, last.gid));
        if !same_owner || self.volume.xattr(At::Live, dir, ACCESS)?.is_some() {
            guard.perm &= 0o5;
            guard.perm |= guard.perm << 3 | guard.perm << 6;
        }
        Ok(guard)
    }

    /// `.history/NAME`, if a snapshot knows such a name in `dir`.
    pub(super) fn past_name_lookup(
        &self,
        (shown, dir): (Node, Ino),
        name: &[u8],
    ) -> Result<Lookup> {
        if self.volume.past_versions(dir, name)?.is_empty() {
            return Ok(Lookup::Missing(TTL_NONE));
        }
        let guard = self.past_guard(dir)?;
        let node = self.virtuals.looked_up(Thing::Past { shown, dir, name: name.into() })?;
        Ok(Lookup::Found(virtual_entry(node, guard)))
    }

    /// Lists the names of `dir` that snapshots know, those that are gone with them.
    pub(super) fn past_names_list(
        &self,
        node: Node,
        dir: Ino,
        (offset, plus): (u64, bool),
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let guard = self.past_guard(dir)?;
        let mut after = Cookie(if offset < Cookie::FIRST.0 { 0 } else { offset });
        loop {
            let names = self.volume.past_names(dir, after)?;
            for (cookie, name) in &names.found {
                let kind = FileKind::Directory;
                let mut item = DirItem { node, kind, name, next: cookie.0, entry: None };
                if !plus {
                    if sink(&item) {
                        return Ok(());
                    }
                    continue;
                }
                let thing = Thing::Past { shown: node, dir, name: name.clone() };
                let entry = virtual_entry(self.virtuals.looked_up(thing)?, guard);
                (item.node, item.entry) = (entry.attr.node, Some(&entry));
                if sink(&item) {
                    // The kernel never heard of it.
                    self.forget(item.node, 1);
                    return Ok(());
                }
            }
            match names.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// One entry of `.history/NAME`.
    pub(super) fn version_lookup(&self, dir: Ino, of: &[u8], name: &[u8]) -> Result<Lookup> {
        let versions = self.volume.past_versions(dir, of)?;
        let named = named(&versions, of).into_iter().find(|(known, _)| known.as_bytes() == name);
        match named {
            Some((_, version)) => self.version_entry(version).map(Lookup::Found),
            None => Ok(Lookup::Missing(TTL_NONE)),
        }
    }

    /// Lists the entries of `.history/NAME`, oldest first.
    pub(super) fn versions_list(
        &self,
        dir: Ino,
        of: &[u8],
        (offset, plus): (u64, bool),
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let versions = self.volume.past_versions(dir, of)?;
        for (name, version) in named(&versions, of) {
            // By snapshot, so that an offset stays right when an older one is deleted meanwhile.
            let next = Cookie::FIRST.0 + u64::from(version.snapshot.0);
            if next <= offset {
                continue;
            }
            // One that cannot be read is listed; asked for, it says why.
            let entry = plus.then(|| self.version_entry(version)).and_then(Result::ok);
            let node = Node::Snap(version.snapshot, version.ino);
            let (kind, name, entry) = (version.kind, name.as_bytes(), entry.as_ref());
            if sink(&DirItem { node, kind, name, next, entry }) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn version_entry(&self, version: &PastVersion) -> Result<Entry> {
        let node = Node::Snap(version.snapshot, version.ino);
        let (at, ino) = self.place(node)?;
        Ok(Entry { ttl: TTL_NONE, ..entry(node, &self.volume.stat(at, ino)?) })
    }
}

fn virtual_entry(node: Node, guard: Guard) -> Entry {
    Entry { attr: virtual_attr(node, guard), ttl: TTL_NONE }
}

/// A directory that only shows.
fn virtual_attr(node: Node, guard: Guard) -> Attr {
    let Guard { perm, uid, gid, changed } = guard;
    Attr {
        node,
        kind: FileKind::Directory,
        perm,
        nlink: 2,
        uid,
        gid,
        rdev: 0,
        size: 4096,
        blocks: 0,
        atime: changed,
        mtime: changed,
        ctime: changed,
        btime: changed,
        ttl: TTL_NONE,
    }
}

/// The versions with their names: the second in which the first snapshot that has it was taken,
/// and the extension, so that programs know what it is. A second one of the same second is `_2`.
fn named<'a>(versions: &'a [PastVersion], of: &[u8]) -> Vec<(String, &'a PastVersion)> {
    let mut seen: HashMap<i64, u32> = HashMap::new();
    let extension = extension(of);
    let name = |version: &PastVersion| {
        let iso = Timestamp { secs: version.since.secs, nanos: 0 }.iso_utc();
        let second = iso.split_once(".000").map_or(&*iso, |(second, _)| second).replace(':', ".");
        let count = seen.entry(version.since.secs).or_insert(0);
        *count += 1;
        match *count {
            1 => format!("{second}Z{extension}"),
            more => format!("{second}Z_{more}{extension}"),
        }
    };
    versions
        .iter()
        .map({
            let mut name = name;
            move |version| (name(version), version)
        })
        .collect()
}

/// `.odt` of `a letter.odt`; nothing where the end of a name is no extension.
fn extension(name: &[u8]) -> &str {
    let name = std::str::from_utf8(name).unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && (1..=EXTENSION_BYTES_MAX).contains(&ending.len())
                && ending.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            name.get(stem.len()..).unwrap_or_default()
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SnapshotId;

    #[test]
    fn versions_are_named_by_second_and_keep_the_extension() {
        let version = |secs, id| PastVersion {
            since: Timestamp { secs, nanos: 7 },
            snapshot: SnapshotId(id),
            ino: Ino(5),
            kind: FileKind::Regular,
        };
        let versions = [version(0, 1), version(0, 2), version(61, 3)];
        let names: Vec<_> = named(&versions, b"a.odt").into_iter().map(|(name, _)| name).collect();
        let expected =
            ["1970-01-01T00.00.00Z.odt", "1970-01-01T00.00.00Z_2.odt", "1970-01-01T00.01.01Z.odt"];
        assert_eq!(names, expected);
        assert!(names.is_sorted(), "names sort as time goes");
    }

    #[test]
    fn only_the_end_of_a_name_is_an_extension() {
        assert_eq!(extension(b"a.tar.gz"), ".gz");
        for name in [&b"plain"[..], b".bashrc", b"a.", b"a.b c", b"\xff.odt", b"v1.0-beta "] {
            assert_eq!(extension(name), "", "{name:?}");
        }
    }
}
