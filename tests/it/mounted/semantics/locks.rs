//! Locks between processes.

use super::python;
use crate::mounted::helper::Mounted;

/// SEMANTICS §2.17: what one process has locked another one is refused, range by range; a lock ends
/// with the process.
#[test]
fn a_lock_holds_between_processes() {
    let m = Mounted::new();
    python(
        &m,
        r#"
write("f", b"0" * 100)

def held_by_child(lock):
    """A child that has locked the file, and a way to end it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open("f", os.O_RDWR)
        lock(fd)
        os.write(tell, b"1")
        time.sleep(60)
        os._exit(0)
    assert os.read(ready, 1) == b"1"
    def end():
        os.kill(child, 9)
        os.waitpid(child, 0)
    return end

mine = os.open("f", os.O_RDWR)
now = fcntl.LOCK_NB
end = held_by_child(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX))
refused(errno.EAGAIN, fcntl.flock, mine, fcntl.LOCK_EX | now)
refused(errno.EAGAIN, fcntl.flock, mine, fcntl.LOCK_SH | now)
end()
fcntl.flock(mine, fcntl.LOCK_EX | now)
fcntl.flock(mine, fcntl.LOCK_UN)

end = held_by_child(lambda fd: fcntl.flock(fd, fcntl.LOCK_SH))
fcntl.flock(mine, fcntl.LOCK_SH | now)
refused(errno.EAGAIN, fcntl.flock, mine, fcntl.LOCK_EX | now)
end()
fcntl.flock(mine, fcntl.LOCK_UN)

# POSIX: a range, bytes 10 to 19.
end = held_by_child(lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX, 10, 10))
fcntl.lockf(mine, fcntl.LOCK_EX | now, 10, 0)
fcntl.lockf(mine, fcntl.LOCK_EX | now, 10, 20)
refused(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_EX | now, 1, 15)
refused(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_SH | now, 100, 0)
# Who has it is told.
asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 100, 0)
kind, _, start, length, holder = struct.unpack("hhqqi4x", fcntl.fcntl(mine, fcntl.F_GETLK, asked))
assert (kind, start, length) == (fcntl.F_WRLCK, 10, 10) and holder > 0, (kind, start, length)
end()
fcntl.lockf(mine, fcntl.LOCK_EX | now, 100, 0)
"#,
    );
}

/// A counter that two processes raise under a lock loses nothing; either kind of lock.
#[test]
fn a_counter_under_a_lock_loses_nothing() {
    let m = Mounted::new();
    python(
        &m,
        r#"
for lock in [fcntl.flock, fcntl.lockf]:
    write("n", b"0")
    def count(_):
        fd = os.open("n", os.O_RDWR)
        for _ in range(300):
            lock(fd, fcntl.LOCK_EX)
            number = int(os.pread(fd, 20, 0))
            os.pwrite(fd, str(number + 1).encode(), 0)
            lock(fd, fcntl.LOCK_UN)
    both(count)
    assert read("n") == b"600", read("n")
"#,
    );
}
