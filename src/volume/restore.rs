//! Putting what a snapshot has back into the live tree: by reference, and whole or not at all.
//!
//! A file is copied without a name first, with a reap row, so that a crash leaves nothing of it
//! behind; then one change gives it its attributes and its name, over what had the name before.

use std::sync::Arc;

use super::{AttrChange, Content, OpenFile, SetTime, Volume};
use crate::error::{Error, Result};
use crate::limits::LINKS_MAX;
use crate::meta::{Edit, Reap};
use crate::types::{At, Dirent, Epoch, FileKind, Ino, Inode};

/// Name and value.
type Xattr = (Box<[u8]>, Vec<u8>);

/// A copy of an inode of a snapshot, whole, that no name leads to yet. Dropping it removes it.
pub struct Nameless {
    file: OpenFile,
    inode: Inode,
}

impl Nameless {
    /// Its number, which it keeps.
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.file.ino
    }
}

impl Volume {
    /// Copies what is no directory out of a snapshot: attributes, xattrs, and all data by
    /// reference.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `NoSpace`, `Poisoned`; faults.
    pub fn copy_nameless(self: &Arc<Self>, epoch: Epoch, ino: Ino) -> Result<Nameless> {
        let at = At::Epoch(epoch);
        let inode = self.stat(at, ino)?.inode;
        let source = match inode.kind {
            FileKind::Directory => return Err(Error::IsDirectory),
            FileKind::Regular => Some(self.open_file(at, ino)?),
            _ => None,
        };
        let copy = self.make_nameless(&inode, &self.all_xattrs(at, ino)?)?;
        if let Some(source) = source {
            let mut done = 0;
            while done < inode.size {
                let copied = copy.copy_from(done, &source, done, inode.size - done)?;
                if copied == 0 {
                    return Err(Error::corrupt(format!("inode {ino}"), "it ends before its size"));
                }
                done += copied;
            }
        }
        Ok(Nameless { file: copy, inode })
    }

    pub(super) fn make_nameless(
        self: &Arc<Self>,
        like: &Inode,
        xattrs: &[Xattr],
    ) -> Result<OpenFile> {
        self.admit_change()?;
        self.held.open_file(self.config.limits.open_files)?;
        let ino = self.next_ino().inspect_err(|_| self.held.close_file())?;
        // Open before it is there: the reaper takes only what nobody has open.
        let content = Content::Live(self.files.open(ino));
        let file = OpenFile { volume: Arc::clone(self), ino, content };
        let size = if like.kind == FileKind::Regular { 0 } else { like.size };
        let inode = Inode { nlink: 0, size, mapped: 0, ..like.clone() };
        let _gate = self.gate.read();
        self.stage(|edit| {
            edit.put_inode(ino, &inode)?;
            for (name, value) in xattrs {
                edit.put_xattr(ino, name, value)?;
            }
            self.reaps.put(edit, ino, Reap { from: 0, delete: true }, false)
        })?;
        Ok(file)
    }

    pub(super) fn all_xattrs(&self, at: At, ino: Ino) -> Result<Vec<Xattr>> {
        let view = self.meta.read();
        let names = view.xattr_names(at, ino)?;
        let value = |name: Box<[u8]>| {
            let value = view.xattr(at, ino, &name)?;
            Ok(value.map(|value| (name, value)))
        };
        names.into_iter().filter_map(|name| value(name).transpose()).collect()
    }

    /// Gives a copy its name, over whatever has it that is no directory. Returns what that was.
    ///
    /// # Errors
    /// `IsDirectory` if a directory has the name; `NotFound`, `NotDirectory` for the parent;
    /// `NoSpace`, `Poisoned`.
    pub fn name_copy(&self, copy: Nameless, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        let Nameless { file, inode } = copy;
        let ino = file.ino;
        let replaced = self.enter(parent, name, |edit, now| {
            let copied = edit.view().inode(At::Live, ino)?.ok_or(Error::Stale)?;
            let (mapped, class) = (copied.mapped, copied.class);
            let inode = Inode { nlink: 1, mapped, class, ctime: now, ..inode.clone() };
            edit.put_inode(ino, &inode)?;
            self.reaps.delete(edit, ino)?;
            Ok(Dirent { ino, kind: inode.kind })
        })?;
        self.names.note(ino, parent, name);
        Ok(replaced)
    }

    /// Gives an inode of the live tree one more name, over whatever has it that is no directory.
    ///
    /// # Errors
    /// As [`Volume::name_copy`]; `TooManyLinks`.
    pub fn link_over(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        self.enter(parent, name, |edit, now| {
            let inode = edit.view().inode(At::Live, ino)?.filter(|inode| inode.nlink > 0);
            let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
            if inode.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            inode.nlink += 1;
            inode.ctime = now;
            edit.put_inode(ino, &inode)?;
            Ok(Dirent { ino, kind: inode.kind })
        })
    }

    /// One change: what `what` stages gets the name, and what had it loses it.
    fn enter(
        &self,
        parent: Ino,
        name: &[u8],
        what: impl FnOnce(&mut Edit<'_>, crate::types::Timestamp) -> Result<Dirent>,
    ) -> Result<Option<Ino>> {
        super::names::check_name(name)?;
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        self.stage(|edit| {
            super::names::directory(&edit.view(), parent)?;
            let old = edit.view().dirent(At::Live, parent, name)?;
            if old.is_some_and(|old| old.kind == FileKind::Directory) {
                return Err(Error::IsDirectory);
            }
            let entry = what(edit, now)?;
            if let Some(old) = old {
                let inode = super::names::target(&edit.view(), old.ino)?;
                self.drop_link(edit, old.ino, inode, now)?;
            }
            edit.put_dirent(parent, name, entry)?;
            super::names::touch_directory(edit, parent, now, 0)?;
            Ok(old.map(|old| old.ino))
        })
    }

    /// What has to change for the live inode `live` to have the attributes and xattrs that `ino`
    /// had in a snapshot; `None` if nothing has.
    ///
    /// # Errors
    /// `NotFound`; faults.
    pub fn attributes_back(&self, epoch: Epoch, ino: Ino, live: Ino) -> Result<Option<AttrChange>> {
        let then = self.stat(At::Epoch(epoch), ino)?.inode;
        let now = self.stat(At::Live, live)?.inode;
        let (old, new) =
            (self.all_xattrs(At::Epoch(epoch), ino)?, self.all_xattrs(At::Live, live)?);
        let gone = new.iter().filter(|(name, _)| old.iter().all(|(other, _)| other != name));
        let changed = old.iter().filter(|row| !new.contains(row));
        let xattrs: Vec<_> = gone
            .map(|(name, _)| (name.to_vec(), None))
            .chain(changed.map(|(name, value)| (name.to_vec(), Some(value.clone()))))
            .collect();
        let same = (then.perm, then.uid, then.gid, then.mtime)
            == (now.perm, now.uid, now.gid, now.mtime)
            && xattrs.is_empty();
        Ok((!same).then(|| AttrChange {
            perm: Some(then.perm),
            uid: Some(then.uid),
            gid: Some(then.gid),
            atime: Some(SetTime::At(then.atime)),
            mtime: Some(SetTime::At(then.mtime)),
            xattrs,
            ..AttrChange::default()
        }))
    }

    /// Whether a live inode has the content that `ino` had in a snapshot: the same bytes of the
    /// same chunks, the same target, the same device.
    ///
    /// # Errors
    /// What storing buffered data says; faults.
    pub fn has_content_of(&self, epoch: Epoch, ino: Ino, live: Ino) -> Result<bool> {
        let then = self.stat(At::Epoch(epoch), ino)?.inode;
        if self.stat(At::Live, live)?.inode.kind == FileKind::Regular {
            self.drain_ino(live)?;
        }
        let now = self.stat(At::Live, live)?.inode;
        if then.kind != now.kind || then.size != now.size {
            return Ok(false);
        }
        match then.kind {
            FileKind::Regular if then.mapped != now.mapped => Ok(false),
            // Nobody can set the time of the last change, so nothing was changed since.
            FileKind::Regular if ino == live && then.ctime == now.ctime => Ok(true),
            FileKind::Regular => {
                self.has_same_extents((At::Epoch(epoch), ino), (At::Live, live), &mut 0)
            }
            FileKind::Directory => Ok(true),
            _ => Ok(then.target == now.target && then.rdev == now.rdev),
        }
    }
}

impl std::fmt::Debug for Nameless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nameless({})", self.file.ino)
    }
}
