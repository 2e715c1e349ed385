//! The token of a request: in `Authorization`, as Bearer or as the password of Basic, or in a header of its own.
//!
//! Never in the address, which is written to logs.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use http::{HeaderMap, header};

use super::text::{PREFIX, TokenText};
use crate::web::field_set::{FieldSet, X_PORTCULLIS_TOKEN};

/// Decodes like the most lenient readers.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token that a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `None` if it claims to be one of our tokens and is malformed, or if there are several.
    pub token: Option<TokenText>,
    /// Whether it is in `Authorization`, which must then not be forwarded. Our own header never is.
    pub in_authorization: bool,
    /// Sent as a Basic password, which browsers remember and send by themselves.
    pub is_basic: bool,
}

impl Shown {
    /// `None` if the request has no token of ours: `Authorization` then belongs to the portal.
    pub fn of(headers: &HeaderMap, fields: FieldSet) -> Option<Self> {
        let own = fields.may_have(&X_PORTCULLIS_TOKEN).then(|| Self::in_own_header(headers)).flatten();
        let authorization =
            fields.may_have(&header::AUTHORIZATION).then(|| Self::in_authorization(headers)).flatten();
        match (own, authorization) {
            // It is ambiguous which of the two is meant.
            (Some(_), Some(authorization)) => Some(Self { token: None, ..authorization }),
            (own, authorization) => own.or(authorization),
        }
    }

    fn in_own_header(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(&X_PORTCULLIS_TOKEN).iter();
        let first = lines.next()?;
        let token = match lines.next() {
            None => TokenText::parse(first.as_bytes()),
            Some(_) => None,
        };
        Some(Self { token, in_authorization: false, is_basic: false })
    }

    fn in_authorization(headers: &HeaderMap) -> Option<Self> {
        let lines: Vec<_> =
            headers.get_all(header::AUTHORIZATION).iter().map(|line| Claim::read(line.as_bytes())).collect();
        let is_basic = lines.iter().any(|claim| matches!(claim, Claim::Basic(_)));
        let token = match &*lines {
            [Claim::Bearer(token) | Claim::Basic(token)] => token.clone(),
            [Claim::Misplaced] => None,
            lines if lines.iter().all(|claim| matches!(claim, Claim::Foreign)) => return None,
            // Two fields, one of them ours: the portal's reader may pick the other.
            _ => None,
        };
        Some(Self { token, in_authorization: true, is_basic })
    }
}

/// The content of one `Authorization` field.
enum Claim {
    Foreign,
    Bearer(Option<TokenText>),
    Basic(Option<TokenText>),
    /// One of our tokens in the wrong place.
    Misplaced,
}

impl Claim {
    fn read(line: &[u8]) -> Self {
        let trimmed = line.trim_ascii();
        let scheme_ends = trimmed.iter().position(u8::is_ascii_whitespace).unwrap_or(trimmed.len());
        let (scheme, rest) = trimmed.split_at(scheme_ends);
        let rest = rest.trim_ascii_start();
        if scheme.eq_ignore_ascii_case(b"bearer") && rest.starts_with(PREFIX.as_bytes()) {
            return Self::Bearer(TokenText::parse(rest));
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            return Self::of_pair(rest);
        }
        if holds_token(trimmed) || hides_token(rest) { Self::Misplaced } else { Self::Foreign }
    }

    /// User name and password; the name does not matter.
    fn of_pair(encoded: &[u8]) -> Self {
        let Ok(pair) = BASE64_STANDARD.decode(encoded) else {
            let holds = holds_token(encoded) || hides_token(encoded);
            return if holds { Self::Misplaced } else { Self::Foreign };
        };
        let password = pair.iter().position(|&byte| byte == b':').and_then(|colon| pair.get(colon + 1..));
        match password {
            Some(password) if password.starts_with(PREFIX.as_bytes()) => {
                Self::Basic(TokenText::parse(password))
            }
            _ if holds_token(&pair) => Self::Misplaced,
            _ => Self::Foreign,
        }
    }
}

/// Whether the text contains one of our tokens, so that the portal must not see it: a whole token, or a word that
/// begins like one. A long token of the portal may contain those four characters in the middle.
fn holds_token(text: &[u8]) -> bool {
    memchr::memmem::find_iter(text, PREFIX.as_bytes()).any(|at| {
        let (before, rest) = text.split_at(at);
        let begins_word = before.last().is_none_or(|byte| b" \t\"'=,;:".contains(byte));
        begins_word || TokenText::begins(rest)
    })
}

/// Whether some word of the text contains a whole token in base64, as lenient readers decode it.
fn hides_token(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    text.split(|byte| !is_digit(byte)).filter(|word| word.len() >= TokenText::ENCODED).any(|word| {
        let word: Vec<u8> = word
            .iter()
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                &other => other,
            })
            .collect();
        // Some decoders ignore a digit beyond the whole bytes.
        let whole = if word.len() % 4 == 1 { word.len() - 1 } else { word.len() };
        LENIENT.decode(&word[..whole]).is_ok_and(|decoded| {
            memchr::memmem::find_iter(&decoded, PREFIX.as_bytes()).any(|at| TokenText::begins(&decoded[at..]))
        })
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::random::SeededRandom;

    fn shown(lines: &[(&'static str, String)]) -> Option<Shown> {
        let (mut headers, mut fields) = (HeaderMap::new(), FieldSet::default());
        for (name, line) in lines {
            let name = HeaderName::from_static(name);
            fields.note(&name);
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Shown::of(&headers, fields)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    #[test]
    fn a_token_is_found_where_it_belongs_and_nowhere_else() {
        let (text, token) = TokenText::generate(&SeededRandom::new(1));
        let other = TokenText::generate(&SeededRandom::new(2)).0;
        let a = |line: String| vec![("authorization", line)];
        let x = |line: &str| vec![("x-portcullis-token", line.to_owned())];
        let good = [
            (a(format!("Bearer {text}")), false),
            (a(format!("bearer {text}")), false),
            (a(format!("BEARER   {text} ")), false),
            (a(basic(&format!("git:{text}"))), true),
            (a(basic(&format!(":{text}"))), true),
            (a(basic(&format!("é:{text}")).replace("Basic", "bAsIc")), true),
            (x(&text), false),
            // The portal's own stays.
            ([x(&text), a("Bearer ey.portal".into())].concat(), false),
            ([x(&text), a(basic("ada:secret"))].concat(), false),
        ];
        for (lines, is_basic) in good {
            let found = shown(&lines).unwrap_or_else(|| panic!("{lines:?}"));
            assert_eq!((found.token, found.is_basic), (Some(token.clone()), is_basic), "{lines:?}");
        }
        let none_of_ours = [
            vec![],
            a("Bearer ey.x.y".into()),
            a("Bearer".into()),
            a(basic("ada:secret")),
            a("Basic !!!".into()),
            a("Negotiate abc".into()),
            a("Bearer PCL_x".into()),
            a("Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxpcl_zQ.c2lnbmF0dXJl".into()),
            a(basic("ada:secret-pcl_")),
            [a("Bearer one".into()), a("Bearer two".into())].concat(),
        ];
        for lines in none_of_ours {
            assert_eq!(shown(&lines), None, "{lines:?}");
        }
        let refused = [
            a(format!("Bearer {}", &text[..40])),
            a(format!("Bearer {text},")),
            a(format!("Bearer {text} {other}")),
            a(format!("Token {text}")),
            a(format!("token={text}")),
            a(text.clone()),
            a(format!("Basic {text}")),
            a(format!("Bearer  \"{text}\"")),
            a(format!("Bearer x{text}x")),
            a(basic(&format!("git:{text}")).trim_end_matches('=').to_owned()),
            a(format!("{}=", basic(&format!("git:{text}")))),
            a(basic(&format!("???>>>:{text}")).replace('+', "-").replace('/', "_")),
            a(format!("{}, x", basic(&format!("git:{text}")))),
            a(format!("{} charset=utf-8", basic(&format!("git:{text}")))),
            a(basic(&format!("git:{text}")).replace("Basic", "Bearer")),
            a(format!("Token {}", BASE64_STANDARD.encode(&text))),
            a(basic(&format!("git:x{text}"))),
            a("Token pcl_cut-short".into()),
            a(basic(&format!("{text}:"))),
            a(basic(&text)),
            a(basic(&format!("git:{text}\r\n"))),
            a(basic(&format!("git:{text}:x"))),
            a(basic("git:pcl_")),
            x(&format!("Bearer {text}")),
            x("anything"),
            x(""),
            [x(&text), x(&text)].concat(),
            [x(&text), a(format!("Bearer {text}"))].concat(),
            [x(&text), a(basic(&format!("git:{other}")))].concat(),
            [a(format!("Bearer {text}")), a(format!("Bearer {text}"))].concat(),
            [a(format!("Bearer {text}")), a("Bearer ey.portal".into())].concat(),
            [a(basic("ada:secret")), a(format!("Bearer {text}"))].concat(),
        ];
        for lines in refused {
            let found = shown(&lines).unwrap_or_else(|| panic!("{lines:?}"));
            assert_eq!(found.token, None, "{lines:?}");
        }
    }
}
