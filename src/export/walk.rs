//! The walk over the snapshot: makes directories, and hands out files to be written.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::attributes::{has_attributes, has_content, xattrs_differ};
use super::file::{
    Directory, Job, Task, existing, export, is_there, remove_if_there, temporary, what, xattrs,
};
use super::report::ExportWhat;
use super::{Host, Origin, Shared};
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::types::{At, Cookie, FileKind, Ino, Inode, shown_path};

/// Entries listed at a time.
const LISTED_AT_ONCE: usize = 1024;
/// Entries of a directory that are sorted at a time.
const NAMES_AT_ONCE: usize = 64 * 1024;
/// Neighbours that one thread writes: until they have so many bytes, or are so many.
const JOB_BYTES: u64 = 2 * 1024 * 1024;
const JOB_FILES: usize = 64;
/// Most hard-linked inodes remembered; further ones become files of their own.
const LINKS_REMEMBERED: usize = 1_000_000;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// An entry of the snapshot.
struct Entry {
    ino: Ino,
    kind: FileKind,
    name: OsString,
}

struct Frame<'a> {
    dir: Arc<Directory<'a>>,
    /// In the order of their inodes.
    entries: VecDeque<Entry>,
    directories: VecDeque<Entry>,
    after: Cookie,
    ended: bool,
}

pub(super) struct Walk<'a, 'q, 'h> {
    shared: &'a Shared<'a>,
    queue: &'q Queue<Job<'a>>,
    host: Host<'h>,
    stack: Vec<Frame<'a>>,
    /// Inodes with several names, and where the first one is.
    links: HashMap<Ino, PathBuf>,
    job: Job<'a>,
    job_bytes: u64,
    told: Instant,
    dry_run: bool,
}

impl<'a, 'q, 'h> Walk<'a, 'q, 'h> {
    pub(super) fn new(shared: &'a Shared<'a>, queue: &'q Queue<Job<'a>>, host: Host<'h>) -> Self {
        let dry_run = shared.report.lock().dry_run;
        let (stack, links, job) = Default::default();
        let told = Instant::now();
        Self { shared, queue, host, stack, links, job, job_bytes: 0, told, dry_run }
    }

    fn at(&self) -> At {
        At::Epoch(self.shared.epoch)
    }

    /// Exports everything; all of it is written when it returns.
    pub(super) fn all(&mut self, origin: &Origin, dest: PathBuf, existed: bool) -> Result<()> {
        let inode = self.shared.volume.stat(self.at(), origin.ino)?.inode;
        match &origin.name {
            None => self.enter(dest, origin.ino, inode, !existed, true),
            Some(name) => {
                let plain = Directory {
                    shared: self.shared,
                    path: dest,
                    ino: origin.ino,
                    inode: None,
                    is_new: false,
                };
                let dir = Arc::new(plain);
                let name = OsStr::from_bytes(name).to_owned();
                let entry = Entry { ino: origin.ino, kind: inode.kind, name };
                if inode.kind == FileKind::Directory {
                    self.directory(&dir, entry)?;
                } else {
                    self.file(&dir, entry)?;
                }
            }
        }
        while let Some(frame) = self.stack.last_mut() {
            let dir = Arc::clone(&frame.dir);
            if let Some(entry) = frame.entries.pop_front() {
                self.file(&dir, entry)?;
                self.tell()?;
            } else if !frame.ended {
                self.list()?;
            } else if let Some(entry) = frame.directories.pop_front() {
                self.directory(&dir, entry)?;
                self.tell()?;
            } else {
                self.stack.pop();
            }
        }
        self.send()?;
        let queue = self.queue;
        queue.drain(&mut || self.tell())
    }

    /// Lists more of the directory on top.
    fn list(&mut self) -> Result<()> {
        let at = self.at();
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let mut files = Vec::new();
        while files.len() < NAMES_AT_ONCE {
            let volume = self.shared.volume;
            let page = match volume.list(at, frame.dir.ino, frame.after, LISTED_AT_ONCE) {
                Ok(page) => page,
                // What could be listed was.
                Err(error @ (Error::Corrupt { .. } | Error::Kv { .. })) => {
                    self.shared.report.lock().problem(&frame.dir.path, error.to_string());
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else {
                frame.ended = true;
                break;
            };
            frame.after = last.cookie;
            for listed in page {
                let name = OsString::from_vec(listed.name.into_vec());
                let entry = Entry { ino: listed.ino, kind: listed.kind, name };
                if entry.kind == FileKind::Directory {
                    frame.directories.push_back(entry);
                } else {
                    files.push(entry);
                }
            }
        }
        files.sort_unstable_by_key(|entry| entry.ino);
        frame.entries = files.into();
        if frame.ended {
            frame.directories.make_contiguous().sort_unstable_by_key(|entry| entry.ino);
        }
        Ok(())
    }

    fn directory(&mut self, above: &Arc<Directory<'a>>, entry: Entry) -> Result<()> {
        let path = above.path.join(&entry.name);
        let inode = self.shared.volume.stat(self.at(), entry.ino)?.inode;
        let failed = |e| Error::io("make", &path, e);
        let facts = match existing(&path) {
            Ok(facts) => facts,
            Err(_) if self.dry_run => None,
            Err(e) => return self.problem(&path, failed(e)),
        };
        let is_new = !facts.as_ref().is_some_and(std::fs::Metadata::is_dir);
        if is_new && facts.is_some() && !self.dry_run {
            self.shared.report.lock().note(ExportWhat::Replaced, &path);
            if let Err(e) = std::fs::remove_file(&path) {
                return self.problem(&path, failed(e));
            }
        }
        if is_new {
            self.shared.report.lock().note(ExportWhat::Created, &path);
            if !self.dry_run
                && let Err(e) = std::fs::create_dir(&path)
            {
                if crate::sys::disk::is_full(&e) {
                    return Err(failed(e));
                }
                return self.problem(&path, failed(e));
            }
        }
        let right = match facts.filter(|_| !is_new) {
            None => false,
            Some(facts) => {
                let wanted = xattrs(self.shared, entry.ino)?;
                has_content(&facts, &inode)
                    && has_attributes(self.shared, &facts, &inode)
                    && xattrs_differ(self.shared, &path, &wanted).is_ok_and(|differ| !differ)
            }
        };
        if !is_new {
            let mut report = self.shared.report.lock();
            if right {
                report.unchanged += 1;
            } else {
                report.note(ExportWhat::Attributes, &path);
            }
        }
        self.enter(path, entry.ino, inode, is_new, true);
        Ok(())
    }

    fn problem(&self, path: &std::path::Path, error: Error) -> Result<()> {
        self.shared.report.lock().problem(path, error.to_string());
        Ok(())
    }

    /// Files that are made in a directory move its mtime, so its attributes are always set.
    fn enter(&mut self, path: PathBuf, ino: Ino, inode: Inode, is_new: bool, set: bool) {
        let inode = Some(inode).filter(|_| set && !self.dry_run);
        let dir = Directory { shared: self.shared, path, ino, inode, is_new };
        self.stack.push(Frame {
            dir: Arc::new(dir),
            entries: VecDeque::new(),
            directories: VecDeque::new(),
            after: Cookie(0),
            ended: false,
        });
    }

    fn file(&mut self, dir: &Arc<Directory<'a>>, entry: Entry) -> Result<()> {
        let inode = self.shared.volume.stat(self.at(), entry.ino)?.inode;
        let path = dir.path.join(&entry.name);
        if self.dry_run {
            return self.would(&path, entry.ino, &inode);
        }
        if let Some(first) = self.links.get(&entry.ino) {
            let first = first.clone();
            return self.link(&first, &path, entry.ino);
        }
        let Entry { ino, name, .. } = entry;
        let task = Task { dir: Arc::clone(dir), name, ino };
        if inode.nlink > 1 {
            // Its other names will need it.
            export(self.shared, &task)?;
            if self.links.len() < LINKS_REMEMBERED {
                self.links.insert(ino, path);
            }
            return Ok(());
        }
        self.job.push(task);
        self.job_bytes += inode.size;
        if self.job_bytes >= JOB_BYTES || self.job.len() >= JOB_FILES {
            self.send()?;
        }
        Ok(())
    }

    fn would(&self, path: &std::path::Path, ino: Ino, inode: &Inode) -> Result<()> {
        let facts = existing(path).ok().flatten();
        let mut report = self.shared.report.lock();
        let Some(facts) = facts else {
            report.note(ExportWhat::Created, path);
            return Ok(());
        };
        if !is_there(&facts, inode, path) {
            report.note(ExportWhat::Replaced, path);
        } else if has_attributes(self.shared, &facts, inode)
            && !xattrs_differ(self.shared, path, &xattrs(self.shared, ino)?).unwrap_or(true)
        {
            report.unchanged += 1;
        } else {
            report.note(ExportWhat::Attributes, path);
        }
        Ok(())
    }

    /// One more name of what is written already.
    fn link(&mut self, first: &std::path::Path, path: &std::path::Path, ino: Ino) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let failed = |e| Error::io("link", path, e);
        let there = match existing(path) {
            Ok(there) => there,
            Err(e) => return self.problem(path, failed(e)),
        };
        let id = |m: &std::fs::Metadata| (m.dev(), m.ino());
        let of_first = std::fs::symlink_metadata(first).map(|m| id(&m));
        if there.as_ref().is_some_and(|m| of_first.as_ref().is_ok_and(|of| *of == id(m))) {
            self.shared.report.lock().unchanged += 1;
            return Ok(());
        }
        let what = match what(there.as_ref(), path) {
            Ok(what) => what,
            Err(error) => return self.problem(path, error),
        };
        let temporary = temporary(path, ino);
        let done = remove_if_there(&temporary)
            .and_then(|()| std::fs::hard_link(first, &temporary))
            .and_then(|()| std::fs::rename(&temporary, path));
        match done {
            Ok(()) => self.shared.report.lock().note(what, path),
            Err(e) => return self.problem(path, failed(e)),
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

    fn tell(&mut self) -> Result<()> {
        let seen = || self.shared.report.lock().seen();
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let written = self.shared.written_bytes.load(Relaxed) / (1024 * 1024);
            let at = self.stack.last().map(|frame| frame.dir.path.as_os_str().as_bytes());
            let at = shown_path(at.unwrap_or_default());
            let seen = seen();
            (self.host.progress)(&format!(
                "{seen} entries done, {written} MiB written, now at {at}"
            ));
        }
        if self.shared.failure.is_there() {
            // The cause is noted already.
            return Err(Error::Busy { what: "Stopped".to_owned() });
        }
        if (self.host.stop)() {
            let what = format!("Stopped after {} entries; run it again to go on", seen());
            return Err(Error::Busy { what });
        }
        Ok(())
    }
}
