//! Answers that take time: they are found out by threads of their own, a few at a time, so that no
//! request loop waits for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fuser::{Errno, INodeNo, ReplyXattr};

use super::adapter::Adapter;
use super::reply::{answer, fitting, send_xattr};
use crate::stats::MemoryUse;
use crate::sys::abi;

/// Found out at a time; who asks for one more is told to come back.
const SLOW_MAX: usize = 2;

/// Memory that one takes: chunk numbers, or a piece of a file with its frame.
const BYTES_EACH: u64 = 9 * 1024 * 1024;

/// The right to find something out; given back when it is dropped: before the answer is sent, or
/// who asks one after the other might be sent away.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Adapter {
    /// For `stats`: what those that are being found out may take.
    pub(super) fn found_out(&self) -> impl Fn() -> MemoryUse + Send + Sync + 'static {
        let slow = Arc::clone(&self.slow);
        move || {
            let now = slow.load(Relaxed).min(SLOW_MAX) as u64;
            MemoryUse::new(now * BYTES_EACH, SLOW_MAX as u64 * BYTES_EACH, "fixed")
        }
    }

    /// A slot, else `EBUSY`.
    pub(super) fn slot(&self) -> Result<Slot, Errno> {
        let taken = self.slow.fetch_add(1, Relaxed);
        let slot = Slot(Arc::clone(&self.slow));
        if taken < SLOW_MAX { Ok(slot) } else { Err(Errno::from_i32(abi::EBUSY)) }
    }

    /// Runs `answer` in a thread of its own. A reply that is dropped because there is none answers
    /// EIO.
    pub(super) fn aside(&self, slot: Slot, answer: impl FnOnce(&Self, Slot) + Send + 'static) {
        let door = self.clone();
        let find_out = move || answer(&door, slot);
        let _ = std::thread::Builder::new().name("find-out".to_owned()).spawn(find_out);
    }

    /// Answers a getxattr of something that has to be read or counted.
    pub(super) fn find_out(&self, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        answer!(reply, self.slot(), slot => self.aside(slot, move |door, slot| {
            let value = door.about("getxattr", node, |vfs, node| {
                fitting(vfs.getxattr(node, name.as_bytes())?, size)
            });
            drop(slot);
            answer!(reply, value, value => send_xattr(reply, &value, size));
        }));
    }
}
