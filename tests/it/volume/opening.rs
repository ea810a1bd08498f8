//! Opening: alone, read-only, after an end of any kind.

use stratafs::error::Error;
use stratafs::types::At;
use stratafs::volume::{AttrChange, RenameMode, XattrMode};

use crate::testkit::{MIB, TestVolume, errno, random_bytes, read_all};

const EROFS: i32 = 30;

#[test]
fn only_one_process_has_a_volume_open() {
    let t = TestVolume::new();
    let Err(error) = t.try_open(false) else { panic!("it was opened twice") };
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    let holder = format!("process {} (a test)", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    assert!(t.try_open(true).is_err(), "not even for reading");
}

#[test]
fn a_read_only_volume_refuses_every_change() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    t.mkdir("/dir");
    t.snapshot_create(b"s").unwrap();
    let (dir, ino) = (t.ino("/"), t.ino("/a.bin"));
    t.close();
    {
        let v = t.try_open(true).unwrap();
        let file = v.open_file(At::Live, ino).unwrap();
        assert!(read_all(&file) == random_bytes(1, MIB));
        let chmod = AttrChange { perm: Some(0), ..AttrChange::default() };
        let cut = AttrChange { size: Some(0), ..AttrChange::default() };
        let refused = [
            errno(&file.write(0, b"x")),
            errno(&file.punch(0, 100, true)),
            errno(&file.copy_from(10, &file, 0, 5)),
            errno(&v.link(ino, dir, b"b")),
            errno(&v.unlink(dir, b"a.bin")),
            errno(&v.rmdir(dir, b"dir")),
            errno(&v.rename((dir, b"a.bin"), (dir, b"b"), RenameMode::Replace)),
            errno(&v.set_attributes(ino, &chmod)),
            errno(&v.set_attributes(ino, &cut)),
            errno(&v.set_xattr(ino, b"user.a", b"", XattrMode::Any)),
            errno(&v.snapshot_create(b"t")),
            errno(&v.snapshot_delete(b"s")),
            errno(&v.snapshot_rename(b"s", b"t")),
            errno(&stratafs::gc::run(&v)),
        ];
        assert_eq!(refused, [Some(EROFS); 14]);
        drop(file);
        v.shutdown().unwrap();
    }
    t.open_closed();
    t.assert_content("/a.bin", &random_bytes(1, MIB));
    t.assert_sound();
}

#[test]
fn a_volume_that_was_shut_down_takes_nothing_more() {
    let mut t = TestVolume::new();
    let file = t.create("/a");
    file.write(0, b"before").unwrap();
    t.shutdown().unwrap();
    assert_eq!(errno(&file.write(0, b"after!")), Some(EROFS));
    t.shutdown().unwrap();
    drop(file);
    t.crash();
    t.assert_content("/a", b"before");
}

/// Opening twenty times and doing nothing leaves everything as it was.
#[test]
fn opening_and_closing_changes_nothing() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    t.reopen();
    let before = (t.stats_report().unwrap(), t.stat(At::Live, t.ino("/a.bin")).unwrap());
    for round in 0..20 {
        if round % 2 == 0 { t.reopen() } else { t.crash() }
    }
    let after = (t.stats_report().unwrap(), t.stat(At::Live, t.ino("/a.bin")).unwrap());
    assert_eq!(after.1, before.1);
    assert_eq!(after.0.totals, before.0.totals);
    assert_eq!(after.0.containers, before.0.containers);
    assert_eq!(after.0.stored_bytes, before.0.stored_bytes);
}

/// Counters since the volume was made survive; a crash takes them back to the last commit.
#[test]
fn totals_are_as_old_as_the_last_commit() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    t.reopen();
    assert_eq!(t.stats().totals().new_bytes, MIB as u64);
    t.write_file("/b.bin", &random_bytes(2, MIB));
    t.crash();
    assert_eq!(t.stats().totals().new_bytes, MIB as u64);
    t.assert_sound();
}
