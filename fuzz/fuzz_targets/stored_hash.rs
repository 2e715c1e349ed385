//! Searches for input that `properties/stored_hash.rs` does not hold for.
#![no_main]

#[path = "../properties/stored_hash.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
