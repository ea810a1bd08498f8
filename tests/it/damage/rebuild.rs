//! `rebuild-index`: everything comes back out of the containers, and nothing wrong does.

use stratafs::kv::{RocksKv, RocksOptions, Table};
use stratafs::types::At;
use stratafs::volume::{RebuildReport, Volume};

use super::cells::{Damage, Region, containers};
use super::rows::Tables;
use super::stage::{Copy, close, judge, original, put_file, run_check};
use crate::testkit::{KIB, random_bytes, stratafs, wait_until};

const INDEX: [Table; 3] = [Table::Chunk, Table::Fingerprint, Table::Container];

fn rebuild(copy: &Copy, dry_run: bool) -> RebuildReport {
    let mut report = None;
    wait_until("the lock is free", || {
        match Volume::rebuild_index(&copy.dir, dry_run, &mut |_| {}) {
            Err(stratafs::error::Error::Busy { .. }) => false,
            done => {
                report = Some(done.unwrap());
                true
            }
        }
    });
    report.expect("set above")
}

/// Everything is there and fits, and the volume can be used.
fn assert_whole(copy: Copy, what: &str) {
    let outcome = judge(copy, what);
    assert!(outcome.refused.is_none() && outcome.failed.is_empty(), "{what}: {outcome:#?}");
    assert!(outcome.problems.is_empty() && outcome.writable, "{what}: {outcome:#?}");
}

/// Every way in which the tables may have been lost; the tree comes back byte for byte.
#[test]
fn lost_tables_come_back() {
    for (name, lose) in [
        (
            "all emptied",
            &(|t: &Tables| INDEX.iter().for_each(|table| t.clear(*table))) as &dyn Fn(&Tables),
        ),
        ("containers emptied", &|t| t.clear(Table::Container)),
        ("chunks emptied", &|t| t.clear(Table::Chunk)),
        ("fingerprints emptied", &|t| t.clear(Table::Fingerprint)),
        ("nothing lost", &|_| ()),
        ("rows of nonsense", &|t| {
            for table in INDEX {
                let len = if table == Table::Fingerprint { 32 } else { 8 };
                t.put(table, vec![3; len], vec![0xee; 5]);
                t.put(table, vec![0; len], vec![0xee; 5]);
            }
        }),
        ("counters lost", &|t| {
            INDEX.iter().for_each(|table| t.clear(*table));
            t.put(Table::Super, b"counters".to_vec(), vec![0xff]);
        }),
    ] {
        let copy = Copy::new();
        let tables = Tables::of(&copy);
        lose(&tables);
        drop(tables);
        let looked = rebuild(&copy, true);
        assert!(!looked.rebuilt && looked.chunks > 0, "{name}: {looked:#?}");
        let report = rebuild(&copy, false);
        assert!(report.rebuilt && report.lost_extents == 0, "{name}: {report:#?}");
        assert_eq!(report.unreadable_chunks, 0, "{name}: {report:#?}");
        assert_eq!(report.chunks, looked.chunks, "{name}");
        let only = report.problems.iter().all(|problem| problem.contains("counters"));
        assert!(only, "{name}: {:#?}", report.problems);
        assert_whole(copy, name);
    }
}

/// An opening between the loss and the rebuilding must not throw away what has no row.
#[test]
fn opening_without_an_index_keeps_the_containers() {
    let copy = Copy::new();
    let tables = Tables::of(&copy);
    INDEX.iter().for_each(|table| tables.clear(*table));
    drop(tables);
    let before = containers(&copy.dir).len();
    for read_only in [true, false] {
        let volume = copy.open(read_only).unwrap();
        let missing = volume.resolve(At::Live, b"film.mp4").unwrap();
        let file = volume.open_file(At::Live, missing.ino).unwrap();
        assert_eq!(file.read(0, 10).unwrap_err().errno(), 5);
        drop(file);
        let problems = run_check(&volume).unwrap().problems;
        assert!(problems.iter().any(|p| p.contains("rebuild-index")), "{problems:#?}");
        assert!(read_only || stratafs::gc::run(&volume).is_err());
        volume.shutdown().unwrap();
        close(volume);
        assert_eq!(containers(&copy.dir).len(), before, "read-only {read_only}");
    }
    rebuild(&copy, false);
    assert_whole(copy, "opened meanwhile");
}

/// What a crash left behind the committed bytes is not taken for committed: neither frames with
/// numbers that were never given away for good, nor torn bytes.
#[test]
fn uncommitted_tails_stay_dead() {
    let copy = Copy::new();
    let open = containers(&copy.dir).into_iter().rfind(|c| c.footer.is_none()).unwrap();
    let mut bytes = std::fs::read(&open.path).unwrap();
    let committed = bytes.len();
    // A frame as a crash leaves it: like the first one, with the next number and another content.
    let raw = vec![0x5a; 3000];
    let frame = frame(u64::from(u32::MAX), &raw);
    bytes.extend(&frame);
    bytes.extend(&frame[..frame.len() / 2]);
    std::fs::write(&open.path, &bytes).unwrap();
    let tables = Tables::of(&copy);
    tables.clear(Table::Chunk);
    tables.clear(Table::Fingerprint);
    drop(tables);
    let report = rebuild(&copy, false);
    assert!(report.problems.is_empty(), "{report:#?}");
    let path = open.path.clone();
    let keep = std::fs::metadata(&path).unwrap().len();
    assert_eq!(keep, bytes.len() as u64, "rebuilding changes no container");
    let volume = copy.open(false).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() <= committed as u64, "opening cuts it");
    close(volume);
    assert_whole(copy, "an uncommitted tail");
}

/// A frame with one chunk, stored as it is.
fn frame(chunk: u64, raw: &[u8]) -> Vec<u8> {
    use stratafs::codec::{CodecChoice, encode};
    use stratafs::store::{FrameDirectory, FrameEntry};
    use stratafs::types::{ChunkNo, Fingerprint};
    let entry = FrameEntry {
        chunk: ChunkNo(chunk),
        raw_len: u32::try_from(raw.len()).unwrap(),
        fingerprint: Fingerprint::of(raw),
    };
    let payload = encode(CodecChoice::None, raw);
    let mut bytes = FrameDirectory::new(vec![entry], &payload).to_bytes();
    bytes.extend_from_slice(raw);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Damage in a container costs the chunks it hits, whatever else has to come back.
#[test]
fn damaged_containers_give_what_they_can() {
    for (name, part) in [("head", 0), ("directory", 1), ("payload", 2), ("footer", 3)] {
        let copy = Copy::new();
        let sealed =
            containers(&copy.dir).into_iter().find(|c| c.footer.is_some() && c.frames.len() > 1);
        let container = sealed.unwrap();
        let hit = container.frames[1];
        let (start, end) = [
            (hit.start, hit.start + 32),
            (hit.start + 32, hit.payload),
            (hit.payload, hit.end),
            (container.footer.unwrap(), container.len),
        ][part];
        Region { path: container.path.clone(), start, end }.damage(Damage::Flip, 5, None);
        let tables = Tables::of(&copy);
        INDEX.iter().for_each(|table| tables.clear(*table));
        drop(tables);
        let report = rebuild(&copy, false);
        assert_eq!(report.lost_extents, 0, "{name}: {report:#?}");
        // Payloads are not read; a damaged head is known from the footer.
        assert_eq!(report.unreadable_chunks > 0, part < 2, "{name}: {report:#?}");
        let outcome = judge(copy, name);
        assert!(outcome.refused.is_none() && outcome.missing.is_empty(), "{name}: {outcome:#?}");
        assert_eq!(outcome.failed.is_empty(), part == 3, "{name}: {outcome:#?}");
        assert!(outcome.failed.len() < original().live.len() / 2, "{name}: {outcome:#?}");
        assert!(outcome.writable, "{name}: {outcome:#?}");
    }
}

/// A volume may be stored in a volume: frames inside the payload of a damaged frame are data.
#[test]
fn frames_inside_a_payload_are_not_frames() {
    let copy = Copy::new();
    let volume = copy.open(false).unwrap();
    let mut data = random_bytes(31, 8 * KIB);
    for shift in 0..8 {
        // One of these copies lies where a frame may lie.
        data.resize(data.len().next_multiple_of(8) + shift, 7);
        data.extend(frame(1, &random_bytes(40 + shift as u64, 3000)));
    }
    data.extend(random_bytes(33, 8 * KIB));
    assert!(put_file(&volume, b"nested.mp4", &data));
    assert!(put_file(&volume, b"behind.mp4", &random_bytes(34, 9000)));
    volume.shutdown().unwrap();
    close(volume);
    let needle = random_bytes(31, 64);
    let hit = containers(&copy.dir).into_iter().find_map(|c| {
        let bytes = std::fs::read(&c.path).unwrap();
        let at = bytes.windows(64).position(|w| w == needle)?;
        assert!(c.footer.is_none(), "a footer would say where frames are");
        let frame = c.frames.iter().find(|f| (f.start..f.end).contains(&at)).copied()?;
        Some((c.path, frame.start))
    });
    let (path, start) = hit.unwrap();
    Region { path, start: start + 8, end: start + 9 }.damage(Damage::Flip, 1, None);
    let tables = Tables::of(&copy);
    INDEX.iter().for_each(|table| tables.clear(*table));
    drop(tables);
    let report = rebuild(&copy, false);
    let twice = report.problems.iter().any(|p| p.contains("different bytes"));
    assert!(!twice && report.lost_extents > 0, "{report:#?}");
    let volume = copy.open(true).unwrap();
    let read = |name: &[u8]| {
        let ino = volume.resolve(At::Live, name).unwrap().ino;
        volume.open_file(At::Live, ino).unwrap().read(0, 9000)
    };
    assert_eq!(read(b"nested.mp4").unwrap_err().errno(), 5);
    assert!(read(b"behind.mp4").unwrap() == random_bytes(34, 9000));
    close(volume);
    assert!(judge(copy, "nested").failed.is_empty());
}

/// Of two frames with one number the newer one counts if it verifies, else the older.
#[test]
fn the_newest_good_frame_of_a_number_wins() {
    for newer_is_good in [true, false] {
        let copy = Copy::new();
        let sealed = containers(&copy.dir).into_iter().find(|c| c.footer.is_some()).unwrap();
        let mut twin = std::fs::read(&sealed.path).unwrap();
        // A container with the next free number that holds the same frames.
        let id = 200_u64;
        twin[16..24].copy_from_slice(&id.to_le_bytes());
        let crc = stratafs::checksum::crc32c(&twin[..60]);
        twin[60..64].copy_from_slice(&crc.to_le_bytes());
        let bad = if newer_is_good { None } else { Some(sealed.frames[0].payload + 3) };
        if let Some(at) = bad {
            twin[at] ^= 1;
        } else {
            let mut old = std::fs::read(&sealed.path).unwrap();
            old[sealed.frames[0].payload + 3] ^= 1;
            std::fs::write(&sealed.path, old).unwrap();
        }
        let folder = copy.dir.join(format!("shards/0/containers/{:02x}", id & 0xff));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{id:016x}.sfc")), twin).unwrap();
        let report = rebuild(&copy, false);
        assert!(report.moved_chunks > 0 && report.problems.is_empty(), "{report:#?}");
        let outcome = judge(copy, "a twin");
        assert!(outcome.failed.is_empty() && outcome.writable, "{newer_is_good}: {outcome:#?}");
    }
}

/// Two frames that say one number and are not the same bytes: neither is handed out.
#[test]
fn a_number_with_two_contents_is_an_error() {
    let copy = Copy::new();
    let open = containers(&copy.dir).into_iter().rfind(|c| c.footer.is_none()).unwrap();
    let mut bytes = std::fs::read(&open.path).unwrap();
    bytes.extend(frame(0, &[0x5a; 3000]));
    std::fs::write(&open.path, &bytes).unwrap();
    let report = rebuild(&copy, false);
    assert!(report.problems[0].contains("Chunk 0 is there with different bytes"), "{report:#?}");
    assert!(report.lost_extents > 0);
    let outcome = judge(copy, "two contents");
    assert_eq!(outcome.refused, None);
    assert!(!outcome.failed.is_empty() && !outcome.problems.is_empty());
    assert!(outcome.missing.is_empty() && outcome.writable, "{outcome:#?}");
}

/// A run that was cut off: no writing until another one is done.
#[test]
fn a_run_that_was_cut_off_is_run_again() {
    let copy = Copy::new();
    let tables = Tables::of(&copy);
    tables.put(Table::Super, b"rebuilding".to_vec(), vec![1]);
    INDEX.iter().for_each(|table| tables.clear(*table));
    drop(tables);
    let refused = copy.open(false).unwrap_err();
    assert_eq!(refused.exit_code(), 5);
    assert!(refused.to_string().contains("rebuild-index did not finish"), "{refused}");
    close(copy.open(true).unwrap());
    rebuild(&copy, false);
    assert_whole(copy, "run again");
}

/// Table files that cannot be read are no obstacle: the tables are dropped unread.
#[test]
fn table_files_that_do_not_read_are_replaced() {
    let copy = Copy::new();
    let kv = RocksKv::open(&copy.dir.join("meta"), &RocksOptions::default()).unwrap();
    kv.flush().unwrap();
    drop(kv);
    let needle = containers(&copy.dir).len();
    let mut hit = 0;
    for path in
        super::cells::database_files(&copy.dir, |name| name.rsplit('.').next() == Some("sst"))
    {
        let bytes = std::fs::read(&path).unwrap();
        // The properties of a table file name its column family.
        let holds = |name: &str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
        if holds("column.family.namechunk") || holds("fingerprint") {
            let region = Region { path, start: 0, end: bytes.len().min(200) };
            region.damage(Damage::Flip, 9, None);
            hit += 1;
        }
    }
    assert!(hit > 0 && needle > 0, "no table file of the index was found");
    let report = rebuild(&copy, false);
    assert!(report.problems.is_empty(), "{report:#?}");
    assert_whole(copy, "table files");
}

#[test]
fn the_command_says_what_it_did() {
    let copy = Copy::new();
    let dir = copy.dir.to_str().unwrap();
    let tables = Tables::of(&copy);
    INDEX.iter().for_each(|table| tables.clear(*table));
    drop(tables);
    assert_eq!(stratafs(&["check", dir]).code, Some(11));
    let looked = stratafs(&["rebuild-index", dir, "--dry-run"]).ok();
    assert!(looked.stdout.contains("Would be rebuilt"), "{looked:#?}");
    assert_eq!(stratafs(&["check", dir]).code, Some(11));
    let report = stratafs(&["rebuild-index", dir, "--json"]).json();
    assert_eq!(report["rebuilt"], true);
    assert_eq!(report["lost_extents"], 0);
    stratafs(&["check", "--read-data", dir]).ok();
    let volume = copy.open(true).unwrap();
    stratafs(&["rebuild-index", dir]).refused(6, &["in use"]);
    close(volume);
}
