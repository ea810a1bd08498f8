//! What a directory outside holds, and whether it is to be entered at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::source::sentence;
use super::walk::Walk;
use crate::error::Result;

/// Names of a directory that are sorted and compared at a time.
const NAMES_AT_ONCE: usize = 64 * 1024;
/// What makes a CACHEDIR.TAG one.
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl Walk<'_, '_> {
    /// Reads more names of the directory.
    pub(super) fn list(&mut self) -> Result<()> {
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let Some(more) = &mut frame.more else { return Ok(()) };
        let mut names: Vec<OsString> = Vec::new();
        let mut failed = None;
        let mut ended = false;
        while names.len() < NAMES_AT_ONCE {
            match more.next() {
                Some(Ok(entry)) => names.push(entry.file_name()),
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if ended || failed.is_some() {
            frame.more = None;
        }
        names.sort_unstable();
        frame.names = names.into();
        if let Some(error) = failed {
            let source = frame.source.clone();
            self.problem(&source, sentence(&error));
        }
        Ok(())
    }

    /// The tag because of which nothing else of a directory is taken.
    pub(super) fn tag_in(&self, source: &Path) -> Option<OsString> {
        if self.options.exclude_caches {
            let mut head = Vec::new();
            let tag = File::open(source.join(CACHE_TAG));
            let read =
                tag.and_then(|tag| tag.take(CACHE_SIGNATURE.len() as u64).read_to_end(&mut head));
            if read.is_ok() && head == CACHE_SIGNATURE {
                return Some(CACHE_TAG.into());
            }
        }
        let mut tags = self.options.exclude_if_present.iter().map(|tag| OsStr::from_bytes(tag));
        let tag = tags.find(|tag| std::fs::symlink_metadata(source.join(tag)).is_ok());
        tag.map(OsStr::to_owned)
    }

    /// True for the volume's own directories, however they are reached.
    pub(super) fn is_own(&self, facts: &Metadata) -> bool {
        let id = (facts.dev(), facts.ino());
        let of = |own: &PathBuf| std::fs::metadata(own).is_ok_and(|m| (m.dev(), m.ino()) == id);
        self.host.own.iter().any(of)
    }
}
