//! Making, linking, renaming and removing names.

use super::acl::{ACCESS, Acl, DEFAULT};
use super::snapdir::not_reserved;
use super::{Caller, Entry, NewMode, Node, SNAPSHOTS_NAME, Vfs, entry, only_shown, reserved};
use crate::error::{Error, Result};
use crate::types::{At, FileKind, Ino};
use crate::volume::{NewInode, RenameMode, Stat};

/// Permissions every symlink has.
const SYMLINK_PERM: u16 = 0o777;
const SET_GROUP_ID: u16 = 0o2000;

/// What a new inode takes from its directory.
struct Inherited {
    perm: u16,
    gid: u32,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Vfs {
    /// Makes a file, pipe, socket or device node.
    ///
    /// # Errors
    /// `Exists`, `NotFound`, `NotDirectory`, `ReadOnly`, `NotPermitted`, `NameTooLong`, `NoSpace`.
    pub fn mknod(
        &self,
        parent: Node,
        name: &[u8],
        new: NewMode,
        rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        self.make(parent, name, new, caller, What::Device(rdev)).map(|stat| live(&stat))
    }

    /// Makes a directory; in `.snapshots`, a snapshot.
    ///
    /// # Errors
    /// As [`Vfs::mknod`].
    pub fn mkdir(&self, parent: Node, name: &[u8], new: NewMode, caller: Caller) -> Result<Entry> {
        if let Node::SnapDir(dir) = parent {
            return self.snapdir_mkdir(dir, name);
        }
        self.make(parent, name, new, caller, What::Device(0)).map(|stat| live(&stat))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Vfs::mknod`].
    pub fn symlink(
        &self,
        parent: Node,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        let new = NewMode { kind: FileKind::Symlink, perm: SYMLINK_PERM, umask: 0 };
        self.make(parent, name, new, caller, What::Target(target)).map(|stat| live(&stat))
    }

    /// Makes another name for an inode.
    ///
    /// # Errors
    /// `CrossDevice` out of a snapshot; as [`Vfs::mknod`], `TooManyLinks`.
    pub fn link(&self, node: Node, parent: Node, name: &[u8]) -> Result<Entry> {
        let dir = self.directory_for(parent, name)?;
        let Node::Live(ino) = node else { return Err(Error::CrossDevice) };
        self.volume.link(ino, dir, name).map(|stat| live(&stat))
    }

    /// Removes a name of something that is no directory.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `ReadOnly`, `NotPermitted`; faults.
    pub fn unlink(&self, parent: Node, name: &[u8]) -> Result<()> {
        let dir = self.writable(parent)?;
        if name == SNAPSHOTS_NAME {
            return Err(Error::IsDirectory);
        }
        self.volume.unlink(dir, name)
    }

    /// Removes an empty directory; in `.snapshots`, a snapshot.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `ReadOnly`, `NotPermitted`; faults.
    pub fn rmdir(&self, parent: Node, name: &[u8]) -> Result<()> {
        if let Node::SnapDir(dir) = parent {
            return self.snapdir_rmdir(dir, name);
        }
        let dir = self.writable(parent)?;
        not_reserved(name)?;
        let gone = self.volume.rmdir(dir, name)?;
        self.removed.note(gone);
        Ok(())
    }

    /// Renames; in `.snapshots`, a snapshot.
    ///
    /// # Errors
    /// `CrossDevice` between the live tree and a snapshot; `NotPermitted` into and out of
    /// `.snapshots`, or mv(1) would copy instead and make a snapshot on the way; those of
    /// rename(2).
    pub fn rename(&self, from: (Node, &[u8]), to: (Node, &[u8]), mode: RenameMode) -> Result<()> {
        self.rename_leaving(from, to, mode, None)
    }

    /// As [`Vfs::rename`], and leaves a whiteout of `caller` under the old name, as overlayfs wants
    /// it: a character device without a number.
    ///
    /// # Errors
    /// As [`Vfs::rename`].
    pub fn rename_whiteout(
        &self,
        from: (Node, &[u8]),
        to: (Node, &[u8]),
        mode: RenameMode,
        caller: Caller,
    ) -> Result<()> {
        let Node::Live(dir) = from.0 else { return Err(reserved()) };
        self.writable(from.0)?;
        let new = NewMode { kind: FileKind::CharDevice, perm: 0, umask: 0 };
        let gid = self.inherit(dir, new, caller)?.gid;
        let whiteout = NewInode {
            kind: FileKind::CharDevice,
            perm: 0,
            uid: caller.uid,
            gid,
            rdev: 0,
            target: &[],
            xattrs: Vec::new(),
        };
        self.rename_leaving(from, to, mode, Some(&whiteout))
    }

    fn rename_leaving(
        &self,
        from: (Node, &[u8]),
        to: (Node, &[u8]),
        mode: RenameMode,
        left: Option<&NewInode<'_>>,
    ) -> Result<()> {
        let into = if let Node::Live(_) = from.0 { self.give_way(to.0)? } else { to.0 };
        match (from.0, into) {
            (Node::Live(old), Node::Live(new)) => {
                self.writable(from.0)?;
                not_reserved(from.1)?;
                not_reserved(to.1)?;
                let gone = self.volume.rename_leaving((old, from.1), (new, to.1), mode, left)?;
                if let Some(gone) = gone {
                    self.removed.note(gone);
                }
                Ok(())
            }
            (Node::SnapDir(old), Node::SnapDir(new)) if old == new => {
                self.snapdir_rename(old, from.1, to.1, mode)
            }
            (Node::Snap(old, _), Node::Snap(new, _)) if old == new => {
                Err(Error::ReadOnly { what: "a snapshot".to_owned() })
            }
            (Node::SnapDir(_) | Node::GmtDir(_), _) | (_, Node::SnapDir(_) | Node::GmtDir(_)) => {
                Err(reserved())
            }
            (from, to) if from.only_shows() || to.only_shows() => Err(only_shown()),
            _ => Err(Error::CrossDevice),
        }
    }

    /// Makes an inode and its name, with what it inherits, in one change.
    pub(super) fn make(
        &self,
        parent: Node,
        name: &[u8],
        new: NewMode,
        caller: Caller,
        what: What<'_>,
    ) -> Result<Stat> {
        let dir = self.directory_for(parent, name)?;
        let inherited = self.inherit(dir, new, caller)?;
        let (rdev, target) = match what {
            What::Device(rdev) => (rdev, &[][..]),
            What::Target(target) => (0, target),
        };
        let inode = NewInode {
            kind: new.kind,
            perm: inherited.perm,
            uid: caller.uid,
            gid: inherited.gid,
            rdev,
            target,
            xattrs: inherited.xattrs,
        };
        self.volume.make(dir, name, &inode)
    }

    /// The live directory in which `name` may be made.
    fn directory_for(&self, parent: Node, name: &[u8]) -> Result<Ino> {
        let parent = self.give_way(parent)?;
        let dir = self.writable(parent)?;
        if name == SNAPSHOTS_NAME {
            return Err(Error::Exists { what: ".snapshots".to_owned() });
        }
        Ok(dir)
    }

    /// Group and permissions by the directory's set-group-id bit and default ACL.
    fn inherit(&self, dir: Ino, new: NewMode, caller: Caller) -> Result<Inherited> {
        let parent = self.volume.stat(At::Live, dir)?.inode;
        let group_from_dir = parent.perm & SET_GROUP_ID != 0;
        let is_dir = new.kind == FileKind::Directory;
        let mut inherited = Inherited {
            perm: new.perm | if group_from_dir && is_dir { SET_GROUP_ID } else { 0 },
            gid: if group_from_dir { parent.gid } else { caller.gid },
            xattrs: Vec::new(),
        };
        if new.kind == FileKind::Symlink {
            return Ok(inherited);
        }
        let Some((bytes, default)) = self.stored_acl(dir, DEFAULT)? else {
            inherited.perm &= !new.umask;
            return Ok(inherited);
        };
        let (perm, access) = default.inherited(inherited.perm);
        inherited.perm = perm;
        if let Some(access) = access {
            inherited.xattrs.push((ACCESS.to_vec(), access.to_bytes()));
        }
        if is_dir {
            inherited.xattrs.push((DEFAULT.to_vec(), bytes));
        }
        Ok(inherited)
    }

    /// An ACL of a live inode with its bytes.
    pub(super) fn stored_acl(&self, ino: Ino, name: &[u8]) -> Result<Option<(Vec<u8>, Acl)>> {
        let Some(bytes) = self.volume.xattr(At::Live, ino, name)? else { return Ok(None) };
        match Acl::parse(&bytes) {
            Ok(acl) => Ok(acl.map(|acl| (bytes, acl))),
            Err(_) => Err(Error::corrupt(format!("ACL of inode {ino}"), "it does not parse")),
        }
    }
}

/// What makes one kind of inode different.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    Device(u32),
    Target(&'a [u8]),
}

pub(super) fn live(stat: &Stat) -> Entry {
    entry(Node::Live(stat.ino), stat)
}
