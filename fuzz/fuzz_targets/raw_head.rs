//! Searches for input that `properties/raw_head.rs` does not hold for.
#![no_main]

#[path = "../properties/raw_head.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
