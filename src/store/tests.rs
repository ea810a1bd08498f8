//! The store on a shard in memory and a database of maps, through every kind of trouble.

mod bounds;
mod damage;
mod double;
mod health;
mod neighbours;

use std::sync::Arc;

use bytes::Bytes;

use self::double::{FailingShard, MapKv, noise};
use super::container::FooterBuilder;
use super::rows::FingerprintRow;
use super::{
    ChunkRow, ContainerState, Health, NextIds, PutHint, Sealed, Store, StoreOptions, read_footer,
};
use crate::codec::CodecChoice;
use crate::error::{Error, Result};
use crate::kv::{Batch, Kv, Table};
use crate::limits::{CHUNK_BYTES_MAX, CONTAINER_BYTES, CONTAINER_BYTES_MAX};
use crate::shard::{LocalShard, MemoryShard, Shard};
use crate::stats::{ClassTotals, Stats};
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId, VolumeId};

const SHARD: ShardId = ShardId(0);
const CLASS: ClassId = ClassId(1);
const GROUP_BYTES: u32 = 128 * 1024;
const HINT: PutHint = PutHint {
    class: CLASS,
    shard: SHARD,
    codec: CodecChoice::Zstd { level: 1 },
    group_bytes: GROUP_BYTES,
};

fn options() -> StoreOptions {
    StoreOptions { workers: 2, queue_bytes: 1 << 20, ..StoreOptions::new(VolumeId([9; 16])) }
}

fn open_on(kv: &Arc<MapKv>, shard: Arc<dyn Shard>, next: NextIds) -> Store {
    let kv = Arc::clone(kv) as Arc<dyn Kv>;
    Store::open(kv, vec![(SHARD, shard)], options(), next, Arc::default()).unwrap()
}

/// A commit of what the store has sealed; returns the numbers to go on with.
fn commit(store: &Store, kv: &MapKv) -> Result<NextIds> {
    let sealed = store.seal()?;
    let next = sealed.next;
    kv.write_parts(&[&sealed])?;
    store.committed(sealed);
    Ok(next)
}

/// A store that can be closed, cut off and opened again.
struct Bench {
    kv: Arc<MapKv>,
    shard: MemoryShard,
    stats: Arc<Stats>,
    next: NextIds,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        Self::on(Arc::default(), MemoryShard::new(), NextIds::default())
    }

    fn on(kv: Arc<MapKv>, shard: MemoryShard, next: NextIds) -> Self {
        let stats = Arc::new(Stats::default());
        let shards: Vec<(ShardId, Arc<dyn Shard>)> = vec![(SHARD, Arc::new(shard.clone()))];
        let dyn_kv = Arc::clone(&kv) as Arc<dyn Kv>;
        let store = Store::open(dyn_kv, shards, options(), next, Arc::clone(&stats)).unwrap();
        Self { kv, shard, stats, next, store }
    }

    fn put(&self, raw: &[u8]) -> ChunkNo {
        self.store.put(Bytes::copy_from_slice(raw), HINT).unwrap().chunk
    }

    fn read(&self, chunk: ChunkNo) -> Vec<u8> {
        self.store.read(chunk).unwrap().to_vec()
    }

    fn write(&mut self, sealed: &Sealed) {
        self.kv.write_parts(&[sealed]).unwrap();
        self.next = sealed.next;
    }

    fn commit(&mut self) {
        self.store.freeze();
        let sealed = self.store.seal().unwrap();
        self.write(&sealed);
        self.store.committed(sealed);
    }

    /// Opens what a power cut now would leave.
    fn power_cut(self) -> Self {
        let Self { kv, shard, next, store, .. } = self;
        let shard = shard.after_power_cut();
        drop(store);
        Self::on(kv, shard, next)
    }

    fn totals(&self) -> ClassTotals {
        self.stats.class(CLASS).copy()
    }
}

#[test]
fn second_put_stores_nothing() {
    let mut t = Bench::new();
    let raw = noise(1, 100_000);
    let first = t.store.put(raw.clone().into(), HINT).unwrap();
    let again = t.store.put(raw.clone().into(), HINT).unwrap();
    assert!(!first.known && again.known && first.chunk == again.chunk);
    t.commit();
    let stored = t.totals().stored_bytes;
    let committed = t.store.put(raw.into(), HINT).unwrap();
    assert!(committed.known && committed.chunk == first.chunk);
    t.commit();
    let totals = t.totals();
    assert_eq!((totals.new_chunks, totals.new_bytes), (1, 100_000));
    assert_eq!((totals.duplicate_chunks, totals.duplicate_bytes), (2, 200_000));
    assert_eq!(totals.stored_bytes, stored);
    assert!(stored > 100_000 && stored.is_multiple_of(8));
}

#[test]
fn equal_puts_at_once_store_one() {
    let mut t = Bench::new();
    let chunks: Vec<Vec<ChunkNo>> = std::thread::scope(|scope| {
        let put_all = || (0..200).map(|n| t.put(&noise(n, 5000))).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(put_all)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(chunks.iter().all(|other| *other == chunks[0]));
    assert_eq!((t.totals().new_chunks, t.totals().duplicate_chunks), (200, 600));
    let mut numbers: Vec<u64> = chunks[0].iter().map(|chunk| chunk.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "dense");
    t.commit();
    assert_eq!(t.kv.rows(Table::Chunk), 200);
    assert_eq!(t.kv.rows(Table::Fingerprint), 200);
}

#[test]
fn puts_and_commits_at_once_lose_nothing() {
    let mut t = Bench::new();
    let kv = Arc::clone(&t.kv);
    let all: Vec<(u64, ChunkNo)> = std::thread::scope(|scope| {
        let t = &t;
        let put = |from: u64| {
            move || {
                // Every chunk is put by two threads, some of them again much later.
                let numbers = (from..from + 400).chain(from..from + 50);
                numbers.map(|n| (n % 500, t.put(&noise(n % 500, 3000)))).collect::<Vec<_>>()
            }
        };
        let threads = [scope.spawn(put(0)), scope.spawn(put(200)), scope.spawn(put(350))];
        for _ in 0..20 {
            commit(&t.store, &kv).unwrap();
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    t.commit();
    assert_eq!(t.kv.rows(Table::Chunk), 500, "one chunk for each content");
    assert_eq!(t.store.pending_bytes(), 0);
    let t = t.power_cut();
    for (n, chunk) in all {
        assert_eq!(t.read(chunk), noise(n, 3000));
    }
}

#[test]
fn chunks_are_readable_at_every_stage() {
    let mut t = Bench::new();
    let contents: Vec<Vec<u8>> = (0..60)
        .map(|n| if n % 3 == 0 { noise(n, 90_000) } else { vec![n as u8; 1000 + n as usize] })
        .collect();
    let chunks: Vec<ChunkNo> = contents.iter().map(|raw| t.put(raw)).collect();
    let check = |t: &Bench| {
        for (chunk, raw) in chunks.iter().zip(&contents) {
            assert_eq!(&t.read(*chunk), raw);
        }
    };
    check(&t);
    assert!(t.store.pending_bytes() > 0, "the last group is open");
    let sealed = t.store.seal().unwrap();
    check(&t);
    assert_eq!(t.store.pending_bytes(), 0);
    t.write(&sealed);
    t.store.committed(sealed);
    check(&t);
    let t = t.power_cut();
    check(&t);
    let activity = t.stats.activity.copy();
    assert!(activity.frame_cache_hits > activity.frames_read, "groups are read once");
    assert!(matches!(t.store.read(ChunkNo(999)), Err(Error::Corrupt { .. })));
}

#[test]
fn small_chunks_share_a_frame() {
    let mut t = Bench::new();
    let contents: Vec<Vec<u8>> = (0..100_u32)
        .map(|n| format!("fn number_{n}() {{ println!(\"{n}\"); }}\n").repeat(40).into_bytes())
        .collect();
    let chunks: Vec<ChunkNo> = contents.iter().map(|raw| t.put(raw)).collect();
    t.commit();
    let (id, row) = t.store.containers().unwrap()[0];
    let raw: usize = contents.iter().map(Vec::len).sum();
    assert_eq!((row.state, row.chunks, row.raw_bytes), (ContainerState::Open, 100, raw as u64));
    assert_eq!(row.stored_bytes, t.totals().stored_bytes);
    assert!(row.stored_bytes < raw as u64 / 4);
    let frames = super::scan_frames(&t.shard, id, row.bytes).count();
    assert_eq!(frames, raw.div_ceil(GROUP_BYTES as usize));
    let place = t.store.place_of(chunks[0]).unwrap();
    assert_eq!((place.container, place.shard, place.class), (Some(id), SHARD, CLASS));
    assert!(place.stored_len > 0 && place.stored_len < place.raw_len);
}

#[test]
fn incompressible_chunks_are_stored_as_they_are() {
    let mut t = Bench::new();
    let raw = noise(3, 200_000);
    let chunk = t.put(&raw);
    t.commit();
    let stored = t.totals().stored_bytes;
    assert!((200_000..200_200).contains(&stored), "{stored}");
    assert_eq!(t.store.place_of(chunk).unwrap().stored_len, 200_080);
    assert_eq!(t.read(chunk), raw);
}

#[test]
fn classes_and_codecs_do_not_share_frames() {
    let mut t = Bench::new();
    let other_class = PutHint { class: ClassId(2), ..HINT };
    let other_codec = PutHint { codec: CodecChoice::None, ..HINT };
    for (n, hint) in [HINT, other_class, other_codec, HINT].into_iter().enumerate() {
        t.store.put(vec![n as u8; 5000].into(), hint).unwrap();
    }
    t.commit();
    let mut rows = Vec::new();
    let collect = |_, row: &ChunkRow| {
        rows.push(*row);
        Ok(())
    };
    t.store.each_chunk(ChunkNo(0), 1000, collect).unwrap();
    assert_ne!(rows[0].container, rows[1].container);
    assert_eq!(rows[0].container, rows[2].container);
    let mut offsets = [rows[0], rows[2], rows[3]].map(|row| row.frame_offset);
    offsets.sort_unstable();
    assert!(offsets[0] < offsets[1] && offsets[1] < offsets[2], "three frames: {offsets:?}");
    assert_eq!(rows[2].frame_len, 32 + 44 + 5000);
}

#[test]
fn containers_are_sealed_at_their_bound_with_a_footer() {
    let mut t = Bench::new();
    let hint = PutHint { codec: CodecChoice::None, ..HINT };
    let raw = |n| noise(n, CHUNK_BYTES_MAX as usize);
    let chunks: Vec<ChunkNo> =
        (0..40).map(|n| t.store.put(raw(n).into(), hint).unwrap().chunk).collect();
    t.commit();
    let containers = t.store.containers().unwrap();
    assert_eq!(containers.len(), 2);
    let (id, row) = containers[0];
    assert_eq!(row.state, ContainerState::Sealed);
    assert!((CONTAINER_BYTES..CONTAINER_BYTES_MAX).contains(&(row.bytes as u32)));
    assert_eq!(t.shard.len(id).unwrap(), row.bytes);
    let footer = read_footer(&t.shard, id, row.bytes).unwrap();
    let scanned: Vec<_> = super::scan_frames(&t.shard, id, row.bytes).map(Result::unwrap).collect();
    assert_eq!(footer, scanned);
    assert_eq!(footer.len() as u64, row.chunks);
    let in_rows: Vec<_> = t.store.chunks_of(id).unwrap();
    let mut in_footer: Vec<_> = footer
        .iter()
        .flat_map(|frame| frame.directory.entries.iter().map(|e| (e.chunk, e.fingerprint)))
        .collect();
    in_footer.sort_unstable();
    assert_eq!(in_rows, in_footer);
    assert!(t.store.verify_container(id).unwrap().is_clean());
    for (n, chunk) in chunks.iter().enumerate() {
        assert_eq!(t.read(*chunk), raw(n as u64));
    }
}

#[test]
fn open_containers_go_on_after_reopening() {
    let mut t = Bench::new();
    let first = t.put(b"first");
    t.commit();
    let mut t = t.power_cut();
    assert_eq!(t.read(first), b"first");
    let none = FooterBuilder::default().len();
    assert_eq!(t.store.load().footer_bytes, none, "no frame is looked for before it is needed");
    let second = t.put(b"second");
    t.commit();
    assert_eq!(t.store.containers().unwrap().len(), 1, "the same container");
    t.store.close_open();
    let third = t.put(b"third");
    t.commit();
    let containers = t.store.containers().unwrap();
    assert_eq!(containers.len(), 2);
    let (id, row) = containers[0];
    assert_eq!((row.state, row.chunks), (ContainerState::Sealed, 2));
    let footer = read_footer(&t.shard, id, row.bytes).unwrap();
    assert_eq!(footer.len(), 2, "the footer knows the frames of both lives");
    let t = t.power_cut();
    assert_eq!([first, second, third].map(|c| c.0), [0, 1, 2]);
    assert_eq!(t.read(first), b"first");
    assert_eq!(t.read(second), b"second");
    assert_eq!(t.read(third), b"third");
}

#[test]
fn a_crash_before_the_batch_leaves_the_last_commit() {
    let mut t = Bench::new();
    let kept = t.put(b"kept");
    t.commit();
    let lost = t.put(b"lost");
    t.store.put(noise(1, 70_000).into(), PutHint { class: ClassId(7), ..HINT }).unwrap();
    let _sealed = t.store.seal().unwrap();
    assert_eq!(t.shard.list().unwrap().len(), 2, "synced, but without rows");
    let mut t = t.power_cut();
    assert_eq!(t.shard.list().unwrap().len(), 1, "the leftover is deleted");
    let (id, row) = t.store.containers().unwrap()[0];
    assert_eq!(t.shard.len(id).unwrap(), row.bytes, "the tail is cut");
    assert_eq!(t.read(kept), b"kept");
    let again = t.store.put(Bytes::from_static(b"lost"), HINT).unwrap();
    assert!(!again.known);
    assert_eq!(again.chunk, lost, "the number was never committed");
    t.commit();
    assert_eq!(t.read(lost), b"lost");
    assert!(t.store.verify_container(id).unwrap().is_clean());
}

/// The same on a real directory, through the drop of the store and a second life.
#[test]
fn a_directory_keeps_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let volume = options().volume;
    let kv = Arc::<MapKv>::default();
    let open = |shard: LocalShard, next| open_on(&kv, Arc::new(shard), next);
    let store = open(LocalShard::create(dir.path(), volume, SHARD).unwrap(), NextIds::default());
    let put = |store: &Store, n| store.put(noise(n, 40_000).into(), HINT).unwrap();
    let chunks: Vec<ChunkNo> = (0..50).map(|n| put(&store, n).chunk).collect();
    let next = commit(&store, &kv).unwrap();
    for n in 50..60 {
        put(&store, n);
    }
    drop(store.seal().unwrap());
    drop(store);

    let store = open(LocalShard::open(dir.path(), volume, SHARD).unwrap(), next);
    for (n, chunk) in chunks.iter().enumerate() {
        assert_eq!(store.read(*chunk).unwrap(), noise(n as u64, 40_000));
    }
    assert!(put(&store, 3).known && !put(&store, 55).known);
    store.close_open();
    commit(&store, &kv).unwrap();
    let containers = store.containers().unwrap();
    let chunks = containers.iter().map(|(_, row)| (row.state, row.chunks)).collect::<Vec<_>>();
    assert_eq!(chunks, [(ContainerState::Sealed, 50), (ContainerState::Open, 1)]);
    for (id, _) in containers {
        assert!(store.verify_container(id).unwrap().is_clean());
    }
}

#[test]
fn numbers_that_are_too_low_are_refused() {
    let mut t = Bench::new();
    t.put(b"one");
    t.commit();
    let shards: Vec<(ShardId, Arc<dyn Shard>)> = vec![(SHARD, Arc::new(t.shard.clone()))];
    let open = |next| {
        let kv = Arc::clone(&t.kv) as Arc<dyn Kv>;
        Store::open(kv, shards.clone(), options(), next, Arc::default()).map(drop)
    };
    assert!(matches!(open(NextIds::default()), Err(Error::Corrupt { .. })));
    assert!(matches!(open(NextIds { chunk: ChunkNo(5), ..t.next }), Ok(())));
}

/// A store with one sealed container that holds `one` and `two`.
fn with_sealed_container() -> (Bench, ContainerId, [ChunkNo; 2]) {
    let mut t = Bench::new();
    let chunks = [t.put(b"one"), t.put(b"two")];
    t.commit();
    t.store.close_open();
    t.commit();
    let (id, row) = t.store.containers().unwrap()[0];
    assert_eq!(row.state, ContainerState::Sealed);
    (t, id, chunks)
}

#[test]
fn doomed_chunks_are_unknown_at_once_and_gone_after_the_commit() {
    let (mut t, id, [one, two]) = with_sealed_container();
    t.store.doom(id).unwrap();
    t.store.doom(id).unwrap();
    assert_eq!(t.read(two), b"two", "until the commit");
    let anew = t.store.put(Bytes::from_static(b"one"), HINT).unwrap();
    assert!(!anew.known && anew.chunk != one);
    t.store.freeze();
    let sealed = t.store.seal().unwrap();
    assert_eq!(t.shard.list().unwrap().len(), 2, "the file stays until the batch is durable");
    t.write(&sealed);
    t.store.committed(sealed);
    assert_eq!(t.shard.list().unwrap().len(), 1);
    assert!(t.store.read(one).is_err() && t.store.read(two).is_err());
    assert_eq!(t.read(anew.chunk), b"one");
    assert!(t.store.put(Bytes::from_static(b"one"), HINT).unwrap().known);
    assert!(!t.store.put(Bytes::from_static(b"two"), HINT).unwrap().known);
    t.commit();
    assert_eq!((t.kv.rows(Table::Chunk), t.kv.rows(Table::Fingerprint)), (2, 2));
    assert!(matches!(t.store.doom(id), Err(Error::NotFound { .. })));
}

/// The extents whose deletion emptied a container may still be in the open txg while an older one
/// is sealed: a crash after that one must find the chunks.
#[test]
fn a_container_doomed_after_the_freeze_waits_for_the_next_batch() {
    let (mut t, id, [one, _]) = with_sealed_container();
    t.store.freeze();
    t.store.doom(id).unwrap();
    let sealed = t.store.seal().unwrap();
    t.write(&sealed);
    t.store.committed(sealed);
    assert_eq!(t.shard.list().unwrap(), [id], "the txg before still needs it");
    assert_eq!(t.read(one), b"one");
    assert!(!t.store.is_committed());
    t.commit();
    assert!(t.store.read(one).is_err());
    assert!(t.shard.list().unwrap().is_empty());
    assert!(t.store.is_committed());
}

/// What a put reads from the database may be old when it comes to add the chunk: here another put
/// of the same bytes is committed in between.
#[test]
fn a_commit_between_look_and_add_does_not_store_twice() {
    let t = Bench::new();
    let Bench { kv, store, .. } = t;
    let store = Arc::new(store);
    let inner = Arc::clone(&store);
    kv.on_next_fingerprint(move |kv| {
        assert!(!inner.put(Bytes::from_static(b"same"), HINT).unwrap().known);
        commit(&inner, kv).unwrap();
    });
    let put = store.put(Bytes::from_static(b"same"), HINT).unwrap();
    assert_eq!((put.known, put.chunk), (true, ChunkNo(0)));
    assert_eq!(store.next_ids().chunk, ChunkNo(1));
}

#[test]
fn dooming_spares_a_fingerprint_that_stands_for_another_chunk() {
    let (mut t, id, _) = with_sealed_container();
    let elsewhere = FingerprintRow { health: Health::Good, chunk: ChunkNo(1000) };
    let fingerprint = Fingerprint::of(b"one");
    let mut batch = Batch::default();
    batch.put(Table::Fingerprint, fingerprint.0, elsewhere.to_bytes());
    t.kv.write(batch).unwrap();
    t.store.doom(id).unwrap();
    t.commit();
    let row = t.kv.get(Table::Fingerprint, &fingerprint.0).unwrap();
    assert_eq!(row, Some(elsewhere.to_bytes()));
    assert_eq!(t.kv.get(Table::Fingerprint, &Fingerprint::of(b"two").0).unwrap(), None);
}

#[test]
fn only_sealed_containers_can_be_doomed() {
    let mut t = Bench::new();
    t.put(b"one");
    t.commit();
    let (id, _) = t.store.containers().unwrap()[0];
    assert!(matches!(t.store.doom(id), Err(Error::Invalid { .. })));
}

/// What gc filled holds numbers from everywhere: its footer says which, and if that is damaged the
/// table does.
#[test]
fn chunks_of_a_container_with_distant_numbers_are_found() {
    let mut t = Bench::new();
    let first = t.put(&noise(0, 70_000));
    t.commit();
    t.store.close_open();
    t.commit();
    let old = t.store.place_of(first).unwrap().container.unwrap();
    for n in 1..200 {
        t.put(&noise(n, 100));
    }
    t.commit();
    t.store.close_open();
    t.commit();
    let rows = t.store.rows_of(old).unwrap();
    t.store.rewrite(&rows, HINT).unwrap();
    let last = t.put(&noise(500, 70_000));
    t.commit();
    t.store.close_open();
    t.commit();
    let id = t.store.place_of(first).unwrap().container.unwrap();
    let row = t.store.find_container(id).unwrap().unwrap();
    assert_eq!((row.first, row.last, row.chunks), (first, last, 2));
    let numbers = |t: &Bench| {
        t.store.chunks_of(id).unwrap().into_iter().map(|(chunk, _)| chunk).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&t), [first, last]);
    assert!(t.shard.damage(id, |bytes| *bytes.last_mut().unwrap() ^= 1));
    assert!(read_footer(&t.shard, id, row.bytes).is_err());
    assert_eq!(numbers(&t), [first, last], "without the footer");
    t.store.doom(old).unwrap();
    t.commit();
    assert_eq!(t.read(first), noise(0, 70_000));
}

#[test]
fn rewritten_chunks_keep_their_number_and_free_the_old_container() {
    let (mut t, id, [one, two]) = with_sealed_container();
    let rows = t.store.rows_of(id).unwrap();
    assert_eq!(t.store.rewrite(&rows[..1], HINT).unwrap(), 3);
    assert_eq!(t.store.rewrite(&rows[..1], HINT).unwrap(), 3, "it is moving already");
    assert!(matches!(t.store.doom(id), Err(Error::Invalid { .. })), "not committed yet");
    t.commit();
    assert_eq!(t.read(one), b"one");
    let left: Vec<_> = t.store.chunks_of(id).unwrap().into_iter().map(|(c, _)| c).collect();
    assert_eq!(left, [two]);
    t.store.doom(id).unwrap();
    t.commit();
    let t = t.power_cut();
    assert_eq!(t.read(one), b"one");
    assert!(t.store.put(Bytes::from_static(b"one"), HINT).unwrap().known);
    assert!(t.store.read(two).is_err());
    assert_eq!(t.shard.list().unwrap().len(), 1);
}

#[test]
fn bad_arguments_are_refused() {
    let t = Bench::new();
    assert!(matches!(t.store.put(Bytes::new(), HINT), Err(Error::Invalid { .. })));
    let large = vec![0; CHUNK_BYTES_MAX as usize + 1];
    assert!(matches!(t.store.put(large.into(), HINT), Err(Error::Invalid { .. })));
    let nowhere = PutHint { shard: ShardId(3), ..HINT };
    let put = t.store.put(Bytes::from_static(b"x"), nowhere);
    assert!(matches!(put, Err(Error::Shard { .. })));
    let again = t.store.add_shard(SHARD, Arc::new(MemoryShard::new()));
    assert!(matches!(again, Err(Error::Exists { .. })));
    t.store.add_shard(ShardId(3), Arc::new(MemoryShard::new())).unwrap();
    let put = t.store.put(Bytes::from_static(b"x"), nowhere).unwrap();
    assert_eq!(t.store.place_of(put.chunk).unwrap().shard, ShardId(3));
}

#[test]
fn a_commit_that_did_not_end_stops_the_next() {
    let t = Bench::new();
    t.put(b"x");
    drop(t.store.seal().unwrap());
    assert!(matches!(t.store.seal(), Err(Error::Invalid { .. })));
}

fn on_failing_shard() -> (Arc<FailingShard>, Store) {
    let shard = Arc::new(FailingShard::default());
    let store = open_on(&Arc::default(), Arc::clone(&shard) as _, NextIds::default());
    (shard, store)
}

#[test]
fn a_full_shard_is_reported_and_nothing_is_lost_when_there_is_room_again() {
    let (shard, store) = on_failing_shard();
    shard.fill_up(true);
    let chunk = store.put(noise(1, 80_000).into(), HINT).unwrap().chunk;
    assert!(matches!(store.seal(), Err(Error::NoSpace { .. })));
    let put = store.put(noise(2, 80_000).into(), HINT);
    assert!(matches!(put, Err(Error::NoSpace { .. })), "{put:?}");
    assert!(store.put(noise(1, 80_000).into(), HINT).unwrap().known, "known needs no room");
    assert_eq!(store.read(chunk).unwrap(), noise(1, 80_000));
    shard.fill_up(false);
    let sealed = store.seal().unwrap();
    store.committed(sealed);
    store.put(noise(2, 80_000).into(), HINT).unwrap();
}

#[test]
fn a_broken_shard_is_the_first_cause_of_all_that_follows() {
    let (shard, store) = on_failing_shard();
    shard.break_writes();
    store.put(noise(1, 80_000).into(), HINT).unwrap();
    for _ in 0..2 {
        assert!(matches!(store.seal(), Err(Error::Io { .. })));
        assert!(matches!(store.put(noise(2, 80_000).into(), HINT), Err(Error::Io { .. })));
    }
}

#[test]
fn a_failed_sync_stops_the_store() {
    let (shard, store) = on_failing_shard();
    store.put(noise(1, 80_000).into(), HINT).unwrap();
    shard.break_sync();
    assert!(matches!(store.seal(), Err(Error::Io { .. })));
    assert!(matches!(store.seal(), Err(Error::Io { .. })), "though sync would work again");
    assert!(matches!(store.put(noise(2, 80_000).into(), HINT), Err(Error::Io { .. })));
}

#[test]
fn puts_wait_for_workers_and_do_not_pile_up() {
    let (shard, store) = on_failing_shard();
    shard.slow_down(std::time::Duration::from_millis(5));
    let mut most = 0;
    for n in 0..40 {
        store.put(noise(n, 256 << 10).into(), HINT).unwrap();
        most = most.max(store.pending_bytes());
    }
    assert!(most <= (1 << 20) + (256 << 10), "{most}");
    store.committed(store.seal().unwrap());
    assert_eq!(store.pending_bytes(), 0);
}

/// Files of a directory lie behind each other: what one of them brought in serves the others.
#[test]
fn a_decoded_frame_serves_its_neighbours_without_their_rows() {
    let mut t = Bench::new();
    let raw: Vec<Vec<u8>> = (0..64).map(|n| noise(n, 5000)).collect();
    let chunks: Vec<ChunkNo> = raw.iter().map(|raw| t.put(raw)).collect();
    t.commit();
    let frames = 64_usize.div_ceil(GROUP_BYTES as usize / 5000 + 1);
    t.kv.chunk_lookups();
    for _ in 0..2 {
        for (chunk, raw) in chunks.iter().zip(&raw) {
            assert_eq!(t.read(*chunk), *raw);
        }
    }
    let activity = t.stats.activity.copy();
    assert_eq!(activity.frames_read, frames as u64, "each frame once: {activity:?}");
    assert_eq!(t.kv.chunk_lookups(), frames, "and a row of each");

    // A container that is gone leaves nothing here.
    let (id, _) = t.store.containers().unwrap()[0];
    t.store.core.cache.forget(id);
    assert_eq!(t.read(chunks[1]), raw[1]);
    assert_eq!(t.kv.chunk_lookups(), 1);
}
