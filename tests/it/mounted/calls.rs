//! System calls answer as on ext4, side by side; and what ext4 cannot do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::helper::{Mounted, os_error};
use crate::media::disks::LoopDisk;
use crate::testkit::{MIB, SmallDisk, random_bytes, run, run_in};

/// Cases of `tests/conformance/calls.py` with another answer than on ext4, each with the reason.
const DIFFERENT: [(&str, &str); 3] = [
    ("moving_ranges", "COLLAPSE_RANGE and INSERT_RANGE are not supported"),
    ("times", "ext4's times end in 2446 and begin in 1901"),
    ("unnamed_files", "FUSE has no O_TMPFILE"),
];

/// What each case said.
fn answers(dir: &Path) -> BTreeMap<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/calls.py");
    let said = run("python3", &[script, dir.to_str().unwrap()]);
    let split = |line: &str| line.split_once(": ").map(|(c, a)| (c.to_owned(), a.to_owned()));
    said.lines().map(|line| split(line).expect("a case and its answer")).collect()
}

#[test]
fn calls_answer_as_on_ext4() {
    let m = Mounted::new();
    let disk = LoopDisk::new(256);
    // Others than root come there, too.
    let disk_dir = disk.dir();
    for dir in [m.outside(), disk_dir.parent().unwrap(), &disk_dir] {
        run("chmod", &["755", dir.to_str().unwrap()]);
    }
    let (theirs, ours) = (answers(&disk_dir), answers(&m.path("")));
    assert!(theirs.len() > 25 && theirs.len() == ours.len());
    let mut wrong = Vec::new();
    for (case, theirs) in &theirs {
        assert!(!theirs.contains("Error "), "the case itself is wrong: {case}: {theirs}");
        let is_known = DIFFERENT.iter().any(|(known, _)| known == case);
        if (theirs == &ours[case]) == is_known {
            wrong.push(format!("{case}\n  ext4: {theirs}\n  ours: {}", ours[case]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    m.assert_sound();
}

#[test]
fn moving_ranges_is_refused_without_a_trace() {
    let m = Mounted::new();
    let answer = &answers(&m.path(""))["moving_ranges"];
    let refused = "['ENOTSUP', 'ENOTSUP', 'ENOTSUP', 'ENOTSUP']";
    assert_eq!(answer, &format!("({refused}, ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'])"));
}

/// fuser 0.18 would panic on the first second there is, with a fraction; the kernel never sends it.
#[test]
fn times_at_the_ends_of_time() {
    let mut m = Mounted::new();
    let script = "import ctypes, os, sys\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         class T(ctypes.Structure): _fields_ = [('s', ctypes.c_int64), ('n', ctypes.c_long)]\n\
         def put(name, s, n):\n\
         \x20   open(name, 'w').close()\n\
         \x20   times = (T * 2)(T(s, n), T(s, n))\n\
         \x20   assert libc.utimensat(-100, name.encode(), times, 0) == 0\n\
         for _ in range(20): put('first', -2**63, 1); put('first', -2**63, 999999999)\n\
         put('second', -2**63 + 1, 999999999)\n\
         put('past', -10**11, 7)\n\
         put('far', 10**12, 999999999)\n\
         put('last', 2**63 - 1, 5)\n";
    run_in(&m.path(""), &format!("python3 -c \"{script}\""));
    m.remount();
    let seen = |name: &str| {
        let found = m.path(name).symlink_metadata().unwrap();
        (found.mtime(), found.mtime_nsec(), found.atime(), found.atime_nsec())
    };
    assert_eq!(seen("first"), (i64::MIN, 0, i64::MIN, 0));
    assert_eq!(seen("second"), (i64::MIN + 1, 999_999_999, i64::MIN + 1, 999_999_999));
    assert_eq!(seen("past"), (-100_000_000_000, 7, -100_000_000_000, 7));
    assert_eq!(seen("far"), (1_000_000_000_000, 999_999_999, 1_000_000_000_000, 999_999_999));
    assert_eq!(seen("last"), (i64::MAX, 0, i64::MAX, 0));
}

#[test]
fn a_sparse_file_of_8_eib() {
    let mut m = Mounted::new();
    let end = i64::MAX.unsigned_abs();
    let mut file = File::create(m.path("sparse")).unwrap();
    file.set_len(end).unwrap();
    file.write_all_at(b"end", end - 3).unwrap();
    file.write_all_at(b"middle", 1 << 60).unwrap();
    assert_eq!(os_error(file.write_all_at(b"xx", end - 1)), libc::EINVAL, "as the kernel says");
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), end);
    drop(file);
    m.remount();
    let file = File::open(m.path("sparse")).unwrap();
    let mut bytes = [1; 8];
    file.read_exact_at(&mut bytes, (1 << 60) - 1).unwrap();
    assert_eq!(&bytes, b"\0middle\0");
    file.read_exact_at(&mut bytes[..3], end - 3).unwrap();
    assert_eq!((&bytes[..3], file.metadata().unwrap().len()), (&b"end"[..], end));
    assert!(file.metadata().unwrap().blocks() < 100);
    m.assert_sound();
}

/// df(1) adds up: used, available and the reserve are the disk, and shards on one disk are one.
#[test]
fn df_tells_the_truth() {
    const BLOCK: u64 = 1024;
    let reserve = 48 * MIB as u64;
    let disk = SmallDisk::new(512);
    let config = "[limits]\nreserve_bytes = \"48MiB\"\n";
    let m = Mounted::with(&[], config);
    let df = |path: &Path, columns: &str| -> Vec<u64> {
        let columns = format!("--output={columns}");
        let said = run("df", &[&columns, "-B1024", path.to_str().unwrap()]);
        let numbers = said.lines().nth(1).unwrap().split_whitespace();
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    let near = |one: u64, two: u64| one.abs_diff(two) * BLOCK < 64 * MIB as u64;

    let (below, ours) = (df(&m.volume(), "size,used,avail"), df(&m.path(""), "size,used,avail"));
    assert_eq!(ours[0], below[0], "the disk that the only shard lies on");
    assert!(near(ours[1], below[1]), "{ours:?} {below:?}");
    assert!(near(ours[2] + reserve / BLOCK, below[2]), "{ours:?} {below:?}");

    let second = m.volume().with_file_name("second");
    m.ask(&["shard", "add"], &[second.to_str().unwrap(), "--name", "same"]).ok();
    assert_eq!(df(&m.path(""), "size")[0], below[0], "a second shard there is no second disk");
    let third = disk.path().join("shard");
    m.ask(&["shard", "add"], &[third.to_str().unwrap(), "--name", "other"]).ok();
    let other = df(disk.path(), "size,used,avail");
    let both = df(&m.path(""), "size,used,avail");
    assert_eq!(both[0], below[0] + other[0]);
    assert!(near(both[1], below[1] + other[1]), "{both:?}");

    let inodes = df(&m.path(""), "itotal,iused");
    fs::write(m.path("one more"), "").unwrap();
    assert_eq!(df(&m.path(""), "itotal,iused"), [inodes[0], inodes[1] + 1]);
}

/// Numbers are the same after a remount, and none is given again.
#[test]
fn inode_numbers_are_stable() {
    let mut m = Mounted::new();
    run_in(&m.path(""), "mkdir d; touch a b d/c; ln a d/a; rm b");
    let numbers = |m: &Mounted| run_in(&m.path(""), "find . -printf '%P %i\\n' | sort");
    let before = numbers(&m);
    m.remount();
    assert_eq!(numbers(&m), before);
    let highest: u64 = before.lines().map(last_number).max().unwrap();
    fs::write(m.path("new"), "").unwrap();
    assert!(m.path("new").metadata().unwrap().ino() > highest);
}

fn last_number(line: &str) -> u64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A copy of many chunks moves no byte and stores none, out of a snapshot as well.
#[test]
fn a_copy_of_10_gib_stores_nothing() {
    let mut m = Mounted::new();
    let piece = random_bytes(1, 64 * MIB);
    let mut file = File::create(m.path("big")).unwrap();
    file.write_all(&piece).unwrap();
    drop(file);
    let copy = |from: &str, to: &str| {
        run("cp", &[m.text(from), m.text(to)]);
    };
    let script = "import os\n\
         fd = os.open('big', os.O_RDWR)\n\
         size = 64 << 20\n\
         while size < 10 << 30:\n\
         \x20   todo = min(size, (10 << 30) - size)\n\
         \x20   done = 0\n\
         \x20   while done < todo:\n\
         \x20       done += os.copy_file_range(fd, fd, todo - done, done, size + done)\n\
         \x20   size += todo\n";
    run_in(&m.path(""), &format!("python3 -c \"{script}\""));
    assert_eq!(m.path("big").metadata().unwrap().len(), 10 << 30);
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let counters = |m: &Mounted| {
        ["written_bytes", "new_bytes", "duplicate_bytes"].map(|counter| m.total(counter))
    };
    let before = (counters(&m), m.chunks());

    copy("big", "copy");
    copy(".snapshots/s/big", "old");

    assert_eq!((counters(&m), m.chunks()), before, "nothing was written, cut or stored");
    m.remount();
    for name in ["copy", "old"] {
        let file = File::open(m.path(name)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10 << 30);
        let mut bytes = vec![0; MIB];
        for at in [0, (5 << 30) + 12_345_678, (10 << 30) - MIB as u64] {
            file.read_exact_at(&mut bytes, at).unwrap();
            let from = usize::try_from(at).unwrap() % piece.len();
            let expected: Vec<u8> = piece.iter().cycle().skip(from).take(MIB).copied().collect();
            assert!(bytes == expected, "{name} at {at}");
        }
    }
    m.assert_sound();
}

/// SEMANTICS §4.28: by whatever path, it is one inode.
#[test]
fn a_directory_in_a_snapshot_is_one_inode() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("a/b/c")).unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let paths = [".snapshots/s/a/b", "a/.snapshots/s/b", "a/b/.snapshots/s"];
    let numbers = paths.map(|path| m.path(path).metadata().unwrap().ino());
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    // Two that walk at the same time may be told ESTALE; one after the other is never.
    for path in paths.iter().cycle().take(30) {
        let names: Vec<_> = fs::read_dir(m.path(path)).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(names.len(), 1);
        assert!(m.path(path).join("c").metadata().unwrap().is_dir());
    }
}
