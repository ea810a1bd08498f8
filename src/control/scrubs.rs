//! Requests to scrub: the long ones, that end early when nobody waits or the mount ends.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{MountedInfo, Request, Response};
use crate::error::{Error, Result};
use crate::scrub::{self, ScrubOptions};
use crate::volume::Volume;

pub(super) fn serve(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: Request,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    let stop = || gone.load(Ordering::Relaxed) || mounted.is_some_and(|m| m.ending.begun());
    Ok(match request {
        Request::Scrub { max_secs, rate_bytes } => {
            let max_duration = max_secs.map(Duration::from_secs);
            let options = ScrubOptions { max_duration, rate_bytes };
            Response::Scrub(Box::new(scrub::run(volume, options, &stop, progress)?))
        }
        Request::ScrubRepair { from } => {
            let from = Path::new(OsStr::from_bytes(&from.0));
            if mounted.is_some_and(|m| from.starts_with(&m.mountpoint)) {
                let what =
                    format!("{} lies in the volume itself; name another copy", from.display());
                return Err(Error::invalid(what));
            }
            Response::ScrubRepair(Box::new(scrub::repair(volume, from, &stop, progress)?))
        }
        _ => Response::ScrubStatus(Box::new(scrub::state(volume)?)),
    })
}
