//! All parsers of bytes from disk or socket, in one list: what fuzzing iterates over.
//!
//! Guarantees: whatever the bytes, an entry of [`ALL`] neither panics nor builds more than
//! [`Parser::bound`] says for their number. `fuzz/` runs each under libFuzzer, `tests/it/fuzz.rs`
//! runs a corpus and mutations of it in every test run. Does not: say what a parser should answer;
//! the golden tests beside the parsers do. Not part of the API.

use crate::classify::{Classifier, Facts, is_rsync_temp, strip_temp_suffix};
use crate::codec::{Codec, CodecChoice, decode, encode};
use crate::config::Config;
use crate::control::{Name, Reply, Request, decode_reply, decode_request};
use crate::control::{encode_reply, encode_request};
use crate::cursor::Reader;
use crate::limits::FRAME_RAW_BYTES_MAX;
use crate::{meta, shard, store, volume};

/// One parser.
pub struct Parser {
    /// Name of its corpus and its target.
    pub name: &'static str,
    /// Parses; returns bytes that were built from the input, as far as that can be told.
    pub run: fn(&[u8]) -> usize,
    /// Makes checksums fit, so that what lies behind them is reached.
    pub seal: fn(&mut Vec<u8>),
    /// Valid inputs.
    pub golden: fn() -> Vec<Vec<u8>>,
    /// Most bytes that an input of this length may make it build.
    pub bound: fn(usize) -> usize,
}

/// Everything that reads foreign bytes.
pub const ALL: &[Parser] = &[
    Parser {
        name: "superblock",
        run: volume::fuzz::superblock,
        seal: |bytes| volume::fuzz::seal(bytes, 128),
        golden: || vec![volume::fuzz::golden_superblock()],
        bound: |_| 128,
    },
    Parser {
        name: "last_commit",
        run: volume::fuzz::last_commit,
        seal: |bytes| volume::fuzz::seal(bytes, 64),
        golden: || vec![volume::fuzz::golden_last_commit()],
        bound: |_| 64,
    },
    Parser {
        name: "counters",
        run: volume::fuzz::counters,
        seal: |_| (),
        golden: || vec![vec![1, 0xac, 2, 3, 4, 5, 6], vec![0, 2, 9, 9, 1, 1, 0xac, 2]],
        // Eight bytes for each varint of one.
        bound: |len| 64 + 8 * len,
    },
    Parser {
        name: "shard_marker",
        run: shard::fuzz::marker,
        seal: |bytes| volume::fuzz::seal(bytes, 64),
        golden: || vec![shard::fuzz::golden_marker()],
        bound: |_| 64,
    },
    Parser {
        name: "container_header",
        run: store::fuzz::header,
        seal: |bytes| volume::fuzz::seal(bytes, 64),
        golden: || vec![store::fuzz::golden_header()],
        bound: |_| 64,
    },
    Parser {
        name: "frame",
        run: store::fuzz::frame,
        seal: |bytes| store::fuzz::seal_frame(bytes),
        golden: || vec![store::fuzz::golden_frame(1), store::fuzz::golden_frame(5)],
        // An entry of 44 bytes becomes one of 48.
        bound: |len| 128 + 2 * len,
    },
    Parser {
        name: "footer",
        run: store::fuzz::footer,
        seal: |bytes| store::fuzz::seal_footer(bytes),
        golden: || vec![store::fuzz::golden_footer()],
        bound: |len| 128 + 8 * len,
    },
    Parser {
        name: "container",
        run: store::fuzz::container,
        seal: |_| (),
        golden: || vec![store::fuzz::golden_container(false), store::fuzz::golden_container(true)],
        // Frames are found twice, by the footer and by walking, and named where they are damaged.
        bound: |len| 4096 + 64 * len,
    },
    Parser {
        name: "store_rows",
        run: store::fuzz::rows,
        seal: |_| (),
        golden: store::fuzz::golden_rows,
        bound: |_| 256,
    },
    Parser {
        name: "meta_rows",
        run: meta::fuzz::rows,
        seal: |_| (),
        golden: meta::fuzz::golden_rows,
        bound: |len| 512 + 16 * len,
    },
    Parser {
        name: "config",
        run: config,
        seal: |_| (),
        golden: || {
            let small = "[limits]\ncache_bytes = \"64 MiB\"\n\n[classes.media]\ncodec = \"none\"\n\
                         chunking = { avg = \"1 MiB\" }\n\n[[rule]]\nclass = \"log\"\n\
                         glob = \"*.x\"\n";
            vec![small.as_bytes().to_vec(), b"[limits]\ncommit_interval_secs = 5\n".to_vec()]
        },
        bound: |len| 64 * 1024 + 64 * len,
    },
    Parser {
        name: "control",
        run: control,
        seal: |_| (),
        golden: golden_control,
        bound: |len| 64 + 4 * len,
    },
    Parser {
        name: "codec",
        run: codec,
        seal: |_| (),
        golden: golden_codec,
        bound: |_| FRAME_RAW_BYTES_MAX as usize,
    },
    Parser {
        name: "classify",
        run: classify,
        seal: |_| (),
        golden: || {
            [&b".name.tar.gz.AbC123\0\x1f\x8b\x08"[..], b"mail.mbox\0From a@b", b"x\0\x7fELF\x02"]
                .map(<[u8]>::to_vec)
                .to_vec()
        },
        bound: |len| 2 + len,
    },
];

/// The parser with this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Parser> {
    ALL.iter().find(|parser| parser.name == name)
}

impl Parser {
    /// Parses the bytes as they are, and once more with checksums that fit.
    ///
    /// # Panics
    /// When it builds more than the input justifies, which is what fuzzing looks for.
    pub fn check(&self, bytes: &[u8]) {
        let mut sealed = bytes.to_vec();
        (self.seal)(&mut sealed);
        for bytes in [bytes, &sealed] {
            let (built, bound) = ((self.run)(bytes), (self.bound)(bytes.len()));
            let name = self.name;
            assert!(built <= bound, "{name} builds {built} bytes from {} bytes", bytes.len());
        }
    }
}

fn config(bytes: &[u8]) -> usize {
    let Ok(text) = str::from_utf8(bytes) else { return 0 };
    match Config::parse(text, "config.toml".as_ref()) {
        Ok(config) => {
            // Globs are compiled by another room.
            let _ = Classifier::new(&config);
            let classes = config.classes.len() * size_of_val(&config.classes[0]);
            classes + config.rules.len() * 128
        }
        Err(e) => e.to_string().len(),
    }
}

fn control(bytes: &[u8]) -> usize {
    let mut built = 0;
    if let Ok(request) = decode_request(bytes) {
        built = built.max(match request {
            Request::SnapshotDelete { names } => names.iter().map(|name| name.0.len()).sum(),
            _ => 0,
        });
    }
    if let Ok(Reply::Progress(text)) = decode_reply(bytes) {
        built = built.max(text.len());
    }
    if let Ok(name) = String::from_utf8_lossy(bytes).parse::<Name>() {
        built = built.max(name.0.len());
    }
    built
}

fn golden_control() -> Vec<Vec<u8>> {
    let requests = [
        Request::Status,
        Request::Check { read_data: true },
        Request::SnapshotDelete { names: vec![Name(b"a\xff".to_vec()), Name(b"\\b".to_vec())] },
        Request::ClassExplain { path: Name(b"/p".to_vec()), snapshot: None },
    ];
    let requests = requests.iter().filter_map(|request| encode_request(request).ok());
    requests.chain(encode_reply(Reply::Progress("Reading".to_owned())).ok()).collect()
}

/// Codec, announced length, payload.
fn codec(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let (Some(tag), Some(len)) = (reader.u8(), reader.u32()) else { return 0 };
    let Some(codec) = Codec::from_tag(tag) else { return 0 };
    decode(codec, reader.rest(), len as usize).map_or(0, |raw| raw.capacity())
}

fn golden_codec() -> Vec<Vec<u8>> {
    let raw = b"strata ".repeat(40);
    let of = |choice| {
        let stored = encode(choice, &raw);
        let len = u32::try_from(raw.len()).unwrap_or(0);
        [&[stored.codec.tag()][..], &len.to_le_bytes(), &stored.bytes].concat()
    };
    vec![of(CodecChoice::Zstd { level: 1 }), of(CodecChoice::None)]
}

/// A name, a NUL, and the first bytes of the file.
fn classify(bytes: &[u8]) -> usize {
    let split = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (name, head) = bytes.split_at(split);
    let head = head.get(1..).unwrap_or_default();
    let facts = Facts { name, path: Some(name), uid: 0, gid: 0, size: head.len() as u64, head };
    if let Ok(classifier) = Classifier::new(&Config::default()) {
        let verdict = classifier.classify(&facts);
        let _ = classifier.class(verdict.class);
    }
    let is_temp = is_rsync_temp(name);
    1 + strip_temp_suffix(name).map_or(0, <[u8]>::len).max(usize::from(is_temp))
}
