//! Folders: their trees, their rules, their bounds.

use super::*;
use crate::diff::Facets;

fn told(change: Change, kind: Kind, path: &str, old_path: Option<&str>, ino: u64) -> Difference {
    Difference {
        change,
        kind,
        path: path.into(),
        old_path: old_path.map(Into::into),
        ino: Ino(ino),
        facets: Facets::default(),
        old_size: None,
        size: None,
    }
}

fn folders(all: &[Difference]) -> Folders {
    let mut folders = Folders::default();
    for one in all {
        folders.take(one.clone()).unwrap();
    }
    folders.finish()
}

/// Everything in a folder, a slash behind directories on the way.
fn walk(folders: &Folders, folder: Folder, dir: &str) -> Vec<String> {
    let (mut all, mut from) = (Vec::new(), 0);
    while let Some(listed) = folders.listed(folder, dir.as_bytes(), from) {
        assert!(listed.next > from || from == 0, "a listing ends");
        from = listed.next;
        let name = std::str::from_utf8(listed.name).unwrap();
        let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        assert_eq!(folders.child(folder, path.as_bytes()), Some(listed.child), "{path}");
        if listed.child == Child::Way {
            all.push(format!("{path}/"));
            all.extend(walk(folders, folder, &path));
        } else {
            all.push(path);
        }
    }
    all
}

#[test]
fn paths_become_a_tree_in_which_each_name_is_once() {
    use Change::{Added, Changed};
    let found = folders(&[
        told(Changed, Kind::File, "d/x", None, 3),
        told(Changed, Kind::Directory, "d", None, 2),
        told(Changed, Kind::File, "d-e", None, 4),
        told(Changed, Kind::File, "d/e/f/g", None, 5),
        told(Changed, Kind::File, "d0", None, 6),
        told(Changed, Kind::Directory, "", None, 1),
        told(Added, Kind::Symlink, "a/b", None, 7),
    ]);
    let changed = walk(&found, Folder::Changed, "");
    assert_eq!(changed, ["d/", "d/e/", "d/e/f/", "d/e/f/g", "d/x", "d-e", "d0"]);
    assert_eq!(walk(&found, Folder::Added, ""), ["a/", "a/b"]);
    assert!(walk(&found, Folder::Removed, "").is_empty());
    assert_eq!(found.child(Folder::Changed, b"d/e/f/g"), Some(Child::Inode(Ino(5), Kind::File)));
    for missing in [&b"d/e/f/g/h"[..], b"d/", b"dd", b"e", b"a", b"d/e/"] {
        assert_eq!(found.child(Folder::Changed, missing), None, "{missing:?}");
    }
}

#[test]
fn what_a_directory_shows_as_a_whole_is_not_listed_again() {
    use Change::{Added, Removed, Renamed};
    let found = folders(&[
        told(Added, Kind::Directory, "new", None, 2),
        told(Renamed, Kind::File, "new/in", Some("out"), 3),
        told(Renamed, Kind::Directory, "new/sub", Some("old/sub"), 4),
        told(Removed, Kind::Directory, "old", None, 5),
        told(Added, Kind::File, "new-er", None, 6),
    ]);
    assert_eq!(walk(&found, Folder::Added, ""), ["new", "new-er"]);
    assert_eq!(walk(&found, Folder::Removed, ""), ["old", "out"]);
}

#[test]
fn a_path_that_both_have_is_changed_unless_its_kind_is_another() {
    use Change::{Added, Removed, Renamed};
    let found = folders(&[
        told(Renamed, Kind::File, "over", Some("moved"), 2),
        told(Removed, Kind::File, "over", None, 3),
        told(Added, Kind::Directory, "kind", None, 4),
        told(Removed, Kind::File, "kind", None, 5),
        told(Renamed, Kind::Directory, "x", Some("y"), 6),
        told(Renamed, Kind::Directory, "y", Some("x"), 7),
    ]);
    assert_eq!(walk(&found, Folder::Changed, ""), ["over"]);
    assert_eq!(found.child(Folder::Changed, b"over"), Some(Child::Inode(Ino(2), Kind::File)));
    assert_eq!(walk(&found, Folder::Added, ""), ["kind", "x", "y"]);
    assert_eq!(walk(&found, Folder::Removed, ""), ["kind", "moved", "x", "y"]);
}

#[test]
fn one_comparison_and_those_kept_are_bounded() {
    let mut folders = Folders::default();
    let refused = (0..).find_map(|n| {
        let path = format!("{n:0>1000}");
        folders.take(told(Change::Added, Kind::File, &path, None, n)).err()
    });
    assert!(matches!(refused, Some(Error::TooLarge)));
    let kept = Kept::default();
    let pair = |n| Pair { from: SnapshotId(n), to: SnapshotId(n + 1) };
    for n in 1..100 {
        kept.make_room();
        let mut made = Folders::default();
        made.take(told(Change::Added, Kind::File, "a", None, 1)).unwrap();
        kept.keep(pair(n), made.finish());
        assert!(kept.get(pair(1)).is_some(), "the one used last stays: {n}");
    }
    assert_eq!(kept.bytes(), KEPT as u64 * (1 + LEAF_BYTES));
    assert!(kept.has(pair(99)) && !kept.has(pair(2)));
    let large = |n: u32| {
        let mut made = Folders::default();
        while made.bytes < DIFFERENCE_BYTES_MAX * 3 / 4 {
            made.take(told(Change::Added, Kind::File, &"x".repeat(4000), None, 1)).unwrap();
        }
        kept.make_room();
        // Not finished, which would find that they are one.
        kept.keep(pair(n), made);
        assert!(kept.bytes() <= Kept::bytes_max());
    };
    (200..205).for_each(large);
    assert!(kept.has(pair(204)) && kept.has(pair(203)) && !kept.has(pair(202)));
}
