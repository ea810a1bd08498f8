//! What a monitor sees of a mounted volume.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stratafs::metrics::METRICS;

use super::helper::Mounted;
use crate::testkit::{MIB, random_bytes, stratafs};

/// Where the last mount serves its metrics, as its log says.
fn address(m: &Mounted) -> String {
    let log = fs::read_to_string(m.volume().join("stratafs.log")).unwrap();
    let line = log.lines().rev().find(|line| line.contains("Metrics served")).expect("a line");
    line.split("address=").nth(1).unwrap().trim().to_owned()
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

/// Samples by name and labels but `volume`; all of them are whole numbers.
fn samples(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap();
        let labels = labels.trim_end_matches('}').split_once("\",").map_or("", |(_, rest)| rest);
        (format!("{name}{{{labels}}}"), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

fn names(text: &str) -> BTreeSet<String> {
    samples(text).into_keys().map(|name| name.split('{').next().unwrap().to_owned()).collect()
}

#[test]
fn prometheus_gets_every_metric_and_the_numbers_are_right() {
    let mut m = Mounted::with(&[], "[metrics]\nlisten = \"127.0.0.1:0\"\n");
    fs::write(m.path("a.bin"), random_bytes(1, 2 * MIB)).unwrap();
    fs::write(m.path("b.bin"), random_bytes(1, 2 * MIB)).unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let text = scrape(&address(&m));
    let all: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(names(&text), all);
    let got = samples(&text);
    let mib = MIB as u64;
    assert_eq!(got["stratafs_snapshots{}"], 1);
    assert_eq!(got["stratafs_mounted{}"], 1);
    assert_eq!(got["stratafs_live_bytes{}"], 4 * mib);
    assert_eq!(got["stratafs_shard_up{shard=\"default\"}"], 1);
    let sum = |name: &str| -> u64 {
        got.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum()
    };
    assert_eq!(sum("stratafs_written_bytes_total"), 4 * mib);
    assert_eq!(sum("stratafs_duplicate_bytes_total"), 2 * mib);
    assert!(got["stratafs_last_commit_timestamp_seconds{}"] > 1_000_000_000);
    for metric in METRICS {
        assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.name())));
    }
    // The textfile collector gets the same, mounted and not.
    assert_eq!(names(&m.ask(&["stats"], &["--prometheus"]).ok().stdout), all);
    m.umount();
    let offline = m.ask(&["stats"], &["--prometheus"]).ok().stdout;
    assert_eq!(names(&offline), all);
    assert_eq!(samples(&offline)["stratafs_mounted{}"], 0);
    assert_eq!(samples(&offline)["stratafs_live_bytes{}"], 4 * mib);
}

#[test]
fn an_address_that_cannot_be_had_fails_the_mount() {
    let mut m = Mounted::with(&["-o", "metrics=127.0.0.1:0"], "");
    let taken = address(&m);
    scrape(&taken);
    let other = tempfile::tempdir().unwrap();
    let (dir, mnt) = (other.path().join("v"), other.path().join("m"));
    fs::create_dir(&mnt).unwrap();
    let (dir, mnt) = (dir.to_str().unwrap(), mnt.to_str().unwrap());
    stratafs(&["init", dir]).ok();
    let option = format!("metrics={taken}");
    stratafs(&["mount", dir, mnt, "-o", &option]).refused(7, &[&taken, "in use", "metrics=off"]);
    stratafs(&["mount", dir, mnt, "-o", "metrics=1.2.3.4:1"])
        .refused(1, &["1.2.3.4:1", "loopback"]);
    let before = stratafs(&["status", dir, "--json"]).json();
    assert_eq!(before["mounted_on"], Value::Null, "it was let go of");
    m.remount_with(&["-o", "metrics=off"]);
    assert!(TcpStream::connect(&taken).is_err(), "nobody listens any more");
}

#[test]
fn a_status_has_the_fields_that_monitors_rely_on() {
    let mut m = Mounted::new();
    fs::write(m.path("a"), b"a").unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let status = m.ask_json(&["status"], &[]);
    let keys =
        |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&status),
        "commit_failure containers dir dirty_bytes epoch format_version gc last_commit_secs \
         mounted_on open_txg_bytes pid poisoned read_only shards snapshots state stored_bytes txg \
         verified volume_id"
    );
    assert_eq!(
        keys(&status["shards"][0]),
        "containers free_bytes id missing name path stored_bytes total_bytes weight"
    );
    assert_eq!(
        keys(&status["verified"]),
        "containers damaged_chunks flawed_containers interval_days last_pass_ended \
         never_verified_bytes oldest_verified rate_bytes stored_bytes verified_30_days_bytes \
         verified_7_days_bytes"
    );
    assert_eq!(keys(&status["gc"]), "dropped_bytes last mark running snapshots_deleted");
    assert_eq!(status["state"], json!("well"));
    assert!(status["last_commit_secs"].as_u64().unwrap() > 1_000_000_000);
    m.remount_with(&["-o", "ro"]);
    assert_eq!(m.ask_json(&["status"], &[])["state"], json!("read-only"));
    m.umount();
    assert_eq!(m.ask_json(&["status"], &[])["state"], json!("not-mounted"));
}

#[test]
fn a_watch_says_what_happens_and_ends_on_ctrl_c() {
    let mut m = Mounted::new();
    let plain = m.ask(&["stats"], &["--watch=0.1", "--count", "3"]).ok();
    assert_eq!(plain.stdout.lines().count(), 4, "a head and three lines: {plain:?}");
    assert!(!plain.stdout.contains('\u{1b}'), "no terminal, no escapes");
    let lines = m.ask(&["stats"], &["--watch=0.1", "--count", "2", "--json"]).ok().stdout;
    for line in lines.lines() {
        let moment: Value = serde_json::from_str(line).unwrap();
        assert!(moment["written_bytes_per_sec"].is_u64() && moment["state"] == "well", "{line}");
    }
    assert_eq!(lines.lines().count(), 2);
    let mut watching = Command::new(env!("CARGO_BIN_EXE_stratafs"))
        .args(["stats", "--watch=0.1", m.volume().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    watching.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    crate::testkit::run("kill", &["-INT".to_owned(), watching.id().to_string()]);
    assert_eq!(watching.wait().unwrap().code(), Some(0));
    m.umount();
    m.ask(&["stats"], &["--watch", "--count", "1"]).refused(1, &["not mounted", "--watch"]);
    for bad in [&["--watch=0"][..], &["--watch=x"], &["--count", "3"], &["--watch", "--count", "0"]]
    {
        assert_eq!(m.ask(&["stats"], bad).code, Some(2), "{bad:?}");
    }
}
