//! Extended attributes.

use std::os::unix::ffi::OsStrExt;

use super::acl::{ACCESS, Acl, DEFAULT};
use super::attrs::{CAPABILITY, change_perm};
use super::shown::Shown;
use super::{Caller, Node, Vfs};
use crate::error::{Error, Result};
use crate::limits::{XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::types::{At, FileKind, Ino};
use crate::volume::XattrMode;

/// A virtual attribute of the mount's root: the absolute path of the volume directory. It is how
/// `stratafs umount MOUNTPOINT` finds the volume; listings do not show it, so copies do not keep
/// it.
pub const VOLUME_XATTR: &[u8] = b"user.stratafs.volume";

const TRUSTED: &[u8] = b"trusted.";

/// What kind of attribute a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Acl,
    Volume,
    Shown(Shown),
}

impl Vfs {
    /// Value of an attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `Unsupported` namespace, `NotFound`, `Stale`; faults.
    pub fn getxattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>> {
        if !matches!(node, Node::Live(_) | Node::Snap(..)) {
            return Err(Error::NoAttribute);
        }
        match kind_of(node, name)? {
            Kind::Volume => Ok(self.volume.dir().as_os_str().as_bytes().to_vec()),
            Kind::Shown(what) => self.shown(node, what),
            Kind::Plain | Kind::Acl => {
                let (at, ino) = self.place(node)?;
                self.volume.xattr(at, ino, name)?.ok_or(Error::NoAttribute)
            }
        }
    }

    /// Names of all attributes, each with a NUL behind it. Only root sees `trusted.` ones.
    ///
    /// # Errors
    /// `TooLarge`, `NotFound`, `Stale`; faults.
    pub fn listxattr(&self, node: Node, caller: Caller) -> Result<Vec<u8>> {
        if !matches!(node, Node::Live(_) | Node::Snap(..)) {
            return Ok(Vec::new());
        }
        let (at, ino) = self.place(node)?;
        let mut list = Vec::new();
        for name in self.volume.xattr_names(at, ino)? {
            if caller.uid == 0 || !name.starts_with(TRUSTED) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        if list.len() > XATTR_LIST_BYTES_MAX { Err(Error::TooLarge) } else { Ok(list) }
    }

    /// Sets an attribute. An access ACL sets the permission bits with it, and is not stored when
    /// they say the same.
    ///
    /// # Errors
    /// `Exists` and `NoAttribute` by `mode`; `Invalid` for a bad ACL; `TooLarge`, `Range`,
    /// `Unsupported`, `ReadOnly`, `NotPermitted`, `NoSpace`; faults.
    pub fn setxattr(
        &self,
        node: Node,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        caller: Caller,
    ) -> Result<()> {
        self.give_way_itself(node)?;
        let ino = self.writable(node)?;
        if name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Error::Range);
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        match kind_of(node, name)? {
            Kind::Volume | Kind::Shown(_) => Err(fixed(name)),
            Kind::Acl => match Acl::parse(value)? {
                Some(acl) if name == ACCESS => self.set_access_acl(ino, acl, caller),
                Some(acl) => self.set_default_acl(ino, &acl),
                None => self.remove_acl(ino, name),
            },
            Kind::Plain => {
                self.volume.set_xattr(ino, name, value, mode)?;
                if name == CAPABILITY {
                    self.handles.may_have_privileges(ino);
                }
                Ok(())
            }
        }
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `Unsupported`, `ReadOnly`, `NotPermitted`; faults.
    pub fn removexattr(&self, node: Node, name: &[u8]) -> Result<()> {
        let ino = self.writable(node)?;
        match kind_of(node, name)? {
            Kind::Volume | Kind::Shown(_) => Err(fixed(name)),
            Kind::Acl => self.remove_acl(ino, name),
            Kind::Plain => self.volume.remove_xattr(ino, name),
        }
    }

    fn set_access_acl(&self, ino: Ino, acl: Acl, caller: Caller) -> Result<()> {
        let inode = self.volume.stat(At::Live, ino)?.inode;
        if inode.kind == FileKind::Symlink {
            return Err(Error::Unsupported { what: "An ACL of a symbolic link" });
        }
        let mut perm = inode.perm & !0o777 | acl.mode();
        if Self::acl_drops_set_gid(caller, inode.gid) {
            perm &= !0o2000;
        }
        let value = if acl.is_minimal() {
            // Removing what is not there is not a change.
            let stored = self.volume.xattr(At::Live, ino, ACCESS)?;
            stored.map(|_| (ACCESS.to_vec(), None))
        } else {
            Some((ACCESS.to_vec(), Some(acl.to_bytes())))
        };
        let change = change_perm(perm, value.into_iter().collect());
        self.volume.set_attributes(ino, &change).map(drop)
    }

    fn set_default_acl(&self, ino: Ino, acl: &Acl) -> Result<()> {
        if self.volume.stat(At::Live, ino)?.inode.kind != FileKind::Directory {
            return Err(Error::NotPermitted {
                what: "Only directories have a default ACL".to_owned(),
            });
        }
        self.volume.set_xattr(ino, DEFAULT, &acl.to_bytes(), XattrMode::Any)
    }

    /// Removing an ACL that is not there succeeds, as on other file systems.
    fn remove_acl(&self, ino: Ino, name: &[u8]) -> Result<()> {
        match self.volume.remove_xattr(ino, name) {
            Err(Error::NoAttribute) => Ok(()),
            done => done,
        }
    }
}

fn kind_of(node: Node, name: &[u8]) -> Result<Kind> {
    if name == ACCESS || name == DEFAULT {
        return Ok(Kind::Acl);
    }
    if node == Node::ROOT && name == VOLUME_XATTR {
        return Ok(Kind::Volume);
    }
    if let Some(what) = Shown::named(name) {
        return Ok(Kind::Shown(what));
    }
    let namespaces = [&b"user."[..], TRUSTED, b"security."];
    match namespaces.iter().find(|space| name.starts_with(space)) {
        Some(space) if name.len() > space.len() => Ok(Kind::Plain),
        Some(_) => Err(Error::invalid("An extended attribute needs a name behind its namespace")),
        None => Err(Error::Unsupported { what: "An extended attribute in this namespace" }),
    }
}

fn fixed(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::NotPermitted { what: format!("{name} only shows something and cannot be changed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_the_namespaces_of_linux() {
        let elsewhere = Node::Live(Ino(2));
        for name in [&b"user.a"[..], b"trusted.overlay.opaque", b"security.capability"] {
            assert_eq!(kind_of(Node::ROOT, name).unwrap(), Kind::Plain);
        }
        assert_eq!(kind_of(elsewhere, b"system.posix_acl_default").unwrap(), Kind::Acl);
        assert_eq!(kind_of(Node::ROOT, VOLUME_XATTR).unwrap(), Kind::Volume);
        assert_eq!(kind_of(elsewhere, VOLUME_XATTR).unwrap(), Kind::Plain);
        for name in [&b""[..], b"system.nfs4_acl", b"plain", b"User.a"] {
            assert!(matches!(kind_of(Node::ROOT, name), Err(Error::Unsupported { .. })));
        }
        assert!(matches!(kind_of(Node::ROOT, b"user."), Err(Error::Invalid { .. })), "as on ext4");
    }
}
