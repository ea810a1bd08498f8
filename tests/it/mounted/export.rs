//! `stratafs export`, as people use it: mounted and not, beside rsync.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::helper::{Mounted, names_in, take};
use super::tree::{assert_same_facts, facts, make_source_tree, make_troublesome_tree};
use crate::testkit::{MIB, Ran, SmallDisk, random_bytes, rot, run, run_in, stratafs};

fn export(m: &Mounted, words: &[&str]) -> Ran {
    m.ask(&["export", "--volume"], words)
}

fn export_json(m: &Mounted, words: &[&str]) -> Value {
    export(m, &[words, &["--json"]].concat()).json()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn filled() -> (Mounted, PathBuf) {
    let m = Mounted::new();
    let source = m.outside().join("source");
    make_troublesome_tree(&source);
    run("rsync", &["-aHAXS", "--modify-window=-1", text(&source), &m.text("")]);
    take(&m, "s");
    (m, source)
}

/// SEMANTICS §4.37, SEMANTICS §4.38.
#[test]
fn a_tree_with_everything_in_it_comes_out_as_rsync_copies_it() {
    let (mut m, source) = filled();
    let expected = facts(&source);
    let out = m.outside().join("out");
    let report = export_json(&m, &["s:source", text(&out)]);
    assert_eq!(report["failed"], 0, "{report:#}");
    assert_same_facts(&expected, &facts(&out.join("source")), "exported while mounted");
    let sparse = fs::metadata(out.join("source/plain/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < MIB as u64, "holes stay holes");

    let again = export_json(&m, &["s:source", text(&out)]);
    assert_eq!((&again["written_bytes"], &again["changes"]), (&0.into(), &serde_json::json!([])));
    assert_same_facts(&expected, &facts(&out.join("source")), "left alone");
    m.umount();
    let whole = m.outside().join("whole");
    export(&m, &["s", text(&whole)]).ok();
    assert_same_facts(&expected, &facts(&whole.join("source")), "exported while not");
    let inside = m.outside().join("inside");
    export(&m, &[".latest:source/plain/", text(&inside)]).ok();
    // One of its hard links is elsewhere.
    run(
        "diff",
        &[
            "-r",
            "--no-dereference",
            "-x",
            "char",
            "-x",
            "block",
            "-x",
            "fifo",
            text(&source.join("plain")),
            text(&inside),
        ],
    );
    assert_eq!(names_in(&inside), names_in(&source.join("plain")));
}

#[test]
fn what_is_right_stays_and_what_is_not_is_replaced() {
    let (m, source) = filled();
    let expected = facts(&source);
    let out = m.outside().join("out");
    export(&m, &["s:source/", text(&out)]).ok();
    let kept = fs::metadata(out.join("deep/a/b")).unwrap().ino();
    run_in(
        &out,
        "echo longer >> plain/text.c; chmod 600 plain/text2.c; rm plain/hardlink; \
         cp plain/big.bin plain/hardlink; rm link; mkdir -p other; echo file > other/mine; \
         rm plain/fifo; echo x > plain/fifo; setfattr -n user.more -v 1 empty; rmdir empty; \
         echo file > empty; setfattr -x user.comment plain/big.bin",
    );
    // What a crash leaves is used up.
    let ino = fs::metadata(m.path(".snapshots/s/source/plain/text.c")).unwrap().ino();
    let left = out.join(format!("plain/.stratafs-export-{}", ino & ((1 << 40) - 1)));
    fs::write(&left, "half").unwrap();
    let plan = export(&m, &["s:source/", text(&out), "-n"]).ok();
    assert!(plan.stdout.contains(&format!("M {}/plain/text.c\n", text(&out))), "{plan:#?}");
    assert!(left.exists(), "a dry run changes nothing");
    export(&m, &["s:source/", text(&out)]).ok();
    assert_eq!(fs::read_to_string(out.join("other/mine")).unwrap(), "file\n", "nothing goes");
    fs::remove_dir_all(out.join("other")).unwrap();
    run("touch", &["-r", text(&source), text(&out)]);
    assert_same_facts(&expected, &facts(&out), "put right");
    assert_eq!(fs::metadata(out.join("deep/a/b")).unwrap().ino(), kept);
    assert!(!left.exists());
}

#[test]
fn damaged_bytes_leave_out_their_file_only() {
    let mut m = Mounted::with(&[], "[scrub]\ninterval_days = 0\n");
    let data = random_bytes(1, 3 * MIB);
    fs::write(m.path("damaged.bin"), &data).unwrap();
    make_source_tree(&m.path("tree"), 50, 3);
    take(&m, "s");
    m.remount();
    rot(&m.volume(), &data[MIB + 77..MIB + 141]);
    let out = m.outside().join("out");
    let ran = export(&m, &["s", text(&out)]);
    assert_eq!(ran.code, Some(11), "{ran:#?}");
    assert!(ran.stdout.contains(&format!("! {}/damaged.bin: ", text(&out))), "{ran:#?}");
    assert_eq!(names_in(&out), ["tree"], "no half file, and nothing temporary");
    assert_same_facts(&facts(&m.path("tree")), &facts(&out.join("tree")), "the rest");
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut m = Mounted::new();
    fs::write(m.path("file"), "x").unwrap();
    take(&m, "s");
    take(&m, "10:15");
    let out = m.outside().join("out");
    let (out, file) = (text(&out).to_owned(), m.outside().join("f"));
    fs::write(&file, "").unwrap();
    for mounted in [true, false] {
        if !mounted {
            m.umount();
        }
        export(&m, &["none", &out]).refused(1, &["none"]);
        export(&m, &["none:a", &out]).refused(1, &["snapshot none"]);
        export(&m, &["s:no", &out]).refused(1, &["path no in snapshot s"]);
        export(&m, &["s:file/", &out]).refused(1, &["is not a directory"]);
        export(&m, &["s", text(&file)]).refused(1, &["is not a directory"]);
        export(&m, &["s", "/no/such/dir"]).refused(1, &["/no/such/dir"]);
        export(&m, &["s", text(&m.volume())]).refused(1, &["which is of this volume"]);
        export(&m, &["10:15", &out]).ok();
        export(&m, &["10:15:file", &out]).ok();
    }
    m.mount();
    export(&m, &["s", &m.text("new")]).refused(1, &["which is of this volume"]);
    assert_eq!(fs::read_to_string(Path::new(&out).join("file")).unwrap(), "x");
    m.remount_with(&["-o", "ro"]);
    export(&m, &["s", &out]).ok();
    let here = run_in(&m.path(""), &format!("{} export s {out}", env!("CARGO_BIN_EXE_stratafs")));
    assert!(here.starts_with("Exported: "), "{here}");
}

#[test]
fn a_full_disk_ends_it_with_a_sentence() {
    let m = Mounted::new();
    for at in 0..4 {
        fs::write(m.path(&format!("big{at}")), random_bytes(at, 10 * MIB)).unwrap();
    }
    take(&m, "s");
    let disk = SmallDisk::new(24);
    let out = disk.join("out");
    export(&m, &["s", text(&out)]).refused(10, &["No space left", text(&out)]);
    for name in names_in(&out) {
        let size = fs::metadata(out.join(&name)).unwrap().len();
        assert_eq!(size, 10 * MIB as u64, "{name} is whole");
    }
    stratafs(&["status", &m.text("")]).ok();
}
