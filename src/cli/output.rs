//! stdout for data, stderr for everything else; neither ever panics.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::args::Global;
use super::progress::{self, Guard, Mode};
use crate::error::{Error, Result};

/// Where a command's words go.
#[derive(Clone, Copy)]
pub(super) struct Output {
    json: bool,
    verbose: bool,
    quiet: bool,
    progress: Mode,
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        let progress = if global.quiet { Mode::None } else { global.progress };
        Self { json: global.json, verbose: global.verbose > 0, quiet: global.quiet, progress }
    }

    /// True when data is asked for as JSON.
    pub(super) fn json(self) -> bool {
        self.json
    }

    /// Prints data. A reader that went away, as `head` does, is no error.
    ///
    /// # Errors
    /// `Io` when stdout cannot take it.
    #[allow(clippy::unused_self)]
    pub(super) fn data(self, text: &str) -> Result<()> {
        progress::end();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::io("write to", Path::new("stdout"), e))
            }
            _ => Ok(()),
        }
    }

    /// Prints a JSON document as data.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub(super) fn document(self, document: &Value) -> Result<()> {
        self.data(&format!("{document:#}\n"))
    }

    /// Something begins that may take a while; it is over with what is returned.
    pub(super) fn begin(self, what: &str) -> Guard {
        progress::begin(self.progress, what)
    }

    /// Says how far it has come.
    pub(super) fn progress(self, text: &str) {
        progress::tell(self.progress, text);
    }

    /// Says something that whoever gave the command should know.
    pub(super) fn notice(self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Says something only those who asked for more want to know.
    pub(super) fn detail(self, text: &str) {
        if self.verbose {
            complain(text);
        }
    }

    /// Reports the error a command ends with.
    pub(super) fn error(self, what: &str, exit_code: u8) {
        if self.json {
            complain(&json!({ "error": what, "exit_code": exit_code }).to_string());
        } else {
            complain(&format!("stratafs: {what}"));
        }
    }
}

/// A line on stderr; if nobody can read it, so be it.
fn complain(text: &str) {
    progress::end();
    let _ = writeln!(io::stderr().lock(), "{text}");
}
