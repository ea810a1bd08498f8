//! libFuzzer on parser `shard_marker`; see docs/OPERATIONS.md §9.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stratafs::fuzz::named("shard_marker").expect("the list has it").check(bytes);
});
