//! Searches for input that `properties/rules.rs` does not hold for.
#![no_main]

#[path = "../properties/rules.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
