//! What gc costs and how fast it is: `cargo bench --bench gc`. See benches/README.md.
//!
//! About a minute. Promised is that the p99 of a 4 KiB write beside gc is at most three times what
//! it is without: the run ends with an error if the median of the rounds says otherwise.
//! `STRATAFS_BENCH_EXTENTS` (default 1,000,000) and `STRATAFS_BENCH_SECS` (default 4) make it
//! smaller or larger; `TMPDIR` says which disk.

mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use stratafs::env::Env;
use stratafs::gc::{self, GcOptions, GcReport};
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{InitOptions, NewInode, OpenFile, OpenOptions, Volume};
use tempfile::TempDir;

use random::Random;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What is promised for the p99 beside gc.
const SLOWER_MAX: f64 = 3.0;
/// Rounds with and without gc, one after the other.
const ROUNDS: usize = 3;
/// Files of 1 MiB that make the garbage.
const FILES: u64 = 384;
/// The file that is written to.
const TARGET_BYTES: usize = 64 * MIB;
/// Time between two writes: a busy writer that is not a benchmark.
const THINK: Duration = Duration::from_micros(200);

struct Scratch {
    volume: Arc<Volume>,
    random: Random,
    _dir: TempDir,
}

impl Scratch {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("volume");
        Volume::init(&path, &InitOptions { env: Env::system() }).expect("a new volume");
        let purpose = "bench".to_owned();
        let options = OpenOptions { env: Env::system(), purpose, read_only: false };
        let volume = Volume::open(&path, options).expect("it opens");
        Self { volume, random: Random(1), _dir: dir }
    }

    fn create(&self, name: &str) -> OpenFile {
        let new = NewInode {
            kind: FileKind::Regular,
            perm: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
            xattrs: Vec::new(),
        };
        let made = self.volume.make(Ino::ROOT, name.as_bytes(), &new).expect("room for a name");
        self.volume.open_file(At::Live, made.ino).expect("it was just made")
    }

    fn write(&mut self, name: &str, len: usize) -> OpenFile {
        let file = self.create(name);
        for at in (0..len).step_by(MIB) {
            file.write(at as u64, &self.random.incompressible(MIB.min(len - at))).expect("a write");
        }
        file.finish().expect("the data is stored");
        file
    }

    /// New files of 1 MiB, three of five removed again: every container is mostly dead.
    fn make_garbage(&mut self, round: usize) {
        for n in 0..FILES {
            drop(self.write(&format!("r{round}-{n}.bin"), MIB));
        }
        self.volume.commit().expect("a commit");
        for n in (0..FILES).filter(|n| n % 5 < 3) {
            let name = format!("r{round}-{n}.bin");
            self.volume.unlink(Ino::ROOT, name.as_bytes()).expect("it is there");
        }
        self.volume.commit().expect("a commit");
    }

    /// Extents without data: copies by reference of a file in cells of 16 KiB.
    fn make_extents(&mut self, extents: u64) {
        const CELLS: u64 = 4096;
        let source = self.write("source.iso", CELLS as usize * 16 * KIB);
        for n in 0..extents / CELLS {
            let copy = self.create(&format!("copy{n}.iso"));
            let len = source.stat().expect("it is there").inode.size;
            let copied = copy.copy_from(0, &source, 0, len).expect("a copy");
            assert_eq!(copied, len);
            if n % 16 == 15 {
                self.volume.commit().expect("a commit");
            }
        }
        self.volume.commit().expect("a commit");
    }

    fn gc(&self) -> GcReport {
        let options = GcOptions { min_dead_percent: Some(1), ..GcOptions::default() };
        gc::run_with(&self.volume, options, &mut |_| ()).expect("a run")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.volume.shutdown().expect("the volume closes");
    }
}

/// Latencies of writes at random places, with a commit after each or not.
fn write_for(file: &OpenFile, volume: &Volume, time: Duration, commit: bool) -> Vec<Duration> {
    let mut random = Random(2);
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < time {
        let data = random.incompressible(4 * KIB);
        let place = random.next() % (TARGET_BYTES / 4 / KIB) as u64 * 4 * KIB as u64;
        let start = Instant::now();
        file.write(place, &data).expect("a write");
        if commit {
            volume.commit().expect("a commit");
        }
        took.push(start.elapsed());
        std::thread::sleep(THINK);
    }
    took.sort_unstable();
    took
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() * per_mille / 1000).min(sorted.len() - 1)]
}

fn show(what: &str, took: &[Duration]) {
    println!(
        "  {what:<12} n={:<6} p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}  max {:>9.1?}",
        took.len(),
        at(took, 500),
        at(took, 990),
        at(took, 999),
        at(took, 1000)
    );
}

/// The median over the rounds of the p99 beside gc by the p99 without.
fn beside(scratch: &mut Scratch, time: Duration, commit: bool) -> f64 {
    println!("4 KiB writes{}:", if commit { ", each with a commit" } else { "" });
    let target = scratch.write(&format!("target-{commit}.db"), TARGET_BYTES);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        scratch.make_garbage(round + usize::from(commit) * ROUNDS);
        let volume = &scratch.volume;
        let alone = write_for(&target, volume, time, commit);
        let done = AtomicBool::new(false);
        let (with, reports) = std::thread::scope(|threads| {
            let collector = threads.spawn(|| {
                let mut reports = Vec::new();
                while !done.load(Relaxed) {
                    reports.push(scratch.gc());
                }
                reports
            });
            let with = write_for(&target, volume, time, commit);
            done.store(true, Relaxed);
            (with, collector.join().expect("gc runs"))
        });
        show("without gc", &alone);
        show("beside gc", &with);
        let repacked: u64 = reports.iter().map(|r| r.repacked_bytes).sum();
        let held = reports.iter().map(|r| r.longest_hold_micros).max().unwrap_or(0);
        #[allow(clippy::cast_precision_loss)] // a ratio for people
        let ratio = at(&with, 990).as_nanos() as f64 / at(&alone, 990).as_nanos() as f64;
        println!(
            "  p99 {ratio:.2} times; {} runs, {} MiB repacked, gate closed {held} us at most",
            reports.len(),
            repacked / MIB as u64
        );
        ratios.push(ratio);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

#[allow(clippy::cast_precision_loss)] // rates for people
fn rates(scratch: &mut Scratch, extents: u64) {
    scratch.make_extents(extents);
    for _ in 0..3 {
        let report = scratch.gc();
        let rate = extents as f64 / (report.mark_millis.max(1) as f64 / 1000.0);
        println!("mark: {extents} extents in {} ms, {rate:.0} per second", report.mark_millis);
    }
    for round in 100..103 {
        scratch.make_garbage(round);
        let report = scratch.gc();
        let swept = (report.millis - report.mark_millis).max(1) as f64 / 1000.0;
        println!(
            "repack: {} MiB copied, {} MiB freed in {swept:.1} s, {:.0} MiB/s copied",
            report.repacked_bytes / MIB as u64,
            report.freed_bytes / MIB as u64,
            report.repacked_bytes as f64 / MIB as f64 / swept
        );
    }
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn main() {
    let time = Duration::from_secs(asked("STRATAFS_BENCH_SECS", 4));
    let mut scratch = Scratch::new();
    rates(&mut scratch, asked("STRATAFS_BENCH_EXTENTS", 1_000_000));
    let ratios = [false, true].map(|commit| beside(&mut scratch, time, commit));
    println!("p99 beside gc: {:.2} times, with commits {:.2} times", ratios[0], ratios[1]);
    assert!(ratios.iter().all(|r| *r <= SLOWER_MAX), "promised is {SLOWER_MAX} times");
}
