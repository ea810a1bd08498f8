//! Tests of the room `config`.

use std::path::Path;

use super::{
    CONFIG_FILE, Chunking, CodecSetting, Config, GcConfig, IMAGE, LOG, Limits, MEDIA, MagicSpec,
    OTHER, SOURCE, ScrubLimits, first_cuts,
};
use crate::error::Error;
use crate::limits::CHUNK_BYTES_MAX;
use crate::types::ClassId;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, Path::new("/vol/config.toml"))
}

fn sentence(result: Result<Config, Error>) -> String {
    match result {
        Err(Error::Config { what }) => what,
        other => panic!("{other:?} instead of a config error"),
    }
}

#[test]
fn an_empty_file_and_no_file_are_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    assert_eq!(Config::load(&path).unwrap(), Config::default());
    std::fs::write(&path, "# nothing\n").unwrap();
    let loaded = Config::load(&path).unwrap();
    assert_eq!(loaded, Config { path: Some(path), ..Config::default() });
}

#[test]
fn the_example_loads_and_shows_the_defaults() {
    let text = include_str!("../../docs/config.example.toml");
    let config = parse(text).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.scrub, ScrubLimits::default());
    let media = config.classes.iter().find(|class| class.id == MEDIA).unwrap();
    let mut default = Config::default().classes[usize::from(MEDIA.0)].clone();
    default.line = media.line;
    assert_eq!(*media, default);
    assert_eq!(config.classes.len(), 11);
    assert_eq!(config.rules.len(), 3);
    config.check_shards(&["default"]).unwrap();
}

#[test]
fn built_in_classes_have_their_ids_and_valid_sizes() {
    let names: Vec<String> = Config::default().classes.into_iter().map(|c| c.name).collect();
    let expected = [
        "other", "source", "office", "mail", "media", "archive", "binary", "image", "database",
        "log",
    ];
    assert_eq!(names, expected);
    for (place, class) in (0..).zip(Config::default().classes) {
        assert_eq!(class.id, ClassId(place));
        match class.chunking {
            Chunking::Cdc { min, avg, max } | Chunking::MinCdc { min, avg, max } => {
                assert!(min < avg && avg < max && max <= CHUNK_BYTES_MAX);
                assert!(avg.is_power_of_two());
            }
            Chunking::Fixed { bytes } => {
                assert!(bytes.is_power_of_two() && bytes <= CHUNK_BYTES_MAX);
            }
        }
    }
}

/// What was stored is found again only if it is cut as before: a volume's own cuts come first.
#[test]
fn a_volume_keeps_its_cuts_where_the_file_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    let cut = |config: &Config, id: ClassId| {
        config.classes.iter().find(|class| class.id == id).unwrap().chunking
    };
    let (new, old) =
        (Config::load(&path).unwrap(), Config::load_over(&path, &first_cuts()).unwrap());
    assert_eq!(new, Config::default());
    assert_eq!((cut(&new, LOG), cut(&old, LOG)), (Chunking::min_cdc(65536), Chunking::cdc(65536)));
    let text = "[classes.log]\navg_bytes = 8192\n[classes.image]\nchunking = \"mincdc\"";
    std::fs::write(&path, text).unwrap();
    let old = Config::load_over(&path, &first_cuts()).unwrap();
    assert_eq!(cut(&old, LOG), Chunking::cdc(8192), "only its size is said");
    assert_eq!(cut(&old, IMAGE), Chunking::min_cdc(65536));
    assert_eq!(cut(&old, SOURCE), Chunking::cdc(16384));
    for (id, chunking) in first_cuts() {
        assert!(
            cut(&Config::load_over(Path::new("/none"), &first_cuts()).unwrap(), id) == chunking
        );
    }
}

#[test]
fn limits_take_numbers_and_texts() {
    let config = parse(
        "[limits]\ncommit_interval_secs = 60\ndirty_bytes = 8388608\nfile_dirty_bytes = \"2 MiB\"\n\
         overlay_bytes = 0x1000000\ncache_bytes = \"1GiB\"\nblock_cache_bytes = \"10MB\"\n\
         queue_bytes = \"4m\"\nreserve_bytes = 0\nworkers = 3\nopen_files = 100\n\
         append_bytes = \"3MiB\"\nwrite_buffer_bytes = \"20MiB\"\ncontainer_bytes = \"2MiB\"",
    );
    let expected = Limits {
        commit_interval_secs: 60,
        dirty_bytes: 8 << 20,
        file_dirty_bytes: 2 << 20,
        overlay_bytes: 16 << 20,
        cache_bytes: 1 << 30,
        block_cache_bytes: 10_000_000,
        queue_bytes: 4 << 20,
        reserve_bytes: 0,
        workers: 3,
        write_buffer_bytes: 20 << 20,
        append_bytes: 3 << 20,
        open_files: 100,
        container_bytes: 2 << 20,
    };
    assert_eq!(config.unwrap().limits, expected);
    let small = parse("[limits]\ndirty_bytes = \"3MiB\"").unwrap().limits;
    assert_eq!((small.dirty_bytes, small.file_dirty_bytes), (3 << 20, 3 << 20));
    let large = parse("[limits]\noverlay_bytes = \"100MiB\"").unwrap().limits;
    assert_eq!(large.write_buffer_bytes, 100 << 20, "a commit fits");
}

#[test]
fn scrub_has_a_rate_and_an_interval() {
    let scrub = |text| parse(text).unwrap().scrub;
    let default = ScrubLimits::default();
    assert_eq!(scrub("[scrub]"), default);
    let fast = ScrubLimits { rate_bytes: 100 << 20, ..default };
    assert_eq!(scrub("[scrub]\nrate = \"100MiB\""), fast);
    assert_eq!(scrub("[scrub]\ninterval_days = 0"), ScrubLimits { interval_days: 0, ..default });
    for bad in ["rate = 0", "rate = \"1k\"", "interval_days = -1", "interval_days = 3651"] {
        let text = sentence(parse(&format!("[scrub]\n{bad}")));
        assert!(text.contains("section [scrub]") && text.contains("line 2"), "{text}");
    }
    assert!(sentence(parse("[scrub]\ndays = 1")).contains("valid keys are rate, interval_days"));
}

#[test]
fn metrics_listen_on_the_loopback_address_unless_told_otherwise() {
    let listen = |text: &str| parse(text).unwrap().metrics.listen.map(|a| a.to_string());
    assert_eq!(listen("[metrics]"), None);
    assert_eq!(listen("[metrics]\nlisten = \"9464\"").unwrap(), "127.0.0.1:9464");
    assert_eq!(listen("[metrics]\nlisten = \"[::1]:1\"").unwrap(), "[::1]:1");
    let all = "[metrics]\nlisten = \"0.0.0.0:9464\"\nremote = true";
    assert_eq!(listen(all).unwrap(), "0.0.0.0:9464");
}

#[test]
fn gc_takes_its_section() {
    let config = parse(
        "[gc]\nauto = false\nauto_bytes = \"2GiB\"\ndelay_secs = 0\ninterval_mins = 5\n\
         min_dead_percent = 75\nrepack_bytes_per_sec = 0",
    );
    let expected = GcConfig {
        auto: false,
        auto_bytes: 2 << 30,
        delay_secs: 0,
        interval_mins: 5,
        min_dead_percent: 75,
        repack_bytes_per_sec: 0,
    };
    assert_eq!(config.unwrap().gc, expected);
    assert_eq!(parse("[gc]\nauto = true").unwrap().gc, GcConfig::default());
    for bad in ["auto = 1", "min_dead_percent = 49", "auto_bytes = 0", "every = 1"] {
        let error = parse(&format!("[gc]\n{bad}")).unwrap_err().to_string();
        assert!(error.contains("[gc]") && error.contains("line 2"), "{bad}: {error}");
    }
}

#[test]
fn classes_change_only_what_is_said() {
    let config = parse(
        r#"
        [classes.image]
        avg_bytes = "64KiB"
        shards = { ssd = 2, hdd1 = 1 }
        fallback = false
        [classes.source]
        chunking = "fixed"
        level = 9
        group_bytes = "32 KiB"
        [classes.other]
        codec = "none"
        shards = ["a", "b"]
        fallback = "c"
        [classes.b-2]
        id = 63
        [classes.a]
        id = 17
        chunking = "cdc"
        avg_bytes = 4096
        codec = "zstd"
        level = -7
        shards = "ssd"
        "#,
    )
    .unwrap();
    let class = |id: ClassId| config.classes.iter().find(|class| class.id == id).unwrap();
    let image = class(IMAGE);
    assert_eq!(image.chunking, Chunking::min_cdc(64 * 1024));
    assert_eq!((image.codec, image.group_bytes), (CodecSetting::Auto, 64 * 1024));
    let mut shards = image.shards.clone();
    shards.sort();
    assert_eq!(shards, [("hdd1".to_owned(), 1), ("ssd".to_owned(), 2)]);
    assert_eq!(image.fallback, None);
    assert_eq!(image.line, 2);
    assert_eq!(class(SOURCE).group_bytes, 32 * 1024);
    assert_eq!(class(SOURCE).chunking, Chunking::Fixed { bytes: 16 * 1024 });
    assert_eq!(class(SOURCE).codec, CodecSetting::Zstd { level: 9 });
    assert_eq!(class(OTHER).codec, CodecSetting::None);
    assert_eq!(class(OTHER).shards, [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(class(OTHER).fallback.as_deref(), Some("c"));
    let a = class(ClassId(17));
    assert_eq!(a.chunking, Chunking::Cdc { min: 1024, avg: 4096, max: 16384 });
    assert_eq!(a.codec, CodecSetting::Zstd { level: -7 });
    assert_eq!(a.shards, [("ssd".to_owned(), 1)]);
    assert_eq!(class(ClassId(63)).name, "b-2");
    assert!(config.classes.is_sorted_by_key(|class| class.id));
}

#[test]
fn rules_keep_their_order_and_conditions() {
    let config = parse(
        r#"
        [[rule]]
        class = "media"
        glob = "*.raw"
        [[rule]]
        class = "scans"
        glob = ["*.a", "*.b"]
        path = "photos/**"
        magic = "hex:89504E47"
        magic_offset = 4
        owner = 1000
        group = 100
        min_bytes = "1MiB"
        max_bytes = 4194304
        [[rule]]
        class = "log"
        magic = "plain text"
        [classes.scans]
        id = 16
        "#,
    )
    .unwrap();
    let [one, two, three] = &config.rules[..] else { panic!("{:?}", config.rules) };
    assert_eq!((one.number, one.line, one.class), (1, 2, MEDIA));
    assert_eq!(one.globs, ["*.raw"]);
    assert_eq!(two.class, ClassId(16));
    assert_eq!(two.globs, ["*.a", "*.b"]);
    assert_eq!(two.paths, ["photos/**"]);
    assert_eq!(two.magic, Some(MagicSpec { offset: 4, bytes: b"\x89PNG".to_vec() }));
    assert_eq!((two.owner, two.group), (Some(1000), Some(100)));
    assert_eq!((two.min_bytes, two.max_bytes), (Some(1 << 20), Some(4 << 20)));
    assert_eq!(three.magic, Some(MagicSpec { offset: 0, bytes: b"plain text".to_vec() }));
}

/// Each bad text, and what its one sentence has to contain besides the file.
const BAD: &[(&str, &[&str])] = &[
    ("[limits\n", &["Not TOML", "line 1"]),
    ("\n\na = 1\na = 2\n", &["Not TOML", "line 4"]),
    ("[limit]\nx = 1", &["\"limit\"", "line 1", "limits, gc, scrub, metrics, classes, rule"]),
    ("limits = 3", &["section [limits]", "table", "line 1"]),
    ("[limits]\n\nfoo = 1", &["Unknown key \"foo\"", "[limits]", "line 3", "dirty_bytes"]),
    ("[limits]\ncommit_interval_secs = 0", &["0", "commit_interval_secs", "line 2", "1 to 3600"]),
    ("[limits]\ncommit_interval_secs = 3601", &["3601", "1 to 3600"]),
    ("[limits]\ncommit_interval_secs = \"5\"", &["\"5\"", "whole number"]),
    ("[limits]\ndirty_bytes = \"64 parsecs\"", &["64 parsecs", "dirty_bytes", "64MiB"]),
    ("[limits]\ndirty_bytes = 1.5", &["1.5", "dirty_bytes"]),
    ("[limits]\ndirty_bytes = -1", &["-1", "dirty_bytes"]),
    ("[limits]\ndirty_bytes = 1", &["dirty_bytes", "2 MiB to 1 TiB"]),
    ("[limits]\ncache_bytes = \"2TiB\"", &["cache_bytes", "1 MiB to 1 TiB"]),
    ("[limits]\nfile_dirty_bytes = \"65MiB\"", &["file_dirty_bytes", "above \"dirty_bytes\""]),
    ("[limits]\nworkers = 257", &["workers", "0 to 256"]),
    ("[classes]\nmedia = 1", &["[classes.media]", "table"]),
    ("[classes.media]\nfoo = 1", &["\"foo\"", "[classes.media]", "line 2", "chunking"]),
    ("[classes.media]\nid = 4", &["\"id\"", "[classes.media]", "line 2"]),
    ("[classes.Media]\nid = 16", &["\"Media\"", "a-z", "line 1"]),
    ("[classes.\"\"]\nid = 16", &["not a class name"]),
    ("[classes.mine]\ncodec = \"none\"", &["\"id\" is missing", "[classes.mine]", "16 to 63"]),
    ("[classes.mine]\nid = 15", &["15", "\"id\"", "16 to 63"]),
    ("[classes.mine]\nid = 64", &["64", "16 to 63"]),
    (
        "[classes.a]\nid = 16\n[classes.b]\nid = 16",
        &["Id 16", "\"a\"", "[classes.b]", "line 4", "17 is free"],
    ),
    ("[classes.log]\nchunking = \"rabin\"", &["\"rabin\"", "\"mincdc\" or \"fixed\"", "line 2"]),
    ("[classes.log]\navg_bytes = 2048", &["avg_bytes", "4 KiB to 256 KiB"]),
    ("[classes.log]\navg_bytes = \"512KiB\"", &["avg_bytes", "4 KiB to 256 KiB"]),
    ("[classes.database]\navg_bytes = \"2MiB\"", &["avg_bytes", "4 KiB to 1 MiB"]),
    ("[classes.log]\navg_bytes = 50000", &["50000", "power of two", "32768 and 65536"]),
    ("[classes.log]\ncodec = \"gzip\"", &["\"gzip\"", "\"zstd\" or \"none\""]),
    ("[classes.log]\nlevel = 20", &["20", "level", "-7 to 19"]),
    (
        "[classes.log]\ncodec = \"auto\"\nlevel = 1",
        &["\"level\"", "without codec \"zstd\"", "line 3"],
    ),
    ("[classes.log]\ngroup_bytes = \"2MiB\"", &["\"group_bytes\"", "[classes.log]", "1 MiB"]),
    (
        "[classes.log]\ncodec = \"none\"\nlevel = 1",
        &["\"level\"", "without codec \"zstd\"", "line 3"],
    ),
    ("[classes.log]\nshards = []", &["shards", "list"]),
    ("[classes.log]\nshards = {}", &["shards", "one or more"]),
    ("[classes.log]\nshards = [\"\"]", &["shards", "empty"]),
    ("[classes.log]\nshards = [1]", &["shards", "list of texts"]),
    ("[classes.log]\nshards = [\"a\", \"a\"]", &["\"a\" is named twice", "[classes.log]"]),
    ("[classes.log]\nshards = { a = 0 }", &["Weight of shard \"a\"", "1 to", "line 2"]),
    ("[classes.log]\nshards = { a = 1.5 }", &["Weight of shard \"a\""]),
    ("[classes.log]\nfallback = true", &["true", "fallback", "false"]),
    ("[classes.log]\nfallback = \"\"", &["fallback", "name of a shard"]),
    ("[metrics]\nport = 1", &["\"port\"", "listen, remote", "line 2"]),
    ("[metrics]\nlisten = \"here\"", &["\"here\"", "127.0.0.1:9464", "line 2"]),
    ("[metrics]\nlisten = \"0.0.0.0:9464\"", &["0.0.0.0:9464", "remote = true", "line 2"]),
    ("[metrics]\nlisten = \"[::]:9464\"", &["[::]:9464", "remote = true", "line 2"]),
    ("[rule]\nclass = \"log\"", &["[rule]", "[[rule]]"]),
    (
        "[[rule]]\nglob = \"*.x\"",
        &["\"class\" is missing", "[[rule]] 1", "valid classes are other"],
    ),
    (
        "[[rule]]\nclass = \"log\"\nglob = \"a\"\n[[rule]]\nclass = \"movies\"\nglob = \"*.x\"",
        &["Unknown class \"movies\"", "[[rule]] 2", "line 5", "other, source, office"],
    ),
    ("[[rule]]\nclass = \"log\"", &["No condition", "[[rule]] 1", "line 1", "glob, path"]),
    ("[[rule]]\nclass = \"log\"\nglob = []", &["glob", "list of texts"]),
    ("[[rule]]\nclass = \"log\"\nglob = \"\"", &["glob", "empty"]),
    ("[[rule]]\nclass = \"log\"\nglob = 3", &["glob", "3"]),
    ("[[rule]]\nclass = \"log\"\nglob = \"a/b\"", &["\"a/b\"", "slash", "path"]),
    ("[[rule]]\nclass = \"log\"\npath = \"/a/b\"", &["\"/a/b\"", "slash"]),
    ("[[rule]]\nclass = \"log\"\nname = \"a\"", &["Unknown key \"name\"", "[[rule]] 1", "glob"]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"hex:123\"", &["hex:123", "hexadecimal", "line 3"]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"hex:zz\"", &["hex:zz"]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"hex:\"", &["hex:"]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"\"", &["magic", "empty"]),
    ("[[rule]]\nclass = \"log\"\nmagic_offset = 1", &["magic_offset", "without \"magic\""]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"ab\"\nmagic_offset = 4095", &["magic", "4096"]),
    ("[[rule]]\nclass = \"log\"\nmagic = \"ab\"\nmagic_offset = 4096", &["0 to 4095"]),
    ("[[rule]]\nclass = \"log\"\nowner = -1", &["owner", "0 to 4294967295"]),
    ("[[rule]]\nclass = \"log\"\nowner = \"root\"", &["owner", "\"root\""]),
    ("[[rule]]\nclass = \"log\"\nmin_bytes = 2\nmax_bytes = 1", &["min_bytes", "max_bytes"]),
    ("[[rule]]\nclass = \"log\"\nmax_bytes = \"big\"", &["\"big\"", "max_bytes"]),
];

#[test]
fn every_mistake_is_one_sentence_that_says_where_and_what() {
    for (text, parts) in BAD {
        let what = sentence(parse(text));
        assert!(!what.contains('\n'), "{text:?}: {what}");
        for part in parts.iter().chain(&["/vol/config.toml, line "]) {
            assert!(what.contains(part), "{text:?} gives {what:?} without {part:?}");
        }
    }
}

#[test]
fn the_sentence_reads_as_promised() {
    let what = sentence(parse("[limits]\n\nworker = 1"));
    let expected = "Unknown key \"worker\" in section [limits] of /vol/config.toml, line 3; valid \
                    keys are commit_interval_secs, dirty_bytes, file_dirty_bytes, overlay_bytes, \
                    cache_bytes, block_cache_bytes, write_buffer_bytes, queue_bytes, \
                    append_bytes, open_files, reserve_bytes, workers, container_bytes";
    assert_eq!(what, expected);
}

#[test]
fn unreadable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    std::fs::write(&path, b"[limits]\n# \xff\n").unwrap();
    let what = sentence(Config::load(&path));
    assert!(what.contains("UTF-8") && what.contains("line 2"), "{what}");
    assert!(matches!(Config::load(dir.path()), Err(Error::Io { op: "read", .. })));
    std::fs::write(&path, "\u{feff}[limits]\r\nworkers = 2\r\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().limits.workers, 2);
}

#[test]
fn shards_are_checked_against_those_there_are() {
    let config = parse("[classes.log]\nshards = [\"ssd\"]\nfallback = \"hdd\"").unwrap();
    config.check_shards(&["default", "ssd", "hdd"]).unwrap();
    let unknown = |shards: &[&str]| match config.check_shards(shards) {
        Err(Error::Config { what }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        unknown(&["default", "hdd"]),
        "Unknown shard \"ssd\" in class \"log\" of /vol/config.toml, line 1; shards are default, \
         hdd"
    );
    assert!(unknown(&["default", "ssd"]).contains("\"hdd\" in class \"log\""));
    assert!(unknown(&["ssd", "hdd"]).contains("\"default\" in class \"other\" of the built-in"));
}

#[test]
fn any_text_is_an_answer_and_not_a_panic() {
    use proptest::prelude::{ProptestConfig, proptest};
    let word = proptest::sample::select(vec![
        "[",
        "]",
        "=",
        "\"",
        "\n",
        ".",
        "{",
        "}",
        ",",
        "'",
        "limits",
        "classes",
        "rule",
        "media",
        "id",
        "glob",
        "magic",
        "hex:",
        "shards",
        "class",
        "workers",
        "[[rule]]\n",
        "[classes.a]\n",
        "16",
        "99999999999999999999",
        "é",
        "\u{0}",
        " ",
        "-",
        "true",
    ]);
    let text = proptest::collection::vec(word, 0..30);
    proptest!(ProptestConfig::with_cases(1_000), |(text in text)| {
        drop(parse(&text.concat()));
    });
}
