//! libFuzzer on parser `last_commit`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("last_commit").expect("the list has it").check(bytes);
});
