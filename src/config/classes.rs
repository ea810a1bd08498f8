//! The file classes: the built-in ones and what `[classes.NAME]` makes of them.

use crate::config::reader::{Section, Source, integer_of};
use crate::error::Result;
use crate::limits::{CHUNK_BYTES_MAX, CLASSES_MAX, GROUP_BYTES_MAX, GROUP_BYTES_MIN};
use crate::types::ClassId;

use toml::de::DeValue;

/// Everything no rule knows.
pub const OTHER: ClassId = ClassId(0);
/// Source code, configuration, any text.
pub const SOURCE: ClassId = ClassId(1);
/// Documents, sheets, slides, PDF.
pub const OFFICE: ClassId = ClassId(2);
/// Mailboxes and single mails.
pub const MAIL: ClassId = ClassId(3);
/// Pictures, sound, film.
pub const MEDIA: ClassId = ClassId(4);
/// Archives and compressed files.
pub const ARCHIVE: ClassId = ClassId(5);
/// Programs, libraries, objects.
pub const BINARY: ClassId = ClassId(6);
/// Disks of virtual machines, file system images.
pub const IMAGE: ClassId = ClassId(7);
/// Database files.
pub const DATABASE: ClassId = ClassId(8);
/// Logs.
pub const LOG: ClassId = ClassId(9);

/// Ids of classes that a configuration adds. Those below stay free for built-in ones.
pub const ADDED_IDS: std::ops::RangeInclusive<u8> = 16..=63;
const _: () = assert!(*ADDED_IDS.end() as usize == CLASSES_MAX - 1);

/// The shard every volume has, inside the volume directory.
pub const DEFAULT_SHARD: &str = "default";

/// Longest class name.
const CLASS_NAME_BYTES_MAX: usize = 32;
/// Smallest average of content-defined chunks: below it the chunk tables outgrow the saving.
const CDC_AVG_BYTES_MIN: u32 = 4 * 1024;
/// Largest average of content-defined chunks: a chunk may be four times as long.
const CDC_AVG_BYTES_MAX: u32 = CHUNK_BYTES_MAX / 4;
/// Smallest fixed chunk: the page of most file systems and databases.
const FIXED_BYTES_MIN: u32 = 4 * 1024;
/// Size for a class whose chunking the file changes without a size.
const CDC_AVG_BYTES_DEFAULT: u32 = 64 * 1024;
const FIXED_BYTES_DEFAULT: u32 = 16 * 1024;
/// What a group of an added class holds: as much as of class `other`.
const GROUP_BYTES_DEFAULT: u32 = 256 * 1024;
/// Level for a class whose codec the file changes to zstd without a level.
const ZSTD_LEVEL_DEFAULT: i32 = 1;
/// Largest weight of a shard: leaves room for weights in GB of a 1 PB shard.
const WEIGHT_MAX: i64 = 1_000_000;

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// By content (FastCDC). Bytes, `min <= avg <= max <= CHUNK_BYTES_MAX`.
    Cdc {
        /// Shortest chunk, but for the last one of a file.
        min: u32,
        /// Average aimed at, a power of two.
        avg: u32,
        /// Longest chunk.
        max: u32,
    },
    /// By content, where the hash of four bytes is smallest (MinCDC). Bounds as above.
    MinCdc {
        /// Shortest chunk, but for the last one of a file.
        min: u32,
        /// Average of random data, a power of two.
        avg: u32,
        /// Longest chunk. What is left of a file and shorter is one chunk.
        max: u32,
    },
    /// At multiples of `bytes`, a power of two.
    Fixed {
        /// Length of every chunk but the last.
        bytes: u32,
    },
}

impl Chunking {
    /// Content-defined with the usual bounds around `avg`: a quarter and four times.
    #[must_use]
    pub const fn cdc(avg: u32) -> Self {
        Self::Cdc { min: avg / 4, avg, max: avg * 4 }
    }

    /// By the smallest hash, half of `avg` to one and a half: wider bounds found no more
    /// duplicates, and made smaller chunks.
    #[must_use]
    pub const fn min_cdc(avg: u32) -> Self {
        Self::MinCdc { min: avg / 2, avg, max: avg / 2 * 3 }
    }

    /// The longest chunk.
    #[must_use]
    pub const fn largest(self) -> u32 {
        match self {
            Self::Cdc { max, .. } | Self::MinCdc { max, .. } => max,
            Self::Fixed { bytes } => bytes,
        }
    }

    /// The bytes it is named by: the average, or the fixed length.
    #[must_use]
    pub const fn nominal(self) -> u32 {
        match self {
            Self::Cdc { avg, .. } | Self::MinCdc { avg, .. } => avg,
            Self::Fixed { bytes } => bytes,
        }
    }

    /// What the configuration calls it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Cdc { .. } => "cdc",
            Self::MinCdc { .. } => "mincdc",
            Self::Fixed { .. } => "fixed",
        }
    }
}

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecSetting {
    /// Stored as they are.
    None,
    /// zstd 3, or 1 while writers wait.
    Auto,
    /// zstd at `level`, -7..=19.
    Zstd {
        /// Negative is faster, positive is smaller.
        level: i32,
    },
}

/// What is done with the files of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// Its number, on disk in inodes and containers.
    pub id: ClassId,
    /// Its name: 1..=32 of a-z, 0-9, `-`.
    pub name: String,
    /// How its files are cut.
    pub chunking: Chunking,
    /// How its chunks are compressed.
    pub codec: CodecSetting,
    /// Small chunks are compressed together up to so many raw bytes, `GROUP_BYTES_MIN` to
    /// `GROUP_BYTES_MAX`; one of half as many goes alone.
    pub group_bytes: u32,
    /// Where its new chunks go: shard names with weights, 1 or more each. Empty: all shards of the
    /// volume, by the weights they were added with.
    pub shards: Vec<(String, u32)>,
    /// The shard used when none of `shards` has room or is there.
    pub fallback: Option<String>,
    /// Line of its section in the file; 0 if it is as built in.
    pub line: usize,
}

/// How files of a class are cut, by the class's number.
pub type Cuts = Vec<(ClassId, Chunking)>;

/// The built-in classes in id order: how they are cut, and what a group of small chunks holds.
///
/// | id | class    | cut           | group   | why                                             |
/// |---:|----------|---------------|---------|-------------------------------------------------|
/// |  0 | other    | mincdc 64 KiB | 256 KiB | 10 TB are 160 M chunks; may be read at random   |
/// |  1 | source   | mincdc 16 KiB | 512 KiB | most files are one chunk; read with neighbours  |
/// |  2 | office   | mincdc 64 KiB | 256 KiB | zip members inside; old formats, PDF compress   |
/// |  3 | mail     | mincdc 32 KiB | 512 KiB | mailboxes move whole mails; attachments repeat  |
/// |  4 | media    | mincdc 256 KiB| 128 KiB | copied or moved whole, rarely edited: few rows  |
/// |  5 | archive  | mincdc 64 KiB | 256 KiB | a tar compresses to a quarter                   |
/// |  6 | binary   | mincdc 16 KiB | 128 KiB | builds shift code; cut as the images that hold  |
/// |    |          |               |         | it are, which are read at random                |
/// |  7 | image    | mincdc 16 KiB | 64 KiB  | finds its files outside and in other images,    |
/// |    |          |               |         | wherever they lie; read at random               |
/// |  8 | database | fixed 8 KiB   | 64 KiB  | the page of PostgreSQL, two of SQLite; read at  |
/// |    |          |               |         | random                                          |
/// |  9 | log      | mincdc 64 KiB | 256 KiB | only grows; rotated copies are found by content |
///
/// What each choice costs and saves is measured by `benches/sizes.rs` (docs/DESIGN.md 4.6). Media
/// and archive are compressed too although most of it cannot shrink: zstd gives up on such data
/// at several GB/s, while WAV, TIFF, BMP and plain tar files do gain.
const BUILT_IN: [(ClassId, &str, Chunking, u32); 10] = [
    (OTHER, "other", Chunking::min_cdc(64 * 1024), 256 * 1024),
    (SOURCE, "source", Chunking::min_cdc(16 * 1024), 512 * 1024),
    (OFFICE, "office", Chunking::min_cdc(64 * 1024), 256 * 1024),
    (MAIL, "mail", Chunking::min_cdc(32 * 1024), 512 * 1024),
    (MEDIA, "media", Chunking::min_cdc(256 * 1024), 128 * 1024),
    (ARCHIVE, "archive", Chunking::min_cdc(64 * 1024), 256 * 1024),
    (BINARY, "binary", Chunking::min_cdc(16 * 1024), 128 * 1024),
    (IMAGE, "image", Chunking::min_cdc(16 * 1024), 64 * 1024),
    (DATABASE, "database", Chunking::Fixed { bytes: 8 * 1024 }, 64 * 1024),
    (LOG, "log", Chunking::min_cdc(64 * 1024), 256 * 1024),
];

/// How volumes cut that do not say it: those made before it was recorded.
const FIRST_CUTS: [(ClassId, Chunking); 10] = [
    (OTHER, Chunking::cdc(64 * 1024)),
    (SOURCE, Chunking::cdc(16 * 1024)),
    (OFFICE, Chunking::cdc(64 * 1024)),
    (MAIL, Chunking::cdc(32 * 1024)),
    (MEDIA, Chunking::cdc(256 * 1024)),
    (ARCHIVE, Chunking::cdc(64 * 1024)),
    (BINARY, Chunking::cdc(64 * 1024)),
    (IMAGE, Chunking::Fixed { bytes: 16 * 1024 }),
    (DATABASE, Chunking::Fixed { bytes: 16 * 1024 }),
    (LOG, Chunking::cdc(64 * 1024)),
];

/// How a new volume cuts the files of the built-in classes.
#[must_use]
pub fn new_cuts() -> Cuts {
    BUILT_IN.iter().map(|(id, _, chunking, _)| (*id, *chunking)).collect()
}

/// How a volume cuts them that does not say it.
#[must_use]
pub fn first_cuts() -> Cuts {
    FIRST_CUTS.to_vec()
}

/// A class with the settings that all share.
fn class(id: ClassId, name: &str, chunking: Chunking, group_bytes: u32) -> ClassSpec {
    ClassSpec {
        id,
        name: name.to_owned(),
        chunking,
        codec: CodecSetting::Auto,
        group_bytes,
        shards: Vec::new(),
        fallback: Some(DEFAULT_SHARD.to_owned()),
        line: 0,
    }
}

/// The classes of a volume without a configuration, in id order, cut as `cuts` says.
pub(super) fn built_in(cuts: &Cuts) -> Vec<ClassSpec> {
    let cut = |id, default| cuts.iter().find(|(of, _)| *of == id).map_or(default, |found| found.1);
    let one =
        |&(id, name, chunking, group): &(_, &str, _, _)| class(id, name, cut(id, chunking), group);
    BUILT_IN.iter().map(one).collect()
}

/// Changes and adds classes as the tables in `section` say; the result is in id order. Built-in
/// ones are cut as `cuts` says where the tables do not.
pub(super) fn read(
    source: Source<'_>,
    section: &Section<'_>,
    cuts: &Cuts,
) -> Result<Vec<ClassSpec>> {
    let mut classes = built_in(cuts);
    for (name, at, value) in section.entries() {
        let title = format!("section [classes.{}]", name.escape_debug());
        if !is_class_name(name) {
            let problem = format!("\"{}\" is not a class name in {title}", name.escape_debug());
            return Err(source.error(at, problem, "valid are 1 to 32 of a-z, 0-9 and -"));
        }
        let table = Section::from_value(source, title, value)?;
        let known = classes.iter().position(|class| class.name == name);
        if known.is_none() {
            let id = read_id(&table, &classes)?;
            let chunking = Chunking::cdc(CDC_AVG_BYTES_DEFAULT);
            classes.push(class(id, name, chunking, GROUP_BYTES_DEFAULT));
        }
        let place = known.unwrap_or(classes.len() - 1);
        change(&mut classes[place], &table, known.is_some())?;
    }
    classes.sort_unstable_by_key(|class| class.id);
    Ok(classes)
}

fn is_class_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=CLASS_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(valid)
}

/// The id of a class that the file adds.
fn read_id(table: &Section<'_>, classes: &[ClassSpec]) -> Result<ClassId> {
    let (low, high) = (*ADDED_IDS.start(), *ADDED_IDS.end());
    let Some(id) = table.integer("id", i64::from(low)..=i64::from(high))? else {
        let advice =
            format!("give the new class a number from {low} to {high} and never change it");
        return Err(table.error("", "Key \"id\" is missing", advice));
    };
    let id = ClassId(u8::try_from(id).expect("within ADDED_IDS"));
    match classes.iter().find(|class| class.id == id) {
        None => Ok(id),
        Some(other) => {
            let problem = format!("Id {id} is that of class \"{}\" already", other.name);
            let free = (low..=high).find(|n| classes.iter().all(|class| class.id.0 != *n));
            let free = free.map_or_else(|| "no id is free".to_owned(), |n| format!("{n} is free"));
            Err(table.error("id", problem, free))
        }
    }
}

/// Applies one `[classes.NAME]`.
fn change(class: &mut ClassSpec, table: &Section<'_>, built_in: bool) -> Result<()> {
    const KEYS: [&str; 8] =
        ["id", "chunking", "avg_bytes", "codec", "level", "group_bytes", "shards", "fallback"];
    table.refuse_unknown(if built_in { &KEYS[1..] } else { &KEYS })?;
    class.line = table.line();
    class.chunking = read_chunking(class.chunking, table)?;
    class.codec = read_codec(class.codec, table)?;
    let bounds = u64::from(GROUP_BYTES_MIN)..=u64::from(GROUP_BYTES_MAX);
    if let Some(bytes) = table.size("group_bytes", bounds)? {
        class.group_bytes = u32::try_from(bytes).expect("bounded by a u32 range");
    }
    if let Some(shards) = read_shards(table)? {
        class.shards = shards;
    }
    if let Some(value) = table.get("fallback") {
        class.fallback = match value.get_ref() {
            DeValue::Boolean(false) => None,
            DeValue::String(name) if !name.is_empty() => Some(name.to_string()),
            other => return Err(table.wrong("fallback", other, "the name of a shard, or false")),
        };
    }
    Ok(())
}

fn read_chunking(old: Chunking, table: &Section<'_>) -> Result<Chunking> {
    let kind = table.choice("chunking", &["cdc", "mincdc", "fixed"])?.unwrap_or(old.kind());
    let fixed = kind == "fixed";
    let range = if fixed {
        FIXED_BYTES_MIN..=CHUNK_BYTES_MAX
    } else {
        CDC_AVG_BYTES_MIN..=CDC_AVG_BYTES_MAX
    };
    let given = table.size("avg_bytes", u64::from(*range.start())..=u64::from(*range.end()))?;
    let bytes = match given {
        Some(bytes) => u32::try_from(bytes).expect("bounded by a u32 range"),
        None if fixed == matches!(old, Chunking::Fixed { .. }) => old.nominal(),
        None if fixed => FIXED_BYTES_DEFAULT,
        None => CDC_AVG_BYTES_DEFAULT,
    };
    if !bytes.is_power_of_two() {
        let problem = format!("{bytes} for key \"avg_bytes\" is not a power of two");
        let (below, above) = (bytes.next_power_of_two() / 2, bytes.next_power_of_two());
        return Err(table.error("avg_bytes", problem, format!("near are {below} and {above}")));
    }
    Ok(match kind {
        "fixed" => Chunking::Fixed { bytes },
        "mincdc" => Chunking::min_cdc(bytes),
        _ => Chunking::cdc(bytes),
    })
}

fn read_codec(old: CodecSetting, table: &Section<'_>) -> Result<CodecSetting> {
    let level = table.integer("level", -7..=19)?;
    let level = level.map(|level| i32::try_from(level).expect("within -7..=19"));
    let codec = match (table.choice("codec", &["auto", "zstd", "none"])?, old) {
        (Some("none"), _) => CodecSetting::None,
        (Some("auto"), _) => CodecSetting::Auto,
        (None, CodecSetting::Auto) if level.is_none() => CodecSetting::Auto,
        (Some(_), CodecSetting::None) | (_, CodecSetting::Auto) => {
            CodecSetting::Zstd { level: ZSTD_LEVEL_DEFAULT }
        }
        (_, old) => old,
    };
    match (codec, level) {
        (codec, None) => Ok(codec),
        (CodecSetting::Zstd { .. }, Some(level)) => Ok(CodecSetting::Zstd { level }),
        (_, Some(_)) => Err(table.error(
            "level",
            "Key \"level\" means nothing without codec \"zstd\"",
            "remove it or set codec = \"zstd\"",
        )),
    }
}

/// The value of `shards`: names, or names with weights.
fn read_shards(table: &Section<'_>) -> Result<Option<Vec<(String, u32)>>> {
    let Some(value) = table.get("shards") else { return Ok(None) };
    let shards: Vec<(String, u32)> = match value.get_ref() {
        DeValue::Table(weights) => {
            let mut shards = Vec::new();
            for (name, weight) in weights {
                let number = integer_of(weight.get_ref()).filter(|n| (1..=WEIGHT_MAX).contains(n));
                let Some(weight) = number.and_then(|n| u32::try_from(n).ok()) else {
                    let shard = name.get_ref().escape_debug().to_string();
                    let problem = format!("Weight of shard \"{shard}\" is not valid");
                    let advice = format!("valid is a whole number from 1 to {WEIGHT_MAX}");
                    return Err(table.error("shards", problem, advice));
                };
                shards.push((name.get_ref().to_string(), weight));
            }
            shards
        }
        _ => table.texts("shards")?.into_iter().map(|name| (name, 1)).collect(),
    };
    if shards.is_empty() || shards.iter().any(|(name, _)| name.is_empty()) {
        return Err(table.wrong("shards", value.get_ref(), "one or more names of shards"));
    }
    for (place, (name, _)) in shards.iter().enumerate() {
        if shards[..place].iter().any(|(other, _)| other == name) {
            let problem = format!("Shard \"{}\" is named twice", name.escape_debug());
            return Err(table.error("shards", problem, "give it a weight instead: { name = 2 }"));
        }
    }
    Ok(Some(shards))
}
