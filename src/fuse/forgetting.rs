//! What the kernel is told to forget, and what it says it has forgotten.
//!
//! A kernel keeps names long after anybody used them, also those that hold for no time. So when the
//! virtual directories it knows take half of their memory, it is asked to let go of the older
//! ones; those in use stay.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fuser::INodeNo;
use log::warn;

use super::Mounted;
use super::adapter::Adapter;
use crate::vfs::Node;

impl Adapter {
    /// Makes the kernel forget the attributes of a node, but not its pages: that would wait for the
    /// very write that is being answered.
    pub(super) fn forget_attributes(&self, node: INodeNo) {
        if let Some(Err(e)) = self.notifier.get().map(|n| n.inval_inode(node, -1, 0)) {
            warn!("Kernel did not forget attributes node={node} cause={e}");
        }
    }

    /// The kernel takes back lookups.
    pub(super) fn forgotten(&self, node: INodeNo, lookups: u64) {
        if let Some(node) = Node::from_number(node.0) {
            self.vfs.forget(node, lookups);
        }
    }

    /// Has the kernel let go of virtual directories, if they are many. In a thread of its own: the
    /// kernel waits for the directory's lock, which the request in hand may hold.
    pub(super) fn ease(&self) {
        if !self.vfs.is_crowded() || self.easing.swap(true, Relaxed) {
            return;
        }
        let (vfs, easing) = (Arc::clone(&self.vfs), Arc::clone(&self.easing));
        let notifier = Arc::clone(&self.notifier);
        let ease = move || {
            for (parent, name) in vfs.to_let_go() {
                let (parent, name) = (INodeNo(parent.number()), OsStr::from_bytes(&name));
                // One that it does not know any more is what we want.
                let _ = notifier.get().map(|n| n.inval_entry(parent, name));
            }
            easing.store(false, Relaxed);
        };
        if std::thread::Builder::new().name("let-go".to_owned()).spawn(ease).is_err() {
            self.easing.store(false, Relaxed);
        }
    }
}

impl Mounted {
    /// Makes the kernel forget what a name leads to, or that it leads nowhere. Waits for requests
    /// about the directory that are being answered.
    pub fn forget_name(&self, dir: Node, name: &[u8]) {
        let name = OsStr::from_bytes(name);
        // Most names were never asked for; then there is nothing to forget.
        let _ = self.notifier.get().map(|n| n.inval_entry(INodeNo(dir.number()), name));
    }

    /// Makes the kernel forget the attributes of a node and, if it is a directory, its listing.
    pub fn forget_node(&self, node: Node) {
        let _ = self.notifier.get().map(|n| n.inval_inode(INodeNo(node.number()), 0, 0));
    }
}
