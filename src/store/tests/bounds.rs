//! What waits in memory is bounded, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::double::noise;
use super::{Bench, HINT};
use crate::codec::CodecChoice;
use crate::store::{PutHint, StoreLoad};
use crate::types::ClassId;

/// A lane may wait with 128 KiB; sixty may not wait with sixty times that.
#[test]
fn open_groups_of_many_classes_are_bounded_together() {
    let mut t = Bench::new();
    let bound = super::options().queue_bytes as u64 / 2;
    let mut chunks = Vec::new();
    let mut most = 0;
    for number in 0..1_200_u64 {
        let class = ClassId((number % 60) as u8);
        let hint = PutHint { class, codec: CodecChoice::None, ..HINT };
        let put = t.store.put(Bytes::from(noise(number, 5_000)), hint).unwrap();
        let groups = t.store.load().group_bytes;
        assert!(groups <= bound, "{groups} bytes wait in groups");
        most = groups.max(most);
        chunks.push(put.chunk);
    }
    assert!(most > bound / 2, "only {most} bytes waited: this proves nothing");
    assert_eq!(t.store.load().lanes, 60);
    t.commit();
    assert_eq!(t.store.load().group_bytes, 0);
    for (number, chunk) in (0..).zip(chunks) {
        assert_eq!(t.read(chunk), noise(number, 5_000));
    }
}

/// Chunks of a few bytes are mostly directory, and the footer is in memory until it is written.
#[test]
fn a_container_of_tiny_chunks_is_sealed_for_its_footer() {
    let mut t = Bench::new();
    // Two footers and some: how many chunks a frame takes, and so a footer, the workers decide.
    for number in 0..120_000_u64 {
        t.store.put(Bytes::copy_from_slice(&number.to_le_bytes()), HINT).unwrap();
        if number % 1_000 == 0 {
            let footers = t.store.load().footer_bytes;
            assert!(footers <= StoreLoad::FOOTER_BYTES_MAX, "{footers} bytes of footers");
        }
    }
    t.commit();
    let containers = t.store.containers().unwrap();
    assert!(containers.len() >= 3, "{containers:#?}");
    assert!(containers.iter().all(|(_, row)| row.bytes < 8 << 20), "{containers:#?}");
}

/// Rows that wait for a commit count until it is done, those of new chunks and of doomed ones.
#[test]
fn uncommitted_rows_are_counted() {
    let mut t = Bench::new();
    assert_eq!(t.store.uncommitted_bytes(), 0);
    for number in 0..100 {
        t.put(&noise(number, 1_000));
    }
    let waiting = t.store.uncommitted_bytes();
    assert!((100 * 100..100 * 1_000).contains(&waiting), "{waiting} bytes for 100 chunks");
    t.store.close_open();
    t.commit();
    t.store.close_open();
    t.commit();
    assert_eq!(t.store.uncommitted_bytes(), 0);
    let (id, _) = t.store.containers().unwrap()[0];
    t.store.doom(id).unwrap();
    let doomed = t.store.uncommitted_bytes();
    assert!((100 * 50..waiting).contains(&doomed), "{doomed} bytes for 100 doomed chunks");
    t.commit();
    t.commit();
    assert_eq!(t.store.uncommitted_bytes(), 0);
}

/// A buffer that says when it is gone.
struct Owner(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_small_chunk_keeps_its_buffer_only_if_told_so_and_not_longer_than_it_waits() {
    for keep in [false, true] {
        let mut t = Bench::new();
        let gone = Arc::new(AtomicBool::new(false));
        let buffer = Bytes::from_owner(Owner(noise(1, 100_000), Arc::clone(&gone)));
        t.store.put_of(keep.then_some(&buffer), buffer.slice(500..1500), HINT).unwrap();
        drop(buffer);
        assert_eq!(gone.load(Ordering::Relaxed), !keep);
        t.commit();
        assert!(gone.load(Ordering::Relaxed), "its chunk is written");
    }
}
