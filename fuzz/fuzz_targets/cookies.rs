//! Searches for input that `properties/cookies.rs` does not hold for.
#![no_main]

#[path = "../properties/cookies.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
