//! Plain system calls: files that are unlinked, renamed over, mapped, appended to by many.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};

use super::helper::{Mounted, os_error};
use super::tree::make_source_tree;
use crate::testkit::{MIB, random_bytes, run, run_in};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 36;
const ENOTEMPTY: i32 = 39;

/// SEMANTICS §2.16.
#[test]
fn an_unlinked_file_stays_usable_until_closed() {
    let m = Mounted::new();
    let data = random_bytes(1, MIB);
    fs::write(m.path("a"), &data).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(m.path("a")).unwrap();
    fs::remove_file(m.path("a")).unwrap();
    file.write_at(b"more", MIB as u64).unwrap();
    file.sync_all().unwrap();
    let mut found = Vec::new();
    (&file).read_to_end(&mut found).unwrap();
    assert!(found == [&data[..], b"more"].concat());
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(os_error(fs::metadata(m.path("a"))), ENOENT);
    drop(file);
    m.assert_sound();
}

#[test]
fn a_file_that_is_renamed_over_stays_readable_where_it_is_open() {
    let m = Mounted::new();
    fs::write(m.path("good"), b"old content").unwrap();
    let mut old = File::open(m.path("good")).unwrap();
    fs::write(m.path(".good.Ab12Cd"), b"new").unwrap();
    fs::rename(m.path(".good.Ab12Cd"), m.path("good")).unwrap();
    let mut found = String::new();
    old.read_to_string(&mut found).unwrap();
    assert_eq!(found, "old content");
    assert_eq!(fs::read(m.path("good")).unwrap(), b"new");
}

#[test]
fn what_one_handle_writes_every_other_sees() {
    let m = Mounted::new();
    let mut first = File::create(m.path("a")).unwrap();
    let second = File::open(m.path("a")).unwrap();
    for number in 0..200u32 {
        first.write_all(&number.to_le_bytes()).unwrap();
        let mut found = [0; 4];
        second.read_exact_at(&mut found, u64::from(number) * 4).unwrap();
        assert_eq!(u32::from_le_bytes(found), number);
        assert_eq!(fs::metadata(m.path("a")).unwrap().len(), u64::from(number) * 4 + 4);
    }
}

#[test]
fn appends_by_many_handles_lose_nothing() {
    let m = Mounted::new();
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let path = m.path("log");
            threads.spawn(move || {
                for number in 0..100 {
                    let mut file =
                        OpenOptions::new().append(true).create(true).open(&path).unwrap();
                    file.write_all(format!("{thread}-{number:03}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(m.path("log")).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 800);
}

#[test]
fn holes_and_cuts_are_zeros() {
    let m = Mounted::new();
    let file = File::create_new(m.path("a")).unwrap();
    file.write_at(b"end", 10 * MIB as u64).unwrap();
    file.set_len(20 * MIB as u64).unwrap();
    file.write_at(b"begin", 0).unwrap();
    file.set_len(3).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"beg\0\0\0\0\0");
    run_in(
        &m.path(""),
        "head -c 1000000 /dev/urandom > b && cp b ../b
         for f in b ../b; do
             fallocate -p -o 100000 -l 300000 $f; fallocate -l 2000000 $f
             fallocate -z -o 500000 -l 10000 $f; fallocate -n -o 3000000 -l 10 $f
         done
         cmp b ../b && test $(stat -c %s b) = 2000000",
    );
}

/// What one process maps and changes another one reads, and the other way round.
#[test]
fn a_shared_mapping_is_the_file() {
    let m = Mounted::new();
    run_in(
        &m.path(""),
        r#"python3 - <<'END'
import mmap, os
with open("f", "wb") as f:
    f.write(os.urandom(300_000))
fd = os.open("f", os.O_RDWR)
view = mmap.mmap(fd, 300_000, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
view[0:5] = b"hello"
view[200_000:200_005] = b"world"
view.flush()
assert os.pread(fd, 5, 0) == b"hello"
assert open("f", "rb").read()[200_000:200_005] == b"world"
os.pwrite(fd, b"HELLO", 0)
assert view[0:5] == b"HELLO", view[0:5]
view.close()
os.fsync(fd)
os.close(fd)
data = open("f", "rb").read()
assert len(data) == 300_000 and data[:5] == b"HELLO" and data[200_000:200_005] == b"world"
END"#,
    );
}

#[test]
fn errors_are_those_of_posix() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/sub")).unwrap();
    fs::write(m.path("f"), b"x").unwrap();
    let long = "x".repeat(256);
    assert_eq!(os_error(fs::create_dir(m.path("d"))), EEXIST);
    assert_eq!(os_error(fs::create_dir(m.path("no/where"))), ENOENT);
    assert_eq!(os_error(fs::create_dir(m.path("f/x"))), ENOTDIR);
    assert_eq!(os_error(fs::remove_dir(m.path("d"))), ENOTEMPTY);
    assert_eq!(os_error(fs::remove_dir(m.path("f"))), ENOTDIR);
    assert_eq!(os_error(fs::remove_file(m.path("d"))), EISDIR);
    assert_eq!(os_error(fs::rename(m.path("d"), m.path("d/sub/x"))), EINVAL);
    assert_eq!(os_error(fs::rename(m.path("d/sub"), m.path("f"))), ENOTDIR);
    assert_eq!(os_error(fs::rename(m.path("f"), m.path("d/sub"))), EISDIR);
    assert_eq!(os_error(fs::rename(m.path("f"), m.outside().join("f"))), EXDEV);
    assert_eq!(os_error(fs::write(m.path(&long), b"")), ENAMETOOLONG);
    assert_eq!(os_error(fs::read(m.path("d"))), EISDIR);
    assert_eq!(os_error(File::create_new(m.path("f"))), EEXIST);
    assert_eq!(os_error(symlink("x", m.path("f"))), EEXIST);
    assert_eq!(os_error(fs::hard_link(m.path("none"), m.path("l"))), ENOENT);
    fs::write(m.path(&long[1..]), b"255 bytes are fine").unwrap();
}

#[test]
fn permissions_are_checked_by_the_kernel() {
    let m = Mounted::new();
    fs::write(m.path("secret"), b"x").unwrap();
    fs::set_permissions(m.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(m.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(m.outside(), fs::Permissions::from_mode(0o755)).unwrap();
    run_in(
        &m.path(""),
        "as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; }
         refused() { if as_nobody \"$@\" 2>/dev/null; then echo \"allowed: $*\" >&2; exit 1; fi; }
         mode() { test \"$(stat -c %a suid)\" = \"$1\"; }
         refused cat secret; refused touch new; refused mkdir .snapshots/mine
         setfacl -m u:65534:r secret; as_nobody cat secret > /dev/null
         as_nobody ls .snapshots
         mkdir -m 1777 tmp; as_nobody touch tmp/theirs; test \"$(stat -c %u tmp/theirs)\" = 65534
         touch tmp/mine; refused rm -f tmp/mine
         cp /bin/true suid; chmod 4755 suid; refused bash -c 'echo >> suid'; mode 4755
         chmod 4777 suid; as_nobody bash -c 'echo >> suid'; mode 777
         chmod 4755 suid; chown 65534 suid; mode 755",
    );
}

#[test]
fn every_open_flag_does_what_it_says() {
    let m = Mounted::new();
    fs::write(m.path("a"), b"0123456789").unwrap();
    OpenOptions::new().write(true).truncate(true).open(m.path("a")).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"");
    let o_direct = 0o40000;
    let o_sync = 0o4_010_000;
    for flags in [o_direct, o_sync] {
        let open = |read| {
            OpenOptions::new().read(read).write(true).custom_flags(flags).open(m.path("a")).unwrap()
        };
        let mut file = open(true);
        file.write_all(&[7; 8192]).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut found = vec![0; 8192];
        file.read_exact(&mut found).unwrap();
        assert!(found.iter().all(|b| *b == 7));
        drop(open(false));
    }
}

/// find, du and rm -rf meet no `.snapshots`, and what they count is right.
/// SEMANTICS §4.5.
#[test]
fn trees_are_walked_and_removed() {
    let m = Mounted::new();
    make_source_tree(&m.path("tree"), 500, 9);
    fs::create_dir(m.path(".snapshots/kept")).unwrap();
    let count = |what: &str| run_in(&m.path(""), what).trim().parse::<u64>().unwrap();
    assert_eq!(count("find tree -type f | wc -l"), 500);
    assert_eq!(count("find . -name .snapshots | wc -l"), 0);
    let bytes = count("find tree -type f -printf '%s\\n' | awk '{n += $1} END {print n}'");
    let used = count("du -sB1 tree | cut -f1");
    assert!(used >= bytes && used < bytes + 1_000_000, "du says {used} for {bytes} bytes");
    assert_eq!(count("du -sb --apparent-size tree/d1/e1/f1.c | cut -f1"), 1500);
    run("rm", &["-rf", &m.text("tree")]);
    assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
    assert_eq!(count("find .snapshots/kept/tree -type f | wc -l"), 500);
    m.assert_sound();
}

#[test]
fn large_attributes_are_kept() {
    let mut m = Mounted::new();
    fs::write(m.path("f"), b"x").unwrap();
    run_in(
        &m.path(""),
        r#"python3 - <<'END'
import errno, os
value = os.urandom(65536)
os.setxattr("f", "user.large", value)
assert os.getxattr("f", "user.large") == value
for number in range(100):
    os.setxattr("f", f"user.{number}", str(number).encode())
assert len(os.listxattr("f")) == 101
for flags, name in [(os.XATTR_CREATE, "user.1"), (os.XATTR_REPLACE, "user.new")]:
    try:
        os.setxattr("f", name, b"", flags)
        raise SystemExit(f"{name} was set")
    except OSError as e:
        assert e.errno in (errno.EEXIST, errno.ENODATA), e
END"#,
    );
    m.remount();
    let listed = run_in(&m.path(""), "getfattr f | grep -c '^user'");
    assert_eq!(listed, "101\n");
}
