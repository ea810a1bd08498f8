//! The one error type, its errno and its exit code.
//!
//! Answers (`NotFound`, `Exists` …) are replies to a caller and are not logged above debug. Damage
//! names the object. World errors name the operation and the place. State errors name the first
//! cause. Every text is one sentence that names the thing and, where there is one, the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. See the module text for the groups.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such entry, inode, xattr-bearing object or snapshot.
    #[error("No such {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The name is taken.
    #[error("{what} exists already")]
    Exists {
        /// What exists.
        what: String,
    },
    /// A directory that should be empty is not.
    #[error("Directory is not empty")]
    NotEmpty,
    /// A component that should be a directory is not.
    #[error("Not a directory")]
    NotDirectory,
    /// The operation does not work on directories.
    #[error("Is a directory")]
    IsDirectory,
    /// A name beyond `NAME_BYTES_MAX`.
    #[error("Name is longer than {max} bytes")]
    NameTooLong {
        /// The bound in bytes.
        max: usize,
    },
    /// More hard links than `LINKS_MAX`.
    #[error("Too many links")]
    TooManyLinks,
    /// More open files than the configuration allows.
    #[error("{max} files are open; close some, or raise \"open_files\" in config.toml")]
    TooManyOpen {
        /// The bound.
        max: u64,
    },
    /// More virtual directories in use than memory is set aside for.
    #[error("Too many virtual directories are in use; close some")]
    TooManyVirtual,
    /// A file beyond `FILE_BYTES_MAX`.
    #[error("File is too large")]
    FileTooLarge,
    /// The argument makes no sense.
    #[error("{what}")]
    Invalid {
        /// A whole sentence.
        what: String,
    },
    /// Not possible here, ever.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// Forbidden whoever asks.
    #[error("{what}")]
    NotPermitted {
        /// A whole sentence.
        what: String,
    },
    /// A snapshot, or a volume opened read-only.
    #[error("Read-only: {what}")]
    ReadOnly {
        /// What is read-only.
        what: String,
    },
    /// A link or rename between the live tree and a snapshot, or between two snapshots.
    #[error("Source and target are in different trees")]
    CrossDevice,
    /// No such extended attribute.
    #[error("No such attribute")]
    NoAttribute,
    /// The caller's buffer is too small.
    #[error("Result does not fit the buffer")]
    Range,
    /// An xattr value or list beyond its bound.
    #[error("Value is too large")]
    TooLarge,
    /// The handle's snapshot or inode is gone.
    #[error("Stale handle")]
    Stale,
    /// No room on `place`.
    #[error("No space left on {place}; free some there, or delete snapshots and run gc")]
    NoSpace {
        /// The shard or directory.
        place: String,
    },

    /// Bytes are not what was written.
    #[error("Damaged {object}: {detail}")]
    Corrupt {
        /// The file, table row, container or frame.
        object: String,
        /// What is wrong with it.
        detail: String,
    },

    /// A system call failed.
    #[error("Cannot {op} {}: {}", path.display(), describe(source))]
    Io {
        /// Verb, as in "open".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The metadata database failed.
    #[error("Metadata {op} failed in table {table}: {detail}")]
    Kv {
        /// Verb.
        op: &'static str,
        /// Table name.
        table: &'static str,
        /// What the database said.
        detail: String,
    },

    /// An earlier failure of a commit stopped all writing.
    #[error("Volume stopped accepting writes after: {cause}; unmount and mount again to recover")]
    Poisoned {
        /// The first cause.
        cause: Arc<Error>,
    },

    /// The directory is not a volume we can open.
    #[error("{what}")]
    NotAVolume {
        /// A whole sentence with the way out.
        what: String,
    },
    /// A format version or feature flag this program does not know.
    #[error("{what}")]
    Unknown {
        /// A whole sentence with the way out.
        what: String,
    },
    /// Somebody else has the volume open, or the mountpoint is in use.
    #[error("{what}")]
    Busy {
        /// A whole sentence that names who.
        what: String,
    },
    /// The mountpoint, or FUSE itself, is not usable.
    #[error("{what}")]
    Mount {
        /// A whole sentence with the way out.
        what: String,
    },
    /// The configuration file does not load.
    #[error("{what}")]
    Config {
        /// A whole sentence that names file and key.
        what: String,
    },
    /// A shard is missing, foreign or unknown.
    #[error("{what}")]
    Shard {
        /// A whole sentence with the way out.
        what: String,
    },
    /// A shard that the volume has is not there now; it may come back.
    #[error("{what}")]
    ShardMissing {
        /// A whole sentence that names the shard, with the way out.
        what: String,
    },
    /// What another process of this program answered: any of the above, as text.
    #[error("{what}")]
    Remote {
        /// Its sentence.
        what: String,
        /// Its exit code.
        code: u8,
    },
}

/// `No such file or directory` without Rust's `(os error 2)`.
fn describe(source: &io::Error) -> String {
    let text = source.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

impl Error {
    /// Wraps a failed system call.
    #[must_use]
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source: Arc::new(source) }
    }

    /// `NotFound` for `what`.
    #[must_use]
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// `Invalid` with a whole sentence.
    #[must_use]
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// `Corrupt` for `object`.
    #[must_use]
    pub fn corrupt(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), detail: detail.into() }
    }

    /// True for a failure outside the caller's reach: damage, disks, an earlier fault.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Io { .. }
                | Self::Kv { .. }
                | Self::Poisoned { .. }
                | Self::ShardMissing { .. }
        )
    }

    /// True if the device could not read bytes it holds: they are damaged, others need not be.
    #[must_use]
    pub fn is_medium_error(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EIO | libc::EREMOTEIO | libc::EBADMSG))
    }

    /// The errno a system call gets. Numbers are Linux's, the same on every architecture we name.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound { .. } => libc::ENOENT,
            Self::Exists { .. } => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NameTooLong { .. } => libc::ENAMETOOLONG,
            Self::TooManyLinks => libc::EMLINK,
            Self::TooManyOpen { .. } | Self::TooManyVirtual => libc::ENFILE,
            Self::FileTooLarge => libc::EFBIG,
            Self::Invalid { .. } | Self::Config { .. } => libc::EINVAL,
            Self::Unsupported { .. } => libc::EOPNOTSUPP,
            Self::NotPermitted { .. } => libc::EPERM,
            Self::ReadOnly { .. } | Self::Poisoned { .. } => libc::EROFS,
            Self::CrossDevice => libc::EXDEV,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::TooLarge => libc::E2BIG,
            Self::Stale => libc::ESTALE,
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::Busy { .. } => libc::EBUSY,
            Self::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => libc::ENOSPC,
            Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Kv { .. }
            | Self::NotAVolume { .. }
            | Self::Unknown { .. }
            | Self::Mount { .. }
            | Self::Shard { .. }
            | Self::ShardMissing { .. }
            | Self::Remote { .. } => libc::EIO,
        }
    }

    /// The exit code of the command line; docs/OPERATIONS.md has the same table.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Remote { code, .. } => *code,
            Self::NotAVolume { .. } => 3,
            Self::Unknown { .. } => 4,
            Self::Corrupt { .. } | Self::Kv { .. } => 5,
            Self::Busy { .. } => 6,
            Self::Mount { .. } => 7,
            Self::Config { .. } => 8,
            Self::Shard { .. } | Self::ShardMissing { .. } => 9,
            Self::NoSpace { .. } | Self::ReadOnly { .. } | Self::Poisoned { .. } => 10,
            Self::Io { source, .. }
                if matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EROFS)) =>
            {
                10
            }
            _ => 1,
        }
    }
}
