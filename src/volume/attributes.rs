//! Attributes and extended attributes: one edit of the open txg each.

use super::write::end_of;
use super::{AttrChange, SetTime, Stat, Volume, XattrMode};
use crate::error::{Error, Result};
use crate::limits::{XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::meta::Edit;
use crate::types::{At, Ino};

impl Volume {
    /// Changes attributes, a new size with them: one change, which a commit holds whole or not.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory` or `Invalid` for the size of what is no file, `FileTooLarge`,
    /// `NoSpace`, `Poisoned`.
    pub fn set_attributes(&self, ino: Ino, change: &AttrChange) -> Result<Stat> {
        self.admit_change()?;
        if let Some(size) = change.size {
            end_of(size, 0)?;
            self.settle_trim(ino, size)?;
        }
        let _gate = self.gate.read();
        let file = change.size.map(|_| self.borrow_node(ino));
        let mut state = file.as_ref().map(|file| file.node.settled());
        let inode = self.stage(|edit| {
            if let (Some(size), Some(state)) = (change.size, &mut state) {
                self.set_size(edit, ino, state, size)?;
            }
            let now = self.env.now();
            let inode = edit.view().inode(At::Live, ino)?;
            let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
            inode.perm = change.perm.unwrap_or(inode.perm) & 0o7777;
            inode.uid = change.uid.unwrap_or(inode.uid);
            inode.gid = change.gid.unwrap_or(inode.gid);
            let time = |set: Option<SetTime>, old| match set {
                Some(SetTime::Now) => now,
                Some(SetTime::At(time)) => time,
                None => old,
            };
            inode.atime = time(change.atime, inode.atime);
            inode.mtime = time(change.mtime, inode.mtime);
            inode.ctime = change.ctime.unwrap_or(now);
            edit.put_inode(ino, &inode)?;
            for (name, value) in &change.xattrs {
                match value {
                    Some(value) => edit.put_xattr(ino, name, value)?,
                    None => edit.delete_xattr(ino, name)?,
                }
            }
            Ok(inode)
        })?;
        if let (Some(file), Some(state)) = (&file, &state) {
            self.files.note_dirty(&file.node, state);
        }
        drop(state);
        Ok(self.stat_of(At::Live, ino, inode))
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn xattr(&self, at: At, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.meta.read().xattr(at, ino, name)
    }

    /// Names of all extended attributes.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn xattr_names(&self, at: At, ino: Ino) -> Result<Vec<Box<[u8]>>> {
        self.meta.read().xattr_names(at, ino)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `Range` (name too long), `TooLarge`, `Exists`, `NoAttribute`, `NotFound`, `Poisoned`.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
            return Err(Error::Range);
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        self.change_xattr(ino, |edit| {
            let old = edit.view().xattr(At::Live, ino, name)?;
            match (mode, &old) {
                (XattrMode::Create | XattrMode::Never, Some(_)) => {
                    return Err(Error::Exists { what: "attribute".to_owned() });
                }
                (XattrMode::Replace | XattrMode::Never, None) => return Err(Error::NoAttribute),
                (_, Some(_)) => {}
                (_, None) => {
                    let names = edit.view().xattr_names(At::Live, ino)?;
                    let bytes: usize = names.iter().map(|n| n.len() + 1).sum();
                    if bytes + name.len() + 1 > XATTR_LIST_BYTES_MAX {
                        return Err(Error::NoSpace { place: format!("the attributes of {ino}") });
                    }
                }
            }
            edit.put_xattr(ino, name, value)
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`, `Poisoned`.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.change_xattr(ino, |edit| {
            edit.view().xattr(At::Live, ino, name)?.ok_or(Error::NoAttribute)?;
            edit.delete_xattr(ino, name)
        })
    }

    fn change_xattr(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut Edit<'_>) -> Result<()>,
    ) -> Result<()> {
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        self.stage(|edit| {
            let inode = edit.view().inode(At::Live, ino)?;
            let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
            change(edit)?;
            inode.ctime = now;
            edit.put_inode(ino, &inode)
        })
    }
}
