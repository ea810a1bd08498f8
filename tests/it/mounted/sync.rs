//! What each call that has to do with durability promises: docs/SEMANTICS.md §1. The process is
//! killed directly after the call, and nothing but the call has made it commit.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use super::helper::Mounted;
use crate::testkit::{KIB, NO_BACKGROUND_COMMITS, random_bytes, run, try_run, wait_until};

const O_SYNC: i32 = 0o4_010_000;
const O_DSYNC: i32 = 0o10_000;

/// A few lines of Python with `path`, and the C library as `c`.
fn python(path: &Path, lines: &str) {
    let script = format!(
        "import ctypes, mmap, os, sys\n\
         c = ctypes.CDLL(None, use_errno=True)\n\
         path = sys.argv[1]\n{lines}"
    );
    run("python3", &["-c", &script, path.to_str().unwrap()]);
}

fn commits(m: &Mounted) -> u64 {
    m.ask_json(&["stats"], &[])["activity"]["commits"].as_u64().unwrap()
}

fn open_for_write(path: &Path, flags: i32, read: bool) -> File {
    OpenOptions::new().read(read).write(true).create(true).custom_flags(flags).open(path).unwrap()
}

/// Writes through a shared mapping, then runs `then`, with the mapping as `m` and its address as
/// `at`.
fn map_and(path: &Path, data: &[u8], then: &str) {
    let source = path.with_file_name("source");
    fs::write(&source, data).unwrap();
    fs::write(path, vec![0; data.len()]).unwrap();
    let lines = format!(
        "data = open(os.path.dirname(path) + '/source', 'rb').read()\n\
         f = open(path, 'r+b')\n\
         m = mmap.mmap(f.fileno(), len(data))\n\
         m[:] = data\n\
         at = ctypes.addressof(ctypes.c_char.from_buffer(m))\n\
         {then}"
    );
    python(path, &lines);
}

type Way = (&'static str, fn(&Path, &[u8]));

/// Each leaves `data` in the file and is to make it durable, and all that came before.
const PROMISES: [Way; 11] = [
    ("fsync", |path, data| {
        let mut file = File::create(path).unwrap();
        file.write_all(data).unwrap();
        file.sync_all().unwrap();
    }),
    ("fdatasync", |path, data| {
        let mut file = File::create(path).unwrap();
        file.write_all(data).unwrap();
        file.sync_data().unwrap();
    }),
    ("fsync of a descriptor that only reads", |path, data| {
        fs::write(path, data).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
    }),
    ("O_SYNC", |path, data| open_for_write(path, O_SYNC, false).write_all(data).unwrap()),
    ("O_DSYNC", |path, data| open_for_write(path, O_DSYNC, false).write_all(data).unwrap()),
    ("O_SYNC through the page cache", |path, data| {
        open_for_write(path, O_SYNC, true).write_all(data).unwrap();
    }),
    ("O_DSYNC through the page cache", |path, data| {
        open_for_write(path, O_DSYNC, true).write_all_at(data, 0).unwrap();
    }),
    ("fsync of the directory", |path, data| {
        fs::write(path, data).unwrap();
        File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
    }),
    ("fdatasync of the directory", |path, data| {
        fs::write(path, data).unwrap();
        File::open(path.parent().unwrap()).unwrap().sync_data().unwrap();
    }),
    ("msync", |path, data| map_and(path, data, "m.flush()")),
    ("a snapshot", |path, data| {
        fs::write(path, data).unwrap();
        let name = path.file_name().unwrap();
        let root = path.parent().unwrap().parent().unwrap();
        fs::create_dir(root.join(".snapshots").join(name)).unwrap();
    }),
];

/// SEMANTICS §1.6: what stands in the table.
#[test]
fn what_a_call_confirms_survives_a_kill() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let mut expected = Vec::new();
    fs::create_dir(m.path("d")).unwrap();
    for (number, (name, way)) in PROMISES.iter().enumerate() {
        // Something else that came before; it is covered as well.
        let before = m.path(&format!("d/before{number}"));
        fs::write(&before, name).unwrap();
        fs::rename(&before, m.path(&format!("d/moved{number}"))).unwrap();
        let path = format!("d/file{number}");
        let data = random_bytes(number as u64, 20 * KIB + number * 1001);
        way(&m.path(&path), &data);
        m.end_by("KILL");
        m.mount();
        expected.push((path, data));
        for (path, data) in &expected {
            assert!(fs::read(m.path(path)).unwrap() == *data, "{name}: {path} is not as synced");
        }
        let moved = fs::read_to_string(m.path(&format!("d/moved{number}"))).unwrap();
        assert_eq!(moved, *name, "what came before is not there");
        assert!(!m.path(&format!("d/before{number}")).exists());
    }
    m.assert_sound();
}

/// They leave it to the commit interval; what is there afterwards is the last commit, whole.
/// SEMANTICS §1.2: closing syncs nothing. SEMANTICS §6.1: nor does `syncfs`.
#[test]
fn calls_that_promise_nothing_commit_nothing() {
    const NOTHING: [Way; 5] = [
        ("close", |path, data| fs::write(path, data).unwrap()),
        ("syncfs", |path, data| {
            fs::write(path, data).unwrap();
            python(path, "assert c.syncfs(os.open(path, os.O_RDONLY)) == 0");
        }),
        ("sync_file_range", |path, data| {
            fs::write(path, data).unwrap();
            let call = "c.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7)";
            python(path, &format!("fd = os.open(path, os.O_RDWR)\nassert {call} == 0"));
        }),
        ("msync in the background", |path, data| {
            let msync = "c.msync(ctypes.c_void_p(at), ctypes.c_size_t(len(data)), 1)";
            map_and(path, data, &format!("assert {msync} == 0"));
        }),
        ("munmap", |path, data| map_and(path, data, "pass")),
    ];
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/kept"), "kept").unwrap();
    File::open(m.path("d")).unwrap().sync_all().unwrap();
    for (name, way) in NOTHING {
        let before = commits(&m);
        let data = random_bytes(1, 50 * KIB);
        way(&m.path("d/file"), &data);
        assert_eq!(commits(&m), before, "{name} commits; then it may be documented");
        assert!(fs::read(m.path("d/file")).unwrap() == data, "{name}");
        m.end_by("KILL");
        m.mount();
        let names = fs::read_dir(m.path("d")).unwrap().count();
        assert_eq!(names, 1, "{name}: more is there than the last commit had");
        assert_eq!(fs::read_to_string(m.path("d/kept")).unwrap(), "kept");
    }
}

/// Closing syncs nothing, but what is there after somebody else's sync is complete.
/// SEMANTICS §1.2.
#[test]
fn a_closed_file_is_complete_if_it_is_there() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let data = random_bytes(1, 300 * KIB);
    fs::write(m.path("closed"), &data).unwrap();
    let mut open = File::create(m.path("open")).unwrap();
    open.write_all(&data).unwrap();
    File::create(m.path("other")).unwrap().sync_all().unwrap();
    open.write_all(&data).unwrap();
    m.end_by("KILL");
    m.mount();
    assert!(fs::read(m.path("closed")).unwrap() == data);
    assert!(fs::read(m.path("open")).unwrap() == data, "not as at the sync");
}

/// However many callers there are, and however few threads serve them. Each changes something and
/// wants it durable in one request, so a commit that served only one would not be empty.
/// SEMANTICS §1.1.
#[test]
fn syncs_at_the_same_time_share_commits() {
    const CALLERS: usize = 48;
    let m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let open = |n: usize| open_for_write(&m.path(&n.to_string()), O_DSYNC, false);
    let files: Vec<_> = (0..CALLERS).map(open).collect();
    File::open(m.path("")).unwrap().sync_all().unwrap();
    let before = commits(&m);
    // They all ask while nobody answers.
    let callers = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        let stopped = Stopped::new(m.pid());
        for file in &files {
            threads.spawn(|| {
                let me = fs::read_link("/proc/thread-self").unwrap();
                callers.lock().unwrap().push(Path::new("/proc").join(me));
                file.write_all_at(&random_bytes(1, 10_000), 0).unwrap();
            });
        }
        wait_until("all are waiting", || {
            let callers = callers.lock().unwrap();
            callers.len() == CALLERS && callers.iter().all(|caller| is_waiting(caller))
        });
        drop(stopped);
    });
    let shared = commits(&m) - before;
    assert!((1..=CALLERS as u64 / 6).contains(&shared), "{shared} commits for {CALLERS} writes");
}

/// True for a thread that neither runs nor wants to.
fn is_waiting(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.starts_with(['S', 'D'])
}

/// A process that does nothing until this is dropped.
struct Stopped(String);

impl Stopped {
    fn new(pid: u32) -> Self {
        let pid = pid.to_string();
        run("kill", &["-STOP", &pid]);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        try_run("kill", &["-CONT", &self.0]);
    }
}
