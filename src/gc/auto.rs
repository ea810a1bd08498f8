//! Gc that begins by itself while a volume is mounted.
//!
//! Whether it is worth it is guessed from the hint (see `volume/garbage.rs`), which costs nothing.
//! The run itself finds out. A run that began by itself makes room for commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::{GcOptions, prune, run_with};
use crate::config::GcConfig;
use crate::error::{Error, Result};
use crate::volume::{GarbageFacts, Volume};

/// Below so much it begins only when space is low: two containers are the least that is noticed.
const LEAST_BYTES: u64 = 64 * 1024 * 1024;
/// It is worth it when this share of what is stored may be freed, whatever `auto_bytes` says.
const WORTH_SHARE: u64 = 20;
/// Least time between two runs when space is low.
const LOW_INTERVAL: Duration = Duration::from_secs(60);
/// Deletions that never end delay a run by so many times `delay_secs` at most.
const DELAYS_MAX: u32 = 10;
/// How often it looks when `delay_secs` is 0.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(200);

/// The thread that lets gc begin. Dropping it stops a run that it began, and waits for its end.
pub struct Keeper {
    volume: Arc<Volume>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it, unless the configuration forbids it or the volume may not be changed.
    ///
    /// # Errors
    /// `Io` when there can be no thread.
    pub fn start(volume: &Arc<Volume>) -> Result<Option<Self>> {
        if !volume.config().gc.auto || volume.is_read_only() {
            return Ok(None);
        }
        let done = Arc::new(AtomicBool::new(false));
        let (of_thread, its_done) = (Arc::clone(volume), Arc::clone(&done));
        let thread = thread::Builder::new()
            .name("gc".to_owned())
            .spawn(move || keep(&of_thread, &its_done))
            .map_err(|e| Error::io("start a thread for", volume.dir(), e))?;
        Ok(Some(Self { volume: Arc::clone(volume), done, thread: Some(thread) }))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.volume.stop_gc();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("The gc thread panicked");
        }
    }
}

fn keep(volume: &Volume, done: &AtomicBool) {
    let config = &volume.config().gc;
    let delay = Duration::from_secs(config.delay_secs.into()).max(LOOK_EVERY_MIN);
    let mut begun: Option<Instant> = None;
    let mut last = GarbageFacts::default();
    let mut delays = 0;
    while !done.load(Ordering::Acquire) {
        volume.wait_for_garbage(delay);
        if done.load(Ordering::Acquire) {
            return;
        }
        let facts = match volume.garbage_facts() {
            Ok(facts) => facts,
            Err(e) => {
                warn!("Unused space is unknown cause={e}");
                continue;
            }
        };
        let grows = facts.dropped_bytes > last.dropped_bytes
            || facts.snapshots_deleted > last.snapshots_deleted;
        delays = if grows { delays + 1 } else { 0 };
        last = facts;
        if grows && !facts.space_is_low && delays < DELAYS_MAX {
            continue;
        }
        let since = begun.map(|begun| begun.elapsed());
        if is_due(config, &facts, volume.gc_status().mark.reclaimable_bytes, since) {
            begun = Some(Instant::now());
            collect(volume, config, &facts);
            last = GarbageFacts::default();
        }
    }
}

/// One run; failing is no drama, there will be another.
fn collect(volume: &Volume, config: &GcConfig, facts: &GarbageFacts) {
    let run = || {
        if facts.snapshots_deleted > 0 {
            // Only pruning tells what a deleted snapshot had for itself.
            prune(volume)?;
            let facts = GarbageFacts { snapshots_deleted: 0, ..volume.garbage_facts()? };
            if !is_due(config, &facts, volume.gc_status().mark.reclaimable_bytes, None) {
                return Ok(());
            }
        }
        info!("Gc begins by itself dropped_bytes={}", facts.dropped_bytes);
        run_with(volume, GcOptions { automatic: true, ..GcOptions::default() }, &mut |_| ())
            .map(drop)
    };
    match run() {
        Ok(()) => {}
        Err(e @ Error::Busy { .. }) => info!("Gc waits cause={e}"),
        Err(e) => warn!("Gc failed cause={e}"),
    }
}

/// Is it worth a run? `reclaimable` is known from the last marking, `since` the time since the last
/// run began.
fn is_due(
    config: &GcConfig,
    facts: &GarbageFacts,
    reclaimable: u64,
    since: Option<Duration>,
) -> bool {
    let interval = Duration::from_secs(60) * config.interval_mins;
    let interval = if facts.space_is_low { interval.min(LOW_INTERVAL) } else { interval };
    if since.is_some_and(|since| since < interval) {
        return false;
    }
    let gain = facts.dropped_bytes.saturating_add(reclaimable);
    if facts.snapshots_deleted > 0 || (facts.space_is_low && gain > 0) {
        return true;
    }
    let least = LEAST_BYTES.min(config.auto_bytes);
    gain >= config.auto_bytes.min(facts.stored_bytes / WORTH_SHARE).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn facts(dropped_mib: u64, stored_mib: u64) -> GarbageFacts {
        GarbageFacts {
            dropped_bytes: dropped_mib * MIB,
            stored_bytes: stored_mib * MIB,
            ..GarbageFacts::default()
        }
    }

    #[test]
    fn it_begins_when_enough_was_deleted() {
        let config = GcConfig::default();
        let due = |facts: GarbageFacts| is_due(&config, &facts, 0, None);
        assert!(!due(facts(0, 0)));
        assert!(!due(facts(63, 100)), "below two containers nobody notices");
        assert!(due(facts(64, 100)));
        assert!(!due(facts(99, 2000)) && due(facts(100, 2000)), "a twentieth");
        assert!(!due(facts(1023, 10_000_000)) && due(facts(1024, 10_000_000)), "auto_bytes");
        assert!(is_due(&config, &facts(60, 100), 4 * MIB, None), "known ones count");
        assert!(due(GarbageFacts { snapshots_deleted: 1, ..facts(0, 0) }));
        let low = GarbageFacts { space_is_low: true, ..facts(0, 1_000_000) };
        assert!(!due(low), "nothing to gain");
        assert!(due(GarbageFacts { dropped_bytes: 1, ..low }));
    }

    #[test]
    fn it_rests_between_runs_but_less_when_space_is_low() {
        let config = GcConfig::default();
        let much = facts(10_000, 10_000);
        let after =
            |facts: &GarbageFacts, secs| is_due(&config, facts, 0, Some(Duration::from_secs(secs)));
        assert!(!after(&much, 3599) && after(&much, 3600));
        let low = GarbageFacts { space_is_low: true, ..much };
        assert!(!after(&low, 59) && after(&low, 60));
    }
}
