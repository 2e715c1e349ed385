//! Randomness as an argument: the operating system's, and a seeded one for tests.

use std::fmt;

use aws_lc_rs::{digest, rand};

/// A source of unpredictable bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes` completely.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Random + '_ {
    /// A new array of random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The operating system's generator, through aws-lc.
#[derive(Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness every token could be guessed: aborting is the only safe reaction.
        if rand::fill(bytes).is_err() {
            std::process::abort();
        }
    }
}

/// A reproducible generator for tests. Predictable.
#[derive(Debug, Default)]
pub struct SeededRandom(std::sync::atomic::AtomicU64);

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let count = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let block = digest::digest(&digest::SHA256, &count.to_be_bytes());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_generator_does_not_repeat() {
        let random: &dyn Random = &OsRandom;
        assert_ne!(random.bytes::<32>(), random.bytes::<32>());
    }

    #[test]
    fn a_seeded_generator_is_reproducible() {
        let (a, b) = (SeededRandom::new(7), SeededRandom::new(7));
        assert_eq!((&a as &dyn Random).bytes::<40>(), (&b as &dyn Random).bytes::<40>());
    }
}
