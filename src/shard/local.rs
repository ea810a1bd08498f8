//! A shard in a directory.
//!
//! Guarantees: a directory is used only if its marker names this volume and this shard, so an
//! unmounted disk is never mistaken for an empty one. Container names are durable with their first
//! sync. Relies on: a file system that keeps what fsync confirmed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::budget::AppendBudget;
use super::direct::{DirectAppender, Site, Tails, sync_names};
use super::marker::Marker;
use super::tail::Flusher;
use super::{Appender, Shard, Space};
use crate::env::{Faults, Point};
use crate::error::{Error, Result};
use crate::sys::disk;
use crate::types::{ContainerId, ShardId, VolumeId};

/// Marker file that makes a directory a shard.
const MARKER: &str = "shard.id";
/// Name of the marker while it is written.
const MARKER_TEMP: &str = "shard.id.tmp";
/// Directory of the containers.
const CONTAINERS: &str = "containers";
/// What a fresh ext4 holds; a disk of its own is the usual home of a shard.
const LOST_AND_FOUND: &str = "lost+found";
/// Read handles kept open: enough for a few dozen streams, far below the usual limit of 1024 files.
const OPEN_FILES_MAX: usize = 64;
/// Append buffers of a shard that shares no budget: more classes than are written to at a time.
const APPEND_BYTES: usize = 16 * 1024 * 1024;

/// Containers as files `containers/XX/XXXXXXXXXXXXXXXX.sfc`: the id in hex, in 256 directories by
/// its low byte.
#[derive(Debug)]
pub struct LocalShard {
    dir: PathBuf,
    volume: VolumeId,
    id: ShardId,
    /// Last used at the end. Files are opened and removed under this lock, so that a removed
    /// container is never kept open.
    open: Mutex<Vec<(ContainerId, Arc<File>)>>,
    /// What appenders have not written yet.
    tails: Tails,
    /// Writes them.
    flusher: Arc<Flusher>,
    /// Set by who shares it, or when it is first needed.
    budget: OnceLock<Arc<AppendBudget>>,
    direct: bool,
    faults: Faults,
}

impl LocalShard {
    /// Makes `dir` shard `id` of `volume` and opens it. A directory that is this very shard already
    /// is opened as it is: a crash may have come between making it and recording it.
    ///
    /// # Errors
    /// `Shard` if the directory holds anything else; `NoSpace`, `Io`.
    pub fn create(dir: &Path, volume: VolumeId, id: ShardId) -> Result<Self> {
        Self::create_with(dir, volume, id, Faults::default())
    }

    /// As [`LocalShard::create`], passing fault points.
    ///
    /// # Errors
    /// As [`LocalShard::create`].
    pub fn create_with(dir: &Path, volume: VolumeId, id: ShardId, faults: Faults) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))?;
        let marker = dir.join(MARKER);
        if marker.try_exists().map_err(|e| failed("look for", &marker, e))? {
            return Self::open_with(dir, volume, id, faults);
        }
        if let Some(name) = first_foreign_name(dir)? {
            let dir = dir.display();
            return Err(Error::Shard {
                what: format!(
                    "Directory {dir} is not empty (it holds {name}); give shard {id} a directory \
                     of its own"
                ),
            });
        }
        let containers = dir.join(CONTAINERS);
        match fs::create_dir(&containers) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("create", &containers, e));
            }
            _ => {}
        }
        faults.hit(Point::ShardMake)?;
        write_marker(dir, &Marker { volume, shard: id }, &faults)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            disk::sync_dir(parent).map_err(|e| failed("sync", parent, e))?;
        }
        Self::open_with(dir, volume, id, faults)
    }

    /// Opens shard `id` of `volume` in `dir`.
    ///
    /// # Errors
    /// `ShardMissing` with the way out if the directory is missing or is no shard; `Shard` if it is
    /// another one; `Unknown` if a newer program made it; `Io`.
    pub fn open(dir: &Path, volume: VolumeId, id: ShardId) -> Result<Self> {
        Self::open_with(dir, volume, id, Faults::default())
    }

    /// As [`LocalShard::open`], passing fault points.
    ///
    /// # Errors
    /// As [`LocalShard::open`].
    pub fn open_with(dir: &Path, volume: VolumeId, id: ShardId, faults: Faults) -> Result<Self> {
        check_marker(dir, volume, id)?;
        Ok(Self {
            dir: dir.to_owned(),
            volume,
            id,
            open: Mutex::default(),
            tails: Tails::default(),
            flusher: Arc::default(),
            budget: OnceLock::new(),
            direct: true,
            faults,
        })
    }

    /// As on a file system that has no O_DIRECT.
    #[cfg(test)]
    pub(super) fn without_direct_io(self) -> Self {
        Self { direct: false, ..self }
    }

    fn containers(&self) -> PathBuf {
        self.dir.join(CONTAINERS)
    }

    fn folder(&self, id: ContainerId) -> PathBuf {
        self.containers().join(format!("{:02x}", id.0 & 0xff))
    }

    fn path(&self, id: ContainerId) -> PathBuf {
        self.folder(id).join(format!("{:016x}.sfc", id.0))
    }

    fn failed(&self, op: &'static str, id: ContainerId, error: io::Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound => Error::not_found(format!("container {id} on {}", self.place())),
            _ => failed(op, &self.path(id), error),
        }
    }

    fn reader(&self, id: ContainerId) -> Result<Arc<File>> {
        let mut open = self.open.lock();
        let entry = match open.iter().position(|(other, _)| *other == id) {
            Some(at) => open.remove(at),
            None => {
                let file = File::open(self.path(id)).map_err(|e| self.failed("open", id, e))?;
                if open.len() >= OPEN_FILES_MAX {
                    open.remove(0);
                }
                (id, Arc::new(file))
            }
        };
        let file = Arc::clone(&entry.1);
        open.push(entry);
        Ok(file)
    }

    fn appender(&self, id: ContainerId, file: File, len: u64) -> Box<dyn Appender> {
        let path = self.path(id);
        // Also after reopening: the crash that made us reopen may have come before its sync.
        let unsynced_dirs = vec![self.folder(id), self.containers()];
        let site = || Site {
            id,
            path: path.clone(),
            place: self.place(),
            unsynced_dirs: unsynced_dirs.clone(),
            tails: Arc::clone(&self.tails),
            flusher: Arc::clone(&self.flusher),
            faults: self.faults.clone(),
            budget: Arc::clone(self.budget.get_or_init(|| AppendBudget::new(APPEND_BYTES))),
        };
        let direct = disk::open_direct(&path).ok().filter(|_| self.direct);
        if let Some(direct) = direct.and_then(|file| DirectAppender::new(file, len, site())) {
            return Box::new(direct);
        }
        let (place, faults) = (self.place(), self.faults.clone());
        let broken = None;
        Box::new(LocalAppender { file, path, place, len, unsynced_dirs, faults, broken })
    }

    /// What the tail of a container that is appended to knows of a range: how many bytes at the
    /// front of `buf` are in the file. Without such a tail that is all of them.
    fn read_tail(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let tail = self.tails.lock().get(&id).cloned();
        let Some(tail) = tail else { return Ok(buf.len()) };
        let end = offset.saturating_add(buf.len() as u64);
        let short = |have| super::too_short(id, &self.place(), have, end);
        if i64::try_from(end).is_err() {
            return Err(short(tail.end()));
        }
        tail.read(offset, buf).map_err(short)
    }
}

impl Shard for LocalShard {
    fn share_budget(&self, budget: &Arc<AppendBudget>) {
        // Whoever comes second has another volume's shard in hand, or this one's again.
        let _ = self.budget.set(Arc::clone(budget));
    }

    fn create(&self, id: ContainerId) -> Result<Box<dyn Appender>> {
        let folder = self.folder(id);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("create", &folder, e));
            }
            _ => {}
        }
        let opened = OpenOptions::new().write(true).create_new(true).open(self.path(id));
        let file = opened.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => {
                Error::Exists { what: format!("Container {id} on {}", self.place()) }
            }
            _ => failed("create", &self.path(id), e),
        })?;
        Ok(self.appender(id, file, 0))
    }

    fn reopen(&self, id: ContainerId, len: u64) -> Result<Box<dyn Appender>> {
        let opened = OpenOptions::new().write(true).open(self.path(id));
        let file = opened.map_err(|e| self.failed("open", id, e))?;
        let have = file.metadata().map_err(|e| self.failed("stat", id, e))?.len();
        if have < len {
            return Err(super::too_short(id, &self.place(), have, len));
        }
        file.set_len(len).map_err(|e| self.failed("cut", id, e))?;
        Ok(self.appender(id, file, len))
    }

    fn read_at(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<()> {
        let front = self.read_tail(id, offset, buf)?;
        let buf = &mut buf[..front];
        let file = self.reader(id)?;
        let end = offset.saturating_add(buf.len() as u64);
        if i64::try_from(end).is_err() {
            // Beyond what the system can express, and so beyond any container.
            return Err(super::too_short(id, &self.place(), self.len(id)?, end));
        }
        file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                let have = file.metadata().map_or(0, |m| m.len());
                super::too_short(id, &self.place(), have, end)
            }
            _ => self.failed("read", id, e),
        })
    }

    fn len(&self, id: ContainerId) -> Result<u64> {
        let tail = self.tails.lock().get(&id).cloned();
        if let Some(tail) = tail {
            return Ok(tail.end());
        }
        fs::metadata(self.path(id)).map(|m| m.len()).map_err(|e| self.failed("stat", id, e))
    }

    fn delete(&self, id: ContainerId) -> Result<()> {
        let mut open = self.open.lock();
        open.retain(|(other, _)| *other != id);
        match fs::remove_file(self.path(id)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("delete", &self.path(id), e)),
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<ContainerId>> {
        let mut found = Vec::new();
        for folder in names_in(&self.containers())? {
            let path = self.containers().join(&folder);
            if folder.len() != 2 || !path.is_dir() {
                continue;
            }
            for name in names_in(&path)? {
                if let Some(id) = parse_name(&folder, &name)
                    && path.join(&name).is_file()
                {
                    found.push(id);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn drop_cached(&self, id: ContainerId) {
        // Without it what is read may come from memory: good, but no proof. The next reader opens
        // the file by its name, so one that was taken away is missed.
        let _ = self.reader(id).map(|file| disk::drop_cached(&file));
        self.open.lock().retain(|(other, _)| *other != id);
    }

    fn space(&self) -> Result<Space> {
        let space = disk::space(&self.dir).map_err(|e| failed("stat", &self.dir, e))?;
        Ok(Space {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            unused_bytes: space.unused_bytes,
            disk: Some(space.device),
        })
    }

    fn probe(&self) -> Result<()> {
        check_marker(&self.dir, self.volume, self.id)
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

/// Is the directory shard `id` of `volume`?
fn check_marker(dir: &Path, volume: VolumeId, id: ShardId) -> Result<()> {
    let shown = dir.display();
    if !dir.is_dir() {
        return Err(Error::ShardMissing {
            what: format!(
                "Directory {shown} of shard {id} is missing; mount the disk that holds it, or \
                 see `stratafs shard --help` for moving a shard"
            ),
        });
    }
    let path = dir.join(MARKER);
    let bytes = match read_at_most(&path, Marker::LEN + 1) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::ShardMissing {
                what: format!(
                    "Directory {shown} holds no file {MARKER}, so it is not shard {id}; mount \
                     the disk that holds the shard there"
                ),
            });
        }
        Err(e) => return Err(failed("read", &path, e)),
    };
    let found = Marker::parse(&bytes, &path.display().to_string())?;
    if found.volume != volume {
        return Err(Error::Shard {
            what: format!(
                "Directory {shown} is a shard of volume {}, not of {volume}; mount the right \
                 disk there",
                found.volume
            ),
        });
    }
    if found.shard != id {
        return Err(Error::Shard {
            what: format!(
                "Directory {shown} is shard {}, not shard {id}, of this volume; mount the \
                 right disk there",
                found.shard
            ),
        });
    }
    Ok(())
}

#[derive(Debug)]
struct LocalAppender {
    file: File,
    path: PathBuf,
    place: String,
    len: u64,
    /// Directories whose fsync makes the name durable; empty after the first sync.
    unsynced_dirs: Vec<PathBuf>,
    faults: Faults,
    /// A sync failed: the system may have dropped what it could not write, and say yes next time.
    broken: Option<Error>,
}

impl LocalAppender {
    fn failed(&self, op: &'static str, error: io::Error) -> Error {
        if disk::is_full(&error) {
            return Error::NoSpace { place: self.place.clone() };
        }
        Error::io(op, &self.path, error)
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn write_all(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        // A failed append may have moved the file's position.
        self.file.seek(SeekFrom::Start(self.len))?;
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|p| !p.is_empty()).map(|p| IoSlice::new(p)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Appender for LocalAppender {
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64> {
        self.check()?;
        self.write_all(parts).map_err(|e| self.failed("write", e))?;
        let offset = self.len;
        self.len += parts.iter().map(|p| p.len() as u64).sum::<u64>();
        Ok(offset)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<()> {
        self.check()?;
        let synced = self.file.sync_data().map_err(|e| self.failed("sync", e));
        let synced = synced.and_then(|()| sync_names(&mut self.unsynced_dirs, &self.faults));
        synced.inspect_err(|e| self.broken = Some(e.clone()))
    }
}

/// `NoSpace` for a full disk, `Io` for the rest.
fn failed(op: &'static str, path: &Path, error: io::Error) -> Error {
    if disk::is_full(&error) {
        return Error::NoSpace { place: path.display().to_string() };
    }
    Error::io(op, path, error)
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(|e| failed("list", dir, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("list", dir, e))?;
        // Lossy is enough: a name of ours is ASCII, and a changed one is never taken for ours.
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The container whose file is `folder/name`; `None` for a foreign file.
fn parse_name(folder: &str, name: &str) -> Option<ContainerId> {
    let hex = name.strip_suffix(".sfc")?;
    let id = u64::from_str_radix(hex, 16).ok()?;
    // Rendering it again refuses signs, capitals, other lengths and the wrong folder.
    let ours = hex == format!("{id:016x}") && folder == format!("{:02x}", id & 0xff);
    ours.then_some(ContainerId(id))
}

/// A name that must not be in a new shard's directory. What an interrupted creation left may be.
fn first_foreign_name(dir: &Path) -> Result<Option<String>> {
    for name in names_in(dir)? {
        let ours = match name.as_str() {
            LOST_AND_FOUND | MARKER_TEMP => true,
            CONTAINERS => {
                dir.join(CONTAINERS).is_dir() && names_in(&dir.join(CONTAINERS))?.is_empty()
            }
            _ => false,
        };
        if !ours {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn write_marker(dir: &Path, marker: &Marker, faults: &Faults) -> Result<()> {
    let temp = dir.join(MARKER_TEMP);
    let write = || {
        let mut file = File::create(&temp)?;
        file.write_all(&marker.to_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| failed("write", &temp, e))?;
    let path = dir.join(MARKER);
    faults.hit(Point::ShardMark)?;
    fs::rename(&temp, &path).map_err(|e| failed("rename", &path, e))?;
    faults.hit(Point::ShardMarked)?;
    disk::sync_dir(dir).map_err(|e| failed("sync", dir, e))
}

fn read_at_most(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
