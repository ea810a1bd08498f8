//! Content: mappings, direct and appending writes, holes, ranges that are copied.

use super::python;
use crate::mounted::helper::Mounted;

/// A private mapping changes nothing; a shared one is the file, between processes too.
#[test]
fn mappings_are_private_or_shared() {
    let mut m = Mounted::new();
    python(
        &m,
        r#"
size = 1 << 20
before = os.urandom(size)
write("f", before)
fd = os.open("f", os.O_RDWR)
private = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
private[0:4] = b"mine"
private[size - 4:size] = b"mine"
assert read("f") == before, "a private mapping wrote"
os.pwrite(fd, b"seen", 5000)
assert private[5000:5004] == b"seen", "a page that nobody changed shows the file"
assert private[0:4] == b"mine"

shared = mmap.mmap(fd, size)
def turn(me):
    for number in range(200):
        at = 8192 * me + number
        shared[at] = number
    shared.flush()
both(turn)
data = read("f")
assert data[0:200] == bytes(range(200)) and data[8192:8392] == bytes(range(200))
# Grown behind the mapping's end, then mapped anew.
os.ftruncate(fd, 2 * size)
longer = mmap.mmap(fd, 2 * size)
longer[2 * size - 1] = 7
longer.flush()
assert read("f")[2 * size - 1] == 7
# Cut under the mapping: what is left is right.
os.ftruncate(fd, 4096)
assert os.stat("f").st_size == 4096 and read("f") == data[:4096]
os.fsync(fd)
"#,
    );
    m.remount();
    python(&m, "assert read('f')[0:200] == bytes(range(200)) and os.stat('f').st_size == 4096");
    m.assert_sound();
}

/// What goes past the page cache and what goes through it is one file.
#[test]
fn direct_and_cached_access_agree() {
    let m = Mounted::new();
    python(
        &m,
        r#"
page = mmap.mmap(-1, 1 << 16)
page[:] = os.urandom(1 << 16)
direct = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
cached = os.open("f", os.O_RDWR)
for number in range(8):
    at = number << 16
    assert os.pwritev(direct, [page], at) == 1 << 16
    assert os.pread(cached, 1 << 16, at) == page[:], "cached reads are behind"
    os.pwrite(cached, b"cached", at + 100)
    back = mmap.mmap(-1, 1 << 16)
    assert os.preadv(direct, [back], at) == 1 << 16
    assert back[100:106] == b"cached" and back[106:] == page[106:], "direct reads are behind"
# A short end: what is left of the file, not of the page.
os.ftruncate(direct, 5000)
assert os.preadv(direct, [page], 4096) == 904
view = mmap.mmap(cached, 5000)
os.pwritev(direct, [memoryview(page)[:4096]], 0)
assert view[:4096] == page[:4096], "a mapping is behind"
"#,
    );
}

/// Several processes append: every record is there, whole, and once.
#[test]
fn appends_of_several_processes_are_whole() {
    let m = Mounted::new();
    python(
        &m,
        r#"
def append(me):
    def some(writer):
        fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in range(200):
            # Seeking changes nothing: O_APPEND writes at the end.
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, (f"{writer} {number:03} " + "x" * (number * 17 % 3000) + "\n").encode())
    some(me)
    some(me + 2)
both(append)
lines = read("log").decode().splitlines()
found = sorted(line.split(" ")[:2] for line in lines)
assert found == [[str(w), f"{n:03}"] for w in range(4) for n in range(200)], len(found)
for line in lines:
    assert len(line.split(" ")[2]) == int(line.split(" ")[1]) * 17 % 3000, line[:50]
"#,
    );
}

/// SEMANTICS §2.10: files reach up to 2⁶³ − 1 bytes, and take what is written. SEMANTICS §2.7:
/// holes and data are told exactly, buffered data included. SEMANTICS §2.3: blocks count data only.
#[test]
fn sparse_files_of_eight_exbibytes() {
    let mut m = Mounted::new();
    python(
        &m,
        r#"
last = (1 << 63) - 1
fd = os.open("f", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, last)
assert os.stat("f").st_size == last and os.stat("f").st_blocks == 0
for at in [0, 1 << 32, 1 << 62]:
    os.pwrite(fd, b"d" * 65536, at)
os.pwrite(fd, b"end", last - 3)
refused((errno.EFBIG, errno.EINVAL), os.pwrite, fd, b"x", last)
"#,
    );
    let look = r#"
last = (1 << 63) - 1
fd = os.open("f", os.O_RDWR)
assert os.stat("f").st_size == last
assert os.pread(fd, 3, last - 3) == b"end"
assert os.pread(fd, 4, (1 << 62) + 65534) == b"dd\0\0"
assert os.pread(fd, 4, 1 << 61) == bytes(4)
found, at = [], 0
while True:
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == errno.ENXIO
        break
    at = os.lseek(fd, data, os.SEEK_HOLE)
    found.append((data, at))
assert [f for f in found[:3]] == [(a, a + 65536) for a in [0, 1 << 32, 1 << 62]], found
assert found[3][0] <= last - 3 and found[3][1] == last and len(found) == 4, found
assert os.lseek(fd, 5 << 40, os.SEEK_HOLE) == 5 << 40
assert 3 * 128 <= os.stat("f").st_blocks <= 3 * 128 + 8, os.stat("f").st_blocks
"#;
    python(&m, look);
    m.remount();
    python(&m, look);
    python(&m, "os.truncate('f', 10); assert read('f') == b'd' * 10; os.unlink('f')");
    m.assert_sound();
}

/// SEMANTICS §2.5: runs of zeros become holes, although they were written as zeros.
#[test]
fn written_zeros_are_holes() {
    let m = Mounted::new();
    python(
        &m,
        r#"
write("f", b"d" * 4096 + bytes(4096 * 4) + b"d" * 4096 + bytes(4096 * 3) + b"d" * 4096)
fd = os.open("f", os.O_RDONLY)
assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
assert os.lseek(fd, 4096, os.SEEK_DATA) == 5 * 4096
# 12 KiB are too few: they are data.
assert os.lseek(fd, 5 * 4096, os.SEEK_HOLE) == 10 * 4096
assert os.stat("f").st_blocks == 6 * 8, os.stat("f").st_blocks
"#,
    );
}

/// SEMANTICS §2.6: `fallocate` reserves nothing, grows the file unless told not to, makes holes,
/// and is refused where there could be no room.
#[test]
fn fallocate_reserves_nothing() {
    let m = Mounted::new();
    python(
        &m,
        r#"
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
def fallocate(mode, offset, length):
    syscall(285, fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
data = os.urandom(1 << 20)
write("f", data)
fd = os.open("f", os.O_RDWR)
fallocate(0, 0, 64 << 20)
assert os.stat("f").st_size == 64 << 20
assert os.stat("f").st_blocks <= 2048 + 8, "something was reserved"
fallocate(KEEP_SIZE, 0, 128 << 20)
assert os.stat("f").st_size == 64 << 20
fallocate(PUNCH_HOLE | KEEP_SIZE, 4096, 65536)
fallocate(ZERO_RANGE, 300000, 100000)
expected = bytearray(data + bytes(63 << 20))
expected[4096:4096 + 65536] = bytes(65536)
expected[300000:400000] = bytes(100000)
assert read("f") == expected
assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
assert os.lseek(fd, 4096, os.SEEK_DATA) == 4096 + 65536
free = os.statvfs(".").f_bavail * os.statvfs(".").f_frsize
refused(errno.ENOSPC, fallocate, 0, 0, free + (1 << 30))
assert os.stat("f").st_size == 64 << 20
"#,
    );
}

/// SEMANTICS §2.8: a range is copied by reference, out of a snapshot too; one call takes 1 GiB at
/// most. SEMANTICS §6.1: `FICLONE` does not reach us, nor do `O_TMPFILE`, `FIEMAP`, flags.
#[test]
fn ranges_are_copied_by_reference() {
    let m = Mounted::new();
    python(
        &m,
        r#"
data = os.urandom(3 << 20)
write("f", data)
os.mkdir(".snapshots/s")
write("f", b"other")
to = os.open("copy", os.O_RDWR | os.O_CREAT)
fd = os.open(".snapshots/s/f", os.O_RDONLY)
assert os.copy_file_range(fd, to, 3 << 20, 0, 0) == 3 << 20
assert read("copy") == data
# Odd ends, over what is there.
assert os.copy_file_range(fd, to, 100001, 1000003, 7) == 100001
assert read("copy") == data[:7] + data[1000003:1100004] + data[100008:]
big = os.open("big", os.O_RDWR | os.O_CREAT)
os.ftruncate(big, 3 << 30)
os.pwrite(big, b"x", 2 << 30)
assert os.copy_file_range(big, to, 3 << 30, 0, 0) == 1 << 30

FICLONE, FS_IOC_GETFLAGS, FS_IOC_FIEMAP = 0x40049409, 0x80086601, 0xc020660b
def ioctl(request, argument):
    return fcntl.ioctl(to, request, argument)
for request, argument in [(FICLONE, fd), (FS_IOC_GETFLAGS, bytes(8)), (FS_IOC_FIEMAP, bytes(32))]:
    try:
        ioctl(request, argument)
        raise SystemExit(f"ioctl {request:#x} works; then it may be documented")
    except OSError as e:
        assert e.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV), e
refused(errno.EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR)
"#,
    );
    // Nothing was stored for the copies.
    let stored = m.total("new_bytes");
    assert!(stored < (3 << 20) + 300_000, "{stored} bytes");
}
