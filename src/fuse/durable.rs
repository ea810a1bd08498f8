//! Answers that wait for a commit.
//!
//! They are sent by the thread that commits, not by the request's loop: there are few loops, and
//! one that waited would keep everybody else's requests waiting too. So any number of fsyncs share
//! a commit, and reads and writes go on meanwhile.

use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyEmpty};

use super::adapter::Adapter;
use super::call::settle;
use super::reply::answer;

impl Adapter {
    /// Calls `send` when everything that was changed before this call is durable, or cannot be made
    /// so.
    pub(super) fn when_durable(
        &self,
        op: &'static str,
        node: INodeNo,
        send: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let (vfs, faults) = (Arc::clone(&self.vfs), Arc::clone(&self.faults));
        self.vfs.commit_then(move |done| {
            let done = settle(op, node, (vfs.stats(), &faults), done);
            // EROFS of fsync(2) means that this kind of file needs none, and programs ignore it.
            let told = |errno: Errno| if errno == Errno::EROFS { Errno::EIO } else { errno };
            send(done.map_err(told));
        });
    }

    /// Calls `send` at once or, where changes of names are to be durable first, when they are.
    pub(super) fn in_time(
        &self,
        op: &'static str,
        node: INodeNo,
        send: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        if self.vfs.syncs_names() { self.when_durable(op, node, send) } else { send(Ok(())) }
    }

    /// Answers an fsync, of whatever: it is one of the whole volume.
    pub(super) fn sync(&self, op: &'static str, node: INodeNo, reply: ReplyEmpty) {
        let asked = self.on(op, node, |_, _| Ok(()));
        answer!(reply, asked, () => self.when_durable(op, node, move |done| {
            answer!(reply, done, () => reply.ok());
        }));
    }
}
