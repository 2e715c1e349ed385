//! Searches for input that `properties/second_reader.rs` does not hold for.
#![no_main]

#[path = "../properties/second_reader.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
