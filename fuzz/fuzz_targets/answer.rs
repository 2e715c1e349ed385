//! Searches for input that `properties/answer.rs` does not hold for.
#![no_main]

#[path = "../properties/answer.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
