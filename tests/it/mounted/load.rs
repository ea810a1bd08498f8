//! Many: files, writers, entries; and the memory they take.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::helper::Mounted;
use crate::testkit::{MIB, random_bytes, text_bytes};

#[test]
fn a_hundred_writers_at_the_same_time() {
    let mut m = Mounted::new();
    std::thread::scope(|threads| {
        for writer in 0..100u64 {
            let m = &m;
            threads.spawn(move || {
                let dir = m.path(&format!("w{}", writer % 10));
                fs::create_dir_all(&dir).unwrap();
                for number in 0..20u64 {
                    let data = text_bytes(writer * 7 + number, 10_000);
                    let temp = dir.join(format!(".{writer}-{number}.c.Ab12Cd"));
                    let path = dir.join(format!("{writer}-{number}.c"));
                    fs::write(&temp, &data).unwrap();
                    fs::rename(&temp, &path).unwrap();
                    assert!(fs::read(&path).unwrap() == data);
                    if number % 7 == 3 {
                        fs::remove_file(&path).unwrap();
                    }
                }
            });
        }
    });
    m.remount();
    for writer in 0..100u64 {
        for number in 0..20u64 {
            let path = m.path(&format!("w{}/{writer}-{number}.c", writer % 10));
            let found = fs::read(&path).ok();
            let expected = (number % 7 != 3).then(|| text_bytes(writer * 7 + number, 10_000));
            assert!(found == expected, "{}", path.display());
        }
    }
    m.assert_sound();
}

/// Names that stay are listed exactly once, whatever comes and goes meanwhile.
#[test]
fn a_large_directory_is_listed_while_it_changes() {
    const NAMES: usize = 20_000;
    let m = Mounted::new();
    let dir = m.path("d");
    fs::create_dir(&dir).unwrap();
    for number in 0..NAMES {
        fs::File::create(dir.join(format!("stays{number}"))).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut number = 0u64;
            while !done.load(Ordering::Relaxed) {
                fs::File::create(dir.join(format!("comes{number}"))).unwrap();
                if number >= 50 {
                    fs::remove_file(dir.join(format!("comes{}", number - 50))).unwrap();
                }
                number += 1;
            }
        });
        for _ in 0..5 {
            let mut seen = HashSet::new();
            for entry in fs::read_dir(&dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(seen.insert(name.clone()), "{name} is listed twice");
            }
            let stays = seen.iter().filter(|name| name.starts_with("stays")).count();
            assert_eq!(stays, NAMES);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Memory is bounded by the configuration, not by what is stored.
#[test]
fn twenty_thousand_files_leave_memory_bounded() {
    let m = Mounted::new();
    for number in 0..20_000u64 {
        let dir = m.path(&format!("d{}", number % 100));
        if number < 100 {
            fs::create_dir(&dir).unwrap();
        }
        let size = [1000, 3000, 5000, 30_000][usize::try_from(number % 4).unwrap()];
        fs::write(dir.join(format!("f{number}.c")), text_bytes(number, size)).unwrap();
    }
    fs::write(m.path("large.bin"), random_bytes(1, 100 * MIB)).unwrap();
    let resident = m.resident_bytes();
    assert!(resident < 300 * MIB as u64, "{} MiB are resident", resident / MIB as u64);
    let memory = m.ask_json(&["stats"], &[])["memory"].clone();
    assert!(memory.as_object().unwrap().len() >= 4, "{memory:#}");
}
