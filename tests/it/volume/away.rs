//! A shard that is not there (P6): the rest goes on, nothing is said against its chunks, and when
//! it is back everything is.

use std::fs;
use std::path::{Path, PathBuf};

use stratafs::check::{self, CheckOptions};
use stratafs::error::Error;
use stratafs::gc;
use stratafs::types::{At, ShardId};
use stratafs::volume::Volume;

use crate::testkit::{KIB, MIB, TestVolume, random_bytes};

/// Pictures belong to "bulk", and to "default" if it is not there.
const CONFIG: &str = "[limits]\ncommit_interval_secs = 3600\n\
                      [classes.media]\nshards = [\"bulk\"]\nfallback = \"default\"\n\
                      [classes.other]\nshards = [\"default\"]\n";
const EIO: i32 = 5;

/// Two pictures on "bulk", a file on "default", a snapshot of them; nothing is cached.
struct Stage {
    t: TestVolume,
    bulk: PathBuf,
    elsewhere: PathBuf,
}

fn picture(number: u64) -> Vec<u8> {
    random_bytes(number, 700 * KIB)
}

impl Stage {
    fn new() -> Self {
        let mut t = TestVolume::new();
        let bulk = t.add_shard("bulk");
        t.write_config(CONFIG);
        t.reopen();
        t.write_file("/1.jpg", &picture(1));
        t.write_file("/2.jpg", &picture(2));
        t.write_file("/plain", &random_bytes(3, 300 * KIB));
        t.snapshot_create(b"s").unwrap();
        assert_eq!(shard_of(&t, "/1.jpg"), ["bulk"]);
        // Neither a frame nor an open file is kept.
        t.reopen();
        let elsewhere = bulk.with_file_name("elsewhere");
        Self { t, bulk, elsewhere }
    }

    fn take_away(&self) {
        fs::rename(&self.bulk, &self.elsewhere).unwrap();
    }

    fn bring_back(&self) {
        fs::rename(&self.elsewhere, &self.bulk).unwrap();
    }

    fn missing(&self) -> Vec<String> {
        let list = self.t.shard_list().unwrap().into_iter();
        list.filter(|shard| shard.missing.is_some()).map(|shard| shard.name).collect()
    }
}

fn shard_of(t: &Volume, path: &str) -> Vec<String> {
    let explained = t.explain(At::Live, path.as_bytes()).unwrap();
    explained.shards.into_iter().map(|(name, _)| name).collect()
}

/// Reading fails because the shard is missing, and says where it should be.
#[track_caller]
fn assert_unreadable(t: &TestVolume, path: &str, bulk: &Path) {
    let error = t.open(path).read(0, 1000).unwrap_err();
    assert!(matches!(error, Error::ShardMissing { .. }), "{error:?}");
    assert_eq!(error.errno(), EIO);
    assert!(error.to_string().contains(bulk.to_str().unwrap()), "{error}");
}

fn problems(t: &Volume) -> Vec<String> {
    check::run(t, CheckOptions { read_data: true }, &mut |_| {}).unwrap().problems
}

#[test]
fn a_volume_opens_without_a_shard_and_has_it_again_later() {
    let mut s = Stage::new();
    for crash in [false, true] {
        s.t.close();
        s.take_away();
        s.t.open_closed();
        assert_eq!(s.missing(), ["bulk"]);
        assert_unreadable(&s.t, "/1.jpg", &s.bulk);
        s.t.assert_content("/plain", &random_bytes(3, 300 * KIB));
        let new = format!("/new{crash}.jpg");
        s.t.write_file(&new, &picture(10 + u64::from(crash)));
        s.t.commit().unwrap();
        s.t.assert_content(&new, &picture(10 + u64::from(crash)));
        assert_eq!(shard_of(&s.t, &new), ["default"], "the fallback of its class");
        s.t.snapshot_create(&new.as_bytes()[1..]).unwrap();
        if crash {
            s.t.crash();
        } else {
            s.t.reopen();
        }
        assert_unreadable(&s.t, "/2.jpg", &s.bulk);
        let found = problems(&s.t);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("not checked") && found[0].contains(s.bulk.to_str().unwrap()));
        s.t.close();
        s.bring_back();
        s.t.open_closed();
        assert_eq!(s.missing(), [""; 0]);
        s.t.assert_content("/1.jpg", &picture(1));
        s.t.assert_content("/2.jpg", &picture(2));
        s.t.assert_sound();
    }
}

#[test]
fn a_shard_goes_and_comes_back_while_the_volume_is_open() {
    let mut s = Stage::new();
    // More than a container: the first one is sealed, and not looked into when it is opened again.
    s.t.write_file("/large.jpg", &random_bytes(9, 40 * MIB));
    s.t.reopen();
    let txg = s.t.txg();
    s.take_away();
    // Nobody has looked yet: the reader finds out by himself, and blames no chunk.
    assert_unreadable(&s.t, "/2.jpg", &s.bulk);
    assert_eq!(s.missing(), [""; 0]);
    s.t.look_after_shards();
    assert_eq!(s.missing(), ["bulk"]);
    assert_unreadable(&s.t, "/2.jpg", &s.bulk);
    s.t.write_file("/3.jpg", &picture(30));
    s.t.commit().unwrap();
    assert!(s.t.txg() > txg);
    assert_eq!(shard_of(&s.t, "/3.jpg"), ["default"]);
    s.t.look_after_shards();
    assert_eq!(s.missing(), ["bulk"]);
    s.bring_back();
    s.t.look_after_shards();
    assert_eq!(s.missing(), [""; 0]);
    s.t.assert_content("/2.jpg", &picture(2));
    s.t.write_file("/4.jpg", &picture(40));
    s.t.commit().unwrap();
    assert_eq!(shard_of(&s.t, "/4.jpg"), ["bulk"], "new data goes there again");
    s.t.assert_sound();
    let mut t = s.t;
    t.crash();
    for (path, number) in [("/1.jpg", 1), ("/2.jpg", 2), ("/3.jpg", 30), ("/4.jpg", 40)] {
        t.assert_content(path, &picture(number));
    }
    t.assert_sound();
}

/// What is on a shard that is away is not used for dedup: written again it is stored again, under
/// its number, so that everything that needs it reads.
#[test]
fn content_that_is_away_is_stored_anew_for_all_who_need_it() {
    let mut s = Stage::new();
    s.t.close();
    s.take_away();
    s.t.open_closed();
    let chunks = s.t.stats_report().unwrap().chunks;
    let again = s.t.counting(|| s.t.write_file("/again.jpg", &picture(1)));
    assert_eq!(again.new_bytes, 700 * KIB as u64, "{again:#?}");
    for path in ["/again.jpg", "/1.jpg"] {
        s.t.assert_content(path, &picture(1));
    }
    let snapshot = s.t.snapshots()[0].clone();
    assert!(s.t.read_in(&snapshot, "/1.jpg") == picture(1));
    assert_unreadable(&s.t, "/2.jpg", &s.bulk);
    let twice = s.t.counting(|| s.t.write_file("/twice.jpg", &picture(1)));
    assert_eq!(twice.new_bytes, 0, "once is enough: {twice:#?}");
    assert!(s.t.stats_report().unwrap().chunks > chunks, "they lie in two containers");
    s.bring_back();
    s.t.look_after_shards();
    s.t.assert_content("/2.jpg", &picture(2));
    s.t.assert_sound();
    gc::run(&s.t).unwrap();
    s.t.crash();
    for (path, number) in [("/again.jpg", 1), ("/1.jpg", 1), ("/2.jpg", 2)] {
        s.t.assert_content(path, &picture(number));
    }
    s.t.assert_sound();
}

/// What gc cannot see it leaves alone; what died meanwhile goes when the shard is back.
#[test]
fn gc_leaves_a_shard_that_is_away_alone() {
    let mut s = Stage::new();
    s.t.write_file("/large.jpg", &random_bytes(9, 70 * MIB));
    s.t.commit().unwrap();
    s.t.remove("/large.jpg");
    s.t.close();
    s.take_away();
    s.t.open_closed();
    let containers = s.t.stats_report().unwrap().containers;
    let report = gc::run(&s.t).unwrap();
    assert_eq!((report.containers_freed, report.repacked_bytes), (0, 0), "{report:#?}");
    assert!(report.unused.raw_bytes >= 70 * MIB as u64, "it knows: {report:#?}");
    assert_eq!(s.t.stats_report().unwrap().containers, containers);
    s.bring_back();
    s.t.reopen();
    s.t.assert_sound();
    let report = gc::run(&s.t).unwrap();
    assert!(report.freed_bytes >= 60 * MIB as u64, "{report:#?}");
    s.t.assert_content("/1.jpg", &picture(1));
    s.t.assert_sound();
}

/// Data on its way to a shard that is gone without anybody having looked goes to another one.
#[test]
fn data_on_its_way_finds_another_shard() {
    let mut t = TestVolume::new();
    let bulk = t.add_shard("bulk");
    t.write_config(CONFIG);
    t.reopen();
    fs::rename(&bulk, bulk.with_file_name("elsewhere")).unwrap();
    for number in 0..20 {
        t.write_file(&format!("/{number}.jpg"), &picture(number));
    }
    t.commit().unwrap();
    t.crash();
    for number in 0..20 {
        let path = format!("/{number}.jpg");
        t.assert_content(&path, &picture(number));
        assert_eq!(shard_of(&t, &path), ["default"]);
    }
}

/// With no shard at all nothing new is accepted, what was accepted waits, and nothing stops for
/// good.
/// SEMANTICS §5.3: with no shard at all.
#[test]
fn without_any_shard_writers_wait_for_one() {
    let mut t = TestVolume::new();
    t.write_file("/old", &random_bytes(1, 100 * KIB));
    t.commit().unwrap();
    t.write_file("/gone", b"soon");
    // Open files: what a worker had appended already would keep the shard from being taken back.
    let buffered = t.create("/buffered");
    buffered.write(0, &random_bytes(2, 100 * KIB)).unwrap();
    let waiting = t.create("/waiting");
    waiting.write(0, &random_bytes(3, 100 * KIB)).unwrap();
    let (there, away) = (t.volume_dir().join("shards/0"), t.volume_dir().join("shards/away"));
    fs::rename(&there, &away).unwrap();
    t.look_after_shards();
    let refused = waiting.write(MIB as u64, b"x").unwrap_err();
    assert!(matches!(refused, Error::ShardMissing { .. }), "{refused:?}");
    t.remove("/gone");
    let commit = t.commit();
    assert!(!matches!(commit, Err(Error::Poisoned { .. })), "{commit:?}");
    assert_eq!(t.status().unwrap().poisoned, None);
    assert_eq!(t.read_file("/waiting"), random_bytes(3, 100 * KIB), "buffered still");
    fs::rename(&away, &there).unwrap();
    t.look_after_shards();
    t.commit().unwrap();
    drop((buffered, waiting));
    t.crash();
    t.assert_content("/old", &random_bytes(1, 100 * KIB));
    t.assert_content("/buffered", &random_bytes(2, 100 * KIB));
    t.assert_content("/waiting", &random_bytes(3, 100 * KIB));
    t.assert_sound();
}

/// A missing disk is one thing, a wrong one another.
#[test]
fn another_shard_in_its_place_is_refused() {
    let mut s = Stage::new();
    let other = TestVolume::new();
    let theirs = other.add_shard("theirs");
    s.t.close();
    s.take_away();
    fs::rename(&theirs, &s.bulk).unwrap();
    let refused = s.t.try_open(false).map(drop).unwrap_err();
    assert!(matches!(refused, Error::Shard { .. }), "{refused:?}");
    fs::rename(&s.bulk, &theirs).unwrap();
    s.t.open_closed();
    // While it is open, too, the wrong one is not taken for the right one.
    fs::rename(&theirs, &s.bulk).unwrap();
    s.t.look_after_shards();
    assert_eq!(s.missing(), ["bulk"]);
    fs::rename(&s.bulk, &theirs).unwrap();
    s.bring_back();
    s.t.look_after_shards();
    s.t.assert_sound();
    assert_eq!(s.t.shard_list().unwrap()[1].id, ShardId(1).0);
}
