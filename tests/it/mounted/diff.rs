//! `snapshot diff` as people use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::helper::Mounted;
use crate::testkit::{run_in, stratafs};

fn sample() -> Mounted {
    let m = Mounted::new();
    let script = "mkdir -p src/old docs && echo one >src/main.c && echo two >src/old/two.c &&
        echo page >docs/page && ln -s page docs/link && echo x >'odd name'";
    run_in(&m.path(""), script);
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let script =
        "echo more >>src/main.c && mv src/old src/new && rm docs/link && chmod 600 docs/page &&
        mkdir fresh && echo a >fresh/a && mv 'odd name' \"$(printf 'odd\\nname')\"";
    run_in(&m.path(""), script);
    m
}

const EXPECTED: &str = "\
-  docs/link
U  docs/page (mode)
+  fresh/
+  fresh/a
R  odd name -> odd\\x0aname
M  src/main.c
R  src/old/ -> src/new/
";

/// SEMANTICS §4.20
#[test]
fn what_changed_since_a_snapshot_is_told_mounted_and_not() {
    let mut m = sample();
    let live = m.ask(&["snapshot", "diff"], &["s"]).ok();
    assert_eq!(live.stdout, EXPECTED);
    assert_eq!(live.stderr, "2 added, 1 removed, 1 changed, 1 with other attributes, 2 renamed\n");
    fs::create_dir(m.path(".snapshots/t")).unwrap();
    fs::remove_file(m.path("src/main.c")).unwrap();
    let between = m.ask(&["snapshot", "diff"], &["s", "t", "-q"]).ok();
    assert_eq!((between.stdout.as_str(), between.stderr.as_str()), (EXPECTED, ""));
    let mounted = m.ask_json(&["snapshot", "diff"], &["s", "live"]);
    m.umount();
    assert_eq!(m.ask(&["snapshot", "diff"], &["s", "t"]).ok().stdout, EXPECTED);
    assert_eq!(m.ask_json(&["snapshot", "diff"], &["s", "live"]), mounted);
}

/// SEMANTICS §4.20
#[test]
fn the_other_way_round_everything_is_turned() {
    let m = sample();
    let found = m.ask(&["snapshot", "diff"], &["live", "s"]).ok();
    let expected = "\
+  docs/link
U  docs/page (mode)
-  fresh/
-  fresh/a
R  odd\\x0aname -> odd name
M  src/main.c
R  src/new/ -> src/old/
";
    assert_eq!(found.stdout, expected);
}

#[test]
fn programs_get_one_document_and_sums() {
    let m = sample();
    let found = m.ask_json(&["snapshot", "diff"], &["s"]);
    let list = found["differences"].as_array().unwrap();
    assert_eq!(list.len(), 7);
    let changed = list.iter().find(|one| one["path"] == "src/main.c").unwrap();
    let ino = changed["ino"].clone();
    let expected = json!({
        "change": "changed", "kind": "file", "path": "src/main.c", "content": true,
        "attributes": ["mtime"], "old_size": 4, "size": 9, "ino": ino,
    });
    assert_eq!(*changed, expected);
    let renamed = list.iter().find(|one| one["path"] == "odd\\x0aname").unwrap();
    assert_eq!((&renamed["change"], &renamed["old_path"]), (&json!("renamed"), &json!("odd name")));
    let sums = m.ask_json(&["snapshot", "diff"], &["s", "--stat"]);
    assert_eq!(found["stat"], sums);
    let added = json!({ "files": 1, "directories": 1, "others": 0, "bytes": 2 });
    assert_eq!(
        (&sums["added"], &sums["changed"], &sums["renamed"]),
        (&added, &json!(1), &json!(2))
    );
    let text = m.ask(&["snapshot", "diff"], &["s", "--stat"]).ok().stdout;
    assert!(
        text.starts_with("From snapshot s to the live tree:\n  added      1 files (2 B)"),
        "{text}"
    );
    let none = m.ask_json(&["snapshot", "diff"], &["s", "s"]);
    assert_eq!(none["differences"], json!([]));
    assert_eq!(m.ask(&["snapshot", "diff"], &["s", "s"]).ok().stdout, "");
}

/// More than is sorted, and more than a socket holds.
#[test]
fn a_long_answer_comes_whole() {
    let m = Mounted::new();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    fs::create_dir(m.path("many")).unwrap();
    for n in 0..5000 {
        fs::write(m.path(&format!("many/{n:05}{}", "x".repeat(200))), "").unwrap();
    }
    let text = m.ask(&["snapshot", "diff"], &["s"]).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5001);
    assert!(lines.is_sorted() && lines[0] == "+  many/");
    assert_eq!(m.ask_json(&["snapshot", "diff"], &["s"])["stat"]["added"]["files"], 5000);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let mut m = Mounted::new();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    fs::set_permissions(m.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        m.ask(&["snapshot", "diff"], &["missing"]).refused(1, &["snapshot missing"]);
        m.ask(&["snapshot", "diff"], &["s", "missing"]).refused(1, &["snapshot missing"]);
        if m.is_mounted() {
            m.umount();
        }
    }
    assert_eq!(m.ask(&["snapshot", "diff"], &[]).code, Some(2));
    assert_eq!(stratafs(&["snapshot", "diff", "/nowhere", "a"]).code, Some(3));
}
