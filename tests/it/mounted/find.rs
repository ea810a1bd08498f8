//! `find` as people use it.

use std::fs;

use serde_json::{Value, json};

use super::helper::Mounted;
use crate::testkit::run_in;

fn sample() -> Mounted {
    let m = Mounted::new();
    run_in(
        &m.path(""),
        "mkdir -p home/a && echo one >home/a/report.odt && echo x >home/a/Photo.JPG",
    );
    fs::create_dir(m.path(".snapshots/mon")).unwrap();
    run_in(&m.path(""), "echo longer >home/a/report.odt");
    fs::create_dir(m.path(".snapshots/tue")).unwrap();
    run_in(&m.path(""), "mv home/a home/b && ln -s report.odt home/b/link");
    fs::create_dir(m.path(".snapshots/wed")).unwrap();
    run_in(&m.path(""), "rm home/b/report.odt && truncate -s 2M home/b/big.odt");
    m
}

/// A path, and its versions: size and who has it.
type Paths = Vec<(String, Vec<(u64, Vec<String>)>)>;
type Versions<'a> = &'a [(u64, &'a [&'a str])];

fn found(m: &Mounted, rest: &[&str]) -> Paths {
    let document = m.ask_json(&["find"], rest);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let version = |version: &Value| {
        let snapshots = version["snapshots"].as_array().unwrap();
        let live = version["live"].as_bool().unwrap().then(|| "live".to_owned());
        let names: Vec<String> = snapshots.iter().map(text).chain(live).collect();
        (version["size"].as_u64().unwrap(), names)
    };
    let list = document["found"].as_array().unwrap().iter();
    list.map(|one| {
        let versions = one["versions"].as_array().unwrap();
        (text(&one["path"]), versions.iter().map(version).collect())
    })
    .collect()
}

fn expected(list: &[(&str, Versions<'_>)]) -> Paths {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let versions = |versions: Versions<'_>| {
        versions.iter().map(|(size, states)| (*size, names(states))).collect()
    };
    list.iter().map(|(path, all)| ((*path).to_owned(), versions(all))).collect()
}

/// SEMANTICS §4.27
#[test]
fn a_name_is_found_in_every_state_mounted_and_not() {
    let mut m = sample();
    for _ in 0..2 {
        let all = expected(&[
            ("home/a/report.odt", &[(4, &["mon"]), (7, &["tue"])]),
            ("home/b/big.odt", &[(2 << 20, &["live"])]),
            ("home/b/report.odt", &[(7, &["wed"])]),
        ]);
        assert_eq!(found(&m, &["*.odt"]), all);
        assert_eq!(found(&m, &["home/*/*.odt"]), all);
        assert_eq!(found(&m, &["/home/a/*.odt"]), all[..1]);
        assert_eq!(found(&m, &["*.odt", "--size", "+1MiB"]), all[1..2]);
        assert_eq!(
            found(&m, &["*.odt", "--size=-6"]),
            expected(&[("home/a/report.odt", &[(4, &["mon"])])])
        );
        assert_eq!(found(&m, &["*.odt", "--snapshot", "wed"]), all[2..]);
        assert_eq!(found(&m, &["*.odt", "--snapshot", "live"]), all[1..2]);
        assert_eq!(found(&m, &["*.jpg"]), []);
        let photo = expected(&[
            ("home/a/Photo.JPG", &[(2, &["mon", "tue"])]),
            ("home/b/Photo.JPG", &[(2, &["wed", "live"])]),
        ]);
        assert_eq!(found(&m, &["*.jpg", "--ignore-case"]), photo);
        assert_eq!(found(&m, &["*", "--type", "l"]).len(), 1);
        let dirs = found(&m, &["**", "--type", "d"]);
        let paths: Vec<&str> = dirs.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["home", "home/a", "home/b"]);
        if m.is_mounted() {
            m.umount();
        }
    }
}

#[test]
fn people_get_paths_with_versions_below() {
    let m = sample();
    let text = m.ask(&["find"], &["report*"]).ok();
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!((lines[0], lines[3], lines.len()), ("home/a/report.odt", "home/b/report.odt", 5));
    assert!(lines[1].starts_with("         4 B  20") && lines[1].ends_with("  mon"), "{lines:?}");
    assert_eq!(text.stderr, "2 paths in 3 versions; 3 snapshots searched\n");
    assert_eq!(m.ask_json(&["find"], &["nothing"]), json!({ "found": [] }));
    assert_eq!(m.ask(&["find"], &["nothing", "-q"]).ok().stdout, "");
}

#[test]
fn what_cannot_be_looked_for_is_refused() {
    let m = Mounted::new();
    for bad in ["[", "", "a/{b"] {
        let refused = m.ask(&["find"], &[bad]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:#?}");
        assert!(refused.stderr.contains(&format!("Bad pattern {bad:?}")), "{refused:#?}");
    }
    m.ask(&["find"], &["x", "--snapshot", "missing"]).refused(1, &["snapshot missing"]);
    for bad in [&["x", "--size", "10MiB"][..], &["x", "--type", "q"], &[]] {
        assert_eq!(m.ask(&["find"], bad).code, Some(2), "{bad:?}");
    }
}
