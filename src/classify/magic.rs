//! What the first bytes of a file say.
//!
//! A *decisive* magic is long or checked enough to outweigh the name, but for classes it yields
//! to: a zip that is called `.docx` is an office document. A *weak* one counts when the name says
//! nothing.

use crate::config::{ARCHIVE, BINARY, DATABASE, IMAGE, MAIL, MEDIA, OFFICE, SOURCE};
use crate::types::ClassId;

/// Bytes of the head that [`is_text`] looks at: enough to meet the first binary field.
const TEXT_BYTES: usize = 1024;

/// What was recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Magic {
    /// The class of such files.
    pub class: ClassId,
    /// What it is, for people.
    pub label: &'static str,
    /// Classes by name that know better.
    yields_to: &'static [ClassId],
}

impl Magic {
    /// True if a name of class `named` says more than this magic.
    pub fn yields_to(&self, named: ClassId) -> bool {
        self.class == named || self.yields_to.contains(&named)
    }
}

/// A file whose name is always less telling.
const fn is(class: ClassId, label: &'static str) -> Magic {
    Magic { class, label, yields_to: &[] }
}

/// A wrapping that names of other classes may describe better.
const fn wraps(class: ClassId, label: &'static str, yields_to: &'static [ClassId]) -> Magic {
    Magic { class, label, yields_to }
}

type Entry = (usize, &'static [u8], Magic);

/// Bytes at an offset that are decisive without a further look.
const TABLE: &[Entry] = &[
    (0, b"\x7fELF", is(BINARY, "ELF program")),
    (0, b"\xfe\xed\xfa\xce", is(BINARY, "Mach-O program")),
    (0, b"\xfe\xed\xfa\xcf", is(BINARY, "Mach-O program")),
    (0, b"\xce\xfa\xed\xfe", is(BINARY, "Mach-O program")),
    (0, b"\xcf\xfa\xed\xfe", is(BINARY, "Mach-O program")),
    (0, b"\xca\xfe\xba\xbe", is(BINARY, "Java class or fat Mach-O program")),
    (0, b"\0asm", is(BINARY, "WebAssembly module")),
    (0, b"BC\xc0\xde", is(BINARY, "LLVM bitcode")),
    (0, b"dex\n0", is(BINARY, "Dalvik program")),
    (0, b"!<arch>\ndebian-binary", is(ARCHIVE, "Debian package")),
    (0, b"!<arch>\n", wraps(BINARY, "ar library", &[ARCHIVE])),
    (0, b"!<thin>\n", is(BINARY, "thin ar library")),
    (0x202, b"HdrS", is(BINARY, "Linux kernel")),
    (0, b"\x89PNG\r\n\x1a\n", is(MEDIA, "PNG image")),
    (0, b"\x8aMNG\r\n\x1a\n", is(MEDIA, "MNG image")),
    (0, b"\xff\xd8\xff", is(MEDIA, "JPEG image")),
    (0, b"GIF87a", is(MEDIA, "GIF image")),
    (0, b"GIF89a", is(MEDIA, "GIF image")),
    (0, b"II*\0", is(MEDIA, "TIFF or raw image")),
    (0, b"MM\0*", is(MEDIA, "TIFF or raw image")),
    (0, b"II+\0", is(MEDIA, "BigTIFF image")),
    (0, b"IIRO", is(MEDIA, "Olympus raw image")),
    (0, b"FUJIFILMCCD-RAW", is(MEDIA, "Fuji raw image")),
    (0, b"8BPS\0", is(MEDIA, "Photoshop image")),
    (0, b"gimp xcf ", is(MEDIA, "GIMP image")),
    (0, b"\0\0\0\x0cjP  \r\n", is(MEDIA, "JPEG 2000 image")),
    (0, b"\0\0\0\x0cJXL \r\n", is(MEDIA, "JPEG XL image")),
    (0, b"v/1\x01", is(MEDIA, "OpenEXR image")),
    (0, b"DDS |\0\0\0", is(MEDIA, "DDS texture")),
    (128, b"DICM", is(MEDIA, "DICOM image")),
    (0, b"\x1aE\xdf\xa3", is(MEDIA, "Matroska or WebM")),
    (0, b"OggS\0", is(MEDIA, "Ogg")),
    (0, b"fLaC", is(MEDIA, "FLAC sound")),
    (0, b"ID3\x02", is(MEDIA, "MP3 sound")),
    (0, b"ID3\x03", is(MEDIA, "MP3 sound")),
    (0, b"ID3\x04", is(MEDIA, "MP3 sound")),
    (0, b"MThd\0\0\0\x06", is(MEDIA, "MIDI sound")),
    (0, b"MAC \x96\x0f", is(MEDIA, "Monkey's Audio sound")),
    (0, b"wvpk", is(MEDIA, "WavPack sound")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", is(MEDIA, "Windows Media")),
    (0, b"FLV\x01", is(MEDIA, "Flash video")),
    (0, b"\0\0\x01\xba", is(MEDIA, "MPEG video")),
    (0, b"\0\0\x01\xb3", is(MEDIA, "MPEG video")),
    (0, b"BLENDER-v", is(MEDIA, "Blender scene")),
    (0, b"BLENDER_v", is(MEDIA, "Blender scene")),
    (0, b"%PDF-", wraps(OFFICE, "PDF document", &[MEDIA])),
    (0, b"%!PS-Adobe", wraps(OFFICE, "PostScript document", &[MEDIA])),
    (0, b"{\\rtf1", is(OFFICE, "RTF document")),
    (0, b"AT&TFORM", is(OFFICE, "DjVu document")),
    (0, b"ITSF\x03\0\0\0", is(OFFICE, "CHM help")),
    (60, b"BOOKMOBI", is(OFFICE, "Mobipocket book")),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        wraps(OFFICE, "OLE document", &[MAIL, BINARY, DATABASE, MEDIA]),
    ),
    (0, b"!BDN", is(MAIL, "Outlook mailbox")),
    (0, b"\xcf\xad\x12\xfe", is(MAIL, "Outlook Express mailbox")),
    (0, b"\x1f\x8b\x08", wraps(ARCHIVE, "gzip stream", &[OFFICE])),
    (0, b"\xfd7zXZ\0", is(ARCHIVE, "xz stream")),
    (0, b"\x28\xb5\x2f\xfd", is(ARCHIVE, "zstd stream")),
    (0, b"\x04\x22\x4d\x18", is(ARCHIVE, "lz4 stream")),
    (0, b"LZIP\x01", is(ARCHIVE, "lzip stream")),
    (0, b"\x89LZO\0\r\n\x1a\n", is(ARCHIVE, "lzop stream")),
    (0, b"\x1f\x9d\x90", is(ARCHIVE, "compress stream")),
    (0, b"7z\xbc\xaf\x27\x1c", is(ARCHIVE, "7-Zip archive")),
    (0, b"Rar!\x1a\x07", is(ARCHIVE, "RAR archive")),
    (0, b"MSCF\0\0\0\0", is(ARCHIVE, "cabinet archive")),
    (0, b"\xed\xab\xee\xdb", is(ARCHIVE, "RPM package")),
    (0, b"070701", is(ARCHIVE, "cpio archive")),
    (0, b"070702", is(ARCHIVE, "cpio archive")),
    (0, b"070707", is(ARCHIVE, "cpio archive")),
    (0, b"hsqs", wraps(ARCHIVE, "SquashFS image", &[IMAGE])),
    (0, b"xar!\0\x1c", wraps(ARCHIVE, "xar archive", &[IMAGE])),
    (0, b"PACK\0\0\0\x02", is(ARCHIVE, "git pack")),
    (0, b"wOFF", is(ARCHIVE, "compressed font")),
    (0, b"wOF2", is(ARCHIVE, "compressed font")),
    (0, b"PGDMP", is(ARCHIVE, "PostgreSQL archive")),
    (257, b"ustar", wraps(ARCHIVE, "tar archive", &[IMAGE])),
    (0, b"SQLite format 3\0", is(DATABASE, "SQLite database")),
    (0, b"\0\x01\0\0Standard Jet DB\0", is(DATABASE, "Access database")),
    (0, b"\0\x01\0\0Standard ACE DB\0", is(DATABASE, "Access database")),
    (4, b"\xef\xcd\xab\x89", is(DATABASE, "ESE database")),
    (0, b"regf", is(DATABASE, "Windows registry")),
    (16, b"\xde\xc0\xef\xbe", is(DATABASE, "LMDB database")),
    (12, b"\x61\x15\x06\0", is(DATABASE, "Berkeley DB")),
    (12, b"\x62\x31\x05\0", is(DATABASE, "Berkeley DB")),
    (0, b"\x13\x9a\x57\xce", is(DATABASE, "GDBM database")),
    (0, b"\xcf\x9a\x57\x13", is(DATABASE, "GDBM database")),
    (0, b"\x03\xd9\xa2\x9a", is(DATABASE, "KeePass database")),
    (0, b"REDIS0", is(DATABASE, "Redis dump")),
    (0, b"QFI\xfb", is(IMAGE, "QCOW disk")),
    (0, b"KDMV", is(IMAGE, "VMDK disk")),
    (0, b"COWD", is(IMAGE, "VMDK disk")),
    (0, b"# Disk DescriptorFile", is(IMAGE, "VMDK descriptor")),
    (0x40, b"\x7f\x10\xda\xbe", is(IMAGE, "VDI disk")),
    (0, b"vhdxfile", is(IMAGE, "VHDX disk")),
    (0, b"conectix", is(IMAGE, "VHD disk")),
    (0, b"QED\0", is(IMAGE, "QED disk")),
    (0, b"LUKS\xba\xbe", is(IMAGE, "LUKS disk")),
    (0, b"XFSB\0\0", is(IMAGE, "XFS image")),
    (3, b"NTFS    ", is(IMAGE, "NTFS image")),
    (3, b"EXFAT   ", is(IMAGE, "exFAT image")),
    (512, b"EFI PART", is(IMAGE, "GPT disk")),
    (512, b"LABELONE", is(IMAGE, "LVM disk")),
    (4086, b"SWAPSPACE2", is(IMAGE, "swap space")),
    (0, b"-----BEGIN ", wraps(SOURCE, "PEM text", &[MAIL])),
];

/// What `head` is beyond doubt.
pub(super) fn decisive(head: &[u8]) -> Option<Magic> {
    let first = *head.first()?;
    let found = TABLE.iter().find(|(offset, bytes, _)| {
        (*offset > 0 || bytes[0] == first) && has_at(head, *offset, bytes)
    });
    found.map(|(_, _, magic)| *magic).or_else(|| checked(head))
}

/// What `head` may be if the name says nothing.
pub(super) fn weak(head: &[u8]) -> Option<Magic> {
    let found = match head {
        [b'F', b'r', b'o', b'm', b' ', ..] if is_mbox(head) => is(MAIL, "mailbox"),
        _ if is_mail(head) => is(MAIL, "mail"),
        _ if is_text(head) => return None,
        [b'M', b'Z', ..] => is(BINARY, "DOS program"),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => is(MEDIA, "BMP image"),
        [0, 0, 1, 0, 1..=64, 0, ..] => is(MEDIA, "icon"),
        // MPEG-1/2 layer III, then AAC: 11 or 12 bits of sync and a layer.
        [0xff, 0xfa | 0xfb | 0xf2 | 0xf3, ..] => is(MEDIA, "MP3 sound"),
        [0xff, 0xf1 | 0xf9, ..] => is(MEDIA, "AAC sound"),
        // Two bytes that are a multiple of 31: what git's loose objects begin with.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => is(ARCHIVE, "zlib stream"),
        [0x5d, 0, 0, ..] => is(ARCHIVE, "LZMA stream"),
        _ => return None,
    };
    Some(found)
}

fn has_at(head: &[u8], offset: usize, bytes: &[u8]) -> bool {
    head.get(offset..).is_some_and(|rest| rest.starts_with(bytes))
}

fn u32_le(head: &[u8], offset: usize) -> Option<u32> {
    let bytes = head.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Formats that need more than one look.
fn checked(head: &[u8]) -> Option<Magic> {
    match head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(zip(head)),
        [b'R', b'I', b'F', b'F' | b'X', ..] => {
            let kinds = [&b"WAVE"[..], b"AVI ", b"WEBP", b"RMID", b"CDXA", b"sfbk"];
            let media = kinds.iter().any(|kind| has_at(head, 8, kind));
            media.then_some(is(MEDIA, "RIFF sound, video or image"))
        }
        [b'F', b'O', b'R', b'M', ..] if has_at(head, 8, b"AIF") => Some(is(MEDIA, "AIFF sound")),
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if rest.starts_with(b"1AY&SY") => {
            Some(is(ARCHIVE, "bzip2 stream"))
        }
        [b'M', b'Z', ..] => {
            let at = usize::try_from(u32_le(head, 0x3c)?).ok()?;
            let kinds = [&b"PE\0\0"[..], b"NE", b"LE", b"LX"];
            let valid = at >= 0x40 && kinds.iter().any(|kind| has_at(head, at, kind));
            valid.then_some(is(BINARY, "Windows program"))
        }
        [0x47, ..] if head.get(188) == Some(&0x47) && head.get(376) == Some(&0x47) => {
            Some(is(MEDIA, "MPEG transport stream"))
        }
        _ if has_at(head, 4, b"ftyp") && head[0] == 0 => Some(is(MEDIA, "MP4 or HEIF")),
        _ if is_quicktime(head) => Some(is(MEDIA, "QuickTime video")),
        _ => disk(head),
    }
}

/// A QuickTime file without `ftyp`: a length and one of the usual first atoms.
fn is_quicktime(head: &[u8]) -> bool {
    let kinds = [&b"moov"[..], b"mdat", b"wide", b"skip"];
    head[0] == 0 && kinds.iter().any(|kind| has_at(head, 4, kind))
}

/// What kind of zip `head` begins.
fn zip(head: &[u8]) -> Magic {
    let contains = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    // ODF and EPUB store their type first and uncompressed; OOXML has its parts list early.
    let office = has_at(head, 30, b"mimetypeapplication/")
        || contains(b"[Content_Types].xml")
        || [&b"word/"[..], b"xl/", b"ppt/"].iter().any(|folder| has_at(head, 30, folder));
    if office {
        wraps(OFFICE, "zipped office document", &[ARCHIVE, BINARY, DATABASE, MEDIA])
    } else {
        wraps(ARCHIVE, "zip archive", &[OFFICE, BINARY, DATABASE])
    }
}

/// Raw disks and file systems without a magic of their own at the start.
fn disk(head: &[u8]) -> Option<Magic> {
    let ext = has_at(head, 1080, b"\x53\xef")
        // Block size 1 KiB..64 KiB; states 0..=7; some inodes.
        && u32_le(head, 1048)? <= 6
        && *head.get(1082)? <= 7
        && u32_le(head, 1024)? > 0;
    if ext {
        return Some(is(IMAGE, "ext file system"));
    }
    if !has_at(head, 510, b"\x55\xaa") {
        return None;
    }
    if has_at(head, 54, b"FAT1") || has_at(head, 82, b"FAT32") {
        return Some(is(IMAGE, "FAT image"));
    }
    let partitions = head[446..510].chunks_exact(16);
    let valid = partitions.clone().all(|entry| matches!(entry[0], 0 | 0x80));
    let used = partitions.filter(|entry| entry[4] != 0 && entry[12..16] != [0; 4]).count();
    (valid && used > 0).then_some(is(IMAGE, "partitioned disk"))
}

fn first_line(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// `From `, an address and a date with a time and a year.
fn is_mbox(head: &[u8]) -> bool {
    let words: Vec<&[u8]> = first_line(head)
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .take(12)
        .collect();
    let year = |word: &[u8]| word.len() == 4 && word.iter().all(u8::is_ascii_digit);
    let time = |word: &[u8]| word.contains(&b':') && word[0].is_ascii_digit();
    words.len() >= 5 && words.iter().any(|w| year(w)) && words.iter().any(|w| time(w))
}

/// A first header line that only mail servers and mail programs write.
fn is_mail(head: &[u8]) -> bool {
    const HEADERS: [&[u8]; 8] = [
        b"Return-Path:",
        b"Received: ",
        b"Delivered-To:",
        b"X-Original-To:",
        b"Envelope-to:",
        b"X-Mozilla-Status:",
        b"Message-ID:",
        b"MIME-Version:",
    ];
    let line = first_line(head);
    HEADERS.iter().any(|header| {
        line.len() > header.len() && line[..header.len()].eq_ignore_ascii_case(header)
    })
}

/// True if `head` is mostly readable: UTF-8 or ASCII with few other bytes, or UTF-16 with its mark.
pub(super) fn is_text(head: &[u8]) -> bool {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return head.len() >= 4 && !head[2..].starts_with(b"\0\0");
    }
    let head = &head[..head.len().min(TEXT_BYTES)];
    let control = |byte: &u8| matches!(byte, 0..=6 | 14..=26 | 28..=31 | 127);
    let odd = head.iter().filter(|byte| control(byte)).count();
    let broken: usize = head.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    // The end of what is looked at may cut a character; that is no damage.
    let cut = if head.len() == TEXT_BYTES { 3 } else { 0 };
    !head.is_empty()
        && !head.contains(&0)
        && odd * 50 <= head.len()
        && broken.saturating_sub(cut) * 10 <= head.len()
        && broken < head.len()
}
