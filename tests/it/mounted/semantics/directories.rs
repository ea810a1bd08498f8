//! Directories: offsets that last, and very many entries.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::python;
use crate::mounted::helper::{Mounted, is_big};
use crate::testkit::{MIB, run};

/// Lists `count` names of `d` from an offset on through a descriptor of its own, as an NFS server
/// does for each request; prints names and offsets after them.
const PAGE: &str = r#"
fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
os.lseek(fd, OFFSET, os.SEEK_SET)
left = COUNT
buffer = ctypes.create_string_buffer(32768)
while left > 0:
    size = syscall(217, fd, buffer, ctypes.c_size_t(len(buffer)))
    if size == 0:
        break
    at = 0
    while at < size and left > 0:
        _, after, length, _ = struct.unpack_from("<QqHB", buffer.raw, at)
        name = buffer.raw[at + 19:at + length].split(b"\0")[0].decode()
        print(after, name)
        at += length
        left -= 1
"#;

fn page(m: &Mounted, offset: i64, count: usize) -> Vec<(i64, String)> {
    let script = PAGE.replace("OFFSET", &offset.to_string()).replace("COUNT", &count.to_string());
    let said = python(m, &script);
    let line = |line: &str| {
        let (after, name) = line.split_once(' ').unwrap();
        (after.parse().unwrap(), name.to_owned())
    };
    said.lines().map(line).collect()
}

/// SEMANTICS §3.1: names that are there all the time are returned exactly once, whatever comes and
/// goes between two requests, and although the volume is mounted anew between them.
#[test]
fn an_offset_outlives_changes_and_remounts() {
    const STAY: usize = 3000;
    let mut m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    for number in 0..STAY {
        fs::write(dir.join(format!("stays{number}")), b"").unwrap();
        fs::write(dir.join(format!("goes{number}")), b"").unwrap();
    }
    let (mut seen, mut offset, mut pages) = (Vec::new(), 0, Vec::new());
    for round in 0.. {
        let some = page(&m, offset, 700);
        let Some((after, _)) = some.last() else { break };
        pages.push((offset, some.clone()));
        offset = *after;
        seen.extend(some.into_iter().map(|(_, name)| name));
        for number in 0..100 {
            let number = round * 100 + number;
            // Perhaps it went already: it was the last one of a page.
            let _ = fs::remove_file(dir.join(format!("goes{number}")));
            fs::write(dir.join(format!("comes{number}")), b"").unwrap();
        }
        // An entry that was just returned is the one to go on from; it may be gone.
        if let Some(last) = seen.last().filter(|name| name.starts_with("goes")) {
            let _ = fs::remove_file(dir.join(last));
        }
        if round % 2 == 1 {
            m.remount();
        }
    }
    assert!(pages.len() >= 8, "{} pages are not many", pages.len());
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a name came twice");
    let stays = seen.iter().filter(|name| name.starts_with("stays")).count();
    assert_eq!(stays, STAY);
    // Back to an old offset: what stayed is there again, in the same order.
    let only_stays = |page: &[(i64, String)]| -> Vec<String> {
        let names = page.iter().map(|(_, name)| name.clone());
        names.filter(|name| name.starts_with("stays")).collect()
    };
    let (offset, before) = &pages[3];
    let again = page(&m, *offset, 2000);
    let expected = only_stays(before);
    assert!(expected.len() > 100);
    assert_eq!(only_stays(&again)[..expected.len()], expected);
}

/// Makes, or removes, `names` of a directory in a process each, because one call waits for another.
fn in_two(names: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|threads| {
        for half in 0..2 {
            let work = &work;
            threads.spawn(move || (half..names).step_by(2).for_each(work));
        }
    });
}

/// A directory of a million entries (`STRATAFS_BIG=1`; else a tenth): filled, listed while it
/// changes, listed after a remount, removed; in bounded memory. SEMANTICS §3.1.
#[test]
fn a_very_large_directory_is_like_a_small_one() {
    let names: usize = if is_big() { 1_000_000 } else { 100_000 };
    let mut m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    let began = std::time::Instant::now();
    let said = |what: &str| eprintln!("{names} entries {what} after {:?}", began.elapsed());
    in_two(names, |number| drop(fs::File::create(dir.join(format!("stays{number}"))).unwrap()));
    said("made");
    let (done, listings) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0.. {
                fs::File::create(dir.join(format!("comes{number}"))).unwrap();
                fs::remove_file(dir.join(format!("comes{number}"))).unwrap();
                if done.load(Ordering::Relaxed) && listings.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
        });
        let found = count_names(&m, "stays");
        listings.fetch_add(1, Ordering::Relaxed);
        done.store(true, Ordering::Relaxed);
        assert_eq!(found, names, "while it changed");
    });
    said("listed while changing");
    m.remount();
    assert_eq!(count_names(&m, "stays"), names, "after a remount");
    said("listed after a remount");
    let resident = m.resident_bytes();
    assert!(resident < 400 * MIB as u64, "{} MiB are resident", resident / MIB as u64);
    let mut rm = Command::new("rm").arg("-rf").arg(&dir).spawn().unwrap();
    assert!(rm.wait().unwrap().success());
    said("removed");
    assert!(!dir.exists());
    assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
    fs::create_dir(&dir).unwrap();
    m.assert_sound();
}

/// Distinct names in `d` that begin like this; panics if one comes twice.
fn count_names(m: &Mounted, prefix: &str) -> usize {
    let mut found = vec![false; 0];
    for entry in fs::read_dir(m.path("d")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(number) = name.strip_prefix(prefix) else { continue };
        let number: usize = number.parse().unwrap();
        if found.len() <= number {
            found.resize(number + 1, false);
        }
        assert!(!std::mem::replace(&mut found[number], true), "{name} is listed twice");
    }
    found.iter().filter(|there| **there).count()
}

/// SEMANTICS §2.4: a directory's size is 4096, its link count 2 plus its subdirectories.
#[test]
fn a_directory_counts_its_subdirectories() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.mkdir("d")
def facts(path="d"):
    found = os.stat(path)
    return found.st_size, found.st_nlink
assert facts() == (4096, 2), facts()
os.mkdir("d/one"); os.mkdir("d/two"); write("d/file")
assert facts() == (4096, 4), facts()
os.rename("d/one", "one")
assert facts() == (4096, 3) and facts(".") == (4096, 4), (facts(), facts("."))
os.rmdir("d/two")
assert facts() == (4096, 2), facts()
for number in range(300):
    os.mkdir(f"d/{number}")
assert facts() == (4096, 302), facts()
"#,
    );
}

/// Paths longer than any call takes, reached by steps; and removed again.
#[test]
fn paths_are_as_deep_as_anybody_walks() {
    let mut m = Mounted::new();
    let walk = r#"
name = "x" * 255
here = os.open(".", os.O_RDONLY)
for depth in range(100):
    if MAKE:
        os.mkdir(name, dir_fd=here)
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    os.close(here)
    here = below
if MAKE:
    fd = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(fd, b"deep")
    os.mkdir(".snapshots/deep")
else:
    fd = os.open("file", os.O_RDONLY, dir_fd=here)
    assert os.read(fd, 10) == b"deep"
os.fchdir(here)
refused(errno.ENAMETOOLONG, os.stat, "../" * 1400 + "file")
for depth in range(100):
    os.chdir("..")
assert os.path.samefile(".", START), os.getcwd()
"#;
    python(&m, &walk.replace("MAKE", "True").replace("START", "'/proc/self/cwd'"));
    m.remount();
    let root = format!("'{}'", m.text(""));
    python(&m, &walk.replace("MAKE", "False").replace("START", &root));
    let found = run("find", &[&m.text(""), "-name", "file", "-size", "4c", "-printf", "%d\n"]);
    assert_eq!(found, "101\n");
    run("rm", &["-rf", &m.text(&"x".repeat(255))]);
    assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
    m.assert_sound();
}

/// SEMANTICS §3.7: a removed directory is empty for who stands in it or has it open, and has
/// attributes.
#[test]
fn a_removed_directory_is_empty_for_everybody() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.mkdir("d")
fd = os.open("d", os.O_RDONLY)
os.chdir("d")
os.rmdir("../d")
gone = (errno.ESTALE, errno.ENOENT)
assert os.listdir(fd) == [] and os.listdir(".") == []
assert os.fstat(fd).st_nlink == os.stat(".").st_nlink == 0
refused(gone, write, "f")
refused(gone, os.mkdir, "e")
refused(gone, os.open, "f", os.O_RDONLY, dir_fd=fd)
"#,
    );
}
