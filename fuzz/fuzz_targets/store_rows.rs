//! libFuzzer on parser `store_rows`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("store_rows").expect("the list has it").check(bytes);
});
