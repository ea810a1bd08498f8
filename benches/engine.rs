//! What the volume costs without FUSE: `cargo bench --bench engine`. See benches/README.md.
//!
//! Two to three minutes. `STRATAFS_BENCH_FILES` is the size of the tree (default 100,000) and
//! `TMPDIR` says which disk. Promise P2 is asserted, not only measured: a snapshot of the tree that
//! takes 50 ms or more to make or delete ends the run with an error.

#[path = "engine/parts.rs"]
mod parts;
mod random;
#[path = "engine/work.rs"]
mod work;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use stratafs::codec::CodecChoice;
use stratafs::env::Env;
use stratafs::kv::{Kv, RocksKv, RocksOptions};
use stratafs::shard::{LocalShard, Shard};
use stratafs::stats::Stats;
use stratafs::store::{NextIds, PutHint, Store, StoreOptions};
use stratafs::sys::alloc::CountingAlloc;
use stratafs::types::{At, ClassId, Cookie, FileKind, Ino, ShardId, VolumeId};
use stratafs::volume::{
    AttrChange, InitOptions, LocalStorage, NewInode, OpenOptions, SetTime, Storage, Volume,
};
use tempfile::TempDir;

use random::Random;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What issue 2 allows for making or deleting a snapshot.
const SNAPSHOT_MAX: Duration = Duration::from_millis(50);
/// Files of one directory of the tree.
const DIR_FILES: usize = 1000;
/// New data of one measured ingest: several times what the queue holds, so that compressing and
/// writing are in the number.
const INGEST_BYTES: usize = 64 * MIB;
/// Larger than the cache of decoded frames, so that a sequential read decodes everything.
const READ_BYTES: usize = 160 * MIB;
/// As the kernel reads ahead.
const READ_PIECE: usize = 128 * KIB;
const SMALL_FILE_BYTES: usize = 4 * KIB;

impl Random {
    /// Lines of words and numbers, which zstd 1 shrinks to about a third.
    fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "return",
            "self",
            "let",
            "chunk",
            "match",
            "offset",
            "    ",
            "length",
            "fn",
            "result",
            "if",
            "container",
            "=",
            "(&mut",
            "{\n",
            "}\n",
        ];
        let mut out = Vec::with_capacity(len + 64);
        while out.len() < len {
            let mut bits = self.next();
            for _ in 0..6 {
                out.extend_from_slice(WORDS[(bits & 15) as usize].as_bytes());
                out.push(b' ');
                bits >>= 4;
            }
            out.extend_from_slice(format!("{:x}\n", bits & 0xFFFF).as_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A volume of its own that goes with the bench.
struct Scratch {
    volume: Arc<Volume>,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self::on(Arc::new(LocalStorage))
    }

    fn on(storage: Arc<dyn Storage>) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("volume");
        Volume::init(&path, &InitOptions { env: Env::system() }).expect("a new volume");
        let options =
            OpenOptions { env: Env::system(), purpose: "bench".to_owned(), read_only: false };
        Self { volume: Volume::open_on(&path, options, storage).expect("it opens"), _dir: dir }
    }

    fn make(&self, parent: Ino, name: &str, kind: FileKind) -> Ino {
        let new = NewInode {
            kind,
            perm: if kind == FileKind::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
            xattrs: Vec::new(),
        };
        self.volume.make(parent, name.as_bytes(), &new).expect("room for a name").ino
    }

    /// Creates, writes in 1 MiB pieces and closes a file, as FUSE would.
    fn write(&self, parent: Ino, name: &str, data: &[u8]) -> Ino {
        let ino = self.make(parent, name, FileKind::Regular);
        let file = self.volume.open_file(At::Live, ino).expect("it was just made");
        for (i, piece) in data.chunks(MIB).enumerate() {
            file.write((i * MIB) as u64, piece).expect("a write");
        }
        file.finish().expect("the data is stored");
        ino
    }

    fn remove(&self, parent: Ino, name: &str) {
        self.volume.unlink(parent, name.as_bytes()).expect("it is there");
    }

    fn commit(&self) {
        self.volume.commit().expect("a commit");
    }

    fn read_all(&self, ino: Ino, len: usize) {
        let file = self.volume.open_file(At::Live, ino).expect("it is there");
        for at in (0..len).step_by(READ_PIECE) {
            let got = file.read(at as u64, READ_PIECE).expect("a read");
            assert_eq!(got.len(), READ_PIECE.min(len - at));
            black_box(got);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.volume.shutdown().expect("the volume closes");
    }
}

/// Runs `step` as often as asked and adds up the times it returns.
fn sum(count: u64, mut step: impl FnMut(u64) -> Duration) -> Duration {
    (0..count).map(&mut step).sum()
}

fn timed(step: impl FnOnce()) -> Duration {
    let start = Instant::now();
    step();
    start.elapsed()
}

fn group<'a>(c: &'a mut Criterion, name: &str, seconds: u64) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(seconds));
    group
}

/// Directories `0`, `1`, … of `DIR_FILES` small files each.
fn build_tree(scratch: &Scratch, files: usize) -> Vec<Ino> {
    let start = Instant::now();
    let mut random = Random(1);
    let dirs: Vec<Ino> = (0..files.div_ceil(DIR_FILES))
        .map(|dir| scratch.make(Ino::ROOT, &dir.to_string(), FileKind::Directory))
        .collect();
    for file in 0..files {
        let name = format!("file-{file:06}.c");
        scratch.write(dirs[file / DIR_FILES], &name, &random.text(200));
    }
    scratch.commit();
    println!("tree of {files} files made in {:.1?}", start.elapsed());
    dirs
}

/// One committed change, so that the next snapshot differs from the last one.
fn touch(scratch: &Scratch, ino: Ino) {
    let change = AttrChange { mtime: Some(SetTime::Now), ..AttrChange::default() };
    scratch.volume.set_attributes(ino, &change).expect("a touch");
    scratch.commit();
}

fn snapshots(c: &mut Criterion, scratch: &Scratch, dirs: &[Ino]) {
    let volume = &scratch.volume;
    let create = || timed(|| drop(volume.snapshot_create(b"s").expect("a snapshot")));
    let delete = || timed(|| volume.snapshot_delete(b"s").expect("it is there"));
    let mut group = group(c, "snapshot", 3);
    group.bench_function("create", |b| {
        b.iter_custom(|n| {
            sum(n, |i| {
                touch(scratch, dirs[i as usize % dirs.len()]);
                let took = create();
                delete();
                took
            })
        });
    });
    group.bench_function("delete", |b| {
        b.iter_custom(|n| {
            sum(n, |i| {
                create();
                touch(scratch, dirs[i as usize % dirs.len()]);
                delete()
            })
        });
    });
    group.finish();
    let rounds: Vec<_> = (0..11).map(|_| (create(), delete())).collect();
    assert_fast("snapshot_create", rounds.iter().map(|r| r.0).collect());
    assert_fast("snapshot_delete", rounds.iter().map(|r| r.1).collect());
}

fn assert_fast(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("{what}: median {median:.2?}, slowest {:.2?}", times[times.len() - 1]);
    assert!(median < SNAPSHOT_MAX, "{what} takes {median:?}, at most {SNAPSHOT_MAX:?} is promised");
}

fn names(c: &mut Criterion, scratch: &Scratch, dirs: &[Ino], files: usize) {
    let volume = &scratch.volume;
    let mut group = group(c, "names", 2);
    let mut random = Random(2);
    group.throughput(Throughput::Elements(1));
    group.bench_function("lookup", |b| {
        b.iter(|| {
            let file = random.next() as usize % files;
            let name = format!("file-{file:06}.c");
            let found = volume.lookup(At::Live, dirs[file / DIR_FILES], name.as_bytes());
            assert!(found.expect("a lookup").is_some());
        });
    });
    group.bench_function("lookup_missing", |b| {
        b.iter(|| {
            let dir = dirs[random.next() as usize % dirs.len()];
            let name = format!(".file-{:06}.c.aB3dE9", random.next() % 1_000_000);
            let found = volume.lookup(At::Live, dir, name.as_bytes());
            assert!(found.expect("a lookup").is_none());
        });
    });
    let in_first = files.min(DIR_FILES);
    group.throughput(Throughput::Elements(in_first as u64));
    group.bench_function("list", |b| {
        b.iter(|| {
            let (mut after, mut count) = (Cookie(0), 0);
            loop {
                let page = volume.list(At::Live, dirs[0], after, 128).expect("a page");
                let Some(last) = page.last() else { break };
                after = last.cookie;
                count += page.len();
            }
            assert_eq!(count, in_first);
        });
    });
    group.finish();
}

type Make = fn(&mut Random, usize) -> Vec<u8>;

fn ingest(c: &mut Criterion) {
    let mut group = group(c, "ingest", 4);
    group.throughput(Throughput::Bytes(INGEST_BYTES as u64));
    let mut random = Random(3);
    let kinds: [(&str, &str, Make); 2] = [
        ("new_text", "t.c", Random::text),
        ("new_incompressible", "i.bin", Random::incompressible),
    ];
    for (bench, name, make) in kinds {
        let scratch = Scratch::new();
        group.bench_function(bench, |b| {
            b.iter_custom(|n| {
                sum(n, |_| {
                    let data = make(&mut random, INGEST_BYTES);
                    let took = timed(|| {
                        scratch.write(Ino::ROOT, name, &data);
                        scratch.commit();
                    });
                    scratch.remove(Ino::ROOT, name);
                    took
                })
            });
        });
    }
    let scratch = Scratch::new();
    let data = random.text(INGEST_BYTES);
    scratch.write(Ino::ROOT, "first.c", &data);
    scratch.commit();
    let before = scratch.volume.stats().totals();
    group.bench_function("known", |b| {
        b.iter_custom(|n| {
            sum(n, |_| {
                let took = timed(|| {
                    scratch.write(Ino::ROOT, "again.c", &data);
                    scratch.commit();
                });
                scratch.remove(Ino::ROOT, "again.c");
                took
            })
        });
    });
    // A commit in the middle of a file may cut it once where it was not cut before.
    let since = scratch.volume.stats().totals().since(&before);
    assert!(since.new_bytes * 100 <= since.written_bytes, "known data was stored again: {since:?}");
    group.finish();
}

/// A store without names.
struct Chunks {
    store: Store,
    kv: Arc<dyn Kv>,
    hint: PutHint,
}

impl Chunks {
    fn new(dir: &Path) -> Self {
        let id = VolumeId([7; 16]);
        let options = RocksOptions { create: true, ..RocksOptions::default() };
        let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&dir.join("meta"), &options).expect("a kv"));
        let shard = LocalShard::create(&dir.join("shard"), id, ShardId(0)).expect("a shard");
        let shards: Vec<(ShardId, Arc<dyn Shard>)> = vec![(ShardId(0), Arc::new(shard))];
        let (options, stats) = (StoreOptions::new(id), Arc::new(Stats::default()));
        let store = Store::open(kv.clone(), shards, options, NextIds::default(), stats);
        let codec = CodecChoice::Zstd { level: 1 };
        let group_bytes = 128 * 1024;
        let hint = PutHint { class: ClassId(0), shard: ShardId(0), codec, group_bytes };
        Self { store: store.expect("a store"), kv, hint }
    }

    fn put(&self, chunk: &Bytes, known: bool) {
        let put = self.store.put(chunk.clone(), self.hint).expect("a put");
        assert_eq!(put.known, known);
    }

    fn commit(&self) {
        let sealed = self.store.seal().expect("a seal");
        self.kv.write_parts(&[&sealed]).expect("a batch");
        self.store.committed(sealed);
    }
}

fn puts(c: &mut Criterion) {
    let mut group = group(c, "put", 3);
    let mut random = Random(4);
    for size in [4 * KIB, 64 * KIB] {
        let dir = TempDir::new().expect("a temporary directory");
        let chunks = Chunks::new(dir.path());
        group.throughput(Throughput::Bytes(size as u64));
        // Commits are not timed, but what waits for a full queue is.
        group.bench_function(format!("new_{}k", size / KIB), |b| {
            b.iter_custom(|n| {
                let batch: u64 = (32 * MIB / size) as u64;
                sum(n.div_ceil(batch), |i| {
                    let count = batch.min(n - i * batch);
                    let new: Vec<_> = (0..count).map(|_| Bytes::from(random.text(size))).collect();
                    let took = timed(|| new.iter().for_each(|chunk| chunks.put(chunk, false)));
                    chunks.commit();
                    took
                })
            });
        });
        let known: Vec<_> = (0..512).map(|_| Bytes::from(random.text(size))).collect();
        known.iter().for_each(|chunk| chunks.put(chunk, false));
        chunks.commit();
        let mut turn = known.iter().cycle();
        group.bench_function(format!("known_{}k", size / KIB), |b| {
            b.iter(|| chunks.put(turn.next().expect("a cycle has no end"), true));
        });
    }
    group.finish();
}

fn small_files(c: &mut Criterion) {
    const COUNT: usize = 1000;
    let scratch = Scratch::new();
    let mut random = Random(5);
    let mut batches = 0;
    let mut make = || {
        batches += 1;
        let dir = scratch.make(Ino::ROOT, &format!("batch-{batches}"), FileKind::Directory);
        let data: Vec<_> = (0..COUNT).map(|_| random.text(SMALL_FILE_BYTES)).collect();
        timed(|| {
            for (i, data) in data.iter().enumerate() {
                scratch.write(dir, &format!("{i}.c"), data);
            }
        })
    };
    let mut group = group(c, "small_files", 3);
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("create_write_finish", |b| {
        b.iter_custom(|n| {
            sum(n, |_| {
                let took = make();
                scratch.commit();
                took
            })
        });
    });
    group.bench_function("commit_1000", |b| {
        b.iter_custom(|n| {
            sum(n, |_| {
                make();
                timed(|| scratch.commit())
            })
        });
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    let scratch = Scratch::new();
    let mut random = Random(6);
    let text = scratch.write(Ino::ROOT, "text.c", &random.text(READ_BYTES));
    let noise = scratch.write(Ino::ROOT, "noise.bin", &random.incompressible(READ_BYTES));
    let little = scratch.write(Ino::ROOT, "little.c", &random.text(8 * MIB));
    scratch.commit();
    let mut group = group(c, "read", 3);
    for (name, ino, len) in [
        ("sequential_text", text, READ_BYTES),
        ("sequential_incompressible", noise, READ_BYTES),
        ("cached", little, 8 * MIB),
    ] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| scratch.read_all(ino, len)));
    }
    group.finish();
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    let asked = std::env::var("STRATAFS_BENCH_FILES").ok().and_then(|n| n.parse().ok());
    let files: usize = asked.unwrap_or(100_000);
    {
        let scratch = Scratch::new();
        let dirs = build_tree(&scratch, files);
        snapshots(&mut c, &scratch, &dirs);
        names(&mut c, &scratch, &dirs, files);
    }
    parts::parts(&mut c);
    parts::lookups(&mut c);
    ingest(&mut c);
    puts(&mut c);
    small_files(&mut c);
    reads(&mut c);
    c.final_summary();
    work::all(&ALLOC);
}
