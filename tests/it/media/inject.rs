//! Every kind of call fails once, or from then on: what was promised stays, and nothing is made up.
//!
//! A small workload runs on a real mount; in each run one call of one class fails with EIO or
//! ENOSPC below the volume directory. `STRATAFS_INJECT_ALL=1` fails every call that a clean run
//! makes, otherwise an even sample.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::log::{Event, mark, read};
use super::shim::{CLASSES, Fault, Shim};
use super::traced::Traced;
use super::tree::{Entry, State, Tree, open, problems, state_of};
use crate::testkit::{KIB, NO_BACKGROUND_COMMITS, Ran, random_bytes, run_with, stratafs};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
/// Calls of each class that fail, while it mounts and later, unless all are asked for.
const SAMPLES: [usize; 2] = [2, 6];

/// What the workload did, by its own book. Files whose names begin with a dot are left out: a
/// write to them may have failed half-way.
#[derive(Default)]
struct Book {
    /// The live tree after each change that succeeded.
    history: Vec<Tree>,
    /// The one that a call which promises something has confirmed.
    promised: usize,
    /// Trees of the snapshots whose making was confirmed, and of those that may be there.
    snapshots: BTreeMap<String, Tree>,
    maybe: BTreeMap<String, Tree>,
    errors: Vec<i32>,
    /// Commands of ours that failed.
    refused: Vec<Ran>,
}

impl Book {
    fn new() -> Self {
        let tree = Tree::from([("/old.bin".to_owned(), Entry::file(&old_bytes()))]);
        Self { history: vec![tree], ..Self::default() }
    }

    fn tree(&self) -> Tree {
        self.history.last().expect("it begins with one").clone()
    }

    /// Notes how a call ended; true if it did what it should.
    fn call<T>(&mut self, result: std::io::Result<T>) -> bool {
        match result {
            Ok(_) => true,
            Err(error) => {
                self.errors.push(error.raw_os_error().expect("from the system"));
                false
            }
        }
    }

    fn changed(&mut self, path: &str, entry: Option<Entry>) {
        let mut tree = self.tree();
        match entry {
            Some(entry) => tree.insert(path.to_owned(), entry),
            None => tree.remove(path),
        };
        self.history.push(tree);
    }

    fn put(&mut self, m: &Traced, name: &str, seed: u64, len: usize) {
        let bytes = random_bytes(seed, len);
        let temp = m.path(&format!(".{name}.Ab12Cd"));
        if self.call(fs::write(&temp, &bytes)) && self.call(fs::rename(&temp, m.path(name))) {
            self.changed(&format!("/{name}"), Some(Entry::file(&bytes)));
        }
    }

    fn append(&mut self, m: &Traced, name: &str, before: Vec<u8>, more: &[u8]) {
        let Ok(mut file) = File::options().append(true).open(m.path(name)) else { return };
        if self.call(file.write_all(more)) {
            let bytes = [before, more.to_vec()].concat();
            self.changed(&format!("/{name}"), Some(Entry::file(&bytes)));
        }
        self.promise(file.sync_data());
    }

    fn remove(&mut self, m: &Traced, name: &str) {
        if self.call(fs::remove_file(m.path(name))) {
            self.changed(&format!("/{name}"), None);
        }
    }

    fn promise(&mut self, done: std::io::Result<()>) {
        if self.call(done) {
            self.promised = self.history.len() - 1;
        }
    }

    fn sync(&mut self, m: &Traced) {
        self.promise(File::open(m.path("")).and_then(|root| root.sync_all()));
    }

    fn snapshot(&mut self, m: &Traced, name: &str) {
        self.maybe.insert(name.to_owned(), self.tree());
        let made = fs::create_dir(m.path(".snapshots").join(name));
        if made.is_ok() {
            self.snapshots.insert(name.to_owned(), self.tree());
        }
        self.promise(made);
    }

    fn command(&mut self, ran: Ran) {
        if ran.code != Some(0) {
            self.refused.push(ran);
        }
    }
}

fn old_bytes() -> Vec<u8> {
    random_bytes(77, 100 * KIB)
}

/// Under a second of everything that changes the volume directory.
fn work(volume: &Path, m: &mut Traced, book: &mut Book) -> (Ran, i32) {
    for number in 0..4 {
        book.put(m, &format!("{number}.bin"), number, 90 * KIB);
    }
    book.sync(m);
    book.put(m, "0.bin", 10, 50 * KIB);
    book.put(m, "new.c", 11, 3 * KIB);
    book.snapshot(m, "one");
    for number in 0..3 {
        book.remove(m, &format!("{number}.bin"));
    }
    book.append(m, "3.bin", random_bytes(3, 90 * KIB), &random_bytes(12, 20 * KIB));
    let gone = fs::remove_dir(m.path(".snapshots/one"));
    book.maybe.extend(book.snapshots.remove("one").map(|tree| ("one".to_owned(), tree)));
    book.promise(gone);
    book.snapshot(m, "two");
    book.command(stratafs(&[Path::new("gc"), volume]));
    book.put(m, "last.bin", 13, 200 * KIB);
    let (ran, code) = m.umount();
    if ran.code == Some(0) && code == 0 {
        book.promised = book.history.len() - 1;
    }
    (ran, code)
}

fn status_of(volume: &Path) -> String {
    stratafs(&[Path::new("status"), volume]).stdout
}

/// How many calls of a class a clean run makes.
fn count(events: &[Event], class: &str) -> usize {
    let is = |event: &&Event| match class {
        "write" => matches!(event, Event::Write(..)),
        "fsync" => matches!(event, Event::Sync(_) | Event::SyncData(_)),
        "rename" => matches!(event, Event::Rename(..)),
        "mkdir" => matches!(event, Event::MakeDir(..)),
        "create" => matches!(event, Event::Create(..)),
        "fallocate" => matches!(event, Event::Reserve),
        "unlink" => matches!(event, Event::Remove(_)),
        _ => matches!(event, Event::Length(..)),
    };
    events.iter().filter(is).count()
}

/// The volume that every run begins with: it holds a file, and is closed.
fn template(here: &Path) -> PathBuf {
    let volume = here.join("template");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("config.toml"), NO_BACKGROUND_COMMITS).unwrap();
    stratafs(&[Path::new("init"), &volume]).ok();
    let mut m = Traced::mount(&volume, &here.join("mnt"), None);
    fs::write(m.path("old.bin"), old_bytes()).unwrap();
    m.umount().0.ok();
    volume
}

fn copy_of(template: &Path, to: &Path) -> PathBuf {
    let _ = fs::remove_dir_all(to);
    crate::testkit::run("cp", &["-a", template.to_str().unwrap(), to.to_str().unwrap()]);
    to.to_owned()
}

/// What is wrong with what a run left, if anything.
fn judge(book: &Book, mut found: State) -> Result<(), String> {
    found.live.retain(|path, _| !path.starts_with("/."));
    for tree in found.snapshots.values_mut() {
        tree.retain(|path, _| !path.starts_with("/."));
    }
    if !book.history[book.promised..].contains(&found.live) {
        let newest = State { live: book.tree(), snapshots: found.snapshots.clone() };
        return Err(format!(
            "no tree that may be there; to the newest: {}",
            found.difference(&newest)
        ));
    }
    for (name, tree) in &book.snapshots {
        if found.snapshots.get(name) != Some(tree) {
            return Err(format!("snapshot {name} is not what it was"));
        }
    }
    for (name, tree) in &found.snapshots {
        if book.maybe.get(name) != Some(tree) {
            return Err(format!("snapshot {name} shows what never was"));
        }
    }
    Ok(())
}

/// One run with one fault; an error says what should not have happened.
fn one_run(here: &Path, template: &Path, fault: &Fault) -> Result<(bool, bool), String> {
    let volume = copy_of(template, &here.join("volume"));
    let hit = here.join("hit");
    let _ = fs::remove_file(&hit);
    let mut book = Book::new();
    let shim = Shim::failing(&volume, fault, &hit);
    let mut m = Traced::mount(&volume, &here.join("mnt"), Some(&shim));
    let mut ended = (None, -1);
    if m.is_mounted() {
        let (ran, code) = work(&volume, &mut m, &mut book);
        ended = (ran.code, code);
    } else if m.wait() == 0 {
        return Err("it did not mount and said that all is well".to_owned());
    }
    let said = m.said();
    if m.hung() {
        return Err("it hung".to_owned());
    }
    if said.contains("panicked") || !(0..=11).contains(&m.wait()) {
        return Err(format!("it did not end as it should ({ended:?}): {said}"));
    }
    for ran in &book.refused {
        if !matches!(ran.code, Some(1 | 5 | 10)) {
            return Err(format!("a command ended so: {ran:#?}"));
        }
    }
    let odd: Vec<_> = book.errors.iter().filter(|e| ![EIO, ENOSPC, EROFS].contains(e)).collect();
    // A file that could not be made is missed later on.
    if odd.iter().any(|e| **e != 2) {
        return Err(format!("errors {odd:?} came up: {said}"));
    }
    // What fails for good cannot go unnoticed.
    let quiet = book.errors.is_empty() && ended == (Some(0), 0);
    if quiet && hit.exists() && fault.on && matches!(fault.class, "write" | "fsync") {
        return Err("nobody was told".to_owned());
    }
    let volume = open(&volume, false).map_err(|e| format!("it does not open: {e}"))?;
    let bad = problems(&volume);
    if !bad.is_empty() {
        return Err(format!("check finds {bad:#?}"));
    }
    let found = state_of(&volume).map_err(|e| format!("it does not read: {e}"))?;
    judge(&book, found).map_err(|why| format!("{why}; errors {:?}: {said}", book.errors))?;
    volume.shutdown().map_err(|e| format!("it does not close: {e}"))?;
    Ok((hit.exists(), !book.errors.is_empty()))
}

#[test]
fn any_call_may_fail() {
    let all = std::env::var_os("STRATAFS_INJECT_ALL").is_some();
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    let template = template(&here);
    let log = here.join("log");
    let volume = copy_of(&template, &here.join("volume"));
    let mut book = Book::new();
    let mut m = Traced::mount(&volume, &here.join("mnt"), Some(&Shim::recording(&volume, &log)));
    mark(&log, 0);
    let (ran, code) = work(&volume, &mut m, &mut book);
    assert!(ran.code == Some(0) && code == 0 && book.errors.is_empty(), "{}", m.said());
    let opened = open(&volume, true).unwrap();
    let expected = State { live: book.tree(), snapshots: book.snapshots.clone() };
    assert_eq!(state_of(&opened).unwrap().difference(&expected), "none");
    drop(opened);
    let events = read(&log);
    let ready = events.iter().position(|event| matches!(event, Event::Mark(_))).unwrap();
    let (mut runs, mut hits, mut refusals, mut bad) = (0, 0, 0, Vec::new());
    for class in CLASSES {
        let calls = count(&events, class);
        assert!(calls > 0, "no {class} to fail");
        let before = count(&events[..ready], class);
        let step = |from: usize, to: usize, samples: usize| {
            (from + 1..=to).step_by(if all { 1 } else { (to - from).div_ceil(samples).max(1) })
        };
        let [mounting, later] = SAMPLES;
        for number in step(0, before, mounting).chain(step(before, calls, later)) {
            for (errno, on) in [(EIO, true), (EIO, false), (ENOSPC, true), (ENOSPC, false)] {
                let fault = Fault { class, number, errno, on };
                runs += 1;
                match one_run(&here, &template, &fault) {
                    Ok((hit, refused)) => {
                        hits += usize::from(hit);
                        refusals += usize::from(refused);
                    }
                    Err(why) => bad.push(format!("{fault:?}: {why}")),
                }
            }
        }
    }
    println!("{runs} runs, {hits} met their fault, {refusals} mounted and refused something");
    assert!(bad.is_empty(), "{} of {runs}\n{}", bad.len(), bad.join("\n"));
    assert!(hits * 10 >= runs * 8, "only {hits} of {runs} runs met their fault");
    assert!(refusals * 6 >= runs, "only {refusals} of {runs} runs refused something");
}

/// The first cause is what `status` names, however many failures follow.
#[test]
fn status_names_the_first_cause() {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    let volume = copy_of(&template(&here), &here.join("volume"));
    let hit = here.join("hit");
    let fault = Fault { class: "fsync", number: 60, errno: EIO, on: true };
    let mut m =
        Traced::mount(&volume, &here.join("mnt"), Some(&Shim::failing(&volume, &fault, &hit)));
    assert!(m.is_mounted(), "{}", m.said());
    let mut book = Book::new();
    while !hit.exists() {
        let number = book.history.len() as u64;
        book.put(&m, &format!("{number}.bin"), number, 90 * KIB);
        book.sync(&m);
    }
    assert_eq!(book.errors, [EIO], "the fsync that failed says so");
    let first = status_of(&volume);
    assert!(
        first.contains("stopped accepting writes: ") && first.contains("Input/output"),
        "{first}"
    );
    book.put(&m, "more.bin", 1, 100);
    let again = status_of(&volume);
    let state =
        |text: &str| text.lines().find(|line| line.starts_with("State")).unwrap().to_owned();
    assert_eq!(state(&again), state(&first));
    assert!(fs::read(m.path("old.bin")).unwrap() == old_bytes());
    let (ran, code) = m.umount();
    assert_eq!((ran.code, code), (Some(10), 10), "{ran:#?}");
}

/// `init` with every call of it failing: no volume, and a second try makes one.
#[test]
fn init_survives_failing_calls() {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    for class in CLASSES {
        for (number, errno) in [(1, EIO), (2, ENOSPC), (4, EIO)] {
            let volume = here.join(format!("{class}{number}"));
            fs::create_dir(&volume).unwrap();
            let hit = here.join("hit");
            let fault = Fault { class, number, errno, on: true };
            let shim = Shim::failing(&volume, &fault, &hit);
            let line = ["init", volume.to_str().unwrap()];
            let ran = run_with(&shim.environment(), &line);
            assert!(matches!(ran.code, Some(0 | 1 | 5 | 10)), "{fault:?}: {ran:#?}");
            assert!(errno != ENOSPC || matches!(ran.code, Some(0 | 10)), "{fault:?}: {ran:#?}");
            if ran.code != Some(0) {
                stratafs(&line).ok();
            }
            let opened = open(&volume, false).unwrap();
            assert_eq!(problems(&opened), [""; 0]);
            opened.snapshot_create(b"s").unwrap();
            opened.shutdown().unwrap();
        }
    }
}
