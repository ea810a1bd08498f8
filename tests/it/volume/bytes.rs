//! Bytes of a file: holes, overlaps, ends.

use stratafs::volume::{AttrChange, Seek};

use crate::testkit::{KIB, MIB, TestVolume, errno, random_bytes};

const EFBIG: i32 = 27;

#[test]
fn zeros_are_holes() {
    let t = TestVolume::new();

    let counted = t.counting(|| t.write_file("/zeros.bin", &vec![0; 3 * MIB]));

    assert_eq!((counted.new_chunks, counted.zero_bytes), (0, 3 * MIB as u64), "{counted:#?}");
    let stat = t.open("/zeros.bin").stat().unwrap();
    assert_eq!((stat.inode.size, stat.allocated_bytes), (3 * MIB as u64, 0));
    t.assert_content("/zeros.bin", &vec![0; 3 * MIB]);
}

#[test]
fn zeros_over_data_become_a_hole() {
    let t = TestVolume::new();
    let mut data = random_bytes(1, MIB);
    t.write_file("/a.img", &data);

    t.open("/a.img").write(256 * KIB as u64, &vec![0; 256 * KIB]).unwrap();
    t.commit().unwrap();

    data[256 * KIB..512 * KIB].fill(0);
    t.assert_content("/a.img", &data);
    assert_eq!(t.open("/a.img").stat().unwrap().allocated_bytes, 768 * KIB as u64);
}

#[test]
fn a_sparse_file_takes_only_its_data() {
    let t = TestVolume::new();
    let file = t.create("/sparse.img");
    let data = random_bytes(1, 16 * KIB);
    file.write(1 << 40, &data).unwrap();
    file.finish().unwrap();

    let stat = file.stat().unwrap();
    assert_eq!(stat.inode.size, (1 << 40) + 16 * KIB as u64);
    assert_eq!(stat.allocated_bytes, 16 * KIB as u64);
    assert_eq!(file.seek(5, Seek::Data).unwrap(), Some(1 << 40));
    assert_eq!(file.seek(5, Seek::Hole).unwrap(), Some(5));
    assert_eq!(file.seek(1 << 40, Seek::Hole).unwrap(), Some(stat.inode.size));
    assert_eq!(file.seek(stat.inode.size, Seek::Data).unwrap(), None);
    assert_eq!(file.read((1 << 40) - 10, 20).unwrap(), [&[0; 10], &data[..10]].concat());
}

#[test]
fn overlapping_writes_leave_what_was_written_last() {
    for name in ["/a.bin", "/a.db"] {
        let mut t = TestVolume::new();
        let file = t.create(name);
        let mut expected = Vec::new();
        for round in 0..400u64 {
            let random = u64::from_le_bytes(random_bytes(round, 8).try_into().unwrap());
            let offset = usize::try_from(random % (2 * MIB as u64)).unwrap();
            let data = random_bytes(round, 1 + (random >> 32) as usize % 60_000);
            file.write(offset as u64, &data).unwrap();
            if expected.len() < offset + data.len() {
                expected.resize(offset + data.len(), 0);
            }
            expected[offset..offset + data.len()].copy_from_slice(&data);
            if round % 50 == 49 {
                file.finish().unwrap();
            }
            if round % 130 == 129 {
                t.commit().unwrap();
            }
        }
        t.assert_content(name, &expected);
        drop(file);
        t.reopen();
        t.assert_content(name, &expected);
        t.assert_sound();
    }
}

/// What was cut off does not come back when the file grows again.
#[test]
fn a_cut_tail_is_zero_when_the_file_grows() {
    for committed in [false, true] {
        let t = TestVolume::new();
        t.write_file("/a.bin", &random_bytes(1, MIB));
        if committed {
            t.commit().unwrap();
        }
        t.truncate("/a.bin", 1000);
        t.truncate("/a.bin", MIB as u64);

        let mut expected = random_bytes(1, 1000);
        expected.resize(MIB, 0);
        t.assert_content("/a.bin", &expected);
        t.open("/a.bin").write(500_000, b"x").unwrap();
        expected[500_000] = b'x';
        t.commit().unwrap();
        t.assert_content("/a.bin", &expected);
    }
}

#[test]
fn a_file_ends_before_two_to_the_63() {
    let t = TestVolume::new();
    let file = t.create("/a");
    let last = i64::MAX as u64;
    assert_eq!(errno(&file.write(last, b"x")), Some(EFBIG));
    assert_eq!(errno(&file.write(u64::MAX, b"x")), Some(EFBIG));
    let change = AttrChange { size: Some(last + 1), ..AttrChange::default() };
    assert_eq!(errno(&t.set_attributes(file.ino(), &change)), Some(EFBIG));
    assert_eq!(file.stat().unwrap().inode.size, 0);

    file.write(last - 1, b"x").unwrap();
    t.commit().unwrap();
    assert_eq!(file.stat().unwrap().inode.size, last);
    assert_eq!(file.read(last - 1, 10).unwrap(), b"x");
}

#[test]
fn a_write_over_the_end_of_many_files_is_bounded_in_memory() {
    let config = "[limits]\ncommit_interval_secs = 3600\ndirty_bytes = \"2MiB\"\n";
    let t = TestVolume::with_config(config);
    let files: Vec<_> = (0..40).map(|n| t.create(&format!("/{n}.bin"))).collect();
    for (number, file) in files.iter().enumerate() {
        file.write(0, &random_bytes(number as u64, 200 * KIB)).unwrap();
        let dirty = t.stats_report().unwrap().memory["dirty"].bytes;
        assert!(dirty <= 2 * MIB as u64 + 200 * KIB as u64, "{dirty} bytes are buffered");
    }
    for number in 0..40 {
        t.assert_content(&format!("/{number}.bin"), &random_bytes(number, 200 * KIB));
    }
}
