//! Requests whose answers have no bound: what they find is sent in parts while it is found.
//!
//! Guarantees: neither end keeps the whole answer; the last line is an ordinary answer, with sums.
//! A client that reads slowly slows the work down, and is given up after [`PART_SECONDS_MAX`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::diffs::{self, DifferenceInfo};
use super::finds::{self, FoundInfo};
use super::protocol::{Request, Response};
use super::{Client, MountedInfo, reach};
use crate::error::{Error, Result};
use crate::volume::Volume;

/// How long a client may take for one part: somebody may be reading it in a pager.
pub const PART_SECONDS_MAX: u64 = 3600;
/// Things in a part.
const PART_LEN: usize = 256;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// To `snapshot diff`.
    Differences(Vec<DifferenceInfo>),
    /// To `find`.
    Found(Vec<FoundInfo>),
}

/// Takes a part; an error ends the work.
pub type EachPart<'a> = dyn FnMut(Part) -> Result<()> + 'a;

impl Request {
    /// True if it is answered in parts.
    #[must_use]
    pub fn comes_in_parts(&self) -> bool {
        matches!(self, Self::SnapshotDiff(_) | Self::Find(_))
    }
}

/// As [`super::call`], for requests that are answered in parts.
///
/// # Errors
/// As [`super::call`]; what `part` returns.
pub fn call_in_parts(dir: &Path, request: &Request, part: &mut EachPart<'_>) -> Result<Response> {
    // Only one of the two ways is taken.
    let part = std::cell::RefCell::new(part);
    reach(
        dir,
        request,
        &mut |client: Client| client.call_in_parts(request, &mut |p| (part.borrow_mut())(p)),
        &mut |volume| serve_parts(volume, None, request, &mut |p| (part.borrow_mut())(p)),
    )
}

/// Carries out a request that is answered in parts.
///
/// # Errors
/// What the request fails with, and what `part` returns; `Busy` when the mount is ending.
pub fn serve_parts(
    volume: &Volume,
    mounted: Option<&MountedInfo>,
    request: &Request,
    part: &mut EachPart<'_>,
) -> Result<Response> {
    super::refuse_ending(volume, mounted)?;
    match request {
        Request::SnapshotDiff(request) => diffs::serve(volume, request, part),
        Request::Find(request) => finds::serve(volume, request, part),
        other => Err(Error::invalid(format!("{} is not answered in parts", other.verb()))),
    }
}

/// Gathers things into parts.
pub(super) struct Gather<'a, 'b, T> {
    kept: Vec<T>,
    make: fn(Vec<T>) -> Part,
    part: &'a mut EachPart<'b>,
}

impl<'a, 'b, T> Gather<'a, 'b, T> {
    pub(super) fn new(make: fn(Vec<T>) -> Part, part: &'a mut EachPart<'b>) -> Self {
        Self { kept: Vec::new(), make, part }
    }

    pub(super) fn push(&mut self, thing: T) -> Result<()> {
        self.kept.push(thing);
        if self.kept.len() < PART_LEN { Ok(()) } else { self.send() }
    }

    /// Sends what is left.
    pub(super) fn send(&mut self) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        (self.part)((self.make)(std::mem::take(&mut self.kept)))
    }
}
