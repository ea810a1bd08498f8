//! Attributes: times, owners, xattrs, what writing takes away.

use super::python;
use crate::mounted::helper::Mounted;
use crate::testkit::run;

/// SEMANTICS §2.1: reading sets no `atime`; creation and `utimensat` do. SEMANTICS §2.2: a write
/// changes `mtime` and `ctime`, a change of attributes `ctime` alone; times keep their nanoseconds
/// before 1970 and after 2106, over a remount; there is no birth time.
#[test]
fn times_are_kept_to_the_nanosecond() {
    let mut m = Mounted::new();
    python(
        &m,
        r#"
def times():
    found = os.stat("f")
    return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
def changed(work):
    before = times()
    time.sleep(0.02)
    work()
    return tuple(a != b for a, b in zip(before, times()))
began = time.time_ns()
write("f", b"x" * 10000)
assert all(abs(t - began) < 10**10 for t in times()), times()
assert changed(lambda: read("f")) == (False, False, False), "reading changed a time"
assert changed(lambda: os.listdir(".")) == (False, False, False)
def add():
    with open("f", "ab") as file:
        file.write(b"more")
assert changed(add) == (False, True, True), "a write"
assert changed(lambda: os.truncate("f", 5)) == (False, True, True), "a cut"
assert changed(lambda: os.chmod("f", 0o600)) == (False, False, True), "chmod"
assert changed(lambda: os.chown("f", 1, 1)) == (False, False, True), "chown"
assert changed(lambda: os.setxattr("f", "user.a", b"1")) == (False, False, True), "setxattr"
assert changed(lambda: os.link("f", "g")) == (False, False, True), "link"
assert changed(lambda: os.rename("g", "h")) == (False, False, True), "rename"
assert changed(lambda: os.unlink("h")) == (False, False, True), "unlink"
assert changed(lambda: os.utime("f", ns=(1, 2))) == (True, True, True), "utimensat"
directory = os.stat(".").st_mtime_ns
time.sleep(0.02)
write("new")
assert os.stat(".").st_mtime_ns > directory, "a new name changes its directory"
for number, when in enumerate(WHENS):
    write(f"t{number}")
    os.utime(f"t{number}", ns=(when, when + 1))
"#
        .replace("WHENS", WHENS)
        .as_str(),
    );
    let look = r#"
for number, when in enumerate(WHENS):
    found = os.stat(f"t{number}")
    assert (found.st_atime_ns, found.st_mtime_ns) == (when, when + 1), (when, found)
"#
    .replace("WHENS", WHENS);
    python(&m, &look);
    m.remount();
    python(&m, &look);
    assert_eq!(run("stat", &["-c", "%W", &m.text("f")]).trim(), "0", "there is a birth time");
}

/// Nanoseconds since 1970: 1901, the last one before 1970, 1970, 2106, 2150, 2300.
const WHENS: &str = "[-2147483649000000001, -2, 0, 4294967295999999998, 4294967296000000000, \
                     5700000000123456789, 9000000000123456789]";

/// SEMANTICS §2.9: writing takes the set-id bits and capabilities, as does a new owner, and a new
/// size that somebody other than root sets.
#[test]
fn writing_takes_privileges_away() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.chmod(".", 0o777)
capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
def privileged(name, mode=0o6777):
    write(name)
    os.chmod(name, mode)
    os.setxattr(name, "security.capability", capability)
def privileges(name):
    mode = stat.S_IMODE(os.stat(name).st_mode)
    return oct(mode & 0o6000), "security.capability" in os.listxattr(name)
def append(name):
    fd = os.open(name, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    os.close(fd)

privileged("theirs")
assert privileges("theirs") == ("0o6000", True)
as_user(1000, 1000, [], lambda: append("theirs"))
assert privileges("theirs") == ("0o0", False), privileges("theirs")

# A group that may not execute it: the bit means locking, which a member may leave.
for group, left in ((1000, "0o2000"), (1001, "0o0")):
    write("locking")
    os.chown("locking", 0, group)
    privileged("locking", 0o2766)
    as_user(1000, 1000, [], lambda: append("locking"))
    assert privileges("locking") == (left, False), privileges("locking")

# Root is trusted with the bits; capabilities go all the same.
privileged("mine")
append("mine")
assert privileges("mine") == ("0o6000", False), privileges("mine")

privileged("given")
os.chown("given", 1000, 1000)
assert privileges("given") == ("0o0", False), privileges("given")

privileged("cut")
as_user(1000, 1000, [], lambda: os.truncate("cut", 0))
assert privileges("cut") == ("0o0", False), privileges("cut")
privileged("cut by root")
os.truncate("cut by root", 0)
assert privileges("cut by root")[0] == "0o6000", privileges("cut by root")
"#,
    );
}

/// SEMANTICS §2.12: namespaces of xattrs, and who lists `trusted.`; the virtual name of the root.
#[test]
fn xattrs_have_namespaces() {
    let mut m = Mounted::new();
    fs_write(&m);
    python(
        &m,
        r#"
os.chmod(".", 0o755)
names = ["user.a", "trusted.a", "security.a"]
for name in names:
    os.setxattr("f", name, name.encode())
    assert os.getxattr("f", name) == name.encode()
assert sorted(os.listxattr("f")) == sorted(names)
def look():
    assert os.listxattr("f") == ["user.a", "security.a"] or sorted(os.listxattr("f")) == [
        "security.a", "user.a"], os.listxattr("f")
    refused(errno.ENODATA, os.getxattr, "f", "trusted.a")
as_user(1000, 1000, [], look)
for name in ["system.other", "other.a", "a"]:
    refused(errno.EOPNOTSUPP, os.setxattr, "f", name, b"1")
# Only on files and directories may users have names of their own, as everywhere.
os.symlink("f", "l")
refused(errno.EPERM, os.setxattr, "l", "user.a", b"1", follow_symlinks=False)
os.setxattr("l", "trusted.a", b"1", follow_symlinks=False)
os.removexattr("f", "user.a")
refused(errno.ENODATA, os.removexattr, "f", "user.a")
"#,
    );
    m.remount();
    let volume = std::fs::canonicalize(m.volume()).unwrap();
    let expected = format!("VOLUME = {:?}", volume.to_str().unwrap());
    python(
        &m,
        &format!(
            "{expected}\n{}",
            r#"
assert sorted(os.listxattr("f")) == ["security.a", "trusted.a"]
assert os.getxattr(".", "user.stratafs.volume").decode() == VOLUME
assert os.listxattr(".") == []
"#
        ),
    );
}

fn fs_write(m: &Mounted) {
    std::fs::write(m.path("f"), b"x").unwrap();
}

/// SEMANTICS §2.13: the kernel checks permissions, with supplementary groups; but an access ACL set
/// by a member by supplementary group takes the set-group-id bit.
#[test]
fn supplementary_groups_count_but_for_acls() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.chmod(".", 0o777)
write("shared", b"x")
os.chown("shared", 0, 5000)
os.chmod("shared", 0o640)
as_user(1000, 1000, [5000], lambda: read("shared"))
as_user(1000, 1000, [], lambda: refused(errno.EACCES, read, "shared"))

def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
some = acl((1, 7, 2**32 - 1), (2, 4, 77), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1),
           (32, 0, 2**32 - 1))
for group, groups, expected in [(5000, [], 0o2000), (1000, [5000], 0)]:
    write("f")
    os.chown("f", 1000, 5000)
    os.chmod("f", 0o2770)
    as_user(1000, group, groups, lambda: os.setxattr("f", "system.posix_acl_access", some))
    found = stat.S_IMODE(os.stat("f").st_mode)
    assert found & 0o2000 == expected, (groups, oct(found))
    assert found & 0o777 == 0o770
"#,
    );
}

/// SEMANTICS §2.15: `statfs` tells what the shards' disk has free beyond the reserve, and how many
/// inodes are left.
#[test]
fn statfs_tells_the_truth() {
    let m = Mounted::new();
    let volume = m.volume();
    python(
        &m,
        &format!(
            "DISK = {:?}\n{}",
            volume.to_str().unwrap(),
            r#"
ours, disk = os.statvfs("."), os.statvfs(DISK)
free, below = ours.f_bavail * ours.f_frsize, disk.f_bavail * disk.f_frsize
total, whole = ours.f_blocks * ours.f_frsize, disk.f_blocks * disk.f_frsize
assert free < below - (32 << 20), (free, below)
assert free > below - (2 << 30), (free, below)
assert free <= total <= whole, (total, whole)
assert ours.f_namemax == 255
made = (1 << 40) - ours.f_ffree
for number in range(100):
    write(str(number))
os.unlink("0")
assert (1 << 40) - os.statvfs(".").f_ffree == made + 100, "a number is never used again"
"#
        ),
    );
}

/// SEMANTICS §6.2: options for access times are accepted, and change nothing.
#[test]
fn reading_sets_no_access_time_whatever_is_asked_for() {
    for option in ["strictatime", "relatime", "noatime"] {
        let m = Mounted::with(&["-o", option], "");
        fs_write(&m);
        python(
            &m,
            "os.utime('f', ns=(1, 2))\nread('f')\nos.listdir('.')\n\
             assert os.stat('f').st_atime_ns == 1",
        );
    }
}
