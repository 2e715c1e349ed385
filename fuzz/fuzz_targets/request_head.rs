//! Searches for input that `properties/request_head.rs` does not hold for.
#![no_main]

#[path = "../properties/request_head.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
