//! Streams that are cut beside their writers, and pages overwritten in place.

use stratafs::volume::Seek;

use crate::testkit::{
    KIB, MIB, NO_BACKGROUND_COMMITS, TestVolume, assert_same_bytes, random_bytes, splitmix64,
};

/// Pages of a volume's unit of overwriting.
const PAGE: usize = 4 * KIB;

/// While a thread has a stream's bytes in hand, whatever else happens to the file sees them.
#[test]
fn a_stream_is_whole_whatever_happens_to_the_file_meanwhile() {
    for (name, seed) in [("/s.bin", 1), ("/s.img", 2)] {
        let t = TestVolume::with_config(NO_BACKGROUND_COMMITS);
        let file = t.create(name);
        let mut state = seed;
        let mut model: Vec<u8> = Vec::new();
        for piece in 0..48 {
            let data = random_bytes(seed * 1000 + piece, 700 * KIB);
            file.write(model.len() as u64, &data).unwrap();
            model.extend(data);
            let at = splitmix64(&mut state) as usize % model.len();
            let len = (splitmix64(&mut state) as usize % (300 * KIB)).min(model.len() - at);
            match splitmix64(&mut state) % 8 {
                0 => {
                    let over = random_bytes(seed * 5000 + piece, len.max(1));
                    file.write(at as u64, &over).unwrap();
                    model.resize(model.len().max(at + over.len()), 0);
                    model[at..at + over.len()].copy_from_slice(&over);
                }
                1 => {
                    t.truncate(name, (model.len() - len) as u64);
                    model.truncate(model.len() - len);
                }
                2 => {
                    file.punch(at as u64, len as u64, true).unwrap();
                    model[at..at + len].fill(0);
                }
                3 => t.commit().unwrap(),
                4 => assert!(file.seek(at as u64, Seek::Hole).unwrap().is_some()),
                _ => {}
            }
            let from = model.len().saturating_sub(2 * MIB);
            let tail = file.read(from as u64, 2 * MIB).unwrap();
            assert_same_bytes(&tail, &model[from..], &format!("{name} after piece {piece}"));
        }
        file.finish().unwrap();
        t.commit().unwrap();
        t.assert_content(name, &model);
        t.assert_sound();
    }
}

/// The same while what was written here and there is drained beside its writer.
#[test]
fn scattered_writes_are_whole_whatever_happens_to_the_file_meanwhile() {
    const LEN: usize = 6 * MIB;
    for (name, seed) in [("/s.img", 1), ("/s.bin", 2), ("/s.sqlite", 3)] {
        let t = TestVolume::with_config(NO_BACKGROUND_COMMITS);
        let mut model = random_bytes(seed, LEN);
        t.write_file(name, &model);
        t.commit().unwrap();
        let file = t.open(name);
        let mut state = seed;
        for piece in 0..2000 {
            let len = 1 + splitmix64(&mut state) as usize % (2 * PAGE);
            let at = splitmix64(&mut state) as usize % (LEN - len);
            let over = random_bytes(seed * 5000 + piece, len);
            file.write(at as u64, &over).unwrap();
            model[at..at + len].copy_from_slice(&over);
            match splitmix64(&mut state) % 256 {
                0 => t.commit().unwrap(),
                1 => {
                    file.punch(at as u64, 3 * PAGE as u64, true).unwrap();
                    model[at..(at + 3 * PAGE).min(LEN)].fill(0);
                }
                2 => {
                    t.truncate(name, (LEN - MIB) as u64);
                    t.truncate(name, LEN as u64);
                    model[LEN - MIB..].fill(0);
                }
                3..40 => {
                    let from = at.saturating_sub(MIB);
                    let seen = file.read(from as u64, 2 * MIB).unwrap();
                    let to = (from + 2 * MIB).min(LEN);
                    assert_same_bytes(&seen, &model[from..to], &format!("{name} {piece}"));
                }
                _ => {}
            }
        }
        file.finish().unwrap();
        t.commit().unwrap();
        t.assert_content(name, &model);
        t.assert_sound();
    }
}

/// What lies around a page is not read, decoded or stored again, and stays as it is.
#[test]
fn a_page_overwritten_in_an_image_costs_a_page() {
    const PAGES: usize = 50;
    let mut t = TestVolume::with_config(NO_BACKGROUND_COMMITS);
    let mut data = random_bytes(1, 4 * MIB);
    t.write_file("/d.img", &data);
    t.reopen();

    let mut activity = None;
    let totals = t.counting(|| {
        activity = Some(t.activity(|| {
            let file = t.open("/d.img");
            for page in 0..PAGES {
                let at = page * 5 * PAGE;
                let over = random_bytes(100 + page as u64, PAGE);
                file.write(at as u64, &over).unwrap();
                data[at..at + PAGE].copy_from_slice(&over);
            }
            t.commit().unwrap();
        }));
    });

    assert_eq!(activity.map(|activity| activity.frames_read), Some(0));
    assert_eq!(totals.new_bytes, (PAGES * PAGE) as u64, "{totals:#?}");
    t.assert_content("/d.img", &data);
    t.assert_sound();
}

/// Pages written one after the other, with commits between them, make the cells of one write.
#[test]
fn an_image_appended_page_by_page_is_cut_like_one_written_at_once() {
    let t = TestVolume::with_config(NO_BACKGROUND_COMMITS);
    let data = random_bytes(3, 256 * KIB);
    let file = t.create("/slow.img");
    for (number, page) in data.chunks(PAGE).enumerate() {
        file.write((number * PAGE) as u64, page).unwrap();
        t.commit().unwrap();
    }
    let copy = t.counting(|| t.write_file("/fast.img", &data));
    assert_eq!(copy.new_chunks, 0, "{copy:#?}");
    t.assert_content("/slow.img", &data);
}
