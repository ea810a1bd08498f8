//! Sentences of docs/SEMANTICS.md that no other test proves, as the system calls show them.

mod attributes;
mod content;
mod directories;
mod durability;
mod limits;
mod locks;
mod names;
mod snapshots;

use super::helper::Mounted;
use crate::testkit::run_in;

/// What every script begins with; it runs in the root of the mount.
const PREAMBLE: &str = r#"
import ctypes, errno, fcntl, hashlib, json, mmap, os, stat, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def refused(expected, call, *args, **more):
    try:
        call(*args, **more)
    except OSError as e:
        numbers = expected if isinstance(expected, tuple) else (expected,)
        assert e.errno in numbers, f"{call} {args}: {e} instead of {expected}"
        return
    raise SystemExit(f"{call} {args} succeeded; expected error {expected}")

def syscall(number, *args):
    result = libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result

def write(path, data=b"x"):
    with open(path, "wb", buffering=0) as file:
        assert file.write(data) == len(data)

def read(path):
    with open(path, "rb") as file:
        return file.read()

def as_user(uid, gid, groups, work):
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            work()
            os._exit(0)
        except BaseException as e:
            print(f"as {uid}: {e!r}", file=sys.stderr)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

def both(work):
    """Runs `work` in two processes at once, with 0 and 1."""
    child = os.fork()
    if child == 0:
        try:
            work(1)
            os._exit(0)
        except BaseException as e:
            print(repr(e), file=sys.stderr)
            os._exit(1)
    work(0)
    assert os.waitpid(child, 0)[1] == 0
"#;

/// Runs Python in the root of the mount; it has to succeed. Returns what it printed.
#[track_caller]
fn python(m: &Mounted, script: &str) -> String {
    run_in(&m.path(""), &format!("python3 - <<'PYTHON'\n{PREAMBLE}\n{script}\nPYTHON"))
}
