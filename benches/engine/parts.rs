//! The parts a write goes through, one by one, and lookups in a large index.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use stratafs::codec::{CodecChoice, encode};
use stratafs::config::Chunking;
use stratafs::ingest::cuts;
use stratafs::kv::{Kv, RocksKv, RocksOptions, Table};
use stratafs::shard::{LocalShard, Shard};
use stratafs::store::{FingerprintRow, Health};
use stratafs::types::{ChunkNo, ContainerId, Fingerprint, ShardId, VolumeId};
use tempfile::TempDir;

use super::{KIB, MIB, group, sum, timed};
use crate::random::Random;

/// Rows of the large index unless `STRATAFS_BENCH_CHUNKS` says otherwise; 20,000,000 take a minute
/// and 1.5 GB on the disk.
const CHUNKS: u64 = 2_000_000;
/// Lookups of one sample.
const LOOKUPS: u64 = 1000;

/// Cutting, fingerprints, compression, and a container's appends.
pub fn parts(c: &mut Criterion) {
    let mut random = Random(11);
    let text = random.text(8 * MIB);
    let noise = random.incompressible(8 * MIB);
    let mut group = group(c, "parts", 2);
    group.throughput(Throughput::Bytes((8 * MIB) as u64));
    for avg in [16, 64, 256] {
        let chunking = Chunking::cdc(avg * 1024);
        group.bench_function(format!("cut_{avg}k"), |b| {
            b.iter(|| black_box(cuts(chunking, black_box(&noise), 0, true)));
        });
    }
    for size in [4 * KIB, 16 * KIB, 64 * KIB] {
        group.bench_function(format!("fingerprint_{}k", size / KIB), |b| {
            b.iter(|| noise.chunks(size).map(Fingerprint::of).for_each(|f| _ = black_box(f)));
        });
    }
    let zstd = CodecChoice::Zstd { level: 1 };
    for (name, data, size) in [
        ("encode_text_16k", &text, 16 * KIB),
        ("encode_text_128k", &text, 128 * KIB),
        ("encode_noise_128k", &noise, 128 * KIB),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| data.chunks(size).for_each(|piece| drop(black_box(encode(zstd, piece)))));
        });
    }
    let dir = TempDir::new().expect("a temporary directory");
    let shard = LocalShard::create(&dir.path().join("shard"), VolumeId([7; 16]), ShardId(0));
    let shard = shard.expect("a shard");
    let mut number = 0;
    group.throughput(Throughput::Bytes((32 * MIB) as u64));
    group.bench_function("container_append_sync", |b| {
        b.iter_custom(|n| {
            sum(n, |_| {
                number += 1;
                let id = ContainerId(number);
                let mut appender = shard.create(id).expect("a container");
                let took = timed(|| {
                    for piece in noise.chunks(64 * KIB).cycle().take(512) {
                        appender.append(&[piece]).expect("an append");
                    }
                    appender.sync().expect("a sync");
                });
                drop(appender);
                shard.delete(id).expect("it goes");
                took
            })
        });
    });
    group.finish();
}

/// The fingerprint of row `number` of `count`: evenly spread, so rising with its number.
fn spread(number: u64, count: u64) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number * (u64::MAX / count)).to_be_bytes());
    let low = Random(number).next().to_be_bytes();
    bytes[8..16].copy_from_slice(&low);
    bytes[24..].copy_from_slice(&low);
    Fingerprint(bytes)
}

/// Known and unknown fingerprints, in an index that was just opened and in one that is in use.
pub fn lookups(c: &mut Criterion) {
    let asked = std::env::var("STRATAFS_BENCH_CHUNKS").ok().and_then(|n| n.parse().ok());
    let count: u64 = asked.unwrap_or(CHUNKS);
    let dir = TempDir::new().expect("a temporary directory");
    let open = |create| {
        let options = RocksOptions { create, ..RocksOptions::default() };
        Arc::new(RocksKv::open(dir.path(), &options).expect("a kv"))
    };
    let fill = timed(|| {
        let rows = |sink: &mut stratafs::kv::RowSink<'_>| {
            (0..count).try_for_each(|number| {
                let row = FingerprintRow { health: Health::Good, chunk: ChunkNo(number) };
                sink(Table::Fingerprint, &spread(number, count).0, &row.to_bytes())
            })
        };
        open(true).load_sorted(&[Table::Fingerprint], rows).expect("rows in order");
    });
    println!("index of {count} chunks made in {fill:.1?}");
    let mut random = Random(12);
    let mut look = |kv: &RocksKv, known: bool| -> Duration {
        let keys: Vec<_> = (0..LOOKUPS)
            .map(|_| spread(random.next() % count, count))
            .map(|key| if known { key } else { Fingerprint::of(&key.0) })
            .collect();
        timed(|| {
            for key in &keys {
                let row = kv.get(Table::Fingerprint, &key.0).expect("a lookup");
                assert_eq!(row.is_some(), known);
            }
        })
    };
    let mut group = group(c, "lookup", 2);
    group.throughput(Throughput::Elements(LOOKUPS));
    for (name, known) in [("known", true), ("unknown", false)] {
        // Its own caches are empty; the kernel's are not.
        group.bench_function(format!("{name}_cold"), |b| {
            b.iter_custom(|n| sum(n, |_| look(&open(false), known)));
        });
        let kv = open(false);
        (0..20).for_each(|_| _ = look(&kv, known));
        group.bench_function(format!("{name}_warm"), |b| {
            b.iter_custom(|n| sum(n, |_| look(&kv, known)));
        });
    }
    group.finish();
}
