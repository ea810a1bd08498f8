//! The walk over the sources: compares, makes directories, and hands out files to be read.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, ReadDir};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::file::{Job, SMALL_BYTES, Task, import_now};
use super::hardlinks::HardLinks;
use super::options::ImportOptions;
use super::report::ImportWhat;
use super::source::{arrival, kind, mark, mtime, sentence, size};
use super::{Host, Shared, Source};
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::types::{At, Changed, FileKind, Ino, SNAPSHOTS_NAME, shown_path};
use crate::volume::{Arrival, Spot, Stat, Volume};

/// Neighbours that are read and stored together: until they have so many bytes, or are so many.
const JOB_BYTES: u64 = 1024 * 1024;
const JOB_FILES: usize = 128;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A directory that is being imported.
pub(super) struct Frame {
    pub(super) source: PathBuf,
    /// Where it goes; `None` in a dry run when it would have to be made.
    dest: Option<Ino>,
    /// Attributes that are set once its entries are right; `None` if it has them.
    arrival: Option<Arrival>,
    pub(super) names: VecDeque<OsString>,
    /// What is not read of it yet.
    pub(super) more: Option<ReadDir>,
    /// Directories in it, once its files are done.
    directories: VecDeque<OsString>,
    path_len: usize,
}

pub(super) struct Walk<'a, 'h> {
    pub(super) shared: &'a Shared<'a>,
    queue: &'a Queue<Job>,
    pub(super) options: &'a ImportOptions,
    pub(super) host: Host<'h>,
    /// From the root of the transfer on.
    pub(super) path: Vec<u8>,
    pub(super) stack: Vec<Frame>,
    links: HardLinks,
    job: Job,
    job_bytes: u64,
    /// Device of the source.
    device: u64,
    told: Instant,
}

impl<'a, 'h> Walk<'a, 'h> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        queue: &'a Queue<Job>,
        options: &'a ImportOptions,
        host: Host<'h>,
    ) -> Self {
        Self {
            shared,
            queue,
            options,
            host,
            path: Vec::new(),
            stack: Vec::new(),
            links: HardLinks::default(),
            job: Vec::new(),
            job_bytes: 0,
            device: 0,
            told: Instant::now(),
        }
    }

    pub(super) fn volume(&self) -> &'a Volume {
        self.shared.volume
    }

    /// Imports one source into the directory `dest`.
    pub(super) fn source(&mut self, source: &Source, dest: Option<Ino>) -> Result<()> {
        let path = &source.path;
        let facts =
            if source.contents { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
        let facts = facts.map_err(|e| Error::io("look at", path, e))?;
        self.device = facts.dev();
        if source.contents {
            self.enter(path.clone(), &facts, dest, false, 0)?;
        } else {
            let name = path.file_name().unwrap_or_default().to_owned();
            let (above, directory) = (path.parent().unwrap_or(path), facts.is_dir());
            let name_len = self.push(&name);
            if self.options.rules.exclude(&self.path, directory) {
                self.shared.report.lock().excluded += 1;
            } else if directory {
                self.directory(path.clone(), dest, &name, 0)?;
            } else {
                self.file(above.join(&name), &facts, dest, &name)?;
            }
            if self.stack.is_empty() {
                self.path.truncate(name_len);
            }
        }
        self.all()?;
        self.path.clear();
        Ok(())
    }

    /// Hands out what is left and waits until all is stored.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.send()?;
        let queue = self.queue;
        queue.drain(&mut || self.tell())
    }

    fn all(&mut self) -> Result<()> {
        while let Some(frame) = self.stack.last_mut() {
            if let Some(name) = frame.names.pop_front() {
                self.name(&name)?;
                self.tell()?;
            } else if frame.more.is_some() {
                self.list()?;
            } else if let Some(arrival) = frame.arrival.take() {
                let dest = frame.dest;
                self.attributes(dest, &arrival)?;
            } else if let Some(name) = frame.directories.pop_front() {
                let (source, dest) = (frame.source.join(&name), frame.dest);
                let path_len = self.push(&name);
                self.directory(source, dest, &name, path_len)?;
            } else {
                let path_len = frame.path_len;
                if let Some(dest) = frame.dest {
                    (self.shared.changed)(Changed::Inode(dest));
                }
                self.stack.pop();
                self.path.truncate(path_len);
            }
        }
        Ok(())
    }

    /// Appends a name to the path; returns its length before.
    pub(super) fn push(&mut self, name: &OsStr) -> usize {
        let path_len = self.path.len();
        if path_len > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
        path_len
    }

    pub(super) fn problem(&self, path: &Path, why: String) {
        self.shared.report.lock().problem(path, why);
    }

    /// One name of the directory on top.
    fn name(&mut self, name: &OsStr) -> Result<()> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let (source, dest) = (frame.source.join(name), frame.dest);
        let facts = match std::fs::symlink_metadata(&source) {
            Ok(facts) => facts,
            Err(error) => {
                self.problem(&source, sentence(&error));
                return Ok(());
            }
        };
        let path_len = self.push(name);
        if self.options.rules.exclude(&self.path, facts.is_dir()) {
            self.shared.report.lock().excluded += 1;
        } else if name.as_bytes() == SNAPSHOTS_NAME {
            self.problem(&source, "A volume has its own .snapshots; exclude it".to_owned());
        } else if facts.is_dir() {
            // The name of what is no directory goes before the attributes of this one are set.
            self.make_way_for_directory(dest, name)?;
            if let Some(frame) = self.stack.last_mut() {
                frame.directories.push_back(name.to_owned());
            }
        } else {
            self.file(source, &facts, dest, name)?;
        }
        self.path.truncate(path_len);
        Ok(())
    }

    /// A directory outside, whose path is pushed; it was `path_len` long before.
    fn directory(
        &mut self,
        source: PathBuf,
        parent: Option<Ino>,
        name: &OsStr,
        path_len: usize,
    ) -> Result<()> {
        let facts = match std::fs::symlink_metadata(&source) {
            Ok(facts) if facts.is_dir() => facts,
            Ok(_) => {
                self.problem(&source, "It became something else".to_owned());
                self.path.truncate(path_len);
                return Ok(());
            }
            Err(error) => {
                self.problem(&source, sentence(&error));
                self.path.truncate(path_len);
                return Ok(());
            }
        };
        if self.is_own(&facts) {
            self.problem(&source, "It is of this volume".to_owned());
            self.path.truncate(path_len);
            return Ok(());
        }
        self.make_way_for_directory(parent, name)?;
        let existing = self.existing(parent, name.as_bytes())?;
        let now = self.shared.volume.now();
        let like = arrival(self.shared, &source, &facts, FileKind::Directory, now);
        let (dest, made) = match (existing, like, parent) {
            (Some(stat), _, _) => (Some(stat.ino), false),
            (None, Ok(like), Some(parent)) if !self.options.dry_run => {
                let name = name.as_bytes();
                let spot = Spot { parent, name: name.into() };
                let made = self.volume().import_directory(&spot, &like)?;
                (self.shared.changed)(Changed::Name(parent, name));
                self.note(ImportWhat::Created);
                (Some(made), true)
            }
            (None, Ok(_), _) => {
                self.note(ImportWhat::Created);
                (None, true)
            }
            (None, Err(error), _) => {
                self.problem(&source, sentence(&error));
                self.path.truncate(path_len);
                return Ok(());
            }
        };
        self.enter(source, &facts, dest, made, path_len)
    }

    /// Begins a directory that is there, or would be.
    fn enter(
        &mut self,
        source: PathBuf,
        facts: &Metadata,
        dest: Option<Ino>,
        made: bool,
        path_len: usize,
    ) -> Result<()> {
        let now = self.shared.volume.now();
        let like = arrival(self.shared, &source, facts, FileKind::Directory, now);
        let like = match like {
            Ok(like) => (!made).then_some(like),
            Err(error) => {
                self.problem(&source, sentence(&error));
                None
            }
        };
        let foreign = self.options.one_file_system && facts.dev() != self.device;
        let tag = self.tag_in(&source);
        let mut more = None;
        if !foreign && tag.is_none() {
            match std::fs::read_dir(&source) {
                Ok(listing) => more = Some(listing),
                Err(error) => self.problem(&source, sentence(&error)),
            }
        }
        if self.options.delete
            && more.is_some()
            && let Some(dest) = dest
        {
            self.delete_others(&source, dest)?;
        }
        self.stack.push(Frame {
            source,
            dest,
            arrival: like,
            names: tag.into_iter().collect(),
            more,
            directories: VecDeque::new(),
            path_len,
        });
        Ok(())
    }

    fn attributes(&mut self, dest: Option<Ino>, like: &Arrival) -> Result<()> {
        let Some(dest) = dest else { return Ok(()) };
        if self.volume().import_attributes(dest, like, self.options.dry_run)? {
            self.note(ImportWhat::Attributes);
        }
        Ok(())
    }

    fn note(&self, what: ImportWhat) {
        self.shared.report.lock().note(what, &self.path);
    }

    fn existing(&self, dir: Option<Ino>, name: &[u8]) -> Result<Option<Stat>> {
        dir.map_or(Ok(None), |dir| self.volume().lookup(At::Live, dir, name))
    }

    /// Anything but a directory, whose path is pushed.
    fn file(
        &mut self,
        source: PathBuf,
        facts: &Metadata,
        dir: Option<Ino>,
        name: &OsStr,
    ) -> Result<()> {
        let Some(kind) = kind(facts) else {
            self.problem(&source, "It is of an unknown kind".to_owned());
            return Ok(());
        };
        let name = name.as_bytes();
        let existing = self.existing(dir, name)?;
        let (mut existing, mut what) = match existing {
            Some(stat) => (Some(stat), ImportWhat::Replaced),
            None => (None, ImportWhat::Created),
        };
        if let (Some(dir), Some(stat)) = (dir, &existing)
            && stat.inode.kind == FileKind::Directory
        {
            if !self.make_way(dir, name, stat.ino)? {
                return Ok(());
            }
            (existing, what) = (None, ImportWhat::Replaced);
        }
        let (outside, links) = ((facts.dev(), facts.ino()), facts.nlink());
        if let Some(known) = self.links.became(outside) {
            return self.link(known, facts, dir, name, existing.as_ref());
        }
        if let Some(stat) = &existing
            && self.is_unchanged(stat, facts, kind)
        {
            self.links.note(outside, links, stat.ino, stat.inode.nlink);
            self.shared.report.lock().unchanged += 1;
            return Ok(());
        }
        let Some(parent) = dir.filter(|_| !self.options.dry_run) else {
            self.note(what);
            // In a dry run another name of it would be a link to what is not there yet.
            self.links.note(outside, links, Ino(0), 1);
            return Ok(());
        };
        let lone = existing.filter(|stat| stat.inode.nlink == 1);
        let lone = lone.filter(|stat| !self.links.is_of_another(stat.ino, outside));
        let task = Task {
            path: source,
            facts: facts.clone(),
            spot: Spot { parent, name: name.into() },
            existing: lone.map(|stat| stat.ino),
            what,
            shown: self.path.clone(),
        };
        if links > 1 {
            // Its other names will need it.
            if let Some(ino) = import_now(self.shared, task)? {
                self.links.note(outside, links, ino, 1);
            }
            return Ok(());
        }
        self.hand_out(task)
    }

    fn is_unchanged(&self, stat: &Stat, facts: &Metadata, kind: FileKind) -> bool {
        let mark = mark(self.shared, facts);
        stat.inode.kind == kind
            && Volume::is_as_imported(&stat.inode, size(facts, kind), mtime(facts), &mark)
            && !self.links.is_of_another(stat.ino, (facts.dev(), facts.ino()))
    }

    /// One more name of an inode that is right already.
    fn link(
        &mut self,
        known: Ino,
        facts: &Metadata,
        dir: Option<Ino>,
        name: &[u8],
        existing: Option<&Stat>,
    ) -> Result<()> {
        if existing.is_some_and(|stat| stat.ino == known) {
            self.shared.report.lock().unchanged += 1;
            return Ok(());
        }
        let what = if existing.is_some() { ImportWhat::Replaced } else { ImportWhat::Created };
        self.note(what);
        let Some(parent) = dir.filter(|_| !self.options.dry_run) else { return Ok(()) };
        let spot = Spot { parent, name: name.into() };
        let mark = mark(self.shared, facts);
        let placed = self.volume().import_link(known, &spot, Some(&mark))?;
        (self.shared.changed)(Changed::Name(parent, name));
        (self.shared.changed)(Changed::Inode(known));
        if let Some(replaced) = placed.replaced {
            (self.shared.changed)(Changed::Inode(replaced));
        }
        Ok(())
    }

    fn hand_out(&mut self, task: Task) -> Result<()> {
        let bytes = if task.facts.is_file() { task.facts.len() } else { 0 };
        if bytes > SMALL_BYTES {
            // What lies before it in the directory goes before it.
            self.send()?;
        }
        self.job.push(task);
        self.job_bytes += bytes;
        if self.job_bytes >= JOB_BYTES || self.job.len() >= JOB_FILES {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if self.job.is_empty() {
            return Ok(());
        }
        self.job_bytes = 0;
        let (job, queue) = (std::mem::take(&mut self.job), self.queue);
        queue.push(job, &mut || self.tell())
    }

    pub(super) fn tell(&mut self) -> Result<()> {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let seen = self.shared.report.lock().seen();
            let read = self.shared.read_bytes.load(Relaxed) / (1024 * 1024);
            let path = shown_path(&self.path);
            (self.host.progress)(&format!("{seen} entries done, {read} MiB read, now at {path}"));
        }
        if self.shared.failure.is_there() {
            // The cause is noted already.
            return Err(Error::Busy { what: "Stopped".to_owned() });
        }
        if (self.host.stop)() {
            let seen = self.shared.report.lock().seen();
            let what = format!("Stopped after {seen} entries; run it again to go on");
            return Err(Error::Busy { what });
        }
        Ok(())
    }
}
