//! Space, holds, locks and prune, as people use them.

use std::fs;

use serde_json::{Value, json};

use super::helper::{Mounted, os_error};
use crate::testkit::{MIB, random_bytes};

const EPERM: i32 = 1;
const EBUSY: i32 = 16;

fn take(m: &Mounted, name: &str) {
    m.ask(&["snapshot", "create"], &[name]).ok();
}

fn list(m: &Mounted) -> Vec<Value> {
    m.ask_json(&["snapshot", "list"], &[])["snapshots"].as_array().unwrap().clone()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let rows = list[key].as_array().unwrap().iter();
    rows.map(|row| row.get("snapshot").unwrap_or(row)["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn list_and_dry_run_say_what_deleting_frees() {
    let mut m = Mounted::new();
    fs::write(m.path("a.bin"), random_bytes(1, 2 * MIB)).unwrap();
    take(&m, "one");
    take(&m, "two");
    fs::remove_file(m.path("a.bin")).unwrap();
    fs::write(m.path("b.bin"), random_bytes(2, MIB)).unwrap();
    take(&m, "three");
    fs::remove_file(m.path("b.bin")).unwrap();
    let raw = |row: &Value| row["space"]["alone"]["raw_bytes"].as_u64().unwrap();
    for round in 0..2 {
        let rows = list(&m);
        assert_eq!(rows.iter().map(raw).collect::<Vec<_>>(), [0, 0, MIB as u64], "{rows:#?}");
        assert_eq!(rows[0]["space"]["referenced_bytes"], 2 * MIB);
        let both = m.ask_json(&["snapshot", "delete"], &["--dry-run", "one", "two"]);
        assert_eq!(both["would_free"]["raw_bytes"], 2 * MIB, "{both:#}");
        let quick = m.ask_json(&["snapshot", "list"], &["--no-space"]);
        assert_eq!(quick["snapshots"][2]["space"], Value::Null);
        assert_eq!(rows.len(), 3, "nothing was deleted");
        if round == 0 {
            m.umount();
        }
    }
    m.mount();
    let both = m.ask_json(&["snapshot", "delete"], &["-n", "one", "two"])["would_free"].clone();
    m.ask_json(&["gc"], &[]);
    let before = m.ask_json(&["gc"], &[])["unused"].clone();
    m.ask(&["snapshot", "delete"], &["one", "two"]).ok();
    let after = m.ask_json(&["gc"], &[])["unused"].clone();
    for key in ["chunks", "raw_bytes", "stored_bytes"] {
        let grown = after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
        assert_eq!(grown, both[key].as_u64().unwrap(), "{key}");
    }
    m.ask(&["snapshot", "delete"], &["-n", "one"]).refused(1, &["one"]);
    m.assert_sound();
}

#[test]
fn held_and_locked_snapshots_cannot_be_deleted() {
    let mut m = Mounted::new();
    take(&m, "held");
    take(&m, "locked");
    m.ask(&["snapshot", "hold"], &["held"]).ok();
    m.ask(&["snapshot", "lock"], &["locked", "--until", "2099-01-31T12:00:00Z"]).ok();
    for mounted in [true, false] {
        let delete = |name| m.ask(&["snapshot", "delete"], &[name]);
        delete("held").refused(6, &["held", "snapshot release"]);
        delete("locked").refused(1, &["locked until 2099-01-31T12:00:00Z"]);
        m.ask(&["snapshot", "release"], &["locked"]).ok();
        delete("locked").refused(1, &["locked until 2099"]);
        m.ask(&["snapshot", "lock"], &["locked", "--until", "2098-01-01"])
            .refused(1, &["only be extended"]);
        m.ask(&["snapshot", "lock"], &["held", "--until", "2001-01-01"]).refused(1, &["past"]);
        m.ask(&["snapshot", "lock"], &["held", "--until", "soon"]).refused(1, &["no date"]);
        m.ask(&["snapshot", "rename"], &["locked", "x"]).refused(1, &["locked until"]);
        let rows = list(&m);
        assert_eq!((&rows[0]["held"], &rows[1]["held"]), (&json!(true), &json!(false)));
        assert_eq!(rows[1]["locked_until"], "2099-01-31T12:00:00.000000000Z");
        let text = m.ask(&["snapshot", "list"], &[]).ok().stdout;
        assert!(text.contains("  held\n") && text.contains("  locked until 2099-01-31"), "{text}");
        if mounted {
            assert_eq!(os_error(fs::remove_dir(m.path(".snapshots/held"))), EBUSY);
            assert_eq!(os_error(fs::remove_dir(m.path(".snapshots/locked"))), EPERM);
            let moved = fs::rename(m.path(".snapshots/locked"), m.path(".snapshots/x"));
            assert_eq!(os_error(moved), EPERM);
            m.umount();
        }
    }
    m.mount();
    m.ask(&["snapshot", "release"], &["held"]).ok();
    fs::remove_dir(m.path(".snapshots/held")).unwrap();
}

#[test]
fn prune_keeps_what_the_policy_says_and_what_is_protected() {
    let mut m = Mounted::new();
    for name in ["auto-1", "auto-2", "manual", "auto-3", "auto-4"] {
        take(&m, name);
    }
    assert_eq!(m.ask(&["prune"], &[]).code, Some(2), "never all of them");
    m.ask(&["prune"], &["--keep-last", "0"]).refused(1, &["Nothing would be kept"]);
    m.ask(&["prune"], &["--keep-last", "1", "--name", "["]).refused(1, &["Bad pattern"]);
    assert_eq!(m.ask(&["prune"], &["--keep-within", "1w"]).code, Some(2));
    m.ask(&["snapshot", "hold"], &["auto-1"]).ok();
    let policy = ["--keep-last", "2", "--name", "auto-*"];
    for _ in 0..2 {
        let plan = m.ask_json(&["prune"], &[&policy[..], &["--dry-run"]].concat());
        assert_eq!(names(&plan, "keep"), ["auto-1", "auto-3", "auto-4"], "{plan:#}");
        assert_eq!(names(&plan, "remove"), ["auto-2"]);
        assert_eq!(plan["keep"][0]["reasons"], json!(["held"]));
        assert_eq!(plan["keep"][1]["reasons"], json!(["last snapshot"]));
        assert!(plan["would_free"]["chunks"].is_u64());
        assert_eq!(list(&m).len(), 5, "a dry run");
        if m.pid() == 0 { m.mount() } else { m.umount() }
    }
    let done = m.ask_json(&["prune"], &policy);
    assert_eq!(names(&done, "remove"), ["auto-2"]);
    assert_eq!(list(&m).len(), 4);
    let text = m.ask(&["prune"], &["--keep-daily", "3", "-n"]).ok().stdout;
    assert!(text.contains("remove  manual") && text.contains("2 kept, 2 would be"), "{text}");
    // All were taken within minutes of each other.
    let all = m.ask_json(&["prune"], &["--keep-within", "2h"]);
    assert_eq!(names(&all, "remove"), [""; 0]);
    m.umount();
    let last = m.ask_json(&["prune"], &["--keep-yearly", "unlimited", "--keep-last", "1"]);
    let kept = names(&last, "keep");
    assert!(kept.contains(&"auto-1".to_owned()) && kept.contains(&"auto-4".to_owned()), "{last:#}");
    assert!(m.ask(&["check"], &["--read-data"]).ok().stdout.starts_with("No problems"));
}
