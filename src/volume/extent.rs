//! Pure arithmetic on extent lists.

use std::ops::Range;

use crate::types::Extent;

/// Replaces `range` of `old` by `new` and returns the extents that remain, in file order.
/// Lengths are bytes; the caller stages the result.
pub(super) fn splice(old: &[Extent], range: &Range<u64>, new: &[Extent]) -> Vec<Extent> {
    assert!(are_ordered(old), "a lower room returned overlapping extents");
    assert!(new.iter().all(|e| range.start <= e.offset && e.end() <= range.end));
    let before = old.iter().filter_map(|e| clip(e, 0..range.start));
    let after = old.iter().filter_map(|e| clip(e, range.end..u64::MAX));
    let out: Vec<Extent> = before.chain(new.iter().copied()).chain(after).collect();
    assert!(are_ordered(&out), "new extents overlap each other");
    out
}

/// The part of `extent` that lies in `range`.
pub(super) fn clip(extent: &Extent, range: Range<u64>) -> Option<Extent> {
    let start = extent.offset.max(range.start);
    let end = extent.end().min(range.end);
    if start >= end {
        return None;
    }
    let skipped = u32::try_from(start - extent.offset).expect("within one chunk");
    Some(Extent {
        offset: start,
        len: u32::try_from(end - start).expect("within one chunk"),
        chunk: extent.chunk,
        chunk_offset: extent.chunk_offset + skipped,
    })
}

/// The extent of an ordered list that begins at `offset`. A copied range has up to 50,000 of them.
pub(super) fn at_offset(extents: &[Extent], offset: u64) -> Option<&Extent> {
    extents.binary_search_by_key(&offset, |e| e.offset).ok().map(|index| &extents[index])
}

/// Bytes that the extents map.
pub(super) fn mapped(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| u64::from(e.len)).sum()
}

fn are_ordered(extents: &[Extent]) -> bool {
    extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ChunkNo;

    fn e(offset: u64, len: u32, chunk: u64, chunk_offset: u32) -> Extent {
        Extent { offset, len, chunk: ChunkNo(chunk), chunk_offset }
    }

    #[test]
    fn an_overwrite_in_the_middle_keeps_both_sides() {
        let out = splice(&[e(0, 100, 1, 0)], &(40..60), &[e(40, 20, 2, 0)]);
        assert_eq!(out, [e(0, 40, 1, 0), e(40, 20, 2, 0), e(60, 40, 1, 60)]);
    }

    #[test]
    fn a_hole_replaces_what_it_covers() {
        let old = [e(0, 10, 1, 5), e(10, 10, 2, 0), e(30, 10, 3, 0)];
        assert_eq!(splice(&old, &(5..35), &[]), [e(0, 5, 1, 5), e(35, 5, 3, 5)]);
        assert_eq!(mapped(&old), 30);
    }
}
