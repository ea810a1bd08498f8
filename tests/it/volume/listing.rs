//! Listing while a directory changes.

use std::collections::BTreeSet;

use stratafs::types::{At, Cookie, Ino};

use crate::testkit::TestVolume;

/// Names behind `after`, in pages of two; the last cookie, or `after` if there is none.
fn listed(t: &TestVolume, at: At, after: Cookie) -> (BTreeSet<String>, Cookie) {
    let (mut names, mut last) = (BTreeSet::new(), after);
    loop {
        let page = t.list(at, Ino::ROOT, last, 2).unwrap();
        let Some(end) = page.last() else { return (names, last) };
        last = end.cookie;
        names.extend(page.into_iter().map(|item| String::from_utf8(item.name.into()).unwrap()));
    }
}

/// Whoever came to the end of a directory is told so again only while that is still true.
#[test]
fn an_end_that_was_reached_is_no_end_for_what_comes_later() {
    let t = TestVolume::new();
    let (nothing, end) = listed(&t, At::Live, Cookie(0));
    assert_eq!((nothing.len(), end), (0, Cookie(0)), "empty, and remembered as empty");
    let mut behind = 0;
    for number in 0..40 {
        let (before, end) = listed(&t, At::Live, Cookie(0));
        let name = format!("name-{number}");
        drop(t.create(&format!("/{name}")));
        if number % 10 == 0 {
            t.commit().unwrap();
        }
        let (more, _) = listed(&t, At::Live, end);
        let (after, _) = listed(&t, At::Live, Cookie(0));
        assert_eq!(after.difference(&before).collect::<Vec<_>>(), [&name]);
        if !more.is_empty() {
            assert_eq!(more, BTreeSet::from([name]));
            behind += 1;
        }
    }
    assert!(behind > 0, "some names have the largest cookie so far");

    let snapshot = t.snapshot_create(b"s").unwrap();
    let (names, end) = listed(&t, At::Live, Cookie(0));
    drop(t.create("/new"));
    let past = At::Epoch(snapshot.epoch);
    assert_eq!(listed(&t, past, Cookie(0)), (names, end), "the snapshot stays what it is");
    assert_eq!(listed(&t, At::Live, Cookie(0)).0.len(), 41);
    t.remove("/new");
    assert_eq!(listed(&t, At::Live, Cookie(0)).0.len(), 40);
}
