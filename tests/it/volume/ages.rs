//! What it takes to read a file that was changed a little, many times (DESIGN 4.11).

use crate::testkit::{KIB, MIB, TestVolume, random_bytes, read_all, splitmix64};

/// Cells, eight to a group.
const CELL: usize = 16 * KIB;
const CELLS_IN_GROUPS: &str = "[classes.image]\nchunking = \"fixed\"\navg_bytes = \"16KiB\"\n\
                               group_bytes = \"128KiB\"\n";
const CELLS: usize = 16 * MIB / CELL;
const GENERATIONS: u64 = 30;

/// Frames that a cold read of the file decodes, and the bytes in them.
fn cold_read(t: &mut TestVolume, expected: &[u8]) -> (u64, u64) {
    t.reopen();
    let did = t.activity(|| assert!(read_all(&t.open("/disk.img")) == expected));
    (did.frames_read, did.decoded_bytes)
}

/// Overwriting a share of the cells at random leaves old groups partly used: those of the
/// generation before last, of the one before that, and so on. Each is decoded once, and their
/// number is bounded: with eight cells to a group by 1 + 1/2 + … + 1/8 = 2.72 times those of a new
/// file, however many generations there were. Commits cut groups short: one more each.
#[test]
fn a_file_of_thirty_generations_takes_few_more_frames_than_a_new_one() {
    let mut t = TestVolume::with_config(CELLS_IN_GROUPS);
    let mut content = random_bytes(1, CELLS * CELL);
    t.write_file("/disk.img", &content);
    t.snapshot_create(b"g01").unwrap();
    let (first, _) = cold_read(&mut t, &content);
    assert!(first <= 16 * 8 + 2, "{first} frames of 16 MiB when it is new");
    let mut state = 30;
    for generation in 2..=GENERATIONS {
        for _ in 0..CELLS / 20 {
            let at = usize::try_from(splitmix64(&mut state)).unwrap() % CELLS * CELL;
            let cell = random_bytes(splitmix64(&mut state), CELL);
            content[at..at + CELL].copy_from_slice(&cell);
            t.open("/disk.img").write(at as u64, &cell).unwrap();
        }
        t.snapshot_create(format!("g{generation:02}").as_bytes()).unwrap();
    }
    let (frames, decoded) = cold_read(&mut t, &content);
    let bound = first * 272 / 100 + GENERATIONS;
    assert!(frames <= bound, "{frames} frames, {first} when it was new");
    assert!(frames > first * 3 / 2, "{frames} frames: nothing was scattered");
    assert!(decoded <= bound * 128 * KIB as u64, "{decoded} bytes: some were decoded twice");
}
