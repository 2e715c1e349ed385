//! Searches for input that `properties/client.rs` does not hold for.
#![no_main]

#[path = "../properties/client.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
