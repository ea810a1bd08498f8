//! The server against good, slow, foreign and hostile clients; the service is a fake.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::client::Client;
use super::super::protocol::Name;
use super::*;

/// Says "half" and then: counts for `Deleted`, fails for `Gc`, waits for the test on `Status`, and
/// until nobody listens on `Scrub`.
struct Fake {
    go_on: Mutex<Receiver<()>>,
}

impl Serve for Fake {
    fn serve(
        &self,
        request: Request,
        progress: &mut dyn FnMut(&str),
        gone: &AtomicBool,
    ) -> Result<Response> {
        progress("half");
        match request {
            Request::SnapshotDelete { names } => Ok(Response::Deleted(names.len())),
            Request::Status => {
                let _ = self.go_on.lock().recv();
                Ok(Response::Deleted(0))
            }
            Request::Scrub(_) => {
                while !gone.load(Ordering::Relaxed) {
                    progress("more");
                }
                Ok(Response::Deleted(0))
            }
            Request::ClassList => panic!("a bug in a handler"),
            _ => Err(Error::Shard { what: "Shard a is missing".to_owned() }),
        }
    }
}

fn server(dir: &Path) -> (Server, Sender<()>) {
    let (sender, receiver) = channel();
    let fake = Box::new(Fake { go_on: Mutex::new(receiver) });
    (Server::start(dir, fake).unwrap(), sender)
}

fn call(dir: &Path, request: &Request) -> Result<Response> {
    Client::connect(dir)?.expect("the server listens").call(request, &mut |_| ())
}

/// Sends raw bytes and returns the first line that comes back.
fn raw(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join(SOCKET_NAME)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn requests_are_answered_with_progress_and_errors_with_their_code() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _go) = server(dir.path());
    let names = vec![Name(b"\xff".to_vec()), Name(b"b".to_vec())];
    let mut seen = Vec::new();
    let client = Client::connect(dir.path()).unwrap().unwrap();
    let done = client
        .call(&Request::SnapshotDelete { names }, &mut |text| seen.push(text.to_owned()))
        .unwrap();
    assert!(matches!(done, Response::Deleted(2)), "{done:?}");
    assert_eq!(seen, ["half"]);
    let error =
        call(dir.path(), &Request::Gc { dry_run: false, min_dead_percent: None }).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("Shard a is missing", 9));
    server.finish();
    assert!(Client::connect(dir.path()).unwrap().is_none());
    assert!(!dir.path().join(SOCKET_NAME).exists());
}

#[test]
fn the_socket_belongs_to_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _go) = server(dir.path());
    let mode = fs::metadata(dir.path().join(SOCKET_NAME)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join("control.sock.new").exists());
}

#[test]
fn a_stale_socket_is_replaced_and_another_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap());
    assert!(Client::connect(dir.path()).unwrap().is_none(), "nobody listens there");
    let (first, _go) = server(dir.path());
    let (_second, _go) = server(dir.path());
    first.finish();
    assert!(call(dir.path(), &Request::SnapshotDelete { names: vec![] }).is_ok());
}

#[test]
fn long_directory_names_work() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(200));
    fs::create_dir(&deep).unwrap();
    let (_server, _go) = server(&deep);
    assert!(call(&deep, &Request::SnapshotDelete { names: vec![] }).is_ok());
}

#[test]
fn malformed_requests_get_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _go) = server(dir.path());
    for bytes in [&b""[..], b"\n", b"\xff\xfe\n", b"{\"v\":1}\n", b"[[[[\n", b"{\"v\":9,\"cmd\":1}"]
    {
        let reply = raw(dir.path(), bytes);
        assert!(reply.contains("failed") && reply.lines().count() == 1, "{reply}");
    }
    let endless = vec![b'['; REQUEST_BYTES_MAX + 100_000];
    assert!(raw(dir.path(), &endless).contains("longer than"));
}

#[test]
fn a_panicking_handler_ends_only_its_own_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _go) = server(dir.path());
    let error = call(dir.path(), &Request::ClassList).unwrap_err();
    assert!(error.to_string().contains("gave no answer to class list"), "{error}");
    assert!(call(dir.path(), &Request::SnapshotDelete { names: vec![] }).is_ok());
    server.drain();
    server.finish();
}

#[test]
fn too_many_clients_are_turned_away_and_finish_waits_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (server, go) = server(dir.path());
    let waiting: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let client = Client::connect(dir.path()).unwrap().unwrap();
            thread::spawn(move || client.call(&Request::Status, &mut |_| ()))
        })
        .collect();
    while server.shared.load.lock().reading < CONNECTIONS_MAX {
        thread::sleep(Duration::from_millis(5));
    }
    let error = call(dir.path(), &Request::Status).unwrap_err();
    assert_eq!(error.exit_code(), 6, "{error}");
    let finishing = thread::spawn(move || server.finish());
    for _ in 0..CONNECTIONS_MAX {
        go.send(()).unwrap();
    }
    for thread in waiting {
        assert!(thread.join().unwrap().is_ok());
    }
    finishing.join().unwrap();
}

/// A client that was interrupted does not keep a long request running.
#[test]
fn a_long_request_hears_that_its_client_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _go_on) = server(dir.path());
    let mut stream = UnixStream::connect(dir.path().join(SOCKET_NAME)).unwrap();
    stream.write_all(b"{\"v\":1,\"cmd\":{\"scrub\":\"status\"}}\n").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(server.shared.load.lock().reading, 1);
    drop(stream);
    server.drain();
    assert_eq!(server.shared.load.lock().reading, 0);
}
