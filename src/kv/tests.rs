//! The contract of [`Kv`], run over every implementation, and what only RocksDB can show.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tempfile::TempDir;

use super::{
    Batch, KeyRange, Kv, KvUsage, MemoryKv, Order, RocksKv, RocksOptions, Rows, Table, successor,
};
use crate::env::Power;
use crate::error::{Error, Result};

/// A database that takes its directory with it.
struct TempRocks {
    kv: RocksKv,
    _dir: TempDir,
}

impl Kv for TempRocks {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.kv.get(table, key)
    }
    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        self.kv.scan(table, range, order)
    }
    fn write(&self, batch: Batch) -> Result<()> {
        self.kv.write(batch)
    }
    fn usage(&self) -> KvUsage {
        self.kv.usage()
    }
    fn snapshot(&self) -> Box<dyn Kv + '_> {
        self.kv.snapshot()
    }
}

fn rocks() -> Box<dyn Kv> {
    let dir = TempDir::new().unwrap();
    Box::new(TempRocks { kv: create(dir.path()), _dir: dir })
}

fn create(path: &std::path::Path) -> RocksKv {
    RocksKv::open(path, &RocksOptions { create: true, ..RocksOptions::default() }).unwrap()
}

/// Everything [`Kv`] promises.
fn kv_contract(make: impl Fn() -> Box<dyn Kv>) {
    rows_come_back_and_go(&*make());
    tables_are_apart(&*make());
    a_batch_is_one_and_its_last_word_wins(&*make());
    scans_keep_their_bounds(&*make());
    scans_survive_edge_keys(&*make());
    a_scan_sees_one_state(&*make());
    a_snapshot_sees_one_state_and_stays_out(&*make());
    parts_are_one_batch(&*make());
    readers_never_see_half_a_batch(&*make());
}

/// A batch that the power cut meets is there as a whole or not at all; one after it is not.
#[test]
fn memory_loses_no_batch_but_the_one_under_way() {
    let power = Power::default();
    let kv = MemoryKv::new().after_power_cut(false, power.clone());
    let batch = |key: &[u8]| {
        let mut batch = Batch::default();
        batch.put(Table::Inode, key, &b"1"[..]);
        batch.put(Table::Super, key, &b"2"[..]);
        batch
    };
    kv.write(batch(b"kept")).unwrap();
    power.cut();
    assert!(!kv.was_interrupted());
    for key in [b"last", b"late"] {
        assert!(kv.write(batch(key)).is_err());
    }
    assert!(kv.was_interrupted() && kv.get(Table::Inode, b"kept").is_err());
    assert!(kv.scan(Table::Inode, &KeyRange::all(), Order::Forward).all(|row| row.is_err()));
    for arrived in [false, true] {
        let after = kv.after_power_cut(arrived, Power::default());
        for table in [Table::Inode, Table::Super] {
            let has = |key: &[u8]| after.get(table, key).unwrap().is_some();
            assert_eq!((has(b"kept"), has(b"last"), has(b"late")), (true, arrived, false));
        }
    }
}

#[test]
fn memory_keeps_the_contract() {
    kv_contract(|| Box::new(MemoryKv::new()));
}

#[test]
fn rocks_keeps_the_contract() {
    kv_contract(rocks);
}

fn put(kv: &dyn Kv, table: Table, rows: &[(&[u8], &[u8])]) {
    let mut batch = Batch::default();
    for (key, value) in rows {
        batch.put(table, *key, *value);
    }
    kv.write(batch).unwrap();
}

fn keys(kv: &dyn Kv, table: Table, range: &KeyRange, order: Order) -> Vec<Vec<u8>> {
    kv.scan(table, range, order).map(|row| row.unwrap().0.into_vec()).collect()
}

fn range(lower: &[u8], upper: &[u8]) -> KeyRange {
    KeyRange { lower: lower.to_vec(), upper: Some(upper.to_vec()) }
}

fn rows_come_back_and_go(kv: &dyn Kv) {
    assert_eq!(kv.get(Table::Inode, b"a").unwrap(), None);
    put(kv, Table::Inode, &[(b"a", b"1"), (b"b", b"")]);
    assert_eq!(kv.get(Table::Inode, b"a").unwrap().unwrap(), b"1");
    assert_eq!(kv.get(Table::Inode, b"b").unwrap().unwrap(), b"", "empty is not missing");
    put(kv, Table::Inode, &[(b"a", b"2")]);
    assert_eq!(kv.get(Table::Inode, b"a").unwrap().unwrap(), b"2");
    let mut batch = Batch::default();
    batch.delete(Table::Inode, *b"a");
    batch.delete(Table::Inode, *b"never there");
    kv.write(batch).unwrap();
    assert_eq!(kv.get(Table::Inode, b"a").unwrap(), None);
    assert_eq!(keys(kv, Table::Inode, &KeyRange::all(), Order::Forward), [b"b".to_vec()]);
    kv.write(Batch::default()).unwrap();
    assert!(kv.usage().memory_bytes > 0);
}

fn tables_are_apart(kv: &dyn Kv) {
    let mut batch = Batch::default();
    for table in Table::ALL {
        batch.put(table, *b"key", table.name().as_bytes());
    }
    kv.write(batch).unwrap();
    for table in Table::ALL {
        assert_eq!(kv.get(table, b"key").unwrap().unwrap(), table.name().as_bytes());
        assert_eq!(keys(kv, table, &KeyRange::all(), Order::Backward).len(), 1);
    }
}

fn a_batch_is_one_and_its_last_word_wins(kv: &dyn Kv) {
    put(kv, Table::Super, &[(b"gone", b"x")]);
    let mut batch = Batch::default();
    batch.put(Table::Super, *b"k", *b"first");
    batch.put(Table::Super, *b"k", *b"second");
    batch.put(Table::Super, *b"taken back", *b"x");
    batch.delete(Table::Super, *b"taken back");
    batch.delete(Table::Super, *b"gone");
    batch.put(Table::Super, *b"gone", *b"again");
    kv.write(batch).unwrap();
    assert_eq!(kv.get(Table::Super, b"k").unwrap().unwrap(), b"second");
    assert_eq!(kv.get(Table::Super, b"taken back").unwrap(), None);
    assert_eq!(kv.get(Table::Super, b"gone").unwrap().unwrap(), b"again");
}

fn scans_keep_their_bounds(kv: &dyn Kv) {
    put(kv, Table::Extent, &[(b"a", b"1"), (b"b", b"2"), (b"ba", b"3"), (b"c", b"4")]);
    let cases: [(KeyRange, &[&[u8]]); 10] = [
        (KeyRange::all(), &[b"a", b"b", b"ba", b"c"]),
        (range(b"a", b"c"), &[b"a", b"b", b"ba"]),
        (range(b"b", b"b\0"), &[b"b"]),
        (range(b"aa", b"bb"), &[b"b", b"ba"]),
        (range(b"c", b"c"), &[]),
        (range(b"c", b"a"), &[]),
        (range(b"d", b"e"), &[]),
        (KeyRange::prefix(b"b"), &[b"b", b"ba"]),
        (KeyRange::prefix(b""), &[b"a", b"b", b"ba", b"c"]),
        (KeyRange { lower: b"b".to_vec(), upper: None }, &[b"b", b"ba", b"c"]),
    ];
    for (range, expected) in cases {
        let mut expected: Vec<Vec<u8>> = expected.iter().map(|key| key.to_vec()).collect();
        assert_eq!(keys(kv, Table::Extent, &range, Order::Forward), expected, "{range:?}");
        expected.reverse();
        assert_eq!(keys(kv, Table::Extent, &range, Order::Backward), expected, "{range:?}");
    }
    let row = kv.scan(Table::Extent, &KeyRange::all(), Order::Backward).next().unwrap().unwrap();
    assert_eq!((&*row.0, &*row.1), (&b"c"[..], &b"4"[..]));
}

fn scans_survive_edge_keys(kv: &dyn Kv) {
    let all: [&[u8]; 6] = [b"", b"\0", b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\0"];
    for key in all {
        put(kv, Table::History, &[(key, b"v")]);
    }
    let got = keys(kv, Table::History, &KeyRange::all(), Order::Forward);
    assert_eq!(got, all.map(<[u8]>::to_vec));
    let got = keys(kv, Table::History, &KeyRange::prefix(b"\xff"), Order::Backward);
    assert_eq!(got, [b"\xff\xff\0".to_vec(), b"\xff\xff".to_vec(), b"\xff".to_vec()]);
    let got = keys(kv, Table::History, &KeyRange::prefix(b"\xfe\xff"), Order::Forward);
    assert_eq!(got, [b"\xfe\xff".to_vec()]);
}

fn a_scan_sees_one_state(kv: &dyn Kv) {
    put(kv, Table::Dirent, &[(b"a", b"old"), (b"b", b"old"), (b"c", b"old")]);
    let mut rows = kv.scan(Table::Dirent, &KeyRange::all(), Order::Forward);
    assert_eq!(&*rows.next().unwrap().unwrap().0, b"a");
    let mut batch = Batch::default();
    batch.delete(Table::Dirent, *b"b");
    batch.put(Table::Dirent, *b"bb", *b"new");
    batch.put(Table::Dirent, *b"c", *b"new");
    kv.write(batch).unwrap();
    let rest: Vec<_> = rows.map(|row| row.unwrap()).collect();
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest.iter().all(|(_, value)| &**value == b"old"), "{rest:?}");
}

/// A writer gives all rows of a batch the same value; readers must never see two values.
fn readers_never_see_half_a_batch(kv: &dyn Kv) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..100_u8 {
                let mut batch = Batch::default();
                for key in 0..20_u8 {
                    batch.put(Table::Chunk, [key], [round]);
                }
                kv.write(batch).unwrap();
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let rows = kv.scan(Table::Chunk, &KeyRange::all(), Order::Forward);
            let values: Vec<_> = rows.map(|row| row.unwrap().1).collect();
            assert!(values.is_empty() || values.len() == 20, "{}", values.len());
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        }
    });
}

#[test]
fn successor_skips_what_cannot_grow() {
    assert_eq!(successor(b"a").unwrap(), b"b");
    assert_eq!(successor(b"a\xff\xff").unwrap(), b"b");
    assert_eq!(successor(b"\x00").unwrap(), b"\x01");
    assert_eq!(successor(b"\xff\xff"), None);
    assert_eq!(successor(b""), None);
}

/// What was written is there after reopening, without any flush in between.
#[test]
fn rocks_keeps_data_across_reopening() {
    let dir = TempDir::new().unwrap();
    for round in 0..3_u8 {
        let kv = create(dir.path());
        for earlier in 0..round {
            assert_eq!(kv.get(Table::Inode, &[earlier]).unwrap().unwrap(), [earlier]);
        }
        put(&kv, Table::Inode, &[(&[round], &[round])]);
    }
    let kv = RocksKv::open(dir.path(), &RocksOptions::default()).unwrap();
    assert_eq!(keys(&kv, Table::Inode, &KeyRange::all(), Order::Forward).len(), 3);
}

#[test]
fn rocks_refuses_to_invent_a_database() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("meta");
    let error = RocksKv::open(&missing, &RocksOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::NotAVolume { what } if what.contains("meta")), "{error}");
    assert!(!missing.exists(), "a refused open leaves nothing behind");
}

#[test]
fn rocks_opens_only_once() {
    let dir = TempDir::new().unwrap();
    let _first = create(dir.path());
    let error = RocksKv::open(dir.path(), &RocksOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
}

#[test]
fn rocks_refuses_tables_it_does_not_know() {
    let dir = TempDir::new().unwrap();
    drop(create(dir.path()));
    let names = Table::ALL.iter().map(|table| table.name()).chain(["default"]);
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path(), names).unwrap();
    db.create_cf("from_the_future", &rocksdb::Options::default()).unwrap();
    drop(db);
    let error = RocksKv::open(dir.path(), &RocksOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Unknown { what } if what.contains("from_the_future")),
        "{error:?}"
    );
}

#[test]
fn rocks_names_the_damaged_database() {
    let dir = TempDir::new().unwrap();
    drop(create(dir.path()));
    let manifest = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("MANIFEST"))
        .unwrap();
    let mut bytes = std::fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&manifest, bytes).unwrap();
    let error = RocksKv::open(dir.path(), &RocksOptions::default()).unwrap_err();
    let place = dir.path().display().to_string();
    assert!(
        matches!(&error, Error::Corrupt { object, .. } if object.contains(&place)),
        "{error:?}"
    );
}

fn a_snapshot_sees_one_state_and_stays_out(kv: &dyn Kv) {
    let put = |kv: &dyn Kv, value: &[u8]| {
        let mut batch = Batch::default();
        batch.put(Table::Inode, &b"k"[..], value);
        kv.write(batch)
    };
    put(kv, b"old").unwrap();
    let before = kv.snapshot();
    put(kv, b"new").unwrap();
    assert_eq!(before.get(Table::Inode, b"k").unwrap().unwrap(), b"old");
    let rows: Vec<_> = before
        .scan(Table::Inode, &KeyRange::all(), Order::Forward)
        .map(|row| row.unwrap().1)
        .collect();
    assert_eq!(rows, [Box::from(&b"old"[..])]);
    // Refused, or written to a copy: the tables never see it.
    let _ = put(&*before, b"lost");
    assert_eq!(kv.get(Table::Inode, b"k").unwrap().unwrap(), b"new");
}

/// What stats calls metadata is what lies on the disk, also while tables are only in the log.
#[test]
fn usage_counts_the_log() {
    let dir = TempDir::new().unwrap();
    let kv = create(dir.path());
    let before = kv.usage().disk_bytes;
    let mut batch = Batch::default();
    batch.put(Table::Inode, &b"k"[..], vec![7; 100_000]);
    kv.write(batch).unwrap();
    assert!(kv.usage().disk_bytes >= before + 100_000);
}

/// Several parts are one batch, and later ones win.
fn parts_are_one_batch(kv: &dyn Kv) {
    let (mut first, mut second) = (Batch::default(), Batch::default());
    first.put(Table::Inode, &b"a"[..], &b"1"[..]);
    first.put(Table::Inode, &b"b"[..], &b"1"[..]);
    second.delete(Table::Inode, &b"a"[..]);
    second.put(Table::Inode, &b"b"[..], &b"2"[..]);
    kv.write_parts(&[&first, &second]).unwrap();
    assert_eq!(kv.get(Table::Inode, b"a").unwrap(), None);
    assert_eq!(kv.get(Table::Inode, b"b").unwrap().unwrap(), b"2");
    kv.write_parts(&[]).unwrap();
}

/// However fast batches come, memtables never have more than their bound: a write waits for room.
#[test]
fn memtables_stay_within_their_bound() {
    const BOUND: usize = 8 << 20;
    let dir = TempDir::new().unwrap();
    let options =
        RocksOptions { create: true, write_buffer_bytes: BOUND, ..RocksOptions::default() };
    let kv = RocksKv::open(dir.path(), &options).unwrap();
    let mut most = 0;
    for round in 0..60_u64 {
        let mut batch = Batch::default();
        for number in 0..10_000_u64 {
            let key = (round * 10_000 + number).to_be_bytes();
            let table = [Table::Chunk, Table::Extent, Table::Inode][(number % 3) as usize];
            batch.put(table, key, vec![number as u8; 80]);
        }
        kv.write(batch).unwrap();
        let now = kv.usage().write_buffer_bytes;
        assert!(now <= BOUND as u64, "{now} bytes after batch {round}");
        most = now.max(most);
    }
    assert!(most > BOUND as u64 / 4, "only {most} bytes were used");
    assert_eq!(keys(&kv, Table::Inode, &KeyRange::all(), Order::Forward).len(), 60 * 3333);
}

#[test]
fn sorted_rows_are_loaded_as_a_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let kv = create(dir.path());
    put(&kv, Table::Chunk, &[(b"a", b"old"), (b"z", b"old")]);
    let tables = [Table::Chunk, Table::Extent];
    kv.load_sorted(&tables, |sink| {
        for key in [b"a", b"b", b"c"] {
            sink(Table::Chunk, key, b"new")?;
            sink(Table::Extent, key, b"new")?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(keys(&kv, Table::Chunk, &KeyRange::all(), Order::Forward).len(), 4);
    assert_eq!(kv.get(Table::Chunk, b"a").unwrap().unwrap(), b"new");
    assert_eq!(kv.get(Table::Extent, b"c").unwrap().unwrap(), b"new");
    let disorder = kv.load_sorted(&tables, |sink| {
        sink(Table::Chunk, b"y", b"never")?;
        sink(Table::Chunk, b"x", b"never")
    });
    assert!(matches!(disorder, Err(Error::Kv { op: "load", .. })), "{disorder:?}");
    let foreign = kv.load_sorted(&tables, |sink| sink(Table::Super, b"y", b"never"));
    assert!(matches!(foreign, Err(Error::Invalid { .. })), "{foreign:?}");
    drop(kv);
    let kv = create(dir.path());
    assert_eq!(kv.get(Table::Chunk, b"y").unwrap(), None);
    assert_eq!(kv.get(Table::Chunk, b"b").unwrap().unwrap(), b"new");
    let left = std::fs::read_dir(dir.path()).unwrap();
    let left = left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("load"));
    assert_eq!(left.count(), 0);
}

/// A lookup asks every file on level 0: a table that was loaded must not be a heap of them.
#[test]
fn loaded_files_are_merged_at_once_with_rows_that_were_there() {
    let dir = TempDir::new().unwrap();
    let kv = create(dir.path());
    for round in 0..10_u8 {
        kv.load_sorted(&[Table::Fingerprint], |sink| {
            [b"a", b"m", b"z"].iter().try_for_each(|key| sink(Table::Fingerprint, *key, &[round]))
        })
        .unwrap();
        assert!(kv.files_on_level_0(Table::Fingerprint) < 4, "after {round}");
        assert_eq!(kv.get(Table::Fingerprint, b"m").unwrap().unwrap(), [round]);
    }
}
