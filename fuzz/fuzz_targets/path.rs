//! Searches for input that `properties/path.rs` does not hold for.
#![no_main]

#[path = "../properties/path.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
