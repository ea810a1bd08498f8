//! Requests to scrub: the long ones, that end early when nobody waits or the mount ends.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MountedInfo, Name, Response};
use crate::error::{Error, Result};
use crate::scrub::{self, RepairReport, ScrubOptions, ScrubReport, ScrubState};
use crate::volume::Volume;

/// What a scrub is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScrubRequest {
    /// Verify containers.
    Run {
        /// Begin no further container after so many seconds.
        max_secs: Option<u64>,
        /// Most bytes read in a second.
        rate_bytes: Option<u64>,
    },
    /// What was verified, and what is damaged.
    Status,
    /// Store damaged chunks anew from good copies.
    Repair {
        /// Absolute path of the tree with the copies.
        from: Name,
    },
}

/// The answer to each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScrubAnswer {
    /// What was found.
    Report(ScrubReport),
    /// What is known.
    State(ScrubState),
    /// What was repaired.
    Repaired(RepairReport),
}

impl ScrubRequest {
    pub(super) fn changes_volume(&self) -> bool {
        !matches!(self, Self::Status)
    }

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Run { .. } => "scrub",
            Self::Status => "scrub --status",
            Self::Repair { .. } => "scrub --repair",
        }
    }
}

pub(super) fn serve(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: ScrubRequest,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    let stop = || gone.load(Ordering::Relaxed) || mounted.is_some_and(|m| m.ending.begun());
    let answer = match request {
        ScrubRequest::Run { max_secs, rate_bytes } => {
            let max_duration = max_secs.map(Duration::from_secs);
            let options = ScrubOptions { max_duration, rate_bytes };
            ScrubAnswer::Report(scrub::run(volume, options, &stop, progress)?)
        }
        ScrubRequest::Repair { from } => {
            let from = Path::new(OsStr::from_bytes(&from.0));
            if mounted.is_some_and(|m| from.starts_with(&m.mountpoint)) {
                let what =
                    format!("{} lies in the volume itself; name another copy", from.display());
                return Err(Error::invalid(what));
            }
            ScrubAnswer::Repaired(scrub::repair(volume, from, &stop, progress)?)
        }
        ScrubRequest::Status => ScrubAnswer::State(scrub::state(volume)?),
    };
    Ok(Response::Scrub(Box::new(answer)))
}
