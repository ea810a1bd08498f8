//! cp, tar, mv between places.

use super::helper::Mounted;
use super::tree::{assert_same_facts, facts, make_source_tree, make_troublesome_tree};
use crate::testkit::{MIB, random_bytes, run, run_in};

#[test]
fn cp_keeps_everything() {
    let m = Mounted::new();
    let (source, back) = (m.outside().join("source"), m.outside().join("back"));
    make_troublesome_tree(&source);
    run("cp", &["-a", source.to_str().unwrap(), &m.text("copy")]);
    assert_same_facts(&facts(&source), &facts(&m.path("copy")), "cp -a into the mount");
    run("cp", &["-a", &m.text("copy"), back.to_str().unwrap()]);
    assert_same_facts(&facts(&source), &facts(&back), "cp -a out of the mount");
}

#[test]
fn copying_a_stored_tree_stores_no_chunk() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    make_source_tree(&source, 500, 3);
    std::fs::write(source.join("big.bin"), random_bytes(4, 30 * MIB)).unwrap();
    run("cp", &["-a", source.to_str().unwrap(), &m.text("one")]);
    let (chunks, new_bytes) = (m.chunks(), m.total("new_bytes"));
    assert!(chunks > 500);

    run("cp", &["-a", &m.text("one"), &m.text("two")]);
    run("cp", &["-a", "--reflink=never", "--sparse=never", &m.text("one"), &m.text("three")]);
    run("cp", &["-a", source.to_str().unwrap(), &m.text("four")]);

    assert_eq!((m.chunks(), m.total("new_bytes")), (chunks, new_bytes));
    for copy in ["two", "three", "four"] {
        run("diff", &["-r", source.to_str().unwrap(), &m.text(copy)]);
    }
    m.assert_sound();
}

#[test]
fn tar_there_and_back() {
    let m = Mounted::new();
    let (source, back) = (m.outside().join("source"), m.outside().join("back"));
    make_troublesome_tree(&source);
    std::fs::create_dir_all(&back).unwrap();
    std::fs::create_dir(m.path("copy")).unwrap();
    let script = |from: &str, to: &str| {
        let options =
            "--acls --xattrs --xattrs-include='*' --sparse --numeric-owner --format=posix";
        run_in(m.outside(), &format!("tar {options} -cC {from} . | tar {options} -pxC {to}"));
    };
    script("source", "mnt/copy");
    assert_same_facts(&facts(&source), &facts(&m.path("copy")), "tar x in the mount");
    script("mnt/copy", "back");
    assert_same_facts(&facts(&source), &facts(&back), "tar c of the mount");
}

/// An archive of a tree and its unpacked copy share what they can; a second archive is free.
#[test]
fn the_same_archive_twice_is_stored_once() {
    let m = Mounted::new();
    make_source_tree(&m.path("tree"), 300, 5);
    run_in(&m.path(""), "tar -cf one.tar tree");
    let chunks = m.chunks();
    run_in(&m.path(""), "tar -cf two.tar tree && cmp one.tar two.tar");
    assert_eq!(m.chunks(), chunks);
}

/// SEMANTICS §4.7: copying copies references.
#[test]
fn an_old_file_is_restored_with_cp() {
    let m = Mounted::new();
    let data = random_bytes(1, 2 * MIB);
    std::fs::create_dir(m.path("dir")).unwrap();
    std::fs::write(m.path("dir/file.bin"), &data).unwrap();
    std::fs::create_dir(m.path(".snapshots/before")).unwrap();
    std::fs::write(m.path("dir/file.bin"), b"ruined").unwrap();
    let chunks = m.chunks();

    run("cp", &["-a", &m.text(".snapshots/before/dir/file.bin"), &m.text("dir/file.bin")]);

    assert!(std::fs::read(m.path("dir/file.bin")).unwrap() == data);
    assert_eq!(m.chunks(), chunks, "a restore stores nothing");
}
