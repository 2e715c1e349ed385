//! Searches for input that `properties/gate.rs` does not hold for.
#![no_main]

#[path = "../properties/gate.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
