//! rsync, in all the ways people call it.

use std::process::Command;

use super::helper::Mounted;
use super::tree::{assert_same_facts, facts, make_source_tree, make_troublesome_tree};
use crate::testkit::{MIB, random_bytes, run, text_bytes};

#[test]
fn there_and_back_nothing_differs() {
    let mut m = Mounted::new();
    let (source, back) = (m.outside().join("source"), m.outside().join("back"));
    make_troublesome_tree(&source);
    let expected = facts(&source);
    let from = format!("{}/", source.display());
    run("rsync", &["-aHAXS@-1", &from, &m.text("copy/")]);
    assert_same_facts(&expected, &facts(&m.path("copy")), "in the mount");

    let again = run("rsync", &["-aHAXSi@-1", "--delete", &from, &m.text("copy/")]);
    assert_eq!(again, "", "an unchanged tree is copied again");
    let verified = run("rsync", &["-aHAXSinc@-1", "--delete", &from, &m.text("copy/")]);
    assert_eq!(verified, "", "content differs");

    m.remount();
    assert_same_facts(&expected, &facts(&m.path("copy")), "after a remount");
    run("rsync", &["-aHAXS@-1", &m.text("copy/"), &format!("{}/", back.display())]);
    assert_same_facts(&expected, &facts(&back), "back outside");
    let blocks = run("stat", &["-c", "%b", &m.text("copy/plain/sparse")]);
    assert!(blocks.trim().parse::<u64>().unwrap() < 1000, "the sparse file takes {blocks} blocks");
    m.assert_sound();
}

/// However rsync names its temporary files, the second copy of a tree stores nothing, and the files
/// have the class of their final name.
#[test]
fn every_kind_of_temporary_name_works() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("photo.jpg"), random_bytes(1, MIB)).unwrap();
    std::fs::write(source.join("disk.img"), random_bytes(2, MIB)).unwrap();
    std::fs::write(source.join("main.c"), text_bytes(3, MIB)).unwrap();
    let from = format!("{}/", source.display());
    std::fs::create_dir(m.path("tmp")).unwrap();
    let temp = format!("--temp-dir={}", m.text("tmp"));
    let mut new_bytes = Vec::new();
    for (dir, options) in [
        ("default", &[][..]),
        ("partial", &["--partial-dir=.rsync-partial", "--delay-updates"]),
        ("temp", &[&temp[..]]),
        ("inplace", &["--inplace"]),
        ("append", &["--append"]),
    ] {
        let before = m.total("new_bytes");
        run("rsync", &[&["-a"][..], options, &[&from, &m.text(dir)]].concat());
        new_bytes.push(m.total("new_bytes") - before);
        run("diff", &["-r", &from, &m.text(dir)]);
        for (name, class) in [("photo.jpg", "media"), ("disk.img", "image"), ("main.c", "source")] {
            let path = format!("{dir}/{name}");
            let explained = m.ask_json(&["class", "explain"], &[&path]);
            assert_eq!(explained["stored_class"], class, "{dir}: {explained:#}");
        }
    }
    assert_eq!(new_bytes, [3 * MIB as u64, 0, 0, 0, 0]);
}

/// A file that changed a little is sent as a whole locally, and stored as what changed.
#[test]
fn a_changed_tree_stores_what_changed() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    make_source_tree(&source, 300, 1);
    std::fs::write(source.join("big.img"), random_bytes(5, 20 * MIB)).unwrap();
    let from = format!("{}/", source.display());
    run("rsync", &["-a", &from, &m.text("copy/")]);
    std::fs::create_dir(m.path(".snapshots/one")).unwrap();
    let before = m.total("new_bytes");

    let mut image = random_bytes(5, 20 * MIB);
    image[7 * MIB..7 * MIB + 10_000].copy_from_slice(&random_bytes(6, 10_000));
    std::fs::write(source.join("big.img"), &image).unwrap();
    std::fs::remove_file(source.join("d0/e0/f0.c")).unwrap();
    std::fs::write(source.join("d1/e1/f1.c"), text_bytes(77, 5000)).unwrap();
    // rsync looks at size and whole seconds only.
    run("touch", &["-d", "tomorrow", source.join("big.img").to_str().unwrap()]);
    for options in [&["-a", "--delete"][..], &["-a", "--delete", "--inplace", "--no-whole-file"]] {
        run("rsync", &[options, &[&from, &m.text("copy/")]].concat());
        run("diff", &["-r", &from, &m.text("copy/")]);
    }

    let stored = m.total("new_bytes") - before;
    assert!(stored < 100_000, "{stored} new bytes for 15,000 changed ones");
    assert!(m.path(".snapshots/one/copy/d0/e0/f0.c").exists());
    assert!(!m.path("copy/d0/e0/f0.c").exists());
    m.assert_sound();
}

/// A snapshot taken in the middle of an rsync shows a file under its final name only whole.
#[test]
fn snapshots_under_rsync_show_whole_files() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    make_source_tree(&source, 3000, 2);
    let from = format!("{}/", source.display());
    let mut rsync = Command::new("rsync").args(["-a", &from, &m.text("copy/")]).spawn().unwrap();
    let mut taken = 0;
    while rsync.try_wait().unwrap().is_none() {
        std::fs::create_dir(m.path(&format!(".snapshots/{taken}"))).unwrap();
        taken += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(taken > 0, "rsync was faster than any snapshot");
    let mut whole = 0;
    for number in 0..taken {
        // Names that begin with a dot are rsync's; all others must be in the source, and equal.
        let snapshot = m.text(&format!(".snapshots/{number}/copy/"));
        if !std::path::Path::new(&snapshot).exists() {
            continue;
        }
        let listed = run("find", &[&snapshot, "-type", "f", "-not", "-name", ".*", "-print"]);
        whole += listed.lines().count();
        let differ = ["-aicn", "--existing", "--exclude=.*", &from, &snapshot];
        let differ = run("rsync", &differ);
        let changed: Vec<_> = differ.lines().filter(|line| line.starts_with(">fc")).collect();
        assert!(changed.is_empty(), "snapshot {number} shows files half written: {changed:?}");
        let again = run("find", &[&snapshot, "-type", "f", "-not", "-name", ".*", "-print"]);
        assert_eq!(listed, again, "a snapshot changed");
    }
    assert!(whole > 0, "no snapshot shows any file");
    m.assert_sound();
}
