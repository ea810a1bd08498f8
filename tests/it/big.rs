//! P7: memory is bounded by the configuration, not by the number of files, chunks or snapshots.
//!
//! A volume whose tables say 20 million chunks and 2 million files (a tenth of it unless
//! `STRATAFS_BIG=1`) is mounted with the default limits, written, read, listed and collected; the
//! process that serves it must never have more than its bound resident.

mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stratafs::env::Env;
use stratafs::stats::MemoryMap;
use stratafs::types::{At, Cookie, Ino};
use stratafs::volume::{AttrChange, OpenOptions, Volume};

use self::synthetic::{Scale, dir_name, file_name};
use crate::mounted::helper::{Mounted, is_big};
use crate::testkit::{KIB, MIB, assert_same_bytes, random_bytes, text_bytes};

/// The promise, of the full size. What a tenth of it needs less is small beside the caches.
const PEAK_BYTES_MAX: u64 = 512 * MIB as u64;
const PEAK_BYTES_MAX_OF_A_TENTH: u64 = 384 * MIB as u64;
/// Files of 1 MiB that are there before everything else, and in the snapshot.
const REAL_FILES: u64 = 64;
/// Files of 4 MiB that are written into the large volume.
const LARGE_FILES: u64 = 64;

fn real(number: u64) -> Vec<u8> {
    random_bytes(1000 + number, MIB)
}

fn large(number: u64) -> Vec<u8> {
    random_bytes(5_000 + number, 4 * MIB)
}

/// Tells how long a step took and what it left in memory; nothing is decided by it.
struct Steps<'a> {
    mounted: &'a Mounted,
    started: Instant,
}

impl Steps<'_> {
    fn done(&mut self, what: &str) {
        let mib = |bytes: u64| bytes / MIB as u64;
        let (now, peak) = (self.mounted.resident_bytes(), self.mounted.peak_bytes());
        eprintln!(
            "{what}: {:?}, {} MiB now, {} at most",
            self.started.elapsed(),
            mib(now),
            mib(peak)
        );
        self.started = Instant::now();
    }
}

#[test]
fn a_volume_of_twenty_million_chunks_stays_within_its_memory() {
    let scale = Scale::new(if is_big() { 20_000_000 } else { 2_000_000 });
    let mut m = Mounted::new();
    fs::create_dir_all(m.path("real")).unwrap();
    for number in 0..REAL_FILES {
        fs::write(m.path(&format!("real/{number}.bin")), real(number)).unwrap();
    }
    fs::create_dir(m.path("big")).unwrap();
    let top = Ino(fs::metadata(m.path("big")).unwrap().ino());
    m.umount();
    let started = Instant::now();
    synthetic::fill(&m.volume(), scale, top);
    eprintln!("{scale:?}: {:?}", started.elapsed());
    make_history(&m.volume(), scale);
    eprintln!("with history: {:?}", started.elapsed());
    m.mount();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let sampler = threads.spawn(|| sample(&m, &done));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&m, scale)));
        done.store(true, Ordering::Relaxed);
        let most = sampler.join().expect("nothing is above its bound");
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        eprintln!("the most that was held: {most:#?}");
    });
    let peak = m.peak_bytes();
    eprintln!("peak: {} MiB", peak / MIB as u64);
    let max = if is_big() { PEAK_BYTES_MAX } else { PEAK_BYTES_MAX_OF_A_TENTH };
    assert!(peak < max, "{} MiB were resident", peak / MIB as u64);
    m.umount();
}

/// A snapshot, and old versions of many rows that only it sees.
fn make_history(dir: &Path, scale: Scale) {
    let (env, purpose) = (Env::system(), "a test".to_owned());
    let volume = Volume::open(dir, OpenOptions { env, purpose, read_only: false }).unwrap();
    volume.snapshot_create(b"before").unwrap();
    let big = volume.resolve(At::Live, b"big").unwrap().ino;
    let mut left = scale.files / 10;
    for number in (0..).take_while(|number| *number < scale.files / 2000) {
        let dir = volume.lookup(At::Live, big, dir_name(1 + number as usize).as_bytes());
        let Some(dir) = dir.unwrap() else { break };
        let files = volume.list(At::Live, dir.ino, Cookie(0), 10_000).unwrap();
        for file in files.iter().take(usize::try_from(left).unwrap()) {
            let change = AttrChange { perm: Some(0o600), ..AttrChange::default() };
            volume.set_attributes(file.ino, &change).unwrap();
        }
        left = left.saturating_sub(files.len() as u64);
        // Every extent of some files becomes an old version.
        for file in files.iter().take(100) {
            let change = AttrChange { size: Some(0), ..AttrChange::default() };
            volume.set_attributes(file.ino, &change).unwrap();
        }
    }
    volume.shutdown().unwrap();
}

fn work(m: &Mounted, scale: Scale) {
    let mut steps = Steps { mounted: m, started: Instant::now() };
    write(m);
    steps.done("write");
    read(m);
    steps.done("read");
    let wide = fs::read_dir(m.path("big/wide")).unwrap().count() as u64;
    assert_eq!(wide, scale.wide_files);
    steps.done("list the wide directory");
    let walked = walk(m, 1 + usize::try_from(scale.files / 4000).unwrap());
    assert!(walked >= scale.files / 5, "{walked} files walked");
    steps.done("walk a quarter");
    let old = m.path(".snapshots/before/big");
    let old = old.join(dir_name(1));
    let sizes: u64 =
        fs::read_dir(&old).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(sizes, 1000 * 640 * KIB as u64, "the snapshot sees what was cut off");
    steps.done("list the snapshot");
    gc(m, scale);
    steps.done("gc");
    write_more(m);
    steps.done("write after gc");
}

/// New data in small and large files, and data the volume knows.
fn write(m: &Mounted) {
    fs::create_dir(m.path("new")).unwrap();
    for number in 0..5_000 {
        fs::write(m.path(&format!("new/{number}.c")), text_bytes(number, 9_000)).unwrap();
    }
    for number in 0..LARGE_FILES {
        fs::write(m.path(&format!("new/{number}.bin")), large(number)).unwrap();
    }
    for number in 0..REAL_FILES {
        fs::write(m.path(&format!("new/again-{number}.bin")), real(number)).unwrap();
    }
    fs::File::open(m.path("")).unwrap().sync_all().unwrap();
}

fn read(m: &Mounted) {
    for number in 0..REAL_FILES {
        let path = m.path(&format!("real/{number}.bin"));
        assert_same_bytes(&fs::read(&path).unwrap(), &real(number), "a real file");
    }
    for number in 0..LARGE_FILES {
        let found = fs::read(m.path(&format!("new/{number}.bin"))).unwrap();
        assert_same_bytes(&found, &large(number), "a new file");
    }
    for number in (0..5_000).step_by(7) {
        let found = fs::read(m.path(&format!("new/{number}.c"))).unwrap();
        assert_same_bytes(&found, &text_bytes(number, 9_000), "a small file");
    }
}

/// Names and attributes of the files in the first directories.
fn walk(m: &Mounted, dirs: usize) -> u64 {
    let mut files = 0;
    for number in 1..=dirs {
        let Ok(entries) = fs::read_dir(m.path(&format!("big/{}", dir_name(number)))) else { break };
        for entry in entries {
            assert!(entry.unwrap().metadata().unwrap().is_file());
            files += 1;
        }
    }
    files
}

fn gc(m: &Mounted, scale: Scale) {
    for number in (0..REAL_FILES).filter(|number| number % 4 != 0) {
        fs::remove_file(m.path(&format!("real/{number}.bin"))).unwrap();
        fs::remove_file(m.path(&format!("new/again-{number}.bin"))).unwrap();
    }
    for number in (0..LARGE_FILES).filter(|number| number % 4 != 0) {
        fs::remove_file(m.path(&format!("new/{number}.bin"))).unwrap();
    }
    fs::remove_file(m.path(&format!("big/wide/{}", file_name(7)))).unwrap();
    let started = Instant::now();
    let report = patient(m, &["gc", "--json"]);
    let marked = report["chunks_marked"].as_u64().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // for people
    let rate = marked as f64 / seconds;
    eprintln!("gc: {marked} chunks marked in {seconds:.1} s, {rate:.0}/s: {report}");
    assert!(marked >= scale.full_files() * 10, "{report:#}");
    assert!(report["repacked_bytes"].as_u64().unwrap() > 0, "live chunks move, too: {report:#}");
    let garbage = scale.chunks / 20 / 500;
    assert!(report["containers_freed"].as_u64().unwrap() >= garbage - 1, "{report:#}");
}

fn write_more(m: &Mounted) {
    for number in (0..LARGE_FILES).step_by(4) {
        let found = fs::read(m.path(&format!("new/{number}.bin"))).unwrap();
        assert_same_bytes(&found, &large(number), "a file whose chunks moved");
    }
    for number in 0..2_000 {
        let data = text_bytes(100_000 + number, 9_000);
        fs::write(m.path(&format!("new/more-{number}.c")), &data).unwrap();
    }
    fs::File::open(m.path("")).unwrap().sync_all().unwrap();
    let found = fs::read(m.path("new/more-1999.c")).unwrap();
    assert_same_bytes(&found, &text_bytes(101_999, 9_000), "written after gc");
}

/// One of our commands, for longer than tests allow.
fn patient(m: &Mounted, words: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    let (verb, options) = words.split_first().unwrap();
    command.arg(verb).arg(m.volume()).args(options).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Looks at `stats` until it is done: nothing may be above its bound. Returns the most of each.
fn sample(m: &Mounted, done: &AtomicBool) -> BTreeMap<String, u64> {
    let mut most = BTreeMap::new();
    while !done.load(Ordering::Relaxed) {
        let report = patient(m, &["stats", "--json"]);
        let memory: MemoryMap = serde_json::from_value(report["memory"].clone()).unwrap();
        for (name, held) in memory {
            assert!(held.bytes <= held.bound_bytes, "{name}: {held:?}");
            let seen: &mut u64 = most.entry(name).or_default();
            *seen = held.bytes.max(*seen);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    most
}
