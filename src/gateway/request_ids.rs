//! Request ids, as the log and the answer show them.

use std::cell::Cell;

use crate::random::Random;

/// The ids of one worker.
pub(super) struct RequestIds {
    /// Differs between workers.
    prefix: [u8; 8],
    next: Cell<u32>,
}

impl RequestIds {
    pub(super) fn new(random: &dyn Random) -> Self {
        let [prefix, first] = [random.bytes::<4>(), random.bytes::<4>()].map(u32::from_be_bytes);
        Self { prefix: hex_digits(prefix), next: Cell::new(first) }
    }

    /// Sixteen hexadecimal digits that no other request has had.
    pub(super) fn next(&self) -> [u8; 16] {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut id = [0; 16];
        let (prefix, own) = id.split_at_mut(8);
        prefix.copy_from_slice(&self.prefix);
        own.copy_from_slice(&hex_digits(number));
        id
    }
}

fn hex_digits(number: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (place, digit) in digits.iter_mut().enumerate() {
        let nibble = (number >> (28 - 4 * place)) & 0xf;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_that_count_on_past_the_last_number() {
        let ids = RequestIds { prefix: hex_digits(0x0123_abcd), next: Cell::new(u32::MAX) };
        assert_eq!(
            [ids.next(), ids.next()].map(|id| String::from_utf8(id.into()).unwrap()),
            ["0123abcdffffffff", "0123abcd00000000"]
        );
    }
}
