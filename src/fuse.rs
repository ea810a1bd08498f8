//! The FUSE door: mounts a [`Vfs`] and serves the kernel's requests.
//!
//! Guarantees: when [`mount`] returns, the mount answers; a panic in a request costs that request
//! an `EIO` and nothing else. Relies on: `vfs` for every meaning. Does not: decide anything about
//! files. `fuser` lives here and nowhere else; its version is pinned because its API moves.
//!
//! Mounting goes through mount(2), so that the type is `fuse.stratafs` and nothing but
//! [`Mounted::unmount`] ever unmounts; who may not do that goes through `fusermount3`.

mod adapter;
mod call;
mod directories;
mod durable;
mod forgetting;
mod handshake;
mod precheck;
mod pulse;
mod reply;
mod slow;
mod time;
mod translate;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Notifier, Session, SessionACL};
use log::{debug, info};
use parking_lot::Mutex;

use self::adapter::Adapter;
pub use self::pulse::{Governor, Pulse};
use crate::error::{Error, Result};
use crate::stats::MemoryUse;
use crate::sys::mount::{self as sys_mount, FuseFlags, MountEntry};
use crate::sys::mount_flags::MountFlags;
use crate::vfs::Vfs;

/// Shown behind `fuse.` as the file system's type.
const SUBTYPE: &str = "stratafs";
/// A request costs two wakeups across processors; more loops than this did not serve more.
const THREADS_MAX: usize = 4;
/// Memory of a loop: a request and an answer of the largest size. Of the 16 MiB that fuser reserves
/// for requests, the rest is never touched.
const LOOP_BYTES: u64 = 2 * handshake::WRITE_BYTES_MAX as u64 + 64 * 1024;
/// One loop may wait for a disk while the other answers from memory.
const THREADS_MIN: usize = 2;
/// The kernel sends RELEASE after close(2) has returned, so a mount looks busy a little longer.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_STEP: Duration = Duration::from_millis(20);
/// The kernel's own 128 KiB would make eight requests of what one can bring.
const READ_AHEAD_KIB: &str = "1024";

/// How to mount.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // They are mount options; each is a yes or no.
pub struct MountOptions {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// The source that `/proc/mounts` shows.
    pub fs_name: String,
    /// Users other than the mounting one may use it.
    pub allow_other: bool,
    /// The kernel checks permissions; without this everybody may do everything.
    pub default_permissions: bool,
    /// What every file system has, as in `ro` and `nodev`.
    pub generic: MountFlags,
    /// The mountpoint may have entries, which are hidden while mounted.
    pub nonempty: bool,
    /// Request loops; 0 for one per processor, within bounds.
    pub threads: usize,
}

impl MountOptions {
    /// The options of a backup target: devices and set-user-id bits work and, for root, everybody
    /// may come in.
    #[must_use]
    pub fn new(mountpoint: &Path, fs_name: &str) -> Self {
        Self {
            mountpoint: mountpoint.to_owned(),
            fs_name: fs_name.to_owned(),
            allow_other: sys_mount::effective_ids().0 == 0,
            default_permissions: true,
            generic: MountFlags::default(),
            nonempty: false,
            threads: 0,
        }
    }
}

/// A mount that is being served.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    /// Tells our mount from another one at the same place.
    device: String,
    session: Mutex<Option<BackgroundSession>>,
    /// fuser holds the mount and would unmount it itself when it ends.
    by_helper: bool,
    /// Lets a request loop poll while requests come.
    _governor: Option<Governor>,
    notifier: Arc<OnceLock<Notifier>>,
}

/// Checks, before anything is touched, that a volume in the directory `volume` can be mounted;
/// returns the mountpoint absolute and without symlinks.
///
/// # Errors
/// `Mount` when FUSE or the mountpoint is not usable; `Busy` when a volume is mounted there.
pub fn check(options: &MountOptions, volume: &Path) -> Result<PathBuf> {
    let mountpoint = precheck::mountpoint(options, volume)?;
    precheck::fuse_device()?;
    Ok(mountpoint)
}

/// Mounts `vfs` and starts serving it.
///
/// # Errors
/// `Mount` when FUSE or the mountpoint is not usable; `Busy` when a volume is mounted there.
pub fn mount(vfs: &Arc<Vfs>, options: &MountOptions) -> Result<Mounted> {
    let mountpoint = check(options, vfs.volume().dir())?;
    let notifier = Arc::new(OnceLock::new());
    let pulse = Arc::new(Pulse::default());
    let adapter = Adapter::new(Arc::clone(vfs), Arc::clone(&notifier), Arc::clone(&pulse));
    let found_out = adapter.found_out();
    let (session, by_helper) = start_session(adapter, &mountpoint, options)?;
    let polled = session.as_fd().try_clone_to_owned();
    let failed = |e: io::Error| {
        // Nothing is served yet and nobody can have anything open.
        let _ = sys_mount::unmount(&mountpoint, true);
        cannot_mount(&mountpoint, &e)
    };
    let set: Result<(), Notifier> = notifier.set(session.notifier());
    debug_assert!(set.is_ok(), "the cell is new");
    let session = session.spawn().map_err(failed)?;
    let ours = sys_mount::mounted_at(&mountpoint).map_err(failed)?;
    let device = ours.map(|entry| entry.device).unwrap_or_default();
    raise_read_ahead(&device);
    let loops = config(options).n_threads.unwrap_or(THREADS_MIN) as u64;
    let buffers = loops * LOOP_BYTES;
    let held = move || MemoryUse::new(buffers, buffers, "mount option threads");
    vfs.volume().stats().holders.announce("fuse_buffers", held);
    vfs.volume().stats().holders.announce("found_out", found_out);
    info!("Volume mounted device={device}");
    // Without it the loops sleep, as they do when nothing comes.
    let governor = polled.ok().map(|device| Governor::start(&pulse, device));
    Ok(Mounted {
        mountpoint,
        device,
        session: Mutex::new(Some(session)),
        by_helper,
        notifier,
        _governor: governor,
    })
}

/// True if `entry` is a mount that shows the directory `dir` of a volume as its source.
#[must_use]
pub fn is_mount_of(entry: &MountEntry, dir: &Path) -> bool {
    is_mount_named(entry, Some(&dir.to_string_lossy()))
}

/// True if `entry` is one of our mounts, whatever its source is; without a name, only if that is
/// certain.
#[must_use]
pub fn is_mount_named(entry: &MountEntry, fs_name: Option<&str>) -> bool {
    let is_ours = entry.fs_type == format!("fuse.{SUBTYPE}");
    let has = |name| entry.source == name || entry.source == without_commas(name);
    fs_name.map_or(is_ours, |name| (is_ours || entry.fs_type == "fuse") && has(name))
}

/// Takes away a mount whose process is gone; whoever stands in it keeps nothing but errors.
///
/// # Errors
/// `Mount`.
pub fn detach_dead(mountpoint: &Path) -> Result<()> {
    let detached = match sys_mount::unmount(mountpoint, true) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => by_helper(mountpoint, true),
        detached => detached,
    };
    detached.map_err(|e| Error::io("unmount", mountpoint, e))
}

/// Unmounts what a user mounted.
fn by_helper(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let helper = precheck::helper().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(helper);
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(io::ErrorKind::ResourceBusy.into()),
        false => Err(io::Error::other(said.trim().to_owned())),
    }
}

impl Mounted {
    /// Where it is mounted, absolute and without symlinks.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Serves until it is unmounted, by whomever.
    ///
    /// # Errors
    /// `Mount` when the request loops ended for another reason; then the mount is gone too.
    pub fn wait(&self) -> Result<()> {
        let Some(session) = self.session.lock().take() else { return Ok(()) };
        let ended = if self.by_helper { join_without_unmount(session) } else { session.join() };
        if self.is_mounted() {
            // A mount without its loops would hang everybody who touches it.
            let _ = self.unmount_now(true);
        }
        ended.map_err(|e| Error::Mount {
            what: format!("Serving {} ended: {e}", self.mountpoint.display()),
        })
    }

    /// Unmounts; `lazy` also while it is in use, then the last close ends it. Does nothing when it
    /// is unmounted already.
    ///
    /// # Errors
    /// `Busy` when files are open; `Mount`.
    pub fn unmount(&self, lazy: bool) -> Result<()> {
        let mut waited = Duration::ZERO;
        while self.is_mounted() {
            match self.unmount_now(lazy) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() != io::ErrorKind::ResourceBusy => {
                    let place = self.mountpoint.display();
                    return Err(Error::Mount { what: format!("Cannot unmount {place}: {e}") });
                }
                Err(_) if waited >= BUSY_PATIENCE => {
                    let place = self.mountpoint.display();
                    return Err(Error::Busy {
                        what: format!(
                            "{place} is in use; close its files (`fuser -vm {place}` names who \
                             has them) or unmount lazily"
                        ),
                    });
                }
                Err(_) => {
                    sleep(BUSY_STEP);
                    waited += BUSY_STEP;
                }
            }
        }
        Ok(())
    }

    /// True while our mount, and not another one, is at the mountpoint.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        let at = sys_mount::mounted_at(&self.mountpoint).unwrap_or(None);
        at.is_some_and(|entry| entry.device == self.device)
    }

    fn unmount_now(&self, lazy: bool) -> io::Result<()> {
        if !self.by_helper {
            return sys_mount::unmount(&self.mountpoint, lazy);
        }
        by_helper(&self.mountpoint, lazy)
    }
}

/// Mounts and shakes hands with the kernel; true if a helper had to mount.
fn start_session(
    adapter: Adapter,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<(Session<Adapter>, bool)> {
    let flags = FuseFlags {
        allow_other: options.allow_other,
        default_permissions: options.default_permissions,
        generic: options.generic,
    };
    let config = config(options);
    match sys_mount::mount_fuse(&options.fs_name, SUBTYPE, mountpoint, flags) {
        Ok(device) => {
            let session = Session::from_fd(adapter, device, config.acl, config);
            let session = session.map_err(|e| {
                let _ = sys_mount::unmount(mountpoint, true);
                cannot_mount(mountpoint, &e)
            })?;
            Ok((session, false))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            debug!("mount(2) is not permitted, asking fusermount3");
            precheck::helper_is_there()?;
            let session = Session::new(adapter, mountpoint, &config);
            Ok((session.map_err(|e| cannot_mount(mountpoint, &e))?, true))
        }
        Err(e) => Err(cannot_mount(mountpoint, &e)),
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(without_commas(&options.fs_name)),
        MountOption::Subtype(SUBTYPE.to_owned()),
    ];
    config.mount_options.extend(generic_options(options.generic));
    if options.default_permissions {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(match options.threads {
        0 => available_parallelism().map_or(1, usize::from).clamp(THREADS_MIN, THREADS_MAX),
        asked => asked,
    });
    config.clone_fd = true;
    config
}

/// As `fusermount3` takes them; the kernel keeps no access times for a FUSE file system anyway.
fn generic_options(flags: MountFlags) -> impl Iterator<Item = MountOption> {
    let each = [
        ("dev", MountOption::Dev),
        ("nodev", MountOption::NoDev),
        ("suid", MountOption::Suid),
        ("nosuid", MountOption::NoSuid),
        ("rw", MountOption::RW),
        ("ro", MountOption::RO),
        ("exec", MountOption::Exec),
        ("noexec", MountOption::NoExec),
        ("async", MountOption::Async),
        ("sync", MountOption::Sync),
        ("dirsync", MountOption::DirSync),
        ("noatime", MountOption::NoAtime),
    ];
    each.into_iter().filter(move |(option, _)| flags.has(option)).map(|(_, option)| option)
}

/// `fusermount3` gets all options in one argument, where a comma starts the next one.
fn without_commas(name: &str) -> String {
    name.replace([',', '\\', '\n'], "_")
}

/// Waits for the loops and leaves the mountpoint alone: fuser 0.18.0 would unmount once more, which
/// might hit a mount that came after ours.
fn join_without_unmount(mut session: BackgroundSession) -> io::Result<()> {
    let idle = std::thread::spawn(|| Ok(()));
    let guard = std::mem::replace(&mut session.guard, idle);
    let ended = guard.join().unwrap_or_else(|_| Err(io::Error::other("request loop panicked")));
    std::mem::forget(session);
    ended
}

/// Best effort: it only makes reading faster, and only root may.
fn raise_read_ahead(device: &str) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(e) = std::fs::write(&path, READ_AHEAD_KIB) {
        debug!("Read-ahead stays as it is path={path} cause={e}");
    }
}

fn cannot_mount(mountpoint: &Path, cause: &io::Error) -> Error {
    Error::Mount { what: format!("Cannot mount on {}: {cause}", mountpoint.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_name_is_no_mount_option() {
        assert_eq!(without_commas("/srv/a,dev,b"), "/srv/a_dev_b");
    }

    #[test]
    fn a_mount_knows_its_volume() {
        let entry = |fs_type: &str, source: &str| MountEntry {
            device: "0:98".to_owned(),
            mountpoint: "/mnt".into(),
            fs_type: fs_type.to_owned(),
            source: source.to_owned(),
            options: String::new(),
        };
        let dir = Path::new("/srv/a,b");
        assert!(is_mount_of(&entry("fuse.stratafs", "/srv/a,b"), dir));
        assert!(is_mount_of(&entry("fuse", "/srv/a_b"), dir));
        assert!(!is_mount_of(&entry("fuse.stratafs", "/srv/a"), dir));
        assert!(!is_mount_of(&entry("ext4", "/srv/a,b"), dir));
    }

    #[test]
    fn loops_are_bounded_unless_asked_for() {
        let mut options = MountOptions::new(Path::new("/mnt"), "x");
        let threads = config(&options).n_threads.unwrap();
        assert!((THREADS_MIN..=THREADS_MAX).contains(&threads));
        options.threads = 7;
        assert_eq!(config(&options).n_threads, Some(7));
    }
}
