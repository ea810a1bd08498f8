//! Random edits, snapshots, commits and pruning, compared with full copies of a naive tree.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, proptest};
use proptest::{collection, prop_oneof};

use super::{chunk_refs, commit, prune_all, rows, sample_inode, snapshot, take_snapshot};
use crate::kv::{MemoryKv, Table};
use crate::meta::{Meta, View};
use crate::types::{At, ChunkNo, Cookie, Dirent, Epoch, Extent, FileKind, Ino, Inode, SnapshotId};

/// Extents begin at multiples of this; the long ones cover two steps.
const STEP: u64 = 512 * 1024;
const INOS: Range<u64> = 1..4;
/// Names that begin each other, so that keys of different length meet.
const NAMES: [&[u8]; 4] = [b"a", b"a\x01", b"ab", b"b"];

#[derive(Clone, Copy, Debug)]
enum Op {
    PutInode(u64, u64),
    DeleteInode(u64),
    PutDirent(u64, usize, u64),
    DeleteDirent(u64, usize),
    PutExtent(u64, u64, u32, u64),
    DeleteExtent(u64, u64),
    PutXattr(u64, usize, u8),
    DeleteXattr(u64, usize),
    Snapshot,
    DeleteSnapshot(usize),
    RenameSnapshot(usize),
    Pin(usize),
    Unpin(usize),
    Freeze,
    Committed,
    Reopen,
    Prune(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    let len = || prop_oneof![Just(1_u32), Just(STEP as u32), Just(2 * STEP as u32)];
    prop_oneof![
        3 => (INOS, 0..3_u64).prop_map(|(ino, size)| Op::PutInode(ino, size)),
        2 => INOS.prop_map(Op::DeleteInode),
        4 => (INOS, name(), 1..3_u64).prop_map(|(ino, name, to)| Op::PutDirent(ino, name, to)),
        3 => (INOS, name()).prop_map(|(ino, name)| Op::DeleteDirent(ino, name)),
        4 => (INOS, 0..5_u64, len(), 1..3_u64)
            .prop_map(|(ino, step, len, chunk)| Op::PutExtent(ino, step, len, chunk)),
        3 => (INOS, 0..5_u64).prop_map(|(ino, step)| Op::DeleteExtent(ino, step)),
        3 => (INOS, name(), 0..3_u8).prop_map(|(ino, name, v)| Op::PutXattr(ino, name, v)),
        2 => (INOS, name()).prop_map(|(ino, name)| Op::DeleteXattr(ino, name)),
        4 => Just(Op::Snapshot),
        2 => (0..8_usize).prop_map(Op::DeleteSnapshot),
        1 => (0..8_usize).prop_map(Op::RenameSnapshot),
        1 => (0..8_usize).prop_map(Op::Pin),
        1 => (0..8_usize).prop_map(Op::Unpin),
        3 => Just(Op::Freeze),
        3 => Just(Op::Committed),
        1 => Just(Op::Reopen),
        2 => (1..9_usize).prop_map(Op::Prune),
    ]
}

/// The naive tree: everything in maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tree {
    inodes: BTreeMap<u64, Inode>,
    dirents: BTreeMap<(u64, usize), Dirent>,
    extents: BTreeMap<(u64, u64), Extent>,
    xattrs: BTreeMap<(u64, usize), Vec<u8>>,
}

struct Pair {
    kv: Arc<MemoryKv>,
    meta: Meta,
    live: Tree,
    /// By number: name, epoch, copy.
    snapshots: BTreeMap<u32, (String, Epoch, Tree)>,
    pins: Vec<(Epoch, Tree)>,
    next_snapshot: u32,
    frozen: bool,
}

impl Pair {
    fn new() -> Self {
        let kv = Arc::new(MemoryKv::new());
        let meta = Meta::open(kv.clone()).unwrap();
        meta.none_from(Ino(0));
        Self {
            kv,
            meta,
            live: Tree::default(),
            snapshots: BTreeMap::new(),
            pins: Vec::new(),
            next_snapshot: 1,
            frozen: false,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::PutInode(..) | Op::DeleteInode(_) | Op::PutDirent(..) | Op::DeleteDirent(..) => {
                self.apply_name(op);
            }
            Op::PutExtent(..) | Op::DeleteExtent(..) | Op::PutXattr(..) | Op::DeleteXattr(..) => {
                self.apply_data(op);
            }
            Op::Freeze | Op::Committed | Op::Reopen | Op::Prune(_) => self.apply_txg(op),
            _ => self.apply_snapshot(op),
        }
    }

    fn apply_name(&mut self, op: Op) {
        let mut edit = self.meta.edit();
        match op {
            Op::PutInode(ino, size) => {
                edit.put_inode(Ino(ino), &sample_inode(size)).unwrap();
                self.live.inodes.insert(ino, sample_inode(size));
            }
            Op::DeleteInode(ino) => {
                edit.delete_inode(Ino(ino)).unwrap();
                self.live.inodes.remove(&ino);
            }
            Op::PutDirent(parent, name, to) => {
                let dirent = Dirent { ino: Ino(to), kind: FileKind::Regular };
                edit.put_dirent(Ino(parent), NAMES[name], dirent).unwrap();
                self.live.dirents.insert((parent, name), dirent);
            }
            Op::DeleteDirent(parent, name) => {
                edit.delete_dirent(Ino(parent), NAMES[name]).unwrap();
                self.live.dirents.remove(&(parent, name));
            }
            _ => unreachable!("{op:?}"),
        }
    }

    fn apply_data(&mut self, op: Op) {
        let mut edit = self.meta.edit();
        match op {
            Op::PutExtent(ino, step, len, chunk) => {
                let offset = step * STEP;
                let extent = Extent { offset, len, chunk: ChunkNo(chunk), chunk_offset: 0 };
                let overlapped: Vec<u64> = (self.live.extents.values_of(ino))
                    .filter(|old| old.offset < extent.end() && old.end() > offset)
                    .map(|old| old.offset)
                    .collect();
                for old in overlapped.into_iter().filter(|old| *old != offset) {
                    edit.delete_extent(Ino(ino), old).unwrap();
                    self.live.extents.remove(&(ino, old));
                }
                edit.put_extent(Ino(ino), &extent).unwrap();
                self.live.extents.insert((ino, offset), extent);
            }
            Op::DeleteExtent(ino, step) => {
                edit.delete_extent(Ino(ino), step * STEP).unwrap();
                self.live.extents.remove(&(ino, step * STEP));
            }
            Op::PutXattr(ino, name, value) => {
                edit.put_xattr(Ino(ino), NAMES[name], &vec![value; value.into()]).unwrap();
                self.live.xattrs.insert((ino, name), vec![value; value.into()]);
            }
            Op::DeleteXattr(ino, name) => {
                edit.delete_xattr(Ino(ino), NAMES[name]).unwrap();
                self.live.xattrs.remove(&(ino, name));
            }
            _ => unreachable!("{op:?}"),
        }
    }

    fn apply_snapshot(&mut self, op: Op) {
        let pick = |n: usize| self.snapshots.keys().nth(n % self.snapshots.len().max(1)).copied();
        match op {
            Op::Snapshot => {
                let id = self.next_snapshot;
                self.next_snapshot += 1;
                let epoch = take_snapshot(&self.meta, id);
                self.snapshots.insert(id, (format!("s{id}"), epoch, self.live.clone()));
            }
            Op::DeleteSnapshot(n) => {
                if let Some(id) = pick(n) {
                    self.meta.edit().delete_snapshot(SnapshotId(id));
                    self.snapshots.remove(&id);
                }
            }
            Op::RenameSnapshot(n) => {
                if let Some(id) = pick(n) {
                    let row = self.snapshots.get_mut(&id).unwrap();
                    row.0.push('x');
                    self.meta.edit().put_snapshot(&snapshot(id, &row.0, row.1));
                }
            }
            Op::Pin(n) => {
                if let Some(id) = pick(n) {
                    let (_, epoch, tree) = self.snapshots[&id].clone();
                    self.meta.pin(epoch);
                    self.pins.push((epoch, tree));
                }
            }
            Op::Unpin(n) => {
                if !self.pins.is_empty() {
                    let (epoch, _) = self.pins.remove(n % self.pins.len());
                    self.meta.unpin(epoch);
                }
            }
            _ => unreachable!("{op:?}"),
        }
    }

    fn apply_txg(&mut self, op: Op) {
        match op {
            Op::Freeze if !self.frozen => {
                self.meta.freeze();
                self.frozen = true;
            }
            Op::Committed => self.finish_commit(),
            Op::Reopen => {
                self.finish_commit();
                commit(&self.meta, &*self.kv);
                self.meta = Meta::open(self.kv.clone()).unwrap();
                // Pins live in memory; the versions only they needed may go from now on.
                self.pins.clear();
            }
            Op::Prune(piece) => drop(prune_all(&self.meta, piece)),
            _ => {}
        }
    }

    fn finish_commit(&mut self) {
        use crate::kv::Kv;
        if self.frozen {
            self.kv.write(self.meta.frozen_batch()).unwrap();
            self.meta.committed();
            self.frozen = false;
        }
    }

    fn assert_same(&self) {
        let view = self.meta.read();
        assert_same_tree(&view, At::Live, &self.live);
        for (epoch, tree) in &self.pins {
            assert_same_tree(&view, At::Epoch(*epoch), tree);
        }
        let mut rows = Vec::new();
        for (id, (name, epoch, tree)) in &self.snapshots {
            assert_same_tree(&view, At::Epoch(*epoch), tree);
            let row = snapshot(*id, name, *epoch);
            assert_eq!(view.snapshot_named(name.as_bytes()).as_ref(), Some(&row));
            rows.push(row);
        }
        assert_eq!(view.snapshots(), rows);
    }

    /// Without snapshots and pins nothing of the past may be left.
    fn assert_past_goes_away(mut self) {
        self.finish_commit();
        for id in self.snapshots.keys() {
            self.meta.edit().delete_snapshot(SnapshotId(*id));
        }
        for (epoch, _) in &self.pins {
            self.meta.unpin(*epoch);
        }
        commit(&self.meta, &*self.kv);
        prune_all(&self.meta, 3);
        commit(&self.meta, &*self.kv);
        assert_eq!(rows(&*self.kv, Table::History), []);
        assert_eq!(rows(&*self.kv, Table::Change), []);
        let mut live: Vec<_> = self.live.extents.values().map(|extent| extent.chunk).collect();
        let mut chunks = chunk_refs(&self.meta, 5);
        live.sort();
        chunks.sort();
        assert_eq!(chunks, live);
    }
}

trait ValuesOf {
    fn values_of(&self, ino: u64) -> impl Iterator<Item = &Extent>;
}

impl ValuesOf for BTreeMap<(u64, u64), Extent> {
    fn values_of(&self, ino: u64) -> impl Iterator<Item = &Extent> {
        self.range((ino, 0)..(ino + 1, 0)).map(|(_, extent)| extent)
    }
}

/// Every question a view answers about a tree.
fn assert_same_tree(view: &View<'_>, at: At, tree: &Tree) {
    let all: Vec<_> = tree.inodes.iter().map(|(ino, inode)| (Ino(*ino), inode.clone())).collect();
    assert_eq!(view.inodes(at, Ino(0), 99).unwrap(), all, "{at:?}");
    for ino in INOS {
        let id = Ino(ino);
        assert_eq!(view.inode(at, id).unwrap().as_ref(), tree.inodes.get(&ino), "{at:?} {ino}");
        assert_same_entries(view, at, ino, tree);
        assert_same_extents(view, at, ino, tree);
        let mut names = Vec::new();
        for (n, name) in NAMES.iter().enumerate() {
            let value = tree.xattrs.get(&(ino, n));
            assert_eq!(view.xattr(at, id, name).unwrap().as_ref(), value, "{at:?} {ino} {n}");
            if value.is_some() {
                names.push(Box::from(*name));
            }
        }
        assert_eq!(view.xattr_names(at, id).unwrap(), names, "{at:?} {ino}");
    }
}

fn assert_same_entries(view: &View<'_>, at: At, ino: u64, tree: &Tree) {
    let id = Ino(ino);
    let mut all = Vec::new();
    for (n, name) in NAMES.iter().enumerate() {
        let dirent = tree.dirents.get(&(ino, n)).copied();
        assert_eq!(view.dirent(at, id, name).unwrap(), dirent, "{at:?} {ino} {n}");
        all.extend(dirent.map(|dirent| (Cookie::of(name), Box::from(*name), dirent)));
    }
    all.sort_by_key(|entry| entry.0);
    assert_eq!(view.has_dirents(at, id).unwrap(), !all.is_empty());
    assert_eq!(view.dirents(at, id, Cookie(0), 99).unwrap(), all, "{at:?} {ino}");
    // The same in pieces of one.
    let (mut after, mut pieces) = (Cookie(0), Vec::new());
    while let Some(entry) = view.dirents(at, id, after, 1).unwrap().pop() {
        after = entry.0;
        pieces.push(entry);
    }
    assert_eq!(pieces, all, "{at:?} {ino}");
}

fn assert_same_extents(view: &View<'_>, at: At, ino: u64, tree: &Tree) {
    let ranges = [(0, 7), (0, 1), (1, 2), (2, 4), (3, 7)];
    let edges = ranges.map(|(from, to)| from * STEP..to * STEP);
    let odd = ranges.map(|(from, to)| from * STEP + 1..to * STEP + 1);
    for range in edges.into_iter().chain(odd) {
        for limit in [1, 2, 99] {
            let expected: Vec<Extent> = (tree.extents.values_of(ino))
                .filter(|extent| extent.offset < range.end && extent.end() > range.start)
                .take(limit)
                .copied()
                .collect();
            let got = view.extents(at, Ino(ino), range.clone(), limit).unwrap();
            assert_eq!(got, expected, "{at:?} {ino} {range:?} limit {limit}");
        }
    }
}

fn run(ops: &[Op]) {
    let mut pair = Pair::new();
    for op in ops {
        pair.apply(*op);
        pair.assert_same();
    }
    pair.assert_past_goes_away();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The metadata and a naive model agree after every step, at every epoch somebody needs.
    #[test]
    fn meta_matches_model(ops in collection::vec(op(), 1..80)) {
        run(&ops);
    }
}
