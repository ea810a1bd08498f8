//! The answering end of the control socket.
//!
//! Guarantees: only the owner of the process and root are served; a request is bounded in size and
//! time; a silent or broken client holds one thread for [`REQUEST_SECONDS_MAX`] at most. After
//! [`Server::drain`] no request that changes the volume runs. Relies on: the volume's lock, so that
//! a socket file found at start belongs to nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::client::{SOCKET_NAME, socket_path};
use super::parts::{EachPart, PART_SECONDS_MAX};
use super::protocol::{
    REQUEST_BYTES_MAX, Reply, Request, Response, decode_request, encode_reply, too_long,
};
use crate::error::{Error, Result};
use crate::stats::MemoryUse;
use crate::sys::mount::effective_ids;
use crate::sys::process::peer;

/// Most clients at a time; people and scripts need a few, a runaway loop must not take all memory.
pub const CONNECTIONS_MAX: usize = 16;
/// A client sends its one line at once; who takes longer is gone.
pub const REQUEST_SECONDS_MAX: u64 = 10;
/// How often a watch over a client looks whether its request is answered.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long requests that only read may hold up an unmount.
const READERS_WAIT: Duration = Duration::from_secs(10);

/// What answers requests.
pub trait Serve: Send + Sync {
    /// Serves one request. `progress` takes sentences for the waiting client; `gone` becomes true
    /// when nobody waits any more.
    ///
    /// # Errors
    /// Whatever the client should be told.
    fn serve(
        &self,
        request: Request,
        progress: &mut dyn FnMut(&str),
        gone: &AtomicBool,
    ) -> Result<Response>;

    /// Serves one request that is answered in parts. An error of `part` means that nobody listens.
    ///
    /// # Errors
    /// Whatever the client should be told.
    fn serve_parts(&self, request: &Request, part: &mut EachPart<'_>) -> Result<Response> {
        let _ = part;
        Err(Error::invalid(format!("{} is not served here", request.verb())))
    }

    /// Whoever asked for `verb` is gone before it was done. It may go on all the same.
    fn abandoned(&self, verb: &str) {
        let _ = verb;
    }
}

/// Requests being served.
#[derive(Default)]
struct Load {
    connections: usize,
    changing: usize,
    reading: usize,
}

struct Shared {
    service: Box<dyn Serve>,
    load: Mutex<Load>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// The listening socket and its threads.
pub struct Server {
    shared: Arc<Shared>,
    listener: UnixListener,
    accepting: Option<JoinHandle<()>>,
    path: PathBuf,
    /// Device and inode of our socket file, to never remove another's.
    identity: (u64, u64),
}

impl Server {
    /// Listens in the volume directory `dir`, in place of whatever socket a crash left there.
    ///
    /// # Errors
    /// `Io` when the socket cannot be made.
    pub fn start(dir: &Path, service: Box<dyn Serve>) -> Result<Self> {
        let path = dir.join(SOCKET_NAME);
        let failed = |e| Error::io("listen on", &path, e);
        let open = OpenOptions::new().read(true).open(dir).map_err(failed)?;
        let (listener, identity) = bind(&open, dir).map_err(failed)?;
        let shared = Arc::new(Shared {
            service,
            load: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let for_thread = (Arc::clone(&shared), listener.try_clone().map_err(failed)?);
        let accepting = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&for_thread.0, &for_thread.1))
            .map_err(failed)?;
        Ok(Self { shared, listener, accepting: Some(accepting), path, identity })
    }

    /// For `stats`: what the requests of the connected clients may take. Keeps nothing alive.
    pub fn memory(&self) -> impl Fn() -> MemoryUse + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || {
            let connections = shared.upgrade().map_or(0, |shared| shared.load.lock().connections);
            let each = REQUEST_BYTES_MAX as u64;
            MemoryUse::new(connections as u64 * each, CONNECTIONS_MAX as u64 * each, "fixed")
        }
    }

    /// Waits until no request that changes the volume runs, and for the others a while. The caller
    /// has made the service refuse new ones; requests to unmount go on waiting.
    pub fn drain(&self) {
        let deadline = Instant::now() + READERS_WAIT;
        let mut load = self.shared.load.lock();
        while load.changing > 0 {
            self.shared.changed.wait(&mut load);
        }
        while load.reading > 0 {
            if self.shared.changed.wait_until(&mut load, deadline).timed_out() {
                log::warn!("Requests cut off by the unmount count={}", load.reading);
                break;
            }
        }
    }

    /// Removes the socket, then waits until all clients have their answers.
    pub fn finish(mut self) {
        self.close();
        let deadline = Instant::now() + Duration::from_secs(REQUEST_SECONDS_MAX);
        let mut load = self.shared.load.lock();
        while load.connections > 0 {
            if self.shared.changed.wait_until(&mut load, deadline).timed_out() {
                break;
            }
        }
    }

    fn close(&mut self) {
        let Some(thread) = self.accepting.take() else { return };
        let ours = |m: &fs::Metadata| (m.dev(), m.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|m| ours(&m)) {
            let _ = fs::remove_file(&self.path);
        }
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Shutting the listening socket down wakes accept(2) with an error.
        let woken = self.listener.try_clone().and_then(|listener| {
            UnixStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both)
        });
        if woken.is_ok() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// Binds beside the final name and renames, so that the socket is never seen with loose
/// permissions and replaces a stale one at once.
fn bind(dir: &File, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let new = socket_path(dir, path, "control.sock.new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    let made = fs::symlink_metadata(&new)?;
    fs::rename(&new, socket_path(dir, path, SOCKET_NAME))?;
    Ok((listener, (made.dev(), made.ino())))
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    while !shared.stopped.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => welcome(shared, stream),
            Err(_) if shared.stopped.load(Ordering::SeqCst) => break,
            Err(e) => {
                // Out of descriptors, most likely: leave time for some to be closed.
                log::warn!("Control socket cannot accept error={e}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Starts a thread for a client, or tells it to come back later.
fn welcome(shared: &Arc<Shared>, stream: UnixStream) {
    let timeout = Some(Duration::from_secs(REQUEST_SECONDS_MAX));
    if stream.set_write_timeout(timeout).is_err() {
        return;
    }
    let full = {
        let mut load = shared.load.lock();
        load.connections += 1;
        load.connections > CONNECTIONS_MAX
    };
    let leaving = Counted { shared: Arc::clone(shared), count: |load| &mut load.connections };
    if full {
        let what = format!("More than {CONNECTIONS_MAX} commands run on this volume; try again");
        answer(&stream, Err(Error::Busy { what }));
        return;
    }
    let started = thread::Builder::new().name("control-client".to_owned()).spawn(move || {
        let shared = Arc::clone(&leaving.shared);
        converse(&shared, &stream);
        drop(leaving);
    });
    if let Err(e) = started {
        log::warn!("Control socket cannot start a thread error={e}");
    }
}

/// Takes back one count when dropped, also while a panic unwinds.
struct Counted {
    shared: Arc<Shared>,
    count: fn(&mut Load) -> &mut usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        *(self.count)(&mut self.shared.load.lock()) -= 1;
        self.shared.changed.notify_all();
    }
}

fn converse(shared: &Arc<Shared>, stream: &UnixStream) {
    let outcome = admit(stream).and_then(|()| read_request(stream)).and_then(|request| {
        log::debug!("Control request verb={:?}", request.verb());
        let _running = running(shared, &request);
        if request.comes_in_parts() {
            return in_parts(shared, stream, &request);
        }
        let _watched = watch(shared, stream, request.verb());
        let gone = AtomicBool::new(false);
        let mut progress = |text: &str| {
            if !gone.load(Ordering::Relaxed) && !send(stream, Reply::Progress(text.to_owned())) {
                gone.store(true, Ordering::Relaxed);
            }
        };
        shared.service.serve(request, &mut progress, &gone)
    });
    answer(stream, outcome);
}

/// Serves a request that is answered in parts. Who reads them may take their time.
fn in_parts(shared: &Shared, stream: &UnixStream, request: &Request) -> Result<Response> {
    let patience = Some(Duration::from_secs(PART_SECONDS_MAX));
    let failed = |e| Error::io("write to", Path::new(SOCKET_NAME), e);
    stream.set_write_timeout(patience).map_err(failed)?;
    shared.service.serve_parts(request, &mut |part| {
        let line = encode_reply(Reply::Part(part))?;
        (&mut &*stream).write_all(&line).map_err(failed)
    })
}

/// Ends the watch over a client.
struct Watched(Arc<AtomicBool>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Tells the service when the client of a long request is gone before it is answered, as after
/// Ctrl-C: a client says nothing after its request, so a read ends with the connection.
fn watch(shared: &Arc<Shared>, stream: &UnixStream, verb: &'static str) -> Option<Watched> {
    if verb != "gc" {
        return None;
    }
    let answered = Arc::new(AtomicBool::new(false));
    let (shared, its_answered) = (Arc::clone(shared), Arc::clone(&answered));
    let mut client = stream.try_clone().ok()?;
    client.set_read_timeout(Some(WATCH_EVERY)).ok()?;
    let watching = move || {
        while !its_answered.load(Ordering::SeqCst) {
            match client.read(&mut [0]) {
                Ok(0) => return shared.service.abandoned(verb),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return shared.service.abandoned(verb),
            }
        }
    };
    let started = thread::Builder::new().name("control-watch".to_owned()).spawn(watching);
    started.is_ok().then_some(Watched(answered))
}

/// Counts a request while it runs; those that wait for the unmount are not in its way.
fn running(shared: &Arc<Shared>, request: &Request) -> Option<Counted> {
    let count: fn(&mut Load) -> &mut usize = match request {
        Request::Umount { .. } => return None,
        request if request.changes_volume() => |load| &mut load.changing,
        _ => |load| &mut load.reading,
    };
    *count(&mut shared.load.lock()) += 1;
    Some(Counted { shared: Arc::clone(shared), count })
}

fn admit(stream: &UnixStream) -> Result<()> {
    match peer(stream).map(|peer| peer.uid) {
        Ok(uid) if uid == 0 || uid == effective_ids().0 => Ok(()),
        _ => Err(Error::NotPermitted {
            what: "Only the user who mounted the volume, and root, may control it".to_owned(),
        }),
    }
}

fn read_request(stream: &UnixStream) -> Result<Request> {
    let failed = |e| Error::io("read from", Path::new(SOCKET_NAME), e);
    let deadline = Instant::now() + Duration::from_secs(REQUEST_SECONDS_MAX);
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::invalid("Control request did not arrive in time"));
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        let len = match (&mut &*stream).read(&mut piece) {
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        let piece = &piece[..len];
        let end = piece.iter().position(|b| *b == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(len)]);
        if line.len() > REQUEST_BYTES_MAX {
            return Err(too_long());
        }
        if end.is_some() || len == 0 {
            return decode_request(&line);
        }
    }
}

fn answer(stream: &UnixStream, outcome: Result<Response>) {
    if let Err(error) = &outcome {
        log::debug!("Control request failed code={}", error.exit_code());
    }
    send(stream, Reply::of(outcome));
}

/// False when the client is gone.
fn send(mut stream: &UnixStream, reply: Reply) -> bool {
    let line = encode_reply(reply).or_else(|e| encode_reply(Reply::of(Err(e))));
    line.is_ok_and(|line| stream.write_all(&line).is_ok())
}

#[cfg(test)]
mod tests;
