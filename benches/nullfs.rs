//! The FUSE floor: a file system in memory that forgets what is written.
//!
//! It answers the requests `rsync -a`, `cp -a`, `dd`, `find`, `du` and `rm -rf` make, with the
//! flags, lifetimes and number of threads of the `StrataFS` mount (`nullfs/same.rs`) and next to no
//! work behind them. What it costs is what fuser, the kernel and the wakeups cost, and no change of
//! `StrataFS` alone can go below that. Names and attributes are kept, data is not: a file remembers
//! its size and reads as zeros.
//!
//! `nullfs MOUNTPOINT [THREADS [sleep]]` stays in the foreground until it is unmounted; with
//! `sleep` nothing keeps loops and processors awake.

#[path = "nullfs/same.rs"]
mod same;
#[path = "nullfs/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, INodeNo, KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    TimeOrNow, WriteFlags,
};
use parking_lot::{Mutex, MutexGuard};

use stratafs::fuse::{Governor, Pulse};

use same::{
    COPY_BYTES_MAX, GENERATION, THREADS, TTL, WANTED, WRITE_BYTES_MAX, is_rsync_temp, kind_of,
    missing, open_flags, perm_of, time_of,
};
use tree::{Answer, New, Tree};

struct NullFs {
    tree: Mutex<Tree>,
    next_handle: AtomicU64,
    pulse: Arc<Pulse>,
}

impl NullFs {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.pulse.beat();
        self.tree.lock()
    }

    fn handle(&self) -> FileHandle {
        FileHandle(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    fn change(
        &self,
        ino: u64,
        size: Option<u64>,
        change: impl FnOnce(&mut FileAttr),
    ) -> Answer<FileAttr> {
        let mut tree = self.tree();
        if let Some(size) = size {
            tree.set_size(ino, size)?;
        }
        let attr = &mut tree.node(ino)?.attr;
        change(attr);
        Ok(*attr)
    }

    fn make(&self, parent: INodeNo, name: &OsStr, new: &New<'_>, reply: ReplyEntry) {
        let made = self.tree().make(parent.0, name.as_bytes(), new);
        match made {
            Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
            Err(e) => reply.error(e),
        }
    }
}

fn done(result: Answer<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for NullFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        config.set_max_write(WRITE_BYTES_MAX).map_err(|_| io::Error::other("no write size"))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree().find(parent.0, name.as_bytes());
        match found {
            Ok(attr) => reply.entry(&TTL, &attr.unwrap_or_else(missing), GENERATION),
            Err(e) => reply.error(e),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.tree().node(ino.0).map(|node| node.attr);
        match attr {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
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
        let changed = self.change(ino.0, size, |attr| {
            attr.perm = mode.map_or(attr.perm, |mode| perm_of(mode, 0));
            attr.uid = uid.unwrap_or(attr.uid);
            attr.gid = gid.unwrap_or(attr.gid);
            attr.atime = atime.map_or(attr.atime, time_of);
            attr.mtime = mtime.map_or(attr.mtime, time_of);
            attr.ctime = ctime.unwrap_or_else(SystemTime::now);
        });
        match changed {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.tree().node(ino.0).map(|node| node.target.clone());
        match target {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(e),
        }
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
        let (kind, perm) = (kind_of(mode), perm_of(mode, umask));
        let owner = (req.uid(), req.gid());
        self.make(parent, name, &New { kind, perm, owner, rdev, target: b"" }, reply);
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
        let (kind, perm) = (FileType::Directory, perm_of(mode, umask));
        let owner = (req.uid(), req.gid());
        self.make(parent, name, &New { kind, perm, owner, rdev: 0, target: b"" }, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let owner = (req.uid(), req.gid());
        let new = New { kind: FileType::Symlink, perm: 0o777, owner, rdev: 0, target };
        self.make(parent, name, &new, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.tree().remove(parent.0, name.as_bytes(), false);
        done(result, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.tree().remove(parent.0, name.as_bytes(), true);
        done(result, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        let result = self.tree().rename(from, to, flags);
        done(result, reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let named = self.tree().link(ino.0, newparent.0, newname.as_bytes());
        match named {
            Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let direct = flags.acc_mode() == OpenAccMode::O_WRONLY;
        let opened = self.tree().open(ino.0, truncate);
        match opened {
            Ok(()) => reply.opened(self.handle(), open_flags(direct, !truncate)),
            Err(e) => reply.error(e),
        }
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
        let access = OpenFlags(flags).acc_mode();
        let direct = access == OpenAccMode::O_WRONLY
            || (access == OpenAccMode::O_RDWR && is_rsync_temp(name.as_bytes()));
        let (kind, perm) = (FileType::RegularFile, perm_of(mode, umask));
        let new = New { kind, perm, owner: (req.uid(), req.gid()), rdev: 0, target: b"" };
        let mut tree = self.tree();
        let made = tree
            .make(parent.0, name.as_bytes(), &new)
            .and_then(|attr| tree.open(attr.ino.0, false).map(|()| attr));
        drop(tree);
        match made {
            Ok(attr) => {
                reply.created(&TTL, &attr, GENERATION, self.handle(), open_flags(direct, true));
            }
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        let size_now = self.tree().node(ino.0).map(|node| node.attr.size);
        match size_now {
            Ok(end) => {
                let len = end.saturating_sub(offset).min(u64::from(size)).min(1 << 20);
                reply.data(&ZEROS[..usize::try_from(len).expect("at most 1 MiB")]);
            }
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let wrote = self.tree().wrote(ino.0, offset + data.len() as u64);
        match wrote {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a request is 1 MiB at most")),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let mut tree = self.tree();
        if let Ok(node) = tree.node(ino.0) {
            node.opens = node.opens.saturating_sub(1);
        }
        tree.drop_if_gone(ino.0);
        drop(tree);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        reply.opened(self.handle(), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.tree().list(ino.0, offset);
        let listed = match listed {
            Ok(listed) => listed,
            Err(e) => return reply.error(e),
        };
        for (cookie, name, attr) in listed {
            if reply.add(attr.ino, cookie, attr.kind, OsStr::from_bytes(&name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.tree().list(ino.0, offset);
        let listed = match listed {
            Ok(listed) => listed,
            Err(e) => return reply.error(e),
        };
        for (cookie, name, attr) in listed {
            let name = OsStr::from_bytes(&name);
            if reply.add(attr.ino, cookie, name, &TTL, &attr, GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = 1 << 30;
        reply.statfs(free, free, free, free, free, 4096, 255, 4096);
    }

    /// Answered, not refused: a refusal would spare the kernel requests that `StrataFS` must serve.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, size: u32, reply: ReplyXattr) {
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let grows = mode & libc::FALLOC_FL_KEEP_SIZE == 0;
        let result = if grows { self.tree().wrote(ino.0, offset + length) } else { Ok(()) };
        done(result, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let end = self.tree().node(ino.0).map(|node| node.attr.size.cast_signed());
        match end {
            Ok(end) if offset >= end => reply.error(Errno::ENXIO),
            Ok(end) if whence == libc::SEEK_HOLE => reply.offset(end),
            Ok(_) => reply.offset(offset),
            Err(e) => reply.error(e),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        ino_in: INodeNo,
        _: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let mut tree = self.tree();
        let copied = tree
            .node(ino_in.0)
            .map(|node| node.attr.size.saturating_sub(offset_in).min(len).min(COPY_BYTES_MAX));
        let copied = copied.and_then(|n| tree.wrote(ino_out.0, offset_out + n).map(|()| n));
        drop(tree);
        match copied {
            Ok(n) => reply.written(u32::try_from(n).expect("at most 1 GiB")),
            Err(e) => reply.error(e),
        }
    }
}

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let usage = || io::Error::other("usage: nullfs MOUNTPOINT [THREADS [sleep]]");
    let mountpoint = args.next().ok_or_else(usage)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match args.next() {
        Some(n) => n.to_str().and_then(|n| n.parse().ok()).ok_or_else(usage)?,
        None => cores.clamp(*THREADS.start(), *THREADS.end()),
    };
    let awake = match args.next() {
        None => true,
        Some(word) if word == "sleep" => false,
        Some(_) => return Err(usage()),
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("nullfs".to_owned()),
        MountOption::Subtype("nullfs".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::Dev,
        MountOption::Suid,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    config.clone_fd = true;
    let fs = NullFs {
        tree: Mutex::new(Tree::new()),
        next_handle: AtomicU64::new(1),
        pulse: Arc::default(),
    };
    let pulse = Arc::clone(&fs.pulse);
    let session = Session::new(fs, Path::new(&mountpoint), &config)?;
    let device = session.as_fd().try_clone_to_owned()?;
    let _governor = awake.then(|| Governor::start(&pulse, device));
    session.run()
}
