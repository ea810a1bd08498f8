//! Snapshots at the volume's own door: names, epochs, exactness. The tree's view is in `mounted`.

use std::sync::Arc;

use stratafs::error::Error;
use stratafs::types::{At, Ino};
use stratafs::volume::{AttrChange, RenameMode, XattrMode};

use crate::testkit::{MIB, TestVolume, errno, random_bytes};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const ENAMETOOLONG: i32 = 36;

/// SEMANTICS §4.3.
#[test]
fn names_that_cannot_be_are_refused_and_nothing_is_taken() {
    let t = TestVolume::new();
    t.snapshot_create(b"taken").unwrap();
    let long = [b'x'; 256];
    let bad: [(&[u8], i32); 7] = [
        (b"", EINVAL),
        (b".", EINVAL),
        (b"..", EINVAL),
        (b"a/b", EINVAL),
        (b"a\0b", EINVAL),
        (&long, ENAMETOOLONG),
        (b"taken", EEXIST),
    ];
    for (name, number) in bad {
        assert_eq!(errno(&t.snapshot_create(name)), Some(number), "create {name:?}");
        let renamed = t.snapshot_rename(b"taken", name);
        let same = name == b"taken";
        assert_eq!(errno(&renamed), (!same).then_some(number), "rename to {name:?}");
    }
    assert_eq!(errno(&t.snapshot_delete(b"missing")), Some(ENOENT));
    assert_eq!(errno(&t.snapshot_rename(b"missing", b"new")), Some(ENOENT));
    let names: Vec<_> = t.snapshots().iter().map(|s| s.name.to_vec()).collect();
    assert_eq!(names, [b"taken"]);
}

/// SEMANTICS §4.3.
#[test]
fn any_other_bytes_are_a_name() {
    let mut t = TestVolume::new();
    let longest = [b'x'; 255];
    let names: [&[u8]; 5] = [b"\xff\xfe", b" ", b"a\nb", "Größe".as_bytes(), &longest];
    names.iter().for_each(|name| drop(t.snapshot_create(name).unwrap()));
    t.reopen();
    let found: Vec<_> = t.snapshots().iter().map(|s| s.name.to_vec()).collect();
    assert_eq!(found, names);
}

/// One record: the work does not grow with the tree.
#[test]
fn taking_and_deleting_costs_one_commit_and_no_data() {
    let t = TestVolume::new();
    (0..2000).for_each(|n| t.write_file(&format!("/{n}"), &random_bytes(n, 100)));
    t.commit().unwrap();
    let before = t.stats().totals();
    for work in [true, false] {
        let activity = t.activity(|| {
            if work {
                t.snapshot_create(b"s").unwrap();
            } else {
                t.snapshot_delete(b"s").unwrap();
            }
        });
        assert_eq!((activity.commits, activity.frames_read), (1, 0), "{activity:#?}");
    }
    assert_eq!(t.stats().totals(), before);
}

/// SEMANTICS §4.1.
#[test]
fn a_snapshot_is_durable_when_it_is_made() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let taken = t.snapshot_create(b"s").unwrap();
    t.write_file("/late", b"never committed");
    t.crash();
    assert_eq!(t.snapshots(), std::slice::from_ref(&taken));
    assert!(t.read_in(&taken, "/a.bin") == random_bytes(1, MIB));
    t.snapshot_rename(b"s", b"renamed").unwrap();
    t.crash();
    assert_eq!(&*t.snapshots()[0].name, b"renamed");
    t.snapshot_delete(b"renamed").unwrap();
    t.crash();
    assert!(t.snapshots().is_empty());
    t.assert_sound();
}

/// Everything that can change in a tree changes; the snapshot shows none of it.
#[test]
fn a_snapshot_shows_nothing_of_what_comes_later() {
    let mut t = TestVolume::new();
    t.mkdir("/d");
    t.write_file("/d/a.bin", b"old");
    t.write_file("/d/gone", b"old too");
    let ino = t.ino("/d/a.bin");
    t.set_xattr(ino, b"user.x", b"1", XattrMode::Create).unwrap();
    let before = t.stat(At::Live, ino).unwrap();
    let snapshot = t.snapshot_create(b"s").unwrap();
    let at = At::Epoch(snapshot.epoch);

    t.open("/d/a.bin").write(0, b"NEW and longer").unwrap();
    t.set_xattr(ino, b"user.x", b"2", XattrMode::Replace).unwrap();
    t.set_xattr(ino, b"user.y", b"3", XattrMode::Create).unwrap();
    let change = AttrChange { perm: Some(0), uid: Some(9), ..AttrChange::default() };
    t.set_attributes(ino, &change).unwrap();
    t.link(ino, Ino::ROOT, b"link").unwrap();
    t.remove("/d/gone");
    t.write_file("/d/gone", b"another file of that name");
    t.rename((Ino::ROOT, b"d"), (Ino::ROOT, b"e"), RenameMode::Replace).unwrap();
    t.mkdir("/d");

    for round in 0..3 {
        let mut shown = t.stat(at, ino).unwrap();
        (shown.inode.mapped, shown.inode.class) = (before.inode.mapped, before.inode.class);
        assert_eq!(shown.inode, before.inode);
        assert_eq!(t.read_in(&snapshot, "/d/a.bin"), b"old");
        assert_eq!(t.read_in(&snapshot, "/d/gone"), b"old too");
        assert_eq!(t.xattr(at, ino, b"user.x").unwrap().unwrap(), b"1");
        assert_eq!(t.xattr_names(at, ino).unwrap().len(), 1);
        assert_eq!(t.list_all(at, Ino::ROOT).len(), 1);
        if round == 0 { t.reopen() } else { t.crash() }
    }
    t.assert_sound();
}

#[test]
fn the_same_tree_in_many_snapshots_stores_each_version_once() {
    let t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let counted = t.counting(|| {
        for number in 0..50 {
            t.snapshot_create(format!("{number}").as_bytes()).unwrap();
        }
    });
    assert_eq!(counted.written_bytes, 0);
    t.write_file("/b.bin", &random_bytes(1, MIB));
    assert_eq!(t.stats_report().unwrap().unique_bytes, MIB as u64);
    for number in 0..50 {
        let snapshot = t.snapshot_named(format!("{number}").as_bytes()).unwrap();
        assert!(t.read_in(&snapshot, "/a.bin") == random_bytes(1, MIB));
        assert!(t.resolve(At::Epoch(snapshot.epoch), b"/b.bin").is_err());
    }
}

#[test]
fn a_file_in_a_snapshot_cannot_be_changed() {
    let t = TestVolume::new();
    t.write_file("/a.bin", b"old");
    let snapshot = t.snapshot_create(b"s").unwrap();
    let file = t.open_file(At::Epoch(snapshot.epoch), t.ino("/a.bin")).unwrap();
    assert_eq!(errno(&file.write(0, b"x")), Some(EROFS));
    assert_eq!(errno(&file.punch(0, 1, true)), Some(EROFS));
    assert_eq!(errno(&file.allocate(0, 10, false)), Some(EROFS));
    assert_eq!(errno(&file.copy_from(0, &t.open("/a.bin"), 0, 3)), Some(EROFS));
    assert_eq!(file.read(0, 10).unwrap(), b"old");
    file.finish().unwrap();
}

#[test]
fn many_threads_take_snapshots_with_distinct_epochs() {
    let t = TestVolume::new();
    let volume = Arc::clone(&t);
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let volume = &volume;
            threads.spawn(move || {
                for number in 0..10 {
                    volume.snapshot_create(format!("{thread}-{number}").as_bytes()).unwrap();
                }
            });
        }
        let raced: Vec<_> = (0..4)
            .map(|_| threads.spawn(|| volume.snapshot_create(b"only one wins").is_ok()))
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(raced.iter().filter(|won| **won).count(), 1);
    });
    let snapshots = t.snapshots();
    assert_eq!(snapshots.len(), 41);
    assert!(snapshots.windows(2).all(|p| p[0].id < p[1].id && p[0].epoch < p[1].epoch));
    assert!(matches!(t.snapshot_create(b"0-0"), Err(Error::Exists { .. })));
}
