//! The gate and the marks under a scheduler that tries orders (shuttle).
//!
//! What runs is `src/volume/gate.rs` itself, compiled here with shuttle's locks; around it stands a
//! model: a table of extents with an overlay and history, an index of fingerprints, containers, a
//! commit, in the shape of the real ones but a few lines each. So this shows that the protocol is
//! right and that the gate keeps it, not that every caller does: that is what `volume::gc_races`
//! tries with threads on a real volume. Shuttle runs one thread at a time: weak memory is not
//! tried, and `gate` does not rely on more than its locks give.
//!
//! Each way to break the protocol that we could think of is tried, too, and must be caught.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::{Config, Runner, thread};
use stratafs::types::{ChunkNo, ContainerId};

use gate::{Candidate, Gate};

#[allow(dead_code)]
#[path = "../../src/volume/gate.rs"]
mod gate;

/// Shuttle's locks with the interface of those that the volume uses.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug)]
    pub(super) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::RwLock::new(value))
        }

        pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        pub(super) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }
}

/// Orders tried per test and scheduler.
const ORDERS: usize = 1500;
/// Containers freed over all orders: a test in which gc never finds anything shows nothing.
static FREED: AtomicU64 = AtomicU64::new(0);
/// Printed with a failure; another one tries other orders.
const SEED: u64 = 0x5eed;

/// What a chunk holds.
type Content = u8;
type Key = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Live(Key),
    /// Which version, by the number of changes before.
    Past(Key, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    chunk: ChunkNo,
    /// What the file should hold there.
    content: Content,
}

/// A way to break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Extents do not mark their chunks.
    NoMark,
    /// The chunk is looked up before the change begins.
    PutOutsideTheGate,
    /// The walk begins before what was staged is in the database.
    WalkBeforeCommit,
    /// History is walked before the live extents.
    HistoryFirst,
    /// Containers are forgotten while changes are under way.
    ForgetWithOpenGate,
    /// Forgotten chunks are still found by their content.
    ForgottenIsKnown,
    /// A container is forgotten although a chunk of it is on its way elsewhere.
    ForgetMoving,
    /// A reader does not look again when its container is gone.
    ReadOnce,
    /// Fingerprints in memory stay when a commit takes chunks away.
    NeighboursStay,
    /// Fingerprints that were read before a commit are taken after it.
    NeighboursLate,
}

/// The database: changes by one batch at a time.
#[derive(Default)]
struct Database {
    rows: BTreeMap<Row, Extent>,
    known: BTreeMap<Content, ChunkNo>,
    places: BTreeMap<ChunkNo, (ContainerId, Content)>,
}

/// What is not committed.
#[derive(Default)]
struct Pending {
    next_chunk: u64,
    commits: u64,
    new: BTreeMap<ChunkNo, Content>,
    known: BTreeMap<Content, ChunkNo>,
    /// As `Neighbours`.
    near: BTreeMap<Content, ChunkNo>,
    doomed: BTreeMap<ContainerId, Vec<ChunkNo>>,
}

struct World {
    broken: Broken,
    gate: Gate,
    overlay: Mutex<BTreeMap<Row, Option<Extent>>>,
    pending: Mutex<Pending>,
    database: Mutex<Database>,
    committing: Mutex<u64>,
    files: Mutex<BTreeMap<ContainerId, BTreeMap<ChunkNo, Content>>>,
    /// Somebody looks back: old versions are kept.
    snapshot: Mutex<bool>,
    versions: Mutex<u64>,
    /// One lock per file, as a node's state.
    nodes: [sync::RwLock<()>; 3],
}

impl World {
    fn new(broken: Broken) -> Self {
        Self {
            broken,
            gate: Gate::new(),
            overlay: Mutex::default(),
            pending: Mutex::default(),
            database: Mutex::default(),
            committing: Mutex::new(0),
            files: Mutex::default(),
            snapshot: Mutex::new(false),
            versions: Mutex::new(0),
            nodes: [(); 3].map(|()| sync::RwLock::new(())),
        }
    }

    /// As `Store::find_or_add`.
    fn put(&self, content: Content) -> ChunkNo {
        loop {
            let commits = {
                let pending = self.pending.lock().unwrap();
                if let Some(chunk) = pending.known.get(&content) {
                    return *chunk;
                }
                let is_doomed =
                    |chunk: &&ChunkNo| pending.doomed.values().flatten().any(|c| c == *chunk);
                if let Some(chunk) = pending.near.get(&content).filter(|c| !is_doomed(c)) {
                    return *chunk;
                }
                pending.commits
            };
            let row = self.database.lock().unwrap().known.get(&content).copied();
            let mut pending = self.pending.lock().unwrap();
            if pending.commits != commits {
                continue;
            }
            if let Some(chunk) = pending.known.get(&content) {
                return *chunk;
            }
            let is_doomed = |chunk: &ChunkNo| pending.doomed.values().flatten().any(|c| c == chunk);
            match row {
                Some(c) if self.broken == Broken::ForgottenIsKnown || !is_doomed(&c) => {
                    drop(pending);
                    self.load_neighbours(commits);
                    return c;
                }
                _ => {}
            }
            let chunk = ChunkNo(pending.next_chunk);
            pending.next_chunk += 1;
            pending.new.insert(chunk, content);
            pending.known.insert(content, chunk);
            return chunk;
        }
    }

    /// As `Core::load_neighbours`, of all there are.
    fn load_neighbours(&self, commits: u64) {
        let rows = self.database.lock().unwrap().known.clone();
        let mut pending = self.pending.lock().unwrap();
        if pending.commits == commits || self.broken == Broken::NeighboursLate {
            pending.near.extend(rows);
        }
    }

    fn newest(&self, overlay: &BTreeMap<Row, Option<Extent>>, key: Key) -> Option<Extent> {
        let row = Row::Live(key);
        let committed = || self.database.lock().unwrap().rows.get(&row).copied();
        overlay.get(&row).copied().unwrap_or_else(committed)
    }

    /// As `stage_extents` and `Edit::change`. The gate is open, the node is locked.
    fn stage(&self, key: Key, new: Option<Extent>) {
        if self.broken != Broken::NoMark {
            self.gate.mark(new.iter().map(|extent| extent.chunk));
        }
        let mut overlay = self.overlay.lock().unwrap();
        if *self.snapshot.lock().unwrap()
            && let Some(old) = self.newest(&overlay, key)
        {
            let mut versions = self.versions.lock().unwrap();
            *versions += 1;
            overlay.insert(Row::Past(key, *versions), Some(old));
        }
        overlay.insert(Row::Live(key), new);
    }

    fn write(&self, key: Key, content: Content) {
        let early = (self.broken == Broken::PutOutsideTheGate).then(|| self.put(content));
        let _gate = self.gate.read();
        let _node = self.nodes[usize::from(key)].write();
        let chunk = early.unwrap_or_else(|| self.put(content));
        self.stage(key, Some(Extent { chunk, content }));
    }

    fn remove(&self, key: Key) {
        let _gate = self.gate.read();
        let _node = self.nodes[usize::from(key)].write();
        self.stage(key, None);
    }

    fn copy(&self, from: Key, to: Key) {
        let _gate = self.gate.read();
        let _node = self.nodes[usize::from(to)].write();
        let extent = {
            let overlay = self.overlay.lock().unwrap();
            self.newest(&overlay, from)
        };
        self.stage(to, extent);
    }

    /// As `Core::read`: what lies where the extent says, although gc may move it meanwhile.
    fn read(&self, key: Key) {
        let _node = self.nodes[usize::from(key)].read();
        let extent = {
            let overlay = self.overlay.lock().unwrap();
            self.newest(&overlay, key)
        };
        let Some(Extent { chunk, content }) = extent else { return };
        let mut before = None;
        loop {
            if self.pending.lock().unwrap().new.contains_key(&chunk) {
                return;
            }
            let place = self.database.lock().unwrap().places.get(&chunk).copied();
            let (container, stored) = place.expect("a chunk in use has a place");
            assert_eq!(stored, content);
            let files = self.files.lock().unwrap();
            if files.get(&container).and_then(|file| file.get(&chunk)) == Some(&content) {
                return;
            }
            assert!(before != Some(container), "chunk {chunk} of container {container} is gone");
            assert!(self.broken != Broken::ReadOnce, "the container is gone");
            before = Some(container);
        }
    }

    /// As `try_commit`, `seal` and `committed`.
    fn commit(&self) {
        let mut commits = self.committing.lock().unwrap();
        *commits += 1;
        let container = ContainerId(*commits);
        let frozen = {
            let _closed = self.gate.write();
            // Still visible until it is in the database.
            self.overlay.lock().unwrap().clone()
        };
        let (new, doomed) = {
            let pending = self.pending.lock().unwrap();
            (pending.new.clone(), pending.doomed.clone())
        };
        if !new.is_empty() {
            self.files.lock().unwrap().insert(container, new.clone());
        }
        {
            let mut database = self.database.lock().unwrap();
            for id in doomed.keys() {
                drop_container(&mut database, *id);
            }
            for (chunk, content) in &new {
                database.places.insert(*chunk, (container, *content));
                database.known.insert(*content, *chunk);
            }
            for (row, extent) in &frozen {
                match extent {
                    Some(extent) => drop(database.rows.insert(*row, *extent)),
                    None => drop(database.rows.remove(row)),
                }
            }
            // What a crash would leave now: every reference resolves.
            self.assert_resolves(&database);
        }
        {
            let mut overlay = self.overlay.lock().unwrap();
            overlay.retain(|row, extent| frozen.get(row) != Some(extent));
        }
        let mut pending = self.pending.lock().unwrap();
        pending.commits += 1;
        if !doomed.is_empty() && self.broken != Broken::NeighboursStay {
            pending.near.clear();
        }
        drop(pending);
        let mut pending = self.pending.lock().unwrap();
        pending.new.retain(|chunk, _| !new.contains_key(chunk));
        pending.known.retain(|_, chunk| !new.contains_key(chunk));
        pending.doomed.retain(|id, _| !doomed.contains_key(id));
        drop(pending);
        FREED.fetch_add(doomed.len() as u64, Relaxed);
        doomed.keys().for_each(|id| drop(self.files.lock().unwrap().remove(id)));
    }

    fn assert_resolves(&self, database: &MutexGuard<'_, Database>) {
        let files = self.files.lock().unwrap();
        for (row, extent) in &database.rows {
            let place = database.places.get(&extent.chunk);
            let (container, content) = place.unwrap_or_else(|| panic!("{row:?} dangles"));
            assert_eq!(*content, extent.content, "{row:?}");
            let file = files.get(container).unwrap_or_else(|| panic!("{row:?} has no file"));
            assert_eq!(file.get(&extent.chunk), Some(content), "{row:?}");
        }
    }

    /// One run, as `gc::run`: mark, move what is alive out of one container, free what is dead.
    fn collect(&self) {
        let horizon = ChunkNo(self.pending.lock().unwrap().next_chunk);
        let marks = self.gate.begin(horizon);
        if self.broken != Broken::WalkBeforeCommit {
            self.commit();
        }
        let parts = match self.broken {
            Broken::HistoryFirst => [is_past, is_live],
            _ => [is_live, is_past],
        };
        for part in parts {
            let mut after = None;
            while let Some((row, chunk)) = self.row_after(after, part) {
                marks.set(chunk);
                after = Some(row);
            }
        }
        let containers: BTreeSet<_> =
            self.database.lock().unwrap().places.values().map(|place| place.0).collect();
        for (at, id) in containers.into_iter().enumerate() {
            // Every second container is emptied first.
            if at % 2 == 1 {
                self.move_out(id, &marks);
                if self.broken != Broken::ForgetMoving {
                    self.commit();
                }
            }
            let candidate = Candidate { id, chunks: self.chunks_of(id) };
            if self.broken == Broken::ForgetWithOpenGate {
                if !candidate.chunks.iter().any(|chunk| marks.is_live(*chunk)) {
                    thread::yield_now();
                    self.doom(candidate);
                }
            } else if self.broken == Broken::ForgetMoving && at % 2 == 1 {
                self.doom(candidate);
            } else {
                self.gate.forget_dead(&marks, vec![candidate], |candidate| self.doom(candidate));
            }
        }
        self.gate.end();
        self.commit();
    }

    /// A piece of the walk: one row, of the database as it is now.
    fn row_after(&self, after: Option<Row>, part: fn(&Row) -> bool) -> Option<(Row, ChunkNo)> {
        let database = self.database.lock().unwrap();
        let mut rows = database.rows.iter().filter(|(row, _)| part(row));
        rows.find(|(row, _)| after.is_none_or(|after| **row > after)).map(|(r, e)| (*r, e.chunk))
    }

    fn chunks_of(&self, id: ContainerId) -> Vec<ChunkNo> {
        let database = self.database.lock().unwrap();
        let places = database.places.iter().filter(|(_, place)| place.0 == id);
        places.map(|(chunk, _)| *chunk).collect()
    }

    fn move_out(&self, id: ContainerId, marks: &gate::Marks) {
        for chunk in self.chunks_of(id).into_iter().filter(|chunk| marks.is_live(*chunk)) {
            let content = self.database.lock().unwrap().places[&chunk].1;
            let mut pending = self.pending.lock().unwrap();
            pending.new.insert(chunk, content);
            pending.known.insert(content, chunk);
        }
    }

    /// As `Pending::doom`.
    fn doom(&self, candidate: Candidate) -> bool {
        let mut pending = self.pending.lock().unwrap();
        let moving = candidate.chunks.iter().any(|chunk| pending.new.contains_key(chunk));
        if moving && self.broken != Broken::ForgetMoving {
            return false;
        }
        pending.doomed.insert(candidate.id, candidate.chunks);
        true
    }
}

fn is_live(row: &Row) -> bool {
    matches!(row, Row::Live(_))
}

fn is_past(row: &Row) -> bool {
    matches!(row, Row::Past(..))
}

/// As `doom_rows`: a chunk that has moved keeps its rows.
fn drop_container(database: &mut Database, id: ContainerId) {
    let gone: Vec<_> = database.places.iter().filter(|(_, p)| p.0 == id).map(|p| *p.0).collect();
    for chunk in gone {
        let (_, content) = database.places.remove(&chunk).unwrap();
        if database.known.get(&content) == Some(&chunk) {
            database.known.remove(&content);
        }
    }
}

/// Writers, a copier, a snapshot, readers and commits beside two runs of gc.
fn race(broken: Broken) {
    let world = Arc::new(World::new(broken));
    world.write(0, 10);
    world.write(1, 11);
    world.commit();
    world.write(2, 12);
    world.commit();
    world.remove(0);
    world.write(1, 13);
    let spawn = |work: fn(&World)| {
        let world = Arc::clone(&world);
        thread::spawn(move || work(&world))
    };
    let threads = [
        spawn(|world| {
            world.collect();
            world.collect();
        }),
        spawn(|world| {
            // Content whose last reference is gone comes back.
            world.write(0, 10);
            world.read(0);
            world.remove(1);
            world.write(1, 11);
            world.read(1);
        }),
        spawn(|world| {
            *world.snapshot.lock().unwrap() = true;
            world.write(2, 10);
            world.copy(2, 0);
            world.remove(2);
            world.read(2);
            world.read(0);
        }),
        spawn(|world| {
            world.commit();
            world.read(1);
            world.commit();
            world.read(2);
        }),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    world.commit();
    (0..3).for_each(|key| world.read(key));
}

/// Tries orders; a failure prints the one that failed, for `shuttle::replay`.
fn try_orders(broken: Broken) {
    let config = || {
        let mut config = Config::new();
        config.stack_size = 256 * 1024;
        config
    };
    Runner::new(RandomScheduler::new_from_seed(SEED, ORDERS), config()).run(move || race(broken));
    let changes = PctScheduler::new_from_seed(SEED, 4, ORDERS);
    Runner::new(changes, config()).run(move || race(broken));
}

#[test]
fn nothing_alive_is_freed_in_any_order() {
    println!("seed {SEED:#x}");
    try_orders(Broken::Nothing);
    assert!(FREED.load(Relaxed) > ORDERS as u64, "hardly anything was freed");
}

/// The test above can fail: every step of the protocol that is left out is noticed.
#[test]
fn each_step_of_the_protocol_is_needed() {
    for broken in [
        Broken::NoMark,
        Broken::PutOutsideTheGate,
        Broken::WalkBeforeCommit,
        Broken::HistoryFirst,
        Broken::ForgetWithOpenGate,
        Broken::ForgottenIsKnown,
        Broken::ForgetMoving,
        Broken::ReadOnce,
        Broken::NeighboursStay,
        Broken::NeighboursLate,
    ] {
        let tried = catch_unwind(AssertUnwindSafe(|| try_orders(broken)));
        let what = tried.expect_err(&format!("{broken:?} goes unnoticed"));
        let what = what.downcast_ref::<String>().cloned().unwrap_or_default();
        println!("{broken:?}: {}", what.lines().next().unwrap_or_default());
        assert!(!what.contains("deadlock"), "{broken:?}: {what}");
    }
}
