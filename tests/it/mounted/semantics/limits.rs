//! How many and how long.

use super::python;
use crate::mounted::helper::Mounted;

/// SEMANTICS §2.10: 65,000 links, names of 255 bytes, targets of 4095, xattrs of 64 KiB and 64 KiB
/// of their names.
#[test]
fn limits_are_where_they_are_said_to_be() {
    let mut m = Mounted::new();
    python(
        &m,
        r#"
os.mkdir("links")
write("f")
d = os.open("links", os.O_RDONLY)
for number in range(64999):
    os.link("f", str(number), dst_dir_fd=d)
assert os.stat("f").st_nlink == 65000
refused(errno.EMLINK, os.link, "f", "links/more")
os.unlink("links/0")
os.link("f", "links/more")
refused(errno.EMLINK, os.link, "f", "links/another")

write("n" * 255)
refused(errno.ENAMETOOLONG, write, "n" * 256)
os.symlink("t" * 4095, "link")
assert os.readlink("link") == "t" * 4095
refused(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "longer")

os.setxattr("f", "user.value", b"v" * 65536)
refused(errno.E2BIG, os.setxattr, "f", "user.longer", b"v" * 65537)
os.setxattr("f", "user." + "n" * 250, b"1")
refused(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"1")
write("many")
taken = 0
while True:
    name = f"user.{taken:0250}"
    try:
        os.setxattr("many", name, b"")
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        break
    taken += 1
assert taken == 65536 // 256, taken
assert len(os.listxattr("many")) == taken
"#,
    );
    m.remount();
    python(
        &m,
        r#"
assert os.stat("f").st_nlink == 65000
assert len(os.listdir("links")) == 64999
assert os.getxattr("f", "user.value") == b"v" * 65536
assert len(os.listxattr("many")) == 256
for name in os.listdir("links"):
    os.unlink("links/" + name)
assert os.stat("f").st_nlink == 1
"#,
    );
    m.assert_sound();
}
