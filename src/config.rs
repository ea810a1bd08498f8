//! `config.toml` in the volume directory: memory bounds, file classes and the rules that choose
//! them.
//!
//! Guarantees: a [`Config`] that was loaded is within every bound given here; an unknown key, class
//! or a value out of bounds is refused with one sentence that names file, line, key and what would
//! be valid. Without a file the defaults are the whole configuration.
//! Relies on: nobody; it only reads one file. Does not: compile globs (`classify` does, and reports
//! bad ones the same way), know which shards there are (the volume asks [`Config::check_shards`]),
//! write the file. `toml` lives here. `docs/config.example.toml` shows every key.

mod classes;
mod gc;
mod metrics;
mod profiles;
mod reader;
mod rules;
mod scrub;
mod show;
mod size;
#[cfg(test)]
mod tests;

pub use classes::{
    ADDED_IDS, ARCHIVE, BINARY, Chunking, ClassSpec, CodecSetting, Cuts, DATABASE, DEFAULT_SHARD,
    IMAGE, LOG, MAIL, MEDIA, OFFICE, OTHER, SOURCE, first_cuts, new_cuts,
};
pub use gc::GcConfig;
pub use metrics::{MetricsConfig, parse_listen};
pub use profiles::{Profile, Profiles, Setting, is_profiles};
pub use rules::{MagicSpec, RuleSpec};
pub use scrub::ScrubLimits;
pub use show::Shown;
pub use size::{SIZE_FORMS, parse_size};

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::reader::{Section, Source};
use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, CONTAINER_BYTES};

/// Name of the file in the volume directory.
pub const CONFIG_FILE: &str = "config.toml";

const MIB: u64 = 1024 * 1024;
/// Largest bound on memory that is taken for meant: a typing error is likelier above.
const MEMORY_BYTES_MAX: u64 = 1024 * 1024 * MIB;
/// Smallest bound that still lets the part it bounds do its work.
const MEMORY_BYTES_MIN: u64 = MIB;
/// Smallest bound on uncommitted metadata: a change may bring half a megabyte, and some run at
/// the same time.
const OVERLAY_BYTES_MIN: u64 = 8 * MIB;
/// Most open files: the most that one process may have on Linux by default is far below.
const OPEN_FILES_MAX: i64 = 16 * 1024 * 1024;
/// Most worker threads: no machine we know gains from more.
const WORKERS_MAX: i64 = 256;

/// Bounds on memory and time. The defaults suit a machine with 512 MB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time between two commits, 1..=3600.
    pub commit_interval_secs: u32,
    /// Written but not yet cut file data of the whole volume.
    pub dirty_bytes: u64,
    /// Written but not yet cut data of one file; at most `dirty_bytes`.
    pub file_dirty_bytes: u64,
    /// Metadata that is not committed: the open txg, and the one that is being committed.
    pub overlay_bytes: u64,
    /// Cache of decoded frames.
    pub cache_bytes: u64,
    /// Block cache of RocksDB.
    pub block_cache_bytes: u64,
    /// Memtables of RocksDB; at least `overlay_bytes`, for one commit goes in as a whole.
    pub write_buffer_bytes: u64,
    /// Raw bytes waiting for workers.
    pub queue_bytes: u64,
    /// Buffers of the containers that are appended to.
    pub append_bytes: u64,
    /// Files open at a time, of the live tree and of snapshots.
    pub open_files: u64,
    /// Kept free on every shard.
    pub reserve_bytes: u64,
    /// Threads that cut and compress; 0 is one per core.
    pub workers: usize,
    /// A container is sealed when it reaches this.
    pub container_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commit_interval_secs: 5,
            dirty_bytes: 64 * MIB,
            file_dirty_bytes: 4 * MIB,
            overlay_bytes: 48 * MIB,
            cache_bytes: 64 * MIB,
            block_cache_bytes: 48 * MIB,
            write_buffer_bytes: 48 * MIB,
            queue_bytes: 16 * MIB,
            append_bytes: 16 * MIB,
            open_files: 32_768,
            reserve_bytes: 64 * MIB,
            workers: 0,
            container_bytes: u64::from(CONTAINER_BYTES),
        }
    }
}

/// A volume's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it came from; `None` for the defaults.
    pub path: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// Verification in the background.
    pub scrub: ScrubLimits,
    /// When and how unused space is given back.
    pub gc: GcConfig,
    /// Where numbers are served to a monitor.
    pub metrics: MetricsConfig,
    /// All classes in id order: the built-in ones as the file changed them, and the added ones.
    pub classes: Vec<ClassSpec>,
    /// Rules in file order; the first that matches wins.
    pub rules: Vec<RuleSpec>,
}

impl Default for Config {
    fn default() -> Self {
        let (limits, classes) = (Limits::default(), classes::built_in(&new_cuts()));
        Self {
            path: None,
            limits,
            gc: GcConfig::default(),
            scrub: ScrubLimits::default(),
            metrics: MetricsConfig::default(),
            classes,
            rules: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file at `path`; the defaults if there is none.
    ///
    /// # Errors
    /// `Config` when it does not say something valid; `Io` when it cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_over(path, &new_cuts())
    }

    /// As [`Config::load`], for a volume that cuts the files of built-in classes as `cuts` says
    /// where the file says nothing.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_over(path: &Path, cuts: &Cuts) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { classes: classes::built_in(cuts), ..Self::default() });
            }
            Err(e) => return Err(Error::io("read", path, e)),
        };
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse_over(text, path, cuts),
            Err(e) => Err(not_utf8(&bytes, e, path)),
        }
    }

    /// Reads `text`, which lies at `path`.
    ///
    /// # Errors
    /// `Config` when it does not say something valid.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::parse_over(text, path, &new_cuts())
    }

    fn parse_over(text: &str, path: &Path, cuts: &Cuts) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source { path, text };
        let table = DeTable::parse(text).map_err(|e| not_toml(source, &e))?;
        let top = Section::new(source, "the top level".to_owned(), table.get_ref(), 0);
        top.refuse_unknown(&["limits", "gc", "scrub", "metrics", "classes", "rule"])?;
        let limits = match top.get("limits") {
            None => Limits::default(),
            Some(value) => {
                read_limits(&Section::from_value(source, "section [limits]".to_owned(), value)?)?
            }
        };
        let scrub = match top.get("scrub") {
            None => ScrubLimits::default(),
            Some(value) => {
                scrub::read(&Section::from_value(source, "section [scrub]".to_owned(), value)?)?
            }
        };
        let gc = match top.get("gc") {
            None => GcConfig::default(),
            Some(value) => {
                gc::read(&Section::from_value(source, "section [gc]".to_owned(), value)?)?
            }
        };
        let metrics = match top.get("metrics") {
            None => MetricsConfig::default(),
            Some(value) => {
                let title = "section [metrics]".to_owned();
                metrics::read(&Section::from_value(source, title, value)?)?
            }
        };
        let classes = match top.get("classes") {
            None => classes::built_in(cuts),
            Some(value) => {
                let title = "section [classes]".to_owned();
                classes::read(source, &Section::from_value(source, title, value)?, cuts)?
            }
        };
        let rules = match top.get("rule") {
            None => Vec::new(),
            Some(value) => rules::read(source, value, &classes)?,
        };
        Ok(Self { path: Some(path.to_owned()), limits, gc, scrub, metrics, classes, rules })
    }

    /// Refuses a class that names a shard which is not in `shards`.
    ///
    /// # Errors
    /// `Config` that names the class, the shard and those there are.
    pub fn check_shards(&self, shards: &[&str]) -> Result<()> {
        for class in &self.classes {
            let named = class.shards.iter().map(|(name, _)| name).chain(&class.fallback);
            for name in named {
                if !shards.contains(&name.as_str()) {
                    let place = self.place(class.line);
                    return Err(Error::Config {
                        what: format!(
                            "Unknown shard \"{}\" in class \"{}\" of {place}; shards are {}",
                            name.escape_debug(),
                            class.name,
                            shards.join(", ")
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Where line `line` is, for messages; 0 is a built-in default.
    #[must_use]
    pub fn place(&self, line: usize) -> String {
        match &self.path {
            Some(path) if line > 0 => format!("{}, line {line}", path.display()),
            _ => "the built-in defaults".to_owned(),
        }
    }
}

/// The error for a file that is no text.
fn not_utf8(bytes: &[u8], error: std::str::Utf8Error, path: &Path) -> Error {
    let good = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
    let source = Source { path, text: good };
    source.error(good.len(), "A byte is not UTF-8 in the text", "save the file as UTF-8")
}

/// The error for a text that is not TOML.
fn not_toml(source: Source<'_>, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start);
    let problem = format!("Not TOML ({}) in the text", error.message().replace('\n', ", "));
    source.error(at, problem, "see docs/config.example.toml for the form")
}

fn read_limits(table: &Section<'_>) -> Result<Limits> {
    const KEYS: [&str; 13] = [
        "commit_interval_secs",
        "dirty_bytes",
        "file_dirty_bytes",
        "overlay_bytes",
        "cache_bytes",
        "block_cache_bytes",
        "write_buffer_bytes",
        "queue_bytes",
        "append_bytes",
        "open_files",
        "reserve_bytes",
        "workers",
        "container_bytes",
    ];
    table.refuse_unknown(&KEYS)?;
    let default = Limits::default();
    let chunk = u64::from(CHUNK_BYTES_MAX);
    // A chunk has to fit with room for the next, or writing one would wait for itself.
    let memory = |key, least: u64| table.size(key, least..=MEMORY_BYTES_MAX);
    let dirty_bytes = memory("dirty_bytes", 2 * chunk)?.unwrap_or(default.dirty_bytes);
    let file_dirty_bytes = match memory("file_dirty_bytes", 2 * chunk)? {
        None => default.file_dirty_bytes.min(dirty_bytes),
        Some(bytes) if bytes <= dirty_bytes => bytes,
        Some(_) => {
            let problem = "Key \"file_dirty_bytes\" is above \"dirty_bytes\"";
            return Err(table.error("file_dirty_bytes", problem, "one file is a part of all"));
        }
    };
    let overlay_bytes =
        memory("overlay_bytes", OVERLAY_BYTES_MIN)?.unwrap_or(default.overlay_bytes);
    let write_buffer_bytes = match memory("write_buffer_bytes", OVERLAY_BYTES_MIN)? {
        None => default.write_buffer_bytes.max(overlay_bytes),
        Some(bytes) if bytes >= overlay_bytes => bytes,
        Some(_) => {
            let problem = "Key \"write_buffer_bytes\" is below \"overlay_bytes\"";
            return Err(table.error("write_buffer_bytes", problem, "a commit goes in as a whole"));
        }
    };
    let open_files = table.integer("open_files", 64..=OPEN_FILES_MAX)?;
    let secs = table.integer("commit_interval_secs", 1..=3600)?;
    let workers = table.integer("workers", 0..=WORKERS_MAX)?;
    let size = |key, default| Ok::<_, Error>(memory(key, MEMORY_BYTES_MIN)?.unwrap_or(default));
    Ok(Limits {
        commit_interval_secs: secs
            .map_or(default.commit_interval_secs, |n| u32::try_from(n).expect("within 1..=3600")),
        dirty_bytes,
        file_dirty_bytes,
        overlay_bytes,
        cache_bytes: size("cache_bytes", default.cache_bytes)?,
        block_cache_bytes: size("block_cache_bytes", default.block_cache_bytes)?,
        write_buffer_bytes,
        append_bytes: memory("append_bytes", 2 * chunk)?.unwrap_or(default.append_bytes),
        open_files: open_files
            .map_or(default.open_files, |n| u64::try_from(n).expect("within 64..=OPEN_FILES_MAX")),
        queue_bytes: memory("queue_bytes", 2 * chunk)?.unwrap_or(default.queue_bytes),
        reserve_bytes: table.size("reserve_bytes", 0..=u64::MAX)?.unwrap_or(default.reserve_bytes),
        workers: workers
            .map_or(default.workers, |n| usize::try_from(n).expect("within 0..=WORKERS_MAX")),
        container_bytes: table
            .size("container_bytes", MIB..=u64::from(CONTAINER_BYTES))?
            .unwrap_or(default.container_bytes),
    })
}
