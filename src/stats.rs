//! Counters of what the volume did, by file class.
//!
//! Guarantees: counters only rise; reading them never blocks a writer. The volume loads the
//! persistent ones when it opens and stores them with every commit, so they are as old as the last
//! commit after a crash. Does not: know what is stored now (the container table does).

mod memory;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

pub use memory::{MemoryHolders, MemoryMap, MemoryUse};

use crate::limits::CLASSES_MAX;
use crate::types::ClassId;

macro_rules! counters {
    ($(#[$doc:meta])* $live:ident, $copy:ident {
        $($(#[$field_doc:meta])* $field:ident),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $live { $($(#[$field_doc])* pub $field: AtomicU64),* }

        /// A copy of the counters at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $copy { $($(#[$field_doc])* pub $field: u64),* }

        impl $live {
            /// All counters now.
            #[must_use]
            pub fn copy(&self) -> $copy {
                $copy { $($field: self.$field.load(Relaxed)),* }
            }
            /// Sets all counters.
            pub fn load(&self, from: &$copy) {
                $(self.$field.store(from.$field, Relaxed);)*
            }
        }

        impl $copy {
            /// The fields in their fixed order, for storing.
            #[must_use]
            pub fn to_fields(&self) -> Vec<u64> {
                vec![$(self.$field),*]
            }
            /// From fields in their fixed order; missing ones are 0.
            #[must_use]
            pub fn from_fields(fields: &[u64]) -> Self {
                let mut fields = fields.iter().copied();
                Self { $($field: fields.next().unwrap_or(0)),* }
            }
            /// What was counted since `before`.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($field: self.$field - before.$field),* }
            }
            /// Field-wise sum.
            #[must_use]
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($field: self.$field + other.$field),* }
            }
        }
    };
}

counters! {
    /// What happened to the data of one class, since the volume was made.
    ClassCounters, ClassTotals {
        /// Raw bytes cut into chunks or found to be zero. Bytes that a later write, or a cut that
        /// had to be repeated, replaced before a commit count each time.
        written_bytes,
        /// Of these: zero runs that became holes.
        zero_bytes,
        /// Of these: bytes of chunks that were stored already.
        duplicate_bytes,
        /// Of these: bytes of chunks that had to be stored.
        new_bytes,
        /// Bytes of frames that hold those new chunks, headers included.
        stored_bytes,
        /// Chunks that had to be stored.
        new_chunks,
        /// Chunks that were stored already.
        duplicate_chunks,
    }
}

counters! {
    /// What the volume did since it was opened. Not persistent.
    Activity, ActivityTotals {
        /// Commits completed.
        commits,
        /// Frames read from shards and decoded.
        frames_read,
        /// Raw bytes of these.
        decoded_bytes,
        /// Of these: frames in another container than the one read before.
        container_changes,
        /// Frames found in the cache.
        frame_cache_hits,
        /// Fingerprints looked up in the database; those of unknown data are mostly answered by
        /// its filter.
        index_gets,
        /// Scans that loaded the fingerprints behind a known chunk.
        index_scans,
        /// Calls of the file system answered.
        requests,
        /// Of these: requests that failed for a reason outside the caller.
        faults,
    }
}

/// All counters of a volume.
#[derive(Debug)]
pub struct Stats {
    classes: Vec<ClassCounters>,
    /// Since the volume was opened.
    pub activity: Activity,
    /// When the last commit was durable, in seconds since 1970; 0 if none was since the opening.
    pub last_commit_secs: AtomicU64,
    /// Holders of memory above the volume.
    pub holders: MemoryHolders,
}

impl Default for Stats {
    fn default() -> Self {
        let classes = (0..CLASSES_MAX).map(|_| ClassCounters::default()).collect();
        Self {
            classes,
            activity: Activity::default(),
            last_commit_secs: AtomicU64::new(0),
            holders: MemoryHolders::default(),
        }
    }
}

impl Stats {
    /// Counters of one class.
    #[must_use]
    pub fn class(&self, class: ClassId) -> &ClassCounters {
        &self.classes[usize::from(class.0)]
    }

    /// Totals of all classes by class number.
    #[must_use]
    pub fn totals_by_class(&self) -> Vec<ClassTotals> {
        self.classes.iter().map(ClassCounters::copy).collect()
    }

    /// Totals over all classes.
    #[must_use]
    pub fn totals(&self) -> ClassTotals {
        self.totals_by_class().iter().fold(ClassTotals::default(), |sum, c| sum.plus(c))
    }
}
