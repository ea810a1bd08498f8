//! libFuzzer on parser `meta_rows`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("meta_rows").expect("the list has it").check(bytes);
});
