//! Snapshots: one record each. Taking one closes the gate, drains what is buffered, stages the
//! record and begins the next epoch; from then on the first change of a row keeps its old version.

use std::sync::Arc;

use super::{Volume, names};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::limits::{SNAPSHOT_ID_MAX, SNAPSHOTS_MAX};
use crate::meta::{Edit, View};
use crate::types::{Epoch, Snapshot, SnapshotId, Timestamp};

/// Longest lock: 100 years of 365 days. A mistyped year could not be taken back.
pub const LOCK_SECS_MAX: i64 = 100 * 365 * 86_400;

/// While it exists, all that a snapshot had can be read, even if it is deleted.
pub struct KeptEpoch {
    volume: Arc<Volume>,
    epoch: Epoch,
}

impl Drop for KeptEpoch {
    fn drop(&mut self) {
        self.volume.meta.unpin(self.epoch);
    }
}

impl std::fmt::Debug for KeptEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptEpoch({})", self.epoch)
    }
}

impl Volume {
    /// Keeps what a snapshot with this epoch sees.
    ///
    /// # Errors
    /// `Stale` if nobody keeps it any more.
    pub fn keep_epoch(self: &Arc<Self>, epoch: Epoch) -> Result<KeptEpoch> {
        if !self.meta.try_pin(epoch) {
            return Err(Error::Stale);
        }
        Ok(KeptEpoch { volume: Arc::clone(self), epoch })
    }

    /// Takes a snapshot of the whole tree as it is at one instant; durable on return.
    ///
    /// # Errors
    /// `Invalid`, `NameTooLong`, `Exists`, `NoSpace` when there are `SNAPSHOTS_MAX`, `Poisoned`.
    pub fn snapshot_create(&self, name: &[u8]) -> Result<Snapshot> {
        check_snapshot_name(name)?;
        refuse_reserved(name)?;
        self.admit_change()?;
        self.drain_files(false)?;
        let snapshot = {
            let _gate = self.gate.write();
            self.drain_files(true)?;
            self.env.hit(Point::SnapshotCreate)?;
            let mut next = self.next_snapshot.lock();
            if *next > SNAPSHOT_ID_MAX {
                return Err(Error::NoSpace { place: "the snapshot numbers (2^23)".to_owned() });
            }
            let taken = self.stage(|edit| {
                refuse_taken(&edit.view(), name)?;
                refuse_many(&edit.view())?;
                let epoch = edit.view().epoch();
                let id = SnapshotId(*next);
                let time = self.env.now();
                let name = name.into();
                let snapshot = Snapshot { id, name, epoch, time, held: false, locked_until: None };
                edit.put_snapshot(&snapshot);
                edit.advance_epoch();
                Ok(snapshot)
            })?;
            *next += 1;
            taken
        };
        self.env.hit(Point::SnapshotCreated)?;
        self.commit()?;
        Ok(snapshot)
    }

    /// Deletes a snapshot's record; durable on return. Its space comes back with gc. Files in it
    /// that are open stay readable until they are closed.
    ///
    /// # Errors
    /// As [`Volume::snapshots_delete`].
    pub fn snapshot_delete(&self, name: &[u8]) -> Result<()> {
        self.snapshots_delete(&[name])
    }

    /// Deletes all these snapshots, or none.
    ///
    /// # Errors
    /// `NotFound`, `Busy` for one that is held, `NotPermitted` for one that is locked, `Poisoned`.
    pub fn snapshots_delete(&self, names: &[&[u8]]) -> Result<()> {
        self.admit_removal()?;
        {
            let _gate = self.gate.read();
            self.stage(|edit| {
                let mut ids = Vec::with_capacity(names.len());
                for name in names {
                    let found = edit.view().snapshot_named(name);
                    let found = found.ok_or_else(|| no_snapshot(name))?;
                    self.check_free(&found)?;
                    ids.push(found.id);
                }
                ids.into_iter().for_each(|id| edit.delete_snapshot(id));
                Ok(())
            })?;
            self.garbage.note_snapshot_deleted();
        }
        self.env.hit(Point::SnapshotDelete)?;
        self.commit()
    }

    /// Gives a snapshot another name; durable on return.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTooLong`, `Exists`, `NotPermitted` for a locked one, `Poisoned`.
    pub fn snapshot_rename(&self, old: &[u8], new: &[u8]) -> Result<()> {
        check_snapshot_name(new)?;
        self.change_snapshot(old, |edit, found| {
            self.check_unlocked(&found)?;
            if old != new {
                refuse_reserved(new)?;
                refuse_taken(&edit.view(), new)?;
                edit.put_snapshot(&Snapshot { name: new.into(), ..found });
            }
            Ok(())
        })
    }

    /// Keeps a snapshot from being deleted until it is released, or releases it.
    ///
    /// # Errors
    /// `NotFound`, `Poisoned`.
    pub fn snapshot_hold(&self, name: &[u8], held: bool) -> Result<()> {
        self.change_snapshot(name, |edit, found| {
            if found.held != held {
                edit.put_snapshot(&Snapshot { held, ..found });
            }
            Ok(())
        })
    }

    /// Keeps everybody from deleting or renaming a snapshot before the second `until`. What is
    /// locked can only be locked for longer.
    ///
    /// # Errors
    /// `Invalid` for a time that is past, or beyond [`LOCK_SECS_MAX`]; `NotPermitted` for one that
    /// would shorten a lock; `NotFound`, `Poisoned`.
    pub fn snapshot_lock(&self, name: &[u8], until: i64) -> Result<()> {
        let now = self.env.now().secs;
        if until <= now {
            let until = iso_seconds(until);
            return Err(Error::invalid(format!("{until} is past; a lock ends in the future")));
        }
        if until.saturating_sub(now) > LOCK_SECS_MAX {
            return Err(Error::invalid(format!(
                "{} is more than 100 years away; nobody could take that back",
                iso_seconds(until)
            )));
        }
        self.change_snapshot(name, |edit, found| {
            if let Some(before) = found.locked_until.filter(|before| *before > until) {
                return Err(Error::NotPermitted {
                    what: format!(
                        "Snapshot {} is locked until {} already; a lock can only be extended",
                        shown(name),
                        iso_seconds(before)
                    ),
                });
            }
            if found.locked_until != Some(until) {
                edit.put_snapshot(&Snapshot { locked_until: Some(until), ..found });
            }
            Ok(())
        })
    }

    /// One change of a snapshot's record; durable on return.
    fn change_snapshot(
        &self,
        name: &[u8],
        change: impl FnOnce(&mut Edit<'_>, Snapshot) -> Result<()>,
    ) -> Result<()> {
        self.admit_change()?;
        {
            let _gate = self.gate.read();
            self.stage(|edit| {
                let found = edit.view().snapshot_named(name).ok_or_else(|| no_snapshot(name))?;
                change(edit, found)
            })?;
        }
        self.env.hit(Point::SnapshotRename)?;
        self.commit()
    }

    /// Why a snapshot cannot be deleted now, in a few words.
    #[must_use]
    pub fn snapshot_protection(&self, snapshot: &Snapshot) -> Option<String> {
        match snapshot.locked_until.filter(|until| self.env.now().secs < *until) {
            Some(until) => Some(format!("locked until {}", iso_seconds(until))),
            None => snapshot.held.then(|| "held".to_owned()),
        }
    }

    fn check_free(&self, snapshot: &Snapshot) -> Result<()> {
        self.check_unlocked(snapshot)?;
        if snapshot.held {
            return Err(Error::Busy {
                what: format!(
                    "Snapshot {} is held; let it go with `stratafs snapshot release` first",
                    shown(&snapshot.name)
                ),
            });
        }
        Ok(())
    }

    fn check_unlocked(&self, snapshot: &Snapshot) -> Result<()> {
        match snapshot.locked_until.filter(|until| self.env.now().secs < *until) {
            None => Ok(()),
            Some(until) => Err(Error::NotPermitted {
                what: format!(
                    "Snapshot {} is locked until {}; nobody can delete or rename it before",
                    shown(&snapshot.name),
                    iso_seconds(until)
                ),
            }),
        }
    }

    /// All snapshots, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.meta.read().snapshots()
    }

    /// Those with numbers above `after`, at most `limit`.
    #[must_use]
    pub fn snapshots_after(&self, after: SnapshotId, limit: usize) -> Vec<Snapshot> {
        self.meta.read().snapshots_after(after, limit)
    }

    /// How many snapshots there are, and when the newest was taken.
    #[must_use]
    pub fn snapshots_so_far(&self) -> (usize, Option<Timestamp>) {
        let view = self.meta.read();
        let (count, newest) = view.newest_snapshot();
        (count, newest.map(|snapshot| snapshot.time))
    }

    /// The snapshot with this number.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> Option<Snapshot> {
        self.meta.read().snapshot(id)
    }

    /// The snapshot with this name.
    #[must_use]
    pub fn snapshot_named(&self, name: &[u8]) -> Option<Snapshot> {
        self.meta.read().snapshot_named(name)
    }
}

fn check_snapshot_name(name: &[u8]) -> Result<()> {
    names::check_name(name).map_err(|e| match e {
        Error::Invalid { .. } => Error::invalid(format!(
            "{:?} cannot name a snapshot: it must not be empty, \".\", \"..\" or contain \"/\"",
            String::from_utf8_lossy(name)
        )),
        other => other,
    })
}

/// Names that mean something else in `.snapshots`.
fn refuse_reserved(name: &[u8]) -> Result<()> {
    let reserved = [&b".latest"[..], b".gmt", b".diff", b".history"];
    if reserved.contains(&name) || name.starts_with(b"@GMT-") {
        return Err(Error::invalid(format!(
            "{:?} cannot name a snapshot: that name has a meaning of its own in .snapshots",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(())
}

fn refuse_taken(view: &View<'_>, name: &[u8]) -> Result<()> {
    match view.snapshot_named(name) {
        None => Ok(()),
        Some(_) => {
            let what = format!("Snapshot {}", String::from_utf8_lossy(name));
            Err(Error::Exists { what })
        }
    }
}

fn refuse_many(view: &View<'_>) -> Result<()> {
    if view.newest_snapshot().0 >= SNAPSHOTS_MAX {
        let place = format!("the list of snapshots ({SNAPSHOTS_MAX})");
        return Err(Error::NoSpace { place });
    }
    Ok(())
}

fn no_snapshot(name: &[u8]) -> Error {
    Error::not_found(format!("snapshot {}", shown(name)))
}

fn shown(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// `2026-11-03T10:11:12Z`.
fn iso_seconds(secs: i64) -> String {
    let iso = Timestamp { secs, nanos: 0 }.iso_utc();
    iso.split_once('.').map_or_else(|| iso.clone(), |(seconds, _)| format!("{seconds}Z"))
}
