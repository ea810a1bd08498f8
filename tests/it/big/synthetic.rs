//! A volume with the tables of a very large one: rows as the real encoders write them, and sparse
//! files in place of the containers, which nobody reads.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs::cursor::{Reader, put_varint};
use stratafs::kv::{Batch, Kv, MemoryKv, RocksKv, RocksOptions, RowSink, Table};
use stratafs::meta::Meta;
use stratafs::store::{ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health};
use stratafs::types::{
    At, ChunkNo, ClassId, ContainerId, Dirent, Extent, FileKind, Fingerprint, Ino, Inode, ShardId,
    Timestamp,
};

/// Raw bytes of every chunk: what cutting by content makes of most classes.
const CHUNK_BYTES: u32 = 64 * 1024;
/// Chunks that do not compress fill a container of 32 MiB with about this many.
const CHUNKS_PER_CONTAINER: u64 = 500;
/// Header and directory of a frame with one chunk, and the chunk, up to a multiple of 8.
const FRAME_BYTES: u32 = 32 + 44 + CHUNK_BYTES;
const FRAME_STEP: u32 = FRAME_BYTES.next_multiple_of(8);
const FILES_PER_DIR: u64 = 1000;
const CHUNKS_PER_FILE: u64 = 10;
/// Coprime to every number of chunks used here, so that multiplying by it shuffles them.
const SHUFFLE: u64 = 1_000_003;
/// One in this many files has no content, so that its share of the chunks is garbage.
const EMPTY_SHARE: u64 = 20;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub chunks: u64,
    pub files: u64,
    /// Of the files: those that lie together in one directory.
    pub wide_files: u64,
}

impl Scale {
    pub fn new(chunks: u64) -> Self {
        let files = chunks / CHUNKS_PER_FILE;
        Self { chunks, files, wide_files: files / 20 }
    }

    /// Files that have content.
    pub fn full_files(self) -> u64 {
        self.files - self.files / EMPTY_SHARE
    }

    fn containers(self) -> u64 {
        self.chunks.div_ceil(CHUNKS_PER_CONTAINER)
    }

    /// Files in each directory; the first is the wide one.
    fn dirs(self) -> impl Iterator<Item = u64> {
        let rest = self.files - self.wide_files;
        let dirs = rest.div_ceil(FILES_PER_DIR);
        let narrow = (0..dirs).map(move |dir| FILES_PER_DIR.min(rest - dir * FILES_PER_DIR));
        std::iter::once(self.wide_files).chain(narrow)
    }
}

/// The row `counters` (docs/FORMAT.md, 2.3).
struct Counters([u64; 6]);

impl Counters {
    fn load(kv: &dyn Kv) -> Self {
        let row = kv.get(Table::Super, b"counters").unwrap().expect("every volume has it");
        let mut reader = Reader::new(&row);
        Self([(); 6].map(|()| reader.varint().expect("six numbers")))
    }

    fn store(&self, kv: &dyn Kv) {
        let mut row = Vec::new();
        self.0.iter().for_each(|number| put_varint(&mut row, *number));
        let mut batch = Batch::default();
        batch.put(Table::Super, &b"counters"[..], row);
        kv.write(batch).unwrap();
    }
}

/// Fills the closed volume in `volume`, whose directory `ino` becomes the root of it all.
pub fn fill(volume: &Path, scale: Scale, top: Ino) {
    let options = RocksOptions::default();
    let kv = RocksKv::open(&volume.join("meta"), &options).unwrap();
    let mut counters = Counters::load(&kv);
    let [_, next_ino, _, live_bytes, next_chunk, next_container] = &mut counters.0;
    let first = (*next_chunk, *next_container);
    *live_bytes += load_names(&kv, scale, top, next_ino, first.0);
    let shuffle = Shuffle::new(scale.chunks, first.0);
    kv.load_sorted(&[Table::Chunk], |sink| chunk_rows(&shuffle, first.1, sink)).unwrap();
    kv.load_sorted(&[Table::Fingerprint], |sink| fingerprint_rows(&shuffle, sink)).unwrap();
    let shard = volume.join("shards/0");
    kv.load_sorted(&[Table::Container], |sink| containers(scale, first, &shard, sink)).unwrap();
    *next_chunk += scale.chunks;
    *next_container += scale.containers();
    counters.store(&kv);
}

/// Directories, files and extents; returns the bytes that the extents map.
fn load_names(kv: &RocksKv, scale: Scale, top: Ino, next_ino: &mut u64, first_chunk: u64) -> u64 {
    // Staged over an empty database, so that nothing is looked up; the rows are the same.
    let meta = Meta::open(Arc::new(MemoryKv::new())).unwrap();
    let real_top = top_inode(kv, top);
    let tables = [Table::Inode, Table::Dirent, Table::Extent];
    let (mut mapped, mut chunk, mut number) = (0, first_chunk, 0);
    kv.load_sorted(&tables, |sink| {
        let first_dir = *next_ino;
        let dirs = scale.dirs().count() as u64;
        {
            let mut edit = meta.edit();
            let nlink = real_top.nlink + u32::try_from(dirs).unwrap();
            edit.put_inode(top, &Inode { nlink, ..real_top.clone() })?;
            let mut ino = first_dir;
            for (number, files) in scale.dirs().enumerate() {
                let dirent = Dirent { ino: Ino(ino), kind: FileKind::Directory };
                edit.put_dirent(top, dir_name(number).as_bytes(), dirent)?;
                ino += 1 + files;
            }
        }
        drain(&meta, sink)?;
        for files in scale.dirs() {
            let dir = Ino(*next_ino);
            let mut edit = meta.edit();
            edit.put_inode(dir, &inode(FileKind::Directory, 0, top))?;
            for file in 0..files {
                let ino = Ino(dir.0 + 1 + file);
                let dirent = Dirent { ino, kind: FileKind::Regular };
                edit.put_dirent(dir, file_name(file).as_bytes(), dirent)?;
                // The last chunks in number order are nobody's.
                let chunks = if number < scale.full_files() { CHUNKS_PER_FILE } else { 0 };
                number += 1;
                let bytes = chunks * u64::from(CHUNK_BYTES);
                edit.put_inode(ino, &inode(FileKind::Regular, bytes, Ino(0)))?;
                for at in 0..chunks {
                    let offset = at * u64::from(CHUNK_BYTES);
                    let chunk_no = ChunkNo(chunk);
                    let extent =
                        Extent { offset, len: CHUNK_BYTES, chunk: chunk_no, chunk_offset: 0 };
                    edit.put_extent(ino, &extent)?;
                    chunk += 1;
                }
                mapped += bytes;
            }
            drop(edit);
            drain(&meta, sink)?;
            *next_ino += 1 + files;
        }
        Ok(())
    })
    .unwrap();
    mapped
}

fn top_inode(kv: &RocksKv, top: Ino) -> Inode {
    // Through the real reader; it wants a database of its own.
    let row = kv.get(Table::Inode, &top.0.to_be_bytes()).unwrap().expect("made before");
    let memory = MemoryKv::new();
    let mut batch = Batch::default();
    batch.put(Table::Inode, top.0.to_be_bytes(), row);
    memory.write(batch).unwrap();
    let meta = Meta::open(Arc::new(memory)).unwrap();
    let inode = meta.read().inode(At::Live, top).unwrap();
    inode.expect("just put there")
}

/// Hands what was staged to `sink` and forgets it.
fn drain(meta: &Meta, sink: &mut RowSink<'_>) -> stratafs::error::Result<()> {
    meta.freeze();
    for change in meta.frozen_batch().changes {
        sink(change.table, &change.key, &change.value.expect("nothing is deleted"))?;
    }
    meta.committed();
    Ok(())
}

pub fn dir_name(number: usize) -> String {
    if number == 0 { "wide".to_owned() } else { format!("d{number}") }
}

pub fn file_name(number: u64) -> String {
    format!("file-{number:07}.dat")
}

fn inode(kind: FileKind, bytes: u64, parent: Ino) -> Inode {
    let is_dir = kind == FileKind::Directory;
    let time = Timestamp { secs: 1_700_000_000, nanos: 123_456_789 };
    Inode {
        kind,
        perm: if is_dir { 0o755 } else { 0o644 },
        uid: 1000,
        gid: 1000,
        nlink: if is_dir { 2 } else { 1 },
        rdev: 0,
        size: if is_dir { 4096 } else { bytes },
        mapped: bytes,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        class: ClassId(0),
        parent,
        home: 0,
        stamp: 0,
        target: Box::default(),
    }
}

/// Fingerprints that rise with a rank, and chunks that lie in them at random.
struct Shuffle {
    chunks: u64,
    first: u64,
    inverse: u64,
}

impl Shuffle {
    fn new(chunks: u64, first: u64) -> Self {
        // Euclid: inverse · SHUFFLE ≡ 1 modulo `chunks`.
        let modulus = i128::from(chunks);
        let (mut old, mut new) = ((i128::from(SHUFFLE), 1_i128), (modulus, 0_i128));
        while new.0 != 0 {
            let times = old.0 / new.0;
            (old, new) = (new, (old.0 - times * new.0, old.1 - times * new.1));
        }
        assert_eq!(old.0, 1, "coprime");
        Self { chunks, first, inverse: u64::try_from(old.1.rem_euclid(modulus)).unwrap() }
    }

    fn times(&self, number: u64, factor: u64) -> u64 {
        let product = u128::from(number) * u128::from(factor) % u128::from(self.chunks);
        u64::try_from(product).expect("below the number of chunks")
    }

    fn chunk_of_rank(&self, rank: u64) -> ChunkNo {
        ChunkNo(self.first + self.times(rank, SHUFFLE))
    }

    fn fingerprint_of_rank(&self, rank: u64) -> Fingerprint {
        let spread = (u128::from(rank) << 64) / u128::from(self.chunks);
        let mut bytes = Fingerprint::of(&rank.to_le_bytes()).0;
        bytes[..8].copy_from_slice(&u64::try_from(spread).expect("below 2^64").to_be_bytes());
        Fingerprint(bytes)
    }

    fn fingerprint_of(&self, index: u64) -> Fingerprint {
        self.fingerprint_of_rank(self.times(index, self.inverse))
    }
}

fn chunk_rows(
    shuffle: &Shuffle,
    first_container: u64,
    sink: &mut RowSink<'_>,
) -> stratafs::error::Result<()> {
    for index in 0..shuffle.chunks {
        let place = u32::try_from(index % CHUNKS_PER_CONTAINER).unwrap();
        let row = ChunkRow {
            health: Health::Good,
            container: ContainerId(first_container + index / CHUNKS_PER_CONTAINER),
            frame_offset: 64 + place * FRAME_STEP,
            frame_len: FRAME_BYTES,
            frame_raw_len: CHUNK_BYTES,
            offset: 0,
            raw_len: CHUNK_BYTES,
            fingerprint: shuffle.fingerprint_of(index),
        };
        sink(Table::Chunk, &(shuffle.first + index).to_be_bytes(), &row.to_bytes())?;
    }
    Ok(())
}

fn fingerprint_rows(shuffle: &Shuffle, sink: &mut RowSink<'_>) -> stratafs::error::Result<()> {
    for rank in 0..shuffle.chunks {
        let row = FingerprintRow { health: Health::Good, chunk: shuffle.chunk_of_rank(rank) };
        sink(Table::Fingerprint, &shuffle.fingerprint_of_rank(rank).0, &row.to_bytes())?;
    }
    Ok(())
}

fn containers(
    scale: Scale,
    (first_chunk, first_container): (u64, u64),
    shard: &Path,
    sink: &mut RowSink<'_>,
) -> stratafs::error::Result<()> {
    for number in 0..scale.containers() {
        let from = number * CHUNKS_PER_CONTAINER;
        let chunks = CHUNKS_PER_CONTAINER.min(scale.chunks - from);
        let stored_bytes = chunks * u64::from(FRAME_STEP);
        let footer = 8 + chunks * (4 + 32 + 44) + 32;
        let row = ContainerRow {
            state: ContainerState::Sealed,
            class: ClassId(0),
            shard: ShardId(0),
            bytes: 64 + stored_bytes + footer,
            chunks,
            raw_bytes: chunks * u64::from(CHUNK_BYTES),
            stored_bytes,
            first: ChunkNo(first_chunk + from),
            last: ChunkNo(first_chunk + from + chunks - 1),
        };
        let id = first_container + number;
        File::create(container_path(shard, id)).unwrap().set_len(row.bytes).unwrap();
        sink(Table::Container, &id.to_be_bytes(), &row.to_bytes())?;
    }
    Ok(())
}

fn container_path(shard: &Path, id: u64) -> PathBuf {
    let folder = shard.join(format!("containers/{:02x}", id & 0xff));
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{id:016x}.sfc"))
}
