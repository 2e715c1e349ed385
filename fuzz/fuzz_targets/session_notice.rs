//! Searches for input that `properties/session_notice.rs` does not hold for.
#![no_main]

#[path = "../properties/session_notice.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
