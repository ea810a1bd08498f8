//! What is stored, and what is not stored again.

use std::sync::Barrier;

use stratafs::types::At;

use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, TestVolume, random_bytes, read_all, text_bytes,
};

/// Files of many sizes, as a source tree has them.
fn write_tree(t: &TestVolume, dir: &str) {
    t.mkdir(dir);
    for number in 0..200 {
        let size = [0, 17, 900, 4096, 20_000, 70_000, 300_000][number % 7] + number;
        t.write_file(&format!("{dir}/f{number}.c"), &text_bytes(number as u64, size));
    }
}

#[test]
fn a_second_copy_of_a_tree_stores_nothing() {
    let t = TestVolume::new();
    let first = t.counting(|| write_tree(&t, "/one"));
    assert!(first.new_chunks > 100, "{first:#?}");

    let second = t.counting(|| write_tree(&t, "/two"));

    assert_eq!((second.new_chunks, second.stored_bytes), (0, 0), "{second:#?}");
    assert_eq!(second.duplicate_bytes, first.written_bytes);
    assert_eq!(t.read_file("/two/f5.c"), t.read_file("/one/f5.c"));
}

/// Both ways of cutting: by content, and in fixed cells.
#[test]
fn an_overwrite_in_a_large_file_rewrites_only_chunks_near_it() {
    for (name, most) in [("big.bin", 6), ("big.img", 6), ("big.db", 1)] {
        let mut t = TestVolume::new();
        let mut data = random_bytes(1, 64 * MIB);
        t.write_file(name, &data);
        t.reopen();
        let patch = random_bytes(2, 4 * KIB);

        let mut counted = None;
        let activity = t.activity(|| {
            counted = Some(t.counting(|| t.open(name).write(32 * MIB as u64, &patch).unwrap()));
        });

        let counted = counted.unwrap();
        assert!((1..=most).contains(&counted.new_chunks), "{name}: {counted:#?}");
        assert!(counted.written_bytes <= 1024 * KIB as u64, "{name}: {counted:#?}");
        assert!(activity.frames_read <= 6, "{name}: {activity:#?}");
        data[32 * MIB..][..4 * KIB].copy_from_slice(&patch);
        t.assert_content(name, &data);
    }
}

#[test]
fn appending_does_not_read_the_file_again() {
    let mut t = TestVolume::new();
    let mut data = text_bytes(1, 16 * MIB);
    t.write_file("/app.log", &data);
    t.reopen();

    let activity = t.activity(|| {
        for round in 0..20 {
            let file = t.open("/app.log");
            for line in 0..50 {
                let text = text_bytes(1000 + round * 50 + line, 100);
                file.write(data.len() as u64, &text).unwrap();
                data.extend(text);
            }
            file.finish().unwrap();
        }
        t.commit().unwrap();
    });

    // At most the end of the file, which each round goes on cutting: all of it is 200 frames.
    assert!(activity.frames_read <= 20, "{activity:#?}");
    t.assert_content("/app.log", &data);
    let copy = t.counting(|| t.write_file("/copy.log", &data));
    assert_eq!(copy.new_chunks, 0, "an appended log is cut like one written at once: {copy:#?}");
}

#[test]
fn rewriting_the_same_bytes_stores_nothing() {
    for name in ["/a.bin", "/a.img"] {
        let t = TestVolume::new();
        let data = random_bytes(1, 5 * MIB + 123);
        t.write_file(name, &data);

        let whole = t.counting(|| {
            t.truncate(name, 0);
            let file = t.open(name);
            data.chunks(100_000)
                .enumerate()
                .for_each(|(i, piece)| file.write(i as u64 * 100_000, piece).unwrap());
        });
        assert_eq!((whole.new_chunks, whole.stored_bytes), (0, 0), "{name}: {whole:#?}");

        let in_place = t.counting(|| {
            for at in [0, 1_000_000, 3_333_333] {
                t.open(name).write(at as u64, &data[at..at + 50_000]).unwrap();
            }
        });
        assert_eq!((in_place.new_chunks, in_place.stored_bytes), (0, 0), "{name}: {in_place:#?}");
        t.assert_content(name, &data);
    }
}

#[test]
fn equal_files_written_at_the_same_time_are_stored_once() {
    let t = TestVolume::new();
    let data = random_bytes(1, 8 * MIB);
    let start = Barrier::new(4);

    let counted = t.counting(|| {
        std::thread::scope(|threads| {
            for number in 0..4 {
                let (t, data, start) = (&t, &data, &start);
                threads.spawn(move || {
                    start.wait();
                    t.write_file(&format!("/same{number}.bin"), data);
                });
            }
        });
    });

    assert_eq!(counted.new_bytes, data.len() as u64, "{counted:#?}");
    assert_eq!(counted.duplicate_bytes, 3 * data.len() as u64);
    (0..4).for_each(|number| t.assert_content(&format!("/same{number}.bin"), &data));
}

#[test]
fn an_insertion_at_the_front_finds_most_chunks_again() {
    let t = TestVolume::new();
    let data = random_bytes(1, 16 * MIB);
    t.write_file("/a.bin", &data);
    let shifted = [&b"thirty-seven bytes are in front of it"[..], &data].concat();

    let counted = t.counting(|| t.write_file("/b.bin", &shifted));

    assert!(counted.new_bytes * 20 < data.len() as u64, "{counted:#?}");
    t.assert_content("/b.bin", &shifted);
}

/// The cut that a commit forces on a stream is provisional.
#[test]
fn commits_in_the_middle_of_a_stream_lose_no_dedup() {
    for name in ["/slow.bin", "/slow.img", "/slow.log"] {
        let t = TestVolume::new();
        let data = text_bytes(1, 12 * MIB + 777);
        let file = t.create(name);
        for (number, piece) in data.chunks(MIB - 7).enumerate() {
            file.write((number * (MIB - 7)) as u64, piece).unwrap();
            if number % 3 == 1 {
                t.commit().unwrap();
            }
        }
        file.finish().unwrap();

        let at_once = t.counting(|| t.write_file(&format!("{name}.copy{}", &name[5..]), &data));

        assert_eq!(at_once.new_chunks, 0, "{name}: {at_once:#?}");
        t.assert_content(name, &data);
    }
}

#[test]
fn a_copy_of_a_range_is_exact_and_stores_nothing() {
    let t = TestVolume::new();
    let data = random_bytes(1, 4 * MIB);
    t.write_file("/a.bin", &data);
    let (source, target) = (t.open("/a.bin"), t.create("/b.bin"));
    target.write(0, &[7; 3000]).unwrap();

    let counted = t.counting(|| {
        target.finish().unwrap();
        assert_eq!(target.copy_from(1000, &source, 777, 2_000_000).unwrap(), 2_000_000);
        assert_eq!(target.copy_from(2_001_000, &source, 4 * MIB as u64 - 5, 100).unwrap(), 5);
        assert_eq!(target.copy_from(0, &source, 4 * MIB as u64, 100).unwrap(), 0);
    });

    assert!(counted.written_bytes <= 3000, "{counted:#?}");
    let mut expected = vec![7; 1000];
    expected.extend_from_slice(&data[777..777 + 2_000_000]);
    expected.extend_from_slice(&data[4 * MIB - 5..]);
    t.assert_content("/b.bin", &expected);
}

/// What was written a moment ago, and lies in a buffer still, is copied too.
#[test]
fn a_copy_has_what_is_still_buffered() {
    let t = TestVolume::new();
    let data = random_bytes(1, 300_000);
    let (source, target) = (t.create("/a.bin"), t.create("/b.bin"));
    source.write(0, &data).unwrap();
    target.write(0, &[7; 400_000]).unwrap();
    assert_eq!(target.copy_from(50_000, &source, 0, 300_000).unwrap(), 300_000);
    let expected = [&[7; 50_000], &data[..], &[7; 50_000]].concat();
    t.assert_content("/b.bin", &expected);
    source.write(1000, &[9; 5000]).unwrap();
    t.assert_content("/b.bin", &expected);
}

/// A file is copied back out of a snapshot without storing anything.
#[test]
fn a_restore_by_copy_stores_nothing() {
    let t = TestVolume::new();
    let data = random_bytes(1, 3 * MIB);
    t.write_file("/a.bin", &data);
    let snapshot = t.snapshot_create(b"s").unwrap();
    t.remove("/a.bin");
    let old = t.resolve(At::Epoch(snapshot.epoch), b"/a.bin").unwrap().ino;
    let source = t.open_file(At::Epoch(snapshot.epoch), old).unwrap();

    let counted = t.counting(|| {
        let target = t.create("/a.bin");
        assert_eq!(target.copy_from(0, &source, 0, u64::MAX / 4).unwrap(), data.len() as u64);
    });

    assert_eq!(counted.written_bytes, 0, "{counted:#?}");
    t.assert_content("/a.bin", &data);
}

/// Reading a thousand files of 1 KiB opens a handful of frames, and they compress as a whole.
#[test]
fn small_files_share_frames() {
    let mut t = TestVolume::new();
    let counted = t.counting(|| {
        for number in 0..1000 {
            t.write_file(&format!("/{number}.c"), &text_bytes(number, KIB));
        }
    });
    assert!(counted.stored_bytes * 2 < counted.new_bytes, "{counted:#?}");
    t.reopen();

    let activity = t.activity(|| {
        for number in 0..1000 {
            t.assert_content(&format!("/{number}.c"), &text_bytes(number, KIB));
        }
    });

    assert!(activity.frames_read <= 30, "{activity:#?}");
}

/// Dedup does not depend on the class that stored a chunk first.
#[test]
fn a_chunk_is_found_whatever_class_stored_it() {
    let t = TestVolume::with_config(&format!(
        "{NO_BACKGROUND_COMMITS}[classes.log]\ncodec = \"none\"\n"
    ));
    let data = text_bytes(1, MIB);
    t.write_file("/a.log", &data);

    let counted = t.counting(|| t.write_file("/a.zip", &data));

    assert_eq!(counted.new_chunks, 0, "{counted:#?}");
    assert_eq!(read_all(&t.open("/a.zip")), data);
}
