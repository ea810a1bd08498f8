//! The asking end of the control socket.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::parts::EachPart;
use super::protocol::{REPLY_BYTES_MAX, Reply, Request, Response, decode_reply, encode_request};
use crate::error::{Error, Result};
use crate::sys::process::peer;

/// The socket's name in the volume directory.
pub const SOCKET_NAME: &str = "control.sock";

/// A path of at most 108 bytes, the bound of unix sockets, to `name` in the directory `dir`,
/// which lies at `path`.
pub(super) fn socket_path(dir: &File, path: &Path, name: &str) -> PathBuf {
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    // Without /proc only short paths work.
    if by_descriptor.exists() { by_descriptor.join(name) } else { path.join(name) }
}

/// A connection to the process that has a volume mounted; good for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    dir: PathBuf,
}

impl Client {
    /// The process at the other end; `None` if the kernel does not say.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        peer(&self.stream).ok().map(|peer| peer.pid)
    }

    /// Connects to the process that has the volume in `dir` mounted; `None` when nobody listens.
    ///
    /// # Errors
    /// `Busy` when its queue is full, `Io` when the socket cannot be reached for another reason.
    pub fn connect(dir: &Path) -> Result<Option<Self>> {
        let Ok(open) = OpenOptions::new().read(true).open(dir) else {
            return Ok(None);
        };
        match UnixStream::connect(socket_path(&open, dir, SOCKET_NAME)) {
            Ok(stream) => Ok(Some(Self { stream, dir: dir.to_owned() })),
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::WouldBlock => Err(Error::Busy {
                    what: format!(
                        "The process that has {} mounted does not answer; try again",
                        dir.display()
                    ),
                }),
                _ => Err(Error::io("connect to", &dir.join(SOCKET_NAME), e)),
            },
        }
    }

    /// Sends `request` and waits for its end, however long that takes.
    ///
    /// # Errors
    /// `Remote` with the sentence and exit code of the other end; `Io` or `Invalid` when the
    /// connection ends without an answer.
    pub fn call(self, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Response> {
        self.call_both(request, progress, &mut |_| Ok(()))
    }

    /// As [`Client::call`], handing the parts of the answer to `part`.
    ///
    /// # Errors
    /// As [`Client::call`]; what `part` returns.
    pub fn call_in_parts(self, request: &Request, part: &mut EachPart<'_>) -> Result<Response> {
        self.call_both(request, &mut |_| (), part)
    }

    fn call_both(
        self,
        request: &Request,
        progress: &mut dyn FnMut(&str),
        part: &mut EachPart<'_>,
    ) -> Result<Response> {
        let socket = self.dir.join(SOCKET_NAME);
        let line = encode_request(request)?;
        // A server that refuses answers before it reads, so its answer counts, not our failure.
        let sent = (&self.stream).write_all(&line);
        let mut reader = BufReader::new(&self.stream);
        loop {
            let mut line = Vec::new();
            let bound = u64::try_from(REPLY_BYTES_MAX).unwrap_or(u64::MAX);
            if let Err(e) = reader.by_ref().take(bound).read_until(b'\n', &mut line) {
                return Err(Error::io("read from", &socket, e));
            }
            if line.is_empty() {
                return Err(match sent {
                    Err(e) => Error::io("write to", &socket, e),
                    Ok(()) => self.ended_early(request),
                });
            }
            match decode_reply(&line)? {
                Reply::Progress(text) => progress(&text),
                Reply::Part(piece) => part(piece)?,
                Reply::Done(response) => return Ok(response),
                Reply::Failed { what, code } => return Err(Error::Remote { what, code }),
            }
        }
    }

    fn ended_early(&self, request: &Request) -> Error {
        Error::invalid(format!(
            "The process that has {} mounted gave no answer to {}: it ended, or failed inside; \
             stratafs.log there may say why",
            self.dir.display(),
            request.verb()
        ))
    }
}
