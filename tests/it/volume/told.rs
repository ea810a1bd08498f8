//! Being told when everything is durable, without waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use stratafs::error::Result;
use stratafs::types::Ino;
use stratafs::volume::{Volume, XattrMode};

use crate::testkit::{TestVolume, errno};

const EROFS: i32 = 30;

fn ask(volume: &Volume) -> Receiver<Result<()>> {
    let (sender, receiver) = channel();
    volume.commit_then(move |done| sender.send(done).unwrap());
    receiver
}

fn answer(told: &Receiver<Result<()>>) -> Result<()> {
    told.recv_timeout(Duration::from_secs(30)).expect("nobody was told")
}

#[test]
fn what_was_written_before_is_durable_when_told() {
    let mut t = TestVolume::new();
    t.write_file("/a", b"before");
    answer(&ask(&t)).unwrap();
    t.write_file("/b", b"after");
    t.crash();
    t.assert_content("/a", b"before");
    assert_eq!(t.list_all(stratafs::types::At::Live, t.ino("/")).len(), 1);
}

#[test]
fn everybody_is_told_and_nobody_twice() {
    let t = TestVolume::new();
    let told: Vec<_> = (0..1000).map(|_| ask(&t)).collect();
    told.iter().for_each(|told| answer(told).unwrap());
    // The sending ends are gone with the calls.
    assert!(told.iter().all(|told| told.recv().is_err()));
}

#[test]
fn no_commit_will_come_after_the_shutdown() {
    let mut t = TestVolume::new();
    t.write_file("/a", b"a");
    t.shutdown().unwrap();
    let done = answer(&ask(&t));
    assert_eq!(errno(&done), Some(EROFS), "{done:?}");
    t.crash();
    t.assert_content("/a", b"a");
    t.close();
    let reader = t.try_open(true).unwrap();
    answer(&ask(&reader)).unwrap();
}

/// A question that looks at the metadata twice under one lock would wait for itself as soon as
/// somebody wants to edit in between.
#[test]
fn questions_beside_writers_are_answered() {
    let t = TestVolume::new();
    let (asker, writer) = (Arc::clone(&t), Arc::clone(&t));
    let (sender, receiver) = channel();
    let asked = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&asked);
    let writing = std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            writer.set_xattr(Ino::ROOT, b"user.x", b"", XattrMode::Any).unwrap();
        }
    });
    std::thread::spawn(move || {
        for _ in 0..300 {
            asker.status().unwrap();
            asker.stats_report().unwrap();
            asker.shard_list().unwrap();
        }
        drop(asker);
        // The test may have given up.
        let _ = sender.send(());
    });
    receiver.recv_timeout(Duration::from_mins(2)).expect("somebody waits for himself");
    asked.store(true, Ordering::Relaxed);
    writing.join().unwrap();
}
