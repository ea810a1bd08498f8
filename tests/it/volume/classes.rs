//! Classes and shards: where new bytes go, and who says so.

use std::collections::BTreeMap;

use stratafs::types::At;

use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, SmallDisk, TestVolume, random_bytes, text_bytes,
};

/// Media, archives and whatever lies in `vault` belong to the shard "bulk", all else does not.
const TWO_SHARDS: &str = r#"
[limits]
commit_interval_secs = 3600
[classes.other]
shards = ["default"]
[classes.source]
shards = ["default"]
[classes.office]
shards = ["default"]
[classes.image]
shards = ["default"]
[classes.log]
shards = ["default"]
[classes.media]
shards = ["bulk"]
[classes.archive]
shards = ["bulk"]
[classes.vault]
id = 20
shards = ["bulk"]
[[rule]]
class = "vault"
path = "vault/**"
"#;

/// Names, which of them belong to the shard "bulk", and what they hold.
const FILES: [(&str, bool); 9] = [
    ("photo.jpg", true),
    ("film.mkv", true),
    ("backup.tar.gz", true),
    ("vault/notes.txt", true),
    ("main.c", false),
    ("letter.odt", false),
    ("disk.qcow2", false),
    ("app.log", false),
    ("unknown", false),
];

fn two_shards() -> TestVolume {
    let mut t = TestVolume::new();
    t.add_shard("bulk");
    t.write_config(TWO_SHARDS);
    t.reopen();
    t
}

/// Raw bytes of a file by shard.
fn places(t: &TestVolume, path: &str) -> BTreeMap<String, u64> {
    t.explain(At::Live, path.as_bytes()).unwrap().shards.into_iter().collect()
}

/// Writes under rsync's temporary name and renames, as `rsync -a` does.
#[test]
fn new_bytes_lie_on_the_shards_of_their_class() {
    let t = two_shards();
    t.mkdir("/vault");
    let (mut right, mut all) = (0, 0);
    for (number, (path, _)) in FILES.iter().enumerate() {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let temp = format!("{dir}/.{name}.aZ3x9Q");
        t.write_file(&temp, &random_bytes(number as u64, 700 * KIB));
        t.move_to(&temp, path);
    }
    t.commit().unwrap();

    for (path, is_bulk) in FILES {
        let places = places(&t, path);
        all += places.values().sum::<u64>();
        right += places.get(if is_bulk { "bulk" } else { "default" }).unwrap_or(&0);
    }

    assert_eq!(all, (FILES.len() * 700 * KIB) as u64);
    assert!(right * 1000 >= all * 999, "{right} of {all} bytes lie where they belong");
    let stored =
        |name| t.shard_list().unwrap().iter().find(|s| s.name == name).unwrap().stored_bytes;
    assert!(stored("bulk") >= 4 * 700 * KIB as u64 && stored("default") >= 5 * 700 * KIB as u64);
    t.assert_sound();
}

#[test]
fn explain_names_the_rule_and_the_places() {
    let t = two_shards();
    t.mkdir("/vault");
    t.write_file("/photo.jpg", &random_bytes(1, 100 * KIB));
    t.write_file("/vault/x", &random_bytes(2, 100 * KIB));
    t.write_file("/text", &text_bytes(3, 100 * KIB));
    for (path, class, rule) in [
        ("/photo.jpg", "media", "*.jpg"),
        ("/vault/x", "vault", "rule 1"),
        ("/text", "source", "text"),
    ] {
        let explained = t.explain(At::Live, path.as_bytes()).unwrap();
        assert_eq!((&explained.class[..], &explained.stored_class[..]), (class, class));
        assert!(explained.rule.contains(rule), "{explained:#?}");
        assert_eq!(explained.shards.iter().map(|(_, bytes)| bytes).sum::<u64>(), 100 * KIB as u64);
        assert_eq!(explained.size, 100 * KIB as u64);
    }
}

/// A shard without room passes its class on to the fallback; nothing accepted is lost.
#[test]
fn a_full_shard_falls_back() {
    let disk = SmallDisk::new(24);
    let mut t = TestVolume::new();
    t.shard_add(&disk.join("bulk"), "bulk", 1).unwrap();
    t.write_config(TWO_SHARDS);
    t.reopen();
    for number in 0..48 {
        t.write_file(&format!("/{number}.jpg"), &random_bytes(number, MIB));
    }
    t.commit().unwrap();

    let on_bulk: u64 =
        (0..48).filter_map(|n| places(&t, &format!("/{n}.jpg")).get("bulk").copied()).sum();
    assert!((4..24).contains(&(on_bulk / MIB as u64)), "{on_bulk} bytes on the small shard");
    t.reopen();
    (0..48).for_each(|n| t.assert_content(&format!("/{n}.jpg"), &random_bytes(n, MIB)));
    t.assert_sound();
}

#[test]
fn weights_share_a_class() {
    let mut t = TestVolume::new();
    t.add_shard("one");
    t.add_shard("two");
    t.write_config(&format!(
        "{NO_BACKGROUND_COMMITS}[classes.media]\nshards = {{ one = 1, two = 3 }}\n"
    ));
    t.reopen();
    for number in 0..200 {
        t.write_file(&format!("/{number}.jpg"), &random_bytes(number, 20 * KIB));
    }
    t.commit().unwrap();

    let mut files = BTreeMap::new();
    for number in 0..200 {
        for (shard, _) in places(&t, &format!("/{number}.jpg")) {
            *files.entry(shard).or_insert(0) += 1;
        }
    }
    assert!((25..80).contains(&files["one"]) && files.len() == 2, "{files:?}");
}

/// Both shards are needed to open the volume, and both are found again.
#[test]
fn shards_are_there_after_reopening() {
    let mut t = two_shards();
    t.write_file("/photo.jpg", &random_bytes(1, MIB));
    t.crash();
    assert_eq!(t.shard_list().unwrap().len(), 2);
    t.write_file("/photo.jpg", &random_bytes(1, MIB));
    t.reopen();
    assert_eq!(places(&t, "/photo.jpg")["bulk"], MIB as u64);
    t.assert_content("/photo.jpg", &random_bytes(1, MIB));
}
