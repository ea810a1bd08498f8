//! What crosses the control socket: one JSON line asks, one answers, progress lines in between.
//!
//! Guarantees: unknown versions, commands and fields are refused by name; any bytes are answered,
//! none panic. Names are bytes: what is not UTF-8 travels as `\xNN`.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::diffs::{DiffRequest, DiffSums};
use super::exports::ExportRequest;
use super::finds::{FindRequest, FindSums};
use super::imports::ImportRequest;
use super::parts::Part;
use super::remount::RemountStep;
use super::restores::RestoreRequest;
use super::scrubs::{ScrubAnswer, ScrubRequest};
use super::snapshots::{PruneReport, PruneRequest, SnapshotSpace};
use crate::check::CheckReport;
use crate::error::{Error, Result};
use crate::export::ExportReport;
use crate::gc::GcReport;
use crate::import::ImportReport;
use crate::restore::RestoreReport;
use crate::types::{Snapshot, Timestamp};
use crate::volume::{Amount, Explanation, ShardInfo, StatsReport, Status};

/// Version of the protocol; both ends must speak the same.
pub const PROTOCOL_VERSION: u32 = 1;
/// Longest request line. The largest real one names a few hundred snapshots to delete.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest reply line: `SNAPSHOTS_MAX` snapshots with names of 255 bytes, four characters a byte.
pub const REPLY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes that are nearly always text: a snapshot's name, a path.
///
/// As text (also in JSON) a backslash is `\\` and a byte that is not UTF-8 is `\xNN`.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
                    c => f.write_char(c)?,
                }
            }
            part.invalid().iter().try_for_each(|b| write!(f, "\\x{b:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            match rest {
                [b'\\', tail @ ..] => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                [b'x', high, low, tail @ ..] => {
                    let digit = |b: u8| char::from(b).to_digit(16);
                    let value = digit(*high).zip(digit(*low)).map(|(h, l)| h * 16 + l);
                    let byte = value.and_then(|v| u8::try_from(v).ok());
                    bytes.push(byte.ok_or("a name has \\x without two hexadecimal digits")?);
                    rest = tail;
                }
                _ => return Err("a name has a backslash that begins no escape".to_owned()),
            }
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Take a snapshot.
    SnapshotCreate {
        /// Its name.
        name: Name,
    },
    /// All snapshots.
    SnapshotList {
        /// Count what each of them holds, too.
        space: bool,
    },
    /// What deleting these snapshots together would free.
    SnapshotWouldFree {
        /// Their names.
        names: Vec<Name>,
    },
    /// Keep a snapshot from being deleted, or let it go.
    SnapshotHold {
        /// Its name.
        name: Name,
        /// Whether it is held from now on.
        held: bool,
    },
    /// Keep a snapshot from being deleted or renamed up to a date.
    SnapshotLock {
        /// Its name.
        name: Name,
        /// The date, in seconds since 1970.
        until: i64,
    },
    /// Delete the snapshots that a policy does not keep.
    Prune(PruneRequest),
    /// Delete snapshots: all of them or, when one does not exist, none.
    SnapshotDelete {
        /// Their names.
        names: Vec<Name>,
    },
    /// Give a snapshot another name.
    SnapshotRename {
        /// Its name.
        old: Name,
        /// Its name from now on.
        new: Name,
    },
    /// What differs between two snapshots, or one and the live tree.
    SnapshotDiff(DiffRequest),
    /// Where a name is, in snapshots and in the live tree.
    Find(FindRequest),
    /// What the volume is and how it does.
    Status,
    /// What is stored and what was saved.
    Stats,
    /// The file classes.
    ClassList,
    /// Why a file is of its class, and where its bytes lie.
    ClassExplain {
        /// Path inside the volume, or below the mountpoint when mounted.
        path: Name,
        /// Look into this snapshot instead of the live tree.
        snapshot: Option<Name>,
    },
    /// The shards.
    ShardList,
    /// Add a directory as a shard.
    ShardAdd {
        /// Absolute path of the directory.
        path: Name,
        /// Its name from now on.
        name: String,
        /// Its share of new containers.
        weight: u32,
    },
    /// Check that everything resolves.
    Check {
        /// Read and verify every chunk, too.
        read_data: bool,
    },
    /// Free containers that nothing needs.
    Gc {
        /// Only say what would be freed.
        dry_run: bool,
        /// Repack containers of which so many percent are dead.
        min_dead_percent: Option<u8>,
    },
    /// Put a file or tree of a snapshot back.
    Restore(RestoreRequest),
    /// Write what a snapshot has to a directory outside.
    Export(ExportRequest),
    /// Import files from outside.
    Import(ImportRequest),
    /// Verify, or put right.
    Scrub(ScrubRequest),
    /// Get ready for other mount options, or take note of them.
    Remount(RemountStep),
    /// Unmount and answer when everything is durable.
    Umount {
        /// Detach at once, even if files are open.
        lazy: bool,
    },
}

impl Request {
    /// True when serving it may change the volume.
    #[must_use]
    pub fn changes_volume(&self) -> bool {
        match self {
            Self::SnapshotCreate { .. }
            | Self::SnapshotDelete { .. }
            | Self::SnapshotRename { .. }
            | Self::SnapshotHold { .. }
            | Self::SnapshotLock { .. }
            | Self::Prune(PruneRequest { dry_run: false, .. })
            | Self::ShardAdd { .. }
            | Self::Umount { .. } => true,
            Self::Gc { dry_run, .. } => !dry_run,
            Self::Restore(request) => !request.dry_run,
            Self::Import(request) => !request.dry_run,
            Self::Scrub(request) => request.changes_volume(),
            Self::SnapshotList { .. }
            | Self::SnapshotDiff(_)
            | Self::Find(_)
            | Self::SnapshotWouldFree { .. }
            | Self::Prune(_)
            | Self::Status
            | Self::Stats
            | Self::ClassList
            | Self::ClassExplain { .. }
            | Self::ShardList
            | Self::Check { .. }
            | Self::Export(_)
            | Self::Remount(_) => false,
        }
    }

    /// The command, for lock files and logs.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::SnapshotCreate { .. } => "snapshot create",
            Self::SnapshotList { .. } => "snapshot list",
            Self::SnapshotDiff(_) => "snapshot diff",
            Self::Find(_) => "find",
            Self::SnapshotWouldFree { .. } => "snapshot delete --dry-run",
            Self::SnapshotHold { held: true, .. } => "snapshot hold",
            Self::SnapshotHold { .. } => "snapshot release",
            Self::SnapshotLock { .. } => "snapshot lock",
            Self::Prune(_) => "prune",
            Self::SnapshotDelete { .. } => "snapshot delete",
            Self::SnapshotRename { .. } => "snapshot rename",
            Self::Status => "status",
            Self::Stats => "stats",
            Self::ClassList => "class list",
            Self::ClassExplain { .. } => "class explain",
            Self::ShardList => "shard list",
            Self::ShardAdd { .. } => "shard add",
            Self::Check { .. } => "check",
            Self::Gc { .. } => "gc",
            Self::Restore(_) => "restore",
            Self::Export(_) => "export",
            Self::Import(_) => "import",
            Self::Scrub(request) => request.verb(),
            Self::Remount(_) => "mount -o remount",
            Self::Umount { .. } => "umount",
        }
    }
}

/// A snapshot, as commands show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotInfo {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: Name,
    /// When it was taken: ISO 8601, UTC, nanoseconds.
    pub created: String,
    /// The last epoch it sees.
    pub epoch: u64,
    /// It cannot be deleted until it is released.
    pub held: bool,
    /// Nobody can delete or rename it before: ISO 8601, UTC.
    pub locked_until: Option<String>,
    /// What it holds, if that was counted.
    pub space: Option<SnapshotSpace>,
}

impl From<&Snapshot> for SnapshotInfo {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            id: snapshot.id.0,
            name: Name(snapshot.name.to_vec()),
            created: snapshot.time.iso_utc(),
            epoch: snapshot.epoch.0,
            held: snapshot.held,
            locked_until: snapshot.locked_until.map(|secs| Timestamp { secs, nanos: 0 }.iso_utc()),
            space: None,
        }
    }
}

/// A file class, as commands show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassInfo {
    /// Its number.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// How its files are cut.
    pub chunking: String,
    /// How its chunks are compressed.
    pub codec: String,
    /// Where its new chunks go: names, with weights if there are several, then the fallback.
    pub shards: Vec<String>,
}

/// What a request is answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// The snapshot made or renamed.
    Snapshot(SnapshotInfo),
    /// All snapshots, by number.
    Snapshots(Vec<SnapshotInfo>),
    /// How many snapshots were deleted.
    Deleted(usize),
    /// What deleting snapshots would free.
    WouldFree(Amount),
    /// To `snapshot diff`, after its parts.
    Diff(Box<DiffSums>),
    /// To `find`, after its parts.
    Found(FindSums),
    /// To `prune`.
    Prune(Box<PruneReport>),
    /// To `status`.
    Status(Box<Status>),
    /// To `stats`.
    Stats(Box<StatsReport>),
    /// All classes, by number.
    Classes(Vec<ClassInfo>),
    /// To `class explain`.
    Explanation(Box<Explanation>),
    /// All shards, by number.
    Shards(Vec<ShardInfo>),
    /// The shard added.
    Shard(ShardInfo),
    /// To `check`.
    Check(Box<CheckReport>),
    /// To `gc`.
    Gc(Box<GcReport>),
    /// To `restore`.
    Restored(Box<RestoreReport>),
    /// To `export`.
    Exported(Box<ExportReport>),
    /// To `import`.
    Imported(Box<ImportReport>),
    /// To `scrub`.
    Scrub(Box<ScrubAnswer>),
    /// The mount has its new options, or may have them.
    Remounted,
    /// Unmounted; everything is durable and the volume is closed.
    Unmounted,
    /// Detached and committed; the volume closes when the last open file does.
    Detached,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    v: u32,
    cmd: Request,
}

/// Only the version of a request or reply; everything else may look different in another version.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyEnvelope {
    v: u32,
    reply: Reply,
}

/// One line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Work goes on.
    Progress(String),
    /// A piece of the answer.
    Part(Part),
    /// The end: done.
    Done(Response),
    /// The end: refused or failed.
    Failed {
        /// The sentence.
        what: String,
        /// The exit code.
        code: u8,
    },
}

impl Reply {
    /// The last line for this outcome.
    #[must_use]
    pub fn of(outcome: Result<Response>) -> Self {
        match outcome {
            Ok(response) => Self::Done(response),
            Err(error) => Self::Failed { what: error.to_string(), code: error.exit_code() },
        }
    }
}

fn line_of(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)
        .map_err(|e| Error::invalid(format!("Control message cannot be written: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

fn parse<T: serde::de::DeserializeOwned>(line: &[u8], what: &str, peer: &str) -> Result<T> {
    let bad = |e: serde_json::Error| Error::invalid(format!("{what} is not understood: {e}"));
    let version = serde_json::from_slice::<Versioned>(line).map_err(bad)?.v;
    if version != PROTOCOL_VERSION {
        return Err(Error::Unknown {
            what: format!(
                "{what} has protocol version {version}, this program speaks {PROTOCOL_VERSION}; \
                 use the same version of stratafs as {peer}"
            ),
        });
    }
    serde_json::from_slice(line).map_err(bad)
}

/// The line that asks for `request`.
///
/// # Errors
/// `Invalid` when it is longer than [`REQUEST_BYTES_MAX`].
pub fn encode_request(request: &Request) -> Result<Vec<u8>> {
    let line = line_of(&Envelope { v: PROTOCOL_VERSION, cmd: request.clone() })?;
    if line.len() > REQUEST_BYTES_MAX {
        return Err(too_long());
    }
    Ok(line)
}

/// The answer to a request line without end.
pub(super) fn too_long() -> Error {
    Error::invalid(format!("Control request is longer than {REQUEST_BYTES_MAX} bytes"))
}

/// What a request line asks for.
///
/// # Errors
/// `Invalid` when it is not one; `Unknown` when it is of another version.
pub fn decode_request(line: &[u8]) -> Result<Request> {
    parse::<Envelope>(line, "Control request", "the one that mounted the volume").map(|e| e.cmd)
}

/// The line that says `reply`.
///
/// # Errors
/// `Invalid` when it cannot be written as JSON.
pub fn encode_reply(reply: Reply) -> Result<Vec<u8>> {
    line_of(&ReplyEnvelope { v: PROTOCOL_VERSION, reply })
}

/// What a reply line says.
///
/// # Errors
/// `Invalid` when it is not one; `Unknown` when it is of another version.
pub fn decode_reply(line: &[u8]) -> Result<Reply> {
    parse::<ReplyEnvelope>(line, "Answer of the mounted process", "the mounted process")
        .map(|e| e.reply)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::retain::Policy;

    #[test]
    fn requests_come_back_as_they_were() {
        let all = [
            Request::SnapshotCreate { name: Name(b"a\xff\\b\n".to_vec()) },
            Request::SnapshotList { space: true },
            Request::SnapshotHold { name: Name(b"h".to_vec()), held: false },
            Request::SnapshotLock { name: Name(b"l".to_vec()), until: -5 },
            Request::Prune(PruneRequest {
                policy: Policy::default(),
                names: Some("daily-*".to_owned()),
                zone: None,
                dry_run: true,
            }),
            Request::SnapshotDelete { names: vec![Name(b"x".to_vec()), Name(b"\x80".to_vec())] },
            Request::ClassExplain { path: Name(b"/p".to_vec()), snapshot: None },
            Request::Check { read_data: true },
            Request::Scrub(ScrubRequest::Run { max_secs: Some(600), rate_bytes: None }),
            Request::Scrub(ScrubRequest::Status),
            Request::Scrub(ScrubRequest::Repair { from: Name(b"/good\xff".to_vec()) }),
            Request::Umount { lazy: false },
        ];
        for request in all {
            let line = encode_request(&request).unwrap();
            assert_eq!(line.split(|b| *b == b'\n').count(), 2);
            assert_eq!(decode_request(&line).unwrap(), request);
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |line: &str| decode_request(line.as_bytes()).unwrap_err().to_string();
        assert!(refused(r#"{"v":1,"cmd":"fly"}"#).contains("`fly`"));
        assert!(
            refused(r#"{"v":1,"cmd":{"check":{"read_data":true,"deep":1}}}"#).contains("`deep`")
        );
        assert!(refused(r#"{"v":1,"cmd":"status","extra":1}"#).contains("`extra`"));
        assert!(refused(r#"{"v":2,"cmd":"status"}"#).contains("protocol version 2"));
        assert!(refused(r#"{"cmd":"status"}"#).contains("`v`"));
        assert!(refused("").contains("not understood"));
    }

    #[test]
    fn a_request_has_a_longest_line() {
        let names = vec![Name(vec![b'n'; 255]); 300];
        assert!(encode_request(&Request::SnapshotDelete { names }).is_err());
    }

    #[test]
    fn errors_keep_sentence_and_code() {
        let error = Error::NotAVolume { what: "No volume here".to_owned() };
        let line = encode_reply(Reply::of(Err(error))).unwrap();
        match decode_reply(&line).unwrap() {
            Reply::Failed { what, code } => {
                assert_eq!((what.as_str(), code), ("No volume here", 3));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_read_as_iso() {
        let iso = |secs, nanos| Timestamp { secs, nanos }.iso_utc();
        assert_eq!(iso(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(iso(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(iso(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(iso(4_102_444_799, 0), "2099-12-31T23:59:59.000000000Z");
        assert_eq!(iso(1_793_700_672, 0), "2026-11-03T10:11:12.000000000Z");
        assert!(iso(i64::MAX, 0).ends_with('Z') && iso(i64::MIN, 0).ends_with('Z'));
    }

    proptest! {
        #[test]
        fn any_name_survives(bytes in any::<Vec<u8>>()) {
            let name = Name(bytes);
            prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let _ = decode_request(&bytes);
            let _ = decode_reply(&bytes);
            let _ = text.parse::<Name>();
            let _ = decode_request(format!("{{\"v\":1,\"cmd\":{{\"gc\":{text:?}}}}}").as_bytes());
        }
    }
}
