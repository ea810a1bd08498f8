//! The life of a mounted process: open, mount, listen, wait for the end, last commit, close.
//!
//! Guarantees: whatever fails or ends it, the volume is shut down; those who wait for the unmount
//! hear the outcome of the last commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::mount_options::Choices;
use super::mountpoint::{Place, apart, busy, dead, is_mounted_there, place, purpose, volume_dir};
use super::stats::endpoint;
use crate::control::{
    Client, Ending, LOCKED_WAIT, MountedInfo, MountedVolume, RemountModes, RemountState, Request,
    Response, Server,
};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::fuse::{MountOptions, Mounted, check, detach_dead, mount};
use crate::gc::Keeper;
use crate::metrics::server::Endpoint;
use crate::scrub::Background;
use crate::sys::process::{Signal, Signals, bound_malloc};
use crate::types::Changed;
use crate::vfs::{Node, Vfs, VfsOptions};
use crate::volume::{OpenOptions, Volume};

/// A signal to end is patient with files that are just being closed; each try waits a second.
const SIGNAL_TRIES: u32 = 3;
/// How often a lock is tried that is about to be free.
const LOCKED_STEP: Duration = Duration::from_millis(2);

/// How long the end of the process waits for threads that still use the volume.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// What to mount, where and how.
pub(super) struct Job {
    pub(super) volume: PathBuf,
    pub(super) mountpoint: PathBuf,
    pub(super) choices: Choices,
    pub(super) background: bool,
}

/// Told how far the mount has come.
pub(super) trait Watch {
    /// The volume is open and ours.
    fn opened(&mut self, dir: &Path);
    /// The mount is ready; an error means that nobody waits for it any more.
    ///
    /// # Errors
    /// Whatever stopped the message.
    fn ready(&mut self) -> Result<()>;
    /// Somebody ended it; the last commit is to come. May be told more than once.
    fn ending(&mut self);
}

enum Event {
    SessionOver(Result<()>),
    Signal(Signal),
}

/// Mounts, and returns when the mount has ended and the volume is closed.
///
/// # Errors
/// Why it cannot be mounted, or what its last commit failed with.
pub(super) fn run(job: &Job, watch: &mut dyn Watch) -> Result<()> {
    let signals = Signals::block()
        .map_err(|e| Error::io("block signals in", Path::new("this process"), e))?;
    bound_malloc();
    let dir = volume_dir(&job.volume)?;
    not_mounted_yet(&job.mountpoint, &dir, job.choices.fs_name.as_deref())?;
    let mut mount_options = mount_options(job, &dir);
    mount_options.mountpoint = check(&mount_options, &dir)?;
    let mountpoint = &mount_options.mountpoint;
    let options = OpenOptions {
        env: Env::system(),
        purpose: purpose(mountpoint),
        read_only: job.choices.generic.has("ro"),
    };
    let volume = open(&dir, options)?;
    watch.opened(&dir);
    log::info!("Volume opened id={} read_only={}", volume.id(), volume.is_read_only());
    if job.background {
        // Nothing may keep the directory busy that the user happened to stand in.
        let _ = std::env::set_current_dir("/");
    }
    let outcome = match start(&volume, &mount_options, &job.choices) {
        Ok(live) => live.serve(&volume, signals, job.background, watch),
        Err(error) => {
            log::error!("Mount failed error={error}");
            if let Err(closing) = volume.shutdown() {
                log::error!("Volume does not close error={closing}");
            }
            Err(error)
        }
    };
    wait_until_closed(volume);
    outcome
}

/// The last reference may be dropped by a thread that answers the kernel or a client. The process
/// must not end meanwhile: RocksDB, closed while its statics are destroyed, aborts.
fn wait_until_closed(volume: Arc<Volume>) {
    let (dir, left) = (volume.dir().to_owned(), Arc::downgrade(&volume));
    drop(volume);
    let deadline = Instant::now() + CLOSE_WAIT;
    // The lock goes last, after the database.
    while left.strong_count() > 0 || Volume::is_in_use(&dir) {
        if Instant::now() >= deadline {
            log::warn!("Volume is still in use by a thread of this process");
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Everything that runs while mounted.
struct Live {
    mounted: Arc<Mounted>,
    server: Server,
    ending: Arc<Ending>,
    metrics: Option<Endpoint>,
}

/// Opens the volume, and waits for a process that is about to let go of it: one that was killed, or
/// that is doing its last commit. One that has it mounted listens.
fn open(dir: &Path, options: OpenOptions) -> Result<Arc<Volume>> {
    let deadline = Instant::now() + LOCKED_WAIT;
    loop {
        let opened = Volume::open(dir, options.clone());
        let is_busy = matches!(opened, Err(Error::Busy { .. }));
        if !is_busy || Instant::now() >= deadline || Client::connect(dir)?.is_some() {
            return opened;
        }
        thread::sleep(LOCKED_STEP);
    }
}

/// Says which volume is on `mountpoint` already, and which process serves it, if one is. A mount of
/// the same volume, in `volume`, whose process is gone is in nobody's way: it is taken away.
fn not_mounted_yet(mountpoint: &Path, volume: &Path, fs_name: Option<&str>) -> Result<()> {
    let dir = match place(mountpoint)? {
        Place::Mounted(dir) => dir,
        Place::Dead(mountpoint) if is_mounted_there(volume, &mountpoint, fs_name)? => {
            detach_dead(&mountpoint)?;
            log::info!("Mount whose process is gone was taken away");
            return Ok(());
        }
        Place::Dead(mountpoint) => return Err(dead(&mountpoint)),
        Place::Directory(_) => return Ok(()),
    };
    let client = Client::connect(&dir)?;
    let by = match client.map(|client| client.call(&Request::Status, &mut |_| ())) {
        Some(Ok(Response::Status(status))) => format!(" by process {}", status.pid),
        _ => String::new(),
    };
    let (dir, mountpoint) = (dir.display(), mountpoint.display());
    Err(Error::Busy { what: format!("Volume {dir} is mounted on {mountpoint} already{by}") })
}

fn mount_options(job: &Job, dir: &Path) -> MountOptions {
    let choices = &job.choices;
    MountOptions {
        mountpoint: job.mountpoint.clone(),
        fs_name: choices.fs_name.clone().unwrap_or_else(|| dir.to_string_lossy().into_owned()),
        allow_other: choices.allow_other,
        default_permissions: choices.default_permissions,
        generic: choices.generic,
        nonempty: choices.nonempty,
        threads: choices.threads,
    }
}

fn start(volume: &Arc<Volume>, options: &MountOptions, choices: &Choices) -> Result<Live> {
    let mountpoint = &options.mountpoint;
    for shard in volume.shard_list()? {
        apart(mountpoint, Path::new(&shard.path), "the shard directory")?;
    }
    let generic = options.generic;
    let vfs_options = VfsOptions {
        snapdir_visible: choices.snapdir_visible,
        no_history: choices.no_history,
        read_only: generic.has("ro"),
        sync_names: generic.has("sync") || generic.has("dirsync"),
    };
    let metrics = endpoint(volume, choices.metrics, mountpoint)?;
    let vfs = Arc::new(Vfs::new(Arc::clone(volume), vfs_options));
    let mounted = Arc::new(mount(&vfs, options)?);
    let ending = Arc::new(Ending::default());
    let info = MountedInfo {
        mountpoint: mountpoint.clone(),
        unmount: unmounter(volume, &mounted, mountpoint),
        forget: forgetter(&mounted),
        ending: Arc::clone(&ending),
        remount: remounter(&vfs, generic.has("ro")),
    };
    let service = Box::new(MountedVolume { volume: Arc::clone(volume), mounted: info });
    match Server::start(volume.dir(), service) {
        Ok(server) => {
            volume.stats().holders.announce("control", server.memory());
            Ok(Live { mounted, server, ending, metrics })
        }
        Err(error) => {
            unmount_patiently(&mounted);
            Err(error)
        }
    }
}

/// Tells those who serve the kernel what a client remounted. Does not keep the volume open.
fn remounter(vfs: &Arc<Vfs>, read_only: bool) -> RemountState {
    let vfs = Arc::downgrade(vfs);
    let apply = move |modes: RemountModes| {
        if let Some(vfs) = vfs.upgrade() {
            vfs.set_modes(modes.read_only, modes.sync);
        }
    };
    RemountState::new(read_only, Box::new(apply))
}

/// How the kernel is made to forget what a command changed.
fn forgetter(mounted: &Arc<Mounted>) -> Box<dyn Fn(Changed<'_>) + Send + Sync> {
    let mounted = Arc::clone(mounted);
    Box::new(move |what| match what {
        Changed::Name(dir, name) => mounted.forget_name(Node::Live(dir), name),
        Changed::Inode(ino) => mounted.forget_node(Node::Live(ino)),
    })
}

/// How a client's unmount is done: one that finds the mountpoint in use says by whom, and one whose
/// last commit has no room does not happen, for it would lose what was written.
fn unmounter(
    volume: &Arc<Volume>,
    mounted: &Arc<Mounted>,
    mountpoint: &Path,
) -> Box<dyn Fn(bool) -> Result<()> + Send + Sync> {
    let (volume, mounted) = (Arc::downgrade(volume), Arc::clone(mounted));
    let mountpoint = mountpoint.to_owned();
    Box::new(move |lazy| {
        if let (false, Some(volume)) = (lazy, volume.upgrade())
            && let Err(Error::NoSpace { place }) = volume.commit()
        {
            let place = format!("{place} for the last commit, which umount --lazy would lose");
            return Err(Error::NoSpace { place });
        }
        match mounted.unmount(lazy) {
            Err(Error::Busy { .. }) => Err(busy(&mountpoint)),
            outcome => outcome,
        }
    })
}

impl Live {
    fn serve(
        self,
        volume: &Arc<Volume>,
        signals: Signals,
        background: bool,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let (events, receiver) = channel();
        let started = watch_session(&self.mounted, events.clone())
            .and_then(|()| watch_signals(signals, background, events))
            .and_then(|()| watch.ready());
        if let Err(error) = &started {
            log::error!("Mount given up error={error}");
            unmount_patiently(&self.mounted);
        } else {
            log::info!("Volume mounted");
        }
        let scrubber = background_scrub(volume, started.is_ok());
        let keeper = Keeper::start(volume).unwrap_or_else(|error| {
            log::warn!("Unused space does not come back by itself error={error}");
            None
        });
        let session = wait_for_end(&receiver, &self.mounted, volume, watch);
        watch.ending();
        log::info!("Session ended, last commit begins");
        self.ending.begin();
        // No gc may hold up the end, neither ours nor one that a client asked for.
        drop(keeper);
        drop(scrubber);
        drop(self.metrics);
        volume.stop_gc();
        self.server.drain();
        let closed = volume.shutdown();
        match &closed {
            Ok(()) => log::info!("Volume closed"),
            Err(error) => log::error!("Last commit failed error={error}"),
        }
        self.ending.tell(closed.clone());
        self.server.finish();
        closed.and(session).and(started)
    }
}

/// Scrubs while mounted; a volume that cannot be scrubbed in the background can still be used.
fn background_scrub(volume: &Arc<Volume>, started: bool) -> Option<Background> {
    let scrubber = started.then(|| Background::start(volume))?;
    scrubber.inspect_err(|e| log::warn!("Scrub in the background does not start cause={e}")).ok()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|e| Error::io("start a thread in", Path::new("this process"), e))
}

fn watch_session(mounted: &Arc<Mounted>, events: Sender<Event>) -> Result<()> {
    let mounted = Arc::clone(mounted);
    spawn("session", move || {
        let _ = events.send(Event::SessionOver(mounted.wait()));
    })
}

/// In the background a hangup means nothing: the terminal is none of ours.
fn watch_signals(signals: Signals, background: bool, events: Sender<Event>) -> Result<()> {
    spawn("signals", move || {
        loop {
            let signal = signals.wait();
            if !(background && signal == Signal::Hangup)
                && events.send(Event::Signal(signal)).is_err()
            {
                return;
            }
        }
    })
}

/// Returns when the session is over. The first signal unmounts, files still open or not; the
/// second one stops waiting for those who have files open.
fn wait_for_end(
    events: &Receiver<Event>,
    mounted: &Mounted,
    volume: &Volume,
    watch: &mut dyn Watch,
) -> Result<()> {
    let mut signals = 0;
    loop {
        match events.recv() {
            Ok(Event::SessionOver(outcome)) => {
                if let Err(error) = &outcome {
                    log::error!("Session failed error={error}");
                }
                return outcome;
            }
            Ok(Event::Signal(signal)) if signals == 0 => {
                signals += 1;
                log::info!("Signal received, unmounting signal={signal:?}");
                watch.ending();
                unmount_patiently(mounted);
                // With files still open the session goes on; what is there now is safe already.
                if let Err(error) = volume.commit() {
                    log::error!("Commit failed error={error}");
                }
            }
            Ok(Event::Signal(signal)) => {
                log::warn!("Second signal received, not waiting any more signal={signal:?}");
                return Ok(());
            }
            // Both senders are gone: nothing is left to wait for.
            Err(_) => return Ok(()),
        }
    }
}

/// Unmounts; what stays busy is detached.
fn unmount_patiently(mounted: &Mounted) {
    for _ in 0..SIGNAL_TRIES {
        match mounted.unmount(false) {
            Err(Error::Busy { .. }) => {}
            Err(error) => {
                log::warn!("Unmount failed, detaching error={error}");
                break;
            }
            Ok(()) => return,
        }
    }
    log::warn!("Mountpoint is in use, detaching");
    if let Err(error) = mounted.unmount(true) {
        log::error!("Detaching failed error={error}");
    }
}
