//! `[[second_factor.waves]]` and what goes with them.

use super::{LEAST, load_with};

#[test]
fn a_wave_that_would_be_for_nobody_or_change_nothing_is_a_fault() {
    let date = "[second_factor]\nmandatory_from = 2026-03-02T00:00:00Z\n[[second_factor.waves]]\n";
    let early = "from = 2026-03-01T00:00:00Z\n";
    for (wave, key, words) in [
        (format!("{early}percent = 100"), "second_factor.waves[0].percent", "1 to 99"),
        (format!("{early}percent = 0"), "second_factor.waves[0].percent", "1 to 99"),
        (format!("{early}groups = []"), "second_factor.waves[0].groups", "empty"),
        (format!("{early}groups = [\" \"]"), "second_factor.waves[0].groups[0]", "empty"),
        (format!("{early}groups = [\"ops\"]\npercent = 3"), "second_factor.waves[0]", "either"),
        (early.to_owned(), "second_factor.waves[0]", "either"),
        ("percent = 3".to_owned(), "second_factor.waves[0]", "`from`"),
        ("percent = 3\nfrom = 2026-03-02T00:00:00Z".to_owned(), "second_factor.waves[0].from", "not before"),
        ("percent = 3\nfrom = 2026-03-01T00:00:00".to_owned(), "second_factor.waves[0].from", "`Z` for UTC"),
    ] {
        let faults = load_with(&format!("{LEAST}{date}{wave}"), &[]).unwrap_err();
        let found: Vec<_> = faults.iter().map(|fault| (fault.key.as_str(), fault.message.as_str())).collect();
        assert!(matches!(&*found, [(at, says)] if *at == key && says.contains(words)), "{wave}: {found:?}");
    }
    let soon = load_with(&format!("{LEAST}[second_factor]\nmandatory_from = \"soon\""), &[]).unwrap_err();
    assert!(soon.iter().any(|fault| fault.message.contains("2026-03-02T00:00:00Z")));
    for (alone, key) in [
        ("[[second_factor.waves]]\npercent = 10\nfrom = 2026-03-02T00:00:00Z", "second_factor.waves"),
        ("[second_factor]\nskips = 3", "second_factor.skips"),
    ] {
        let faults = load_with(&format!("{LEAST}{alone}"), &[]).unwrap_err();
        let found: Vec<_> = faults.iter().map(|fault| (fault.key.as_str(), fault.message.as_str())).collect();
        assert!(
            matches!(&*found, [(at, says)] if *at == key && says.contains("mandatory_from")),
            "{found:?}"
        );
        load_with(
            &format!(
                "{LEAST}{}",
                alone.replacen("[[", "[second_factor]\ngrace = \"14d\"\n[[", 1).replacen(
                    "skips",
                    "grace = \"14d\"\nskips",
                    1
                )
            ),
            &[],
        )
        .unwrap();
    }
}
