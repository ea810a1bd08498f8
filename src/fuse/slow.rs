//! Answers that take time: they are found out by threads of their own, a few at a time, so that no
//! request loop waits for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fuser::{Errno, INodeNo, ReplyXattr};

use super::adapter::Adapter;
use super::call::run;
use super::reply::{answer, fitting, send_xattr};
use crate::error::Error;
use crate::stats::MemoryUse;
use crate::sys::abi;
use crate::vfs::Node;

/// Found out at a time; who asks for one more is told to come back.
const SLOW_MAX: usize = 2;

/// Memory that one takes: chunk numbers, or a piece of a file with its frame.
const BYTES_EACH: u64 = 9 * 1024 * 1024;

impl Adapter {
    /// For `stats`: what those that are being found out may take.
    pub(super) fn found_out(&self) -> impl Fn() -> MemoryUse + Send + Sync + 'static {
        let slow = Arc::clone(&self.slow);
        move || {
            let now = slow.load(Relaxed).min(SLOW_MAX) as u64;
            MemoryUse::new(now * BYTES_EACH, SLOW_MAX as u64 * BYTES_EACH, "fixed")
        }
    }

    /// Answers a getxattr of something that has to be read or counted.
    pub(super) fn find_out(&self, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.slow.fetch_add(1, Relaxed) >= SLOW_MAX {
            self.slow.fetch_sub(1, Relaxed);
            return reply.error(Errno::from_i32(abi::EBUSY));
        }
        let (vfs, faults) = (Arc::clone(&self.vfs), Arc::clone(&self.faults));
        let (slow, name) = (Arc::clone(&self.slow), name.as_bytes().to_vec());
        let find_out = move || {
            let value = run("getxattr", node, (vfs.stats(), &faults), || {
                let node = Node::from_number(node.0).ok_or(Error::Stale)?;
                fitting(vfs.getxattr(node, &name)?, size)
            });
            slow.fetch_sub(1, Relaxed);
            answer!(reply, value, value => send_xattr(reply, &value, size));
        };
        // A reply that is dropped with its thread answers EIO.
        if std::thread::Builder::new().name("find-out".to_owned()).spawn(find_out).is_err() {
            self.slow.fetch_sub(1, Relaxed);
        }
    }
}
