//! A hash that is taken is written back as one that means the same, and costs no more than this gateway is willing to pay.

use portcullis::credentials::StoredHash;

pub(crate) fn holds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(hash) = StoredHash::parse(text) else { return };
    let written = hash.to_text();
    let again = StoredHash::parse(&written).expect("what was written can be read");
    assert_eq!(again.to_text(), written);
    assert_eq!(again.is_weaker_than_today(), hash.is_weaker_than_today());
    let costs: Vec<&str> = written.split('$').collect();
    if !matches!(costs.get(1), Some(&("argon2id" | "argon2i"))) {
        return;
    }
    for (cost, most) in costs.get(3).unwrap_or(&"").split(',').zip([256 * 1024, 16, 16]) {
        let number: u32 = cost.get(2..).and_then(|digits| digits.parse().ok()).expect("a number");
        assert!(number <= most, "{written}");
    }
}
