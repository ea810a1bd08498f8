//! The contract of [`Shard`], run on every implementation; then what only a directory can show.

use std::fs;
use std::path::Path;

use super::{LocalShard, MemoryShard, Shard};
use crate::env::{Fault, Faults, Point, Power, SeededRandom};
use crate::error::Error;
use crate::types::{ContainerId, ShardId, VolumeId};

const VOLUME: VolumeId = VolumeId([7; 16]);
const SHARD: ShardId = ShardId(3);
const ID: ContainerId = ContainerId(0x1234_5678_9abc);

fn local(dir: &Path) -> LocalShard {
    LocalShard::create(dir, VOLUME, SHARD).unwrap()
}

/// Runs `test` on each kind of shard.
fn on_every_shard(test: impl Fn(&dyn Shard)) {
    let dir = tempfile::tempdir().unwrap();
    test(&local(&dir.path().join("shard")));
    test(&local(&dir.path().join("buffered")).without_direct_io());
    test(&MemoryShard::new());
}

fn content(shard: &dyn Shard, id: ContainerId) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(shard.len(id).unwrap()).unwrap()];
    shard.read_at(id, 0, &mut bytes).unwrap();
    bytes
}

/// A container that holds just `bytes`.
fn fill(shard: &dyn Shard, id: ContainerId, bytes: &[u8]) {
    let mut appender = shard.create(id).unwrap();
    appender.append(&[bytes]).unwrap();
    appender.seal().unwrap();
    assert_eq!(appender.len(), bytes.len() as u64);
}

#[test]
fn what_is_appended_is_read_back() {
    on_every_shard(|shard| {
        let mut appender = shard.create(ID).unwrap();
        assert_eq!(appender.append(&[b"one", b"", b"two"]).unwrap(), 0);
        assert_eq!(appender.append(&[]).unwrap(), 6);
        assert_eq!(appender.append(&[b"three"]).unwrap(), 6);
        assert_eq!(appender.len(), 11);
        assert_eq!(content(shard, ID), b"onetwothree", "readable before sync");
        appender.sync().unwrap();
        let second = appender.append(&[&[9; 3_200_000]]).unwrap();
        assert!(second == 11 || second == 4096, "zeros up to the next block may follow a sync");
        assert_eq!(appender.len(), second + 3_200_000);
        let mut across = [0; 5];
        shard.read_at(ID, second + (1 << 20) - second % 4096 - 2, &mut across).unwrap();
        assert_eq!(across, [9; 5], "part of it written, part of it not");
        appender.seal().unwrap();
        drop(appender);
        let bytes = content(shard, ID);
        assert_eq!(&bytes[..11], b"onetwothree");
        let second = usize::try_from(second).unwrap();
        assert!(bytes[11..second].iter().all(|b| *b == 0));
        assert_eq!(bytes[second..], [9; 3_200_000]);
    });
}

#[test]
fn many_parts_are_one_append() {
    on_every_shard(|shard| {
        let parts: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut appender = shard.create(ID).unwrap();
        appender.append(&parts).unwrap();
        assert_eq!(content(shard, ID), parts.concat());
    });
}

/// More than the buffers hold: what is on its way to the disk is read like the rest.
#[test]
fn long_appends_are_read_back_while_others_are_appended() {
    on_every_shard(|shard| {
        let data: Vec<u8> = (0..5_000_000).map(|at: u32| (at / 3 % 253) as u8).collect();
        let mut appender = shard.create(ContainerId(1)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < data.len() {
                    seen = usize::try_from(shard.len(ContainerId(1)).unwrap()).unwrap();
                    let from = seen.saturating_sub(3_000_000);
                    let mut found = vec![0; seen - from];
                    shard.read_at(ContainerId(1), from as u64, &mut found).unwrap();
                    assert!(found == data[from..seen], "{from}..{seen}");
                }
            });
            for part in data.chunks(200_003) {
                appender.append(&[part]).unwrap();
            }
            reader.join().unwrap();
        });
        appender.seal().unwrap();
        assert!(content(shard, ContainerId(1)) == data);
    });
}

#[test]
fn create_refuses_a_taken_name_and_leaves_it_alone() {
    on_every_shard(|shard| {
        fill(shard, ID, b"old");
        assert!(matches!(shard.create(ID), Err(Error::Exists { .. })));
        assert_eq!(content(shard, ID), b"old");
    });
}

#[test]
fn reopen_cuts_and_goes_on() {
    on_every_shard(|shard| {
        fill(shard, ID, b"keepdrop");
        let mut appender = shard.reopen(ID, 4).unwrap();
        let at = appender.append(&[b"more"]).unwrap();
        assert!(at == 4 || at == 4096, "a block that was cut is filled up with zeros");
        appender.seal().unwrap();
        drop(appender);
        let bytes = content(shard, ID);
        assert_eq!(&bytes[..4], b"keep");
        let at = usize::try_from(at).unwrap();
        assert!(bytes[4..at].iter().all(|b| *b == 0), "what was cut is gone");
        assert_eq!(&bytes[at..], b"more");
        assert!(matches!(shard.reopen(ID, 10_000), Err(Error::Corrupt { .. })));
        assert_eq!(content(shard, ID), bytes, "a refused reopen changes nothing");
        assert!(matches!(shard.reopen(ContainerId(5), 0), Err(Error::NotFound { .. })));
    });
}

#[test]
fn reads_beyond_the_end_and_of_nothing_are_errors() {
    on_every_shard(|shard| {
        fill(shard, ID, b"12345");
        let mut buf = [0; 3];
        assert!(shard.read_at(ID, 2, &mut buf).is_ok());
        for offset in [3, 5, 100, u64::MAX >> 1] {
            let answer = shard.read_at(ID, offset, &mut buf);
            assert!(matches!(answer, Err(Error::Corrupt { .. })), "{offset}: {answer:?}");
        }
        let gone = ContainerId(77);
        assert!(matches!(shard.read_at(gone, 0, &mut buf), Err(Error::NotFound { .. })));
        assert!(matches!(shard.len(gone), Err(Error::NotFound { .. })));
    });
}

#[test]
fn delete_removes_and_forgives() {
    on_every_shard(|shard| {
        fill(shard, ID, b"x");
        content(shard, ID);
        shard.delete(ID).unwrap();
        shard.delete(ID).unwrap();
        assert!(matches!(shard.read_at(ID, 0, &mut [0]), Err(Error::NotFound { .. })));
        fill(shard, ID, b"new");
        assert_eq!(content(shard, ID), b"new", "no old handle is left");
    });
}

#[test]
fn list_is_sorted_and_whole() {
    on_every_shard(|shard| {
        let ids = [0x0102, 0x02, 0xff01, 0x01, u64::MAX].map(ContainerId);
        for id in ids {
            shard.create(id).unwrap();
        }
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        assert_eq!(shard.list().unwrap(), sorted);
        let space = shard.space().unwrap();
        assert!(space.free_bytes > 0 && space.total_bytes >= space.free_bytes);
        assert!(!shard.place().is_empty());
    });
}

#[test]
fn more_containers_than_open_files() {
    on_every_shard(|shard| {
        for n in 0..150_u64 {
            fill(shard, ContainerId(n), &n.to_le_bytes());
        }
        for n in (0..150_u64).chain(0..150) {
            assert_eq!(content(shard, ContainerId(n)), n.to_le_bytes());
        }
    });
}

#[test]
fn power_cut_keeps_what_was_synced() {
    let shard = MemoryShard::new();
    let mut appender = shard.create(ID).unwrap();
    appender.append(&[b"kept"]).unwrap();
    appender.sync().unwrap();
    appender.append(&[b"lost"]).unwrap();
    shard.create(ContainerId(1)).unwrap();
    let after = shard.after_power_cut();
    assert_eq!(after.list().unwrap(), [ID]);
    assert_eq!(content(&after, ID), b"kept");
}

/// A failed sync is never followed by one that works, with and without O_DIRECT.
#[test]
fn after_a_failed_sync_the_container_takes_nothing_more() {
    for (direct, seal) in [(true, false), (true, true), (false, false), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        local(dir.path());
        let faults = Faults::watching(Power::default());
        let shard = LocalShard::open_with(dir.path(), VOLUME, SHARD, faults.clone()).unwrap();
        let shard = if direct { shard } else { shard.without_direct_io() };
        let mut appender = shard.create(ID).unwrap();
        appender.append(&[b"one"]).unwrap();
        faults.arm(Point::ShardSyncNames, 1, Fault::Io);
        let failed = if seal { appender.seal() } else { appender.sync() };
        assert!(failed.unwrap_err().to_string().contains("shard.sync-names"));
        assert!(appender.sync().is_err() && appender.seal().is_err());
        assert!(appender.append(&[b"two"]).is_err());
    }
}

/// Everything that a power cut may leave of one container, and nothing that it may not.
#[test]
fn a_torn_container_keeps_what_was_synced() {
    let shard = MemoryShard::new();
    let mut synced = shard.create(ID).unwrap();
    synced.append(&[&[7; 600]]).unwrap();
    synced.sync().unwrap();
    synced.append(&[&[8; 2000]]).unwrap();
    let (fresh, deleted, cut) = (ContainerId(1), ContainerId(2), ContainerId(3));
    shard.create(fresh).unwrap().append(&[&[9; 100]]).unwrap();
    fill(&shard, deleted, &[5; 50]);
    shard.delete(deleted).unwrap();
    fill(&shard, cut, &[6; 50]);
    shard.reopen(cut, 10).unwrap();
    let random = SeededRandom::new(1);
    let mut seen = std::collections::BTreeMap::<(u64, &str), u32>::new();
    for _ in 0..500 {
        let after = shard.torn_by_power_cut(Power::default(), &mut |n| random.below(n));
        let bytes = content(&after, ID);
        assert_eq!(bytes[..600], [7; 600], "synced");
        assert!(bytes.len() <= 2600);
        let tail = match &bytes[600..] {
            [] => "lost",
            tail if tail == [8; 2000] => "kept",
            _ => "torn",
        };
        *seen.entry((ID.0, tail)).or_default() += 1;
        let list = after.list().unwrap();
        for id in [fresh, deleted] {
            let is_there = if list.contains(&id) { "there" } else { "gone" };
            *seen.entry((id.0, is_there)).or_default() += 1;
        }
        if list.contains(&deleted) {
            assert_eq!(content(&after, deleted), [5; 50], "a deletion is undone as a whole");
        }
        let bytes = content(&after, cut);
        assert_eq!(bytes[..10], [6; 10]);
        *seen.entry((cut.0, if bytes.len() > 10 { "long" } else { "short" })).or_default() += 1;
    }
    assert_eq!(seen.len(), 9, "every outcome is met: {seen:?}");
    assert!(seen.values().all(|times| *times > 20), "{seen:?}");
}

#[test]
fn files_have_the_documented_names_and_foreign_ones_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let shard = local(dir.path());
    shard.create(ContainerId(0xabcd)).unwrap();
    let folder = dir.path().join("containers/cd");
    assert!(folder.join("000000000000abcd.sfc").is_file());
    for name in ["note.txt", "000000000000abce.sfc", "000000000000ABCD.sfc", "cd.sfc"] {
        fs::write(folder.join(name), b"x").unwrap();
    }
    fs::create_dir(folder.join("00000000000000cd.sfc")).unwrap();
    fs::write(dir.path().join("containers/readme"), b"x").unwrap();
    assert_eq!(shard.list().unwrap(), [ContainerId(0xabcd)]);
}

#[test]
fn open_names_what_is_wrong() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("disk");
    let sentence = |dir: &Path, volume, id| match LocalShard::open(dir, volume, id) {
        Err(Error::Shard { what } | Error::ShardMissing { what }) => what,
        other => panic!("{other:?}"),
    };
    assert!(sentence(&dir, VOLUME, SHARD).contains("missing"));
    fs::create_dir(&dir).unwrap();
    assert!(sentence(&dir, VOLUME, SHARD).contains("no file shard.id"));
    local(&dir);
    LocalShard::open(&dir, VOLUME, SHARD).unwrap();
    assert!(sentence(&dir, VolumeId([8; 16]), SHARD).contains("volume 0707"));
    assert!(sentence(&dir, VOLUME, ShardId(4)).contains("is shard 3, not shard 4"));
    fs::write(dir.join("shard.id"), b"garbage").unwrap();
    let text = sentence(&dir, VOLUME, SHARD);
    assert!(text.contains("damaged") && text.contains("shard.id"), "{text}");
}

#[test]
fn create_refuses_what_is_not_empty_but_takes_its_own_leftovers() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("disk");
    fs::create_dir_all(dir.join("containers")).unwrap();
    fs::create_dir_all(dir.join("lost+found")).unwrap();
    fs::write(dir.join("shard.id.tmp"), b"half").unwrap();
    local(&dir).create(ID).unwrap();
    assert_eq!(local(&dir).list().unwrap(), [ID], "creating it again opens it");
    assert!(LocalShard::create(&dir, VOLUME, ShardId(4)).is_err());

    let foreign = base.path().join("home");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter"), b"dear").unwrap();
    let Err(Error::Shard { what }) = LocalShard::create(&foreign, VOLUME, SHARD) else {
        panic!("took a foreign directory");
    };
    assert!(what.contains("not empty") && what.contains("letter"), "{what}");
}

/// Blocks reserved for what is to come are given back when nothing comes.
#[test]
fn a_synced_container_takes_little_more_room_than_its_bytes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let shard = local(&dir.path().join("shard"));
    let file = dir.path().join("shard/containers/bc/0000123456789abc.sfc");
    let room = || fs::metadata(&file).unwrap().blocks() * 512;
    let mut appender = shard.create(ID).unwrap();
    for kib in [3_000, 5, 200, 1_500] {
        appender.append(&[&vec![1; kib * 1024]]).unwrap();
        appender.sync().unwrap();
        let spare = room() - appender.len();
        assert!(spare <= 128 * 1024, "{spare} bytes are reserved behind {kib} KiB more");
    }
    appender.append(&[b"more"]).unwrap();
    appender.sync().unwrap();
    let (len, before) = (appender.len(), content(&shard, ID));
    drop(appender);
    // A block may hold the file's extents.
    assert!(room() <= len + 4096 && fs::metadata(&file).unwrap().len() == len);
    // It is appended to again as if nothing had been.
    let mut appender = shard.reopen(ID, len).unwrap();
    appender.append(&[&[2; 300_000]]).unwrap();
    appender.seal().unwrap();
    assert_eq!(content(&shard, ID), [before, vec![2; 300_000]].concat());
}
