//! What a process does with itself and learns about its peers: sessions, signals, descriptors.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or the system going down.
    Terminate,
    /// The terminal went away.
    Hangup,
}

/// The ending signals, blocked in every thread and taken one by one with [`Signals::wait`].
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM and SIGHUP here and in all threads started later, so it must be
    /// called before the first thread starts.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initializes the set it gets; the others read an initialized one.
        let (set, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
        };
        if failed == 0 { Ok(Self { set }) } else { Err(io::Error::from_raw_os_error(failed)) }
    }

    /// Blocks until one of the signals comes.
    #[must_use]
    pub fn wait(&self) -> Signal {
        loop {
            let mut number = 0;
            // SAFETY: the set is initialized and the number is ours to be written.
            let failed = unsafe { libc::sigwait(&raw const self.set, &raw mut number) };
            match (failed, number) {
                (0, libc::SIGINT) => return Signal::Interrupt,
                (0, libc::SIGTERM) => return Signal::Terminate,
                (0, libc::SIGHUP) => return Signal::Hangup,
                _ => {}
            }
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes read(2) on a descriptor, and on all duplicates of it, return at once or wait.
///
/// # Errors
/// What the kernel said.
pub fn set_nonblocking(file: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed, and no memory is involved.
    let flags = checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// Whether read(2) on a descriptor returns at once.
///
/// # Errors
/// What the kernel said.
#[cfg(test)]
pub fn is_nonblocking(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open while it is borrowed, and no memory is involved.
    let flags = checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

/// Asks for turns of `nanos` on a processor, for this thread: it wakes before others have used up
/// theirs, and takes no larger share. Kernels before 6.12 give everybody the same turns. Threads
/// that are not scheduled as usual stay as they are.
///
/// # Errors
/// What the kernel said; nothing changed then.
pub fn take_short_turns(nanos: u64) -> io::Result<()> {
    let mut attr = MaybeUninit::<libc::sched_attr>::zeroed();
    let size = libc::c_uint::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `size` bytes, and zeros are a valid value of the rest.
    let mut attr = unsafe {
        let failed = libc::syscall(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), size, 0);
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        attr.assume_init()
    };
    if attr.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return Ok(());
    }
    attr.sched_runtime = nanos;
    // SAFETY: the kernel reads as many bytes as the value says that it has.
    let failed = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps idle processors of a virtual machine from sleeping: they wait for work in a loop of the
/// kernel, so whoever is woken runs at once. A sleeping one has to be woken by an interrupt and
/// through the hypervisor. Lasts no longer than the value lives.
#[derive(Debug)]
pub struct IdleLatency(File);

impl IdleLatency {
    /// The kernel's interface for it (PM QoS). Nothing is asked for yet.
    ///
    /// # Errors
    /// `Unsupported` outside of virtual machines, whose kernel names the way they sleep; what the
    /// kernel said: as a rule, only root may ask.
    pub fn of_guest() -> io::Result<Self> {
        let driver = std::fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver")?;
        if driver.trim() != "haltpoll" {
            return Err(io::ErrorKind::Unsupported.into());
        }
        OpenOptions::new().read(true).write(true).open("/dev/cpu_dma_latency").map(Self)
    }

    /// Asks for idle processors that do not sleep, or says that they may.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn keep_awake(&self, awake: bool) -> io::Result<()> {
        // Microseconds that waking up may take; many are the kernel's own "any".
        let micros: i32 = if awake { 0 } else { 2_000_000_000 };
        (&self.0).write_all(&micros.to_ne_bytes())
    }

    /// Whether they stay awake, whoever asked for it.
    ///
    /// # Errors
    /// What the kernel said.
    #[cfg(test)]
    pub fn is_awake(&self) -> io::Result<bool> {
        let mut micros = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&self.0, &mut micros, 0)?;
        Ok(i32::from_ne_bytes(micros) == 0)
    }
}

/// Makes the process the leader of a session of its own, without a terminal.
///
/// # Errors
/// When it leads a process group already.
pub fn new_session() -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::setsid() }).map(drop)
}

/// Closes every descriptor above stderr: what a script had open must not live on in a daemon.
///
/// Call it before anything was opened; descriptors owned by Rust values would be closed as well.
pub fn close_inherited_files() {
    let (first, last, flags): (libc::c_uint, libc::c_uint, libc::c_uint) =
        (3, libc::c_uint::MAX, 0);
    // SAFETY: the caller owns no descriptor yet. Failing (old kernel) only leaves them open.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Takes stdout away: returns what it was, and makes it `/dev/null` from now on.
///
/// # Errors
/// When a descriptor cannot be made.
pub fn take_stdout() -> io::Result<File> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    // SAFETY: 1 is open (std opens it at start if it was not); the new descriptor is owned once.
    unsafe {
        let taken = checked(libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3))?;
        let taken = File::from_raw_fd(taken);
        checked(libc::dup2(null.as_raw_fd(), 1))?;
        Ok(taken)
    }
}

/// Lets stderr write into `file`.
///
/// # Errors
/// When the descriptor cannot be replaced.
pub fn replace_stderr(file: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open.
    checked(unsafe { libc::dup2(file.as_raw_fd(), 2) }).map(drop)
}

/// Bounds what malloc keeps: with one arena for each thread, every session thread would keep its
/// own peak. Four arenas never showed contention on the machines we know.
pub fn bound_malloc() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only changes parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 4);
    }
}

/// Memory of this process that is resident, as the system counts it; 0 if it does not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Gives free memory back to the system that malloc keeps for later. Others who ask malloc wait for
/// it, so this is for after something large: it took 11 to 18 ms and gave back 80 of 220 MiB.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only looks at memory that nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Who is at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

/// The other end of a unix socket, as it was when it connected or began to listen.
///
/// # Errors
/// What the kernel said.
pub fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the pointer and the length name the one `ucred` above.
    checked(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    })?;
    Ok(Peer { uid: peer.uid, pid: peer.pid.cast_unsigned() })
}

/// True while the process lives; one that nobody has waited for yet does not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state may hold anything, parentheses too.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.bytes().next());
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}

/// The extended attribute `name` of `path`, if it is set and not above 64 KiB.
///
/// # Errors
/// What the kernel said, except that there is no such attribute.
pub fn extended_attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let name = CString::new(name)?;
    let mut value = vec![0_u8; 64 * 1024];
    // SAFETY: both strings end with NUL; the buffer has the length that is passed.
    let len = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTSUP) => Ok(None),
            _ => Err(error),
        };
    };
    value.truncate(len);
    Ok(Some(value))
}

/// True when the other end of a FUSE mount is gone, or going: what the kernel answers while it
/// takes a dead connection down is `ECONNABORTED`.
#[must_use]
pub fn is_not_connected(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_in_the_same_process_is_us() {
        let (one, _other) = UnixStream::pair().unwrap();
        let me = Peer { uid: crate::sys::mount::effective_ids().0, pid: std::process::id() };
        assert_eq!(peer(&one).unwrap(), me);
        assert!(is_running(me.pid) && !is_running(u32::MAX));
    }

    #[test]
    fn short_turns_leave_the_share_alone() {
        let nice = || {
            // SAFETY: no memory is involved; 0 is this thread.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = nice();
        // A sandbox may refuse it; then nothing changes.
        let _ = take_short_turns(100_000);
        assert_eq!(nice(), before);
    }

    #[test]
    fn idle_processors_stay_awake_while_they_are_asked_to() {
        // Not everybody may ask; what others ask for meanwhile counts, too.
        let Ok(idle) = IdleLatency::of_guest() else { return };
        idle.keep_awake(true).unwrap();
        assert!(idle.is_awake().unwrap());
        idle.keep_awake(false).unwrap();
    }

    #[test]
    fn a_missing_attribute_is_none_and_a_missing_file_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(extended_attribute(dir.path(), "user.stratafs.volume").unwrap(), None);
        assert!(extended_attribute(&dir.path().join("no"), "user.x").is_err());
    }
}
