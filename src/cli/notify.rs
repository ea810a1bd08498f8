//! Tells a service manager how far a mount in the foreground is: sd_notify(3), `Type=notify`.
//!
//! Guarantees: without `NOTIFY_SOCKET` nothing happens; a manager that does not listen costs a
//! warning and at most a second. Does not: answer watchdogs. A disk that hangs is waited for;
//! killing the process would lose what waits in memory and mend nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where the manager listens: a path, or a name in the abstract namespace behind an `@`.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// The longest wait for a manager whose queue is full.
const PATIENCE: Duration = Duration::from_secs(1);

/// The mount answers.
pub(super) fn ready(status: &str) {
    tell(&["READY=1", &status_line(status)]);
}

/// The mount is going, or gone; the last commit may take its time.
pub(super) fn stopping(status: &str) {
    tell(&["STOPPING=1", &status_line(status)]);
}

fn status_line(status: &str) -> String {
    // A line is an assignment; a path may hold anything.
    format!("STATUS={}", status.replace(char::is_control, "?"))
}

fn tell(lines: &[&str]) {
    let Some(socket) = env::var_os(SOCKET_VARIABLE).filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, lines.join("\n").as_bytes()) {
        log::warn!("Service manager was not told lines={lines:?} cause={error}");
    }
}

fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    sender.connect_addr(&address)?;
    sender.send(message).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let name = format!("stratafs-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, listener) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_address).unwrap()),
        ] {
            send(&socket, b"READY=1").unwrap();
            let mut buffer = [0; 64];
            let len = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        for socket in ["/nowhere/socket", "vsock:2:1", "relative"] {
            assert!(send(OsStr::new(socket), b"READY=1").is_err(), "{socket}");
        }
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(status_line("on /a\nREADY=1"), "STATUS=on /a?READY=1");
    }
}
