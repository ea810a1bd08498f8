//! libFuzzer on parser `control`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("control").expect("the list has it").check(bytes);
});
