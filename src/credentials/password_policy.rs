//! The rules for new passwords: long, not well known, and not the name of the user or the product.
//!
//! No rules about kinds of characters and no forced renewal, as NIST SP 800-63B-4 asks. Never sees a stored password.

use std::fmt;

use caseless::Caseless as _;
use unicode_normalization::UnicodeNormalization as _;

use super::Config;

/// Well-known passwords, and the parts they are made of. Sorted by bytes, after a heading of `#` lines.
const KNOWN: &str = include_str!("known_passwords.txt");

/// Length of the longest entry of [`KNOWN`] in bytes.
const LONGEST_KNOWN: usize = 35;

/// A password of fewer well-known pieces than this counts as known.
const FEWEST_PIECES: usize = 4;

/// Repeating a unit shorter than this adds nothing.
const SHORTEST_UNIT: usize = 8;

/// Shorter context words occur in too many good passwords by chance.
const SHORTEST_WORD: usize = 4;

/// Rows of common keyboards.
const ROWS: [&str; 5] = ["1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop"];

/// Why a new password is not good enough, in words for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weakness {
    TooShort {
        min: usize,
    },
    TooLong {
        max: usize,
    },
    /// Well known, or made of a few well-known pieces.
    Known,
    /// A short piece, repeated.
    Repetitive,
    /// It contains a word that anybody would try for this user or site.
    Contains {
        word: String,
    },
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { min } => write!(f, "Use at least {min} characters."),
            Self::TooLong { max } => write!(f, "Use at most {max} characters."),
            Self::Known => {
                f.write_str("This is one of the passwords that are tried first. Add a few unrelated words.")
            }
            Self::Repetitive => f.write_str("This repeats the same few characters. Use different ones."),
            Self::Contains { word } => write!(f, "Leave out “{word}”: it is easy to guess here."),
        }
    }
}

/// Checks a new password. `context`: names of the user, the product and the site, mail addresses, hosts.
pub fn check(config: &Config, password: &str, context: &[&str]) -> Result<(), Weakness> {
    let length = password.nfc().count();
    if length < config.password_min_length {
        return Err(Weakness::TooShort { min: config.password_min_length });
    }
    if length > config.password_max_length {
        return Err(Weakness::TooLong { max: config.password_max_length });
    }
    let folded = fold(password);
    if let Some(word) = context_words(context).find(|word| folded.contains(word)) {
        return Err(Weakness::Contains { word });
    }
    let characters: Vec<char> = folded.chars().collect();
    let unit = period(&characters);
    if unit < SHORTEST_UNIT && unit < characters.len() {
        return Err(Weakness::Repetitive);
    }
    if fewest_pieces(&characters[..unit]) < FEWEST_PIECES {
        return Err(Weakness::Known);
    }
    Ok(())
}

fn fold(text: &str) -> String {
    text.nfkc().default_case_fold().nfkc().collect()
}

/// Each name, and each part of it that is long enough.
fn context_words(context: &[&str]) -> impl Iterator<Item = String> {
    let names: Vec<String> = ["portcullis"].iter().chain(context).map(|name| fold(name.trim())).collect();
    names.into_iter().flat_map(|name| {
        let mut words: Vec<String> = name.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
        words.push(name);
        words.into_iter().filter(|word| word.chars().count() >= SHORTEST_WORD)
    })
}

/// The length of the shortest unit whose repetition is the whole text; the last one may be partial.
fn period(text: &[char]) -> usize {
    (1..=text.len() / 2).find(|&unit| text[unit..] == text[..text.len() - unit]).unwrap_or(text.len())
}

/// The minimum number of pieces that make up `text`: known passwords, walks of three characters or more, up to four
/// digits, or single characters.
fn fewest_pieces(text: &[char]) -> usize {
    let known: Vec<&str> = KNOWN.lines().skip_while(|line| line.starts_with('#')).collect();
    let walks = walk_starts(text);
    // The minimum for each prefix of the text, by its length.
    let mut fewest = vec![0; text.len() + 1];
    for end in 1..=text.len() {
        let mut best = fewest[end - 1] + 1;
        if end - walks[end - 1] >= 3 {
            best = best.min(fewest[walks[end - 1]] + 1);
        }
        let mut piece = String::new();
        for start in (end.saturating_sub(LONGEST_KNOWN)..end).rev() {
            piece.insert(0, text[start]);
            let few_digits = end - start <= 4 && piece.bytes().all(|byte| byte.is_ascii_digit());
            if fewest[start] + 1 < best && (few_digits || known.binary_search(&piece.as_str()).is_ok()) {
                best = fewest[start] + 1;
            }
        }
        fewest[end] = best;
    }
    fewest[text.len()]
}

/// For each character, the start of the longest walk that ends there: the same key repeated, the alphabet or a keyboard
/// row forwards or backwards.
fn walk_starts(text: &[char]) -> Vec<usize> {
    let steps: [fn(char, char) -> bool; 5] = [
        |from, to| from == to,
        |from, to| u32::from(from) + 1 == u32::from(to),
        |from, to| u32::from(to) + 1 == u32::from(from),
        beside,
        |from, to| beside(to, from),
    ];
    let mut starts = [0; 5];
    let mut earliest = vec![0; text.len()];
    for at in 1..text.len() {
        for (start, follows) in starts.iter_mut().zip(steps) {
            if !follows(text[at - 1], text[at]) {
                *start = at;
            }
        }
        earliest[at] = starts.into_iter().min().unwrap_or(at);
    }
    earliest
}

/// Whether `to` is the key to the right of `from`.
fn beside(from: char, to: char) -> bool {
    ROWS.iter().any(|row| row.chars().zip(row.chars().skip(1)).any(|keys| keys == (from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &[&str] =
        &["IoT Connectivity", "iot.example.com", "ada.lovelace@mail.test", "Ada Lovelace"];

    fn verdict(password: &str) -> Result<(), Weakness> {
        let config = Config { password_min_length: 15, password_max_length: 256, issuer: String::new() };
        check(&config, password, CONTEXT)
    }

    #[test]
    fn length_is_counted_in_code_points() {
        let text = |length| (0..length).filter_map(|at| char::from_u32(0x4e00 + 7 * at)).collect::<String>();
        for (length, expected) in [
            (14, Err(Weakness::TooShort { min: 15 })),
            (15, Ok(())),
            (64, Ok(())),
            (256, Ok(())),
            (257, Err(Weakness::TooLong { max: 256 })),
        ] {
            assert_eq!(text(length).chars().count(), usize::try_from(length).unwrap());
            assert_eq!(verdict(&text(length)), expected, "{length}");
        }
        assert_eq!(verdict("七転び八起き七人の侍用心棒羅生門"), Ok(()));
        // Seven characters, although UTF-16 counts fourteen.
        assert_eq!(verdict("🐎🐢🦊🐙🦉🐝🐧"), Err(Weakness::TooShort { min: 15 }));
        // A letter and its accent are one character, however they were typed.
        assert_eq!(verdict("zoe\u{308}\u{301}klmxq!w7"), Err(Weakness::TooShort { min: 15 }));
    }

    #[test]
    fn what_everybody_tries_is_refused() {
        for password in [
            "password1234567",
            "Password12345678!",
            "passwordpassword1",
            "qwertyuiop12345",
            "qwertyuiopasdfghjkl",
            "1q2w3e4r5t6y7u8i",
            "1QAZ2WSX3EDC4RFV",
            "abcdefghijklmnop",
            "zyxwvutsrqponmlkj",
            "123456789012345",
            "98765432109876543210",
            "correcthorsebatterystaple",
            "CorrectHorseBatteryStaple",
            "monkeydragon2024",
            "Summer2024Summer",
            "iloveyouforever",
            "!!!!aaaaaaaa1111",
            "ｐａｓｓｗｏｒｄ1234567",
        ] {
            assert_eq!(verdict(password), Err(Weakness::Known), "{password}");
        }
    }

    #[test]
    fn repetition_is_no_length() {
        for password in [
            "aaaaaaaaaaaaaaaa",
            "               ",
            "xyxyxyxyxyxyxyxy",
            "x7!kx7!kx7!kx7!kx7",
            "🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎🐎",
        ] {
            assert_eq!(verdict(password), Err(Weakness::Repetitive), "{password}");
        }
        assert_eq!(verdict(&"password".repeat(20)), Err(Weakness::Known));
        assert_eq!(verdict(&"a".repeat(200)), Err(Weakness::Repetitive));
    }

    #[test]
    fn words_of_the_context_are_refused_with_the_word() {
        for (password, word) in [
            ("my Lovelace tries hard", "lovelace"),
            ("ADA.LOVELACE@mail.test", "lovelace"),
            ("the connectivity of frogs", "connectivity"),
            ("xxPortCullis42 gate", "portcullis"),
            ("an Example for nobody", "example"),
        ] {
            assert_eq!(verdict(password), Err(Weakness::Contains { word: word.to_owned() }), "{password}");
        }
        // "ada" and "iot" are too short to matter.
        assert_eq!(verdict("Canada geese riot quietly"), Ok(()));
    }

    #[test]
    fn good_passwords_need_no_kinds_of_characters() {
        for password in [
            "correct horse battery staple",
            "velvet umbrella under nine moons",
            "gdmzqhwokvxcujt",
            "849203857102946",
            "ünder dem birnbaum schläft er",
            "k7#pQ!zR2@vLx9$m",
        ] {
            assert_eq!(verdict(password), Ok(()), "{password}");
        }
    }

    #[test]
    fn the_shipped_list_is_sorted_folded_and_not_longer_than_assumed() {
        let known: Vec<&str> = KNOWN.lines().skip_while(|line| line.starts_with('#')).collect();
        assert!(known.len() > 15_000);
        assert!(known.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(known.iter().all(|word| word.is_ascii() && *word == word.to_ascii_lowercase()));
        assert_eq!(known.iter().map(|word| word.len()).max(), Some(LONGEST_KNOWN));
    }

    #[test]
    fn the_reason_is_told_without_the_password() {
        for password in ["short", "password1234567", "aaaaaaaaaaaaaaaa"] {
            let reason = verdict(password).unwrap_err().to_string();
            assert!(reason.ends_with('.') && !reason.contains(password), "{reason}");
        }
    }
}
