//! A tree with everything that makes trouble, and a description of trees to compare.

use std::path::Path;

use crate::testkit::{random_bytes, run_in, text_bytes};

/// Files of all kinds, names, modes, owners, times, links, attributes. Needs root.
const TROUBLE: &str = r#"
mkdir -p plain empty deep/a/b/c/d/e "with space" $'new\nline' -- -dash 'größe'
printf bytes > $'not-utf8-\xe9\xff.c'
printf star > 'plain/*?[x]'
printf long > "plain/$(printf 'x%.0s' {1..255})"
printf dash > ./-dash/-rf
: > plain/nothing
ln plain/big.bin plain/hardlink
ln plain/big.bin deep/a/b/c/hardlink
ln -s plain/big.bin link
ln -s /nowhere/at/all dangling
ln -s "$(printf 'y%.0s' {1..4000})" deep/longlink
mkfifo plain/fifo
mknod plain/char c 10 200
mknod plain/block b 259 1048575
truncate -s 300M plain/sparse
printf middle | dd of=plain/sparse bs=1 seek=150000000 conv=notrunc status=none
chown 12345:54321 plain/big.bin deep/a
chown -h 4000000000:1 link
chmod 4755 plain/text.c; chmod 2775 empty; chmod 1777 deep; chmod 000 plain/nothing
setfattr -n user.comment -v hello plain/big.bin
setfattr -n user.empty deep
setfattr -n user.large -v "0x$(printf 'ab%.0s' {1..3000})" plain/text.c
setfattr -n trusted.mine -v t plain/text.c
setfattr -h -n trusted.onlink -v t link
setfacl -m u:1234:rw,g:4321:r plain/big.bin
setfacl -m d:u:77:rwx,u:77:rwx deep/a/b
setcap cap_net_raw+ep plain/text2.c 2>/dev/null || true
touch -d '1965-03-04 05:06:07.123456789' plain/text.c
touch -d '2200-01-01 00:00:00.000000001' plain/big.bin
touch -h -d '1999-12-31 23:59:59.999999999' link
touch -d '1901-12-14 00:00:00.5' empty
touch -a -d '2001-02-03 04:05:06.7' plain/text2.c
"#;

pub fn make_troublesome_tree(dir: &Path) {
    std::fs::create_dir_all(dir.join("plain")).unwrap();
    std::fs::write(dir.join("plain/big.bin"), random_bytes(1, 3_000_000)).unwrap();
    std::fs::write(dir.join("plain/text.c"), text_bytes(2, 200_000)).unwrap();
    std::fs::write(dir.join("plain/text2.c"), text_bytes(3, 77_777)).unwrap();
    run_in(dir, TROUBLE);
}

/// Source-like files: many, small, in directories.
pub fn make_source_tree(dir: &Path, files: u64, seed: u64) {
    for number in 0..files {
        let sub = dir.join(format!("d{}/e{}", number % 10, number % 7));
        std::fs::create_dir_all(&sub).unwrap();
        let size = [300, 1500, 4000, 9000, 30_000][usize::try_from(number % 5).unwrap()];
        let text = text_bytes(seed * 1_000_000 + number, size);
        std::fs::write(sub.join(format!("f{number}.c")), text).unwrap();
    }
}

/// Everything about a tree that a copy has to keep: kinds, modes, owners, sizes, links, times to
/// the nanosecond, device numbers, targets, xattrs, ACLs, content.
pub fn facts(dir: &Path) -> String {
    run_in(
        dir,
        r"
find . -mindepth 1 \( -type d -printf '%p %y %m %U %G - - %T@\0' -o \
    -printf '%p %y %m %U %G %s %n %T@ %l\0' \) | sort -z | tr '\0' '\n'
find . \( -type b -o -type c \) -print0 | sort -z | xargs -0r stat -c '%n %t:%T'
find . -mindepth 1 -print0 | sort -z | xargs -0 getfattr -h -d -m - --absolute-names -e hex
find . -not -type l -print0 | sort -z | xargs -0 getfacl -n -p
find . -type f -print0 | sort -z | xargs -0r sha256sum
find . -samefile plain/big.bin 2>/dev/null | sort || true
",
    )
}

/// Two trees have the same facts; says which lines differ.
#[track_caller]
pub fn assert_same_facts(expected: &str, found: &str, what: &str) {
    if expected == found {
        return;
    }
    let differ: Vec<String> = expected
        .lines()
        .filter(|line| !found.lines().any(|other| other == *line))
        .map(|line| format!("- {line}"))
        .chain(
            found
                .lines()
                .filter(|line| !expected.lines().any(|other| other == *line))
                .map(|line| format!("+ {line}")),
        )
        .map(|line| line.chars().take(300).collect())
        .take(30)
        .collect();
    panic!("{what}:\n{}", differ.join("\n"));
}
