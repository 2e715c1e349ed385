//! Searches for input that `properties/proxy_protocol.rs` does not hold for.
#![no_main]

#[path = "../properties/proxy_protocol.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::holds(data));
