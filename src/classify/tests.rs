//! Tests of the room `classify`.

use std::path::Path;

use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

use super::names::{all_extensions, all_names, is_known_extension};
use super::{Classifier, Facts, RuleRef};
use crate::config::{
    ARCHIVE, BINARY, Config, DATABASE, IMAGE, LOG, MAIL, MEDIA, OFFICE, OTHER, SOURCE,
};
use crate::error::Error;
use crate::limits::MAGIC_BYTES;
use crate::types::ClassId;

fn built_in() -> Classifier {
    Classifier::new(&Config::default()).unwrap()
}

fn configured(text: &str) -> Classifier {
    Classifier::new(&Config::parse(text, Path::new("/vol/config.toml")).unwrap()).unwrap()
}

fn class_of(classifier: &Classifier, name: &[u8], head: &[u8]) -> ClassId {
    classifier.classify(&Facts { name, head, ..Facts::default() }).class
}

/// Bytes with `parts` at their offsets and zeros between.
fn head(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = vec![0; MAGIC_BYTES];
    for (offset, bytes) in parts {
        head[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    head
}

const BY_NAME: &[(ClassId, &str)] = &[
    (
        SOURCE,
        "main.rs a.C Makefile GNUmakefile README LICENSE readme.md x.TXT .bashrc bashrc a.json",
    ),
    (
        SOURCE,
        "CMakeLists.txt Dockerfile Dockerfile.dev README-win .gitignore Cargo.lock nginx.conf",
    ),
    (
        SOURCE,
        "app.js~ main.c.orig nginx.conf.sample .env .env.sample foo.d.ts makefile.old a.patch",
    ),
    (
        SOURCE,
        "report.config App.Config build.gradle photo.jpg.sha256 dump.sql .vimrc x.csv logo.svg",
    ),
    (OFFICE, "a.doc b.DOCX c.xlsx d.odt e.pdf f.epub g.ps h.pages i.rtf j.pdf.bak k.pptx.1"),
    (MAIL, "a.eml inbox.mbox archive.pst x.msg mbox 1700000000.M123P456.host:2,S"),
    (MAIL, "1700000000.M123P456.host,S=1234,W=1250:2,RS 1700000000.27351_118.host"),
    (MAIL, "1035478339.V801I3f2aM12345.host"),
    (MEDIA, "a.jpg B.JPEG c.mp4 d.mp3 e.flac f.mkv g.cr2 h.heic i.wav photo.png.tmp j.opus"),
    (ARCHIVE, "a.zip b.tar c.tar.gz d.tgz e.7z f.log.gz g.sql.xz h.img.zst i.deb j.rpm k.jar"),
    (BINARY, "a.exe b.so libc.so.6 libz.so.1.2.13 c.o d.a e.class f.pyc g.dll h.ko vmlinuz i.wasm"),
    (IMAGE, "a.qcow2 b.vmdk c.vdi d.vhdx e.img f.iso g.raw"),
    (DATABASE, "a.db b.sqlite c.sqlite3 d.mdb e.ibd f.frm g.MYD ibdata1 .data.sqlite h.kdbx"),
    (LOG, "a.log a.log.1 syslog syslog.1 a.log.202401 a.log-20240101 auth.log messages-20240101"),
    (LOG, "system.journal x.evtx app.log.old kern.log.2 access_log error_log.3"),
    (OTHER, "noext a.xyz .hidden a. a.b.q data.bin .jpg .. x.aB3dE9 7 data.dat example.com"),
];

#[test]
fn names_tell_classes() {
    let classifier = built_in();
    for (class, names) in BY_NAME {
        for name in names.split_whitespace() {
            let verdict = classifier.classify(&Facts { name: name.as_bytes(), ..Facts::default() });
            assert_eq!(verdict.class, *class, "{name}: {}", verdict.rule);
        }
    }
    assert_eq!(class_of(&classifier, b"\xff\xfe\x80.jpg", b""), MEDIA);
    assert_eq!(class_of(&classifier, b"caf\xe9", b""), OTHER);
    assert_eq!(class_of(&classifier, &[b'a'; 255], b""), OTHER);
    assert_eq!(class_of(&classifier, b"", b""), OTHER);
}

#[test]
fn first_bytes_tell_classes() {
    let classifier = built_in();
    let partition: &[u8] = &[0x80, 1, 1, 0, 0x83, 1, 1, 1, 0, 8, 0, 0, 0, 0, 1, 0];
    let ext4 = head(&[(1024, &[1]), (1048, &[2]), (1080, &[0x53, 0xef, 1])]);
    let transport = head(&[(0, b"G"), (188, b"G"), (376, b"G")]);
    let heads: &[(ClassId, &[u8])] = &[
        (BINARY, b"\x7fELF\x02\x01\x01"),
        (BINARY, b"\xca\xfe\xba\xbe\0\0\0\x34"),
        (BINARY, b"!<arch>\nlib.o/"),
        (BINARY, &head(&[(0, b"MZ\x90\0"), (0x3c, &[0x80]), (0x80, b"PE\0\0")])),
        (BINARY, &head(&[(0, b"MZ\x90\0\x03")])),
        (BINARY, &head(&[(0x202, b"HdrS"), (510, b"\x55\xaa")])),
        (ARCHIVE, b"!<arch>\ndebian-binary   1"),
        (MEDIA, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        (MEDIA, b"\xff\xd8\xff\xe0\0\x10JFIF"),
        (MEDIA, b"\0\0\0\x20ftypisom\0\0\x02\0"),
        (MEDIA, b"RIFF\x24\0\0\0WAVEfmt "),
        (MEDIA, b"RIFF\x24\0\0\0WEBPVP8 "),
        (MEDIA, b"\xff\xfb\x90\x64\0\0\0\0"),
        (MEDIA, &transport),
        (OFFICE, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3"),
        (OFFICE, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0"),
        (OFFICE, b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0aaaabbbbcccc\x13\0\0\0[Content_Types].xml"),
        (
            OFFICE,
            b"PK\x03\x04\x0a\0\0\0\0\0aaaabbbbccccdddd\x08\0\0\0mimetypeapplication/vnd.oasis",
        ),
        (ARCHIVE, b"PK\x03\x04\x14\0\0\0\x08\0aaaabbbbccccdddd\x08\0\0\0file.txt"),
        (ARCHIVE, b"\x1f\x8b\x08\0\0\0\0\0"),
        (ARCHIVE, b"\xfd7zXZ\0\0\x04"),
        (ARCHIVE, b"BZh91AY&SY"),
        (ARCHIVE, b"\x78\x01\x4b\xca\xc9\x4f\x52\x30"),
        (ARCHIVE, &head(&[(0, b"dir/file"), (257, b"ustar\x0000")])),
        (DATABASE, b"SQLite format 3\0\x10\0"),
        (IMAGE, b"QFI\xfb\0\0\0\x03"),
        (IMAGE, b"KDMV\x01\0\0\0"),
        (IMAGE, &head(&[(446, partition), (510, b"\x55\xaa")])),
        (IMAGE, &head(&[(54, b"FAT16   "), (510, b"\x55\xaa")])),
        (IMAGE, &head(&[(512, b"EFI PART")])),
        (IMAGE, &ext4),
        (MAIL, b"From joe@example.org Mon Jan  1 12:00:00 2024\nReturn-Path: <joe>\n"),
        (MAIL, b"Return-Path: <joe@example.org>\r\nReceived: from x\r\n"),
        (MAIL, b"!BDN\xc8\x1e"),
        (SOURCE, b"#!/bin/sh\necho hello\n"),
        (SOURCE, b"From here on this is a plain story.\nIt goes on.\n"),
        (SOURCE, "größe = 1\nname = \"Müller\"\n".as_bytes()),
        (SOURCE, b"Stra\xdfe und Gr\xf6\xdfe in Latin-1, mostly plain letters though\n"),
        (SOURCE, b"\xff\xfeh\0i\0\n\0"),
        (SOURCE, b"x^2 + y^2\n"),
        (SOURCE, b"{}"),
        (OTHER, b""),
        (OTHER, &[0; 4096]),
        (OTHER, b"\x01\x02\x03\x04\x80\x81\x82\xff\0\0\x10"),
        (OTHER, &head(&[(510, b"\x55\xaa")])),
    ];
    for (class, bytes) in heads {
        let verdict = classifier.classify(&Facts { name: b"x", head: bytes, ..Facts::default() });
        let start = &bytes[..bytes.len().min(24)];
        assert_eq!(verdict.class, *class, "{}: {}", start.escape_ascii(), verdict.rule);
    }
}

#[test]
fn decisive_bytes_outweigh_names_and_containers_yield() {
    let classifier = built_in();
    let zip: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0aaaabbbbccccdddd\x08\0\0\0file.txt";
    let transport = head(&[(0, b"G"), (188, b"G"), (376, b"G")]);
    let cases: &[(&str, &[u8], ClassId)] = &[
        ("photo.jpg", b"\x7fELF\x02\x01", BINARY),
        ("notes.txt", b"\x89PNG\r\n\x1a\n", MEDIA),
        ("app.log", b"\x1f\x8b\x08\0", ARCHIVE),
        ("data.dat", b"SQLite format 3\0", DATABASE),
        ("video.ts", &transport, MEDIA),
        ("code.ts", b"import x from 'y'", SOURCE),
        ("disk.img", b"\x1f\x8b\x08\0", ARCHIVE),
        ("photo.jpg", zip, ARCHIVE),
        ("a.docx", zip, OFFICE),
        ("a.odt", zip, OFFICE),
        ("a.jar", zip, ARCHIVE),
        (
            "a.zip",
            b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0aaaabbbbcccc\x13\0\0\0[Content_Types].xml",
            ARCHIVE,
        ),
        ("mail.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", MAIL),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", DATABASE),
        ("setup.msi", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", BINARY),
        ("server.key", b"-----BEGIN PRIVATE KEY-----\n", SOURCE),
        ("0001-fix.patch", b"From 0123456789 Mon Sep 17 00:00:00 2001\n", SOURCE),
        ("2020.txt", b"From joe at x.org Mon Jan  1 12:00:00 2024\n", SOURCE),
        ("app.log", b"2024-01-01 all is text here\n", LOG),
        ("song.mp3", b"plain text that lies", MEDIA),
    ];
    for (name, bytes, class) in cases {
        assert_eq!(class_of(&classifier, name.as_bytes(), bytes), *class, "{name}");
    }
}

/// No head of any length may lead a check beyond its end.
#[test]
fn cut_and_hostile_heads_are_answered() {
    let classifier = built_in();
    let long = head(&[
        (446, &[0x80, 1, 1, 0, 0x83, 1, 1, 1, 0, 8, 0, 0, 0, 0, 1, 0]),
        (510, b"\x55\xaa"),
        (1024, &[1]),
        (1080, &[0x53, 0xef, 1]),
    ]);
    for len in 0..long.len() {
        class_of(&classifier, b"x", &long[..len]);
    }
    let starts = proptest::sample::select(vec![
        &b""[..],
        b"MZ",
        b"PK\x03\x04",
        b"RIFF",
        b"FORM",
        b"BZh9",
        b"G",
        b"From ",
        b"\0\0\0\x10ftyp",
        b"\xff\xfe",
        b"BM",
        b"x\x9c",
    ]);
    let rest = proptest::collection::vec(any::<u8>(), 0..1200);
    proptest!(ProptestConfig::with_cases(300), |(start in starts, rest in rest)| {
        class_of(&classifier, b"x", &[start, &rest].concat());
    });
}

/// The names rsync gives `name` while it writes it, with the six letters `random`.
fn temp_forms(name: &[u8], random: &str) -> [Vec<u8>; 2] {
    let dot: &[u8] = if name.starts_with(b".") { b"" } else { b"." };
    let suffix = format!(".{random}");
    [[dot, name, suffix.as_bytes()].concat(), [name, suffix.as_bytes()].concat()]
}

#[test]
fn every_known_name_has_its_class_under_every_temporary_name() {
    let classifier = built_in();
    let by_extension = all_extensions().map(|(word, class)| (format!("file.{word}"), class));
    let by_name = all_names().map(|(word, class)| (word.to_owned(), class));
    let mut count = 0;
    for (name, class) in by_extension.chain(by_name) {
        assert_eq!(class_of(&classifier, name.as_bytes(), b""), class, "{name}");
        for random in ["aB3dE9", "ZZZZZZ", "abcdef", "123456", "Abcdef", "abc123", "0aaaaa"] {
            for temp in temp_forms(name.as_bytes(), random) {
                let found = class_of(&classifier, &temp, b"");
                assert_eq!(found, class, "{name} as {}", temp.escape_ascii());
                count += 1;
            }
        }
    }
    assert!(count > 10_000, "{count} names are not all");
}

#[test]
fn any_name_has_its_class_under_every_temporary_name() {
    let classifier = built_in();
    let words: Vec<&str> = all_extensions().map(|(word, _)| word).collect();
    let part = proptest::prop_oneof![
        "[a-zA-Z0-9._~:,-]{1,8}".prop_map(String::from),
        proptest::sample::select(words).prop_map(str::to_owned),
        proptest::sample::select(vec!["README", "Makefile", "bak", "1", "202401", "aB3dE9", "log"])
            .prop_map(str::to_owned),
    ];
    let name = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("."));
    proptest!(ProptestConfig::with_cases(5_000), |(name in name, random in "[a-zA-Z0-9]{6}")| {
        // A name of dots alone is no file's; letters that are an extension are too rare to tell.
        proptest::prop_assume!(name.bytes().any(|byte| byte != b'.'));
        proptest::prop_assume!(!is_known_extension(random.as_bytes()));
        let expected = class_of(&classifier, name.as_bytes(), b"");
        for temp in temp_forms(name.as_bytes(), &random) {
            let found = class_of(&classifier, &temp, b"");
            proptest::prop_assert_eq!(found, expected, "{} as {}", name, temp.escape_ascii());
        }
    });
}

/// rsync cuts long names to fit: then only the bytes can tell.
#[test]
fn a_cut_name_is_told_by_its_bytes() {
    let classifier = built_in();
    let name = [&[b'.'][..], &[b'n'; 243], b".jp.aB3dE9"].concat();
    assert_eq!(class_of(&classifier, &name, b"\xff\xd8\xff\xe0"), MEDIA);
    assert_eq!(class_of(&classifier, &name, b""), OTHER);
}

#[test]
fn rules_of_the_file_come_first_and_in_order() {
    let classifier = configured(
        r#"
        [[rule]]
        class = "log"
        glob = "*.raw"
        owner = 7
        [[rule]]
        class = "media"
        glob = ["*.RAW", "dsc[0-9]*"]
        [[rule]]
        class = "mail"
        path = ["photos/*.raw2", "deep/**"]
        [[rule]]
        class = "binary"
        magic = "hex:cafe"
        magic_offset = 2
        min_bytes = 10
        max_bytes = 20
        [[rule]]
        class = "office"
        group = 5
        [[rule]]
        class = "database"
        glob = [".secret*", "*.dot?le", ".*"]
        "#,
    );
    assert!(classifier.needs_path());
    assert!(!built_in().needs_path());
    let facts = |name: &'static str| Facts { name: name.as_bytes(), ..Facts::default() };
    let file = |path: &'static str| Facts {
        name: path.rsplit('/').next().unwrap().as_bytes(),
        path: Some(path.as_bytes()),
        ..Facts::default()
    };
    let magic = Facts { head: b"..\xca\xfe", size: 15, ..facts("x") };
    let cases = [
        (Facts { uid: 7, ..facts("a.raw") }, LOG),
        (facts("a.raw"), MEDIA),
        (facts("A.Raw"), MEDIA),
        (facts(".a.raw.aB3dE9"), MEDIA),
        (facts("a.raw.aB3dE9"), MEDIA),
        (facts("a.raw.abcdef"), MEDIA),
        (facts(".a.raw.abcdef"), MEDIA),
        (facts("DSC01"), MEDIA),
        (facts(".DSC01.aB3dE9"), MEDIA),
        (facts("DSC.raw2"), OTHER),
        (file("photos/a.raw2"), MAIL),
        (file("photos/.a.raw2.aB3dE9"), MAIL),
        (file("photos/.~tmp~/a.raw2"), MAIL),
        (file("photos/.rsync-partial/a.raw2"), MAIL),
        (file("photos/more/a.raw2"), OTHER),
        (file("Photos/a.raw2"), OTHER),
        (file("a.raw2"), OTHER),
        (file("deep/er/still/x.jpg"), MAIL),
        (magic, BINARY),
        (Facts { size: 9, ..magic }, OTHER),
        (Facts { size: 21, ..magic }, OTHER),
        (Facts { head: b"..\xca", ..magic }, OTHER),
        (Facts { gid: 5, ..facts("a.jpg") }, OFFICE),
        (facts(".secret.txt"), DATABASE),
        (facts(".secret.txt.aB3dE9"), DATABASE),
        (facts("secret.txt"), SOURCE),
        (facts(".anything"), DATABASE),
        // `.*` cannot know whether the dot is rsync's.
        (facts(".a.jpg.aB3dE9"), MEDIA),
        (facts("a.jpg"), MEDIA),
    ];
    for (facts, class) in cases {
        let verdict = classifier.classify(&facts);
        assert_eq!(verdict.class, class, "{}: {}", facts.name.escape_ascii(), verdict.rule);
    }
}

#[test]
fn verdicts_say_why() {
    let classifier = configured(
        "[[rule]]\nclass = \"media\"\nglob = [\"*.raw\", \"*.nef\"]\nowner = 1\n[[rule]]\nclass = \
         \"log\"\npath = \"logs/**\"\nmagic = \"hex:00ff\"\nmin_bytes = \"1k\"",
    );
    let why = |facts: Facts<'_>| classifier.classify(&facts).rule.to_string();
    let raw = Facts { name: b"x.raw", uid: 1, ..Facts::default() };
    assert_eq!(why(raw), "rule 1 of config.toml (glob \"*.raw\" or \"*.nef\", owner 1)");
    let log = Facts { path: Some(b"logs/x"), head: b"\0\xff", size: 1024, ..Facts::default() };
    assert_eq!(
        why(log),
        "rule 2 of config.toml (path \"logs/**\", magic \"\\x00\\xff\", min_bytes 1024)"
    );
    assert_eq!(why(Facts { name: b"a.JPG", ..raw }), "built-in name *.jpg");
    assert_eq!(why(Facts { name: b"Makefile", ..raw }), "built-in name makefile");
    assert_eq!(
        why(Facts { name: b"x", head: b"\x89PNG\r\n\x1a\n", ..raw }),
        "built-in magic PNG image"
    );
    assert_eq!(why(Facts { name: b"x", head: b"text", ..raw }), "built-in magic text");
    assert_eq!(why(Facts { name: b"x", ..raw }), "default");
    assert_eq!(classifier.classify(&Facts { name: b"x", ..raw }).rule, RuleRef::Default);
}

#[test]
fn a_bad_glob_is_named_with_its_rule() {
    for (key, text) in [("glob", "a[b"), ("path", "x/{a,b")] {
        let rule = "[[rule]]\nclass = \"log\"";
        let text = format!("{rule}\nowner = 1\n{rule}\n{key} = [\"ok\", \"{text}\"]");
        let config = Config::parse(&text, Path::new("/vol/config.toml")).unwrap();
        let Err(Error::Config { what }) = Classifier::new(&config) else { panic!("{text}") };
        for part in [key, "[[rule]] 2", "/vol/config.toml, line 4", "unclosed"] {
            assert!(what.contains(part), "{what} without {part}");
        }
    }
}

#[test]
fn unknown_class_numbers_are_other() {
    let classifier = configured("[classes.mine]\nid = 20");
    assert_eq!(classifier.class(ClassId(20)).name, "mine");
    assert_eq!(classifier.class(MEDIA).name, "media");
    for gone in [10, 19, 21, 63, 255] {
        assert_eq!(classifier.class(ClassId(gone)).name, "other");
    }
    assert_eq!(classifier.class_named("mine").unwrap().id, ClassId(20));
    assert_eq!(classifier.class_named("gone"), None);
    assert_eq!(classifier.classes().len(), 11);
    assert_eq!(classifier.head_bytes(), MAGIC_BYTES);
}
