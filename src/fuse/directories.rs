//! Finding names and listing them. Where that takes time, aside: see `slow`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{Errno, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry};

use super::adapter::Adapter;
use super::reply::answer;
use super::slow::Slot;
use super::translate::{GENERATION, bare_attr, file_attr, file_type, missing};
use crate::vfs::{Lookup, Node};

impl Adapter {
    fn takes_time(&self, node: INodeNo, name: Option<&OsStr>) -> bool {
        let node = Node::from_number(node.0);
        node.is_some_and(|node| self.vfs.takes_time(node, name.map(OsStrExt::as_bytes)))
    }

    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if !self.takes_time(parent, Some(name)) {
            return self.look_up_now(parent, name, None, reply);
        }
        let name = name.to_owned();
        answer!(reply, self.slot(), slot => {
            self.aside(slot, move |door, slot| door.look_up_now(parent, &name, Some(slot), reply));
        });
    }

    fn look_up_now(&self, parent: INodeNo, name: &OsStr, slot: Option<Slot>, reply: ReplyEntry) {
        let found = self.on("lookup", parent, |vfs, node| vfs.lookup(node, name.as_bytes()));
        drop(slot);
        answer!(reply, found, lookup => match lookup {
            Lookup::Found(entry) => {
                let attr = file_attr(&entry.attr);
                reply.entry_with_ttls(&entry.attr.ttl, &entry.ttl, &attr, GENERATION);
            }
            Lookup::Missing(ttl) if ttl.is_zero() => reply.error(Errno::ENOENT),
            Lookup::Missing(ttl) => reply.entry(&ttl, &missing(), GENERATION),
        });
    }

    pub(super) fn list(&self, ino: INodeNo, offset: u64, reply: ReplyDirectory) {
        if !self.takes_time(ino, None) {
            return self.list_now(ino, offset, None, reply);
        }
        answer!(reply, self.slot(), slot => {
            self.aside(slot, move |door, slot| door.list_now(ino, offset, Some(slot), reply));
        });
    }

    fn list_now(&self, ino: INodeNo, offset: u64, slot: Option<Slot>, mut reply: ReplyDirectory) {
        let done = self.about("readdir", ino, |vfs, node| {
            vfs.readdir(node, offset, false, &mut |item| {
                let (node, kind) = (INodeNo(item.node.number()), file_type(item.kind));
                reply.add(node, item.next, kind, OsStr::from_bytes(item.name))
            })
        });
        drop(slot);
        answer!(reply, done, () => reply.ok());
    }

    pub(super) fn list_plus(&self, ino: INodeNo, offset: u64, reply: ReplyDirectoryPlus) {
        if !self.takes_time(ino, None) {
            return self.list_plus_now(ino, offset, None, reply);
        }
        answer!(reply, self.slot(), slot => {
            self.aside(slot, move |door, slot| door.list_plus_now(ino, offset, Some(slot), reply));
        });
    }

    fn list_plus_now(
        &self,
        ino: INodeNo,
        offset: u64,
        slot: Option<Slot>,
        mut reply: ReplyDirectoryPlus,
    ) {
        let done = self.about("readdirplus", ino, |vfs, node| {
            vfs.readdir(node, offset, true, &mut |item| {
                let name = OsStr::from_bytes(item.name);
                let (attr, ttl) = match item.entry {
                    Some(entry) => (file_attr(&entry.attr), entry.ttl.min(entry.attr.ttl)),
                    // `.` and `..`: the kernel looks at kind and number only. Or attributes that
                    // cannot be read: it has to ask, and is told so.
                    None => (bare_attr(item.node, item.kind), Duration::ZERO),
                };
                reply.add(attr.ino, item.next, name, &ttl, &attr, GENERATION)
            })
        });
        drop(slot);
        answer!(reply, done, () => reply.ok());
    }
}
