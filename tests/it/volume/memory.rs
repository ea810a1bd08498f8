//! P7: every bound of the configuration is in `stats`, and nothing goes beyond its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use stratafs::env::{Env, Fault, Faults, Point, Power};
use stratafs::error::Error;
use stratafs::stats::MemoryMap;
use stratafs::types::{At, Cookie, FileKind, Ino};
use stratafs::volume::{NewInode, OpenOptions, Volume};

use crate::testkit::{KIB, MIB, TestVolume, random_bytes, read_all, text_bytes, wait_until};

/// Keys of `[limits]` that bound something else than memory.
const NOT_MEMORY: [&str; 4] =
    ["commit_interval_secs", "container_bytes", "reserve_bytes", "workers"];
/// Holders that only a mount has.
const OF_MOUNTS: [&str; 6] =
    ["control", "differences", "found_out", "fuse_buffers", "given_nodes", "virtual_nodes"];

/// Keys of section `[limits]` in the example, which shows all.
fn keys() -> BTreeSet<String> {
    let text = include_str!("../../../docs/config.example.toml");
    let section = text.split("[limits]").nth(1).unwrap().split("\n[").next().unwrap();
    let keys = section.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    keys.filter(|key| !key.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn every_limit_is_in_stats_with_its_bound() {
    let odd: BTreeMap<&str, u64> = [
        ("dirty_bytes", 11),
        ("file_dirty_bytes", 3),
        ("overlay_bytes", 13),
        ("cache_bytes", 17),
        ("block_cache_bytes", 19),
        ("write_buffer_bytes", 23),
        ("queue_bytes", 29),
        ("append_bytes", 31),
    ]
    .map(|(key, mib)| (key, mib * MIB as u64))
    .into_iter()
    .chain([("open_files", 777)])
    .collect();
    let bounded = keys().into_iter().filter(|key| !NOT_MEMORY.contains(&&**key));
    assert!(bounded.eq(odd.keys().map(|key| (*key).to_owned())), "the example and this test");
    let lines: Vec<String> = odd.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let t = TestVolume::with_config(&format!("[limits]\n{}", lines.join("\n")));
    let memory = t.stats_report().unwrap().memory;
    let bound = |name: &str| memory[name].bound_bytes;
    let exact = [
        ("dirty", "dirty_bytes"),
        ("open_txg", "overlay_bytes"),
        ("commit_batch", "overlay_bytes"),
        ("frame_cache", "cache_bytes"),
        ("block_cache", "block_cache_bytes"),
        ("write_buffers", "write_buffer_bytes"),
        ("queue", "queue_bytes"),
    ];
    for (name, key) in exact {
        assert_eq!((bound(name), &*memory[name].limit), (odd[key], key), "{name}");
    }
    assert!(bound("groups") == odd["queue_bytes"] / 2);
    assert!(bound("cutting") > odd["queue_bytes"] && bound("cutting") < 2 * odd["queue_bytes"]);
    assert!((31 * MIB as u64..33 * MIB as u64).contains(&bound("append_buffers")));
    assert!(bound("open_files").is_multiple_of(777) && bound("open_files") >= 777 * 100);
    for key in odd.keys() {
        let named = memory.values().any(|held| held.limit.split(", ").any(|limit| limit == *key));
        assert!(named, "no holder is bounded by {key}: {memory:#?}");
    }
}

/// The table in docs/OPERATIONS.md has a row for every holder, and no other.
#[test]
fn every_holder_is_documented() {
    let t = TestVolume::new();
    let names: BTreeSet<String> = t.stats_report().unwrap().memory.into_keys().collect();
    let text = include_str!("../../../docs/OPERATIONS.md");
    let table = text.split("| in `stats` |").nth(1).expect("the table").split("\n\n").next();
    let first = |row: &str| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let documented: BTreeSet<String> = table.unwrap().lines().filter_map(first).collect();
    let expected: BTreeSet<String> =
        names.into_iter().chain(OF_MOUNTS.map(str::to_owned)).collect();
    assert_eq!(documented, expected);
}

/// Looks at what is held until `done`: nothing may be above its bound. Returns the most of each.
fn watch(t: &TestVolume, done: &AtomicBool) -> BTreeMap<String, u64> {
    let mut most = BTreeMap::new();
    while !done.load(Ordering::Relaxed) {
        let memory: MemoryMap = t.stats_report().unwrap().memory;
        for (name, held) in memory {
            assert!(held.bytes <= held.bound_bytes, "{name}: {held:?}");
            let seen: &mut u64 = most.entry(name).or_default();
            *seen = held.bytes.max(*seen);
        }
    }
    most
}

fn bounded_work(t: &TestVolume, worker: u64) {
    let dir = format!("/{worker}");
    t.mkdir(&dir);
    let sparse = t.create(&format!("{dir}/sparse.img"));
    for number in 0..4_000 {
        t.write_file(&format!("{dir}/{number}.c"), &text_bytes(worker << 32 | number, 700));
        // Ranges of one byte are mostly overhead.
        sparse.write(number * 10_000, b"x").unwrap();
        if number % 400 == 7 {
            let path = format!("{dir}/{number}.bin");
            t.write_file(&path, &random_bytes(worker << 32 | number, 3 * MIB));
            assert!(read_all(&t.open(&path)).len() == 3 * MIB);
        }
        if number % 5 == 4 {
            t.remove(&format!("{dir}/{}.c", number - 1));
        }
    }
}

/// Nobody asks for a commit: changes wait for room and get it, and no bound is passed meanwhile.
#[test]
fn no_bound_is_passed_under_load() {
    let t = TestVolume::with_config(
        "[limits]\ncommit_interval_secs = 3600\ndirty_bytes = \"4MiB\"\noverlay_bytes = \"8MiB\"\n\
         write_buffer_bytes = \"8MiB\"\ncache_bytes = \"2MiB\"\nblock_cache_bytes = \"2MiB\"\n\
         queue_bytes = \"2MiB\"\nappend_bytes = \"2MiB\"\nopen_files = 64\n",
    );
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|threads| {
        let watcher = threads.spawn(|| watch(&t, &done));
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                threads.spawn({
                    let t = &t;
                    move || bounded_work(t, worker)
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let most = watcher.join().expect("no bound is passed");
        ended.into_iter().for_each(|ended| ended.unwrap());
        most
    });
    assert!(t.txg().0 > 3, "commits came by themselves");
    let reached = |name: &str, least: usize| {
        assert!(most[name] >= least as u64, "{name} was only {} bytes: {most:#?}", most[name]);
    };
    reached("open_txg", 3 * MIB);
    reached("dirty", 100 * KIB);
    reached("open_files", 64);
    reached("frame_cache", MIB);
    reached("write_buffers", 3 * MIB);
    t.assert_sound();
}

/// SEMANTICS §5.6.
#[test]
fn more_open_files_than_the_bound_are_refused() {
    let t = TestVolume::with_config("[limits]\nopen_files = 64\n");
    t.write_file("/a", b"a");
    let ino = t.ino("/a");
    let open: Vec<_> = (0..64).map(|_| t.open("/a")).collect();
    let refused = t.open_file(At::Live, ino).err().expect("it is one too many");
    assert!(matches!(refused, Error::TooManyOpen { max: 64 }), "{refused}");
    assert_eq!(refused.errno(), 23, "ENFILE");
    t.truncate("/a", 0);
    assert!(t.open_file(At::Live, Ino(999)).is_err(), "and what fails to open is not counted");
    drop(open);
    let again: Vec<_> = (0..64).map(|_| t.open("/a")).collect();
    assert_eq!(again.len(), 64);
    assert!(t.open_file(At::Live, Ino(999)).is_err());
}

/// A commit that does not end: changes go on up to their share of the bound, and then wait, however
/// many there are. When it ends, so do they.
#[test]
fn changes_wait_for_a_commit_that_takes_long() {
    const BOUND: u64 = 8 * MIB as u64;
    const FILES: u64 = 20_000;
    let mut t = TestVolume::with_config(
        "[limits]\ncommit_interval_secs = 3600\noverlay_bytes = \"8MiB\"\n",
    );
    t.close();
    let faults = Faults::watching(Power::default());
    let released = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&released);
    let hold = move || {
        while !waits.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    faults.arm(Point::CommitBatch, 1, Fault::Call(Arc::new(hold)));
    let env = Env::system().with_faults(faults.clone());
    let options = OpenOptions { env, purpose: "a test".to_owned(), read_only: false };
    let volume = Volume::open(t.volume_dir(), options).unwrap();
    let open_txg = || volume.stats_report().unwrap().memory["open_txg"].bytes;
    let worst = std::thread::scope(|threads| {
        let volume = &volume;
        let make = |worker: u64| {
            move || {
                for number in 0..FILES {
                    let name = format!("{worker}-{number}");
                    let new = NewInode {
                        kind: FileKind::Fifo,
                        perm: 0o600,
                        uid: 0,
                        gid: 0,
                        rdev: 0,
                        target: b"",
                        xattrs: Vec::new(),
                    };
                    volume.make(Ino::ROOT, name.as_bytes(), &new).unwrap();
                }
            }
        };
        let workers: Vec<_> = (0..3).map(|worker| threads.spawn(make(worker))).collect();
        wait_until("the share of writers is used", || open_txg() > BOUND * 4 / 6);
        assert!(faults.has_fired(), "the first commit is under way");
        // Were there no waiting, this would be time enough to pass the bound.
        let worst = (0..300).map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            open_txg()
        });
        let worst = worst.max().unwrap();
        released.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        worst
    });
    assert!(worst <= BOUND, "{worst} bytes wait for a commit");
    assert_eq!(volume.list(At::Live, Ino::ROOT, Cookie(0), 100_000).unwrap().len(), 60_000);
    volume.shutdown().unwrap();
}
