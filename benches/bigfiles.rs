//! Big files through a mount, beside what limits them: `cargo bench --bench bigfiles`, as root.
//!
//! Writes incompressible, known and compressible data in pieces of 1 MiB, and overwrites pages of
//! an image, on ext4, the FUSE floor, a `StrataFS` mount and a volume without a mount, in turn, and
//! runs one core's bare pipeline (copy, cut, fingerprint, encode) on the same bytes. Prints the
//! medians and the ratios that issue 5 sets bars for. See benches/README.md.
//!
//! `STRATAFS_BENCH_MIB` (512) is the size of a file, `STRATAFS_BENCH_ROUNDS` (5) how often,
//! `STRATAFS_BENCH_TEXT` a file to take the compressible data from, `TMPDIR` says which disk.

#[path = "bigfiles/sides.rs"]
mod sides;

mod random;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use stratafs::codec::{CodecChoice, encode};
use stratafs::config::Chunking;
use stratafs::ingest::cuts;
use stratafs::types::Fingerprint;

use random::Random;
use sides::{Ext4, Floor, Library, Side, Strata};

const MIB: usize = 1024 * 1024;
const PAGE: usize = 4096;
/// Pages overwritten before an fsync.
const OVERWRITES: usize = 2000;
/// What is compressed at a time.
const GROUP_BYTES: usize = 128 * 1024;
/// As class `other` cuts in volumes whose cuts are not recorded.
const CUT: Chunking = Chunking::cdc(64 * 1024);

/// Until the calls return, and until they are durable.
type Times = (Duration, Duration);

#[derive(Default)]
struct Results(BTreeMap<(&'static str, &'static str), Vec<Times>>);

impl Results {
    fn add(&mut self, step: &'static str, side: &'static str, times: Times) {
        println!("{step:12} {side:8} {:8.3} s, durable {:8.3} s", secs(times.0), secs(times.1));
        self.0.entry((step, side)).or_default().push(times);
    }

    /// Median seconds until durable.
    fn median(&self, step: &'static str, side: &'static str) -> Option<f64> {
        let mut times: Vec<_> = self.0.get(&(step, side))?.iter().map(|times| times.1).collect();
        times.sort_unstable();
        times.get(times.len() / 2).map(|median| secs(*median))
    }

    /// How fast `side` is, where `other` is 1.
    fn ratio(&self, step: &'static str, side: &'static str, other: &'static str) -> f64 {
        match (self.median(step, side), self.median(step, other)) {
            (Some(side), Some(other)) => other / side,
            _ => f64::NAN,
        }
    }
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn asked(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Compressible bytes: the given file over and over, each time with a changed byte in each KiB,
/// so that no chunk comes twice; without one, source code of this package the same way.
fn text(len: usize) -> Vec<u8> {
    let mut seed = Vec::new();
    if let Ok(path) = std::env::var("STRATAFS_BENCH_TEXT") {
        File::open(path)
            .expect("STRATAFS_BENCH_TEXT opens")
            .read_to_end(&mut seed)
            .expect("it reads");
    } else {
        sides::source_files(Path::new(env!("CARGO_MANIFEST_DIR")), &mut seed);
    }
    let mut random = Random(9);
    let mut out = Vec::with_capacity(len + seed.len());
    out.extend_from_slice(&seed);
    while out.len() < len {
        let at = out.len();
        out.extend_from_slice(&seed);
        for piece in out[at..].chunks_mut(1024) {
            let place = random.next() as usize % piece.len();
            piece[place] = b'a' + (random.next() % 26) as u8;
        }
    }
    out.truncate(len);
    out
}

/// What one core needs to copy, cut, fingerprint and encode `data` in groups, without storing it.
fn pipeline(data: &[u8]) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    for piece in data.chunks(MIB) {
        rest.extend_from_slice(piece);
        let (chunks, cut) = cuts(CUT, &rest, 0, true);
        let mut group = 0..0;
        for chunk in chunks {
            std::hint::black_box(Fingerprint::of(&rest[chunk.clone()]));
            group = group.start.min(chunk.start)..chunk.end;
            if group.len() >= GROUP_BYTES {
                std::hint::black_box(encode(CodecChoice::Zstd { level: 1 }, &rest[group.clone()]));
                group = group.end..group.end;
            }
        }
        if !group.is_empty() {
            std::hint::black_box(encode(CodecChoice::Zstd { level: 1 }, &rest[group]));
        }
        rest.drain(..cut);
    }
    start.elapsed()
}

fn write(side: &dyn Side, name: &str, data: &[u8]) -> Times {
    let start = Instant::now();
    let sync = side.write(name, data);
    let returned = start.elapsed();
    sync();
    (returned, start.elapsed())
}

/// Pages at random places of a file, each with bytes of its own, then fsync.
fn overwrite(file: &File, len: usize, random: &mut Random) -> Times {
    let pages: Vec<_> = (0..OVERWRITES)
        .map(|_| (random.next() as usize % (len / PAGE), random.incompressible(PAGE)))
        .collect();
    let start = Instant::now();
    for (page, bytes) in &pages {
        file.write_all_at(bytes, (page * PAGE) as u64).expect("an overwrite");
    }
    let returned = start.elapsed();
    file.sync_all().expect("an fsync");
    (returned, start.elapsed())
}

fn one_side(side: &dyn Side, results: &mut Results, noise: &[u8], text: &[u8]) {
    results.add("new noise", side.name(), write(side, "noise.bin", noise));
    results.add("known noise", side.name(), write(side, "again.bin", noise));
    results.add("new text", side.name(), write(side, "text.bin", text));
    write(side, "disk.img", text);
    if let Some(file) = side.open("disk.img") {
        let times = overwrite(&file, text.len(), &mut Random(7));
        results.add("overwrite", side.name(), times);
    }
    if let Some(peak) = side.peak_mib() {
        println!("{:12} {:8} {peak} MiB resident at most", "", side.name());
    }
}

fn main() {
    // Cargo runs every bench with this; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let (len, rounds) = (asked("STRATAFS_BENCH_MIB", 512) * MIB, asked("STRATAFS_BENCH_ROUNDS", 5));
    let (noise, text) = (Random(1).incompressible(len), text(len));
    let mut results = Results::default();
    for round in 0..rounds {
        for turn in 0..4 {
            match (round + turn) % 4 {
                0 => one_side(&Ext4::new(), &mut results, &noise, &text),
                1 => one_side(&Floor::new(), &mut results, &noise, &text),
                2 => one_side(&Strata::new(), &mut results, &noise, &text),
                _ => one_side(&Library::new(), &mut results, &noise, &text),
            }
        }
        let took = pipeline(&text);
        results.add("new text", "pipeline", (took, took));
    }
    println!("\n{:44} {:>6} {:>6}", "ratio of rates until durable, medians", "is", "bar");
    let bars = [
        ("known, against the floor", results.ratio("known noise", "strata", "floor"), 0.60),
        ("incompressible, against ext4", results.ratio("new noise", "strata", "ext4"), 1.0),
        (
            "compressible, against 2 × pipeline",
            results.ratio("new text", "strata", "pipeline") / 2.0,
            0.60,
        ),
        ("known, mount against library", results.ratio("known noise", "strata", "library"), 0.82),
        (
            "incompressible, mount against library",
            results.ratio("new noise", "strata", "library"),
            0.82,
        ),
        (
            "compressible, mount against library",
            results.ratio("new text", "strata", "library"),
            0.82,
        ),
        ("4 KiB overwrites, against the floor", results.ratio("overwrite", "strata", "floor"), 0.3),
    ];
    for (what, ratio, bar) in bars {
        println!("{what:44} {ratio:6.2} {bar:6.2}");
    }
}
