//! Ingest into a volume whose index has many chunks, against one whose index is empty: known data
//! and new data, with the database just opened. See benches/README.md.
//!
//!     cargo run --release --example lookups -- fill DIR CHUNKS
//!     cargo run --release --example lookups -- run DIR
//!
//! `fill` makes a volume in DIR, writes `OLD_BYTES` of text to it and adds rows for as many chunks
//! as a very large volume has; `run` writes the same text again, in other files, and then as much
//! new text, and says what each took. It can be repeated.

mod random;
#[allow(dead_code)] // the test that this is from checks more
#[path = "../tests/it/big/synthetic.rs"]
mod synthetic;

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stratafs::env::Env;
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{InitOptions, NewInode, OpenOptions, Volume};

use random::Random;

const MIB: usize = 1024 * 1024;
/// What is written again, in files of `FILE_BYTES`.
const OLD_BYTES: usize = 256 * MIB;
const FILE_BYTES: usize = 8 * MIB;

fn open(dir: &Path) -> Arc<Volume> {
    let options = OpenOptions { env: Env::system(), purpose: "bench".to_owned(), read_only: false };
    Volume::open(dir, options).expect("it opens")
}

fn make(volume: &Volume, parent: Ino, name: &str, kind: FileKind) -> Ino {
    let perm = if kind == FileKind::Directory { 0o755 } else { 0o644 };
    let xattrs = Vec::new();
    let new = NewInode { kind, perm, uid: 0, gid: 0, rdev: 0, target: b"", xattrs };
    volume.make(parent, name.as_bytes(), &new).expect("room for a name").ino
}

/// Hexadecimal noise in lines: every chunk is new, and it shrinks to half.
fn text(seed: u64) -> Vec<u8> {
    let noise = Random(seed).incompressible(FILE_BYTES / 2);
    let mut out = Vec::with_capacity(FILE_BYTES);
    for (number, byte) in noise.into_iter().enumerate() {
        let end =
            if number % 32 == 31 { b'\n' } else { b"0123456789abcdef"[usize::from(byte & 15)] };
        out.extend_from_slice(&[b"0123456789abcdef"[usize::from(byte >> 4)], end]);
    }
    out
}

/// Writes files of the class source, which has the smallest chunks cut by content, and commits.
fn write(volume: &Arc<Volume>, dir: &str, first_seed: u64) {
    let texts: Vec<_> =
        (0..(OLD_BYTES / FILE_BYTES) as u64).map(|n| text(first_seed + n)).collect();
    let before = volume.stats_report().expect("stats").activity;
    let root = volume.resolve(At::Live, b"").expect("the root").ino;
    let parent = make(volume, root, dir, FileKind::Directory);
    let started = Instant::now();
    for (number, text) in texts.iter().enumerate() {
        let ino = make(volume, parent, &format!("{number}.c"), FileKind::Regular);
        let file = volume.open_file(At::Live, ino).expect("it was just made");
        for (i, piece) in text.chunks(MIB).enumerate() {
            file.write((i * MIB) as u64, piece).expect("a write");
        }
        file.finish().expect("the data is stored");
    }
    let cut = started.elapsed().as_millis();
    volume.commit().expect("a commit");
    let all = started.elapsed().as_millis();
    let did = volume.stats_report().expect("stats").activity.since(&before);
    let rate = |millis| (OLD_BYTES / MIB) as u128 * 1000 / millis;
    println!(
        "{dir}: {} MiB/s, with the commit {}; {} looks, {} scans",
        rate(cut),
        rate(all),
        did.index_gets,
        did.index_scans
    );
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", dir, chunks] => {
            let (dir, chunks) = (Path::new(dir), chunks.parse().expect("a number"));
            Volume::init(dir, &InitOptions { env: Env::system() }).expect("a new volume");
            let volume = open(dir);
            write(&volume, "old", 1);
            let root = volume.resolve(At::Live, b"").expect("the root").ino;
            let top = make(&volume, root, "big", FileKind::Directory);
            volume.shutdown().expect("it closes");
            drop(volume);
            if chunks > 0 {
                synthetic::fill(dir, synthetic::Scale::new(chunks), top);
            }
        }
        ["run", dir] => {
            let volume = open(Path::new(dir));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
            let seed = u64::try_from(now).expect("not so late") << 16;
            write(&volume, &format!("known {now}"), 1);
            write(&volume, &format!("new {now}"), seed);
            volume.shutdown().expect("it closes");
        }
        _ => panic!("lookups fill DIR CHUNKS | lookups run DIR"),
    }
}
