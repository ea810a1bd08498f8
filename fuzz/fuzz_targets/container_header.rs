//! libFuzzer on parser `container_header`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("container_header").expect("the list has it").check(bytes);
});
