//! Searches for input that `properties/return_to.rs` does not hold for.
#![no_main]

#[path = "../properties/return_to.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
