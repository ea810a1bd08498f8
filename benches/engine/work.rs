//! The work of an operation: what noise does not touch. Printed as a table after the benches.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use stratafs::config::Config;
use stratafs::env::Faults;
use stratafs::error::Result;
use stratafs::kv::{Batch, Changes, KeyRange, Kv, KvUsage, Order, Rows, Table};
use stratafs::shard::Shard;
use stratafs::sys::alloc::CountingAlloc;
use stratafs::types::{At, Ino, ShardId, VolumeId};
use stratafs::volume::{LocalStorage, Opening, Storage};

use super::{INGEST_BYTES, MIB, SMALL_FILE_BYTES, Scratch};
use crate::random::Random;

/// Counts what a volume asks of its database.
#[derive(Debug, Default)]
struct KvCounts {
    gets: AtomicU64,
    scans: AtomicU64,
    writes: AtomicU64,
}

struct CountingKv {
    inner: Arc<dyn Kv>,
    counts: Arc<KvCounts>,
}

impl Kv for CountingKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.counts.gets.fetch_add(1, Relaxed);
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        self.counts.scans.fetch_add(1, Relaxed);
        self.inner.scan(table, range, order)
    }

    fn scan_once(&self, table: Table, range: &KeyRange) -> Rows<'_> {
        self.counts.scans.fetch_add(1, Relaxed);
        self.inner.scan_once(table, range)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.counts.writes.fetch_add(1, Relaxed);
        self.inner.write(batch)
    }

    fn write_parts(&self, parts: &[&dyn Changes]) -> Result<()> {
        self.counts.writes.fetch_add(1, Relaxed);
        self.inner.write_parts(parts)
    }

    fn usage(&self) -> KvUsage {
        self.inner.usage()
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        self.inner.snapshot()
    }
}

/// A local volume whose database is counted.
#[derive(Debug, Default)]
struct CountingStorage(Arc<KvCounts>);

impl Storage for CountingStorage {
    fn tables(&self, dir: &Path, config: &Config, how: Opening) -> Result<Arc<dyn Kv>> {
        let inner = LocalStorage.tables(dir, config, how)?;
        Ok(Arc::new(CountingKv { inner, counts: Arc::clone(&self.0) }))
    }

    fn create_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        LocalStorage.create_shard(dir, volume, id, faults)
    }

    fn open_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        LocalStorage.open_shard(dir, volume, id, faults)
    }
}

/// All counters at one time.
#[derive(Clone, Copy)]
struct Counted([u64; 7]);

/// A table of work.
struct Work<'a> {
    alloc: &'a CountingAlloc,
    kv: Arc<KvCounts>,
}

impl<'a> Work<'a> {
    fn new(alloc: &'a CountingAlloc, kv: Arc<KvCounts>) -> Self {
        let titles = ["allocs", "KiB", "gets", "scans", "batches", "writes", "KiB out"];
        print!("\n{:34} {:>10}", "work of one operation", "time");
        titles.iter().for_each(|title| print!(" {title:>8}"));
        println!();
        Self { alloc, kv }
    }

    /// Runs `operation`, which is `count` operations, and prints a line for one of them.
    fn of(&self, what: &str, count: u64, operation: impl FnOnce()) {
        let (before, start) = (self.now(), Instant::now());
        operation();
        let took = start.elapsed();
        let after = self.now();
        let each = took / u32::try_from(count).expect("a few thousand");
        let each = Duration::from_nanos(u64::try_from(each.as_nanos()).unwrap_or(u64::MAX));
        print!("{what:34} {:>10}", format!("{each:.1?}"));
        for (at, (after, before)) in after.0.iter().zip(before.0).enumerate() {
            // Precise enough for a table.
            #[allow(clippy::cast_precision_loss)]
            let per = (after - before) as f64 / count as f64;
            print!(" {:>8.2}", if matches!(at, 1 | 6) { per / 1024.0 } else { per });
        }
        println!();
    }

    fn now(&self) -> Counted {
        let (calls, bytes) = self.alloc.counts();
        let KvCounts { gets, scans, writes } = &*self.kv;
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let of_process = |name: &str| {
            let line = io.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
        };
        let (written, out) = (of_process("syscw:"), of_process("wchar:"));
        let [gets, scans, writes] = [gets, scans, writes].map(|count| count.load(Relaxed));
        Counted([calls, bytes, gets, scans, writes, written, out])
    }
}

/// Operations of each kind, with the work behind one of them.
pub fn all(alloc: &CountingAlloc) {
    const FILES: usize = 1000;
    let storage = CountingStorage::default();
    let counts = Arc::clone(&storage.0);
    let scratch = Scratch::on(Arc::new(storage));
    let mut random = Random(8);
    let work = Work::new(alloc, counts);
    let mib = (INGEST_BYTES / MIB) as u64;
    let (text, noise) = (random.text(INGEST_BYTES), random.incompressible(INGEST_BYTES));
    for (name, file, data) in [
        ("1 MiB of new text", "t.c", &text),
        ("1 MiB of new noise", "n.bin", &noise),
        ("1 MiB of known noise", "k.bin", &noise),
        ("1 MiB of a new image", "d.img", &text),
    ] {
        work.of(name, mib, || {
            scratch.write(Ino::ROOT, file, data);
            scratch.commit();
        });
    }
    let image = scratch.volume.lookup(At::Live, Ino::ROOT, b"d.img").expect("a lookup");
    let image = image.expect("it was written").ino;
    let file = scratch.volume.open_file(At::Live, image).expect("it is there");
    work.of("4 KiB overwritten in the image", 2000, || {
        for _ in 0..2000 {
            let page = random.next() % (INGEST_BYTES as u64 / 4096);
            file.write(page * 4096, &random.incompressible(4096)).expect("a write");
        }
        scratch.commit();
    });
    work.of("1 MiB of the image read", mib, || scratch.read_all(image, INGEST_BYTES));
    drop(file);
    let small: Vec<_> = (0..FILES).map(|_| random.text(SMALL_FILE_BYTES)).collect();
    work.of("new file of 4 KiB", FILES as u64, || {
        for (number, data) in small.iter().enumerate() {
            scratch.write(Ino::ROOT, &format!("{number}.c"), data);
        }
    });
    work.of("commit, per file", FILES as u64, || scratch.commit());
    work.of("lookup of a file", FILES as u64, || {
        for number in 0..FILES {
            let name = format!("{number}.c");
            black_box(
                scratch.volume.lookup(At::Live, Ino::ROOT, name.as_bytes()).expect("a lookup"),
            );
        }
    });
    work.of("unlink and commit", FILES as u64, || {
        (0..FILES).for_each(|number| scratch.remove(Ino::ROOT, &format!("{number}.c")));
        scratch.commit();
    });
}
