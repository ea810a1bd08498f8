//! fuser's `Filesystem` on a [`Vfs`]: every operation translates its arguments, calls, translates
//! the answer. What an operation means is written in `vfs`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::call::FaultLog;
use super::pulse::Pulse;
use super::reply::{answer, answer_change, answer_entry, fitting, send_xattr};
use super::translate::{
    GENERATION, allocate, caller, dir_flags, file_attr, kind_and_perm, node_of, open_how,
    opened_flags, rename_mode, seek, to_u32, xattr_mode,
};
use super::{handshake, time};
use crate::error::Error;
use crate::limits::NAME_BYTES_MAX;
use crate::sys::abi;
use crate::types::FileKind;
use crate::vfs::{BLOCK_BYTES, NewMode, SetAttr, Vfs, is_slow};

/// The file system as fuser sees it.
#[derive(Clone)]
pub(super) struct Adapter {
    pub(super) vfs: Arc<Vfs>,
    /// Set once the session exists, before its first request.
    pub(super) notifier: Arc<OnceLock<Notifier>>,
    pub(super) faults: Arc<FaultLog>,
    pub(super) easing: Arc<AtomicBool>,
    pub(super) slow: Arc<AtomicUsize>,
    pub(super) pulse: Arc<Pulse>,
}

impl Adapter {
    pub(super) fn new(vfs: Arc<Vfs>, notifier: Arc<OnceLock<Notifier>>, pulse: Arc<Pulse>) -> Self {
        Self {
            vfs,
            notifier,
            faults: Arc::default(),
            easing: Arc::default(),
            slow: Arc::default(),
            pulse,
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        handshake::negotiate(config)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(parent, name, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.forgotten(ino, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.about("getattr", ino, |vfs, node| vfs.getattr(node, fh.map(|fh| fh.0)));
        answer!(reply, attr, attr => reply.attr(&attr.ttl, &file_attr(&attr)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = SetAttr {
            perm: mode.map(|mode| kind_and_perm(mode).1),
            uid,
            gid,
            size,
            atime: atime.map(time::set_time),
            mtime: mtime.map(time::set_time),
            ctime: ctime.map(time::from_request),
        };
        let attr = self.about("setattr", ino, |vfs, node| vfs.setattr(node, &wanted, caller(req)));
        answer!(reply, attr, attr => reply.attr(&attr.ttl, &file_attr(&attr)));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.about("readlink", ino, Vfs::readlink);
        answer!(reply, target, target => reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = self.on("mknod", parent, |vfs, node| {
            let (kind, perm) = kind_and_perm(mode);
            let kind = kind.ok_or_else(|| Error::invalid("Unknown kind of file"))?;
            let new = NewMode { kind, perm, umask: kind_and_perm(umask).1 };
            vfs.mknod(node, name.as_bytes(), new, rdev, caller(req))
        });
        answer_entry!(self, "mknod", parent, reply, made);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = NewMode {
            kind: FileKind::Directory,
            perm: kind_and_perm(mode).1,
            umask: kind_and_perm(umask).1,
        };
        let made = self
            .on("mkdir", parent, |vfs, node| vfs.mkdir(node, name.as_bytes(), new, caller(req)));
        answer_entry!(self, "mkdir", parent, reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.on("unlink", parent, |vfs, node| vfs.unlink(node, name.as_bytes()));
        answer_change!(self, "unlink", parent, reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.on("rmdir", parent, |vfs, node| vfs.rmdir(node, name.as_bytes()));
        answer_change!(self, "rmdir", parent, reply, done, () => reply.ok());
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let made = self.on("symlink", parent, |vfs, node| {
            vfs.symlink(node, link_name.as_bytes(), target, caller(req))
        });
        answer_entry!(self, "symlink", parent, reply, made);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.on("rename", parent, |vfs, from| {
            let (from, to) = ((from, name.as_bytes()), (node_of(newparent)?, newname.as_bytes()));
            match rename_mode(flags)? {
                (mode, false) => vfs.rename(from, to, mode),
                (mode, true) => vfs.rename_whiteout(from, to, mode, caller(req)),
            }
        });
        answer_change!(self, "rename", parent, reply, done, () => reply.ok());
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self
            .on("link", ino, |vfs, node| vfs.link(node, node_of(newparent)?, newname.as_bytes()));
        answer_entry!(self, "link", ino, reply, made);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.about("open", ino, |vfs, node| {
            let (how, store) = (open_how(flags.0), self.notifier.get());
            let opened = vfs.open(node, how, caller(req))?;
            if let Some(kernel) = store.filter(|_| !how.write && !opened.direct) {
                vfs.give(node, opened.handle, |content| kernel.store(ino, 0, content).is_ok());
            }
            Ok(opened)
        });
        answer!(reply, opened, opened => {
            reply.opened(FileHandle(opened.handle), opened_flags(opened));
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let modes = (kind_and_perm(mode).1, kind_and_perm(umask).1);
        let created = self.on("create", parent, |vfs, node| {
            vfs.create(node, name.as_bytes(), modes, open_how(flags), caller(req))
        });
        answer_change!(self, "create", parent, reply, created, (e, opened) => {
            let (attr, handle) = (file_attr(&e.attr), FileHandle(opened.handle));
            reply.created(&e.ttl, &attr, GENERATION, handle, opened_flags(opened));
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = self.on("read", ino, |vfs, _| vfs.read(fh.0, offset, size as usize));
        answer!(reply, data, data => reply.data(&data));
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let by = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID).then(|| caller(req));
        let written = self.on("write", ino, |vfs, _| vfs.write(fh.0, offset, data, by));
        let len = to_u32(data.len() as u64);
        answer!(reply, written, privileges_dropped => {
            if privileges_dropped {
                self.forget_attributes(ino);
            }
            if flags.0 & (abi::O_SYNC | abi::O_DSYNC) == 0 {
                return reply.written(len);
            }
            self.when_durable("write", ino, move |done| {
                answer!(reply, done, () => reply.written(len));
            });
        });
    }

    fn flush(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer!(reply, self.on("flush", ino, |vfs, _| vfs.flush(fh.0)), () => reply.ok());
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.on("release", ino, |vfs, _| vfs.release(fh.0)), () => reply.ok());
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync("fsync", ino, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let cacheable = self.about("opendir", ino, Vfs::opendir);
        answer!(reply, cacheable, cacheable => reply.opened(FileHandle(0), dir_flags(cacheable)));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(ino, offset, reply);
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list_plus(ino, offset, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync("fsyncdir", ino, reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        answer!(reply, self.on("statfs", ino, |vfs, _| vfs.statfs()), s => reply.statfs(
            s.blocks,
            s.blocks_free,
            s.blocks_available,
            s.inodes,
            s.inodes_free,
            BLOCK_BYTES,
            to_u32(NAME_BYTES_MAX as u64),
            BLOCK_BYTES,
        ));
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let done = self.about("setxattr", ino, |vfs, node| {
            vfs.setxattr(node, name.as_bytes(), value, xattr_mode(flags)?, caller(req))
        });
        answer!(reply, done, () => reply.ok());
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if is_slow(name.as_bytes()) {
            return self.find_out(ino, name, size, reply);
        }
        let value = self.about("getxattr", ino, |vfs, node| {
            fitting(vfs.getxattr(node, name.as_bytes())?, size)
        });
        answer!(reply, value, value => send_xattr(reply, &value, size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self
            .about("listxattr", ino, |vfs, node| fitting(vfs.listxattr(node, caller(req))?, size));
        answer!(reply, names, names => send_xattr(reply, &names, size));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done =
            self.about("removexattr", ino, |vfs, node| vfs.removexattr(node, name.as_bytes()));
        answer!(reply, done, () => reply.ok());
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done =
            self.on("fallocate", ino, |vfs, _| vfs.allocate(fh.0, offset, length, allocate(mode)?));
        answer!(reply, done, () => reply.ok());
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.on("lseek", ino, |vfs, _| {
            let (offset, what) = seek(offset, whence)?;
            vfs.seek(fh.0, offset, what)
        });
        answer!(reply, found, found => match found.map(i64::try_from) {
            Some(Ok(offset)) => reply.offset(offset),
            _ => reply.error(Errno::from_i32(abi::ENXIO)),
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copied = self.on("copy_file_range", ino_out, |vfs, _| {
            vfs.copy((fh_in.0, offset_in), (fh_out.0, offset_out), len)
        });
        answer!(reply, copied, copied => reply.written(to_u32(copied)));
    }

    /// No ioctl here. Said without the warning that fuser's default logs for each `isatty`.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready; the kernel remembers `ENOSYS` and says so itself.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// Files have no blocks of a device.
    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::EINVAL);
    }
}
