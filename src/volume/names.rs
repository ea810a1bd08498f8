//! Names: making, linking and removing. Every change is one edit of the open txg.

use log::error;

use super::{Listed, NewInode, Stat, Volume};
use crate::error::{Error, Result};
use crate::limits::{LINKS_MAX, NAME_BYTES_MAX, TARGET_BYTES_MAX};
use crate::meta::{Edit, View};
use crate::types::{At, Cookie, Dirent, FileKind, Ino, Inode, Timestamp};

/// Size reported for every directory, as ext4 does for a small one.
pub(super) const DIRECTORY_BYTES: u64 = 4096;

/// Refuses what cannot be the name of an entry.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong { max: NAME_BYTES_MAX });
    }
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.iter().any(|b| matches!(b, 0 | b'/'))
    {
        return Err(Error::invalid("A name must not be empty, \".\", \"..\" or contain \"/\""));
    }
    Ok(())
}

/// The directory `ino` as it is now; `NotFound` if it is gone, `NotDirectory` if it is none.
pub(super) fn directory(view: &View<'_>, ino: Ino) -> Result<Inode> {
    let inode = view.inode(At::Live, ino)?.filter(|inode| inode.nlink > 0);
    let inode = inode.ok_or_else(|| Error::not_found("directory"))?;
    if inode.kind == FileKind::Directory { Ok(inode) } else { Err(Error::NotDirectory) }
}

pub(super) fn entry(view: &View<'_>, parent: Ino, name: &[u8]) -> Result<(Dirent, Inode)> {
    let found = view.dirent(At::Live, parent, name)?.ok_or_else(|| Error::not_found("entry"))?;
    Ok((found, target(view, found.ino)?))
}

pub(super) fn target(view: &View<'_>, ino: Ino) -> Result<Inode> {
    view.inode(At::Live, ino)?
        .ok_or_else(|| Error::corrupt(format!("inode {ino}"), "an entry names it, it is missing"))
}

pub(super) fn touch_directory(
    edit: &mut Edit<'_>,
    ino: Ino,
    now: Timestamp,
    links: i32,
) -> Result<()> {
    let mut dir = directory(&edit.view(), ino)?;
    dir.mtime = now;
    dir.ctime = now;
    dir.nlink = dir.nlink.saturating_add_signed(links);
    edit.put_inode(ino, &dir)
}

impl Volume {
    /// Attributes of an inode.
    ///
    /// # Errors
    /// `NotFound` when it does not exist at that time.
    pub fn stat(&self, at: At, ino: Ino) -> Result<Stat> {
        let inode = self.meta.read().inode(at, ino)?;
        inode.map(|inode| self.stat_of(at, ino, inode)).ok_or_else(|| Error::not_found("inode"))
    }

    pub(super) fn stat_of(&self, at: At, ino: Ino, inode: Inode) -> Stat {
        let buffered = match at {
            At::Live if inode.kind == FileKind::Regular => self.files.dirty_bytes_of(ino) as u64,
            _ => 0,
        };
        Stat { ino, allocated_bytes: inode.mapped + buffered, inode }
    }

    /// The entry `name` of a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory` for the parent; a missing entry is `None`.
    pub fn lookup(&self, at: At, parent: Ino, name: &[u8]) -> Result<Option<Stat>> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong { max: NAME_BYTES_MAX });
        }
        let view = self.meta.read();
        let Some(found) = view.dirent(at, parent, name)? else {
            let dir = view.inode(at, parent)?.ok_or_else(|| Error::not_found("directory"))?;
            let is_directory = dir.kind == FileKind::Directory;
            return if is_directory { Ok(None) } else { Err(Error::NotDirectory) };
        };
        let inode = view.inode(at, found.ino)?.ok_or_else(|| {
            Error::corrupt(format!("inode {}", found.ino), "an entry names it, it is missing")
        })?;
        drop(view);
        if at == At::Live && found.kind == FileKind::Regular {
            self.names.note(found.ino, parent, name);
        }
        Ok(Some(self.stat_of(at, found.ino, inode)))
    }

    /// Up to `limit` entries after cookie `after`, in cookie order, without `.` and `..`. Damaged
    /// rows are stepped over; a listing that met one ends with the error, once there is nothing
    /// more to list.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`; `Corrupt`, `Kv` for damage.
    pub fn list(&self, at: At, dir: Ino, after: Cookie, limit: usize) -> Result<Vec<Listed>> {
        let view = self.meta.read();
        if self.ends.is_end(at, dir, after, view.changes()) {
            return Ok(Vec::new());
        }
        let inode = view.inode(at, dir)?.ok_or_else(|| Error::not_found("directory"))?;
        if inode.kind != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        let (rows, damage) = view.readable_dirents(at, dir, after, limit);
        if damage.is_some() {
            self.damaged_dirs.lock().insert((at, dir));
            self.ends.forget(dir);
        } else if rows.len() < limit && !self.damaged_dirs.lock().contains(&(at, dir)) {
            let last = rows.last().map_or(after, |(cookie, ..)| *cookie);
            self.ends.note(at, dir, last, view.changes());
        }
        if rows.is_empty() && self.damaged_dirs.lock().contains(&(at, dir)) {
            // What was met may have been replaced since; only damage that is there counts.
            match damage_in(&view, at, dir).or(damage) {
                Some(damage) => {
                    error!("Directory listed without damaged entries ino={dir} cause={damage}");
                    return Err(damage);
                }
                None => self.damaged_dirs.lock().remove(&(at, dir)),
            };
        }
        let listed = rows.into_iter().map(|(cookie, name, entry)| Listed {
            cookie,
            name,
            ino: entry.ino,
            kind: entry.kind,
        });
        Ok(listed.collect())
    }

    /// The directory that holds directory `dir`; the root holds itself.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn parent_of(&self, at: At, dir: Ino) -> Result<Ino> {
        let inode = self.meta.read().inode(at, dir)?;
        let inode = inode.ok_or_else(|| Error::not_found("directory"))?;
        if inode.kind == FileKind::Directory { Ok(inode.parent) } else { Err(Error::NotDirectory) }
    }

    /// The inode at `path` from the root; symbolic links are not followed.
    ///
    /// # Errors
    /// `NotFound` that names the first missing part; `NotDirectory`.
    pub fn resolve(&self, at: At, path: &[u8]) -> Result<Stat> {
        let mut here = self.stat(at, Ino::ROOT)?;
        for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".") {
            here = self.lookup(at, here.ino, part)?.ok_or_else(|| {
                Error::not_found(format!("path {} in the volume", String::from_utf8_lossy(path)))
            })?;
        }
        Ok(here)
    }

    /// Path of entry `name` in directory `parent`, from the root, without a leading slash.
    pub(super) fn path_of(&self, parent: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let mut parts = vec![name.to_vec()];
        let mut dir = parent;
        while dir != Ino::ROOT {
            let up = self.parent_of(At::Live, dir)?;
            parts.push(self.name_in(up, dir)?);
            dir = up;
        }
        parts.reverse();
        Ok(parts.join(&b'/'))
    }

    fn name_in(&self, parent: Ino, dir: Ino) -> Result<Vec<u8>> {
        if let Some((known, name)) = self.names.get(dir) {
            let entry = self.meta.read().dirent(At::Live, parent, &name)?;
            if known == parent && entry.is_some_and(|e| e.ino == dir) {
                return Ok(name.into_vec());
            }
        }
        let mut after = Cookie(0);
        loop {
            let rows = self.list(At::Live, parent, after, 1000)?;
            let Some(last) = rows.last() else { return Err(Error::not_found("directory")) };
            after = last.cookie;
            if let Some(found) = rows.into_iter().find(|row| row.ino == dir) {
                self.names.note(dir, parent, &found.name);
                return Ok(found.name.into_vec());
            }
        }
    }

    /// Makes a file, directory, symlink or special file.
    ///
    /// # Errors
    /// `Exists`, `NotFound` or `NotDirectory` for the parent, `NameTooLong`, `Invalid`, `NoSpace`,
    /// `Poisoned`.
    pub fn make(&self, parent: Ino, name: &[u8], new: &NewInode<'_>) -> Result<Stat> {
        check_name(name)?;
        if new.target.len() > TARGET_BYTES_MAX {
            return Err(Error::NameTooLong { max: TARGET_BYTES_MAX });
        }
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        let (ino, inode) = self.stage(|edit| {
            directory(&edit.view(), parent)?;
            if edit.view().dirent(At::Live, parent, name)?.is_some() {
                return Err(Error::Exists { what: "entry".to_owned() });
            }
            let ino = self.next_ino()?;
            let inode = new_inode(new, parent, name, now);
            edit.put_inode(ino, &inode)?;
            for (key, value) in &new.xattrs {
                edit.put_xattr(ino, key, value)?;
            }
            edit.put_dirent(parent, name, Dirent { ino, kind: new.kind })?;
            let links = i32::from(new.kind == FileKind::Directory);
            touch_directory(edit, parent, now, links)?;
            Ok((ino, inode))
        })?;
        self.names.note(ino, parent, name);
        Ok(self.stat_of(At::Live, ino, inode))
    }

    /// Gives `ino` another name.
    ///
    /// # Errors
    /// As [`Volume::make`]; `NotPermitted` for directories; `TooManyLinks`.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Stat> {
        check_name(name)?;
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        let inode = self.stage(|edit| {
            directory(&edit.view(), parent)?;
            let inode = edit.view().inode(At::Live, ino)?.filter(|inode| inode.nlink > 0);
            let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
            if inode.kind == FileKind::Directory {
                return Err(Error::NotPermitted { what: "A directory has one name".to_owned() });
            }
            if inode.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            if edit.view().dirent(At::Live, parent, name)?.is_some() {
                return Err(Error::Exists { what: "entry".to_owned() });
            }
            inode.nlink += 1;
            inode.ctime = now;
            // The newest name most likely outlives the others: whoever links and unlinks, moves.
            settle(&mut inode, parent, name);
            edit.put_inode(ino, &inode)?;
            edit.put_dirent(parent, name, Dirent { ino, kind: inode.kind })?;
            touch_directory(edit, parent, now, 0)?;
            Ok(inode)
        })?;
        self.names.note(ino, parent, name);
        Ok(self.stat_of(At::Live, ino, inode))
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `Poisoned`.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.admit_removal()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        self.stage(|edit| {
            let (found, inode) = entry(&edit.view(), parent, name)?;
            if found.kind == FileKind::Directory {
                return Err(Error::IsDirectory);
            }
            edit.delete_dirent(parent, name)?;
            self.drop_link(edit, found.ino, inode, now)?;
            touch_directory(edit, parent, now, 0)
        })
    }

    /// Removes an empty directory; returns what it was.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `Poisoned`.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<Stat> {
        self.admit_removal()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        let (ino, inode) = self.stage(|edit| {
            let (found, inode) = entry(&edit.view(), parent, name)?;
            if found.kind != FileKind::Directory {
                return Err(Error::NotDirectory);
            }
            if edit.view().has_dirents(At::Live, found.ino)? {
                return Err(Error::NotEmpty);
            }
            edit.delete_dirent(parent, name)?;
            self.drop_link(edit, found.ino, inode.clone(), now)?;
            touch_directory(edit, parent, now, -1)?;
            Ok((found.ino, inode))
        })?;
        Ok(self.stat_of(At::Live, ino, inode))
    }

    /// One name of an inode is gone; a directory has only one.
    pub(super) fn drop_link(
        &self,
        edit: &mut Edit<'_>,
        ino: Ino,
        mut inode: Inode,
        at: Timestamp,
    ) -> Result<()> {
        inode.ctime = at;
        inode.nlink = match inode.kind {
            FileKind::Directory => 0,
            _ => inode.nlink.saturating_sub(1),
        };
        if inode.nlink > 0 {
            edit.put_inode(ino, &inode)
        } else {
            self.remove_inode(edit, ino, inode)
        }
    }
}

/// The first damage that a listing of the whole directory meets.
fn damage_in(view: &View<'_>, at: At, dir: Ino) -> Option<Error> {
    let mut after = Cookie(0);
    loop {
        let (rows, damage) = view.readable_dirents(at, dir, after, 1000);
        if damage.is_some() {
            return damage;
        }
        after = rows.last()?.0;
    }
}

pub(super) fn new_inode(new: &NewInode<'_>, parent: Ino, name: &[u8], now: Timestamp) -> Inode {
    let is_dir = new.kind == FileKind::Directory;
    Inode {
        kind: new.kind,
        perm: new.perm & 0o7777,
        uid: new.uid,
        gid: new.gid,
        nlink: if is_dir { 2 } else { 1 },
        rdev: new.rdev,
        size: if is_dir { DIRECTORY_BYTES } else { new.target.len() as u64 },
        mapped: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        class: crate::types::ClassId(0),
        parent,
        home: Cookie::of(name).upper(),
        stamp: 0,
        target: new.target.into(),
    }
}

/// The root directory of a new volume.
pub(super) fn root_inode(now: Timestamp, uid: u32, gid: u32) -> Inode {
    let new = NewInode {
        kind: FileKind::Directory,
        perm: 0o755,
        uid,
        gid,
        rdev: 0,
        target: b"",
        xattrs: Vec::new(),
    };
    Inode { home: 0, ..new_inode(&new, Ino::ROOT, b"", now) }
}

/// Notes in an inode where it is found by name.
pub(super) fn settle(inode: &mut Inode, parent: Ino, name: &[u8]) {
    inode.parent = parent;
    inode.home = Cookie::of(name).upper();
}
