//! libFuzzer on parser `classify`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("classify").expect("the list has it").check(bytes);
});
