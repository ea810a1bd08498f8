//! Snapshots: whose they are, and what is in one.

use super::python;
use crate::mounted::helper::Mounted;

/// SEMANTICS §4.6: the owner of the root makes and deletes snapshots, others look, and permissions
/// inside are those of then.
#[test]
fn snapshots_belong_to_the_owner_of_the_root() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.chown(".", 1000, 1000)
os.chmod(".", 0o755)
write("open"); write("secret")
os.chmod("secret", 0o600)
os.mkdir(".snapshots/by-root")
os.chmod("secret", 0o644)
as_user(1000, 1000, [], lambda: os.mkdir(".snapshots/mine"))
as_user(1000, 1000, [], lambda: os.rename(".snapshots/mine", ".snapshots/ours"))
def other():
    assert sorted(os.listdir(".snapshots")) == ["by-root", "ours"]
    read(".snapshots/by-root/open")
    refused(errno.EACCES, read, ".snapshots/by-root/secret")
    read(".snapshots/ours/secret")
    refused(errno.EACCES, os.mkdir, ".snapshots/theirs")
    refused(errno.EACCES, os.rmdir, ".snapshots/ours")
    refused(errno.EACCES, os.rename, ".snapshots/ours", ".snapshots/theirs")
as_user(2000, 2000, [], other)
as_user(1000, 1000, [], lambda: os.rmdir(".snapshots/by-root"))
assert os.listdir(".snapshots") == ["ours"]
found = os.stat(".snapshots")
assert (found.st_uid, found.st_gid) == (1000, 1000)
"#,
    );
}

/// SEMANTICS §1.8: what `write` was given is ours when it returns, so a snapshot has it; what was
/// put into a shared mapping is, when it was synced.
#[test]
fn the_kernel_keeps_no_written_pages() {
    let m = Mounted::with(&[], crate::testkit::NO_BACKGROUND_COMMITS);
    python(
        &m,
        r#"
fd = os.open("f", os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"written".ljust(8192, b"."), 0)
view = mmap.mmap(fd, 8192)
os.mkdir(".snapshots/written")
assert read(".snapshots/written/f")[:7] == b"written"
view[0:7] = b"mapped!"
view.flush()
os.mkdir(".snapshots/mapped")
assert read(".snapshots/mapped/f")[:7] == b"mapped!"
assert read(".snapshots/written/f")[:7] == b"written"
"#,
    );
}

/// SEMANTICS §4.13: no `.snapshots` in a snapshot, and none can be made in the live tree.
#[test]
fn there_is_one_level_of_snapshots() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.mkdir("d"); write("f")
os.mkdir(".snapshots/s")
for place in [".snapshots/s", ".snapshots/s/d"]:
    refused(errno.ENOENT, os.stat, f"{place}/.snapshots")
for place in [".", "d"]:
    for call in [os.mkdir, write, lambda path: os.symlink("x", path), os.mkfifo,
                 lambda path: os.link("f", path), lambda path: os.rename("f", path)]:
        try:
            call(f"{place}/.snapshots")
            raise SystemExit(f"{place}/.snapshots was made")
        except OSError as e:
            assert e.errno in (errno.EEXIST, errno.EPERM, errno.EISDIR, errno.EXDEV), e
    assert ".snapshots" not in os.listdir(place)
read("f")
"#,
    );
}

/// SEMANTICS §4.2: nothing but snapshots can be made in `.snapshots`. SEMANTICS §4.7: linking or
/// renaming out of a snapshot is refused as between filesystems.
#[test]
fn nothing_else_goes_in_or_out() {
    let m = Mounted::new();
    python(
        &m,
        r#"
write("f"); os.mkdir("d")
os.mkdir(".snapshots/s")
for call in [write, os.mkfifo, lambda path: os.symlink("x", path), lambda path: os.link("f", path)]:
    refused(errno.EPERM, call, ".snapshots/new")
for source in ["f", "d"]:
    refused((errno.EPERM, errno.EXDEV), os.rename, source, ".snapshots/new")
refused((errno.EPERM, errno.EISDIR), os.unlink, ".snapshots/s")
refused((errno.EPERM, errno.EACCES, errno.EINVAL), os.chmod, ".snapshots", 0o777)
assert os.listdir(".snapshots") == ["s"]
refused(errno.EXDEV, os.link, ".snapshots/s/f", "out")
refused(errno.EXDEV, os.rename, ".snapshots/s/f", "out")
refused(errno.EXDEV, os.rename, ".snapshots/s/d", "out")
assert sorted(os.listdir(".")) == ["d", "f"] and sorted(os.listdir(".snapshots/s")) == ["d", "f"]
"#,
    );
}

/// SEMANTICS §4.8: what is open in a deleted snapshot reads on, everything else is gone.
#[test]
fn a_deleted_snapshot_leaves_open_files_only() {
    let m = Mounted::new();
    python(
        &m,
        r#"
os.mkdir("d"); write("d/f", b"kept"); write("d/g", b"lost")
os.mkdir(".snapshots/s")
fd = os.open(".snapshots/s/d/f", os.O_RDONLY)
directory = os.open(".snapshots/s/d", os.O_RDONLY)
os.chdir(".snapshots/s")
os.rmdir("../../.snapshots/s")
assert os.read(fd, 10) == b"kept"
gone = (errno.ESTALE, errno.ENOENT)
refused(gone, os.open, "g", os.O_RDONLY, dir_fd=directory)
refused(gone, os.listdir, "d")
refused(gone, os.stat, "d/g")
"#,
    );
}
