//! Facts about a volume for the commands.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::open::Counters;
use super::upkeep::Verified;
use super::{GcStatus, Volume};
use crate::classify::Facts;
use crate::error::Result;
use crate::kv::Kv;
use crate::limits::MAGIC_BYTES;
use crate::meta::Audit;
use crate::stats::{ActivityTotals, ClassTotals, MemoryMap, MemoryUse};
use crate::store::Store;
use crate::sys::process;
use crate::types::{At, ClassId, FileKind, ShardId};

/// State of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Id in hex.
    pub volume_id: String,
    /// The volume directory.
    pub dir: String,
    /// Version of its format.
    pub format_version: u32,
    /// The mountpoint, if it is mounted.
    pub mounted_on: Option<String>,
    /// The process that has it open.
    pub pid: u32,
    /// True if no change is accepted.
    pub read_only: bool,
    /// Why writing stopped, if it did.
    pub poisoned: Option<String>,
    /// Why the last commit failed, if it did: on a full disk, it is tried again and again.
    pub commit_failure: Option<String>,
    /// Last durable commit.
    pub txg: u64,
    /// When it was, in seconds since 1970; 0 if there was none since the volume was opened.
    pub last_commit_secs: u64,
    /// Current epoch.
    pub epoch: u64,
    /// Snapshots there are.
    pub snapshots: u64,
    /// Metadata bytes that are not yet committed.
    pub open_txg_bytes: u64,
    /// File bytes that are not yet cut.
    pub dirty_bytes: u64,
    /// Containers there are.
    pub containers: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// What was verified when.
    pub verified: Verified,
    /// Its shards.
    pub shards: Vec<ShardInfo>,
    /// Unused space, and what is done about it.
    pub gc: GcStatus,
}

impl Status {
    /// In one word, for monitors; the worst that holds of: `stopped` until the next mount,
    /// `waiting` for room to commit, `degraded` because a shard is missing, `damaged` data,
    /// `read-only`, `not-mounted`, `well`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let damage = self.verified.damaged_chunks + self.verified.flawed_containers;
        if self.poisoned.is_some() {
            "stopped"
        } else if self.commit_failure.is_some() {
            "waiting"
        } else if self.shards.iter().any(|shard| shard.missing.is_some()) {
            "degraded"
        } else if damage > 0 {
            "damaged"
        } else if self.mounted_on.is_none() {
            "not-mounted"
        } else if self.read_only {
            "read-only"
        } else {
            "well"
        }
    }
}

/// A shard and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Number.
    pub id: u16,
    /// Name.
    pub name: String,
    /// Directory.
    pub path: String,
    /// Weight.
    pub weight: u32,
    /// Containers on it.
    pub containers: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Capacity of the file system below.
    pub total_bytes: u64,
    /// What is free there.
    pub free_bytes: u64,
    /// Why it is not there, if it is not.
    pub missing: Option<String>,
}

/// What happened to the data of one class (cumulative), and what there is of it now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Name of the class; "all" for the sum.
    pub class: String,
    /// Raw bytes written since the volume was made.
    pub written_bytes: u64,
    /// Of these: zeros, which became holes.
    pub zero_bytes: u64,
    /// Of these: duplicates.
    pub duplicate_bytes: u64,
    /// Of these: new data.
    pub new_bytes: u64,
    /// What the new data took in containers.
    pub stored_bytes: u64,
    /// Raw bytes of all chunks in containers of this class now.
    pub now_unique_bytes: u64,
    /// Bytes of these containers now.
    pub now_stored_bytes: u64,
}

/// Where the bytes went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Raw bytes that files of the live tree map.
    pub live_bytes: u64,
    /// Raw bytes of all chunks.
    pub unique_bytes: u64,
    /// Bytes of all containers.
    pub stored_bytes: u64,
    /// Bytes of the metadata database.
    pub metadata_bytes: u64,
    /// Written without zeros, by new; 1 when nothing was written.
    pub dedup_ratio: f64,
    /// New by stored.
    pub compression_ratio: f64,
    /// Written by stored.
    pub total_ratio: f64,
    /// Chunks there are.
    pub chunks: u64,
    /// Containers there are.
    pub containers: u64,
    /// All classes together.
    pub totals: ClassReport,
    /// The classes that hold or held anything.
    pub classes: Vec<ClassReport>,
    /// The shards.
    pub shards: Vec<ShardInfo>,
    /// What is held in memory, by what holds it.
    pub memory: MemoryMap,
    /// Sum of what is held, and of the bounds.
    pub memory_total: MemoryUse,
    /// What the system counts for the whole process; 0 if it does not say.
    pub resident_bytes: u64,
    /// What was done since the volume was opened.
    pub activity: ActivityTotals,
}

/// Why a file has its class, and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The path that was asked for.
    pub path: String,
    /// The class the rules give it now.
    pub class: String,
    /// The rule that decides.
    pub rule: String,
    /// The class it had when its data was written.
    pub stored_class: String,
    /// Size in bytes.
    pub size: u64,
    /// Extents.
    pub extents: u64,
    /// Bytes that are holes.
    pub hole_bytes: u64,
    /// Raw bytes by shard.
    pub shards: Vec<(String, u64)>,
    /// Raw bytes by class of the container they lie in.
    pub classes: Vec<(String, u64)>,
    /// Containers it is spread over.
    pub containers: u64,
    /// Its share of stored bytes; chunks it shares with others count whole.
    pub stored_bytes_estimate: u64,
}

/// Sums over containers.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    containers: u64,
    chunks: u64,
    raw_bytes: u64,
    bytes: u64,
}

impl Held {
    fn add(&mut self, other: &Self) {
        self.containers += other.containers;
        self.chunks += other.chunks;
        self.raw_bytes += other.raw_bytes;
        self.bytes += other.bytes;
    }
}

/// The same by shard and class.
#[derive(Debug, Default)]
struct HeldByLane(BTreeMap<(ShardId, ClassId), Held>);

impl HeldByLane {
    fn sum(&self, of: impl Fn((ShardId, ClassId)) -> bool) -> Held {
        let mut sum = Held::default();
        self.0.iter().filter(|(lane, _)| of(**lane)).for_each(|(_, held)| sum.add(held));
        sum
    }
}

impl Volume {
    /// State of the volume; `mounted_on` is for the caller to fill.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn status(&self) -> Result<Status> {
        let held = self.containers_held()?;
        let all = held.sum(|_| true);
        // Not below: there its view would live until everything else is known, which looks, too.
        let epoch = self.meta.read().epoch().0;
        Ok(Status {
            volume_id: self.id.to_string(),
            dir: self.dir.display().to_string(),
            format_version: super::FORMAT_VERSION,
            mounted_on: None,
            pid: std::process::id(),
            read_only: self.read_only,
            poisoned: self.poison.get().map(ToString::to_string),
            commit_failure: self.last_failure().map(|cause| cause.to_string()),
            txg: self.txg.load(Ordering::Relaxed),
            last_commit_secs: self.stats.last_commit_secs.load(Ordering::Relaxed),
            epoch,
            snapshots: self.snapshots_so_far().0 as u64,
            open_txg_bytes: self.meta.overlay_bytes() as u64,
            dirty_bytes: self.files.dirty_bytes() as u64,
            containers: all.containers,
            stored_bytes: all.bytes,
            verified: self.verified()?,
            shards: self.shards_with(&held),
            gc: self.gc_status(),
        })
    }

    /// The shards and what they hold.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn shard_list(&self) -> Result<Vec<ShardInfo>> {
        Ok(self.shards_with(&self.containers_held()?))
    }

    fn shards_with(&self, held: &HeldByLane) -> Vec<ShardInfo> {
        let shards = self.shards.read();
        let info = shards.iter().map(|state| {
            let there = held.sum(|(shard, _)| shard == state.id);
            let space = state.shard.as_ref().ok().and_then(|shard| shard.space().ok());
            ShardInfo {
                id: state.id.0,
                name: state.name.clone(),
                path: state.path.clone(),
                weight: state.weight,
                containers: there.containers,
                stored_bytes: there.bytes,
                total_bytes: space.map_or(0, |s| s.total_bytes),
                free_bytes: space.map_or(0, |s| s.free_bytes),
                missing: state.shard.as_ref().err().cloned(),
            }
        });
        info.collect()
    }

    /// Sums over the containers, which may be too many for memory.
    fn containers_held(&self) -> Result<HeldByLane> {
        let mut held = HeldByLane::default();
        self.store.each_container(|_, row| {
            let lane = held.0.entry((row.shard, row.class)).or_default();
            lane.add(&Held {
                containers: 1,
                chunks: row.chunks,
                raw_bytes: row.raw_bytes,
                bytes: row.bytes,
            });
            Ok(())
        })?;
        Ok(held)
    }

    /// Where the bytes went.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn stats_report(&self) -> Result<StatsReport> {
        let held = self.containers_held()?;
        let all = held.sum(|_| true);
        let totals = self.stats.totals();
        let usage = self.kv.usage();
        let written = totals.written_bytes - totals.zero_bytes;
        let memory = self.memory(&usage);
        let sum = |of: fn(&MemoryUse) -> u64| memory.values().map(of).sum();
        let memory_total = MemoryUse::new(sum(|m| m.bytes), sum(|m| m.bound_bytes), "");
        Ok(StatsReport {
            live_bytes: self.live_bytes.get(),
            unique_bytes: all.raw_bytes,
            stored_bytes: all.bytes,
            metadata_bytes: usage.disk_bytes,
            dedup_ratio: ratio(written, totals.new_bytes),
            compression_ratio: ratio(totals.new_bytes, totals.stored_bytes),
            total_ratio: ratio(totals.written_bytes, totals.stored_bytes),
            chunks: all.chunks,
            containers: all.containers,
            totals: class_report("all", &totals, &all),
            classes: self.class_reports(&held),
            shards: self.shards_with(&held),
            memory,
            memory_total,
            resident_bytes: process::resident_bytes(),
            activity: self.stats.activity.copy(),
        })
    }

    fn class_reports(&self, held: &HeldByLane) -> Vec<ClassReport> {
        let all = self.stats.totals_by_class();
        let reports = self.classifier.classes().iter().map(|spec| {
            let there = held.sum(|(_, class)| class == spec.id);
            class_report(&spec.name, &all[usize::from(spec.id.0)], &there)
        });
        reports.filter(|r| r.written_bytes > 0 || r.now_stored_bytes > 0).collect()
    }

    /// Why the file at `path` has its class, and where its bytes lie.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for what is no regular file, `Kv`, `Corrupt`.
    pub fn explain(&self, at: At, path: &[u8]) -> Result<Explanation> {
        let stat = self.resolve(at, path)?;
        if stat.inode.kind != FileKind::Regular {
            return Err(crate::error::Error::invalid(format!(
                "{} is not a regular file; only regular files have a class",
                String::from_utf8_lossy(path)
            )));
        }
        if at == At::Live {
            self.drain_ino(stat.ino)?;
        }
        let mut head = vec![0; usize::try_from(stat.inode.size).unwrap_or(MAGIC_BYTES)];
        head.truncate(MAGIC_BYTES);
        self.read_extents(at, stat.ino, 0, &mut head)?;
        let clean: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
        let joined = clean.join(&b'/');
        let verdict = self.classifier.classify(&Facts {
            name: clean.last().copied().unwrap_or_default(),
            path: Some(&joined),
            uid: stat.inode.uid,
            gid: stat.inode.gid,
            size: stat.inode.size,
            head: &head,
        });
        let mut explanation = Explanation {
            path: String::from_utf8_lossy(path).into_owned(),
            class: self.class_name(verdict.class),
            rule: verdict.rule.to_string(),
            stored_class: self.class_name(stat.inode.class),
            size: stat.inode.size,
            extents: 0,
            hole_bytes: 0,
            shards: Vec::new(),
            classes: Vec::new(),
            containers: 0,
            stored_bytes_estimate: 0,
        };
        self.add_places(at, &stat, &mut explanation)?;
        Ok(explanation)
    }

    fn add_places(&self, at: At, stat: &super::Stat, out: &mut Explanation) -> Result<()> {
        let mut shards: BTreeMap<ShardId, u64> = BTreeMap::new();
        let mut classes: BTreeMap<u8, u64> = BTreeMap::new();
        let mut containers = std::collections::BTreeSet::new();
        let (mut mapped, mut from) = (0, 0);
        while from < stat.inode.size {
            let some = self.meta.read().extents(at, stat.ino, from..stat.inode.size, 1000)?;
            let Some(last) = some.last() else { break };
            from = last.end();
            for extent in &some {
                let place = self.store.place_of(extent.chunk)?;
                let raw = u64::from(extent.len);
                *shards.entry(place.shard).or_default() += raw;
                *classes.entry(place.class.0).or_default() += raw;
                containers.extend(place.container);
                out.stored_bytes_estimate += u64::from(place.stored_len);
                out.extents += 1;
                mapped += raw;
            }
        }
        out.hole_bytes = stat.inode.size.saturating_sub(mapped);
        out.containers = containers.len() as u64;
        out.shards = shards.into_iter().map(|(id, raw)| (self.shard_place(id), raw)).collect();
        let classes = classes.into_iter();
        out.classes = classes.map(|(id, raw)| (self.class_name(ClassId(id)), raw)).collect();
        Ok(())
    }

    /// What opening the volume read-only had to bear, one sentence each.
    #[must_use]
    pub fn damage_at_opening(&self) -> &[String] {
        &self.damage
    }

    /// One committed state of the tables, for a check.
    #[must_use]
    pub fn metadata_snapshot(&self) -> Box<dyn Kv + '_> {
        self.kv.snapshot()
    }

    /// The chunk store, for a check.
    #[must_use]
    pub fn store_for_check(&self) -> &Store {
        &self.store
    }

    /// Compares the counters of a committed state with what its tables hold.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn check_counters(&self, state: &dyn Kv, audit: &Audit) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let counters = Counters::load(state)?;
        let last_ino = audit.last_ino;
        if counters.next_ino <= last_ino {
            problems.push(format!("The next inode number is not above the last one, {last_ino}"));
        }
        if counters.next_snapshot <= audit.last_snapshot {
            let last = audit.last_snapshot;
            problems.push(format!("The next snapshot number is not above the last one, {last}"));
        }
        if counters.live_bytes != audit.live_bytes {
            problems.push(format!(
                "The volume counts {} live bytes and has {}",
                counters.live_bytes, audit.live_bytes
            ));
        }
        Ok(problems)
    }

    pub(super) fn class_name(&self, class: ClassId) -> String {
        self.classifier.class(class).name.clone()
    }
}

fn class_report(name: &str, totals: &ClassTotals, there: &Held) -> ClassReport {
    ClassReport {
        class: name.to_owned(),
        written_bytes: totals.written_bytes,
        zero_bytes: totals.zero_bytes,
        duplicate_bytes: totals.duplicate_bytes,
        new_bytes: totals.new_bytes,
        stored_bytes: totals.stored_bytes,
        now_unique_bytes: there.raw_bytes,
        now_stored_bytes: there.bytes,
    }
}

#[allow(clippy::cast_precision_loss)] // a ratio for people
fn ratio(of: u64, by: u64) -> f64 {
    if by == 0 { 1.0 } else { of as f64 / by as f64 }
}
