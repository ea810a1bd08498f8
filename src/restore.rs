//! Puts a file or a tree of a snapshot back into the live tree, without copying bytes.
//!
//! Guarantees: each file is there as before or as it was, whatever happens meanwhile; what is the
//! same already is left alone; entries that the snapshot does not have stay, unless `delete` is
//! asked for; when [`run`] returns, everything is durable. Memory is bounded, but for 32 bytes per
//! hard-linked file, up to a million of them; the work is proportional to the tree.
//! Relies on: `volume` for each step. Does not: know the mount; who has one passes a [`Host`] that
//! makes the kernel forget what changed behind its back.

mod file;
mod remove;
mod report;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use report::{Change, RestoreReport, What};

use crate::error::{Error, Result};
use crate::types::{At, Changed, Cookie, Epoch, FileKind, Ino, shown_path};
use crate::volume::{Listed, NewInode, Volume};

/// Entries listed at a time.
const LISTED_AT_ONCE: usize = 256;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Change nothing; only say what would change.
    pub dry_run: bool,
    /// Remove entries of restored directories that the snapshot does not have.
    pub delete: bool,
}

/// Where the restored thing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It becomes the root directory.
    Root,
    /// It gets a name in a directory of the live tree.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Box<[u8]>,
    },
}

/// Who asked.
pub struct Host<'a> {
    /// Is told what changed.
    pub changed: &'a dyn Fn(Changed<'_>),
    /// Is told how far it is.
    pub progress: &'a mut dyn FnMut(&str),
    /// True ends the work between two files.
    pub stop: &'a dyn Fn() -> bool,
}

/// Restores the inode `from` of the snapshot with this epoch.
///
/// # Errors
/// `NotFound`, `Stale`, `IsDirectory` for a directory that would become a file's name, `NoSpace`,
/// `ReadOnly`, `Poisoned`; faults. What was restored before stays.
pub fn run<'a>(
    volume: &'a Arc<Volume>,
    (epoch, from): (Epoch, Ino),
    target: &Target,
    options: RestoreOptions,
    host: Host<'a>,
) -> Result<RestoreReport> {
    let mut work = Work {
        volume,
        epoch,
        options,
        host,
        report: RestoreReport { dry_run: options.dry_run, ..RestoreReport::default() },
        links: HashMap::new(),
        claimed: HashMap::new(),
        path: Vec::new(),
        stack: Vec::new(),
        told: Instant::now(),
    };
    let done = work.all(from, target);
    // Also after a failure: what was done is done.
    for frame in &work.stack {
        frame.live.into_iter().for_each(|dir| (work.host.changed)(Changed::Inode(dir)));
    }
    if let Target::Entry { parent, .. } = target {
        (work.host.changed)(Changed::Inode(*parent));
    }
    let report = work.report;
    if !options.dry_run && report.has_changes() {
        volume.commit()?;
    }
    done.map(|()| report)
}

/// A directory that is being restored.
struct Frame {
    then: Ino,
    /// Where it goes; `None` in a dry run when it would have to be made.
    live: Option<Ino>,
    after: Cookie,
    page: VecDeque<Listed>,
    path_len: usize,
}

struct Work<'a> {
    volume: &'a Arc<Volume>,
    epoch: Epoch,
    options: RestoreOptions,
    host: Host<'a>,
    report: RestoreReport,
    /// Inodes of the snapshot with several names, and what they became.
    links: HashMap<Ino, Ino>,
    /// Live inodes with several names, and what they were taken for.
    claimed: HashMap<Ino, Ino>,
    /// Where we are, for people.
    path: Vec<u8>,
    stack: Vec<Frame>,
    told: Instant,
}

impl Work<'_> {
    fn at(&self) -> At {
        At::Epoch(self.epoch)
    }

    fn all(&mut self, from: Ino, target: &Target) -> Result<()> {
        let kind = self.volume.stat(self.at(), from)?.inode.kind;
        match target {
            Target::Root if kind == FileKind::Directory => self.descend(from, Some(Ino::ROOT), 0),
            Target::Root => return Err(Error::IsDirectory),
            Target::Entry { parent, name } => self.entry(from, kind, Some(*parent), name)?,
        }
        while let Some(frame) = self.stack.last_mut() {
            if let Some(item) = frame.page.pop_front() {
                let live = frame.live;
                self.entry(item.ino, item.kind, live, &item.name)?;
                self.tell()?;
                continue;
            }
            let (then, after) = (frame.then, frame.after);
            let page = self.volume.list(At::Epoch(self.epoch), then, after, LISTED_AT_ONCE)?;
            match page.last() {
                Some(last) => {
                    frame.after = last.cookie;
                    frame.page = page.into();
                }
                None => self.finish_directory()?,
            }
        }
        Ok(())
    }

    /// One name: a directory is entered, everything else is put right at once.
    fn entry(&mut self, then: Ino, kind: FileKind, dir: Option<Ino>, name: &[u8]) -> Result<()> {
        let path_len = self.path.len();
        if path_len > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if kind == FileKind::Directory {
            return self.directory(then, dir, name, path_len);
        }
        let done = self.file(then, dir, name);
        self.path.truncate(path_len);
        done
    }

    fn directory(
        &mut self,
        then: Ino,
        dir: Option<Ino>,
        name: &[u8],
        path_len: usize,
    ) -> Result<()> {
        let existing = self.existing(dir, name)?;
        let live = match existing {
            Some(stat) if stat.inode.kind == FileKind::Directory => Some(stat.ino),
            Some(_) => {
                self.report.note(What::Replaced, &self.path);
                if let Some(dir) = dir.filter(|_| !self.options.dry_run) {
                    self.volume.unlink(dir, name)?;
                }
                self.make_directory(then, dir, name)?
            }
            None => {
                self.report.note(What::Created, &self.path);
                self.make_directory(then, dir, name)?
            }
        };
        self.descend(then, live, path_len);
        Ok(())
    }

    fn make_directory(&self, then: Ino, dir: Option<Ino>, name: &[u8]) -> Result<Option<Ino>> {
        let Some(dir) = dir.filter(|_| !self.options.dry_run) else { return Ok(None) };
        let inode = self.volume.stat(self.at(), then)?.inode;
        let (perm, uid, gid) = (inode.perm, inode.uid, inode.gid);
        let kind = FileKind::Directory;
        let new = NewInode { kind, perm, uid, gid, rdev: 0, target: b"", xattrs: Vec::new() };
        let made = self.volume.make(dir, name, &new)?;
        (self.host.changed)(Changed::Name(dir, name));
        Ok(Some(made.ino))
    }

    fn descend(&mut self, then: Ino, live: Option<Ino>, path_len: usize) {
        let (after, page) = (Cookie(0), VecDeque::new());
        self.stack.push(Frame { then, live, after, page, path_len });
    }

    /// All entries of the directory are right: now what is too much, and its own attributes, which
    /// the entries have changed.
    fn finish_directory(&mut self) -> Result<()> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let (then, live, path_len) = (frame.then, frame.live, frame.path_len);
        if let Some(live) = live {
            if self.options.delete {
                self.remove_others(then, live)?;
            }
            if let Some(change) = self.volume.attributes_back(self.epoch, then, live)? {
                self.report.attributes += 1;
                if !self.options.dry_run {
                    self.volume.set_attributes(live, &change)?;
                }
            }
            (self.host.changed)(Changed::Inode(live));
        }
        self.stack.pop();
        self.path.truncate(path_len);
        Ok(())
    }

    fn existing(&self, dir: Option<Ino>, name: &[u8]) -> Result<Option<crate::volume::Stat>> {
        dir.map_or(Ok(None), |dir| self.volume.lookup(At::Live, dir, name))
    }

    fn tell(&mut self) -> Result<()> {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let (seen, path) = (self.report.seen(), shown_path(&self.path));
            (self.host.progress)(&format!("{seen} entries done, now at {path}"));
        }
        if (self.host.stop)() {
            let what = format!("Stopped after {} entries; each is whole", self.report.seen());
            return Err(Error::Busy { what });
        }
        Ok(())
    }
}
