//! Tables in RocksDB: one column family each, every write synced.

use std::path::{Path, PathBuf};

use log::warn;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor,
    DBCompressionType, DBRawIterator, DBRecoveryMode, ErrorKind, FlushOptions,
    IngestExternalFileOptions, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Batch, Changes, KeyRange, Kv, KvUsage, Order, Row, Rows, Table};
use crate::error::{Error, Result};

/// Memtable of one table. With two per table, most tables idle, and `write_buffer_bytes` over all
/// of them as the real bound.
const TABLE_WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Memory is handed to a memtable in pieces of this size; 16 idle tables must not add up.
const ARENA_BLOCK_BYTES: usize = 256 * 1024;
/// Tables that one batch may begin a piece of: all of a commit's.
const TABLES_OF_A_BATCH: usize = 8;
/// One row group per read: larger than RocksDB's 4 KiB because neighbours are wanted together.
const SCAN_BLOCK_BYTES: usize = 8 * 1024;
/// Bits of filter per key: 1 % of lookups of missing keys read a block in vain.
const FILTER_BITS: f64 = 10.0;
/// Replaying this much log takes about a second.
const WAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// RocksDB's own log: two files of this size are enough to explain an accident.
const INFO_LOG_BYTES_MAX: usize = 1024 * 1024;
/// RocksDB begins to merge when so many files are on level 0.
const LEVEL_0_FILES: u64 = 4;
/// Files are handed to the disk in pieces of this size while they are written.
const SYNC_PIECE_BYTES: u64 = 1024 * 1024;

/// How to open the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Cache of table blocks, indexes and filters over all tables.
    pub block_cache_bytes: usize,
    /// Memtables of all tables together.
    pub write_buffer_bytes: usize,
    /// Table files kept open.
    pub max_open_files: i32,
    /// Make the database if it is not there.
    pub create: bool,
    /// Refuse every write and write nothing: not even what the log holds into tables. A full or
    /// read-only disk can be read so.
    pub read_only: bool,
    /// Open it even if files of some tables cannot be read: for saving what can be.
    pub tolerant: bool,
}

impl Default for RocksOptions {
    /// Sizes that keep a mounted volume below 300 MB.
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 * 1024 * 1024,
            write_buffer_bytes: 48 * 1024 * 1024,
            max_open_files: 512,
            create: false,
            read_only: false,
            tolerant: false,
        }
    }
}

/// The tables of one volume in a RocksDB database. Dropping it waits for background work; what was
/// written is in the synced log and needs no flush.
pub struct RocksKv {
    db: rocksdb::DB,
    cache: Cache,
    write_buffer_bytes: usize,
}

impl RocksKv {
    /// Opens the database in the directory `path`, making missing tables.
    ///
    /// # Errors
    /// `NotAVolume` if there is none and `options.create` is not set; `Corrupt` if it is damaged;
    /// `Busy` if it is open elsewhere; `Unknown` if it has tables of a newer program; `Io`.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self> {
        // RocksDB would leave a directory and a log behind even where it refuses to create.
        if !options.create && !path.join("CURRENT").exists() {
            let what = format!("No metadata database in {}; create a volume first", path.display());
            return Err(Error::NotAVolume { what });
        }
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let tables = Table::ALL
            .iter()
            .map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(*table, &cache)));
        // RocksDB insists on "default"; nothing is ever written to it. Its buffer counts all the
        // same: so much the log preallocates, and so much room the database wants before it goes on
        // after a full disk.
        let mut unused = Options::default();
        unused.set_write_buffer_size(TABLE_WRITE_BUFFER_BYTES);
        let default = ColumnFamilyDescriptor::new("default", unused);
        let tables = std::iter::once(default).chain(tables);
        let how = database_options(options);
        let db = if options.read_only {
            rocksdb::DB::open_cf_descriptors_read_only(&how, path, tables, false)
        } else {
            rocksdb::DB::open_cf_descriptors(&how, path, tables)
        };
        let db = db.map_err(|error| open_error(path, &error))?;
        Ok(Self { db, cache, write_buffer_bytes: options.write_buffer_bytes })
    }

    /// Empties tables without reading them, so that damage in their files is gone with them. A
    /// crash meanwhile leaves each of them as it was, or empty.
    ///
    /// # Errors
    /// `Kv`.
    pub fn clear(&mut self, tables: &[Table]) -> Result<()> {
        for table in tables {
            self.db.drop_cf(table.name()).map_err(failed("clear", *table))?;
            let options = table_options(*table, &self.cache);
            self.db.create_cf(table.name(), &options).map_err(failed("clear", *table))?;
        }
        Ok(())
    }

    /// Writes what is only in the log into table files, for tests that damage these.
    ///
    /// # Errors
    /// `Kv`.
    #[doc(hidden)]
    pub fn flush(&self) -> Result<()> {
        let all = Table::ALL.iter();
        all.into_iter().try_for_each(|table| {
            self.db.flush_cf(self.handle(*table)).map_err(failed("flush", *table))
        })
    }

    /// Bytes of the files of one table, for benches.
    #[doc(hidden)]
    pub fn file_bytes(&self, table: Table) -> u64 {
        let size = rocksdb::properties::LIVE_SST_FILES_SIZE;
        self.db.property_int_value_cf(self.handle(table), size).ok().flatten().unwrap_or(0)
    }

    fn handle(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("open names every table")
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn dir(&self) -> &Path {
        self.db.path()
    }

    pub(super) fn ingest(
        &self,
        table: Table,
        how: &IngestExternalFileOptions,
        files: Vec<PathBuf>,
    ) -> Result<()> {
        let cf = self.handle(table);
        let done = self.db.ingest_external_file_cf_opts(cf, how, files);
        done.map_err(failed("load", table))?;
        if self.files_on_level_0(table) >= LEVEL_0_FILES {
            self.db.compact_range_cf(cf, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Files that were flushed and not merged since. Any key may be in any of them.
    pub(super) fn files_on_level_0(&self, table: Table) -> u64 {
        let files = rocksdb::properties::num_files_at_level(0);
        let files = self.db.property_value_cf(self.handle(table), &files).ok().flatten();
        files.and_then(|files| files.parse().ok()).unwrap_or(0)
    }

    /// Bytes of the memtables that are not flushed yet.
    fn unflushed(&self, table: Table) -> u64 {
        let size = rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;
        self.db.property_int_value_cf(self.handle(table), size).ok().flatten().unwrap_or(0)
    }

    /// Makes room for `bytes` more in the memtables. RocksDB begins to flush by itself before they
    /// are full, but it does not wait: on a slow disk they would grow beyond any bound. Its own
    /// stalling does wait, also for memtables that a long scan holds, which may wait for us.
    ///
    /// On a full disk there is no room to be made; the write itself says so then.
    fn make_room(&self, bytes: usize) {
        let bound = self.write_buffer_bytes as u64;
        let mut sizes: Vec<(u64, Table)> =
            Table::ALL.iter().map(|table| (self.unflushed(*table), *table)).collect();
        let mut all: u64 = sizes.iter().map(|(size, _)| *size).sum();
        sizes.sort_unstable();
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        let bytes = (bytes + ARENA_BLOCK_BYTES * TABLES_OF_A_BATCH) as u64;
        while all.saturating_add(bytes) > bound {
            let Some((size, table)) = sizes.pop() else { return };
            if size <= ARENA_BLOCK_BYTES as u64 {
                return;
            }
            if let Err(error) = self.db.flush_cf_opt(self.handle(table), &flush) {
                warn!("Memtable not flushed table={} cause={error}", table.name());
                return;
            }
            all -= size;
        }
    }

    /// Sum of an integer property over all tables; a property RocksDB cannot tell counts as 0.
    fn sum(&self, property: &rocksdb::properties::PropName) -> u64 {
        Table::ALL
            .iter()
            .filter_map(|table| {
                self.db.property_int_value_cf(self.handle(*table), property).ok().flatten()
            })
            .sum()
    }
}

fn database_options(options: &RocksOptions) -> Options {
    let mut o = Options::default();
    o.create_if_missing(options.create);
    o.create_missing_column_families(true);
    o.set_paranoid_checks(!options.tolerant);
    // A torn tail of the log is a commit that never returned: drop it, keep all before it. RocksDB
    // cannot tell it from damage in the middle of the log; the volume's file `last-commit` does.
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A log that is needed and missing is an error, not a hole between two others.
    o.set_track_and_verify_wals_in_manifest(true);
    o.set_max_total_wal_size(WAL_BYTES_MAX);
    o.set_db_write_buffer_size(options.write_buffer_bytes);
    o.set_max_open_files(options.max_open_files);
    o.set_max_background_jobs(2);
    // What is read next to each other lies next to each other: the kernel may read ahead.
    o.set_advise_random_on_open(false);
    o.set_bytes_per_sync(SYNC_PIECE_BYTES);
    o.set_log_level(LogLevel::Warn);
    o.set_keep_log_file_num(2);
    o.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    o.set_stats_dump_period_sec(0);
    o.set_stats_persist_period_sec(0);
    o
}

pub(super) fn table_options(table: Table, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    if is_looked_up(table) {
        // Ribbon needs a third less memory than bloom; the newest level, rewritten often, keeps
        // bloom because it is built faster. In partitions, the index and filter of a huge table
        // pass through the cache piece by piece instead of as a whole.
        blocks.set_hybrid_ribbon_filter(FILTER_BITS, 1);
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
    }
    if is_scanned(table) {
        blocks.set_block_size(SCAN_BLOCK_BYTES);
    }
    let mut o = Options::default();
    o.set_block_based_table_factory(&blocks);
    o.set_write_buffer_size(TABLE_WRITE_BUFFER_BYTES);
    o.set_max_write_buffer_number(2);
    o.set_arena_block_size(ARENA_BLOCK_BYTES);
    // Fingerprints are random bytes.
    let random = table == Table::Fingerprint;
    o.set_compression_type(if random { DBCompressionType::None } else { DBCompressionType::Lz4 });
    if is_scanned(table) || table == Table::Inode {
        o.set_bottommost_compression_type(DBCompressionType::Zstd);
    }
    o
}

fn is_looked_up(table: Table) -> bool {
    use Table::{Chunk, Dirent, Extent, Fingerprint, Inode, Xattr};
    // Extents too: with snapshots, putting a new one asks whether there was an old one.
    matches!(table, Inode | Dirent | Extent | Fingerprint | Chunk | Xattr)
}

fn is_scanned(table: Table) -> bool {
    matches!(table, Table::Dirent | Table::Extent | Table::History)
}

fn open_error(path: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    let place = path.display();
    if is_full(error) {
        let place = format!("{place} (opening it read-only needs none)");
        return Error::NoSpace { place };
    }
    let damaged = || {
        let way_out = "restore the directory from a copy of the volume directory";
        Error::corrupt(format!("metadata database in {place}"), format!("{text}; {way_out}"))
    };
    match error.kind() {
        ErrorKind::Corruption => damaged(),
        // A file that the database names is missing.
        ErrorKind::IOError if text.contains("No such file") => damaged(),
        ErrorKind::InvalidArgument if text.contains("olumn famil") => Error::Unknown {
            what: format!(
                "The metadata database in {place} has tables this program does not know ({text}); \
                 use the version that wrote it"
            ),
        },
        ErrorKind::IOError if is_locked(&text) => Error::Busy {
            what: format!("The metadata database in {place} is open in another process ({text})"),
        },
        _ => Error::io("open the metadata database in", path, std::io::Error::other(text)),
    }
}

/// RocksDB's words for a lock that somebody has; a lock file that cannot be made is another matter.
fn is_locked(text: &str) -> bool {
    text.contains("While lock file") || text.contains("lock hold by")
}

/// True if the disk was full. RocksDB then refuses all writes until there is room for a memtable
/// again, and goes on by itself within seconds.
fn is_full(error: &rocksdb::Error) -> bool {
    // The binding has no code for it; these are the words of RocksDB's status.
    error.kind() == ErrorKind::IOError && error.to_string().contains("No space left on device")
}

pub(super) fn failed(op: &'static str, table: Table) -> impl Fn(rocksdb::Error) -> Error {
    move |error| Error::Kv { op, table: table.name(), detail: error.to_string() }
}

impl Kv for RocksKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.handle(table), key).map_err(failed("get", table))
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        let Some(read) = bounds(range) else { return Box::new(std::iter::empty()) };
        let iter = self.db.raw_iterator_cf_opt(self.handle(table), read);
        Box::new(Scan { iter, table, order, state: ScanState::Fresh })
    }

    fn scan_once(&self, table: Table, range: &KeyRange) -> Rows<'_> {
        let Some(mut read) = bounds(range) else { return Box::new(std::iter::empty()) };
        read.fill_cache(false);
        let iter = self.db.raw_iterator_cf_opt(self.handle(table), read);
        Box::new(Scan { iter, table, order: Order::Forward, state: ScanState::Fresh })
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.write_parts(&[&batch])
    }

    fn write_parts(&self, parts: &[&dyn Changes]) -> Result<()> {
        let bytes = parts.iter().map(|part| part.bytes()).sum();
        self.make_room(bytes);
        // One allocation: a batch that grows by doubling would take twice its size.
        let mut out = WriteBatch::with_capacity_bytes(bytes);
        for part in parts {
            part.each(&mut |table, key, value| {
                let table = self.handle(table);
                match value {
                    Some(value) => out.put_cf(table, key, value),
                    None => out.delete_cf(table, key),
                }
            });
        }
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        self.db.write_opt(out, &sync).map_err(|error| {
            if is_full(&error) {
                return Error::NoSpace { place: self.db.path().display().to_string() };
            }
            Error::Kv { op: "write", table: "all", detail: error.to_string() }
        })
    }

    fn usage(&self) -> KvUsage {
        use rocksdb::properties::{
            CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_TABLE_READERS_MEM, SIZE_ALL_MEM_TABLES,
        };
        let all_buffers = self.sum(SIZE_ALL_MEM_TABLES);
        let write_buffer_bytes = self.sum(CUR_SIZE_ALL_MEM_TABLES);
        let block_cache_bytes = self.cache.get_usage() as u64;
        let reader_bytes = self.sum(ESTIMATE_TABLE_READERS_MEM);
        KvUsage {
            disk_bytes: file_bytes(self.db.path()),
            memory_bytes: all_buffers + block_cache_bytes + reader_bytes,
            write_buffer_bytes,
            scanned_buffer_bytes: all_buffers.saturating_sub(write_buffer_bytes),
            block_cache_bytes,
            reader_bytes,
        }
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        Box::new(RocksSnapshot { db: self, view: self.db.snapshot() })
    }
}

/// Bytes of all files in the database's directory: tables, log and manifest.
fn file_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

/// Read options for a range; `None` if it is empty.
fn bounds(range: &KeyRange) -> Option<ReadOptions> {
    let mut read = ReadOptions::default();
    if let Some(upper) = &range.upper {
        if *upper <= range.lower {
            return None;
        }
        read.set_iterate_upper_bound(upper.clone());
    }
    read.set_iterate_lower_bound(range.lower.clone());
    Some(read)
}

/// One state of the database, kept while it is looked at.
struct RocksSnapshot<'a> {
    db: &'a RocksKv,
    view: rocksdb::Snapshot<'a>,
}

impl Kv for RocksSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.view.get_cf(self.db.handle(table), key).map_err(failed("get", table))
    }

    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        let Some(read) = bounds(range) else { return Box::new(std::iter::empty()) };
        let iter = self.view.raw_iterator_cf_opt(self.db.handle(table), read);
        Box::new(Scan { iter, table, order, state: ScanState::Fresh })
    }

    fn write(&self, _batch: Batch) -> Result<()> {
        Err(Error::ReadOnly { what: "a snapshot of the metadata".to_owned() })
    }

    fn usage(&self) -> KvUsage {
        self.db.usage()
    }

    fn snapshot(&self) -> Box<dyn Kv + '_> {
        Box::new(RocksSnapshot { db: self.db, view: self.db.db.snapshot() })
    }
}

#[derive(PartialEq, Eq)]
enum ScanState {
    Fresh,
    Running,
    Done,
}

/// Rows between the bounds its iterator was made with.
struct Scan<'a> {
    iter: DBRawIterator<'a>,
    table: Table,
    order: Order,
    state: ScanState,
}

impl Iterator for Scan<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        match (&self.state, self.order) {
            (ScanState::Done, _) => return None,
            (ScanState::Fresh, Order::Forward) => self.iter.seek_to_first(),
            (ScanState::Fresh, Order::Backward) => self.iter.seek_to_last(),
            (ScanState::Running, Order::Forward) => self.iter.next(),
            (ScanState::Running, Order::Backward) => self.iter.prev(),
        }
        if let Some((key, value)) = self.iter.item() {
            self.state = ScanState::Running;
            return Some(Ok((key.into(), value.into())));
        }
        self.state = ScanState::Done;
        self.iter.status().err().map(|error| Err(failed("scan", self.table)(error)))
    }
}

impl std::fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksKv({})", self.db.path().display())
    }
}
