//! Inconsistencies planted in the tables themselves: `check` finds each and names it.

use stratafs::cursor::put_varint;
use stratafs::error::Error;
use stratafs::kv::{Batch, KeyRange, Kv, Order, RocksKv, RocksOptions, Table};
use stratafs::types::{At, ChunkNo, Cookie, Fingerprint, Ino};

use super::cells::containers;
use super::stage::{Copy, close, original, run_check};

/// The tables of a closed volume, and what the planting needs to know of it.
pub struct Tables {
    pub kv: RocksKv,
    /// An inode with several extents.
    film: u64,
    /// The directory `/src`, and a file in it.
    dir: u64,
    source: u64,
}

type Row = (Vec<u8>, Vec<u8>);

impl Tables {
    pub fn of(copy: &Copy) -> Self {
        let volume = copy.open(true).unwrap();
        let ino = |path: &[u8]| volume.resolve(At::Live, path).unwrap().ino.0;
        let (film, dir, source) = (ino(b"film.mp4"), ino(b"src"), ino(b"src/file1.rs"));
        close(volume);
        let kv = RocksKv::open(&copy.dir.join("meta"), &RocksOptions::default()).unwrap();
        Self { kv, film, dir, source }
    }

    fn rows(&self, table: Table, prefix: &[u8]) -> Vec<Row> {
        let rows = self.kv.scan(table, &KeyRange::prefix(prefix), Order::Forward);
        rows.map(|row| row.unwrap()).map(|(k, v)| (k.into_vec(), v.into_vec())).collect()
    }

    fn row(&self, table: Table, prefix: &[u8]) -> Row {
        self.rows(table, prefix).swap_remove(0)
    }

    pub fn put(&self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        let mut batch = Batch::default();
        batch.put(table, key, value);
        self.kv.write(batch).unwrap();
    }

    fn delete(&self, table: Table, key: &[u8]) {
        let mut batch = Batch::default();
        batch.delete(table, key);
        self.kv.write(batch).unwrap();
    }

    pub fn clear(&self, table: Table) {
        self.rows(table, b"").iter().for_each(|(key, _)| self.delete(table, key));
    }

    /// Changes the varints of a row; those of a value that begins with them.
    fn change(&self, table: Table, key: &[u8], change: impl FnOnce(&mut Vec<u64>)) {
        let value = self.kv.get(table, key).unwrap().unwrap();
        // An inode's numbers end with its home, four bytes, and an empty target.
        let end = value.len() - if table == Table::Inode { 5 } else { 0 };
        let mut numbers = varints(&value[..end]);
        change(&mut numbers);
        self.put(table, key.to_vec(), [&encode(&numbers), &value[end..]].concat());
    }

    /// Changes the varints of a container row, which follow state and class.
    fn change_container(&self, key: &[u8], change: impl FnOnce(&mut Vec<u64>)) {
        let value = self.kv.get(Table::Container, key).unwrap().unwrap();
        let mut numbers = varints(&value[2..]);
        change(&mut numbers);
        let value = [&value[..2], &encode(&numbers)].concat();
        self.put(Table::Container, key.to_vec(), value);
    }

    fn extents(&self) -> Vec<Row> {
        self.rows(Table::Extent, &self.film.to_be_bytes())
    }

    fn dirent_of(&self, ino: u64) -> Row {
        let mut wanted = Vec::new();
        put_varint(&mut wanted, ino);
        let is_meant = |row: &Row| varints(&row.1)[1] == ino;
        self.rows(Table::Dirent, b"").into_iter().find(is_meant).unwrap()
    }

    fn dirent_key(parent: u64, name: &[u8]) -> Vec<u8> {
        [&parent.to_be_bytes()[..], &Cookie::of(name).0.to_be_bytes(), name].concat()
    }

    fn counters(&self, change: impl FnOnce(&mut Vec<u64>)) {
        self.change(Table::Super, b"counters", change);
    }
}

fn varints(bytes: &[u8]) -> Vec<u64> {
    let mut reader = stratafs::cursor::Reader::new(bytes);
    std::iter::from_fn(|| reader.varint()).collect()
}

fn encode(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    numbers.iter().for_each(|number| put_varint(&mut out, *number));
    out
}

/// Place of the field `nlink` in the varints of an inode's row: birth, flags, kind, perm, uid, gid.
const NLINK: usize = 6;

type Plant = (&'static str, fn(&Tables, &Copy), &'static [&'static str]);

/// What is planted, how, and words that a problem must hold.
const PLANTS: &[Plant] = &[
    (
        "an extent to nowhere",
        |t, _| {
            t.change(Table::Extent, &t.extents()[0].0, |n| n[1] = 1 << 30);
        },
        &["refers to", "chunk 1073741824", "which has 0"],
    ),
    (
        "an extent beyond its chunk",
        |t, _| {
            t.change(Table::Extent, &t.extents()[0].0, |n| n[2] += 1);
        },
        &["refers to", "bytes of chunk"],
    ),
    (
        "overlapping extents",
        |t, _| {
            let (key, value) = t.extents().swap_remove(1);
            let at = u64::from_be_bytes(key[8..].try_into().unwrap()) - 1;
            t.delete(Table::Extent, &key);
            t.put(Table::Extent, [&key[..8], &at.to_be_bytes()].concat(), value);
        },
        &["overlap at byte"],
    ),
    (
        "an extent that does not read",
        |t, _| {
            t.put(Table::Extent, t.extents()[0].0.clone(), vec![0xff; 3]);
        },
        &["An extent of inode", "does not read"],
    ),
    (
        "an extent of nobody",
        |t, _| {
            let (_, value) = t.extents().swap_remove(0);
            t.put(Table::Extent, [77_777_u64.to_be_bytes(), [0; 8]].concat(), value);
        },
        &["An extent belongs to inode 77777"],
    ),
    (
        "an extent beyond the end",
        |t, _| {
            let (key, value) = t.extents().pop().unwrap();
            let far = [&key[..8], &(1_u64 << 40).to_be_bytes()].concat();
            t.put(Table::Extent, far, value);
        },
        &["extents beyond its end"],
    ),
    (
        "a missing inode",
        |t, _| t.delete(Table::Inode, &t.source.to_be_bytes()),
        &["names inode", "does not exist"],
    ),
    (
        "an inode that does not read",
        |t, _| {
            t.put(Table::Inode, t.source.to_be_bytes().to_vec(), vec![1, 9, 9]);
        },
        &["Inode", "does not read"],
    ),
    (
        "a wrong link count of a file",
        |t, _| {
            t.change(Table::Inode, &t.source.to_be_bytes(), |n| n[NLINK] = 3);
        },
        &["counts 3 links and has 1 names"],
    ),
    (
        "a wrong link count of a directory",
        |t, _| {
            t.change(Table::Inode, &t.dir.to_be_bytes(), |n| n[NLINK] = 9);
        },
        &["Directory", "wrong link count"],
    ),
    (
        "an entry to nowhere",
        |t, _| {
            let key = Tables::dirent_key(t.dir, b"ghost");
            t.put(Table::Dirent, key, encode(&[2, 55_555, 1]));
        },
        &["names inode 55555, which does not exist"],
    ),
    (
        "an entry in no directory",
        |t, _| {
            let key = Tables::dirent_key(66_666, b"lost");
            t.put(Table::Dirent, key, encode(&[2, t.source, 1]));
        },
        &["directory 66666, which does not exist"],
    ),
    (
        "an entry below a file",
        |t, _| {
            t.put(Table::Dirent, Tables::dirent_key(t.film, b"x"), encode(&[2, t.source, 1]));
        },
        &["has entries and is no directory"],
    ),
    (
        "an entry with another kind",
        |t, _| {
            let (key, _) = t.dirent_of(t.source);
            t.change(Table::Dirent, &key, |n| n[2] = 3);
        },
        &["another kind than its entry says"],
    ),
    (
        "an entry with a wrong cookie",
        |t, _| {
            let (mut key, value) = t.dirent_of(t.source);
            t.delete(Table::Dirent, &key);
            key[15] ^= 1;
            t.put(Table::Dirent, key, value);
        },
        &["wrong cookie"],
    ),
    (
        "an entry that does not read",
        |t, _| {
            t.put(Table::Dirent, t.dirent_of(t.source).0, vec![0x80]);
        },
        &["table dirent does not read"],
    ),
    (
        "a directory with two names",
        |t, _| {
            t.put(Table::Dirent, Tables::dirent_key(1, b"again"), encode(&[2, t.dir, 2]));
        },
        &["Directory", "has 2 names"],
    ),
    (
        "a directory in another one than it says",
        |t, _| {
            let (key, value) = t.dirent_of(t.dir);
            t.delete(Table::Dirent, &key);
            t.put(Table::Dirent, Tables::dirent_key(t.film, b"src"), value);
        },
        &["names a wrong parent"],
    ),
    (
        "a directory at another place than it says",
        |t, _| {
            let key = t.dir.to_be_bytes();
            let mut value = t.kv.get(Table::Inode, &key).unwrap().unwrap();
            let home = value.len() - 2;
            value[home] ^= 1;
            t.put(Table::Inode, key.to_vec(), value);
        },
        &["names a wrong place in its parent"],
    ),
    (
        "a circle of directories",
        |t, _| {
            // `/src` lies in itself; the parent is the last number of its row.
            let (key, value) = t.dirent_of(t.dir);
            t.delete(Table::Dirent, &key);
            t.put(Table::Dirent, Tables::dirent_key(t.dir, b"src"), value);
            t.change(Table::Inode, &t.dir.to_be_bytes(), |n| {
                let parent = n.len() - 1;
                n[parent] = t.dir;
                n[NLINK] += 1;
            });
        },
        &["circle of directories"],
    ),
    (
        "an orphan that nobody removes",
        |t, _| {
            t.delete(Table::Dirent, &t.dirent_of(t.source).0);
            t.change(Table::Inode, &t.source.to_be_bytes(), |n| n[NLINK] = 0);
        },
        &["no name and nobody is to remove it"],
    ),
    (
        "a removal of a file with names",
        |t, _| {
            t.put(Table::Reap, t.source.to_be_bytes().to_vec(), encode(&[0, 1]));
        },
        &["is to be removed and has names"],
    ),
    (
        "a removal of nothing",
        |t, _| {
            t.put(Table::Reap, 44_444_u64.to_be_bytes().to_vec(), encode(&[0, 1]));
        },
        &["Inode 44444 is to be removed and does not exist"],
    ),
    (
        "a removal that does not read",
        |t, _| {
            t.put(Table::Reap, 44_444_u64.to_be_bytes().to_vec(), vec![0, 7]);
        },
        &["table reap does not read"],
    ),
    (
        "a wrong count of mapped bytes",
        |t, _| {
            t.change(Table::Inode, &t.film.to_be_bytes(), |n| n[NLINK + 3] += 1);
        },
        &["mapped bytes and has"],
    ),
    (
        "an attribute of nobody",
        |t, _| {
            let key = [&88_888_u64.to_be_bytes()[..], b"user.x"].concat();
            t.put(Table::Xattr, key, vec![1, b'x']);
        },
        &["An attribute belongs to inode 88888"],
    ),
    (
        "overlapping lives",
        |t, _| {
            let (mut key, value) = t.row(Table::History, b"");
            // Ends one epoch later than the version that is there, born as early.
            *key.last_mut().unwrap() += 1;
            t.put(Table::History, key, value);
        },
        &["overlap"],
    ),
    (
        "a life that ends before it begins",
        |t, _| {
            let (key, mut value) = t.row(Table::History, b"");
            value[0] = 99;
            t.put(Table::History, key, value);
        },
        &["ended before it was born"],
    ),
    (
        "a life that ends in the future",
        |t, _| {
            let (mut key, value) = t.row(Table::History, b"");
            *key.last_mut().unwrap() = 200;
            t.put(Table::History, key, value);
        },
        &["ends in the future"],
    ),
    (
        "an old version that does not read",
        |t, _| {
            let (key, _) = t.row(Table::History, &[Table::Inode.tag()]);
            t.put(Table::History, key, vec![1]);
        },
        &["table history does not read"],
    ),
    (
        "an inode that a snapshot needs",
        |t, _| {
            let gone = t.rows(Table::History, &[Table::Inode.tag()]);
            gone.iter().for_each(|(key, _)| t.delete(Table::History, key));
        },
        &["which the snapshot of epoch 1 does not have"],
    ),
    (
        "a row born in the future",
        |t, _| {
            t.change(Table::Extent, &t.extents()[0].0, |n| n[0] = 77);
        },
        &["An extent of inode", "born in the future"],
    ),
    (
        "a change of nothing",
        |t, _| {
            t.put(Table::Change, vec![0, 0, 0, 0, 0, 0, 0, 1, 99], Vec::new());
        },
        &["table change names no"],
    ),
    (
        "a missing container row",
        |t, _| {
            t.delete(Table::Container, &t.row(Table::Container, b"").0);
        },
        &["lies in container", "which does not exist"],
    ),
    (
        "a container that counts too few chunks",
        |t, _| {
            t.change_container(&t.row(Table::Container, b"").0, |n| n[2] = 0);
        },
        &["Container 0 counts 0 chunks"],
    ),
    (
        "a container that counts too many chunks",
        |t, _| {
            t.change_container(&t.row(Table::Container, b"").0, |n| n[2] += 5);
        },
        &["Container 0 counts", "and holds"],
    ),
    (
        "a container that does not name its chunks",
        |t, _| {
            t.change_container(&t.row(Table::Container, b"").0, |n| n[6] = 0);
        },
        &["which says it has"],
    ),
    (
        "a container row that is too short",
        |t, _| {
            t.change_container(&t.row(Table::Container, b"").0, |n| n[1] = 100);
        },
        &["beyond the end of container 0"],
    ),
    (
        "a fingerprint to another chunk",
        |t, _| {
            let rows = t.rows(Table::Fingerprint, b"");
            t.put(Table::Fingerprint, rows[0].0.clone(), rows[1].1.clone());
        },
        &["leads to chunk", "which has another one"],
    ),
    (
        "a fingerprint to nowhere",
        |t, _| {
            let key = Fingerprint::of(b"no such chunk").0.to_vec();
            t.put(Table::Fingerprint, key, encode(&[0, 999_999]));
        },
        &["leads to chunk 999999, which does not exist"],
    ),
    (
        "a missing fingerprint",
        |t, _| {
            t.delete(Table::Fingerprint, &t.row(Table::Fingerprint, b"").0);
        },
        &["The fingerprint of chunk", "does not lead to it"],
    ),
    (
        "two chunks with one fingerprint",
        |t, _| {
            let (_, value) = t.row(Table::Chunk, b"");
            let free = t.rows(Table::Chunk, b"").pop().unwrap().0;
            t.put(Table::Chunk, free, value);
        },
        &["The fingerprint of chunk", "does not lead to it"],
    ),
    (
        "a chunk row that does not read",
        |t, _| {
            let (key, _) = t.row(Table::Chunk, b"");
            t.put(Table::Chunk, key, vec![0; 4]);
        },
        &["table chunk"],
    ),
    (
        "a next inode number that is too low",
        |t, _| t.counters(|n| n[1] = 3),
        &["next inode number"],
    ),
    (
        "a next snapshot number that is too low",
        |t, _| t.counters(|n| n[2] = 1),
        &["next snapshot number"],
    ),
    ("a wrong count of live bytes", |t, _| t.counters(|n| n[3] += 1), &["live bytes and has"]),
    (
        "a file that is cut",
        |_, copy| {
            let path = containers(&copy.dir).swap_remove(0).path;
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(200).unwrap();
        },
        &["wrong length"],
    ),
    (
        "a file that is longer",
        |_, copy| {
            let sealed = containers(&copy.dir).into_iter().find(|c| c.footer.is_some()).unwrap();
            let file = std::fs::File::options().write(true).open(sealed.path).unwrap();
            file.set_len(sealed.len as u64 + 4096).unwrap();
        },
        &["wrong length"],
    ),
    (
        "a file that nobody names",
        |t, copy| {
            // Its number was given, and its chunks lie nowhere else.
            let path = containers(&copy.dir).swap_remove(0).path;
            let id = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
            t.delete(Table::Container, &id.to_be_bytes());
        },
        &["has no row and holds what files need"],
    ),
    (
        "a file that is missing",
        |_, copy| {
            std::fs::remove_file(containers(&copy.dir).swap_remove(0).path).unwrap();
        },
        &["cannot be opened"],
    ),
];

#[test]
fn check_finds_what_is_planted() {
    let mut missed = Vec::new();
    for (name, plant, words) in PLANTS {
        let copy = Copy::new();
        let tables = Tables::of(&copy);
        plant(&tables, &copy);
        drop(tables);
        let volume = copy.open(true).unwrap_or_else(|e| panic!("{name}: {e}"));
        let report = run_check(&volume).unwrap_or_else(|e| panic!("{name}: {e}"));
        close(volume);
        let names_it = |problem: &String| words.iter().all(|word| problem.contains(word));
        if !report.problems.iter().any(names_it) {
            missed.push(format!("{name}: {:#?}", report.problems));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Numbers that would be given twice are refused by whoever opens the volume.
#[test]
fn numbers_that_would_be_given_twice_are_refused() {
    for (at, table) in [(4, "table chunk"), (5, "table container")] {
        let copy = Copy::new();
        let tables = Tables::of(&copy);
        tables.counters(|n| n[at] = 1);
        drop(tables);
        let refused = copy.open(false).unwrap_err();
        assert_eq!(refused.exit_code(), 5);
        assert!(refused.to_string().contains(table), "{refused}");
        assert!(refused.to_string().contains("rebuild-index"), "{refused}");
    }
}

/// A damaged row costs what it stands for and nothing else.
/// SEMANTICS §5.1: what a damaged row costs.
#[test]
fn a_damaged_row_hurts_only_itself() {
    let copy = Copy::new();
    let tables = Tables::of(&copy);
    let (dirent, _) = tables.dirent_of(tables.source);
    tables.put(Table::Dirent, dirent, vec![0x80]);
    let hurt = tables.rows(Table::Dirent, &tables.dir.to_be_bytes());
    let other = varints(&hurt.iter().find(|row| row.1.len() > 1).unwrap().1)[1];
    tables.put(Table::Inode, other.to_be_bytes().to_vec(), vec![1, 9]);
    let extents = tables.extents();
    tables.put(Table::Extent, extents[1].0.clone(), vec![0xff]);
    tables.put(Table::Reap, 44_444_u64.to_be_bytes().to_vec(), vec![9]);
    let (film, dir) = (Ino(tables.film), Ino(tables.dir));
    drop(tables);

    let volume = copy.open(false).unwrap();
    // All names but the damaged one, then the error.
    let (mut names, mut after) = (0, Cookie(0));
    let end = loop {
        match volume.list(At::Live, dir, after, 7) {
            Ok(rows) if rows.is_empty() => panic!("a damaged entry is passed over in silence"),
            Ok(rows) => {
                names += rows.len();
                after = rows.last().unwrap().cookie;
            }
            Err(e) => break e,
        }
    };
    let in_src = original().live.keys().filter(|path| path.starts_with("/src/")).count();
    assert_eq!(names, in_src - 1);
    assert!(matches!(end, Error::Corrupt { .. }), "{end}");
    // The inode gives an error, the extent only for its range.
    assert!(matches!(volume.stat(At::Live, Ino(other)), Err(Error::Corrupt { .. })));
    let file = volume.open_file(At::Live, film).unwrap();
    let data = &original().live["/film.mp4"];
    let start = |row: &(Vec<u8>, Vec<u8>)| u64::from_be_bytes(row.0[8..].try_into().unwrap());
    let (from, to) = (start(&extents[1]), start(&extents[2]));
    let expect = |from: u64, to: u64| {
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        let read = file.read(from, range.len());
        assert!(read.is_ok_and(|bytes| bytes == data[range]), "{from}..{to}");
    };
    expect(0, from);
    expect(to, to + 1000);
    assert_eq!(file.read(from, 1).unwrap_err().errno(), 5);
    assert_eq!(file.read(to - 1, 1).unwrap_err().errno(), 5);
    drop(file);
    close(volume);
}

/// A snapshot whose record does not read is not forgotten: writing could lose what it needs.
#[test]
fn a_damaged_snapshot_record_leaves_the_volume_readable() {
    let copy = Copy::new();
    let tables = Tables::of(&copy);
    let (key, _) = tables.row(Table::Snapshot, b"");
    tables.put(Table::Snapshot, key, vec![0xff; 4]);
    drop(tables);
    let refused = copy.open(false).unwrap_err();
    assert_eq!(refused.exit_code(), 5);
    assert!(refused.to_string().contains("table snapshot"), "{refused}");
    assert!(refused.to_string().contains("-o ro"), "{refused}");
    let volume = copy.open(true).unwrap();
    for (path, data) in &original().live {
        let ino = volume.resolve(At::Live, path.as_bytes()).unwrap().ino;
        let file = volume.open_file(At::Live, ino).unwrap();
        assert!(file.read(0, data.len()).unwrap() == *data, "{path}");
    }
    assert!(run_check(&volume).unwrap().problems.iter().any(|p| p.contains("table snapshot")));
    close(volume);
}

/// Chunks whose rows were lost are not garbage: gc frees nothing, and says what to do.
#[test]
fn gc_does_not_free_what_lost_its_row() {
    let copy = Copy::new();
    let tables = Tables::of(&copy);
    let chunk = ChunkNo(varints(&tables.extents()[0].1)[1]);
    tables.delete(Table::Chunk, &chunk.0.to_be_bytes());
    drop(tables);
    let before = containers(&copy.dir).len();
    let volume = copy.open(false).unwrap();
    let refused = stratafs::gc::run(&volume).unwrap_err();
    assert!(refused.to_string().contains("rebuild-index"), "{refused}");
    close(volume);
    assert_eq!(containers(&copy.dir).len(), before);
}
