//! Full disks: what was accepted is kept, and there is a way out.

use stratafs::error::Error;
use stratafs::gc;
use stratafs::types::{At, FileKind, Ino};

use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, SmallDisk, TestVolume, errno, random_bytes, wait_until,
};

const ENOSPC: i32 = 28;

/// The database keeps 22 MiB of it in preallocated files, the reserve is an eighth.
const DISK_MIB: usize = 160;

/// Writes files of 1 MiB until one is refused; returns how many were accepted and why no more.
fn fill_up(t: &TestVolume, commit_every: u64) -> (u64, Error) {
    for number in 0..1000 {
        if let Err(error) = t.try_write_file(&format!("/{number}.bin"), &random_bytes(number, MIB))
        {
            return (number, error);
        }
        if commit_every > 0 && number % commit_every == commit_every - 1 {
            t.commit().unwrap();
        }
    }
    panic!("a small disk holds everything");
}

/// SEMANTICS §1.2: `ENOSPC` comes at `write`. SEMANTICS §5.4: before data is accepted.
#[test]
fn a_full_disk_keeps_what_was_accepted() {
    for commit_every in [0, 1, 10] {
        let disk = SmallDisk::new(DISK_MIB);
        let mut t = TestVolume::in_dir(&disk.join("volume"), NO_BACKGROUND_COMMITS);

        let (accepted, error) = fill_up(&t, commit_every);

        assert_eq!(error.errno(), ENOSPC, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("No space left on ") && text.contains("gc"), "{text}");
        assert!(accepted > 60, "only {accepted} MiB fit on {DISK_MIB}");
        t.commit().unwrap();
        t.crash();
        for number in 0..accepted {
            t.assert_content(&format!("/{number}.bin"), &random_bytes(number, MIB));
        }
        t.assert_sound();
    }
}

/// SEMANTICS §5.4.
#[test]
fn a_full_volume_can_be_emptied_and_used_again() {
    let disk = SmallDisk::new(DISK_MIB);
    let mut t = TestVolume::in_dir(&disk.join("volume"), NO_BACKGROUND_COMMITS);
    let (accepted, _) = fill_up(&t, 10);
    t.snapshot_delete(b"none").unwrap_err();
    let more = t.try_write_file("/more.bin", &random_bytes(2000, MIB));
    assert_eq!(errno(&more), Some(ENOSPC));
    let all = t.list_all(At::Live, Ino::ROOT);
    assert!(all.len() as u64 >= accepted);
    for entry in all {
        t.unlink(Ino::ROOT, &entry.name).unwrap();
    }
    t.reopen();
    let report = gc::run(&t).unwrap();
    assert!(report.freed_bytes >= 60 * MIB as u64, "{report:#?}");
    t.write_file("/again.bin", &random_bytes(5000, 20 * MIB));
    t.reopen();
    t.assert_content("/again.bin", &random_bytes(5000, 20 * MIB));
    t.assert_sound();
}

/// Somebody else takes even the reserve. A commit then says so, and keeps what it could not store:
/// with room again, nothing is lost.
/// SEMANTICS §1.9: `ENOSPC` loses nothing, and the next commit tries again.
#[test]
fn a_disk_filled_by_somebody_else_loses_nothing() {
    for crash in [true, false] {
        let disk = SmallDisk::new(DISK_MIB);
        let mut t = TestVolume::in_dir(&disk.join("volume"), NO_BACKGROUND_COMMITS);
        t.write_file("/safe.bin", &random_bytes(1, 4 * MIB));
        t.commit().unwrap();
        // Buffered only, and more than a container may have preallocated.
        let late: Vec<_> = (0..50).map(|n| t.create(&format!("/late{n}.bin"))).collect();
        for (number, file) in late.iter().enumerate() {
            file.write(0, &random_bytes(100 + number as u64, 900 * KIB)).unwrap();
        }
        let filler = disk.fill();

        let committed = t.commit();

        assert_eq!(errno(&committed), Some(ENOSPC), "{committed:?}");
        t.assert_content("/safe.bin", &random_bytes(1, 4 * MIB));
        t.assert_content("/late49.bin", &random_bytes(149, 900 * KIB));
        std::fs::remove_file(filler).unwrap();
        drop(late);
        if crash {
            t.crash();
            assert!(t.resolve(At::Live, b"/late0.bin").is_err(), "it was never committed");
        } else {
            t.commit().unwrap();
            t.crash();
            for number in 0..50 {
                let expected = random_bytes(100 + number, 900 * KIB);
                t.assert_content(&format!("/late{number}.bin"), &expected);
            }
        }
        t.assert_content("/safe.bin", &random_bytes(1, 4 * MIB));
        t.write_file("/after.bin", &random_bytes(3, 4 * MIB));
        t.assert_sound();
    }
}

#[test]
fn statfs_tells_what_is_left() {
    let disk = SmallDisk::new(DISK_MIB);
    let t = TestVolume::in_dir(&disk.join("volume"), NO_BACKGROUND_COMMITS);
    let before = t.space().unwrap();
    assert!(before.free_bytes <= before.total_bytes && before.total_bytes <= 160 * MIB as u64);
    t.write_file("/a.bin", &random_bytes(1, 20 * MIB));
    t.commit().unwrap();
    let after = t.space().unwrap();
    assert!(before.free_bytes - after.free_bytes >= 20 * MIB as u64);
    assert_eq!(after.inodes_used, before.inodes_used + 1);
}

/// The database itself meets the full disk: the commit waits for room and nothing is lost, neither
/// by waiting nor by a crash.
/// SEMANTICS §5.5.
#[test]
fn a_commit_waits_for_room_for_metadata() {
    for crash in [true, false] {
        let disk = SmallDisk::new(DISK_MIB);
        let config = format!("{NO_BACKGROUND_COMMITS}overlay_bytes = \"200MiB\"\n");
        let mut t = TestVolume::in_dir(&disk.join("volume"), &config);
        t.write_file("/safe.bin", &random_bytes(1, MIB));
        t.commit().unwrap();
        t.mkdir("/d");
        let target = "t".repeat(4000);
        // More than the log has preallocated, less than the third that asks for a commit.
        for number in 0..14_000 {
            t.make_kind(&format!("/d/{number}"), FileKind::Symlink, &target);
        }
        let filler = disk.fill();

        let error = t.commit().unwrap_err();

        assert_eq!(error.errno(), ENOSPC, "{error}");
        assert!(error.to_string().contains("/meta"), "{error}");
        assert_eq!(errno(&t.commit()), Some(ENOSPC), "the second try says so too");
        let status = t.status().unwrap();
        assert_eq!(status.poisoned, None);
        assert!(status.commit_failure.unwrap().contains("No space left on"));
        assert_eq!(errno(&t.try_write_file("/more", b"x")), Some(ENOSPC));
        assert_eq!(errno(&t.snapshot_create(b"s")), Some(ENOSPC));
        t.assert_content("/safe.bin", &random_bytes(1, MIB));
        // Removing goes on, as far as memory is allowed to hold what cannot be committed.
        let refused = (0..14_000).find_map(|number| {
            let gone = t.unlink(t.ino("/d"), number.to_string().as_bytes());
            gone.err().map(|error| (number, error))
        });
        let held = t.status().unwrap().open_txg_bytes;
        assert!(held < 200 * MIB as u64, "{held} bytes of metadata wait, {refused:?}");
        std::fs::remove_file(filler).unwrap();
        if crash {
            t.crash();
            assert!(t.resolve(At::Live, b"/d").is_err(), "it was never committed");
        } else {
            wait_until("the database has found the room", || t.commit().is_ok());
            assert_eq!(t.status().unwrap().commit_failure, None);
            t.crash();
            let left = t.list_all(At::Live, t.ino("/d")).len();
            assert_eq!(left, refused.map_or(0, |(number, _)| 14_000 - number));
        }
        t.assert_content("/safe.bin", &random_bytes(1, MIB));
        t.write_file("/more", b"x");
        t.assert_sound();
    }
}
