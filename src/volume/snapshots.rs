//! Snapshots: one record each. Taking one closes the gate, drains what is buffered, stages the
//! record and begins the next epoch; from then on the first change of a row keeps its old version.

use super::{Volume, names};
use crate::error::{Error, Result};
use crate::limits::{SNAPSHOT_ID_MAX, SNAPSHOTS_MAX};
use crate::types::{Snapshot, SnapshotId};

impl Volume {
    /// Takes a snapshot of the whole tree as it is at one instant; durable on return.
    ///
    /// # Errors
    /// `Invalid`, `NameTooLong`, `Exists`, `NoSpace` when there are `SNAPSHOTS_MAX`, `Poisoned`.
    pub fn snapshot_create(&self, name: &[u8]) -> Result<Snapshot> {
        check_snapshot_name(name)?;
        self.admit_change()?;
        self.drain_files(false)?;
        let snapshot = {
            let _gate = self.gate.write();
            self.drain_files(true)?;
            let mut next = self.next_snapshot.lock();
            if *next > SNAPSHOT_ID_MAX {
                return Err(Error::NoSpace { place: "the snapshot numbers (2^23)".to_owned() });
            }
            let taken = self.stage(|edit| {
                refuse_taken(&edit.view().snapshots(), name)?;
                let epoch = edit.view().epoch();
                let id = SnapshotId(*next);
                let time = self.env.now();
                let snapshot = Snapshot { id, name: name.into(), epoch, time, flags: 0 };
                edit.put_snapshot(&snapshot);
                edit.advance_epoch();
                Ok(snapshot)
            })?;
            *next += 1;
            taken
        };
        self.commit()?;
        Ok(snapshot)
    }

    /// Deletes a snapshot's record; durable on return. Its space comes back with gc. Files in it
    /// that are open stay readable until they are closed.
    ///
    /// # Errors
    /// `NotFound`, `Poisoned`.
    pub fn snapshot_delete(&self, name: &[u8]) -> Result<()> {
        self.admit_removal()?;
        {
            let _gate = self.gate.read();
            self.stage(|edit| {
                let found = edit.view().snapshot_named(name).ok_or_else(|| no_snapshot(name))?;
                edit.delete_snapshot(found.id);
                Ok(())
            })?;
        }
        self.commit()
    }

    /// Gives a snapshot another name; durable on return.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTooLong`, `Exists`, `Poisoned`.
    pub fn snapshot_rename(&self, old: &[u8], new: &[u8]) -> Result<()> {
        check_snapshot_name(new)?;
        self.admit_change()?;
        {
            let _gate = self.gate.read();
            self.stage(|edit| {
                let found = edit.view().snapshot_named(old).ok_or_else(|| no_snapshot(old))?;
                if old != new {
                    refuse_taken(&edit.view().snapshots(), new)?;
                    edit.put_snapshot(&Snapshot { name: new.into(), ..found });
                }
                Ok(())
            })?;
        }
        self.commit()
    }

    /// All snapshots, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.meta.read().snapshots()
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

fn refuse_taken(snapshots: &[Snapshot], name: &[u8]) -> Result<()> {
    if snapshots.iter().any(|s| *s.name == *name) {
        let what = format!("Snapshot {}", String::from_utf8_lossy(name));
        return Err(Error::Exists { what });
    }
    if snapshots.len() >= SNAPSHOTS_MAX {
        let place = format!("the list of snapshots ({SNAPSHOTS_MAX})");
        return Err(Error::NoSpace { place });
    }
    Ok(())
}

fn no_snapshot(name: &[u8]) -> Error {
    Error::not_found(format!("snapshot {}", String::from_utf8_lossy(name)))
}
