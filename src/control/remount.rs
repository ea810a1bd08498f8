//! What a mounted process knows of `mount -o remount`: the kernel does it, and refuses writes then.
//!
//! Guarantees: once [`RemountState::set`] has made it read-only, no command that changes names,
//! files or snapshots runs, and none begins. Gc and scrub go on: what is read stays what it was.
//! Relies on: the client, which asks the kernel between [`RemountStep::Prepare`] and
//! [`RemountStep::Done`]. Does not: stop writers below the mountpoint; the kernel does.

use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use super::{MountedInfo, Request, Response};
use crate::error::{Error, Result};
use crate::volume::Volume;

/// How long a remount waits for commands that change the volume.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which options the mount is to have from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemountModes {
    /// No changes.
    pub read_only: bool,
    /// Changes of names are durable when the call returns; the kernel sees to those of bytes.
    pub sync: bool,
}

/// A client's way through a remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RemountStep {
    /// The kernel is going to be asked: is it possible? Everything is durable afterwards.
    Prepare(RemountModes),
    /// The kernel has done it.
    Done(RemountModes),
}

/// Whether a mount takes changes.
pub struct RemountState {
    read_only: RwLock<bool>,
    apply: Box<dyn Fn(RemountModes) + Send + Sync>,
}

impl RemountState {
    /// Of a mount that begins as `read_only`; `apply` tells those who serve the kernel.
    #[must_use]
    pub fn new(read_only: bool, apply: Box<dyn Fn(RemountModes) + Send + Sync>) -> Self {
        Self { read_only: RwLock::new(read_only), apply }
    }

    pub(super) fn is_read_only(&self) -> bool {
        *self.read_only.read()
    }

    /// Lets a request run; while the guard lives, the mount does not become read-only.
    pub(super) fn admit(&self, request: &Request) -> Result<Option<RwLockReadGuard<'_, bool>>> {
        let is_upkeep = matches!(request, Request::Gc { .. } | Request::Scrub(_));
        let is_change = request.changes_volume() && !is_upkeep;
        if !is_change || matches!(request, Request::Umount { .. } | Request::Remount(_)) {
            return Ok(None);
        }
        let read_only = self.read_only.read();
        if *read_only {
            return Err(Error::ReadOnly {
                what: "the volume is mounted read-only; remount it with -o remount,rw".to_owned(),
            });
        }
        Ok(Some(read_only))
    }

    fn set(&self, modes: RemountModes) -> Result<()> {
        let Some(mut read_only) = self.read_only.try_write_for(PATIENCE) else {
            let what = "A command is changing the volume; remount when it is done".to_owned();
            return Err(Error::Busy { what });
        };
        *read_only = modes.read_only;
        (self.apply)(modes);
        Ok(())
    }
}

pub(super) fn serve(
    volume: &Volume,
    mounted: Option<&MountedInfo>,
    step: RemountStep,
) -> Result<Response> {
    let Some(mounted) = mounted else {
        return Err(Error::invalid(format!("Volume {} is not mounted", volume.dir().display())));
    };
    match step {
        RemountStep::Prepare(modes) => {
            if volume.is_read_only() && !modes.read_only {
                return Err(Error::ReadOnly {
                    what: format!(
                        "volume {} was opened for reading only when it was mounted; unmount it, \
                         then mount it without ro",
                        volume.dir().display()
                    ),
                });
            }
            volume.commit()?;
        }
        RemountStep::Done(modes) => {
            mounted.remount.set(modes)?;
            log::info!("Mount has new options read_only={} sync={}", modes.read_only, modes.sync);
            volume.commit()?;
        }
    }
    Ok(Response::Remounted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn changes_are_refused_while_read_only_and_upkeep_is_not() {
        let told = Arc::new(AtomicBool::new(false));
        let its_told = Arc::clone(&told);
        let apply = move |modes: RemountModes| its_told.store(modes.read_only, Ordering::Relaxed);
        let state = RemountState::new(false, Box::new(apply));
        let change = Request::SnapshotDelete { names: Vec::new() };
        let upkeep = Request::Gc { dry_run: false, min_dead_percent: None };
        drop(state.admit(&change).unwrap().expect("a guard"));

        state.set(RemountModes { read_only: true, sync: false }).unwrap();
        assert!(told.load(Ordering::Relaxed) && state.is_read_only());
        assert_eq!(state.admit(&change).unwrap_err().exit_code(), 10);
        assert!(state.admit(&upkeep).unwrap().is_none());
        assert!(state.admit(&Request::Status).unwrap().is_none());

        state.set(RemountModes::default()).unwrap();
        assert!(state.admit(&change).is_ok());
    }

    #[test]
    fn a_running_change_is_waited_for() {
        let state = RemountState::new(false, Box::new(|_| ()));
        let running = state.admit(&Request::SnapshotDelete { names: Vec::new() }).unwrap();
        let busy = state.set(RemountModes { read_only: true, sync: false }).unwrap_err();
        assert_eq!(busy.exit_code(), 6);
        drop(running);
        assert!(!state.is_read_only());
    }
}
