//! Scrub: what is damaged is found, named and repaired, and nobody waits for it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stratafs::check::{self, CheckOptions};
use stratafs::error::Error;
use stratafs::gc;
use stratafs::scrub::{self, Background, Ended, ScrubOptions, ScrubReport};
use stratafs::types::{At, ContainerId};
use stratafs::volume::{RenameMode, Volume};

use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, TestVolume, container_files, errno, random_bytes, rot,
    text_bytes, wait_until,
};

const NEVER: &dyn Fn() -> bool = &|| false;

fn scrub(t: &TestVolume) -> ScrubReport {
    scrub::run(t, ScrubOptions::default(), NEVER, &mut |_| {}).unwrap()
}

/// Of each container, when it was verified last.
fn ledger(t: &TestVolume) -> HashMap<ContainerId, Option<u64>> {
    let mut found = HashMap::new();
    let note = |id, _: &_, last: Option<stratafs::store::ScrubRow>| {
        found.insert(id, last.map(|row| row.time_micros));
    };
    t.store_for_check().each_verified(note).unwrap();
    found
}

/// One open container of each of five classes.
fn five_containers() -> TestVolume {
    let t = TestVolume::new();
    for (seed, name) in (0..).zip(["/a.jpg", "/b.zip", "/c.vmdk", "/d.db", "/e.docx"]) {
        t.write_file(name, &random_bytes(seed, 300 * KIB));
    }
    t.commit().unwrap();
    assert_eq!(ledger(&t).len(), 5);
    t
}

#[test]
fn a_sound_volume_is_verified_whole_and_that_is_remembered() {
    let mut t = five_containers();
    let report = scrub(&t);
    assert!(report.is_clean() && report.ended == Ended::Complete, "{report:#?}");
    assert_eq!((report.containers, report.containers_left), (5, 0));
    assert_eq!(report.bytes, report.verified.stored_bytes);
    t.crash();
    let verified = t.verified().unwrap();
    assert_eq!(verified.verified_7_days_bytes, verified.stored_bytes);
    assert_eq!((verified.never_verified_bytes, verified.damaged_chunks), (0, 0));
    assert!(verified.last_pass_ended.is_some() && verified.oldest_verified.is_some());
    assert_eq!(t.status().unwrap().verified, verified);

    t.write_file("/new.log", &random_bytes(9, MIB));
    t.commit().unwrap();
    let after = t.verified().unwrap();
    assert_eq!(after.never_verified_bytes, after.stored_bytes - verified.stored_bytes);
    assert_eq!(after.verified_7_days_bytes, verified.stored_bytes, "it has grown since");
}

/// Chunk, container, shard, the file under its name of today, its hard link, and every snapshot;
/// a file that only a snapshot still has is named there.
#[test]
fn damage_is_named_with_files_links_and_snapshots() {
    let mut t = TestVolume::new();
    let (hit, gone) = (random_bytes(1, MIB), random_bytes(2, MIB));
    t.mkdir("/before");
    t.mkdir("/before/deep");
    t.snapshot_create(b"empty").unwrap();
    t.write_file("/before/deep/a.jpg", &hit);
    t.write_file("/fine.jpg", &random_bytes(3, MIB));
    t.link(t.ino("/before/deep/a.jpg"), t.ino("/"), b"hard.jpg").unwrap();
    t.mkdir("/old");
    t.write_file("/old/gone.jpg", &gone);
    t.snapshot_create(b"first").unwrap();
    t.rename((t.ino("/"), b"before"), (t.ino("/"), b"after"), RenameMode::Replace).unwrap();
    t.remove("/old/gone.jpg");
    let (parent, name) = (t.ino("/"), b"old");
    t.rmdir(parent, name).unwrap();
    t.snapshot_create(b"second").unwrap();
    t.reopen();
    let container = rot(t.volume_dir(), &hit[300 * KIB..300 * KIB + 64]);
    rot(t.volume_dir(), &gone[700 * KIB..700 * KIB + 64]);

    let report = scrub(&t);

    assert!(!report.is_clean());
    assert_eq!((report.damaged_chunks, report.damage.chunks), (2, 2), "{report:#?}");
    for chunk in &report.damage.listed {
        let file = format!("{:016x}.sfc", chunk.container);
        assert_eq!(container.file_name().unwrap().to_str(), Some(&*file));
        assert_eq!(chunk.shard, "default");
    }
    let [live, past] = &report.damage.files[..] else { panic!("{:#?}", report.damage.files) };
    assert_eq!((&*live.path, &live.links[..]), ("after/deep/a.jpg", &["hard.jpg".to_owned()][..]));
    assert_eq!(live.snapshots, ["second", "first"]);
    assert!(live.live && !past.live);
    assert_eq!(past.path, ".snapshots/first/old/gone.jpg");
    assert_eq!(past.snapshots, ["first"]);
    let (offset, len, _) = live.ranges[0];
    assert!((offset..offset + u64::from(len)).contains(&(300 * KIB as u64)), "{live:?}");
    assert_eq!(live.bytes, u64::from(len));
    assert_eq!(scrub::state(&t).unwrap().damage, report.damage);
    let problems = check::run(&t, CheckOptions::default(), &mut |_| {}).unwrap().problems;
    let told = |words: &str| problems.iter().any(|problem| problem.contains(words));
    assert_eq!(problems.len(), 4, "two chunks and two files: {problems:#?}");
    assert!(told("File after/deep/a.jpg, also hard.jpg: "), "{problems:#?}");
    assert!(told("in snapshots second, first") && told("File .snapshots/first/old/gone.jpg: "));
    t.crash();
    assert_eq!(t.damage().unwrap(), report.damage, "it is recorded");
}

/// The same bytes written again heal the file, its copy and the snapshot, and cost one chunk.
#[test]
fn writing_the_bytes_again_heals_everybody() {
    let mut t = TestVolume::new();
    let data = random_bytes(1, 3 * MIB);
    t.write_file("/a.jpg", &data);
    t.write_file("/copy.jpg", &data);
    let snapshot = t.snapshot_create(b"s").unwrap();
    t.reopen();
    rot(t.volume_dir(), &data[MIB..MIB + 64]);
    assert_eq!(scrub(&t).damage.files.len(), 2);
    assert_eq!(errno(&t.open("/copy.jpg").read(MIB as u64, 10)), Some(5));

    let healed = t.counting(|| t.write_file("/again.jpg", &data));

    assert_eq!(healed.new_chunks, 1, "{healed:#?}");
    let report = scrub(&t);
    assert!(report.is_clean() && report.damaged_chunks == 0, "{report:#?}");
    for path in ["/a.jpg", "/copy.jpg", "/again.jpg"] {
        t.assert_content(path, &data);
    }
    assert!(t.read_in(&snapshot, "/a.jpg") == data);
    t.assert_sound();
}

/// A disk that was away: all its chunks are damaged, and good again when it is back.
#[test]
fn what_comes_back_is_good_again() {
    let mut t = TestVolume::new();
    let data = random_bytes(1, 2 * MIB);
    t.write_file("/a.jpg", &data);
    t.reopen();
    let file = container_files(t.volume_dir()).remove(0);
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    let report = scrub(&t);
    assert!(report.damage.chunks >= 2 && report.damage.files.len() == 1, "{report:#?}");
    assert_eq!(report.damage.files[0].bytes, data.len() as u64);
    fs::rename(&away, &file).unwrap();
    let report = scrub(&t);
    assert_eq!(report.recovered_chunks, report.chunks, "{report:#?}");
    assert!(report.is_clean());
    t.assert_content("/a.jpg", &data);
    t.crash();
    assert_eq!(t.verified().unwrap().damaged_chunks, 0);
    t.assert_sound();
}

/// A damaged footer hits no data, but is told, and remembered.
#[test]
fn damage_that_hits_no_chunk_is_a_flaw() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, 34 * MIB));
    t.reopen();
    let sealed = container_files(t.volume_dir()).remove(0);
    let len = fs::metadata(&sealed).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&sealed).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"X", len - 4).unwrap();
    let report = scrub(&t);
    assert_eq!((report.flaws.len(), report.damage.chunks), (1, 0), "{report:#?}");
    assert!(!report.is_clean());
    assert_eq!(report.verified.flawed_containers, 1);
    t.assert_content("/a.bin", &random_bytes(1, 34 * MIB));
}

/// Time is up after the container in hand; the next scrub goes on with the oldest ones.
#[test]
fn a_scrub_with_a_time_limit_goes_on_where_the_last_one_ended() {
    let mut t = five_containers();
    // The clock of the test moves a microsecond per question: every container ends the scrub.
    let limit = Some(Duration::from_micros(1));
    let options = ScrubOptions { max_duration: limit, rate_bytes: None };
    let mut seen = Vec::new();
    for round in 1..=5 {
        let report = scrub::run(&t, options, NEVER, &mut |_| {}).unwrap();
        assert_eq!(report.containers, 1, "round {round}: {report:#?}");
        assert_eq!(report.containers_left, 4);
        assert_eq!(report.ended, Ended::OutOfTime);
        t.crash();
        let verified = ledger(&t).values().flatten().count();
        assert_eq!(verified, round);
        assert_eq!(t.verified().unwrap().last_pass_ended.is_some(), round == 5);
        seen.extend(ledger(&t).into_iter().max_by_key(|(_, time)| *time).map(|(id, _)| id));
    }
    let again = scrub::run(&t, options, NEVER, &mut |_| {}).unwrap();
    assert_eq!(again.containers, 1);
    let newest = ledger(&t).into_iter().max_by_key(|(_, time)| *time).unwrap().0;
    assert_eq!(newest, seen[0], "the one verified longest ago");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5, "each container once");
}

/// Ctrl-C: what was verified stays, the container in hand is left.
#[test]
fn a_scrub_that_is_stopped_keeps_its_progress() {
    let mut t = five_containers();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        ledger(&t).values().flatten().count() == 3
    };
    let report = scrub::run(&t, ScrubOptions::default(), &stop, &mut |_| {}).unwrap();
    assert_eq!((report.ended, report.containers, report.containers_left), (Ended::Stopped, 3, 2));
    t.crash();
    assert_eq!(ledger(&t).values().flatten().count(), 3);
    assert_eq!(scrub(&t).containers, 5);
}

/// While a scrub stands between two frames, everything else goes on: it holds no lock.
#[test]
fn writes_snapshots_gc_and_check_go_on_during_a_scrub() {
    let t = TestVolume::new();
    t.write_file("/dead.bin", &random_bytes(1, 70 * MIB));
    t.write_file("/live.bin", &random_bytes(2, MIB));
    t.remove("/dead.bin");
    let once = Cell::new(true);
    let stop = || {
        if once.replace(false) {
            t.write_file("/during.bin", &random_bytes(3, MIB));
            t.snapshot_create(b"during").unwrap();
            let freed = gc::run(&t).unwrap();
            assert!(freed.containers_freed >= 2, "{freed:#?}");
            t.assert_sound();
            let other = scrub::run(&t, ScrubOptions::default(), NEVER, &mut |_| {});
            assert!(matches!(other, Err(Error::Busy { .. })), "one at a time");
        }
        false
    };
    let report = scrub::run(&t, ScrubOptions::default(), &stop, &mut |_| {}).unwrap();
    assert!(!once.get());
    assert!(report.is_clean(), "what gc frees is no damage: {report:#?}");
    assert_eq!(report.ended, Ended::Complete);
    assert_eq!(report.damaged_chunks, 0);
}

/// Gc, writers and scrub at once, for as long as gc needs for 20 rounds: no false alarm.
#[test]
fn scrubs_and_gc_at_once_raise_no_false_alarm() {
    let t = TestVolume::new();
    t.write_file("/keep.jpg", &random_bytes(100, 2 * MIB));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scrubber = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 2 {
                let report = scrub(&t);
                assert!(report.is_clean() && report.damaged_chunks == 0, "{report:#?}");
                rounds += 1;
            }
        });
        for seed in 0..20 {
            t.write_file("/some.jpg", &random_bytes(seed, MIB));
            t.write_file("/text.c", &text_bytes(seed, 200 * KIB));
            t.commit().unwrap();
            t.remove("/some.jpg");
            t.remove("/text.c");
            gc::run(&t).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        scrubber.join().unwrap();
    });
    t.assert_content("/keep.jpg", &random_bytes(100, 2 * MIB));
    t.assert_sound();
}

/// What `rebuild-index` knows to be lost is listed as damaged, and nothing counts as verified.
#[test]
fn a_rebuilt_index_lists_what_was_lost() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, 34 * MIB));
    t.commit().unwrap();
    assert!(scrub(&t).is_clean());
    t.close();
    let sealed = container_files(t.volume_dir()).remove(0);
    let file = fs::OpenOptions::new().write(true).open(&sealed).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"X", 64).unwrap();
    Volume::rebuild_index(t.volume_dir(), false, &mut |_| {}).unwrap();
    t.open_closed();
    assert_eq!(ledger(&t).values().flatten().count(), 0);
    let damage = t.damage().unwrap();
    assert!(damage.chunks > 0 && damage.files[0].path == "a.bin", "{damage:#?}");
    assert_eq!(scrub(&t).damage, damage);
    let problems = check::run(&t, CheckOptions::default(), &mut |_| {}).unwrap().problems;
    assert!(!problems.iter().any(|problem| problem.contains("listed")), "{problems:#?}");
}

// ---- repair

/// A volume with damage in `/dir/a.jpg`, and the bytes of that file.
fn damaged() -> (TestVolume, Vec<u8>) {
    let mut t = TestVolume::new();
    let data = random_bytes(1, 4 * MIB);
    t.mkdir("/dir");
    t.write_file("/dir/a.jpg", &data);
    t.snapshot_create(b"s").unwrap();
    t.reopen();
    for at in [0, MIB, 3 * MIB] {
        rot(t.volume_dir(), &data[at..at + 64]);
    }
    assert_eq!(scrub(&t).damage.chunks, 3);
    (t, data)
}

#[test]
fn repair_finds_the_bytes_at_their_own_path() {
    for copy in ["dir/a.jpg", "a.jpg"] {
        let (t, data) = damaged();
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("dir")).unwrap();
        fs::write(from.path().join(copy), &data).unwrap();
        let report = scrub::repair(&t, from.path(), NEVER, &mut |_| {}).unwrap();
        assert_eq!((report.damaged_chunks, report.repaired_chunks), (3, 3), "{copy}: {report:#?}");
        assert_eq!((report.found_in_place, report.files_searched), (3, 0));
        assert_eq!(report.damage.chunks, 0);
        t.assert_content("/dir/a.jpg", &data);
        assert!(scrub(&t).is_clean());
        t.assert_sound();
        assert_eq!(fs::read_dir(from.path()).unwrap().count(), if copy == "a.jpg" { 2 } else { 1 });
    }
}

/// Under another name, of another class, with other bytes before it.
#[test]
fn repair_finds_the_bytes_anywhere() {
    let (t, data) = damaged();
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("x/y")).unwrap();
    fs::write(from.path().join("x/other.zip"), random_bytes(7, MIB)).unwrap();
    let moved = [&random_bytes(8, 100_001)[..], &data[MIB / 4..]].concat();
    fs::write(from.path().join("x/y/backup.dat"), moved).unwrap();

    let report = scrub::repair(&t, from.path(), NEVER, &mut |_| {}).unwrap();

    assert_eq!((report.repaired_chunks, report.found_in_place), (2, 0), "{report:#?}");
    assert_eq!((report.files_searched, report.damage.chunks), (2, 1));
    let [file] = &report.damage.files[..] else { panic!("{report:#?}") };
    assert_eq!((&*file.path, file.ranges[0].0), ("dir/a.jpg", 0), "still missing, by name");
    let all = t.open("/dir/a.jpg").read(2 * MIB as u64, 2 * MIB).unwrap();
    assert!(all == data[2 * MIB..], "repaired");
}

/// The end of what a commit met is a cut that no class makes; it is found at its place.
#[test]
fn repair_finds_provisional_chunks_at_their_place() {
    let mut t = TestVolume::new();
    let data = random_bytes(1, MIB);
    t.write_file("/a.jpg", &data[..400_000]);
    t.commit().unwrap();
    t.snapshot_create(b"half").unwrap();
    t.open("/a.jpg").write(400_000, &data[400_000..]).unwrap();
    t.reopen();
    rot(t.volume_dir(), &data[400_000 - 64..400_000]);
    rot(t.volume_dir(), &data[400_000 - 64..400_000 + 64]);
    assert_eq!(scrub(&t).damage.chunks, 2, "the one of the snapshot and the one of today");
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a.jpg"), &data).unwrap();
    let report = scrub::repair(&t, from.path(), NEVER, &mut |_| {}).unwrap();
    assert_eq!((report.repaired_chunks, report.damage.chunks), (2, 0), "{report:#?}");
    t.assert_sound();
}

#[test]
fn repair_follows_no_symlink_and_refuses_what_is_no_tree() {
    let (t, data) = damaged();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a.jpg"), &data).unwrap();
    let from = tempfile::tempdir().unwrap();
    symlink(outside.path(), from.path().join("dir")).unwrap();
    symlink(outside.path().join("a.jpg"), from.path().join("a.jpg")).unwrap();
    let report = scrub::repair(&t, from.path(), NEVER, &mut |_| {}).unwrap();
    assert_eq!((report.repaired_chunks, report.damage.chunks), (0, 3), "{report:#?}");
    let repair = |from: &std::path::Path| scrub::repair(&t, from, NEVER, &mut |_| {});
    assert!(matches!(repair(&outside.path().join("a.jpg")), Err(Error::Invalid { .. })));
    assert!(matches!(repair(&outside.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(repair(t.volume_dir()), Err(Error::Invalid { .. })));
}

/// A wrong tree does no harm: only bytes with the right fingerprint are taken.
#[test]
fn repair_takes_nothing_that_differs() {
    let (t, mut data) = damaged();
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("dir")).unwrap();
    data[MIB + 1000] ^= 1;
    fs::write(from.path().join("dir/a.jpg"), &data).unwrap();
    let report = scrub::repair(&t, from.path(), NEVER, &mut |_| {}).unwrap();
    assert_eq!((report.repaired_chunks, report.damage.chunks), (2, 1), "{report:#?}");
    assert_eq!(errno(&t.open("/dir/a.jpg").read(MIB as u64, 10)), Some(5));
}

// ---- in the background

#[test]
fn the_background_verifies_what_is_due_and_makes_way() {
    let slow = format!("{NO_BACKGROUND_COMMITS}[scrub]\nrate = \"64KiB\"\n");
    let mut t = TestVolume::with_config(&slow);
    let data = random_bytes(1, 3 * MIB);
    t.write_file("/a.jpg", &data);
    t.commit().unwrap();
    let background = Background::start(&t).unwrap();
    // It would take 48 s; who asks does not wait for it.
    let report = scrub(&t);
    assert_eq!((report.containers, report.ended), (1, Ended::Complete));
    // Nor does who stops it.
    drop(background);

    t.write_config(&format!("{NO_BACKGROUND_COMMITS}[scrub]\nrate = \"1GiB\"\n"));
    t.reopen();
    t.write_file("/b.zip", &random_bytes(2, 3 * MIB));
    t.commit().unwrap();
    rot(t.volume_dir(), &random_bytes(2, 3 * MIB)[MIB..MIB + 64]);
    let before = ledger(&t);
    let background = Background::start(&t).unwrap();
    wait_until("what is due is verified", || ledger(&t).values().flatten().count() == 2);
    wait_until("the damage is recorded", || t.verified().unwrap().damaged_chunks == 1);
    drop(background);
    let after = ledger(&t);
    let known: Vec<_> = before.iter().filter(|(_, time)| time.is_some()).collect();
    assert_eq!(known.len(), 1);
    assert!(known.iter().all(|(id, time)| after[id] == **time), "that one was not due");
}

#[test]
fn the_background_can_be_switched_off() {
    let t = TestVolume::with_config(&format!("{NO_BACKGROUND_COMMITS}[scrub]\ninterval_days = 0"));
    t.write_file("/a.jpg", &random_bytes(1, MIB));
    t.commit().unwrap();
    drop(Background::start(&t).unwrap());
    assert_eq!(ledger(&t).values().flatten().count(), 0);
    assert!(t.open_file(At::Live, t.ino("/a.jpg")).is_ok());
}
