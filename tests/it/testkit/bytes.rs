//! Bytes that are the same in every run.

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * 1024;

/// The next number of the sequence that `state` began with.
pub fn splitmix64(state: &mut u64) -> u64 {
    // Good enough for bytes that must not repeat or compress, and seedable by 1, 2, 3.
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that neither compress nor repeat.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(splitmix64(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Lines of words: compresses like a source file, does not repeat.
pub fn text_bytes(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "let", "volume", "chunk", "=", "return", "if", "{", "}", "self", "extent", "(", ")",
        "inode", "for", "in", "snapshot",
    ];
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 7;
    let mut bytes = Vec::with_capacity(len + 32);
    while bytes.len() < len {
        let number = splitmix64(&mut state);
        for word in 0..8 {
            bytes.extend(WORDS[(number >> (word * 4)) as usize % 16].as_bytes());
            bytes.push(b' ');
        }
        bytes.extend(format!("{}\n", number % 100_000).bytes());
    }
    bytes.truncate(len);
    bytes
}
