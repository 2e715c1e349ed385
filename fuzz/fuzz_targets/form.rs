//! Searches for input that `properties/form.rs` does not hold for.
#![no_main]

#[path = "../properties/form.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
