//! Names, and what they stand for.

use super::python;
use crate::mounted::helper::Mounted;

/// SEMANTICS §2.11: names are bytes, any but NUL and the slash.
#[test]
fn names_are_bytes() {
    let mut m = Mounted::new();
    let names = "NAMES = [bytes([b]) for b in range(1, 256) if b not in b'/.'] + \
                 [bytes(b for b in range(1, 256) if b != 47), b'\\xff' * 255, b'...', b' ', b'-']";
    python(&m, &format!("{names}\nfor number, name in enumerate(NAMES):\n    write(name, name)\n"));
    m.remount();
    let look = "assert set(os.listdir(b'.')) == set(NAMES)\n\
                for name in NAMES:\n    assert read(name) == name or name == b'-'\n";
    python(&m, &format!("{names}\n{look}"));
}

/// SEMANTICS §2.14: an inode's number is never given again, and its number in a snapshot says which
/// snapshot and which inode. All stay over a remount.
#[test]
fn inode_numbers_are_never_used_again() {
    let mut m = Mounted::new();
    python(
        &m,
        r#"
seen = set()
for number in range(200):
    write("f")
    seen.add(os.stat("f").st_ino)
    os.unlink("f")
assert len(seen) == 200
write("kept")
os.mkdir(".snapshots/s")
kept = os.stat("kept").st_ino
assert kept > max(seen)
inside = os.stat(".snapshots/s/kept").st_ino
assert inside % 2**40 == kept and 1 <= inside >> 40 < 2**23 - 1, (kept, inside)
os.setxattr("kept", "user.numbers", json.dumps([kept, inside]).encode())
"#,
    );
    m.remount();
    python(
        &m,
        r#"
kept, inside = json.loads(os.getxattr("kept", "user.numbers"))
assert os.stat("kept").st_ino == kept and os.stat(".snapshots/s/kept").st_ino == inside
write("f")
assert os.stat("f").st_ino > kept, "a number was used again after a remount"
"#,
    );
}

/// SEMANTICS §3.8: a handle that an NFS server keeps (`name_to_handle_at`: number and generation)
/// names the same file after a remount.
#[test]
fn file_handles_outlive_a_remount() {
    let mut m = Mounted::new();
    let handle = r#"
def handle(path):
    buffer = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    mount = ctypes.c_int()
    syscall(303, -100, path.encode(), buffer, ctypes.byref(mount), 0)
    size, = struct.unpack_from("I", buffer.raw)
    return buffer.raw[:8 + size].hex()
def opened(handle):
    buffer = ctypes.create_string_buffer(bytes.fromhex(handle))
    return syscall(304, os.open(".", os.O_RDONLY), buffer, os.O_RDONLY)
"#;
    let before = python(
        &m,
        &format!(
            "{handle}\n{}",
            r#"
os.makedirs("a/b")
write("a/b/f", b"found")
os.mkdir(".snapshots/s")
paths = ["a/b/f", "a/b", ".snapshots/s/a/b/f", ".", ".snapshots/s/a/b"]
print(*[handle(path) for path in paths])
"#
        ),
    );
    m.remount();
    python(
        &m,
        &format!(
            "{handle}\nbefore = {before:?}.split()\n{}",
            r#"
for number in [0, 2]:
    fd = opened(before[number])
    assert os.read(fd, 10) == b"found"
    os.close(fd)
# Nothing was looked up by name so far; a directory's way up is found, too.
below = opened(before[1])
assert os.listdir(below) == ["f"]
os.fchdir(below)
assert os.getcwd().endswith("/a/b"), os.getcwd()
os.chdir("../..")
# Its way up leads through a directory that no listing shows.
refused(errno.ESTALE, opened, before[4])
paths = ["a/b/f", "a/b", ".snapshots/s/a/b/f", ".", ".snapshots/s/a/b"]
assert [handle(path) for path in paths] == before
os.unlink("a/b/f")
refused(errno.ESTALE, opened, before[0])
"#
        ),
    );
    m.remount_with(&["-o", "snapdir=visible"]);
    let inside = before.split_whitespace().last().unwrap();
    python(&m, &format!("{handle}\nassert os.listdir(opened({inside:?})) == ['f']"));
}

/// SEMANTICS §3.3: `rename` replaces at once, and does what its flags say.
#[test]
fn rename_takes_flags() {
    let m = Mounted::new();
    python(
        &m,
        r#"
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
def rename(old, new, flags):
    syscall(316, -100, old.encode(), -100, new.encode(), flags)
write("a", b"a"); write("b", b"b"); os.mkdir("d"); write("d/f", b"f")
refused(errno.EEXIST, rename, "a", "b", NOREPLACE)
rename("a", "c", NOREPLACE)
assert read("c") == b"a" and not os.path.exists("a")
rename("c", "b", EXCHANGE)
assert (read("c"), read("b")) == (b"b", b"a")
rename("c", "d", EXCHANGE)
assert os.path.isfile("d") and read("c/f") == b"f"
refused(errno.ENOENT, rename, "c", "none", EXCHANGE)
refused(errno.EINVAL, rename, "b", "d", NOREPLACE | EXCHANGE)
rename("b", "w", WHITEOUT)
left = os.stat("b")
assert read("w") == b"a" and stat.S_ISCHR(left.st_mode) and left.st_rdev == 0
refused(errno.EINVAL, rename, "w", "d", WHITEOUT | EXCHANGE)
# Somebody who looks all the time never finds nothing, and mostly something at the first try.
def turn(me):
    if me == 1:
        for number in range(300):
            write("new", str(number).encode())
            os.rename("new", "here")
    else:
        found = stale = 0
        while found < 600:
            try:
                assert read("here") in WRITTEN
                found += 1
            except OSError as e:
                assert e.errno == errno.ESTALE, e
                stale += 1
        assert stale < 300, f"{stale} stale"
WRITTEN = [str(number).encode() for number in range(300)] + [b"first"]
write("here", b"first")
both(turn)
assert read("here") == b"299"
"#,
    );
}
