//! SIGKILL on a mount under load, at any moment. Afterwards the volume mounts at once, the whole
//! tree is as at one instant, which is not older than the last sync that was confirmed, files that
//! were replaced are whole, and snapshots are what they were.
//!
//! `STRATAFS_KILLS` says how many kills (200), `STRATAFS_KILL_SEED` begins a run as a failed one
//! began: writers, snapshots and kills are chosen alike, though threads and kernel still run as
//! they like. A failure says seed and round, and keeps the volume.

mod bed;
mod clock;
mod mirror;
mod round;
mod shots;
mod tree;
mod writer;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use self::clock::Rng;
use self::round::{Killer, Moment};

const KILLS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs rounds until the share of kills is reached.
fn survive(percent: u64, moments: &[Moment]) {
    let kills = number("STRATAFS_KILLS").unwrap_or(KILLS);
    let seed = number("STRATAFS_KILL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    let mut killer = Killer::new(seed, kills > KILLS);
    let mut rng = Rng(seed + 3);
    while killer.kills < (kills * percent).div_ceil(100) {
        let moment = *rng.pick(moments).unwrap();
        killer.round(moment, seed);
    }
    println!("{moments:?}, seed {seed}: {}", killer.summary());
}

#[test]
fn kills_under_load() {
    survive(50, &[Moment::Load]);
}

#[test]
fn kills_while_gc_runs() {
    survive(20, &[Moment::Gc]);
}

#[test]
fn kills_while_it_is_mounted_or_unmounted() {
    survive(30, &[Moment::Unmount, Moment::Mount]);
}
