//! The workload: seeded operations on a volume, with the model's state after each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use stratafs::env::{Env, Faults, SeededRandom, StepClock};
use stratafs::error::{Error, Result};
use stratafs::gc;
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{
    Arrival, AttrChange, NewInode, OpenOptions, Placed, RenameMode, SetTime, SmallFile, Spot,
    Volume, XattrMode,
};
use tempfile::TempDir;

use super::machine::Machine;
use super::state::{State, TIME};
use crate::model::ops::{NAMES, SNAPSHOTS, XATTRS};
use crate::model::tree::{Node, Tree};
use crate::testkit::{random_bytes, text_bytes};

/// Operations of a workload.
pub const STEPS: usize = 70;
/// Operations after an opening that survived a cut.
pub const STEPS_AFTER: usize = 12;

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// Only operations that promise it: which state a commit holds is known exactly.
    Asked,
    /// Another thread, all the time: a commit holds the state after some operation.
    Always,
}

/// A volume directory on a temporary disk: superblock, lock and configuration are files.
pub struct Site {
    temp: TempDir,
}

const CONFIG: &str = r#"
[limits]
commit_interval_secs = 3600
workers = 1
dirty_bytes = "2MiB"
file_dirty_bytes = "2MiB"
reserve_bytes = 0
[classes.other]
avg_bytes = "4KiB"
[classes.source]
avg_bytes = "4KiB"
[classes.log]
codec = "none"
avg_bytes = "4KiB"
[classes.database]
chunking = "fixed"
avg_bytes = "4KiB"
"#;

pub fn env(seed: u64, faults: Faults) -> Env {
    let random = Arc::new(SeededRandom::new(seed));
    Env::with_clock(Arc::new(StepClock::default())).with_random(random).with_faults(faults)
}

impl Site {
    /// Makes a volume; the machine holds what is not in files.
    pub fn new() -> (Self, Machine) {
        let site = Self { temp: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.dir()).unwrap();
        std::fs::write(site.dir().join("config.toml"), CONFIG).unwrap();
        let machine = Machine::default();
        let options = stratafs::volume::InitOptions { env: env(0, Faults::default()) };
        Volume::init_on(&site.dir(), &options, &machine).unwrap();
        (site, machine)
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("volume")
    }

    fn witness(&self) -> PathBuf {
        self.dir().join("last-commit")
    }

    /// What the file says that knows the last commit. It is not on the machine's disks.
    pub fn last_commit(&self) -> Option<Vec<u8>> {
        std::fs::read(self.witness()).ok()
    }

    /// Puts that file back as a power cut left it: nobody synced it.
    pub fn set_last_commit(&self, text: Option<&[u8]>) {
        match text {
            Some(text) => std::fs::write(self.witness(), text).unwrap(),
            None => drop(std::fs::remove_file(self.witness())),
        }
    }

    /// Opens the volume as `machine` has it.
    pub fn open(&self, machine: &Arc<Machine>, env: &Env) -> Result<Arc<Volume>> {
        loop {
            let options =
                OpenOptions { env: env.clone(), purpose: "a test".into(), read_only: false };
            match Volume::open_on(&self.dir(), options, Arc::clone(machine) as _) {
                // A thread that had the last reference is still closing it.
                Err(Error::Busy { .. }) => std::thread::yield_now(),
                opened => return opened,
            }
        }
    }
}

/// Commits until it is dropped.
struct Committer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    fn start(volume: &Arc<Volume>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (volume, told) = (Arc::clone(volume), Arc::clone(&stop));
        let work = move || {
            while !told.load(Relaxed) && volume.commit().is_ok() {
                std::thread::yield_now();
            }
        };
        Self { stop, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

pub struct Work<'a> {
    site: &'a Site,
    pub machine: Arc<Machine>,
    env: Env,
    commits: Commits,
    committer: Option<Committer>,
    volume: Option<Arc<Volume>>,
    random: SeededRandom,
    /// After every change, beginning with what was there.
    pub states: Vec<Arc<State>>,
    /// The state of the last operation that promised to be durable.
    pub floor: usize,
    /// The state after the operation that failed, should it have been done.
    pub pending: Option<Arc<State>>,
    /// An operation that commits is under way.
    pub committing: bool,
    /// What was done, for the message of a failure.
    pub log: Vec<String>,
    shard_added: bool,
}

type Entry = (Ino, Vec<u8>, Ino);

fn arrival_of(data: &[u8]) -> Arrival {
    Arrival {
        kind: FileKind::Regular,
        perm: 0o600,
        uid: 3,
        gid: 4,
        rdev: 0,
        size: data.len() as u64,
        atime: TIME,
        mtime: TIME,
        target: Box::default(),
        xattrs: Vec::new(),
        mark: None,
    }
}

fn import(
    volume: &Arc<Volume>,
    spot: &Spot,
    arrival: &Arrival,
    data: &[u8],
    large: bool,
) -> Result<Placed> {
    if large {
        let mut file = volume.import_large(spot, arrival, &data[..data.len().min(100)])?;
        let (first, second) = data.split_at(data.len() / 2);
        for (part, more) in [(first, true), (second, false)] {
            let mut buffer = file.buffer();
            buffer.extend_from_slice(part);
            file.take(buffer, more)?;
        }
        return file.finish(spot, arrival, None);
    }
    let (spot, arrival, data) = (spot.clone(), arrival.clone(), data.to_vec());
    let small = SmallFile { spot, arrival, data, existing: None };
    volume.import_small(vec![small])?.pop().expect("an answer for each")
}

impl<'a> Work<'a> {
    /// Takes over an open volume that holds `state`.
    pub fn new(
        site: &'a Site,
        machine: Arc<Machine>,
        commits: Commits,
        seed: u64,
        volume: Arc<Volume>,
        state: Arc<State>,
    ) -> Self {
        let mut work = Self {
            site,
            machine,
            env: volume.env().clone(),
            commits,
            committer: None,
            volume: None,
            random: SeededRandom::new(seed),
            states: vec![state],
            floor: 0,
            pending: None,
            committing: false,
            log: Vec::new(),
            shard_added: false,
        };
        work.shard_added = volume.shard_list().is_ok_and(|shards| shards.len() > 1);
        work.take(volume);
        work
    }

    fn take(&mut self, volume: Arc<Volume>) {
        self.committer = (self.commits == Commits::Always).then(|| Committer::start(&volume));
        self.volume = Some(volume);
    }

    /// Stops without a last commit.
    pub fn crash(&mut self) {
        self.committer = None;
        self.volume = None;
    }

    pub fn volume(&self) -> &Arc<Volume> {
        self.volume.as_ref().expect("open")
    }

    pub fn last(&self) -> &Arc<State> {
        self.states.last().expect("there is always a first")
    }

    fn tree(&self) -> &Tree {
        &self.last().live.tree
    }

    /// Does one change for real and in the model. `touched` are inodes whose attributes change.
    fn change<T>(
        &mut self,
        what: String,
        touched: &[Ino],
        real: impl FnOnce(&Arc<Volume>) -> Result<T>,
        model: impl FnOnce(&mut State, Option<&T>, &mut Vec<Ino>),
    ) -> Result<T> {
        self.log.push(what);
        let mut next = State::clone(self.last());
        let mut touched = touched.to_vec();
        let done = real(self.volume());
        model(&mut next, done.as_ref().ok(), &mut touched);
        if done.is_ok() {
            next.note(self.volume(), &touched);
            self.states.push(Arc::new(next));
        } else {
            touched.iter().for_each(|ino| drop(next.live.seen.remove(ino)));
            self.pending = Some(Arc::new(next));
        }
        done
    }

    /// Does something that is durable when it returns.
    fn durably<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.committing = true;
        let done = work(self)?;
        self.committing = false;
        self.floor = self.states.len() - 1;
        Ok(done)
    }

    // ---- choosing

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    fn pick<T: Clone>(&self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.below(list.len())].clone())
    }

    fn dir(&self) -> Ino {
        self.pick(&self.tree().named(Node::is_dir)).expect("the root is always there")
    }

    /// An entry whose inode is of this kind.
    fn entry(&self, kind: FileKind) -> Option<Entry> {
        let tree = self.tree();
        let mut all = Vec::new();
        for dir in tree.named(Node::is_dir) {
            let entries = tree.node(dir).entries.iter();
            all.extend(entries.map(|(name, ino)| (dir, name.clone(), *ino)));
        }
        all.retain(|(_, _, ino)| tree.node(*ino).kind == kind);
        self.pick(&all)
    }

    fn free_place(&self) -> Option<(Ino, &'static [u8])> {
        let (dir, name) = (self.dir(), NAMES[self.below(NAMES.len())]);
        self.tree().entry(dir, name).is_none().then_some((dir, name))
    }

    fn bytes(&self) -> Vec<u8> {
        let len = [1, 100, 4096, 5000, 12_288, 20_000][self.below(6)] + self.below(3);
        let seed = self.random.below(40);
        match self.below(5) {
            0 => text_bytes(seed, len),
            1 => [vec![0; 32_768], random_bytes(seed, 100)].concat(),
            _ => random_bytes(seed, len),
        }
    }

    // ---- operations

    /// One operation, chosen by the seed.
    pub fn step(&mut self, number: usize) -> Result<()> {
        match number {
            // Some must come, and not at the end.
            3 | 9 | 21 => return self.fsync(),
            12 | 30 => return self.snapshot_create(),
            17 => return self.shard_add(),
            26 | 45 => return self.large_removal(),
            28 | 50 => return self.gc(),
            38 => return self.snapshot_rename(),
            42 | 62 => return self.snapshot_delete(),
            35 => return self.reopen(),
            _ => {}
        }
        match self.below(38) {
            0..=4 => self.create(),
            5..=9 => self.overwrite(),
            10..=12 => self.replace_by_rename(),
            13 | 14 => self.truncate(),
            15 | 16 => self.unlink(),
            17 => self.mkdir(),
            18 => self.rmdir(),
            19 | 20 => self.rename(),
            21 => self.link_or_symlink(),
            22 | 23 => self.attributes(),
            24 | 25 => self.copy_range(),
            26 => self.punch(),
            27 => self.finish(),
            28 | 29 => self.fsync(),
            30 => self.snapshot_create(),
            31 => self.snapshot_delete(),
            32 => self.gc(),
            33 => self.large_removal(),
            _ => self.import(),
        }
    }

    fn make(&mut self, dir: Ino, name: &[u8], kind: FileKind, target: &[u8]) -> Result<Ino> {
        let new = NewInode { kind, perm: 0o640, uid: 1, gid: 2, rdev: 0, target, xattrs: vec![] };
        let what = format!("make {kind:?} {:?} in {dir}", String::from_utf8_lossy(name));
        let made = self.change(
            what,
            &[dir],
            |volume| volume.make(dir, name, &new),
            |state, stat, touched| {
                if let Some(stat) = stat {
                    let node = Node::new(kind, dir, target);
                    state.live.tree.insert(dir, name, stat.ino, node);
                    touched.push(stat.ino);
                }
            },
        )?;
        Ok(made.ino)
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.change(
            format!("write {} bytes at {offset} of {ino}", data.len()),
            &[ino],
            |volume| volume.open_file(At::Live, ino)?.write(offset, data),
            |state, _, _| state.live.tree.node_mut(ino).write(offset, data),
        )
    }

    fn create(&mut self) -> Result<()> {
        let Some((dir, name)) = self.free_place() else { return Ok(()) };
        let ino = self.make(dir, name, FileKind::Regular, b"")?;
        let data = self.bytes();
        self.write(ino, 0, &data)
    }

    /// A whole file from outside, in one change or piece by piece; also over one that is there.
    fn import(&mut self) -> Result<()> {
        let over = if self.below(2) == 0 { self.entry(FileKind::Regular) } else { None };
        let free = || self.free_place().map(|(dir, name)| (dir, name.to_vec()));
        let replaces = over.is_some();
        let mut touched: Vec<Ino> = over.iter().map(|(_, _, ino)| *ino).collect();
        let Some((dir, name)) = over.map(|(dir, name, _)| (dir, name)).or_else(free) else {
            return Ok(());
        };
        touched.push(dir);
        let (data, large) = (self.bytes(), self.below(2) == 0);
        let spot = Spot { parent: dir, name: name.clone().into() };
        let arrival = arrival_of(&data);
        self.change(
            format!("import {} bytes, large: {large}, over: {replaces}", data.len()),
            &touched,
            |volume| import(volume, &spot, &arrival, &data, large),
            |state, placed, touched| {
                let Some(placed) = placed else { return };
                let tree = &mut state.live.tree;
                if replaces {
                    tree.unlink(dir, &name, &|_| false).expect("it is there");
                }
                let mut node = Node::new(FileKind::Regular, dir, b"");
                (node.perm, node.uid, node.gid) = (arrival.perm, arrival.uid, arrival.gid);
                node.content = Arc::new(data.clone());
                tree.insert(dir, &name, placed.ino, node);
                touched.push(placed.ino);
            },
        )?;
        Ok(())
    }

    fn overwrite(&mut self) -> Result<()> {
        let Some((_, _, ino)) = self.entry(FileKind::Regular) else { return self.create() };
        let size = self.tree().node(ino).size();
        let at = if self.below(2) == 0 { size } else { self.random.below(size + 1) };
        let data = self.bytes();
        self.write(ino, at, &data)
    }

    /// What rsync does: a new file under another name, then a rename over the old one, no fsync.
    fn replace_by_rename(&mut self) -> Result<()> {
        let Some((dir, name, _)) = self.entry(FileKind::Regular) else { return self.create() };
        let temp = [b".", &name[..], b".Xy12Z9"].concat();
        if self.tree().entry(dir, &temp).is_some() {
            return Ok(());
        }
        let ino = self.make(dir, &temp, FileKind::Regular, b"")?;
        let data = self.bytes();
        self.write(ino, 0, &data)?;
        self.rename_to((dir, temp), (dir, name), RenameMode::Replace)
    }

    fn truncate(&mut self) -> Result<()> {
        let Some((_, _, ino)) = self.entry(FileKind::Regular) else { return Ok(()) };
        let size = self.random.below(2 * self.tree().node(ino).size() + 1);
        self.change(
            format!("truncate {ino} to {size}"),
            &[ino],
            |volume| {
                let change = AttrChange { size: Some(size), ..AttrChange::default() };
                volume.set_attributes(ino, &change)
            },
            |state, _, _| state.live.tree.node_mut(ino).resize(size),
        )?;
        Ok(())
    }

    fn unlink(&mut self) -> Result<()> {
        let Some((dir, name, ino)) = self.entry(FileKind::Regular) else { return Ok(()) };
        self.unlink_at(dir, &name, ino)
    }

    fn unlink_at(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<()> {
        self.change(
            format!("unlink {ino}"),
            &[dir, ino],
            |volume| volume.unlink(dir, name),
            |state, _, _| state.live.tree.unlink(dir, name, &|_| false).expect("it is there"),
        )
    }

    fn mkdir(&mut self) -> Result<()> {
        let Some((dir, name)) = self.free_place() else { return Ok(()) };
        self.make(dir, name, FileKind::Directory, b"").map(drop)
    }

    fn rmdir(&mut self) -> Result<()> {
        let Some((dir, name, ino)) = self.entry(FileKind::Directory) else { return self.mkdir() };
        if !self.tree().node(ino).entries.is_empty() {
            return Ok(());
        }
        self.change(
            format!("rmdir {ino}"),
            &[dir, ino],
            |volume| volume.rmdir(dir, &name).map(drop),
            |state, _, _| state.live.tree.rmdir(dir, &name).expect("it is empty"),
        )
    }

    fn rename(&mut self) -> Result<()> {
        let kind = [FileKind::Regular, FileKind::Directory][self.below(2)];
        let Some((dir, name, _)) = self.entry(kind) else { return Ok(()) };
        let to = (self.dir(), NAMES[self.below(NAMES.len())].to_vec());
        let mode = [RenameMode::Replace, RenameMode::Exchange][self.below(2)];
        let tried = self.tree().clone().rename((dir, &name), (to.0, &to.1), mode, &|_| false);
        if tried.is_err() {
            return Ok(());
        }
        self.rename_to((dir, name), to, mode)
    }

    fn rename_to(
        &mut self,
        from: (Ino, Vec<u8>),
        to: (Ino, Vec<u8>),
        mode: RenameMode,
    ) -> Result<()> {
        let tree = self.tree();
        let inodes = [tree.entry(from.0, &from.1), tree.entry(to.0, &to.1)];
        let touched: Vec<Ino> =
            [from.0, to.0].into_iter().chain(inodes.into_iter().flatten()).collect();
        let (from, to) = ((from.0, &from.1[..]), (to.0, &to.1[..]));
        self.change(
            format!("rename {from:?} to {to:?} {mode:?}"),
            &touched,
            |volume| volume.rename(from, to, mode),
            |state, _, _| state.live.tree.rename(from, to, mode, &|_| false).expect("tried before"),
        )
    }

    fn link_or_symlink(&mut self) -> Result<()> {
        let Some((dir, name)) = self.free_place() else { return Ok(()) };
        let Some((_, _, ino)) = self.entry(FileKind::Regular) else {
            return self.make(dir, name, FileKind::Symlink, b"target").map(drop);
        };
        self.change(
            format!("link {ino} into {dir}"),
            &[dir, ino],
            |volume| volume.link(ino, dir, name),
            |state, _, _| state.live.tree.link(ino, dir, name).expect("the place is free"),
        )?;
        Ok(())
    }

    fn attributes(&mut self) -> Result<()> {
        let ino = self.pick(&self.tree().named(|_| true)).expect("the root");
        let perm = u16::try_from(self.below(0o1000)).unwrap();
        let (name, value) = (XATTRS[self.below(2)], random_bytes(self.random.next(), 9));
        self.change(
            format!("attributes of {ino}"),
            &[ino],
            |volume| {
                let mtime = Some(SetTime::At(TIME));
                let xattrs = vec![(name.to_vec(), Some(value.clone()))];
                let change =
                    AttrChange { perm: Some(perm), mtime, xattrs, ..AttrChange::default() };
                volume.set_attributes(ino, &change)
            },
            |state, _, _| {
                let node = state.live.tree.node_mut(ino);
                node.perm = perm;
                node.xattrs.insert(name.to_vec(), value.clone());
            },
        )?;
        let Some(other) = self.tree().node(ino).xattrs.keys().next().cloned() else {
            return Ok(());
        };
        if self.below(2) == 0 {
            return self.change(
                format!("remove xattr of {ino}"),
                &[ino],
                |volume| volume.remove_xattr(ino, &other),
                |state, _, _| drop(state.live.tree.node_mut(ino).xattrs.remove(&other)),
            );
        }
        self.change(
            format!("set xattr of {ino}"),
            &[ino],
            |volume| volume.set_xattr(ino, &other, b"new", XattrMode::Replace),
            |state, _, _| {
                state.live.tree.node_mut(ino).xattrs.insert(other.clone(), b"new".to_vec());
            },
        )
    }

    fn copy_range(&mut self) -> Result<()> {
        let (Some((_, _, from)), Some((_, _, to))) =
            (self.entry(FileKind::Regular), self.entry(FileKind::Regular))
        else {
            return Ok(());
        };
        let content = Arc::clone(&self.tree().node(from).content);
        let len = content.len() as u64;
        if from == to || len == 0 {
            return Ok(());
        }
        let at = self.random.below(20_000);
        self.change(
            format!("copy {len} bytes of {from} to {at} of {to}"),
            &[to],
            |volume| {
                let source = volume.open_file(At::Live, from)?;
                volume.open_file(At::Live, to)?.copy_from(at, &source, 0, len)
            },
            |state, _, _| state.live.tree.node_mut(to).write(at, &content),
        )?;
        Ok(())
    }

    fn punch(&mut self) -> Result<()> {
        let Some((_, _, ino)) = self.entry(FileKind::Regular) else { return Ok(()) };
        let (at, len) = (self.random.below(20_000), 1 + self.random.below(2000));
        self.change(
            format!("punch {len} bytes at {at} of {ino}"),
            &[ino],
            |volume| volume.open_file(At::Live, ino)?.punch(at, len, true),
            |state, _, _| state.live.tree.node_mut(ino).punch(at, len, true),
        )
    }

    /// The last writer closes a file.
    fn finish(&mut self) -> Result<()> {
        let Some((_, _, ino)) = self.entry(FileKind::Regular) else { return Ok(()) };
        self.change(
            format!("finish {ino}"),
            &[],
            |volume| volume.open_file(At::Live, ino)?.finish(),
            |_, _, _| {},
        )
    }

    /// A file with more extents than a change removes, cut, written again and unlinked.
    fn large_removal(&mut self) -> Result<()> {
        let Some((dir, name)) = self.free_place() else { return Ok(()) };
        let ino = self.make(dir, name, FileKind::Regular, b"")?;
        let data = random_bytes(self.random.below(9), 90_000);
        self.write(ino, 0, &data)?;
        self.fsync()?;
        if self.below(2) == 0 {
            self.change(
                format!("cut {ino}"),
                &[ino],
                |volume| {
                    let change = AttrChange { size: Some(5000), ..AttrChange::default() };
                    volume.set_attributes(ino, &change)
                },
                |state, _, _| state.live.tree.node_mut(ino).resize(5000),
            )?;
            self.write(ino, 20_000, b"behind the old tail")?;
        }
        self.unlink_at(dir, name, ino)
    }

    // ---- operations that commit

    /// Also the retry of whatever failed.
    pub fn fsync(&mut self) -> Result<()> {
        self.log.push("fsync".into());
        self.durably(|work| work.volume().commit())
    }

    fn snapshot_create(&mut self) -> Result<()> {
        let name = SNAPSHOTS[self.below(SNAPSHOTS.len())];
        if self.last().snapshots.contains_key(name) {
            return Ok(());
        }
        self.durably(|work| {
            work.change(
                format!("snapshot {name:?}"),
                &[],
                |volume| volume.snapshot_create(name),
                |state, _, _| {
                    let image = Arc::new(state.live.clone());
                    state.snapshots.insert(name.to_vec(), image);
                },
            )
        })?;
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        self.pick(&self.last().snapshots.keys().cloned().collect::<Vec<_>>())
    }

    fn snapshot_rename(&mut self) -> Result<()> {
        let Some(old) = self.snapshot() else { return Ok(()) };
        let new = SNAPSHOTS[self.below(SNAPSHOTS.len())];
        if self.last().snapshots.contains_key(new) {
            return Ok(());
        }
        self.durably(|work| {
            work.change(
                format!("snapshot {old:?} becomes {new:?}"),
                &[],
                |volume| volume.snapshot_rename(&old, new),
                |state, _, _| {
                    let image = state.snapshots.remove(&old).expect("picked from it");
                    state.snapshots.insert(new.to_vec(), image);
                },
            )
        })
    }

    fn snapshot_delete(&mut self) -> Result<()> {
        let Some(name) = self.snapshot() else { return Ok(()) };
        self.durably(|work| {
            work.change(
                format!("snapshot {name:?} goes"),
                &[],
                |volume| volume.snapshot_delete(&name),
                |state, _, _| drop(state.snapshots.remove(&name)),
            )
        })
    }

    pub fn gc(&mut self) -> Result<()> {
        self.log.push("gc".into());
        self.durably(|work| gc::run(work.volume()).map(drop))
    }

    fn shard_add(&mut self) -> Result<()> {
        if self.shard_added {
            return Ok(());
        }
        self.log.push("shard add".into());
        let path = self.site.temp.path().join("extra");
        self.durably(|work| work.volume().shard_add(&path, "extra", 1))?;
        self.shard_added = true;
        Ok(())
    }

    fn reopen(&mut self) -> Result<()> {
        self.log.push("shut down and open".into());
        self.committer = None;
        self.durably(|work| work.volume.take().expect("open").shutdown())?;
        let opened = self.site.open(&self.machine, &self.env)?;
        self.take(opened);
        Ok(())
    }

    /// Shuts down for good.
    pub fn close(&mut self) -> Result<()> {
        self.log.push("shut down".into());
        self.committer = None;
        self.durably(|work| work.volume.take().expect("open").shutdown())
    }

    pub fn is_open(&self) -> bool {
        self.volume.is_some()
    }
}
