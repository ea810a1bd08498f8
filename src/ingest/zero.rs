//! Finding runs of zero bytes.

use std::ops::Range;

use crate::limits::ZERO_RUN_BYTES_MIN;

/// Unit of the search, in file offsets: the page size of every file system we are copied from.
const PAGE: u64 = 4096;

/// Runs of zero pages of at least `ZERO_RUN_BYTES_MIN`, in order. Runs begin on a page of the file
/// and end on one, or at the end of the data if that is `final_end`, the end of what is known.
/// A run that reaches the start or the end of the data counts whole: data that is all zero and
/// ends where it is known to end is a run however short.
pub(super) fn zero_runs(data: &[u8], offset: u64, final_end: bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    if final_end && is_zero(data) && !data.is_empty() {
        runs.push(0..data.len());
        return runs;
    }
    let mut start = (offset.next_multiple_of(PAGE) - offset) as usize;
    let mut run: Option<Range<usize>> = None;
    while start < data.len() {
        let end = (start + PAGE as usize).min(data.len());
        let whole = end - start == PAGE as usize || final_end;
        if whole && is_zero(&data[start..end]) {
            run.get_or_insert(start..start).end = end;
        } else if let Some(run) = run.take() {
            runs.push(run);
        }
        start = end;
    }
    runs.extend(run);
    runs.retain(|r| r.len() >= ZERO_RUN_BYTES_MIN);
    runs
}

/// True if every byte is 0. Compares word by word, so the compiler uses vector instructions.
fn is_zero(data: &[u8]) -> bool {
    data.chunks(256).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(parts: &[(u8, usize)]) -> Vec<u8> {
        parts.iter().flat_map(|&(byte, len)| vec![byte; len]).collect()
    }

    fn only(data: &[u8], offset: u64, final_end: bool) -> Range<usize> {
        let mut runs = zero_runs(data, offset, final_end);
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    #[test]
    fn runs_are_aligned_in_the_file() {
        let d = data(&[(1, 100), (0, 40_000), (1, 100)]);
        assert_eq!(only(&d, 0, true), 4096..36864);
        assert_eq!(only(&d, 4000, true), 96 + 4096..96 + 4096 * 9);
    }

    #[test]
    fn a_run_at_the_end_ends_with_the_file() {
        let d = data(&[(1, 4096), (0, 20_001)]);
        assert_eq!(only(&d, 0, true), 4096..24097);
        assert_eq!(only(&d, 0, false), 4096..4096 + 16384);
    }

    #[test]
    fn short_runs_stay_data_but_all_zero_data_is_a_hole() {
        assert!(zero_runs(&data(&[(1, 4096), (0, 8192), (1, 4096)]), 0, true).is_empty());
        assert_eq!(only(&data(&[(0, 10)]), 0, true), 0..10);
        assert!(zero_runs(&data(&[(0, 10)]), 0, false).is_empty());
        assert!(zero_runs(&[], 0, true).is_empty());
    }
}
