//! Reading and changing attributes, and what a change does to ACLs and set-user-id bits.

use super::acl::ACCESS;
use super::virtuals::Thing;
use super::{Attr, Caller, Node, SetAttr, Vfs, attr};
use crate::error::{Error, Result};
use crate::types::{At, FileKind, Ino};
use crate::volume::{AttrChange, OpenFile, SetTime, Stat};

const SET_USER_ID: u16 = 0o4000;
const SET_GROUP_ID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;
/// The bits that give a file another user's rights.
pub(super) const SET_ID_BITS: u16 = SET_USER_ID | SET_GROUP_ID;
/// File capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Vfs {
    /// Attributes of a node, by an open handle if there is one: it knows deleted snapshots too.
    ///
    /// # Errors
    /// `NotFound`; `Stale` when the node's snapshot was deleted; faults.
    pub fn getattr(&self, node: Node, handle: Option<u64>) -> Result<Attr> {
        match node {
            Node::SnapDir(dir) => return self.snapdir_attr(dir),
            Node::GmtDir(dir) => return Ok(Attr { node, ..self.snapdir_attr(dir)? }),
            Node::PastDir(dir) | Node::Beside(dir) => return self.past_attr(node, dir),
            Node::Latest(id, _) => return self.latest_attr(node, id),
            Node::Virtual(number) => {
                return match &*self.virtuals.get(number)? {
                    Thing::Past { dir, .. } => self.past_attr(node, *dir),
                    Thing::Diff { place, .. } => self.diff_attr(node, place),
                };
            }
            Node::Live(_) | Node::Snap(..) => {}
        }
        if let Some(open) = handle.and_then(|handle| self.handles.get(handle)) {
            return Ok(attr(node, &open.file.stat()?));
        }
        let (at, ino) = self.place(node)?;
        let stat = self.volume.stat(at, ino);
        Ok(attr(node, &self.or_removed(node, ino, stat)?))
    }

    /// A directory that was removed still has attributes while somebody uses it.
    pub(super) fn or_removed(&self, node: Node, ino: Ino, found: Result<Stat>) -> Result<Stat> {
        match (found, node) {
            (Err(Error::NotFound { what }), Node::Live(_)) => {
                self.removed.get(ino).ok_or(Error::NotFound { what })
            }
            (found, _) => found,
        }
    }

    /// Changes attributes. Permission bits reach the ACL; a new owner, and a new size set by
    /// anybody but root, take set-user-id and set-group-id bits away.
    ///
    /// # Errors
    /// `ReadOnly`, `NotPermitted`, `NotFound`, `IsDirectory`, `FileTooLarge`, `NoSpace`; faults.
    pub fn setattr(&self, node: Node, wanted: &SetAttr, caller: Caller) -> Result<Attr> {
        self.give_way_itself(node)?;
        let ino = self.writable(node)?;
        let mut change = AttrChange {
            perm: wanted.perm,
            uid: wanted.uid,
            gid: wanted.gid,
            size: wanted.size,
            atime: wanted.atime,
            mtime: wanted.mtime,
            ctime: wanted.ctime,
            xattrs: Vec::new(),
        };
        if let Some(stat) = self.removed.change(ino, |stat| set_removed(stat, wanted)) {
            return Ok(attr(node, &stat));
        }
        if wanted.perm.is_none() && drops_set_id(wanted, caller) {
            let inode = self.volume.stat(At::Live, ino)?.inode;
            let kept = without_set_id(inode.perm, is_member(caller, inode.gid));
            let is_content = names_nothing(wanted) && self.handles.is_written(ino);
            if names_nothing(wanted) && !is_content && caller.uid != 0 && caller.uid != inode.uid {
                // chown(2) to nobody new, by a stranger.
                let what = "Only its owner may take a file's set-user-id bit away".to_owned();
                let is_harmless = kept == inode.perm || inode.kind == FileKind::Directory;
                let stat = self.volume.stat(At::Live, ino)?;
                return if is_harmless {
                    Ok(attr(node, &stat))
                } else {
                    Err(Error::NotPermitted { what })
                };
            }
            if inode.kind != FileKind::Directory && kept != inode.perm {
                change.perm = Some(kept);
            }
        }
        if let Some(perm) = wanted.perm {
            self.chmod_acl(ino, perm, &mut change)?;
        }
        if is_nothing(&change) {
            return Ok(attr(node, &self.volume.stat(At::Live, ino)?));
        }
        let _alone = change.size.map(|_| self.handles.resize(ino));
        let stat = self.volume.set_attributes(ino, &change)?;
        if wanted.perm.is_some_and(|perm| perm & SET_ID_BITS != 0) {
            self.handles.may_have_privileges(ino);
        }
        Ok(attr(node, &stat))
    }

    fn chmod_acl(&self, ino: Ino, perm: u16, change: &mut AttrChange) -> Result<()> {
        if let Some((bytes, acl)) = self.stored_acl(ino, ACCESS)? {
            let new = acl.with_mode(perm).to_bytes();
            if new != bytes {
                change.xattrs.push((ACCESS.to_vec(), Some(new)));
            }
        }
        Ok(())
    }

    /// Takes from a file whose content changes what would give its reader another's rights: its
    /// capabilities and, when it is changed `by` somebody whom the kernel does not trust with them,
    /// its set-user-id and set-group-id bits. True if there was any.
    pub(super) fn drop_privileges(&self, file: &OpenFile, by: Option<Caller>) -> Result<bool> {
        let ino = file.ino();
        if self.handles.has_no_privileges(ino) {
            return Ok(false);
        }
        let inode = file.stat()?.inode;
        let perm = inode.perm;
        let kept = by.map_or(perm, |by| without_set_id(perm, is_member(by, inode.gid)));
        let capable = self.volume.xattr(At::Live, ino, CAPABILITY)?.is_some();
        let changed = capable || kept != perm;
        if changed {
            let xattrs = if capable { vec![(CAPABILITY.to_vec(), None)] } else { Vec::new() };
            self.volume.set_attributes(ino, &change_perm(kept, xattrs))?;
        }
        if kept & SET_ID_BITS == 0 {
            self.handles.set_no_privileges(ino);
        }
        Ok(changed)
    }

    /// Whether a new access ACL takes the set-group-id bit away, as chmod does for those outside
    /// the group. Supplementary groups are unknown here, so being in one of them does not help.
    pub(super) fn acl_drops_set_gid(caller: Caller, gid: u32) -> bool {
        caller.uid != 0 && caller.gid != gid
    }
}

/// A change of permission bits and extended attributes.
pub(super) fn change_perm(perm: u16, xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> AttrChange {
    AttrChange {
        perm: Some(perm),
        uid: None,
        gid: None,
        size: None,
        atime: None,
        mtime: None,
        ctime: None,
        xattrs,
    }
}

/// Whether the kernel's words for "privileges end here" are in the request. It counts a process
/// with `CAP_FSETID` as trusted when truncating; we see user numbers only.
fn drops_set_id(wanted: &SetAttr, caller: Caller) -> bool {
    let new_owner = wanted.uid.is_some() || wanted.gid.is_some();
    let truncated = wanted.size.is_some() && caller.uid != 0;
    new_owner || truncated || names_nothing(wanted)
}

/// Nothing to change is named: the kernel's way to say that the content changed, or chown(2)'s to
/// name nobody.
fn names_nothing(wanted: &SetAttr) -> bool {
    let times = wanted.atime.is_some() || wanted.mtime.is_some() || wanted.ctime.is_some();
    let owner = wanted.uid.is_some() || wanted.gid.is_some();
    !(times || owner || wanted.size.is_some() || wanted.perm.is_some())
}

/// As far as we can know: supplementary groups do not reach us.
fn is_member(caller: Caller, gid: u32) -> bool {
    caller.uid == 0 || caller.gid == gid
}

/// Set-group-id without group execution once meant mandatory locking: members may leave it.
pub(super) fn without_set_id(perm: u16, is_member: bool) -> u16 {
    let keeps_group = perm & GROUP_EXECUTE == 0 && is_member;
    perm & !(if keeps_group { SET_USER_ID } else { SET_ID_BITS })
}

fn set_removed(stat: &mut Stat, wanted: &SetAttr) {
    let inode = &mut stat.inode;
    inode.perm = wanted.perm.unwrap_or(inode.perm);
    inode.uid = wanted.uid.unwrap_or(inode.uid);
    inode.gid = wanted.gid.unwrap_or(inode.gid);
    for (wanted, time) in [(wanted.atime, &mut inode.atime), (wanted.mtime, &mut inode.mtime)] {
        if let Some(SetTime::At(wanted)) = wanted {
            *time = wanted;
        }
    }
}

fn is_nothing(change: &AttrChange) -> bool {
    change.perm.is_none()
        && change.uid.is_none()
        && change.gid.is_none()
        && change.size.is_none()
        && change.atime.is_none()
        && change.mtime.is_none()
        && change.ctime.is_none()
        && change.xattrs.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };
    const SUPERUSER: Caller = Caller { uid: 0, gid: 0, pid: 1 };

    #[test]
    fn set_id_bits_go_as_linux_takes_them() {
        assert_eq!(without_set_id(0o6755, true), 0o755);
        assert_eq!(without_set_id(0o6745, true), 0o2745, "mandatory locking stays");
        assert_eq!(without_set_id(0o6745, false), 0o745, "but not by a stranger");
        assert_eq!(without_set_id(0o1777, false), 0o1777, "the sticky bit stays");
    }

    #[test]
    fn chown_and_a_users_truncate_end_privileges_but_times_do_not() {
        let none = SetAttr::default();
        let now = Some(SetTime::Now);
        assert!(drops_set_id(&SetAttr { gid: Some(0), ..none }, SUPERUSER));
        assert!(drops_set_id(&SetAttr { size: Some(0), ..none }, USER));
        assert!(!drops_set_id(&SetAttr { size: Some(0), ..none }, SUPERUSER));
        assert!(!drops_set_id(&SetAttr { atime: now, ..none }, USER));
        assert!(drops_set_id(&none, USER), "the kernel's way to say: drop them");
    }

    #[test]
    fn an_acl_keeps_the_set_gid_bit_for_root_and_the_group() {
        assert!(!Vfs::acl_drops_set_gid(SUPERUSER, 7));
        assert!(!Vfs::acl_drops_set_gid(USER, 1000));
        assert!(Vfs::acl_drops_set_gid(USER, 7));
    }
}
