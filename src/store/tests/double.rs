//! Doubles: a database of maps, a shard that fails when told to, bytes that do not compress.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::kv::{Batch, KeyRange, Kv, KvUsage, MemoryKv, Order, Rows, Table};
use crate::shard::{Appender, MemoryShard, Shard, Space};
use crate::types::ContainerId;

/// Reproducible noise from a seed, as long as needed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

type Hook = Box<dyn FnOnce(&MapKv) + Send>;

/// Tables in memory that can be counted, and interrupted.
#[derive(Default)]
pub(super) struct MapKv {
    tables: MemoryKv,
    chunk_lookups: AtomicUsize,
    hook: Mutex<Option<Hook>>,
}

impl MapKv {
    /// Runs `hook` between the next look at a fingerprint and its answer.
    pub(super) fn on_next_fingerprint(&self, hook: impl FnOnce(&Self) + Send + 'static) {
        *self.hook.lock() = Some(Box::new(hook));
    }

    /// How often a row of table chunk was asked for since the last call.
    pub(super) fn chunk_lookups(&self) -> usize {
        self.chunk_lookups.swap(0, Relaxed)
    }

    pub(super) fn rows(&self, table: Table) -> usize {
        self.scan(table, &KeyRange::all(), Order::Forward).count()
    }
}

impl Kv for MapKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.tables.get(table, key);
        if table == Table::Chunk {
            self.chunk_lookups.fetch_add(1, Relaxed);
        }
        if table == Table::Fingerprint {
            let hook = self.hook.lock().take();
            hook.into_iter().for_each(|hook| hook(self));
        }
        found
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        self.tables.scan(table, range, order)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.tables.write(batch)
    }

    fn usage(&self) -> KvUsage {
        self.tables.usage()
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        self.tables.snapshot()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    full: bool,
    broken: bool,
    /// Fails once.
    sync: bool,
    /// What a read gives.
    read_errno: Option<i32>,
    gone: bool,
    /// Reads that touch this byte of a container fail.
    bad_sector: Option<u64>,
    delay: Duration,
}

/// A shard in memory whose writing end fails as told.
#[derive(Default)]
pub(super) struct FailingShard {
    inner: MemoryShard,
    faults: Arc<Mutex<Faults>>,
}

impl FailingShard {
    pub(super) fn fill_up(&self, full: bool) {
        self.faults.lock().full = full;
    }

    pub(super) fn break_writes(&self) {
        self.faults.lock().broken = true;
    }

    pub(super) fn break_sync(&self) {
        self.faults.lock().sync = true;
    }

    /// Reads give `errno`, and the shard may be gone as a whole.
    pub(super) fn fail_reads(&self, errno: Option<i32>, gone: bool) {
        let mut faults = self.faults.lock();
        (faults.read_errno, faults.gone) = (errno, gone);
    }

    pub(super) fn spoil_sector(&self, at: u64) {
        self.faults.lock().bad_sector = Some(at);
    }

    pub(super) fn slow_down(&self, delay: Duration) {
        self.faults.lock().delay = delay;
    }

    fn wrap(&self, inner: Box<dyn Appender>) -> Box<dyn Appender> {
        Box::new(FailingAppender { inner, faults: Arc::clone(&self.faults) })
    }
}

impl Shard for FailingShard {
    fn create(&self, id: ContainerId) -> Result<Box<dyn Appender>> {
        Ok(self.wrap(self.inner.create(id)?))
    }
    fn reopen(&self, id: ContainerId, len: u64) -> Result<Box<dyn Appender>> {
        Ok(self.wrap(self.inner.reopen(id, len)?))
    }
    fn read_at(&self, id: ContainerId, offset: u64, buf: &mut [u8]) -> Result<()> {
        let faults = *self.faults.lock();
        let reads = offset..offset + buf.len() as u64;
        let bad = faults.bad_sector.filter(|at| reads.contains(at)).map(|_| libc::EIO);
        if let Some(errno) = faults.read_errno.or(bad) {
            let error = io::Error::from_raw_os_error(errno);
            return Err(Error::io("read", Path::new("failing"), error));
        }
        self.inner.read_at(id, offset, buf)
    }
    fn len(&self, id: ContainerId) -> Result<u64> {
        self.inner.len(id)
    }
    fn delete(&self, id: ContainerId) -> Result<()> {
        self.inner.delete(id)
    }
    fn list(&self) -> Result<Vec<ContainerId>> {
        self.inner.list()
    }
    fn space(&self) -> Result<Space> {
        self.inner.space()
    }
    fn probe(&self) -> Result<()> {
        let gone = self.faults.lock().gone;
        if gone { Err(Error::ShardMissing { what: "failing".to_owned() }) } else { Ok(()) }
    }
    fn place(&self) -> String {
        "failing".to_owned()
    }
}

struct FailingAppender {
    inner: Box<dyn Appender>,
    faults: Arc<Mutex<Faults>>,
}

fn broken(op: &'static str) -> Error {
    Error::io(op, Path::new("failing"), io::Error::other("the double says so"))
}

impl Appender for FailingAppender {
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64> {
        let faults = *self.faults.lock();
        std::thread::sleep(faults.delay);
        if faults.full {
            return Err(Error::NoSpace { place: "failing".to_owned() });
        }
        if faults.broken {
            return Err(broken("write"));
        }
        self.inner.append(parts)
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.faults.lock().sync) {
            return Err(broken("sync"));
        }
        self.inner.sync()
    }
}
