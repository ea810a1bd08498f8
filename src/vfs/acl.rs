//! POSIX ACLs: what they do to modes, and modes to them.
//!
//! Pure functions over the kernel's xattr format, version 2. All little-endian:
//!
//! | offset | size | field   | rule                                                      |
//! |-------:|-----:|---------|-----------------------------------------------------------|
//! |      0 |    4 | version | 2                                                         |
//! |  4+8·i |    2 | tag     | [`Tag`], in the order of that enum                        |
//! |  6+8·i |    2 | perm    | 0..=7                                                     |
//! |  8+8·i |    4 | id      | who a named user or group is; ignored for the others      |

use crate::error::{Error, Result};

/// The xattr of the ACL that guards an inode.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The xattr of the ACL that new entries of a directory inherit.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of entries that name nobody.
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    perm: u16,
    id: u32,
}

/// A valid ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Reads an ACL; `None` for one without entries, which means "no ACL".
    ///
    /// # Errors
    /// `Invalid` when the bytes are no ACL.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(invalid)?;
        if header != VERSION.to_le_bytes() || body.len() % ENTRY_BYTES != 0 {
            return Err(invalid());
        }
        let entries: Option<Vec<Entry>> = body.chunks_exact(ENTRY_BYTES).map(parse_entry).collect();
        let acl = Self { entries: entries.ok_or_else(invalid)? };
        if acl.entries.is_empty() {
            return Ok(None);
        }
        if acl.is_valid() { Ok(Some(acl)) } else { Err(invalid()) }
    }

    /// The bytes of the xattr.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            bytes.extend((entry.tag as u16).to_le_bytes());
            bytes.extend(entry.perm.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// Each of owner, owning group and other once, a mask when somebody is named, tags in order:
    /// what the kernel asks for.
    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|e| e.tag == tag).count();
        let named = count(Tag::User) + count(Tag::Group);
        self.entries.is_sorted_by_key(|entry| entry.tag)
            && count(Tag::Mask) <= 1
            && [Tag::Owner, Tag::OwningGroup, Tag::Other].into_iter().all(|tag| count(tag) == 1)
            && (named == 0 || count(Tag::Mask) == 1)
    }

    /// True when the permission bits of a mode say the same.
    pub(super) fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    fn perm(&self, tag: Tag) -> Option<u16> {
        self.entries.iter().find(|e| e.tag == tag).map(|e| e.perm)
    }

    fn set(&mut self, tag: Tag, perm: u16) {
        for entry in self.entries.iter_mut().filter(|e| e.tag == tag) {
            entry.perm = perm;
        }
    }

    /// Who the group bits of the mode stand for: the mask, if there is one.
    fn group_tag(&self) -> Tag {
        if self.perm(Tag::Mask).is_some() { Tag::Mask } else { Tag::OwningGroup }
    }

    /// The nine permission bits that go with this ACL.
    pub(super) fn mode(&self) -> u16 {
        let of = |tag| self.perm(tag).unwrap_or(0);
        of(Tag::Owner) << 6 | of(self.group_tag()) << 3 | of(Tag::Other)
    }

    /// This ACL after chmod to `perm`.
    pub(super) fn with_mode(mut self, perm: u16) -> Self {
        self.set(Tag::Owner, perm >> 6 & 7);
        self.set(self.group_tag(), perm >> 3 & 7);
        self.set(Tag::Other, perm & 7);
        self
    }

    /// What an inode that is created with `perm` in a directory with this default ACL gets: its
    /// permission bits, and an access ACL unless those say it all. The umask plays no part.
    pub(super) fn inherited(self, perm: u16) -> (u16, Option<Self>) {
        let mode = self.mode() & perm & 0o777;
        let acl = self.with_mode(mode);
        (perm & !0o777 | mode, Some(acl).filter(|acl| !acl.is_minimal()))
    }
}

fn parse_entry(bytes: &[u8]) -> Option<Entry> {
    let &[tag0, tag1, perm0, perm1, id0, id1, id2, id3] = bytes else { return None };
    let tag = match u16::from_le_bytes([tag0, tag1]) {
        0x01 => Tag::Owner,
        0x02 => Tag::User,
        0x04 => Tag::OwningGroup,
        0x08 => Tag::Group,
        0x10 => Tag::Mask,
        0x20 => Tag::Other,
        _ => return None,
    };
    let perm = u16::from_le_bytes([perm0, perm1]);
    let id = match tag {
        Tag::User | Tag::Group => u32::from_le_bytes([id0, id1, id2, id3]),
        _ => NO_ID,
    };
    let named = matches!(tag, Tag::User | Tag::Group);
    (perm <= 7 && !(named && id == NO_ID)).then_some(Entry { tag, perm, id })
}

fn invalid() -> Error {
    Error::invalid("The value is not a POSIX ACL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(perm.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }

    /// `u::rw- u:1000:rwx g::r-- m::rwx o::---`
    fn full() -> Vec<u8> {
        bytes(&[(1, 6, NO_ID), (2, 7, 1000), (4, 4, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID)])
    }

    fn minimal(owner: u16, group: u16, other: u16) -> Vec<u8> {
        bytes(&[(1, owner, NO_ID), (4, group, NO_ID), (32, other, NO_ID)])
    }

    fn acl(bytes: &[u8]) -> Acl {
        Acl::parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn the_group_bits_of_a_mode_are_the_mask() {
        assert_eq!(acl(&full()).mode(), 0o670);
        assert_eq!(acl(&minimal(7, 5, 1)).mode(), 0o751);
        assert!(acl(&minimal(7, 5, 1)).is_minimal());
        assert!(!acl(&full()).is_minimal());
    }

    #[test]
    fn chmod_changes_owner_mask_and_other_only() {
        let changed = acl(&full()).with_mode(0o4711).to_bytes();
        let expected =
            bytes(&[(1, 7, NO_ID), (2, 7, 1000), (4, 4, NO_ID), (16, 1, NO_ID), (32, 1, NO_ID)]);
        assert_eq!(changed, expected);
        assert_eq!(acl(&minimal(7, 7, 7)).with_mode(0o640).to_bytes(), minimal(6, 4, 0));
    }

    #[test]
    fn a_new_inode_inherits_no_more_than_it_asked_for() {
        let (perm, inherited) = acl(&full()).inherited(0o2666);
        assert_eq!(perm, 0o2660);
        let expected =
            bytes(&[(1, 6, NO_ID), (2, 7, 1000), (4, 4, NO_ID), (16, 6, NO_ID), (32, 0, NO_ID)]);
        assert_eq!(inherited.unwrap().to_bytes(), expected);
    }

    #[test]
    fn a_minimal_default_acl_only_limits_the_mode() {
        assert_eq!(acl(&minimal(7, 5, 0)).inherited(0o666), (0o640, None));
    }

    #[test]
    fn no_entries_mean_no_acl() {
        assert_eq!(Acl::parse(b"").unwrap(), None);
        assert_eq!(Acl::parse(&bytes(&[])).unwrap(), None);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let mut other_version = full();
        other_version[0] = 1;
        let bad = [
            b"\x02\0".to_vec(),
            other_version,
            full()[..full().len() - 1].to_vec(),
            bytes(&[(1, 6, NO_ID)]),
            bytes(&[(1, 8, NO_ID), (4, 4, NO_ID), (32, 0, NO_ID)]),
            bytes(&[(3, 6, NO_ID), (4, 4, NO_ID), (32, 0, NO_ID)]),
            // A named user without a mask; two masks; nobody named; a second owner; wrong order.
            bytes(&[(1, 6, NO_ID), (2, 7, 5), (4, 4, NO_ID), (32, 0, NO_ID)]),
            bytes(&[(1, 6, 0), (2, 7, 5), (4, 4, 0), (16, 7, 0), (16, 7, 0), (32, 0, 0)]),
            bytes(&[(1, 6, 0), (2, 7, NO_ID), (4, 4, 0), (16, 7, 0), (32, 0, 0)]),
            bytes(&[(1, 6, 0), (1, 6, 1), (4, 4, 0), (32, 0, 0)]),
            bytes(&[(4, 4, 0), (1, 6, 0), (32, 0, 0)]),
        ];
        for bytes in bad {
            assert!(matches!(Acl::parse(&bytes), Err(Error::Invalid { .. })), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_and_what_parses_survives(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Ok(Some(acl)) = Acl::parse(&bytes) {
                prop_assert_eq!(Acl::parse(&acl.to_bytes()).unwrap(), Some(acl));
            }
        }
    }
}
