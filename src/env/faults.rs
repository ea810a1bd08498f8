//! Fault points: the places where the order of durable things matters, each named and listed once.
//!
//! Code that makes something durable, or relies on it, passes a point before the step. In
//! production that is one look at an empty option. A test arms a point: at its n-th hit the power
//! is cut, or the step fails. Guarantees: no globals, so tests run side by side; every point is in
//! [`Point::ALL`], passed at one place of the sources, and reached by the sweep (`tests/it/crash`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Power;
use crate::error::{Error, Result};

/// What a disk says that fails.
const EIO: i32 = 5;

macro_rules! can_fail {
    (fails) => {
        true
    };
    (passes) => {
        false
    };
}

macro_rules! points {
    ($($name:ident $text:literal $kind:ident $doc:literal),+ $(,)?) => {
        /// A fault point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $(#[doc = $doc] $name),+
        }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name, as failures print it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }

            /// True if the step behind it can fail; where nothing can, only the power is cut.
            #[must_use]
            pub fn can_fail(self) -> bool {
                match self {
                    $(Self::$name => can_fail!($kind)),+
                }
            }
        }
    };
}

points! {
    InitShard "init.shard" fails "The directory is there, shard 0 is not.",
    InitTables "init.tables" fails "Shard 0 is there, the database is not.",
    InitRows "init.rows" fails "The database is there and empty.",
    InitSuperblock "init.superblock" fails "All is there but what makes it a volume.",
    OpenTables "open.tables" fails "The lock is taken, the database is not open.",
    OpenShards "open.shards" fails "The database is open, the shards are not.",
    OpenStore "open.store" fails "The shards are open and as the crash left them.",
    OpenThreads "open.threads" fails "All is cut and cleaned, nothing runs yet.",
    RecoverDelete "recover.delete" fails "A container without a row is about to go.",
    RecoverDeleted "recover.deleted" passes "A container without a row is gone.",
    RecoverReopen "recover.reopen" fails "A container is about to be cut to its committed length.",
    RecoverScan "recover.scan" fails "It is cut, its frames are not known yet.",
    DrainIngest "drain.ingest" fails "Buffered bytes are about to be cut and stored.",
    DrainStage "drain.stage" fails "Their chunks are put, no extent says so.",
    ContainerCreate "container.create" fails "A container is about to be made.",
    ContainerHeader "container.header" fails "It is made and empty.",
    FrameAppend "frame.append" fails "A frame is about to be written.",
    FrameAppended "frame.appended" passes "It is written, its rows are not noted.",
    FooterAppend "container.footer" fails "A full container has no footer yet.",
    ContainerSeal "container.seal" fails "It has one and is not durable.",
    ContainerSealed "container.sealed" passes "It is complete and durable, and has no row.",
    ContainerSync "container.sync" fails "An open container is about to be made durable.",
    ContainerSynced "container.synced" passes "It is durable as far as it goes.",
    SealDrain "seal.drain" fails "A commit waits for the workers.",
    SealRows "seal.rows" fails "The workers are done, no container is synced for this commit.",
    SealDone "seal.done" passes "All containers are durable, the batch is put together.",
    CommitBegin "commit.begin" fails "A commit was asked for.",
    CommitGate "commit.gate" fails "Files are drained, the gate is closed.",
    CommitSeal "commit.seal" fails "The open txg is frozen, the gate is open.",
    CommitBatch "commit.batch" fails "Data is durable, the batch is about to be written.",
    CommitWritten "commit.written" fails "The batch is durable, nobody knows.",
    CommitForget "commit.forget" passes "The frozen txg is forgotten, dead containers are there.",
    CommitDone "commit.done" passes "Files of dead containers are gone.",
    ContainerDelete "container.delete" fails "A dead container's file is about to go.",
    ContainerDeleted "container.deleted" passes "It is gone.",
    ShutdownCommit "shutdown.commit" fails "The threads are stopped, the last commit is to come.",
    ShutdownDone "shutdown.done" passes "It is done, everything is still open.",
    SnapshotCreate "snapshot.create" fails "The gate is closed for a new snapshot.",
    SnapshotCreated "snapshot.created" fails "Its record is staged, not durable.",
    SnapshotDelete "snapshot.delete" fails "A record's removal is staged.",
    SnapshotRename "snapshot.rename" fails "A record's new name is staged.",
    ReapPiece "reap.piece" fails "Extents of a dead file are about to be removed.",
    ReapNext "reap.next" fails "One piece is staged, more are to come.",
    GcPrune "gc.prune" fails "Old versions are about to be dropped.",
    GcPruned "gc.pruned" fails "They are dropped in the open txg.",
    GcMark "gc.mark" fails "Marking begins.",
    GcWalk "gc.walk" fails "A piece of extents is about to be marked.",
    GcSweep "gc.sweep" fails "All that is alive is marked.",
    GcDoom "gc.doom" fails "A dead container is about to be forgotten.",
    GcRepack "gc.repack" fails "A live chunk is about to be stored anew.",
    GcRepacked "gc.repacked" fails "The live chunks of a container have a new place, uncommitted.",
    GcEmptied "gc.emptied" fails "That place is durable, the old container is still there.",
    GcStray "gc.stray" fails "A container without a row is about to go: nothing needs it.",
    GcCommit "gc.commit" fails "All is swept, the last commit of gc is to come.",
    ShardMake "shard.make" fails "A shard's directory is there, its marker is not.",
    ShardMark "shard.mark" fails "The marker is written under another name.",
    ShardMarked "shard.marked" fails "It has its name, and may not be durable.",
    ShardSyncNames "shard.sync-names" fails "A container is synced, its name is not.",
    ShardCut "shard.cut" fails "A sealed container is synced with its padding.",
    ShardAdd "shard.add" fails "A new shard is made, the volume does not know it.",
    ShardAddStaged "shard.add-staged" fails "Its row is staged.",
    ShardAddAttach "shard.add-attach" fails "Its row is durable, nothing goes there yet.",
}

/// What happens at an armed point.
#[derive(Clone)]
pub enum Fault {
    /// The power is cut, and the step is not begun.
    Cut,
    /// The power is cut while the step is done: it may have happened or not.
    CutDuring,
    /// The step fails as a disk does.
    Io,
    /// The step finds the disk full.
    Full,
    /// The test looks around; the step is done.
    Call(Arc<dyn Fn() + Send + Sync>),
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cut => "Cut",
            Self::CutDuring => "CutDuring",
            Self::Io => "Io",
            Self::Full => "Full",
            Self::Call(_) => "Call",
        })
    }
}

#[derive(Debug)]
struct Armed {
    point: Point,
    /// Hits before it happens.
    before: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Plan {
    power: Power,
    hits: Vec<AtomicU64>,
    armed: Mutex<Vec<Armed>>,
    fired: AtomicBool,
}

/// The handle that code passes points with. Empty in production.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    plan: Option<Arc<Plan>>,
}

impl Faults {
    /// Counts the hits of all points and does what is armed; cuts `power`.
    #[must_use]
    pub fn watching(power: Power) -> Self {
        let hits = Point::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        let armed = Mutex::default();
        let plan = Plan { power, hits, armed, fired: AtomicBool::new(false) };
        Self { plan: Some(Arc::new(plan)) }
    }

    /// Lets `fault` happen once, at the `nth` hit from now (1 is the next).
    ///
    /// # Panics
    /// When nobody watches, and for a failure where nothing can fail.
    pub fn arm(&self, point: Point, nth: u64, fault: Fault) {
        let plan = self.plan.as_ref().expect("a test arms what it watches");
        let fails = matches!(fault, Fault::Io | Fault::Full);
        assert!(point.can_fail() || !fails, "nothing can fail at {}", point.name());
        plan.armed.lock().push(Armed { point, before: nth.saturating_sub(1), fault });
    }

    /// Hits of a point so far.
    #[must_use]
    pub fn hits(&self, point: Point) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.hits[point as usize].load(Relaxed))
    }

    /// True once something armed has happened.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.fired.load(Relaxed))
    }

    /// Passes a point before a step that can fail.
    ///
    /// # Errors
    /// What a test has armed; `Io` after a power cut.
    pub fn hit(&self, point: Point) -> Result<()> {
        match &self.plan {
            None => Ok(()),
            Some(plan) => plan.hit(point),
        }
    }

    /// Passes a point where nothing can fail.
    pub fn pass(&self, point: Point) {
        if let Some(plan) = &self.plan {
            // Without power nothing behind it is durable: that is all there is to it.
            let _ = plan.hit(point);
        }
    }
}

impl Plan {
    fn hit(&self, point: Point) -> Result<()> {
        self.hits[point as usize].fetch_add(1, Relaxed);
        if self.power.is_cut() {
            return Err(Power::gone());
        }
        let Some(fault) = self.due(point) else { return Ok(()) };
        self.fired.store(true, Relaxed);
        let place = || format!("fault point {}", point.name());
        match fault {
            Fault::Cut => {
                self.power.cut();
                Err(Power::gone())
            }
            Fault::CutDuring => {
                self.power.cut();
                Ok(())
            }
            Fault::Io => {
                let source = Arc::new(io::Error::from_raw_os_error(EIO));
                Err(Error::Io { op: "pass", path: PathBuf::from(place()), source })
            }
            Fault::Full => Err(Error::NoSpace { place: place() }),
            Fault::Call(call) => {
                call();
                Ok(())
            }
        }
    }

    /// What is armed for this hit.
    fn due(&self, point: Point) -> Option<Fault> {
        let mut armed = self.armed.lock();
        let mut due = None;
        for (at, one) in armed.iter_mut().enumerate().filter(|(_, one)| one.point == point) {
            if one.before == 0 {
                due = due.or(Some(at));
            } else {
                one.before -= 1;
            }
        }
        due.map(|at| armed.remove(at).fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_once_at_the_hit_they_are_armed_for() {
        let faults = Faults::watching(Power::default());
        faults.arm(Point::FrameAppend, 2, Fault::Full);
        faults.arm(Point::CommitBatch, 1, Fault::Io);
        faults.hit(Point::FrameAppend).unwrap();
        assert!(!faults.has_fired());
        let full = faults.hit(Point::FrameAppend);
        assert!(matches!(&full, Err(Error::NoSpace { place }) if place.contains("frame.append")));
        faults.hit(Point::FrameAppend).unwrap();
        let failed = faults.hit(Point::CommitBatch).unwrap_err();
        assert_eq!(failed.to_string(), "Cannot pass fault point commit.batch: Input/output error");
        assert_eq!((faults.hits(Point::FrameAppend), faults.hits(Point::SealDone)), (3, 0));
    }

    #[test]
    fn after_a_cut_everything_fails() {
        for (fault, begun) in [(Fault::Cut, false), (Fault::CutDuring, true)] {
            let power = Power::default();
            let faults = Faults::watching(power.clone());
            faults.arm(Point::ContainerSync, 1, fault);
            drop(power.hold().unwrap());
            assert_eq!(faults.hit(Point::ContainerSync).is_ok(), begun);
            assert!(power.is_cut() && power.hold().is_err());
            assert!(faults.hit(Point::FrameAppend).is_err());
            faults.pass(Point::CommitDone);
        }
    }

    #[test]
    fn without_a_plan_nothing_is_counted() {
        let faults = Faults::default();
        faults.hit(Point::FrameAppend).unwrap();
        assert_eq!(faults.hits(Point::FrameAppend), 0);
    }
}
