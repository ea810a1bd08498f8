"""Makes system calls below a directory and says what they answered, one line for each case.

Usage: calls.py DIR CASE_PATTERN      as root. Two filesystems that behave alike give the same lines.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import re
import stat
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
USER, OTHER, GROUP, ADDED = 61901, 61902, 61903, 61904
CASES = []


def case(function):
    CASES.append(function)
    return function


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old, new, flags):
    old, new = os.fsencode(old), os.fsencode(new)
    return checked(LIBC.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags))


def fallocate(fd, mode, offset, length):
    offset, length = ctypes.c_int64(offset), ctypes.c_int64(length)
    return checked(LIBC.fallocate64(fd, mode, offset, length))


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_int64), ("nanos", ctypes.c_long)]


def utimens(path, seconds, nanos):
    times = (Timespec * 2)(Timespec(seconds, nanos), Timespec(seconds, nanos))
    return checked(LIBC.utimensat(AT_FDCWD, os.fsencode(path), times, 0))


def tried(call, *args, **named):
    """What a call gave, or the name of its error."""
    try:
        given = call(*args, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return "ok" if given is None else given


def as_user(uid, gid, call, groups=()):
    """What `call` gives in a process of that user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            answer = repr(call())
        except BaseException as error:  # told to the parent
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 65536).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return answer


def make(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
    os.write(fd, data)
    return fd


def put(path, data=b"", mode=0o644):
    os.close(make(path, data, mode))
    os.chmod(path, mode)
    return path


def mode(path):
    return oct(os.lstat(path).st_mode)


def kind_and_links(path):
    found = os.lstat(path)
    return stat.filemode(found.st_mode), found.st_nlink


def content(path):
    with open(path, "rb") as file:
        return file.read()


# ---- names

@case
def names_of_any_bytes():
    every = bytes(b for b in range(1, 256) if b != ord("/"))
    long = every[:254] + b"x"
    names = [long, every[::-1][:255], b"\xff", b"\n", b" ", b"...", b"-rf", b"\xc3\x28"]
    for name in names:
        put(name)
    listed = sorted(os.listdir(b"."))
    too_long = [tried(call, b"n" * 256) for call in (os.mkdir, os.stat, os.unlink)]
    too_long.append(tried(os.rename, b"\n", b"n" * 256))
    for name in names:
        os.unlink(name)
    return listed == sorted(names), too_long, os.listdir(".")


@case
def deep_paths():
    here = os.open(".", os.O_RDONLY)
    depth = 700
    for level in range(depth):
        os.mkdir("deep" * 5, dir_fd=here)
        below = os.open("deep" * 5, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    name = "/".join(["deep" * 5] * 190)
    given = tried(os.stat, name) != "ENOENT", tried(os.stat, "/".join(["deep" * 5] * 200))
    found = os.readlink(f"/proc/self/fd/{here}") if depth < 150 else "too long to ask"
    os.close(here)
    os.system("rm -r ./*")
    return given, found, os.listdir(".")


@case
def symlinks():
    answers = [tried(os.symlink, "t" * length, f"l{length}") for length in (1, 4095, 4096)]
    answers += [tried(os.symlink, "", "empty"), tried(os.symlink, "x", "l1")]
    put("file")
    os.symlink("loop", "loop")
    answers += [tried(os.readlink, "file"), tried(os.stat, "loop"), tried(os.stat, "l1")]
    answers += [len(os.readlink("l4095")), mode("l1"), os.lstat("l4095").st_size]
    answers += [tried(os.open, "l1", os.O_CREAT | os.O_EXCL | os.O_WRONLY)]
    answers += [tried(os.open, "l1", os.O_NOFOLLOW)]
    return answers


@case
def links():
    put("file")
    os.mkdir("dir")
    os.symlink("file", "link")
    answers = [tried(os.link, "dir", "dir2"), tried(os.link, "file", "file")]
    answers += [tried(os.link, "file", "dir/again"), tried(os.link, "none", "x")]
    answers += [tried(os.link, "link", "link2", follow_symlinks=False)]
    answers += [kind_and_links(name) for name in ("file", "link2", "dir")]
    os.unlink("file")
    return answers, kind_and_links("dir/again")


@case
def links_up_to_the_limit():
    put("file")
    os.mkdir("many")
    for number in range(64_999):
        os.link("file", f"many/{number}")
    answers = os.stat("file").st_nlink, tried(os.link, "file", "one more")
    os.unlink("many/77")
    return answers, tried(os.link, "file", "one more")


@case
def directories_and_their_links():
    os.makedirs("a/b/c")
    put("a/f")
    answers = [kind_and_links(name) for name in (".", "a", "a/b")]
    answers += [tried(os.rmdir, name) for name in ("a", "a/f", "a/b/c/.", "a/b/c/..", "none")]
    answers += [tried(os.unlink, "a/b"), tried(os.mkdir, "a"), tried(os.mkdir, "a/f/x")]
    os.rename("a/b/c", "c")
    answers += [kind_and_links(name) for name in (".", "a", "a/b", "c")]
    return answers


@case
def renames():
    for name in ("d1", "d2", "full", "full/x"):
        os.mkdir(name)
    for name in ("f1", "f2"):
        put(name, name.encode())
    os.link("f1", "f1too")
    answers = [
        tried(os.rename, "d1", "full"), tried(os.rename, "f1", "d1"), tried(os.rename, "d1", "f1"),
        tried(os.rename, "full", "full/x/y"), tried(os.rename, "f1", "f1too"),
        tried(os.rename, "none", "x"), tried(os.rename, "d1", "d2"), tried(os.rename, "f1", "f2"),
        tried(os.rename, "full/.", "x"), tried(os.rename, "f2/", "x"), tried(os.rename, "f2", "x/"),
    ]
    return answers, sorted(os.listdir(".")), content("f2"), os.stat("f2").st_nlink


@case
def renames_with_flags():
    os.makedirs("dir/below")
    put("a", b"a")
    put("b", b"b")
    answers = [
        tried(renameat2, "a", "b", NOREPLACE), tried(renameat2, "a", "c", NOREPLACE),
        tried(renameat2, "c", "none", EXCHANGE), tried(renameat2, "c", "b", EXCHANGE),
        tried(renameat2, "c", "b", EXCHANGE | NOREPLACE), tried(renameat2, "c", "b", 8),
        tried(renameat2, "c", "dir", EXCHANGE), tried(renameat2, "c", "c/below", EXCHANGE),
        tried(renameat2, "b", "b", NOREPLACE), tried(renameat2, "b", "b", EXCHANGE),
    ]
    return answers, content("dir"), content("b"), os.listdir("c"), kind_and_links(".")


@case
def whiteouts():
    os.makedirs("dir/below")
    put("a", b"a")
    put("b", b"b")
    answers = [
        tried(renameat2, "a", "b", WHITEOUT), tried(renameat2, "dir", "moved", WHITEOUT),
        tried(renameat2, "b", "moved", WHITEOUT | NOREPLACE),
        tried(renameat2, "b", "c", WHITEOUT | NOREPLACE),
        tried(renameat2, "b", "c", WHITEOUT | EXCHANGE), tried(renameat2, "none", "x", WHITEOUT),
        tried(renameat2, "c", "c", WHITEOUT),
    ]
    os.chmod(".", 0o777)
    answers.append(as_user(USER, USER, lambda: tried(renameat2, "c", "d", WHITEOUT)))
    found = [(name, mode(name), os.lstat(name).st_rdev) for name in ("a", "b", "c", "dir")]
    return answers, found, content("d"), kind_and_links("."), os.listdir("moved")


# ---- opening, reading, writing

@case
def opening():
    put("file", b"data")
    os.mkdir("dir")
    os.symlink("dir", "link")
    flags = {
        "excl": os.O_CREAT | os.O_EXCL | os.O_WRONLY, "directory": os.O_DIRECTORY,
        "create": os.O_CREAT | os.O_WRONLY, "write": os.O_WRONLY, "nofollow": os.O_NOFOLLOW,
        "trunc": os.O_TRUNC | os.O_WRONLY, "append": os.O_APPEND | os.O_RDWR,
    }
    answers = []
    for name in ("file", "dir", "link", "none", "file/x", "file/", "none/"):
        for how, flag in flags.items():
            if name != "none" or not flag & os.O_CREAT:
                fd = tried(os.open, name, flag)
                if isinstance(fd, int):
                    os.close(fd)
                    fd = "opened"
                answers.append((name, how, fd))
    return answers


@case
def reading_and_writing():
    fd = make("file", b"0123456789")
    os.mkdir("dir")
    directory = os.open("dir", os.O_RDONLY)
    reader, writer = os.open("file", os.O_RDONLY), os.open("file", os.O_WRONLY)
    answers = [
        os.pread(fd, 4, 8), os.pread(fd, 4, 10), os.pread(fd, 4, 1 << 40), os.write(fd, b""),
        tried(os.pread, fd, 1, -1), tried(os.pwrite, fd, b"x", -1), tried(os.read, directory, 1),
        tried(os.write, reader, b"x"), tried(os.read, writer, 1),
        tried(os.ftruncate, reader, 0), tried(os.ftruncate, writer, -1),
        tried(os.pwrite, writer, b"end", 20), os.fstat(fd).st_size,
    ]
    appender = os.open("file", os.O_WRONLY | os.O_APPEND)
    os.pwrite(appender, b"!", 0)
    os.write(appender, b"?")
    return answers, content("file")


@case
def truncating():
    put("file", b"x" * 10_000)
    os.mkdir("dir")
    os.mkfifo("fifo")
    answers = [
        tried(os.truncate, "file", size) for size in (5_000, 12_000, -1, 0, 9_000)
    ] + [tried(os.truncate, name, 0) for name in ("dir", "none", "fifo")]
    return answers, content("file") == b"\0" * 9_000, os.stat("file").st_size


@case
def mapping():
    fd = make("file", b"a" * 10_000)
    shared = mmap.mmap(fd, 0)
    private = mmap.mmap(fd, 0, mmap.MAP_PRIVATE)
    shared[0:6] = b"shared"
    private[4096:4103] = b"private"
    seen = os.pread(fd, 8, 0), os.pread(fd, 8, 4096)
    os.pwrite(fd, b"written", 8192)
    seen += (shared[8192:8199], private[8192:8199], private[4096:4103])
    shared.flush()
    shared.close()
    private.close()
    return seen, content("file")[:8]


@case
def removed_while_open():
    fd = make("file", b"still here")
    os.mkdir("dir")
    directory = os.open("dir", os.O_RDONLY)
    os.unlink("file")
    os.rmdir("dir")
    of_file = [
        os.pread(fd, 5, 0), os.fstat(fd).st_nlink, tried(os.write, fd, b"!"),
        tried(os.ftruncate, fd, 100), tried(os.fchmod, fd, 0o600), tried(os.fchown, fd, 1, 2),
        tried(os.utime, fd), tried(os.fsync, fd), oct(os.fstat(fd).st_mode), os.fstat(fd).st_uid,
        tried(os.link, f"/proc/self/fd/{fd}", "again"), tried(os.setxattr, fd, "user.a", b"1"),
        tried(os.getxattr, fd, "user.a"), tried(os.listxattr, fd), os.fstat(fd).st_size,
    ]
    of_dir = [
        os.fstat(directory).st_nlink, tried(os.listdir, directory), tried(os.fsync, directory),
        tried(os.fchmod, directory, 0o700), oct(os.fstat(directory).st_mode),
        tried(os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=directory),
        tried(os.mkdir, "new", dir_fd=directory), tried(os.stat, "x", dir_fd=directory),
        tried(os.fchown, directory, 1, 2), os.fstat(directory).st_gid, tried(os.utime, directory),
        tried(os.listxattr, directory), tried(os.rename, ".", "x", src_dir_fd=directory),
        tried(os.stat, "..", dir_fd=directory) != "ENOENT",
    ]
    return of_file, of_dir, os.listdir(".")


@case
def standing_in_a_removed_directory():
    os.mkdir("dir")
    os.mkdir("other")
    before = os.getcwd()
    os.chdir("dir")
    os.rmdir("../dir")
    answers = [os.stat(".").st_nlink, tried(os.listdir, "."), tried(os.mkdir, "x")]
    answers += [tried(os.getcwd), tried(os.chmod, ".", 0o711), mode("."), tried(os.open, "x", 0)]
    os.chdir(before)
    os.chdir("other")
    os.mkdir("../third")
    os.rename("../third", "../other")
    answers += [os.stat(".").st_nlink, tried(os.listdir, "."), tried(os.rmdir, "../other")]
    os.chdir(before)
    return answers


# ---- room and holes

@case
def reserving_room():
    fd = make("file", b"d" * 8192)
    reader, fifo = os.open("file", os.O_RDONLY), os.pipe()[1]
    modes = {
        "plain": 0, "keep": KEEP, "punch": PUNCH, "punch keep": PUNCH | KEEP, "zero": ZERO,
        "zero keep": ZERO | KEEP, "all": 255, "collapse keep": COLLAPSE | KEEP,
    }
    answers = []
    for name, how in modes.items():
        for offset, length in ((0, 0), (-1, 10), (0, -1), (4096, 8192), (100, 50), (20_000, 10)):
            answers.append((name, offset, length, tried(fallocate, fd, how, offset, length),
                            os.fstat(fd).st_size))
    answers += [tried(fallocate, reader, 0, 0, 10), tried(fallocate, fifo, 0, 0, 10)]
    return answers, content("file").count(b"d")


@case
def moving_ranges():
    fd = make("file", b"".join(bytes([65 + page]) * 4096 for page in range(8)))
    answers = [
        tried(fallocate, fd, COLLAPSE, 8192, 4096), tried(fallocate, fd, INSERT, 4096, 8192),
        tried(fallocate, fd, COLLAPSE, 100, 4096), tried(fallocate, fd, INSERT, 4096, 100),
    ]
    return answers, [chr(byte) for byte in content("file")[::4096]]


@case
def holes():
    fd = make("file")
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * 4096, 1 << 16)
    answers = [
        tried(os.lseek, fd, offset, how)
        for how in (os.SEEK_DATA, os.SEEK_HOLE)
        for offset in (0, 1 << 16, (1 << 16) + 4096, (1 << 20) - 1, 1 << 20, 1 << 30, -1)
    ]
    answers += [tried(os.lseek, fd, -1, os.SEEK_SET), tried(os.lseek, fd, 0, os.SEEK_END)]
    return answers, tried(os.lseek, fd, 0, 77)


@case
def copying_ranges():
    fd = make("from", b"0123456789" * 1000)
    to = make("to")
    os.mkdir("dir")
    directory = os.open("dir", os.O_RDONLY)
    appender, reader = os.open("to", os.O_WRONLY | os.O_APPEND), os.open("to", os.O_RDONLY)
    copy = os.copy_file_range
    answers = [
        tried(copy, fd, to, 5000, 0, 0), tried(copy, fd, to, 10_000, 5000, 5000),
        tried(copy, fd, to, 10, 10_000, 0), tried(copy, fd, fd, 100, 0, 50),
        tried(copy, fd, appender, 1), tried(copy, fd, reader, 1), tried(copy, directory, to, 1),
        tried(copy, fd, to, 3, 1, 7), tried(copy, fd, fd, 100, 0, 5000), os.fstat(to).st_size,
    ]
    return answers, content("to")[:20], content("from")[5000:5010]


# ---- owners, modes, rights

@case
def modes_of_what_is_made():
    before = os.umask(0o027)
    put("file")
    os.close(os.open("666", os.O_CREAT | os.O_WRONLY, 0o6666))
    os.mkdir("777", 0o1777)
    os.mknod("fifo", stat.S_IFIFO | 0o666)
    os.mknod("char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod("block", stat.S_IFBLK | 0o660, os.makedev(4095, 1048575))
    os.mknod("socket", stat.S_IFSOCK | 0o777)
    answers = [tried(os.mknod, "no kind", 0o600), tried(os.mknod, "dir", stat.S_IFDIR | 0o700)]
    os.umask(before)
    found = sorted((name, mode(name), os.lstat(name).st_rdev) for name in os.listdir("."))
    os.chmod(".", 0o777)
    devices = as_user(USER, USER, lambda: [
        tried(os.mknod, "n1", stat.S_IFCHR | 0o600, 259), tried(os.mkfifo, "n2")])
    return answers, found, devices


@case
def set_group_id_directories():
    os.mkdir("dir")
    os.chown("dir", 0, GROUP)
    os.chmod("dir", 0o2777)

    def make_things():
        os.umask(0)
        os.mkdir("dir/sub")
        os.close(os.open("dir/file", os.O_CREAT | os.O_WRONLY, 0o2775))
        os.close(os.open("dir/plain", os.O_CREAT | os.O_WRONLY, 0o664))
        os.symlink("x", "dir/link")
        os.mkfifo("dir/fifo")
        os.chmod("dir/plain", 0o2775)
        return [(n, mode("dir/" + n), os.lstat("dir/" + n).st_gid) for n in os.listdir("dir")]

    def sorted_things():
        return sorted(make_things())

    stranger = as_user(USER, USER, sorted_things)
    os.system("rm -r dir/*")
    member = as_user(USER, USER, sorted_things, groups=[GROUP])
    os.system("rm -r dir/*")
    root = sorted_things()
    os.system("rm -r dir/*")
    return stranger, member, root


@case
def sticky_directories():
    os.mkdir("dir")
    os.chmod("dir", 0o1777)
    for name in ("a", "b", "c"):
        put("dir/" + name)
        os.chown("dir/" + name, USER, USER)
    os.mkdir("dir/sub")
    os.chown("dir/sub", USER, USER)
    calls = [
        lambda: tried(os.unlink, "dir/a"), lambda: tried(os.rename, "dir/b", "dir/b2"),
        lambda: tried(os.rmdir, "dir/sub"), lambda: tried(os.link, "dir/a", "dir/linked"),
        lambda: tried(renameat2, "dir/a", "dir/c", EXCHANGE),
    ]
    other = [as_user(OTHER, OTHER, call) for call in calls]
    owner = [as_user(USER, USER, call) for call in calls]
    os.chown("dir", OTHER, OTHER)
    return other, owner, as_user(OTHER, OTHER, lambda: tried(os.unlink, "dir/c"))


@case
def set_id_bits_end():
    """Which bits are left after each way to change a file, by root, its owner, and another."""
    def change(name, how):
        # Naming nobody is for everybody, whatever they may do with the file.
        fd = os.open(name, os.O_RDONLY if how == "chown nobody" else os.O_RDWR)
        if how == "write":
            os.write(fd, b"new")
        elif how == "ftruncate":
            os.ftruncate(fd, 1)
        elif how == "same size":
            os.ftruncate(fd, 100)
        elif how == "open":
            os.close(os.open(name, os.O_WRONLY | os.O_TRUNC))
        elif how == "mapping":
            with mmap.mmap(fd, 0) as shared:
                shared[0:1] = b"m"
        elif how == "punch":
            fallocate(fd, PUNCH | KEEP, 0, 10)
        elif how == "fallocate":
            fallocate(fd, 0, 0, 200)
        elif how == "copy":
            os.copy_file_range(os.open("source", os.O_RDONLY), fd, 5)
        elif how == "chown":
            os.chown(name, -1, os.stat(name).st_gid)
        elif how == "chown nobody":
            os.chown(name, -1, -1)
        elif how == "times":
            os.utime(name)
        elif how == "xattr":
            os.setxattr(name, "user.a", b"1")
        os.close(fd)

    put("source", b"source")
    hows = ["write", "ftruncate", "same size", "open", "mapping", "punch", "fallocate", "copy",
            "chown", "chown nobody", "times", "xattr"]
    answers = []
    for how in hows:
        for who in (0, USER, OTHER):
            for bits in (0o6777, 0o2767):
                put("file", b"x" * 100)
                os.chown("file", USER, GROUP)
                os.chmod("file", bits)
                as_user(who, GROUP if who == USER else who, lambda: change("file", how))
                answers.append((how, who, oct(bits), mode("file")))
                os.unlink("file")
    return answers


@case
def rights():
    os.mkdir("private", 0o700)
    put("private/file")
    os.mkdir("shown")
    os.chmod("shown", 0o755)
    for number, bits in enumerate((0o000, 0o004, 0o040, 0o400, 0o002, 0o020, 0o200)):
        put(f"shown/f{number}")
        os.chmod(f"shown/f{number}", bits)
        os.chown(f"shown/f{number}", USER, GROUP)

    def opened():
        answers = []
        for number in range(7):
            for flag in (os.O_RDONLY, os.O_WRONLY):
                fd = tried(os.open, f"shown/f{number}", flag)
                answers.append("opened" if isinstance(fd, int) else fd)
        answers += [tried(os.stat, "private/file"), tried(os.mkdir, "shown/x")]
        answers += [tried(os.chmod, "shown/f0", 0o7777), mode("shown/f0")]
        answers += [tried(os.chown, "shown/f0", USER, ADDED), tried(os.chown, "shown/f0", 0, 0)]
        answers += [tried(os.utime, "shown/f0"), tried(os.utime, "shown/f0", (1, 2))]
        answers += [tried(os.truncate, "shown/f0", 0), tried(os.unlink, "shown/f0")]
        return answers

    return [as_user(uid, gid, opened, groups)
            for uid, gid, groups in ((USER, USER, [ADDED]), (OTHER, GROUP, []), (OTHER, OTHER, []),
                                     (OTHER, OTHER, [GROUP]))]


@case
def extended_attributes():
    put("file")
    os.chmod("file", 0o666)
    os.mkdir("dir")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    create, replace = os.XATTR_CREATE, os.XATTR_REPLACE
    answers = [
        tried(os.setxattr, "file", "user.a", b"1", create),
        tried(os.setxattr, "file", "user.a", b"1", create),
        tried(os.setxattr, "file", "user.b", b"1", replace),
        tried(os.setxattr, "file", "user.a", b"", replace), tried(os.getxattr, "file", "user.a"),
        tried(os.setxattr, "file", "user.a", b"1", create | replace),
        tried(os.getxattr, "file", "user.none"), tried(os.removexattr, "file", "user.none"),
        tried(os.setxattr, "file", "user." + "n" * 250, b"1"),
        tried(os.setxattr, "file", "user." + "n" * 251, b"1"),
        tried(os.setxattr, "file", "bogus.a", b"1"), tried(os.setxattr, "file", "nodot", b"1"),
        tried(os.setxattr, "file", "system.bogus", b"1"), tried(os.setxattr, "file", "user.", b""),
        tried(os.setxattr, "file", "trusted.t", b"t"),
        tried(os.setxattr, "file", "security.s", b"s"),
        tried(os.setxattr, "link", "user.a", b"1", follow_symlinks=False),
        tried(os.setxattr, "link", "trusted.a", b"1", follow_symlinks=False),
        tried(os.setxattr, "fifo", "user.a", b"1"), tried(os.setxattr, "fifo", "trusted.a", b"1"),
        tried(os.setxattr, "dir", "user.a", b"1"), tried(os.getxattr, "dir", "bogus.a"),
    ]
    seen = as_user(USER, USER, lambda: [
        sorted(os.listxattr("file")), tried(os.setxattr, "file", "trusted.x", b"1"),
        tried(os.getxattr, "file", "trusted.t"), tried(os.setxattr, "file", "security.x", b"1"),
        tried(os.getxattr, "file", "security.s"), tried(os.setxattr, "file", "user.x", b"1"),
        tried(os.removexattr, "file", "trusted.t"), tried(os.setxattr, "dir", "user.x", b"1")])
    return answers, seen, sorted(os.listxattr("file"))


# ---- times

@case
def times():
    put("file")
    answers = []
    for seconds, nanos in ((0, 0), (-1, 999_999_999), (-2, 1), (-2_147_483_648, 5),
                           (4_294_967_296, 7), (10_000_000_000, 999_999_999), (0, 1_000_000_000)):
        answers.append(tried(utimens, "file", seconds, nanos))
        answers.append(os.stat("file").st_mtime_ns)
        answers.append(os.stat("file").st_atime_ns)
    return answers


@case
def times_that_change():
    """Which of mtime and ctime change, of a file and its directory, by each call."""
    def facts(path):
        found = os.lstat(path)
        return found.st_mtime_ns, found.st_ctime_ns

    def after(name, call, watched):
        before = {path: facts(path) for path in watched}
        time.sleep(0.02)
        call()
        return name, [(path, facts(path)[0] != before[path][0], facts(path)[1] != before[path][1])
                      for path in watched]

    os.makedirs("dir/sub")
    fd = make("dir/file", b"data" * 5000)
    both = ["dir", "dir/file"]
    return [
        after("write", lambda: os.pwrite(fd, b"x", 0), both),
        after("write of nothing", lambda: os.pwrite(fd, b"", 0), both),
        after("read", lambda: os.pread(fd, 1, 0), both),
        after("same size", lambda: os.ftruncate(fd, 20_000), both),
        after("truncate same size", lambda: os.truncate("dir/file", 20_000), both),
        after("shorter", lambda: os.ftruncate(fd, 10_000), both),
        after("punch", lambda: fallocate(fd, PUNCH | KEEP, 0, 100), both),
        after("longer", lambda: fallocate(fd, 0, 0, 30_000), both),
        after("chmod", lambda: os.fchmod(fd, 0o600), both),
        after("chown", lambda: os.fchown(fd, 1, 1), both),
        after("xattr", lambda: os.setxattr(fd, "user.a", b"1"), both),
        after("no xattr", lambda: os.removexattr(fd, "user.a"), both),
        after("link", lambda: os.link("dir/file", "dir/two"), both),
        after("unlink", lambda: os.unlink("dir/two"), both),
        after("rename", lambda: os.rename("dir/file", "dir/sub/file"), ["dir", "dir/sub"]),
        after("renamed", lambda: os.rename("dir/sub/file", "dir/file"), ["dir", "dir/sub"]),
        after("mkdir", lambda: os.mkdir("dir/new"), ["dir"]),
        after("moved dir", lambda: os.rename("dir/new", "dir/sub/new"), ["dir", "dir/sub"]),
        after("rmdir", lambda: os.rmdir("dir/sub/new"), ["dir/sub"]),
        after("symlink", lambda: os.symlink("x", "dir/link"), ["dir"]),
        after("exchange", lambda: renameat2("dir/link", "dir/file", EXCHANGE), both + ["dir/link"]),
    ]


@case
def who_may_set_times():
    put("file")
    os.chown("file", USER, USER)
    os.chmod("file", 0o646)
    now, then = (lambda: tried(os.utime, "file")), (lambda: tried(os.utime, "file", (1, 1)))
    answers = [as_user(who, who, call) for who in (USER, OTHER) for call in (now, then)]
    os.chmod("file", 0o644)
    return answers + [as_user(OTHER, OTHER, now)]


# ---- the rest

@case
def locks():
    put("file")
    one, two = os.open("file", os.O_RDWR), os.open("file", os.O_RDWR)
    fcntl.flock(one, fcntl.LOCK_EX)
    answers = [tried(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    fcntl.flock(one, fcntl.LOCK_UN)
    answers += [tried(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)]
    fcntl.lockf(one, fcntl.LOCK_EX, 10, 0)

    def other_process():
        mine = os.open("file", os.O_RDWR)
        return [tried(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, offset)
                for offset in (0, 9, 10)]

    return answers, as_user(0, 0, other_process)


@case
def unnamed_files():
    fd = tried(os.open, ".", os.O_TMPFILE | os.O_RDWR)
    return "opened" if isinstance(fd, int) else fd


@case
def room():
    found = os.statvfs(".")
    return found.f_namemax, found.f_blocks >= found.f_bfree >= found.f_bavail, \
        found.f_files >= found.f_ffree > 0, found.f_bsize


def main():
    os.umask(0o022)
    base, pattern = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    for number, function in enumerate(CASES):
        if not re.search(pattern, function.__name__):
            continue
        place = os.path.join(base, f"case{number}")
        os.mkdir(place)
        os.chmod(place, 0o755)
        os.chdir(place)
        try:
            answer = function()
        except Exception as error:  # one case must not hide the others
            answer = f"{type(error).__name__} {error} line {error.__traceback__.tb_next.tb_lineno}"
        os.umask(0o022)
        os.chdir(base)
        print(f"{function.__name__}: {answer}", flush=True)


main()
