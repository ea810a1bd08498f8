//! A disk that is not mounted does not keep the rest from being used.

use std::fs;

use super::helper::{Mounted, os_error};
use crate::testkit::{MIB, random_bytes, stratafs};

const EIO: i32 = 5;
const CONFIG: &str = "[classes.media]\nshards = [\"bulk\"]\nfallback = \"default\"\n";

/// SEMANTICS §5.3.
#[test]
fn a_mount_lives_without_one_of_its_shards() {
    let mut m = Mounted::new();
    let (bulk, away) = (m.outside().join("bulk"), m.outside().join("away"));
    m.ask(&["shard", "add"], &[bulk.to_str().unwrap(), "--name", "bulk"]).ok();
    fs::write(m.volume().join("config.toml"), CONFIG).unwrap();
    m.remount();
    fs::write(m.path("a.jpg"), random_bytes(1, 2 * MIB)).unwrap();
    fs::write(m.path("b.txt"), b"some text").unwrap();
    m.umount();
    fs::rename(&bulk, &away).unwrap();
    let volume = m.volume();
    let rebuild = stratafs(&["rebuild-index", volume.to_str().unwrap()]);
    assert_eq!(rebuild.code, Some(9), "it would lose what it cannot see: {rebuild:#?}");
    assert!(rebuild.stderr.contains("bulk"), "{rebuild:#?}");
    m.mount();

    assert_eq!(os_error(fs::read(m.path("a.jpg"))), EIO);
    assert_eq!(fs::read(m.path("b.txt")).unwrap(), b"some text");
    assert!(fs::metadata(m.path("a.jpg")).unwrap().len() == 2 * MIB as u64);
    fs::write(m.path("c.jpg"), random_bytes(2, MIB)).unwrap();
    fs::File::open(m.path("c.jpg")).unwrap().sync_all().unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let list = m.ask_json(&["shard", "list"], &[]);
    assert!(list["shards"][1]["missing"].as_str().unwrap().contains("bulk"), "{list:#}");
    assert!(list["shards"][0]["missing"].is_null());
    let status = m.ask(&["status"], &[]).ok().stdout;
    assert!(status.contains("well; shard bulk is missing"), "{status}");
    let log = fs::read_to_string(m.volume().join("stratafs.log")).unwrap();
    assert!(log.contains("Shard is missing shard=bulk"), "{log}");
    assert!(log.contains("Read failed") && log.contains(bulk.to_str().unwrap()), "{log}");
    let report = m.ask(&["check"], &["--read-data", "--json"]);
    assert_eq!(report.code, Some(11), "{report:#?}");
    m.remount();
    assert_eq!(os_error(fs::read(m.path("a.jpg"))), EIO);

    fs::rename(&away, &bulk).unwrap();
    let list = m.ask_json(&["shard", "list"], &[]);
    assert!(list["shards"][1]["missing"].is_null(), "asked, it looks again: {list:#}");
    assert!(fs::read(m.path("a.jpg")).unwrap() == random_bytes(1, 2 * MIB));
    assert!(fs::read(m.path("c.jpg")).unwrap() == random_bytes(2, MIB));
    m.assert_sound();
}
