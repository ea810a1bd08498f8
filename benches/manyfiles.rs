//! Makes a volume with many small files without a mount, for `benches/recovery.sh`.
//!
//! `manyfiles VOLUME COUNT [PREFIX]`: files of 1 to 7 KiB of words and numbers, all different, 500
//! to a directory, whose names begin with PREFIX. The volume must be there and not be mounted;
//! commits come as the configuration says.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use stratafs::env::Env;
use stratafs::error::Result;
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{NewInode, OpenOptions, Volume};

const FILES_PER_DIR: u64 = 500;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let (volume, count, prefix) = match &args[..] {
        [_, volume, count] => (volume, count, "d"),
        [_, volume, count, prefix] => (volume, count, prefix.as_str()),
        _ => {
            eprintln!("usage: manyfiles VOLUME COUNT [PREFIX]");
            return ExitCode::from(2);
        }
    };
    let Ok(count) = count.parse() else {
        eprintln!("manyfiles: {count} is no number");
        return ExitCode::from(2);
    };
    match make(Path::new(volume), count, prefix) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manyfiles: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(dir: &Path, count: u64, prefix: &str) -> Result<()> {
    let purpose = "making files".to_owned();
    let volume = Volume::open(dir, OpenOptions { env: Env::system(), purpose, read_only: false })?;
    // Other prefixes have other contents.
    let seed =
        prefix.bytes().fold(0, |seed: u64, byte| seed.rotate_left(12) ^ u64::from(byte)) << 32;
    let mut parent = Ino::ROOT;
    for number in 0..count {
        if number % FILES_PER_DIR == 0 {
            let name = format!("{prefix}{}", number / FILES_PER_DIR);
            parent = volume.make(Ino::ROOT, name.as_bytes(), &new(FileKind::Directory))?.ino;
        }
        let name = format!("file{number}.c");
        let ino = volume.make(parent, name.as_bytes(), &new(FileKind::Regular))?.ino;
        let file = volume.open_file(At::Live, ino)?;
        file.write(0, &content(seed ^ number))?;
        file.finish()?;
    }
    volume.shutdown()
}

fn new(kind: FileKind) -> NewInode<'static> {
    let perm = if kind == FileKind::Directory { 0o755 } else { 0o644 };
    NewInode { kind, perm, uid: 0, gid: 0, rdev: 0, target: b"", xattrs: Vec::new() }
}

/// Compresses to about a third, as sources do, and repeats nothing of chunk size.
fn content(number: u64) -> Vec<u8> {
    let len = 1024 + usize::try_from(number.wrapping_mul(0x9e37_79b9) % 6144).unwrap_or(0);
    let mut text = Vec::with_capacity(len + 64);
    let mut state = number.wrapping_add(1).wrapping_mul(0x2545_f491_4f6c_dd1d);
    while text.len() < len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("    value = {:x};\n", state >> 40).as_bytes());
    }
    text.truncate(len);
    text
}
