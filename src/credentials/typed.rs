//! Codes as people type them: in the digits of their own script, with any separators.

/// The zero of each script's ten decimal digits in Unicode 16 (general category Nd).
const ZEROS: &[char] = &[
    '0',
    '\u{660}',
    '\u{6f0}',
    '\u{7c0}',
    '\u{966}',
    '\u{9e6}',
    '\u{a66}',
    '\u{ae6}',
    '\u{b66}',
    '\u{be6}',
    '\u{c66}',
    '\u{ce6}',
    '\u{d66}',
    '\u{de6}',
    '\u{e50}',
    '\u{ed0}',
    '\u{f20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17e0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19d0}',
    '\u{1a80}',
    '\u{1a90}',
    '\u{1b50}',
    '\u{1bb0}',
    '\u{1c40}',
    '\u{1c50}',
    '\u{a620}',
    '\u{a8d0}',
    '\u{a900}',
    '\u{a9d0}',
    '\u{a9f0}',
    '\u{aa50}',
    '\u{abf0}',
    '\u{ff10}',
    '\u{104a0}',
    '\u{10d30}',
    '\u{10d40}',
    '\u{11066}',
    '\u{110f0}',
    '\u{11136}',
    '\u{111d0}',
    '\u{112f0}',
    '\u{11450}',
    '\u{114d0}',
    '\u{11650}',
    '\u{116c0}',
    '\u{116d0}',
    '\u{116da}',
    '\u{11730}',
    '\u{118e0}',
    '\u{11950}',
    '\u{11bf0}',
    '\u{11c50}',
    '\u{11d50}',
    '\u{11da0}',
    '\u{11f50}',
    '\u{16a60}',
    '\u{16ac0}',
    '\u{16b50}',
    '\u{16d70}',
    '\u{1ccf0}',
    '\u{1d7ce}',
    '\u{1d7d8}',
    '\u{1d7e2}',
    '\u{1d7ec}',
    '\u{1d7f6}',
    '\u{1e140}',
    '\u{1e2f0}',
    '\u{1e4f0}',
    '\u{1e5f1}',
    '\u{1e950}',
    '\u{1fbf0}',
];

/// The letters and digits of a typed code, with digits as ASCII. Spaces, dashes, dots and invisible characters are
/// separators.
pub(super) fn symbols(typed: &str) -> impl Iterator<Item = char> {
    typed.chars().filter_map(|c| match digit(c) {
        Some(digit) => Some(digit),
        None => c.is_alphanumeric().then_some(c),
    })
}

fn digit(c: char) -> Option<char> {
    let at = ZEROS.partition_point(|&zero| zero <= c).checked_sub(1)?;
    let value = u32::from(c) - u32::from(*ZEROS.get(at)?);
    char::from_digit(value, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_its_ten_digits_and_no_more() {
        assert!(ZEROS.is_sorted());
        for &zero in ZEROS {
            let digits = (0..10).map(|value| char::from_u32(u32::from(zero) + value).unwrap());
            assert!(digits.clone().all(char::is_numeric), "{zero:?}");
            assert_eq!(digits.filter_map(digit).collect::<String>(), "0123456789");
        }
        // Numbers that are not decimal digits.
        for c in [
            '\u{b2}', '\u{bd}', '\u{2160}', '\u{2460}', '\u{3007}', '\u{4e00}', '/', ':', 'a', '\u{65f}',
            '\u{66a}',
        ] {
            assert_eq!(digit(c), None, "{c:?}");
        }
    }

    #[test]
    fn separators_are_dropped_and_letters_stay() {
        for typed in [
            "235390",
            "235 390",
            "235-390",
            "235.390",
            "2\u{200b}35\u{2013}390\u{feff}",
            "(235) 390",
            "٢٣٥٣٩٠",
            "۲۳۵۳۹۰",
            "２３５３９０",
            "२३५ ३९०",
            "2\u{fe0f}\u{20e3}35390",
            "\u{202b}٢٣٥٣٩٠\u{202c}",
            "235'390",
            "235_390",
        ] {
            assert_eq!(symbols(typed).collect::<String>(), "235390", "{typed:?}");
        }
        assert_eq!(symbols("a-1é").collect::<String>(), "a1é");
    }
}
