//! libFuzzer on parser `frame`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("frame").expect("the list has it").check(bytes);
});
