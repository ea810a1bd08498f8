//! Differences at the volume's own door: what `model/differences.rs` cannot show.

use std::sync::atomic::{AtomicU64, Ordering};

use stratafs::diff::{Change, Depth, Difference, compare};
use stratafs::kv::{Batch, KeyRange, Kv, KvUsage, Order, RocksKv, RocksOptions, Rows, Table};
use stratafs::types::{At, Epoch, FileKind, Ino, Timestamp};
use stratafs::volume::{AttrChange, SetTime, TreeState};

use crate::testkit::{TestVolume, random_bytes};

/// Counts the rows that are read.
struct Counting {
    kv: RocksKv,
    rows: AtomicU64,
}

impl Counting {
    fn of(t: &TestVolume) -> Self {
        let kv = RocksKv::open(&t.volume_dir().join("meta"), &RocksOptions::default()).unwrap();
        Self { kv, rows: AtomicU64::new(0) }
    }

    fn read_by(&self, work: impl FnOnce()) -> u64 {
        self.rows.store(0, Ordering::Relaxed);
        work();
        self.rows.load(Ordering::Relaxed)
    }
}

impl Kv for Counting {
    fn get(&self, table: Table, key: &[u8]) -> stratafs::error::Result<Option<Vec<u8>>> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.kv.get(table, key)
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        let rows = self.kv.scan(table, range, order);
        Box::new(rows.inspect(|_| {
            self.rows.fetch_add(1, Ordering::Relaxed);
        }))
    }

    fn write(&self, batch: Batch) -> stratafs::error::Result<()> {
        self.kv.write(batch)
    }

    fn usage(&self) -> KvUsage {
        self.kv.usage()
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        self.kv.snapshot()
    }
}

fn differences(kv: &dyn Kv, from: At, to: At) -> Vec<(Change, String)> {
    let mut found = Vec::new();
    compare(kv, from, to, Depth::Full, &mut |one: Difference| {
        found.push((one.change, String::from_utf8(one.path).unwrap()));
        Ok(())
    })
    .unwrap();
    found.sort();
    found
}

fn told(t: &TestVolume, from: &TreeState, to: &TreeState, depth: Depth) -> Vec<String> {
    let mut found = Vec::new();
    t.compare(from, to, depth, &mut |one: Difference| {
        let path = String::from_utf8(one.path).unwrap();
        found.push(match (one.change, one.old_path) {
            (Change::Added, _) => format!("+ {path}"),
            (Change::Removed, _) => format!("- {path}"),
            (Change::Changed, _) => format!("M {path}"),
            (Change::Renamed, old) => {
                format!("R {} {path}", String::from_utf8(old.unwrap()).unwrap())
            }
        });
        Ok(())
    })
    .unwrap();
    found.sort();
    found
}

fn set_mtime(t: &TestVolume, path: &str) {
    let time = Timestamp { secs: 5, nanos: 6 };
    let change = AttrChange { mtime: Some(SetTime::At(time)), ..AttrChange::default() };
    t.set_attributes(t.ino(path), &change).unwrap();
}

/// What is read for some changes does not depend on how many files there are.
#[test]
fn work_is_as_much_as_what_changed() {
    let mut counted = Vec::new();
    for files in [20_u64, 20_000] {
        let mut t = TestVolume::new();
        t.mkdir("/d");
        t.mkdir("/e");
        for n in 0..files {
            t.create(&format!("/d/{n}"));
        }
        t.write_file("/d/x", &random_bytes(1, 5000));
        let taken = t.snapshot_create(b"s").unwrap();
        t.open("/d/x").write(0, b"changed in place").unwrap();
        t.move_to("/d/7", "/e/seven");
        t.remove("/d/8");
        t.write_file("/e/new", b"new");
        let later = t.snapshot_create(b"later").unwrap();
        t.move_to("/e", "/f");
        t.commit().unwrap();
        t.close();
        let kv = Counting::of(&t);
        let at = At::Epoch(taken.epoch);
        let rows = kv.read_by(|| {
            let found = differences(&kv, at, At::Epoch(later.epoch));
            let expected = [
                (Change::Added, "e/new"),
                (Change::Removed, "d/8"),
                (Change::Changed, "d/x"),
                (Change::Renamed, "e/seven"),
            ];
            assert_eq!(found, expected.map(|(change, path)| (change, path.to_owned())));
        });
        let rows_live = kv.read_by(|| assert_eq!(differences(&kv, At::Live, at).len(), 5));
        let none = kv.read_by(|| {
            let epoch = Epoch(later.epoch.0);
            assert!(differences(&kv, At::Epoch(epoch), At::Epoch(epoch)).is_empty());
        });
        counted.push([rows, rows_live, none]);
    }
    // A lookup of what is gone steps over one row more where there are neighbours.
    let [few, many] = counted[..] else { unreachable!() };
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few + 40 && many < 300, "{few} rows read for few files, {many} for many");
    }
}

/// Each key once, however many snapshots lie between.
#[test]
fn many_epochs_tell_each_difference_once() {
    let t = TestVolume::new();
    t.write_file("/a", b"0");
    let first = t.snapshot_create(b"first").unwrap();
    for n in 0..20 {
        t.open("/a").write(0, format!("{n}").as_bytes()).unwrap();
        t.write_file(&format!("/new{n}"), b"x");
        t.snapshot_create(format!("s{n}").as_bytes()).unwrap();
        if n % 3 == 0 {
            t.remove(&format!("/new{n}"));
        }
    }
    let found = told(&t, &TreeState::Snapshot(first), &TreeState::Live, Depth::Full);
    let mut expected: Vec<String> =
        (0..20).filter(|n| n % 3 != 0).map(|n| format!("+ new{n}")).collect();
    expected.push("M a".to_owned());
    expected.sort();
    assert_eq!(found, expected);
}

/// What is told of a directory as a whole (SEMANTICS §4.21).
#[test]
fn tops_are_told_without_what_is_below() {
    let t = TestVolume::new();
    t.mkdir("/gone");
    t.mkdir("/gone/deep");
    t.write_file("/gone/deep/a", b"a");
    t.write_file("/moves", b"m");
    t.mkdir("/stays");
    let taken = TreeState::Snapshot(t.snapshot_create(b"s").unwrap());
    t.remove("/gone/deep/a");
    t.rmdir(t.ino("/gone"), b"deep").unwrap();
    t.rmdir(Ino::ROOT, b"gone").unwrap();
    t.mkdir("/new");
    t.mkdir("/new/deep");
    t.write_file("/new/deep/b", b"b");
    t.write_file("/stays/c", b"c");
    t.move_to("/moves", "/new/deep/moved");
    let found = told(&t, &taken, &TreeState::Live, Depth::Tops);
    assert_eq!(found, ["+ new", "+ stays/c", "- gone", "R moves new/deep/moved"]);
    let found = told(&t, &taken, &TreeState::Live, Depth::Full);
    assert_eq!(found.len(), 4 + 4);
}

/// The hint where a name is may be in vain: then all names are looked through.
#[test]
fn a_file_whose_newest_name_is_gone_is_still_named() {
    let t = TestVolume::new();
    t.mkdir("/d");
    for n in 0..50 {
        t.create(&format!("/d/{n}"));
    }
    let ino = t.ino("/d/7");
    t.link(ino, Ino::ROOT, b"later").unwrap();
    t.unlink(Ino::ROOT, b"later").unwrap();
    let taken = TreeState::Snapshot(t.snapshot_create(b"s").unwrap());
    t.open("/d/7").write(0, b"x").unwrap();
    assert_eq!(told(&t, &taken, &TreeState::Live, Depth::Full), ["M d/7"]);
    t.move_to("/d/7", "/d/8");
    assert_eq!(told(&t, &taken, &TreeState::Live, Depth::Full), ["- d/8", "R d/7 d/8"]);
    t.make_kind("/d/7", FileKind::Fifo, "");
    let found = told(&t, &TreeState::Live, &taken, Depth::Full);
    assert_eq!(found, ["+ d/8", "- d/7", "R d/8 d/7"]);
}

/// rsync writes a file beside the old one and renames it over: that is a change, also in a
/// directory that was made anew, and with hard links (SEMANTICS §4.21).
#[test]
fn a_replaced_file_is_one_that_changed() {
    let t = TestVolume::new();
    t.mkdir("/d");
    t.write_file("/d/a", b"old");
    t.write_file("/d/same", b"same");
    t.write_file("/l1", b"linked");
    t.link(t.ino("/l1"), Ino::ROOT, b"l2").unwrap();
    let taken = TreeState::Snapshot(t.snapshot_create(b"s").unwrap());
    t.write_file("/d/.a.Ab12", b"new");
    t.move_to("/d/.a.Ab12", "/d/a");
    t.write_file("/.l1", b"new");
    t.move_to("/.l1", "/l1");
    assert_eq!(told(&t, &taken, &TreeState::Live, Depth::Full), ["M d/a", "M l1"]);
    t.move_to("/d", "/old");
    t.mkdir("/d");
    t.write_file("/d/a", b"newest");
    t.move_to("/old/same", "/d/same");
    t.remove("/old/a");
    t.rmdir(Ino::ROOT, b"old").unwrap();
    assert_eq!(told(&t, &taken, &TreeState::Live, Depth::Full), ["M d/a", "M l1"]);
}

/// SEMANTICS §4.22
#[test]
fn what_shows_nobody_a_difference_is_none() {
    let t = TestVolume::new();
    t.mkdir("/d");
    let data = random_bytes(1, 100_000);
    t.write_file("/d/a", &data);
    set_mtime(&t, "/d/a");
    let taken = TreeState::Snapshot(t.snapshot_create(b"s").unwrap());
    // Other times of the directory and of the inode, other bytes and the old ones again.
    t.write_file("/d/b", b"b");
    t.remove("/d/b");
    t.open("/d/a").write(0, b"changed").unwrap();
    t.open("/d/a").write(0, &data).unwrap();
    set_mtime(&t, "/d/a");
    assert_eq!(told(&t, &taken, &TreeState::Live, Depth::Full), [""; 0]);
    t.link(t.ino("/d/a"), Ino::ROOT, b"newest").unwrap();
    t.open("/d/a").write(0, b"changed").unwrap();
    let found = told(&t, &taken, &TreeState::Live, Depth::Full);
    assert_eq!(found, ["+ newest", "M newest"]);
}

#[test]
fn a_deleted_snapshot_is_not_compared() {
    let t = TestVolume::new();
    let taken = TreeState::Snapshot(t.snapshot_create(b"s").unwrap());
    t.snapshot_delete(b"s").unwrap();
    let refused = t.compare(&taken, &TreeState::Live, Depth::Full, &mut |_| Ok(()));
    assert!(refused.unwrap_err().to_string().contains("snapshot s"));
}
