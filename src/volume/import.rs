//! Importing: whole files from outside in one change each, without the buffers of writers.
//!
//! A small file is cut first; then one edit stages its inode, extents, attributes and name, for
//! many files at once; large ones are `arrival`'s. Directories keep the times they were given: an
//! import does not move the `mtime` of a directory, only its `ctime`.

use bytes::Bytes;

use super::drain::{CutBuffer, extents_of};
use super::extent::mapped;
use super::{Volume, names};
use crate::classify::Facts;
use crate::error::{Error, Result};
use crate::limits::{FILE_BYTES_MAX, LINKS_MAX, MAGIC_BYTES, TARGET_BYTES_MAX};
use crate::meta::Edit;
use crate::types::{
    At, ClassId, Cookie, Dirent, Extent, FileKind, Ino, Inode, SourceMark, Timestamp,
};

/// Bits that let whoever starts a file become somebody else.
const SET_ID_BITS: u16 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";

/// What is to be there: all but the content of a regular file.
#[derive(Clone, Debug)]
pub struct Arrival {
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
    /// Bytes of a regular file.
    pub size: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Target of a symlink, else empty.
    pub target: Box<[u8]>,
    /// Extended attributes, in any order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What tells later that the source is unchanged; `None` if that could not be trusted.
    pub mark: Option<SourceMark>,
}

/// Where something goes.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: Box<[u8]>,
}

/// A whole file with its content, or anything else but a directory.
#[derive(Debug)]
pub struct SmallFile {
    /// Where it goes.
    pub spot: Spot,
    /// What it is.
    pub arrival: Arrival,
    /// Its content: `arrival.size` bytes.
    pub data: Vec<u8>,
    /// What has the name and no other, if anything: it stays if its content is the same.
    pub existing: Option<Ino>,
}

/// What became of one that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its inode.
    pub ino: Ino,
    /// What had the name before and lost it.
    pub replaced: Option<Ino>,
    /// The content was there: only attributes were set.
    pub kept: bool,
}

/// A small file that is cut.
struct Cut {
    ino: Ino,
    class: ClassId,
    extents: Vec<Extent>,
}

impl Volume {
    /// True if an inode is as an import left it, and its source has not changed since.
    #[must_use]
    pub fn is_as_imported(inode: &Inode, size: u64, mtime: Timestamp, mark: &SourceMark) -> bool {
        let same = inode.stamp != 0 && inode.size == size && inode.mtime == mtime;
        same && inode.stamp == mark.stamp(inode)
    }

    /// Stores files and gives each its name, over whatever has it that is no directory: each whole
    /// or not at all. What one file fails with is in its place in the answer.
    ///
    /// # Errors
    /// What keeps all of them out: `NoSpace`, `Poisoned`, `ReadOnly`; faults.
    pub fn import_small(&self, files: Vec<SmallFile>) -> Result<Vec<Result<Placed>>> {
        self.admit_data(files.iter().map(|file| file.data.len()).sum())?;
        let _gate = self.gate.read();
        let mut outcomes: Vec<Option<Result<Placed>>> = Vec::with_capacity(files.len());
        let mut fresh = Vec::with_capacity(files.len());
        for SmallFile { spot, arrival, data, existing } in files {
            let at = outcomes.len();
            if let Err(refused) = check(&spot, &arrival) {
                outcomes.push(Some(Err(refused)));
                continue;
            }
            let ino = self.next_ino()?;
            let (class, extents) = self.cut_small(ino, &spot, &arrival, data)?;
            let cut = Cut { ino, class, extents };
            let kept = match existing {
                Some(old) => self.keep_content(old, &arrival, Some(&cut.extents))?,
                None => None,
            };
            outcomes.push(kept.map(Ok));
            if kept.is_none() {
                fresh.push((at, spot, arrival, cut));
            }
        }
        let now = self.env.now();
        self.gate.mark(fresh.iter().flat_map(|(.., cut)| cut.extents.iter().map(|e| e.chunk)));
        self.stage(|edit| {
            for (at, spot, arrival, cut) in &fresh {
                let Cut { ino, class, extents } = cut;
                let mapped = mapped(extents);
                let inode = inode_of(arrival, spot, now, (mapped, *class));
                let placed = self.place(edit, spot, *ino, &inode, now)?;
                if placed.is_ok() {
                    for (name, value) in &arrival.xattrs {
                        edit.put_xattr(*ino, name, value)?;
                    }
                    for extent in extents {
                        edit.put_extent(*ino, extent)?;
                    }
                    self.live_bytes.replace(0, mapped);
                }
                outcomes[*at] = Some(placed);
            }
            Ok(())
        })?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn cut_small(
        &self,
        ino: Ino,
        spot: &Spot,
        arrival: &Arrival,
        data: Vec<u8>,
    ) -> Result<(ClassId, Vec<Extent>)> {
        if data.is_empty() {
            return Ok((ClassId(0), Vec::new()));
        }
        let class = self.class_of_arrival(spot, arrival, &data[..data.len().min(MAGIC_BYTES)])?;
        let spec = self.classifier.class(class);
        let data = Bytes::from_owner(CutBuffer::new(data, &self.held.cutting));
        let done = self.ingest_bytes(ino, spec, 0, &data, false)?;
        Ok((class, extents_of(&done, 0)))
    }

    pub(super) fn class_of_arrival(
        &self,
        spot: &Spot,
        arrival: &Arrival,
        head: &[u8],
    ) -> Result<ClassId> {
        let wanted = self.classifier.needs_path().then_some(());
        let path = wanted.map(|()| self.path_of(spot.parent, &spot.name)).transpose()?;
        let facts = Facts {
            name: &spot.name,
            path: path.as_deref(),
            uid: arrival.uid,
            gid: arrival.gid,
            size: arrival.size,
            head,
        };
        Ok(self.classifier.classify(&facts).class)
    }

    /// Gives an inode that is staged, or about to be, its name; the parent's `mtime` stays.
    /// The inner error has staged nothing.
    pub(super) fn place(
        &self,
        edit: &mut Edit<'_>,
        spot: &Spot,
        ino: Ino,
        inode: &Inode,
        now: Timestamp,
    ) -> Result<Result<Placed>> {
        let mut dir = match names::directory(&edit.view(), spot.parent) {
            Ok(dir) => dir,
            Err(refused) => return Ok(Err(refused)),
        };
        let old = edit.view().dirent(At::Live, spot.parent, &spot.name)?;
        if old.is_some_and(|old| old.kind == FileKind::Directory) {
            return Ok(Err(Error::IsDirectory));
        }
        edit.put_inode(ino, inode)?;
        if let Some(old) = old {
            let inode = names::target(&edit.view(), old.ino)?;
            self.drop_link(edit, old.ino, inode, now)?;
        }
        edit.put_dirent(spot.parent, &spot.name, Dirent { ino, kind: inode.kind })?;
        dir.ctime = now;
        edit.put_inode(spot.parent, &dir)?;
        Ok(Ok(Placed { ino, replaced: old.map(|old| old.ino), kept: false }))
    }

    /// Gives an inode that has the content already its new attributes; `None` if it has not, or
    /// may not keep its number. `content` is what a regular file must map.
    pub(super) fn keep_content(
        &self,
        ino: Ino,
        arrival: &Arrival,
        content: Option<&[Extent]>,
    ) -> Result<Option<Placed>> {
        let file = self.borrow_node(ino);
        let state = file.node.settled();
        if state.dirty.bytes() > 0 {
            return Ok(None);
        }
        self.stage(|edit| {
            let view = edit.view();
            let Some(inode) = view.inode(At::Live, ino)? else { return Ok(None) };
            let same = (inode.kind, inode.nlink) == (arrival.kind, 1)
                && (&inode.target, inode.rdev) == (&arrival.target, arrival.rdev);
            if !same || gives_rights(arrival) {
                return Ok(None);
            }
            if inode.kind == FileKind::Regular {
                let there = match content {
                    Some(content) if inode.size == arrival.size => {
                        let most = content.len().saturating_add(1);
                        view.extents(At::Live, ino, 0..inode.size, most)? == content
                    }
                    _ => false,
                };
                if !there {
                    return Ok(None);
                }
            }
            drop(view);
            self.set_arrived(edit, ino, inode, arrival)?;
            Ok(Some(Placed { ino, replaced: None, kept: true }))
        })
    }

    /// Attributes and xattrs of an inode that stays.
    fn set_arrived(
        &self,
        edit: &mut Edit<'_>,
        ino: Ino,
        inode: Inode,
        arrival: &Arrival,
    ) -> Result<()> {
        let mut inode = Inode {
            perm: arrival.perm & 0o7777,
            uid: arrival.uid,
            gid: arrival.gid,
            atime: arrival.atime,
            mtime: arrival.mtime,
            ctime: self.env.now(),
            ..inode
        };
        inode.stamp = arrival.mark.map_or(0, |mark| mark.stamp(&inode));
        edit.put_inode(ino, &inode)?;
        let names = edit.view().xattr_names(At::Live, ino)?;
        for name in names {
            if arrival.xattrs.iter().all(|(wanted, _)| **wanted != *name) {
                edit.delete_xattr(ino, &name)?;
            }
        }
        for (name, value) in &arrival.xattrs {
            edit.put_xattr(ino, name, value)?;
        }
        Ok(())
    }

    /// Makes a directory with these attributes, or gives them to the one that is there, unless
    /// `keep` is set. True if it was made or changed.
    ///
    /// # Errors
    /// `NotDirectory` if something else has the name; `NotFound`, `NameTooLong`, `NoSpace`,
    /// `Poisoned`; faults.
    pub fn import_directory(&self, spot: &Spot, arrival: &Arrival) -> Result<Ino> {
        check(spot, arrival)?;
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        self.stage(|edit| {
            let mut parent = names::directory(&edit.view(), spot.parent)?;
            if let Some(old) = edit.view().dirent(At::Live, spot.parent, &spot.name)? {
                let is_directory = old.kind == FileKind::Directory;
                return if is_directory { Ok(old.ino) } else { Err(Error::NotDirectory) };
            }
            let ino = self.next_ino()?;
            let inode = inode_of(arrival, spot, now, (0, ClassId(0)));
            edit.put_inode(ino, &inode)?;
            for (name, value) in &arrival.xattrs {
                edit.put_xattr(ino, name, value)?;
            }
            edit.put_dirent(spot.parent, &spot.name, Dirent { ino, kind: FileKind::Directory })?;
            parent.nlink = parent.nlink.saturating_add(1);
            parent.ctime = now;
            edit.put_inode(spot.parent, &parent)?;
            Ok(ino)
        })
    }

    /// Gives a directory these attributes; true if it had others.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`; `NoSpace`, `Poisoned`; faults.
    pub fn import_attributes(&self, dir: Ino, arrival: &Arrival, dry_run: bool) -> Result<bool> {
        let inode = names::directory(&self.meta.read(), dir)?;
        let mut xattrs: Vec<_> = self.all_xattrs(At::Live, dir)?;
        let mut wanted = arrival.xattrs.clone();
        xattrs.sort();
        wanted.sort();
        let same = (inode.perm, inode.uid, inode.gid, inode.mtime)
            == (arrival.perm & 0o7777, arrival.uid, arrival.gid, arrival.mtime)
            && xattrs.iter().map(|(n, v)| (&**n, v)).eq(wanted.iter().map(|(n, v)| (&**n, v)));
        if same || dry_run {
            return Ok(!same);
        }
        self.admit_change()?;
        let _gate = self.gate.read();
        self.stage(|edit| {
            let inode = names::directory(&edit.view(), dir)?;
            self.set_arrived(edit, dir, inode, arrival)
        })?;
        Ok(true)
    }

    /// Gives an imported inode one more name, over whatever has it that is no directory. Its stamp
    /// stays good if it was.
    ///
    /// # Errors
    /// `TooManyLinks`, `IsDirectory`, `NotFound`; `NoSpace`, `Poisoned`; faults.
    pub fn import_link(&self, ino: Ino, spot: &Spot, mark: Option<&SourceMark>) -> Result<Placed> {
        names::check_name(&spot.name)?;
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        self.stage(|edit| {
            let inode = edit.view().inode(At::Live, ino)?.filter(|inode| inode.nlink > 0);
            let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
            if inode.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            let mark = mark.filter(|mark| mark.stamp(&inode) == inode.stamp);
            inode.nlink += 1;
            inode.ctime = now;
            names::settle(&mut inode, spot.parent, &spot.name);
            inode.stamp = mark.map_or(0, |mark| mark.stamp(&inode));
            self.place(edit, spot, ino, &inode, now)
        })?
    }
}

pub(super) fn check(spot: &Spot, arrival: &Arrival) -> Result<()> {
    names::check_name(&spot.name)?;
    if arrival.target.len() > TARGET_BYTES_MAX {
        return Err(Error::NameTooLong { max: TARGET_BYTES_MAX });
    }
    if arrival.size > FILE_BYTES_MAX { Err(Error::FileTooLarge) } else { Ok(()) }
}

/// Whoever has the file open writes without a look at such bits: it needs another inode.
fn gives_rights(arrival: &Arrival) -> bool {
    arrival.perm & SET_ID_BITS != 0 || arrival.xattrs.iter().any(|(name, _)| name == CAPABILITY)
}

pub(super) fn inode_of(
    arrival: &Arrival,
    spot: &Spot,
    now: Timestamp,
    (mapped, class): (u64, ClassId),
) -> Inode {
    let is_directory = arrival.kind == FileKind::Directory;
    let mut inode = Inode {
        kind: arrival.kind,
        perm: arrival.perm & 0o7777,
        uid: arrival.uid,
        gid: arrival.gid,
        nlink: if is_directory { 2 } else { 1 },
        rdev: arrival.rdev,
        size: match arrival.kind {
            FileKind::Directory => names::DIRECTORY_BYTES,
            FileKind::Symlink => arrival.target.len() as u64,
            FileKind::Regular => arrival.size,
            _ => 0,
        },
        mapped,
        atime: arrival.atime,
        mtime: arrival.mtime,
        ctime: now,
        btime: now,
        class,
        parent: spot.parent,
        home: Cookie::of(&spot.name).upper(),
        stamp: 0,
        target: arrival.target.clone(),
    };
    inode.stamp = arrival.mark.map_or(0, |mark| mark.stamp(&inode));
    inode
}
