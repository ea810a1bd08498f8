//! libFuzzer on parser `config`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("config").expect("the list has it").check(bytes);
});
