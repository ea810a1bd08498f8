//! Torn and reordered writes: what was not synced may be lost, kept or torn, file by file.
//!
//! The real program works on a mounted volume while the shim writes down every change of the
//! volume directory. From this log many states are made in which a power cut may have left the
//! directory; each must open at once, check clean, and show exactly one commit that is not older
//! than the last promise. `STRATAFS_TORN_STATES` asks for more states, `STRATAFS_TORN_SEED` for
//! those of an earlier run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use stratafs::env::Env;
use stratafs::error::Error;
use stratafs::types::At;
use stratafs::volume::{InitOptions, Volume};
use tempfile::TempDir;

use super::log::{Disk, Event, mark, read};
use super::shim::Shim;
use super::states::{Dice, Style, build};
use super::traced::Traced;
use super::tree::{Entry, State, Tree, open, problems, state_of};
use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, random_bytes, run, run_with, stratafs, text_bytes,
};

const STATES: usize = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What is in the mounted volume, by the test's own book.
#[derive(Clone, Default)]
struct Model {
    dirs: Vec<String>,
    links: BTreeMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
    snapshots: BTreeMap<String, Tree>,
}

impl Model {
    fn tree(&self) -> Tree {
        let dirs = self.dirs.iter().map(|path| (format!("/{path}"), Entry::Dir));
        let links = self.links.iter().map(|(p, to)| (format!("/{p}"), Entry::Link(to.clone())));
        let files = self.files.iter().map(|(p, bytes)| (format!("/{p}"), Entry::file(bytes)));
        dirs.chain(links).chain(files).collect()
    }

    fn state(&self) -> State {
        State { live: self.tree(), snapshots: self.snapshots.clone() }
    }
}

/// A mounted volume, what should be in it, and what was promised when.
struct Work {
    volume: PathBuf,
    shim: Shim,
    log: PathBuf,
    model: Model,
    promised: Vec<State>,
    dice: Dice,
    made: usize,
}

impl Work {
    /// A call that commits: when it has returned, what the model says is promised.
    fn promise(&mut self, call: impl FnOnce()) {
        self.promised.push(self.model.state());
        call();
        mark(&self.log, self.promised.len() - 1);
    }

    fn some_file(&mut self) -> Option<String> {
        let at = self.dice.below(self.model.files.len());
        self.model.files.keys().nth(at).cloned()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [100, 3 * KIB, 20 * KIB, 70 * KIB, 300 * KIB][self.dice.below(5)];
        let seed = self.dice.next() % 50;
        let len = len + self.dice.below(len);
        if self.dice.coin() { random_bytes(seed, len) } else { text_bytes(seed, len) }
    }

    fn new_name(&mut self) -> String {
        self.made += 1;
        let at = self.dice.below(self.model.dirs.len() + 1);
        let dir = self.model.dirs.get(at).map_or(String::new(), |dir| format!("{dir}/"));
        let kind = ["c", "bin", "jpg", "log"][self.dice.below(4)];
        format!("{dir}f{}.{kind}", self.made)
    }

    /// One change that promises nothing.
    fn change(&mut self, m: &Traced) {
        let some = self.some_file();
        match (self.dice.below(9), some) {
            (0, _) => {
                self.made += 1;
                let dir = format!("d{}", self.made);
                fs::create_dir(m.path(&dir)).unwrap();
                self.model.dirs.push(dir);
            }
            (1, _) => {
                let name = format!("{}.l", self.new_name());
                symlink("some/where", m.path(&name)).unwrap();
                self.model.links.insert(name, "some/where".to_owned());
            }
            (2, Some(path)) => {
                fs::remove_file(m.path(&path)).unwrap();
                self.model.files.remove(&path);
            }
            (3, Some(path)) => {
                let data = self.bytes();
                let bytes = self.model.files.get_mut(&path).unwrap();
                let at = self.dice.below(bytes.len() + 1);
                let mut file = File::options().write(true).open(m.path(&path)).unwrap();
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&data).unwrap();
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
            (4, Some(path)) => {
                let bytes = self.model.files.get_mut(&path).unwrap();
                let len = self.dice.below(bytes.len() * 2);
                let file = File::options().write(true).open(m.path(&path)).unwrap();
                file.set_len(len as u64).unwrap();
                bytes.resize(len, 0);
            }
            // As rsync does it, over an old file or as a new one.
            (which, old) => {
                let name = self.new_name();
                let name = if which < 7 { name } else { old.unwrap_or(name) };
                let data = self.bytes();
                let (dir, base) = name.rsplit_once('/').unwrap_or(("", &name));
                let temp = m.path(dir).join(format!(".{base}.Ab12Cd"));
                fs::write(&temp, &data).unwrap();
                fs::rename(&temp, m.path(&name)).unwrap();
                self.model.files.insert(name, data);
            }
        }
    }

    /// A few changes, and a call that makes them durable.
    fn round(&mut self, m: &Traced) {
        for _ in 0..=self.dice.below(5) {
            self.change(m);
        }
        let root = m.path("");
        match (self.dice.below(6), self.some_file()) {
            (0, _) => {
                self.made += 1;
                let name = format!("s{}", self.made);
                self.model.snapshots.insert(name.clone(), self.model.tree());
                self.promise(|| fs::create_dir(root.join(".snapshots").join(name)).unwrap());
            }
            (1, _) if !self.model.snapshots.is_empty() => {
                let at = self.dice.below(self.model.snapshots.len());
                let name = self.model.snapshots.keys().nth(at).unwrap().clone();
                self.model.snapshots.remove(&name);
                self.promise(|| fs::remove_dir(root.join(".snapshots").join(name)).unwrap());
            }
            (2, Some(path)) => {
                let file = File::open(root.join(path)).unwrap();
                self.promise(|| file.sync_all().unwrap());
            }
            (3, Some(path)) => {
                let file = File::options().write(true).open(root.join(path)).unwrap();
                self.promise(|| file.sync_data().unwrap());
            }
            _ => self.promise(|| File::open(&root).unwrap().sync_all().unwrap()),
        }
    }

    /// One of our commands, under the shim.
    fn command(&mut self, words: &[&str], rest: &[&str]) {
        let volume = self.volume.to_str().unwrap().to_owned();
        let line = [words, &[&volume], rest].concat();
        let environment = self.shim.environment();
        self.promise(|| drop(run_with(&environment, &line).ok()));
    }

    /// Mounts, works, unmounts.
    fn session(&mut self, rounds: usize, gc: bool) {
        let volume = self.volume.clone();
        let mut m = Traced::mount(&volume, &volume.with_file_name("mnt"), Some(&self.shim));
        assert!(m.is_mounted(), "{}", m.said());
        for _ in 0..rounds {
            self.round(&m);
        }
        if gc {
            // No snapshot has it, and no other file is of its class: a container dies with it.
            let doomed = random_bytes(self.dice.next(), MIB);
            fs::write(m.path("doomed.iso"), &doomed).unwrap();
            self.model.files.insert("doomed.iso".to_owned(), doomed);
            self.promise(|| File::open(m.path("")).unwrap().sync_all().unwrap());
            fs::remove_file(m.path("doomed.iso")).unwrap();
            self.model.files.remove("doomed.iso");
            self.promise(|| File::open(m.path("")).unwrap().sync_all().unwrap());
            self.promise(|| drop(stratafs(&[Path::new("gc"), &volume]).ok()));
            self.round(&m);
        }
        self.change(&m);
        self.promise(|| {
            let (ran, code) = m.umount();
            ran.ok();
            assert_eq!(code, 0, "{}", m.said());
        });
    }
}

/// An empty directory that is to become a volume, as a disk; who works on it.
fn begin(temp: &Path, seed: u64) -> (Work, Disk) {
    let volume = temp.join("volume");
    let log = temp.join("log");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("config.toml"), NO_BACKGROUND_COMMITS).unwrap();
    let shim = Shim::recording(&volume, &log);
    let disk = Disk::of(&volume);
    let (promised, model) = (Vec::new(), Model::default());
    (Work { volume, shim, log, model, promised, dice: Dice(seed), made: 0 }, disk)
}

/// Replayed to its end, the log must give the directory byte for byte: nothing went past the shim.
fn assert_complete(before: &Disk, events: &[Event], volume: &Path) {
    let mut disk = before.clone();
    events.iter().for_each(|event| disk.play(event));
    let replayed = volume.with_file_name("replayed");
    build(&disk, &replayed, Style::EVERYTHING, &mut Dice(0));
    let (found, expected) = (files_below(&replayed), files_below(volume));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, bytes) in expected {
        assert!(found[&path] == bytes, "{path} was changed past the shim");
    }
    fs::remove_dir_all(replayed).unwrap();
}

fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![(dir.to_owned(), String::new())];
    while let Some((dir, name)) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                dirs.push((entry.path(), name.clone()));
                all.insert(name, Vec::new());
            } else if entry.file_type().unwrap().is_file() {
                all.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    all
}

/// Half of the cuts anywhere behind the first `from` events, half beside a call that orders or
/// names things; in the order of the log.
fn cuts(events: &[Event], from: usize, count: usize, dice: &mut Dice) -> Vec<usize> {
    let orders = |at: &usize| !matches!(events[*at], Event::Write(..) | Event::Reserve);
    let turns: Vec<usize> = (from..events.len()).filter(orders).collect();
    let mut cuts: Vec<usize> = (0..count)
        .map(|number| match number % 2 {
            0 => from + dice.below(events.len() + 1 - from),
            _ => turns[dice.below(turns.len())] + dice.below(2),
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

/// What is wrong with a state, if anything.
fn judge(dir: &Path, allowed: &[State], was_made: bool) -> Result<(), String> {
    let volume = match open(dir, false) {
        Ok(volume) => volume,
        Err(Error::NotAVolume { .. }) if !was_made => {
            Volume::init(dir, &InitOptions { env: Env::system() })
                .map_err(|e| format!("it is no volume, and cannot become one: {e}"))?;
            open(dir, false).map_err(|e| format!("made again, it does not open: {e}"))?
        }
        Err(e) => return Err(format!("it does not open: {e}")),
    };
    let bad = problems(&volume);
    if !bad.is_empty() {
        return Err(format!("check finds {bad:#?}"));
    }
    let state = state_of(&volume).map_err(|e| format!("it does not read: {e}"))?;
    if !allowed.contains(&state) {
        let all: Vec<_> = allowed.iter().map(|one| state.difference(one)).collect();
        return Err(format!("it shows no commit that it may show: {all:#?}"));
    }
    // What was recovered can be worked with, and comes back.
    let before = volume.txg();
    volume.snapshot_create(b"after the crash").map_err(|e| format!("no commit: {e}"))?;
    if volume.txg() <= before {
        return Err("the commit after it does not count".to_owned());
    }
    volume.shutdown().map_err(|e| format!("it does not close: {e}"))?;
    drop(volume);
    let again = open(dir, true).map_err(|e| format!("it does not open a second time: {e}"))?;
    let taken = again.snapshot_named(b"after the crash").ok_or("the snapshot is gone")?;
    again.resolve(At::Epoch(taken.epoch), b"/").map_err(|e| format!("the snapshot: {e}"))?;
    let found = state_of(&again).map_err(|e| format!("opened again, it does not read: {e}"))?;
    if found.live != state.live {
        return Err("it is different when opened again".to_owned());
    }
    Ok(())
}

/// Builds a state for each cut and judges it.
fn sweep(here: &Path, disk: &Disk, log: (&[Event], &[State]), cuts: &[usize], seed: u64) {
    let (events, promised) = log;
    let mut disk = disk.clone();
    let mut dice = Dice(seed ^ 0xdead);
    let (mut played, mut bad) = (0, Vec::new());
    for cut in cuts {
        events[played..*cut].iter().for_each(|event| disk.play(event));
        played = *cut;
        let style = Style::roll(&mut dice);
        let dir = here.join("state");
        build(&disk, &dir, style, &mut dice);
        let first = disk.marked.unwrap_or(0);
        let allowed = &promised[first..promised.len().min(first + 2)];
        if let Err(why) = judge(&dir, allowed, disk.marked.is_some()) {
            let around = &events[cut.saturating_sub(3)..events.len().min(cut + 1)];
            let around: Vec<_> = around.iter().map(|e| short(&format!("{e:?}"))).collect();
            bad.push(format!("cut {cut}, {style:?}, {around:#?}: {why}"));
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    println!("{} calls recorded, {} promises", events.len(), promised.len());
    assert!(bad.is_empty(), "{} of {} states\n{}", bad.len(), cuts.len(), bad.join("\n"));
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

fn seed() -> u64 {
    let seed = number("STRATAFS_TORN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("STRATAFS_TORN_SEED={seed}");
    seed
}

/// The temporary directory, and its name without links.
fn place() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    (temp, here)
}

#[test]
fn any_state_a_power_cut_leaves_is_one_commit() {
    let seed = seed();
    let states = number("STRATAFS_TORN_STATES").map_or(STATES, |n| n as usize);
    let (_temp, here) = place();
    let (mut work, disk) = begin(&here, seed);
    work.command(&["init"], &[]);
    work.session(12, false);
    work.session(12, true);
    work.session(6, true);
    let events = read(&work.log);
    assert_complete(&disk, &events, &work.volume);
    let removed = |kind: &str| {
        let is = |path: &Path| path.extension().is_some_and(|found| found == kind);
        events.iter().any(|event| matches!(event, Event::Remove(path) if is(path)))
    };
    assert!(removed("sfc") && removed("log"), "no container was freed, or no log was replayed");
    let made = events.iter().position(|event| matches!(event, Event::Mark(_))).unwrap();
    let cuts = cuts(&events, made, states, &mut Dice(seed ^ 0xbeef));
    sweep(&here, &disk, (&events, &work.promised), &cuts, seed);
}

/// Cut anywhere, `init` leaves a volume, or a directory that is refused as none and can be given
/// to it again.
#[test]
fn an_interrupted_init_can_be_run_again() {
    let seed = seed();
    let (_temp, here) = place();
    let (mut work, disk) = begin(&here, seed);
    work.command(&["init"], &[]);
    let events = read(&work.log);
    assert_complete(&disk, &events, &work.volume);
    let orders = |at: &usize| !matches!(events[*at], Event::Write(..) | Event::SyncData(_));
    let cuts: Vec<usize> = (0..events.len()).filter(orders).collect();
    sweep(&here, &disk, (&events, &work.promised), &cuts, seed);
}

/// The opening after a power cut is cut itself, and so on: what is there stays the same commit.
#[test]
fn an_interrupted_recovery_can_be_repeated() {
    let seed = seed();
    let mut dice = Dice(seed ^ 0xfeed);
    let (_temp, here) = place();
    let (mut work, mut disk) = begin(&here, seed);
    work.command(&["init"], &[]);
    work.session(10, true);
    let events = read(&work.log);
    let cut = events.len() - 1 - dice.below(events.len() / 2);
    events[..cut].iter().for_each(|event| disk.play(event));
    for round in 0..4 {
        let here = here.join(format!("round{round}"));
        fs::create_dir(&here).unwrap();
        let (volume, log) = (here.join("volume"), here.join("log"));
        build(&disk, &volume, Style::roll(&mut dice), &mut dice);
        // What a first opening finds, found in a copy.
        let copy = here.join("copy");
        run("cp", &["-a", volume.to_str().unwrap(), copy.to_str().unwrap()]);
        let found = state_of(&open(&copy, true).unwrap()).unwrap();
        disk = Disk::of(&volume);
        disk.marked = Some(0);
        (work.volume, work.shim) = (volume.clone(), Shim::recording(&volume, &log));
        (work.log, work.promised) = (log.clone(), vec![found.clone()]);
        let mut model = found.clone();
        let name = format!("round{round}");
        model.snapshots.insert(name.clone(), found.live);
        work.promised.push(model);
        let line = ["snapshot", "create", volume.to_str().unwrap(), &name];
        run_with(&work.shim.environment(), &line).ok();
        mark(&log, 1);
        let events = read(&log);
        let cuts = cuts(&events, 0, 15, &mut dice);
        sweep(&here, &disk, (&events, &work.promised), &cuts, dice.next());
        // The next round goes on from a state in which this opening was cut.
        let cut = dice.below(events.len());
        events[..cut].iter().for_each(|event| disk.play(event));
    }
}

/// What an interrupted `init` leaves is ours; everything else is not.
#[test]
fn init_touches_nothing_of_others() {
    let text = "This directory is becoming a StrataFS volume.";
    for (mark, other) in [("torn", "meta/a"), (text, "shards/a"), ("", "thesis.txt")] {
        let (_temp, here) = place();
        if !mark.is_empty() {
            fs::write(here.join("init.unfinished"), mark).unwrap();
        }
        let other = here.join(other);
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "mine").unwrap();
        stratafs(&[Path::new("init"), &here]).refused(1, &["is not empty"]);
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    }
}

/// Commands that only read leave even what a crash left as it is.
#[test]
fn reading_commands_write_nothing() {
    let (_temp, here) = place();
    let (mut work, _) = begin(&here, 1);
    work.command(&["init"], &[]);
    let volume = work.volume.clone();
    let mut m = Traced::mount(&volume, &here.join("mnt"), None);
    fs::write(m.path("a.bin"), random_bytes(1, 100 * KIB)).unwrap();
    File::open(m.path("")).unwrap().sync_all().unwrap();
    fs::write(m.path("b.bin"), random_bytes(2, 100 * KIB)).unwrap();
    m.kill();
    let containers = volume.join("shards/0/containers");
    fs::create_dir_all(containers.join("77")).unwrap();
    fs::write(containers.join("77/0000000000000077.sfc"), "no row speaks of it").unwrap();
    let first = containers.join("00/0000000000000000.sfc");
    let mut tail = File::options().append(true).open(first).unwrap();
    tail.write_all(b"no commit covers it").unwrap();
    let (log, before) = (here.join("reading"), files_below(&volume));
    let environment = Shim::recording(&volume, &log).environment();
    for words in [&["check", "--read-data"][..], &["status"], &["stats"], &["snapshot", "list"]] {
        let line = [words, &[volume.to_str().unwrap()]].concat();
        run_with(&environment, &line).ok();
    }
    let mut after = files_below(&volume);
    // Its text says who has the volume open, or had.
    after.insert("/lock".to_owned(), before["/lock"].clone());
    assert!(after == before, "something was written");
    let wrote = read(&log).into_iter().filter(|event| !matches!(event, Event::Root(_))).count();
    assert!(wrote <= 8, "{wrote} calls changed something, two for each lock");
    let opened = open(&volume, false).unwrap();
    assert!(!containers.join("77/0000000000000077.sfc").exists(), "writing takes it away");
    assert_eq!(state_of(&opened).unwrap().live.len(), 1);
}
