//! The set of unusual fields that a request has, which saves looking them up.

use http::{HeaderName, header};

use super::service_worker;

/// The header for a token of ours that leaves `Authorization` to the portal.
pub static X_PORTCULLIS_TOKEN: HeaderName = HeaderName::from_static("x-portcullis-token");

/// The unusual fields of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldSet(u16);

impl FieldSet {
    /// Adds a field.
    pub fn note(&mut self, name: &HeaderName) {
        self.0 |= bit(name);
    }

    /// Whether the request has this field. Always true for fields that are not tracked.
    pub fn may_have(self, name: &HeaderName) -> bool {
        let bit = bit(name);
        bit == 0 || self.0 & bit != 0
    }
}

fn bit(name: &HeaderName) -> u16 {
    match *name {
        header::CONNECTION => 1,
        header::TE => 1 << 1,
        header::FORWARDED => 1 << 2,
        header::CONTENT_LENGTH => 1 << 3,
        header::TRANSFER_ENCODING => 1 << 4,
        header::UPGRADE => 1 << 5,
        header::EXPECT => 1 << 6,
        header::AUTHORIZATION => 1 << 7,
        // Told by their first bytes first: browsers send several names that are as long as these.
        _ => match name.as_str().as_bytes() {
            [b's', b'e', b'r', ..] if *name == service_worker::ASKS => 1 << 8,
            [b'x', b'-', b'p', ..] if *name == X_PORTCULLIS_TOKEN => 1 << 9,
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_are_told_by_their_text() {
        for name in [&X_PORTCULLIS_TOKEN, &service_worker::ASKS] {
            let mut field_set = FieldSet::default();
            assert!(!field_set.may_have(name), "{name}");
            field_set.note(name);
            assert!(field_set.may_have(name), "{name}");
        }
    }

    #[test]
    fn what_was_not_noted_is_not_there_unless_nobody_notes_it() {
        let mut field_set = FieldSet::default();
        assert!(!field_set.may_have(&header::TE) && field_set.may_have(&header::COOKIE));
        field_set.note(&header::TE);
        field_set.note(&header::COOKIE);
        assert!(field_set.may_have(&header::TE) && !field_set.may_have(&header::FORWARDED));
    }
}
