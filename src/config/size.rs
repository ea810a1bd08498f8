//! Sizes as people write them.

/// The units [`parse_size`] knows, lower case, longest first so that a suffix is found whole.
/// As in rsync: `k` and `KiB` are 1024 bytes, `KB` is 1000.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// How a size may be written, for messages.
pub const SIZE_FORMS: &str = "whole bytes or a text like \"64MiB\", \"1 GiB\" or \"500k\"";

/// Bytes meant by `text`: digits and an optional unit (see [`SIZE_FORMS`]); `None` if it is neither
/// or does not fit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)))
        .unwrap_or((&lower, 1));
    let digits = digits.trim_end();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// `bytes` in the largest binary unit that divides it, for messages.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_size, show_size};

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let good = [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            (" 1 GiB ", 1 << 30),
            ("500k", 500 << 10),
            ("500K", 500 << 10),
            ("2m", 2 << 20),
            ("3G", 3 << 30),
            ("4T", 4 << 40),
            ("10KB", 10_000),
            ("10 MB", 10_000_000),
            ("10GB", 10_000_000_000),
            ("10TB", 10_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        let bad =
            ["", "k", "-1", "+1", "1.5GiB", "1 2", "0x10", "1e6", "12 parsecs", "16777216 TiB"];
        for text in bad {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn shown_sizes_read_back() {
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, 3 << 30, 5 << 40, (5 << 40) + 1] {
            let text = show_size(bytes).replace("bytes", "b");
            assert_eq!(parse_size(&text), Some(bytes), "{text}");
        }
    }
}
