//! Tables without versions: snapshots, changes, the reaper's work, the epoch.

use std::collections::BTreeSet;

use super::Audit;
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::meta::{EPOCH_ROW, key, record};
use crate::types::Epoch;

/// The current epoch; the largest there can be if it does not read, so that no row is blamed.
pub(super) fn epoch(kv: &dyn Kv, audit: &mut Audit) -> Result<Epoch> {
    let Some(value) = kv.get(Table::Super, EPOCH_ROW)? else { return Ok(Epoch::FIRST) };
    match record::numbers(&value).as_deref() {
        Ok([epoch]) => Ok(Epoch(*epoch)),
        _ => {
            audit.problem("The current epoch does not read".to_owned());
            Ok(Epoch(crate::limits::EPOCH_MAX))
        }
    }
}

/// The epochs of all snapshots.
pub(super) fn snapshots(kv: &dyn Kv, epoch: Epoch, audit: &mut Audit) -> BTreeSet<Epoch> {
    let (mut epochs, mut names) = (BTreeSet::new(), BTreeSet::new());
    for row in kv.scan(Table::Snapshot, &KeyRange::all(), Order::Forward) {
        let Some((key, value)) = audit.row(row) else { break };
        let read = key::read_snapshot(&key).and_then(|id| record::snapshot(id, &value));
        let snapshot = match read {
            Ok(snapshot) => snapshot,
            Err(why) => {
                audit.problem(format!("A row of table snapshot does not read: {why}"));
                continue;
            }
        };
        audit.last_snapshot = audit.last_snapshot.max(snapshot.id.0);
        let id = snapshot.id;
        if snapshot.epoch >= epoch {
            audit.problem(format!("Snapshot {id} is of epoch {}, now is {epoch}", snapshot.epoch));
        }
        epochs.insert(snapshot.epoch);
        if !names.insert(snapshot.name) {
            audit.problem(format!("Snapshot {id} has the name of another one"));
        }
    }
    epochs
}

/// What changed when.
pub(super) fn changes(kv: &dyn Kv, epoch: Epoch, audit: &mut Audit) {
    for row in kv.scan(Table::Change, &KeyRange::all(), Order::Forward) {
        let Some((key, value)) = audit.row(row) else { break };
        let good = key::read_change(&key).is_ok_and(|at| at <= epoch) && value.is_empty();
        if !good {
            audit.problem("A row of table change names no epoch, table or row".to_owned());
        }
    }
}

/// Work for the reaper belongs to an inode; only one without a name may go.
pub(super) fn reaps(kv: &dyn Kv, audit: &mut Audit) -> Result<()> {
    for row in kv.scan(Table::Reap, &KeyRange::all(), Order::Forward) {
        let Some((key, value)) = audit.row(row) else { break };
        let read = key::read_inode(&key).and_then(|ino| Ok((ino, record::reap(&value)?)));
        let (ino, reap) = match read {
            Ok(read) => read,
            Err(why) => {
                audit.problem(format!("A row of table reap does not read: {why}"));
                continue;
            }
        };
        let Some(value) = kv.get(Table::Inode, &key)? else {
            audit.problem(format!("Inode {ino} is to be removed and does not exist"));
            continue;
        };
        let inode = record::split_birth(&value).and_then(|(_, payload)| record::inode(payload));
        if reap.delete && inode.is_ok_and(|inode| inode.nlink > 0) {
            audit.problem(format!("Inode {ino} is to be removed and has names"));
        }
    }
    Ok(())
}
