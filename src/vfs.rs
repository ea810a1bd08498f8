//! What users see: the tree with its snapshots, as a kernel asks for it.
//!
//! Guarantees: node numbers mean the same after a remount ([`Node`]); nothing inside a snapshot
//! changes; creation, ACLs and set-user-id bits follow Linux. Relies on: a kernel that checks
//! permissions (`default_permissions`) and serializes changes of one inode, and of one directory,
//! with its own locks; a volume that nobody else changes, but for making and deleting snapshots.
//! Does not: store anything, know FUSE, check who may do what.
//!
//! **Snapshots in the tree.** Every live directory D has a hidden directory `.snapshots` that lists
//! the snapshots in which D was a directory; `.snapshots/NAME` is D as it was then. `mkdir`,
//! `rmdir` and `rename` in there make, delete and rename snapshots of the whole volume. `.latest`
//! in there is a link to the newest, `.gmt` lists them by second. `D/.history/NAME/` shows the
//! contents that a name had; `.diff/A..B` in the root's shows how two snapshots differ. All of that
//! is found by lookup only; listings do not show it.
//!
//! **How long answers hold.** The kernel may keep them for [`TTL_LONG`], since every change of the
//! live tree comes through it and snapshots do not change. What the command line can change behind
//! its back, the `.snapshots` directories and the names in them, holds for no time at all.

mod acl;
mod attrs;
mod diffdirs;
mod differences;
mod dirs;
mod files;
mod giving;
mod gmt;
mod handles;
mod history;
mod names;
mod node;
mod removed;
mod shown;
mod snapdir;
mod virtuals;
mod xattrs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use self::differences::Kept;
use self::giving::Given;
use self::handles::Handles;
use self::removed::Removed;
use self::shown::Answers;
use self::virtuals::{Thing, Virtuals};
use crate::error::{Error, Result};
use crate::limits::VIRTUAL_BYTES_MAX;
use crate::stats::{MemoryUse, Stats};
use crate::types::{At, FileKind, Ino, SnapshotId, Timestamp};
use crate::volume::{SetTime, Stat, Volume};

pub use self::diffdirs::DIFF_DIR_NAME;
pub use self::dirs::DirItem;
pub use self::dirs::Sink;
pub use self::files::{Allocate, OpenHow, Opened};
pub use self::gmt::GMT_DIR_NAME;
pub use self::history::HISTORY_NAME;
pub use self::node::Node;
pub use self::shown::is_slow;
pub use self::snapdir::LATEST_NAME;
pub use self::xattrs::VOLUME_XATTR;
pub use crate::types::SNAPSHOTS_NAME;

/// How long the kernel may keep what only it can change. Forever would be right; an hour heals
/// whatever a bug made stale.
pub const TTL_LONG: Duration = Duration::from_hours(1);

/// How a volume is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct VfsOptions {
    /// List `.snapshots` in the root. In other directories it stays hidden: a tree that contains
    /// itself once per directory keeps `find` and `du` busy forever.
    pub snapdir_visible: bool,
    /// Refuse all changes.
    pub read_only: bool,
    /// Whoever serves the kernel answers changes of names when they are durable.
    pub sync_names: bool,
    /// Show no `.history` beside the names of the live tree, only in `.snapshots`.
    pub no_history: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// File system user.
    pub uid: u32,
    /// File system group; the supplementary ones are unknown.
    pub gid: u32,
    /// Thread.
    pub pid: u32,
}

/// What is to be created.
#[derive(Clone, Copy, Debug)]
pub struct NewMode {
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits asked for.
    pub perm: u16,
    /// The caller's umask; ignored where a default ACL takes its place.
    pub umask: u16,
}

/// Attributes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub node: Node,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub perm: u16,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes that hold data.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// How long the kernel may keep these.
    pub ttl: Duration,
}

/// A name's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the name names.
    pub attr: Attr,
    /// How long the kernel may believe that it does.
    pub ttl: Duration,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// An entry.
    Found(Entry),
    /// Nothing, and the kernel may remember that for so long.
    Missing(Duration),
}

/// Attributes to change. All `None` asks to drop set-user-id and set-group-id bits: this is how the
/// kernel, which leaves that to us, says "the content changed" or "chown to nobody new".
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of attributes; now if not given.
    pub ctime: Option<Timestamp>,
}

/// Room in the file system, in `BLOCK_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsSpace {
    /// Capacity.
    pub blocks: u64,
    /// Not used, by anybody.
    pub blocks_free: u64,
    /// Free beyond the reserves.
    pub blocks_available: u64,
    /// Inode numbers, used and free.
    pub inodes: u64,
    /// Inode numbers that are free.
    pub inodes_free: u64,
}

/// Unit of [`FsSpace`] and preferred I/O size: a page.
pub const BLOCK_BYTES: u32 = 4096;

/// A volume as a tree of nodes.
pub struct Vfs {
    volume: Arc<Volume>,
    snapdir_visible: bool,
    no_history: bool,
    read_only: AtomicBool,
    sync_names: AtomicBool,
    handles: Handles,
    virtuals: Arc<Virtuals>,
    differences: Arc<Kept>,
    answers: Answers,
    removed: Removed,
    given: Given,
}

impl Vfs {
    /// Shows `volume`.
    #[must_use]
    pub fn new(volume: Arc<Volume>, options: VfsOptions) -> Self {
        let virtuals = Arc::<Virtuals>::default();
        let held = Arc::clone(&virtuals);
        volume.stats().holders.announce("virtual_nodes", move || {
            MemoryUse::new(held.bytes(), VIRTUAL_BYTES_MAX, "fixed")
        });
        let differences = diffdirs::kept(volume.stats());
        let given = || MemoryUse::new(Given::BYTES, Given::BYTES, "fixed");
        volume.stats().holders.announce("given_nodes", given);
        Self {
            volume,
            snapdir_visible: options.snapdir_visible,
            read_only: AtomicBool::new(options.read_only),
            sync_names: AtomicBool::new(options.sync_names),
            no_history: options.no_history,
            handles: Handles::default(),
            virtuals,
            differences,
            answers: Answers::default(),
            removed: Removed::default(),
            given: Given::default(),
        }
    }

    /// From now on refuses all changes or not, and answers changes of names when they are durable
    /// or at once.
    pub fn set_modes(&self, read_only: bool, sync_names: bool) {
        self.read_only.store(read_only, Relaxed);
        self.sync_names.store(sync_names, Relaxed);
    }

    /// Changes of names are to be durable when they are answered.
    #[must_use]
    pub fn syncs_names(&self) -> bool {
        self.sync_names.load(Relaxed)
    }

    /// The volume.
    #[must_use]
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The volume's counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.volume.stats()
    }

    /// What `name` in `parent` is.
    ///
    /// # Errors
    /// `NotDirectory`, `NotFound` or `Stale` for the parent, `NameTooLong`; faults.
    pub fn lookup(&self, parent: Node, name: &[u8]) -> Result<Lookup> {
        let parent = self.settled(parent)?;
        match parent {
            _ if name == b"." || name == b".." => self.lookup_dots(parent, name),
            Node::SnapDir(dir) => self.snapdir_lookup(dir, name),
            Node::Live(dir) if name == SNAPSHOTS_NAME => {
                self.live_directory(dir)?;
                let attr = self.snapdir_attr(dir)?;
                Ok(Lookup::Found(Entry { attr, ttl: TTL_LONG }))
            }
            Node::Live(_) | Node::Snap(..) => {
                let (at, dir) = self.place(parent)?;
                match self.volume.lookup(at, dir, name)? {
                    Some(stat) => Ok(Lookup::Found(entry(sibling(parent, stat.ino), &stat))),
                    None => self.beside(parent, dir, name),
                }
            }
            Node::GmtDir(dir) => self.gmt_lookup(dir, name),
            Node::PastDir(dir) | Node::Beside(dir) => self.past_name_lookup((parent, dir), name),
            Node::Latest(..) => Err(Error::NotDirectory),
            Node::Virtual(number) => match &*self.virtuals.get(number)? {
                Thing::Past { dir, name: of, .. } => self.version_lookup(*dir, of, name),
                Thing::Diff { place, .. } => self.diff_name_lookup(parent, place, name),
            },
        }
    }

    /// What a directory shows besides its entries. Real entries come first: a tree that has such
    /// names can be kept here.
    fn beside(&self, parent: Node, dir: Ino, name: &[u8]) -> Result<Lookup> {
        match parent {
            Node::Live(_) if name == HISTORY_NAME && self.no_history => {}
            Node::Live(_) if name == HISTORY_NAME => {
                return self.past_dir_lookup(Node::Beside(dir), dir);
            }
            _ if name == HISTORY_NAME => return self.past_dir_lookup(Node::PastDir(dir), dir),
            Node::Live(_) if gmt::parse(name).is_some() => return self.gmt_lookup(dir, name),
            _ => {}
        }
        Ok(Lookup::Missing(TTL_LONG))
    }

    /// The kernel takes back `lookups` of a node. Only virtual ones are counted; a directory that
    /// was removed is looked up no more, so all are taken back at once.
    pub fn forget(&self, node: Node, lookups: u64) {
        self.given.forget(node);
        match node {
            Node::Virtual(number) => self.virtuals.forget(number, lookups),
            Node::Live(ino) => self.removed.forget(ino),
            _ => {}
        }
    }

    /// True if the kernel should be asked to let go of virtual nodes.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.virtuals.bytes() > VIRTUAL_BYTES_MAX / 2
    }

    /// The older half of the virtual nodes the kernel knows: in which directory, by which name.
    #[must_use]
    pub fn to_let_go(&self) -> Vec<(Node, Box<[u8]>)> {
        self.virtuals.older_half().iter().map(|thing| thing.found_at()).collect()
    }

    /// Target of a symlink.
    ///
    /// # Errors
    /// `Invalid` if it is none; `NotFound`, `Stale`; faults.
    pub fn readlink(&self, node: Node) -> Result<Box<[u8]>> {
        if let Node::Latest(id, _) = node {
            return self.latest_target(id);
        }
        let (at, ino) = self.place(node)?;
        let inode = self.volume.stat(at, ino)?.inode;
        match inode.kind {
            FileKind::Symlink => Ok(inode.target),
            _ => Err(Error::invalid("Not a symbolic link")),
        }
    }

    /// Room that is left.
    ///
    /// # Errors
    /// Faults.
    pub fn statfs(&self) -> Result<FsSpace> {
        let space = self.volume.space()?;
        let inodes = (1 << crate::limits::INO_BITS) - 1;
        Ok(FsSpace {
            blocks: space.total_bytes / u64::from(BLOCK_BYTES),
            blocks_free: space.unused_bytes / u64::from(BLOCK_BYTES),
            blocks_available: space.free_bytes / u64::from(BLOCK_BYTES),
            inodes,
            inodes_free: inodes - space.inodes_used.min(inodes),
        })
    }

    /// Makes everything changed so far durable: one commit serves files and directories alike.
    /// `told` hears how that ended (`NoSpace`, `Poisoned`, faults), from another thread.
    pub fn commit_then(&self, told: impl FnOnce(Result<()>) + Send + 'static) {
        self.volume.commit_then(told);
    }

    /// State and inode behind a node that is an inode's.
    fn place(&self, node: Node) -> Result<(At, Ino)> {
        match node {
            Node::Live(ino) => Ok((At::Live, ino)),
            Node::Snap(id, ino) => Ok((self.at_snapshot(id)?, ino)),
            Node::Latest(..) => Err(Error::invalid("A link has no data")),
            Node::SnapDir(_)
            | Node::GmtDir(_)
            | Node::PastDir(_)
            | Node::Beside(_)
            | Node::Virtual(_) => Err(Error::IsDirectory),
        }
    }

    fn at_snapshot(&self, id: SnapshotId) -> Result<At> {
        let snapshot = self.volume.snapshot(id).ok_or(Error::Stale)?;
        Ok(At::Epoch(snapshot.epoch))
    }

    /// The inode of a node that may be changed.
    fn writable(&self, node: Node) -> Result<Ino> {
        match node {
            Node::Snap(..) => Err(Error::ReadOnly { what: "a snapshot".to_owned() }),
            _ if self.read_only.load(Relaxed) => {
                Err(Error::ReadOnly { what: "the volume is mounted read-only".to_owned() })
            }
            Node::Live(ino) => Ok(ino),
            Node::SnapDir(_) | Node::GmtDir(_) | Node::Latest(..) => Err(reserved()),
            Node::PastDir(_) | Node::Beside(_) | Node::Virtual(_) => Err(only_shown()),
        }
    }

    fn live_directory(&self, dir: Ino) -> Result<Stat> {
        let stat = self.volume.stat(At::Live, dir)?;
        match stat.inode.kind {
            FileKind::Directory => Ok(stat),
            _ => Err(Error::NotDirectory),
        }
    }
}

/// The node of `ino` in the tree that `node`, an inode's, is in.
fn sibling(node: Node, ino: Ino) -> Node {
    match node {
        Node::Snap(id, _) => Node::Snap(id, ino),
        _ => Node::Live(ino),
    }
}

fn reserved() -> Error {
    Error::NotPermitted {
        what: "Only snapshots can be made, renamed and deleted in .snapshots".to_owned(),
    }
}

fn only_shown() -> Error {
    Error::NotPermitted { what: "This directory only shows what was".to_owned() }
}

/// Attributes of `node`, which is the inode of `stat`.
fn attr(node: Node, stat: &Stat) -> Attr {
    let inode = &stat.inode;
    Attr {
        node,
        kind: inode.kind,
        perm: inode.perm,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        size: inode.size,
        blocks: stat.allocated_bytes.div_ceil(512),
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: inode.btime,
        ttl: TTL_LONG,
    }
}

/// An entry of the live tree, or inside a snapshot.
fn entry(node: Node, stat: &Stat) -> Entry {
    Entry { attr: attr(node, stat), ttl: TTL_LONG }
}
