//! What is promised in less than a second, measured while no other test does anything: Cargo runs the binaries of the tests one
//! after the other.

#[cfg(test)]
mod stores;
#[cfg(test)]
#[path = "../gateway/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "all of it is for the tests of the whole gateway")]
mod support;
