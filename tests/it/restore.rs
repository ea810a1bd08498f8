//! Putting back what a snapshot has, at the volume's door: exact, by reference, whole or not at
//! all. The command is tried in `mounted`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use stratafs::restore::{Host, RestoreOptions, RestoreReport, Target, run};
use stratafs::types::{At, Changed, FileKind, Fingerprint, Ino, Snapshot, Timestamp};
use stratafs::volume::{AttrChange, SetTime, XattrMode};

use crate::testkit::{KIB, MIB, TestVolume, random_bytes, read_all, splitmix64};

fn restore(
    t: &TestVolume,
    from: &Snapshot,
    path: &str,
    target: &Target,
    options: RestoreOptions,
) -> (RestoreReport, Vec<String>) {
    let ino = t.resolve(At::Epoch(from.epoch), path.as_bytes()).unwrap().ino;
    let told = RefCell::new(Vec::new());
    let changed = |what: Changed<'_>| {
        told.borrow_mut().push(match what {
            Changed::Name(dir, name) => format!("{dir}/{}", String::from_utf8_lossy(name)),
            Changed::Inode(ino) => format!("{ino}"),
        });
    };
    let host = Host { changed: &changed, progress: &mut |_| {}, stop: &|| false };
    let report = run(t, (from.epoch, ino), target, options, host).unwrap();
    (report, told.into_inner())
}

fn exactly(t: &TestVolume, from: &Snapshot) -> RestoreReport {
    let options = RestoreOptions { dry_run: false, delete: true };
    restore(t, from, "", &Target::Root, options).0
}

/// Everything about a tree but times of access and of attribute changes.
fn describe(t: &TestVolume, at: At) -> String {
    let mut out = String::new();
    let mut first: BTreeMap<Ino, String> = BTreeMap::new();
    let mut stack = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = stack.pop() {
        let stat = t.stat(at, ino).unwrap();
        let i = &stat.inode;
        let _ = write!(out, "{path} {:?} {:o} {}:{} ", i.kind, i.perm, i.uid, i.gid);
        let _ = write!(out, "{:?} {} {:?}", i.mtime, i.rdev, i.target);
        for name in t.xattr_names(at, ino).unwrap() {
            let _ = write!(out, " {name:?}={:?}", t.xattr(at, ino, &name).unwrap());
        }
        if i.kind == FileKind::Directory {
            let mut names = t.list_all(at, ino);
            names.sort_by(|a, b| b.name.cmp(&a.name));
            for item in names {
                stack.push((format!("{path}/{}", String::from_utf8_lossy(&item.name)), item.ino));
            }
        } else {
            let _ = write!(out, " {} links, as {}", i.nlink, first.entry(ino).or_insert(path));
        }
        if i.kind == FileKind::Regular {
            let content = read_all(&t.open_file(at, ino).unwrap());
            let _ = write!(out, " {} {}", content.len(), Fingerprint::of(&content));
        }
        out.push('\n');
    }
    out
}

fn assert_same(found: &str, expected: &str, what: &str) {
    if found != expected {
        let only = |a: &str, b: &str, sign: char| -> Vec<String> {
            let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
            lines.map(|line| format!("{sign} {line}")).collect()
        };
        let lines = [only(expected, found, '-'), only(found, expected, '+')].concat();
        panic!("{what}:\n{}", lines.join("\n"));
    }
}

/// Random changes of a small tree, many of which meet each other.
struct Chaos(u64);

impl Chaos {
    fn pick(&mut self, below: u64) -> u64 {
        splitmix64(&mut self.0) % below
    }

    fn path(&mut self) -> String {
        let depth = self.pick(3);
        let mut dirs = String::new();
        for _ in 0..depth {
            let _ = write!(dirs, "/d{}", self.pick(3));
        }
        let leaf = self.pick(6);
        if leaf < 2 { format!("{dirs}/d{leaf}") } else { format!("{dirs}/f{leaf}") }
    }

    /// One change, if it is possible where it aims.
    fn change(&mut self, t: &TestVolume) {
        let (path, other) = (self.path(), self.path());
        let (dir, name) = path.rsplit_once('/').unwrap();
        let Ok(dir) = t.resolve(At::Live, dir.as_bytes()) else { return };
        if dir.inode.kind != FileKind::Directory {
            return;
        }
        let (dir, name) = (dir.ino, name.as_bytes());
        let ino = t.lookup(At::Live, dir, name).unwrap().map(|stat| (stat.ino, stat.inode.kind));
        match (self.pick(13), ino) {
            (0..=1, None) => drop(t.mkdir(&path)),
            (2..=3, None) => t.write_file(&path, &self.bytes()),
            (4, None) => drop(t.make_kind(&path, FileKind::Symlink, &other)),
            (5, None) => drop(t.make_kind(&path, FileKind::Fifo, "")),
            (0..=3, Some((ino, FileKind::Regular))) => {
                let file = t.open_file(At::Live, ino).unwrap();
                file.write(self.pick(400_000), &self.bytes()).unwrap();
            }
            (4, Some((ino, FileKind::Regular))) => {
                let size = Some(self.pick(500_000));
                let change = AttrChange { size, ..AttrChange::default() };
                t.set_attributes(ino, &change).unwrap();
            }
            (5, Some((ino, kind))) if kind != FileKind::Directory => {
                let (dir, name) = other.rsplit_once('/').unwrap();
                if let Ok(dir) = t.resolve(At::Live, dir.as_bytes()) {
                    let _ = t.link(ino, dir.ino, name.as_bytes());
                }
            }
            (6, Some((_, FileKind::Directory))) => drop(t.rmdir(dir, name)),
            (6..=7, Some((_, kind))) if kind != FileKind::Directory => {
                t.unlink(dir, name).unwrap();
            }
            (8..=9, Some(_)) => {
                let (to, new) = other.rsplit_once('/').unwrap();
                if let Ok(to) = t.resolve(At::Live, to.as_bytes()) {
                    let mode = stratafs::volume::RenameMode::Replace;
                    let _ = t.rename((dir, name), (to.ino, new.as_bytes()), mode);
                }
            }
            (10, Some((ino, _))) => {
                let secs = i64::try_from(self.pick(1_000_000)).unwrap() - 1000;
                let change = AttrChange {
                    perm: Some([0o644, 0o4755, 0o700][self.pick(3) as usize]),
                    uid: Some(self.pick(3) as u32),
                    mtime: Some(SetTime::At(Timestamp { secs, nanos: 5 })),
                    ..AttrChange::default()
                };
                t.set_attributes(ino, &change).unwrap();
            }
            (11, Some((ino, _))) => {
                let value = [self.pick(250) as u8; 3];
                t.set_xattr(ino, b"user.a", &value, XattrMode::Any).unwrap();
            }
            (12, Some((ino, _))) => drop(t.remove_xattr(ino, b"user.a")),
            _ => {}
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::try_from(self.pick(300_000)).unwrap();
        if self.pick(4) == 0 { vec![0; len] } else { random_bytes(self.pick(20), len) }
    }
}

/// Also what got there by other ways: SEMANTICS §4.24.
#[test]
fn any_tree_comes_back_as_it_was() {
    for seed in 0..12 {
        let t = TestVolume::new();
        let mut chaos = Chaos(seed * 1_000_000);
        (0..120).for_each(|_| chaos.change(&t));
        let taken = t.snapshot_create(b"then").unwrap();
        let then = describe(&t, At::Epoch(taken.epoch));
        for round in 0..3 {
            (0..60).for_each(|_| chaos.change(&t));
            if round == 1 {
                t.snapshot_create(b"between").unwrap();
            }
            let expected = {
                let options = RestoreOptions { dry_run: true, delete: true };
                let before = describe(&t, At::Live);
                let planned = restore(&t, &taken, "", &Target::Root, options).0;
                assert_same(&describe(&t, At::Live), &before, "a dry run changed something");
                planned
            };
            let done = exactly(&t, &taken);
            let what = format!("seed {seed} round {round}");
            assert_same(&describe(&t, At::Live), &then, &what);
            assert_eq!(expected.has_changes(), done.has_changes(), "{what}");
            let again = exactly(&t, &taken);
            assert!(!again.has_changes(), "{what}: {again:#?}");
        }
        assert_same(&describe(&t, At::Epoch(taken.epoch)), &then, "the snapshot itself");
        t.assert_sound();
    }
}

/// Ten GiB of one MiB, over and over: nothing is stored, nothing is read.
#[test]
fn a_large_file_comes_back_without_a_byte_stored() {
    let t = TestVolume::new();
    let file = t.create("/large");
    let piece = random_bytes(1, MIB);
    file.write(0, &piece).unwrap();
    file.finish().unwrap();
    let mut size = MIB as u64;
    while size < 10 << 30 {
        let mut done = 0;
        let source = t.open("/large");
        while done < size {
            let most = (size - done).min(1 << 30);
            done += file.copy_from(size + done, &source, done, most).unwrap();
        }
        size *= 2;
    }
    drop(file);
    let taken = t.snapshot_create(b"s").unwrap();
    t.remove("/large");
    t.commit().unwrap();
    let chunks = t.stats_report().unwrap().chunks;
    let target = Target::Entry { parent: Ino::ROOT, name: (*b"large").into() };
    let counted = t.counting(|| {
        let report = restore(&t, &taken, "large", &target, RestoreOptions::default()).0;
        assert_eq!((report.created, report.file_bytes), (1, size));
    });
    assert_eq!((counted.new_bytes, counted.written_bytes), (0, 0), "{counted:#?}");
    assert_eq!(t.stats_report().unwrap().chunks, chunks);
    let back = t.open("/large");
    assert_eq!(back.stat().unwrap().inode.size, size);
    assert_eq!(back.read(size - MIB as u64, MIB).unwrap(), piece);
    t.assert_sound();
}

/// A copy that never got its name is nobody's after a crash.
#[test]
fn a_crash_leaves_nothing_of_an_unfinished_file() {
    let mut t = TestVolume::new();
    t.write_file("/a", &random_bytes(1, 700 * KIB));
    let taken = t.snapshot_create(b"s").unwrap();
    t.write_file("/b", b"other");
    t.commit().unwrap();
    let before = describe(&t, At::Live);
    let ino = t.ino("/a");
    let copy = t.copy_nameless(taken.epoch, ino).unwrap();
    t.commit().unwrap();
    let number = copy.ino();
    // Dropped first, as its volume could not be closed; but nothing after this is committed.
    drop(copy);
    t.crash();
    assert_same(&describe(&t, At::Live), &before, "after the crash");
    t.assert_sound();
    crate::testkit::wait_until("the reaper has removed it", || t.stat(At::Live, number).is_err());
}

/// Names, directories and inodes that changed are told, so that a kernel can forget them.
#[test]
fn every_change_is_told() {
    let t = TestVolume::new();
    t.mkdir("/d");
    t.write_file("/d/a", b"one");
    t.write_file("/d/same", b"same");
    let taken = t.snapshot_create(b"s").unwrap();
    let dir = t.ino("/d");
    let old = t.ino("/d/a");
    t.remove("/d/a");
    t.write_file("/d/a", b"two");
    t.write_file("/d/new", b"new");
    let replaced = t.ino("/d/a");
    assert_ne!(old, replaced);
    let target = Target::Entry { parent: Ino::ROOT, name: (*b"d").into() };
    let (report, told) = restore(&t, &taken, "d", &target, RestoreOptions::default());
    assert_eq!((report.replaced, report.unchanged, report.deleted), (1, 1, 0));
    for expected in [format!("{dir}/a"), format!("{replaced}"), format!("{dir}"), "1".to_owned()] {
        assert!(told.contains(&expected), "{expected} is missing: {told:?}");
    }
    assert!(!told.contains(&format!("{dir}/same")) && !told.contains(&format!("{dir}/new")));
    t.assert_content("/d/a", b"one");
    t.assert_content("/d/new", b"new");
}

/// SEMANTICS §4.26: what has the file open goes on reading what it had.
#[test]
fn an_open_file_that_is_replaced_stays_what_it_was() {
    let t = TestVolume::new();
    t.write_file("/a", b"one");
    let taken = t.snapshot_create(b"s").unwrap();
    t.remove("/a");
    t.write_file("/a", b"two");
    let open = t.open("/a");
    exactly(&t, &taken);
    assert_eq!(read_all(&open), b"two");
    t.assert_content("/a", b"one");
    drop(open);
    t.assert_sound();
}
