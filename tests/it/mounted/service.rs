//! A mount in the foreground as a service manager sees it.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::testkit::{run_with, stratafs, try_run, wait_until};

/// A volume that is served in the foreground, and the socket of its manager.
struct Service {
    temp: TempDir,
    socket: UnixDatagram,
    name: String,
    process: Option<Child>,
}

impl Service {
    /// With a socket in the file system, or in the abstract namespace.
    fn new(is_abstract: bool) -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("mnt")).unwrap();
        stratafs(&["init", temp.path().join("volume").to_str().unwrap()]).ok();
        let path = temp.path().join("notify");
        let name = path.to_str().unwrap().to_owned();
        let (socket, name) = if is_abstract {
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
        } else {
            (UnixDatagram::bind(&path).unwrap(), name)
        };
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self { temp, socket, name, process: None }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join(below)
    }

    fn start(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_stratafs"))
            .args(["mount", "-f"])
            .args([self.path("volume"), self.path("mnt")])
            .env("NOTIFY_SOCKET", &self.name)
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(child.unwrap());
    }

    /// The next message, line by line.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned).collect()
    }

    fn hears_nothing_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.recv(&mut [0; 16]).is_err()
    }

    fn wait(&mut self) -> Option<i32> {
        self.process.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            try_run("umount", &["-i", "-l", self.path("mnt").to_str().unwrap()]);
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn a_manager_is_told_when_the_mount_answers_and_when_it_ends() {
    for is_abstract in [false, true] {
        let mut service = Service::new(is_abstract);
        service.start();
        let told = service.heard();
        assert_eq!(told[0], "READY=1");
        let mnt = service.path("mnt").canonicalize().unwrap();
        assert_eq!(told[1], format!("STATUS=Mounted on {}", mnt.display()));
        // No waiting here: what comes after the unit in boot order relies on it.
        fs::write(mnt.join("file"), "x").unwrap();
        let status = stratafs(&["status", mnt.to_str().unwrap(), "--json"]).json();
        assert_eq!(status["mounted_on"], mnt.to_str().unwrap());
        // ExecStop=
        stratafs(&["umount", mnt.to_str().unwrap()]).ok();
        assert_eq!(service.heard()[0], "STOPPING=1");
        assert_eq!(service.wait(), Some(0));
        assert!(service.hears_nothing_more());
    }
}

#[test]
fn a_signal_stops_a_service_and_a_file_in_use_does_not_hold_it_up() {
    let mut service = Service::new(false);
    service.start();
    assert_eq!(service.heard()[0], "READY=1");
    let file = fs::File::create(service.path("mnt/open")).unwrap();
    let pid = service.process.as_ref().unwrap().id().to_string();
    try_run("kill", &["-TERM", &pid]).ok();
    assert_eq!(service.heard()[0], "STOPPING=1");
    drop(file);
    assert_eq!(service.wait(), Some(0));
}

#[test]
fn a_service_that_cannot_start_never_says_it_is_ready() {
    let service = Service::new(false);
    let variable = [("NOTIFY_SOCKET", service.name.clone())];
    let (none, mnt) = (service.path("none"), service.path("mnt"));
    let ran = run_with(&variable, &["mount", "-f", none.to_str().unwrap(), mnt.to_str().unwrap()]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(service.hears_nothing_more());
}

#[test]
fn a_manager_that_does_not_listen_is_no_reason_to_fail() {
    let mut service = Service::new(false);
    service.name = "/nowhere/notify".to_owned();
    service.start();
    let volume = service.path("volume");
    wait_until("it is mounted", || {
        // Between opening and mounting nobody answers; that is code 6.
        let status = stratafs(&["status", volume.to_str().unwrap(), "--json"]);
        status.code == Some(0) && status.json()["mounted_on"].is_string()
    });
    stratafs(&["umount", service.path("mnt").to_str().unwrap()]).ok();
    assert_eq!(service.wait(), Some(0));
}
