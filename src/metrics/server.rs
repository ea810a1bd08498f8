//! The endpoint that Prometheus scrapes: `GET /metrics` and nothing else.
//!
//! Guarantees: a fixed number of threads and connections, a bound on what is read and on how long
//! that takes; however many ask, the numbers are collected once a second at most. Relies on:
//! `httparse` for the bytes that come in. Does not: know who asks, so it listens on the loopback
//! address unless the configuration says otherwise; offer TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Connections served at a time; the kernel queues some more and refuses the rest.
const THREADS: usize = 2;
/// Longest head of a request; that of Prometheus has 300 bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines looked at.
const HEADERS_MAX: usize = 64;
/// A client that takes longer to ask, or to take the answer, is gone.
const CLIENT_SECS_MAX: Duration = Duration::from_secs(5);
/// Who asks again within this time gets the same numbers.
const FRESH: Duration = Duration::from_secs(1);

/// Collects the text; `None` when the volume is going away.
pub type Collect = Box<dyn Fn() -> Option<String> + Send + Sync>;

struct Shared {
    collect: Collect,
    last: Mutex<Option<(Instant, Arc<str>)>>,
    stopped: AtomicBool,
}

/// The listening endpoint; it ends when dropped.
pub struct Endpoint {
    shared: Arc<Shared>,
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens on `address`.
    ///
    /// # Errors
    /// `Mount` when the address cannot be had: whoever relies on the numbers has to know.
    pub fn start(address: SocketAddr, collect: Collect) -> Result<Self> {
        let failed = |e: io::Error| Error::Mount {
            what: format!(
                "Metrics cannot be served on {address}: {e}; choose another address in section \
                 [metrics] or with -o metrics=ADDRESS, or switch them off with -o metrics=off"
            ),
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let shared = Shared { collect, last: Mutex::new(None), stopped: AtomicBool::new(false) };
        let mut endpoint = Self { shared: Arc::new(shared), listener, threads: Vec::new() };
        for _ in 0..THREADS {
            let shared = Arc::clone(&endpoint.shared);
            let listener = endpoint.listener.try_clone().map_err(failed)?;
            let thread = thread::Builder::new().name("metrics".to_owned());
            let thread = thread.spawn(move || accept(&shared, &listener)).map_err(failed)?;
            endpoint.threads.push(thread);
        }
        Ok(endpoint)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// `Io` when the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        let failed = |e| Error::io("look at", std::path::Path::new("the metrics socket"), e);
        self.listener.local_addr().map_err(failed)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Shutting the listening socket down wakes accept(2) with an error.
        let woken = self.listener.try_clone().map(OwnedFd::from).map(TcpStream::from);
        if woken.and_then(|socket| socket.shutdown(Shutdown::Both)).is_ok() {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

fn accept(shared: &Shared, listener: &TcpListener) {
    while !shared.stopped.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                // A client that goes away, or never asks, is its own problem.
                let _ = serve(shared, stream);
            }
            Err(_) if shared.stopped.load(Ordering::SeqCst) => return,
            Err(e) => {
                log::warn!("Metrics cannot accept error={e}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(CLIENT_SECS_MAX))?;
    let (status, body) = match read_head(shared, &mut stream)? {
        Asked::Metrics => match shared.text() {
            Some(text) => ("200 OK", text),
            None => ("503 Service Unavailable", "The volume is being unmounted\n".into()),
        },
        Asked::Elsewhere => ("404 Not Found", "Metrics are at /metrics\n".into()),
        Asked::Otherwise => ("405 Method Not Allowed", "Only GET is served\n".into()),
        Asked::Nonsense => ("400 Bad Request", "This is no HTTP request\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

impl Shared {
    fn text(&self) -> Option<Arc<str>> {
        let mut last = self.last.lock();
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(text));
        }
        let text: Arc<str> = (self.collect)()?.into();
        *last = Some((Instant::now(), Arc::clone(&text)));
        Some(text)
    }
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    Elsewhere,
    Otherwise,
    Nonsense,
}

fn read_head(shared: &Shared, stream: &mut TcpStream) -> io::Result<Asked> {
    let deadline = Instant::now() + CLIENT_SECS_MAX;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.stopped.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.min(Duration::from_millis(200))))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(Asked::Nonsense),
            Ok(len) => head.extend_from_slice(&piece[..len]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if let Some(asked) = asked(&head) {
            return Ok(asked);
        }
    }
}

/// What the bytes so far ask for; `None` when more have to come.
fn asked(head: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Err(_) => Some(Asked::Nonsense),
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => None,
        Ok(httparse::Status::Partial) => Some(Asked::Nonsense),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next();
            Some(match (request.method, path) {
                (Some("GET"), Some("/metrics")) => Asked::Metrics,
                (Some("GET"), _) => Asked::Elsewhere,
                _ => Asked::Otherwise,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn ask(endpoint: &Endpoint, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(endpoint.address().unwrap()).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        // The rest of a head that is too long meets a closed socket.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn only_metrics_are_served_and_not_more_than_once_a_second() {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let collect = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Some("a 1\n".to_owned())
        };
        let any_port = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::start(any_port, Box::new(collect)).unwrap();
        let started = Instant::now();
        for _ in 0..20 {
            let answer = ask(&endpoint, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\na 1\n") && answer.contains("version=0.0.4"));
        }
        let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap();
        assert!(calls.load(Ordering::SeqCst) <= most);
        assert!(ask(&endpoint, b"GET / HTTP/1.0\r\n\r\n").contains(" 404 "));
        assert!(ask(&endpoint, b"POST /metrics HTTP/1.0\r\n\r\n").contains(" 405 "));
        assert!(ask(&endpoint, b"\x16\x03\x01 hello\r\n\r\n").contains(" 400 "));
        let long = [b"GET /metrics HTTP/1.0\r\nA: ", &[b'a'; HEAD_BYTES_MAX][..]].concat();
        assert!(!ask(&endpoint, &long).contains(" 200 "));
        let error = Endpoint::start(endpoint.address().unwrap(), Box::new(|| None)).err().unwrap();
        assert_eq!(error.exit_code(), 7);
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn dropping_ends_it_whoever_is_connected() {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::start(any_port, Box::new(|| None)).unwrap();
        let address = endpoint.address().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        assert!(ask(&endpoint, b"GET /metrics HTTP/1.0\r\n\r\n").contains(" 503 "));
        drop(endpoint);
        assert!(TcpStream::connect(address).is_err());
        drop(silent);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = asked(&bytes);
        }
    }
}
