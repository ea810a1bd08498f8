//! Every bound, with its reason. Bytes unless the name says otherwise.

/// Longest name of a directory entry, as in ext4 and POSIX `NAME_MAX`.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target: Linux `PATH_MAX` less the final NUL.
pub const TARGET_BYTES_MAX: usize = 4095;
/// Longest xattr name (Linux `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Largest xattr value (Linux `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest list of xattr names of one inode (Linux `XATTR_LIST_MAX`).
pub const XATTR_LIST_BYTES_MAX: usize = 64 * 1024;
/// Most hard links to one inode: ext4's bound.
pub const LINKS_MAX: u32 = 65_000;
/// Largest file: offsets must stay positive in `off_t`.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Inode numbers stay below 2^40: the upper 23 bits of a 63-bit number name the snapshot.
pub const INO_BITS: u32 = 40;
/// Largest snapshot number; the 16 values above it mark nodes that are no inode's.
pub const SNAPSHOT_ID_MAX: u32 = (1 << 23) - 17;
/// Memory of the virtual directories that the kernel knows by number: some 10,000. From half of it
/// on the kernel is asked to forget those that nobody uses, so this bounds those in use.
pub const VIRTUAL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Memory of a comparison that is kept for its folders: some 100,000 paths. Beyond it a command
/// tells them, which keeps nothing.
pub const DIFFERENCE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most files and directories counted for an extended attribute of a directory.
pub const MEASURED_INODES_MAX: usize = 10_000;
/// Most extents remembered for one: 8 MiB of chunk numbers.
pub const MEASURED_EXTENTS_MAX: usize = 1_000_000;
/// Most extents compared to tell the versions of one name apart; beyond that their times decide.
pub const COMPARED_EXTENTS_MAX: usize = 1_000_000;
/// Most snapshots at a time: their records are kept in memory.
pub const SNAPSHOTS_MAX: usize = 65_536;
/// Epochs stay below 2^56, so the first byte of a big-endian epoch is 0 and ends a name.
pub const EPOCH_MAX: u64 = (1 << 56) - 1;

/// Largest chunk any chunker may cut. 1 MiB keeps a read of one byte from costing more.
pub const CHUNK_BYTES_MAX: u32 = 1024 * 1024;
/// New chunks below it are copied while they wait for their group to fill, unless most of their
/// buffer is new: a few small ones must not keep the large buffers they were cut from. Above it
/// copying costs more than it frees.
pub const COPIED_CHUNK_BYTES_MAX: u32 = 64 * 1024;
/// Most raw bytes in one frame: one large chunk, or a group.
pub const FRAME_RAW_BYTES_MAX: u32 = CHUNK_BYTES_MAX;
/// Smallest bound for a group of small chunks: below it a group saves nothing.
pub const GROUP_BYTES_MIN: u32 = 16 * 1024;
/// Largest bound for a group of small chunks: it becomes one frame.
pub const GROUP_BYTES_MAX: u32 = FRAME_RAW_BYTES_MAX;
/// Most chunks in one frame.
pub const FRAME_CHUNKS_MAX: u32 = 4096;
/// A container is sealed when it reaches this. 32 MiB is one plain S3 PUT.
pub const CONTAINER_BYTES: u32 = 32 * 1024 * 1024;
/// No container is larger: the bound, the frame that crossed it and a footer.
pub const CONTAINER_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Most shards of a volume.
pub const SHARDS_MAX: usize = 256;
/// Most file classes of a volume.
pub const CLASSES_MAX: usize = 64;

/// A run of zero bytes at least this long, aligned to 4 KiB in the file, becomes a hole.
pub const ZERO_RUN_BYTES_MIN: usize = 16 * 1024;
/// First bytes of a file the classifier may look at.
pub const MAGIC_BYTES: usize = 4096;
/// Extents a delete or truncate removes at once; more are left to the reaper.
pub const REAP_PIECE_EXTENTS: usize = 2_000;

const _: () = assert!(GROUP_BYTES_MAX <= FRAME_RAW_BYTES_MAX && GROUP_BYTES_MIN >= 2);
const _: () = assert!(CONTAINER_BYTES >= 16 * CHUNK_BYTES_MAX, "the footer must stay small");
const _: () = assert!(CONTAINER_BYTES_MAX >= 2 * CONTAINER_BYTES);
