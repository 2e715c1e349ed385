//! Searches for input that `properties/connection.rs` does not hold for.
#![no_main]

#[path = "../properties/connection.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
