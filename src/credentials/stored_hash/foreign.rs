//! Hashes of other systems, kept as they came until their user logs in and a hash of ours replaces them.

use std::num::NonZeroU32;

use aws_lc_rs::{
    digest,
    pbkdf2::{self, Algorithm},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha_crypt::PasswordVerifier as _;

use super::HashRefusal;
use crate::secret::{constant_time_eq, hex, sha256};

/// About a second each, on a machine of 2024.
const MAX_PBKDF2_ROUNDS: u32 = 4_000_000;
const MAX_BCRYPT_COST: u32 = 15;
const MAX_SHA_CRYPT_ROUNDS: u32 = 2_000_000;
/// Memory times passes of scrypt and yescrypt, in bytes.
const MAX_SCRYPT_WORK: u64 = 1 << 30;
const MAX_SCRYPT_MEMORY: u64 = 256 << 20;
/// In bytes. Nothing is longer.
const MAX_SALT: usize = 256;
const MAX_OUTPUT: usize = 128;

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A hash of another system.
#[derive(Clone)]
pub(super) struct Foreign {
    /// As it is stored.
    text: String,
    scheme: Scheme,
}

#[derive(Clone)]
enum Scheme {
    Bcrypt,
    /// Django's: of the SHA-256 of the password, in hexadecimal digits, so that every byte of it counts. The bcrypt hash.
    BcryptSha256(String),
    Pbkdf2 {
        prf: Prf,
        rounds: NonZeroU32,
        salt: Vec<u8>,
        output: Vec<u8>,
    },
    Scrypt {
        params: scrypt::Params,
        salt: Vec<u8>,
        output: Vec<u8>,
    },
    ShaCrypt(&'static str),
    Yescrypt,
    /// LDAP's: of the password and then the salt, once.
    Sha {
        name: &'static str,
        digest: &'static digest::Algorithm,
        output: Vec<u8>,
        salt: Vec<u8>,
    },
}

#[derive(Clone, Copy)]
struct Prf {
    name: &'static str,
    algorithm: Algorithm,
    /// The length of a digest.
    bytes: usize,
}

const SHA1: Prf = Prf { name: "PBKDF2-SHA1", algorithm: pbkdf2::PBKDF2_HMAC_SHA1, bytes: 20 };
const SHA256: Prf = Prf { name: "PBKDF2-SHA256", algorithm: pbkdf2::PBKDF2_HMAC_SHA256, bytes: 32 };
const SHA512: Prf = Prf { name: "PBKDF2-SHA512", algorithm: pbkdf2::PBKDF2_HMAC_SHA512, bytes: 64 };

impl Foreign {
    pub(super) fn parse(text: &str) -> Result<Self, HashRefusal> {
        Ok(Self { scheme: Scheme::parse(text)?, text: text.to_owned() })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> &'static str {
        match &self.scheme {
            Scheme::Bcrypt => "bcrypt",
            Scheme::BcryptSha256(_) => "bcrypt of SHA-256",
            Scheme::Pbkdf2 { prf, .. } => prf.name,
            Scheme::Scrypt { .. } => "scrypt",
            Scheme::ShaCrypt(name) | Scheme::Sha { name, .. } => name,
            Scheme::Yescrypt => "yescrypt",
        }
    }

    /// What cannot be computed does not match: the text was checked when it was stored.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match &self.scheme {
            Scheme::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Scheme::BcryptSha256(inner) => {
                let digits = hex(&sha256(password));
                bcrypt::verify(digits, inner).unwrap_or(false)
            }
            Scheme::Pbkdf2 { prf, rounds, salt, output } => {
                pbkdf2::verify(prf.algorithm, *rounds, salt, password, output).is_ok()
            }
            Scheme::Scrypt { params, salt, output } => {
                let mut computed = vec![0; output.len()];
                scrypt::scrypt(password, salt, params, &mut computed).is_ok()
                    && constant_time_eq(&computed, output)
            }
            Scheme::ShaCrypt(_) => sha_crypt::PasswordHashRef::new(&self.text)
                .is_ok_and(|hash| sha_crypt::ShaCrypt::default().verify_password(password, hash).is_ok()),
            Scheme::Yescrypt => yescrypt::Yescrypt::default().verify_password(password, &*self.text).is_ok(),
            Scheme::Sha { digest, output, salt, .. } => {
                let computed = digest::digest(digest, &[password, salt].concat());
                constant_time_eq(computed.as_ref(), output)
            }
        }
    }
}

impl Scheme {
    fn parse(text: &str) -> Result<Self, HashRefusal> {
        if let Some(rest) = text.strip_prefix('{') {
            return ldap(rest);
        }
        let fields: Vec<&str> = text.split('$').collect();
        match &*fields {
            ["", "2a" | "2b" | "2y", ..] => bcrypt_hash(text),
            ["", "2x", ..] => Err(HashRefusal::Unsupported("bcrypt 2x, the form with the fault of 2011,")),
            ["", "2", ..] => Err(HashRefusal::Unsupported("bcrypt 2, the form before 1999,")),
            ["bcrypt_sha256", "", rest @ ..] => {
                let inner = format!("${}", rest.join("$"));
                bcrypt_hash(&inner).map(|_| Self::BcryptSha256(inner))
            }
            ["", "pbkdf2" | "pbkdf2-sha1", rest @ ..] => pbkdf2_of(SHA1, rest),
            ["", "pbkdf2-sha256", rest @ ..] => pbkdf2_of(SHA256, rest),
            ["", "pbkdf2-sha512", rest @ ..] => pbkdf2_of(SHA512, rest),
            ["pbkdf2_sha1", rest @ ..] => django_pbkdf2(SHA1, rest),
            ["pbkdf2_sha256", rest @ ..] => django_pbkdf2(SHA256, rest),
            ["", "scrypt", rest @ ..] => scrypt_of(rest),
            ["scrypt", rest @ ..] => django_scrypt(rest),
            ["", "5", rest @ ..] => sha_crypt_of("SHA-256-crypt", text, rest),
            ["", "6", rest @ ..] => sha_crypt_of("SHA-512-crypt", text, rest),
            ["", "y", rest @ ..] => yescrypt_of(text, rest),
            ["", "1" | "apr1", ..] => Err(HashRefusal::Weak("MD5-crypt")),
            ["md5" | "unsalted_md5" | "sha1" | "unsalted_sha1", _, ..] => {
                Err(HashRefusal::Weak("a single MD5 or SHA-1"))
            }
            ["", "7", ..] => Err(HashRefusal::Unsupported("scrypt in the form `$7$`")),
            ["", "bcrypt-sha256", ..] => Err(HashRefusal::Unsupported("passlib's bcrypt-sha256")),
            _ => Err(HashRefusal::Unknown),
        }
    }
}

fn bcrypt_hash(text: &str) -> Result<Scheme, HashRefusal> {
    const NAME: &str = "bcrypt";
    let hash: bcrypt::HashParts = text.parse().map_err(|_| HashRefusal::Malformed(NAME))?;
    if hash.get_cost() > MAX_BCRYPT_COST {
        return Err(HashRefusal::Costs(NAME));
    }
    Ok(Scheme::Bcrypt)
}

/// `rounds$salt$hash` in passlib's Base64, or `i=rounds,l=length$salt$hash` as PHC string.
fn pbkdf2_of(prf: Prf, fields: &[&str]) -> Result<Scheme, HashRefusal> {
    let [costs, salt, output] = fields else { return Err(HashRefusal::Malformed(prf.name)) };
    let (rounds, length) = match costs.strip_prefix("i=") {
        Some(costs) => {
            costs.split_once(",l=").map_or((costs, None), |(rounds, length)| (rounds, Some(length)))
        }
        None => (*costs, None),
    };
    let length = length.map(str::parse::<usize>).transpose().map_err(|_| HashRefusal::Malformed(prf.name))?;
    let bytes = |text: &str| base64(&text.replace('.', "+"), prf.name);
    new_pbkdf2(prf, (rounds, length), bytes(salt)?, bytes(output)?)
}

/// `rounds$salt$hash`: the salt is text, the hash usual Base64.
fn django_pbkdf2(prf: Prf, fields: &[&str]) -> Result<Scheme, HashRefusal> {
    let [rounds, salt, output] = fields else { return Err(HashRefusal::Malformed(prf.name)) };
    new_pbkdf2(prf, (rounds, None), salt.as_bytes().to_vec(), base64(output, prf.name)?)
}

/// A part of an output would match as well, so its length is that which it was made with, at least that of a digest by default.
fn new_pbkdf2(
    prf: Prf,
    (rounds, length): (&str, Option<usize>),
    salt: Vec<u8>,
    output: Vec<u8>,
) -> Result<Scheme, HashRefusal> {
    let is_whole = length.map_or(output.len() >= prf.bytes, |length| output.len() == length && length >= 20);
    if !is_whole {
        return Err(HashRefusal::Malformed(prf.name));
    }
    let rounds: NonZeroU32 = rounds.parse().map_err(|_| HashRefusal::Malformed(prf.name))?;
    lengths_of(&salt, &output, prf.name)?;
    if rounds.get() > MAX_PBKDF2_ROUNDS {
        return Err(HashRefusal::Costs(prf.name));
    }
    Ok(Scheme::Pbkdf2 { prf, rounds, salt, output })
}

/// `ln=…,r=…,p=…$salt$hash`.
fn scrypt_of(fields: &[&str]) -> Result<Scheme, HashRefusal> {
    let malformed = HashRefusal::Malformed("scrypt");
    let [costs, salt, output] = fields else { return Err(malformed) };
    let mut of = [("ln=", None), ("r=", None), ("p=", None)];
    for cost in costs.split(',') {
        let known = of.iter_mut().find_map(|(name, value)| Some((value, cost.strip_prefix(*name)?)));
        let (value, number) = known.ok_or(malformed)?;
        *value = Some(number.parse::<u32>().map_err(|_| malformed)?);
    }
    let [(_, Some(log_n)), (_, Some(r)), (_, Some(p))] = of else { return Err(malformed) };
    new_scrypt((log_n, r, p), base64(salt, "scrypt")?, base64(output, "scrypt")?, 32)
}

/// `N$salt$r$p$hash`: the salt is text, the hash usual Base64.
fn django_scrypt(fields: &[&str]) -> Result<Scheme, HashRefusal> {
    let malformed = HashRefusal::Malformed("scrypt");
    let [n, salt, r, p, output] = fields else { return Err(malformed) };
    let number = |text: &str| text.parse::<u32>().map_err(|_| malformed);
    let (n, r, p) = (number(n)?, number(r)?, number(p)?);
    if !n.is_power_of_two() {
        return Err(malformed);
    }
    new_scrypt((n.trailing_zeros(), r, p), salt.as_bytes().to_vec(), base64(output, "scrypt")?, 64)
}

/// The output has at least so many bytes; a part of it would match as well.
fn new_scrypt(
    (log_n, r, p): (u32, u32, u32),
    salt: Vec<u8>,
    output: Vec<u8>,
    least: usize,
) -> Result<Scheme, HashRefusal> {
    const NAME: &str = "scrypt";
    lengths_of(&salt, &output, NAME)?;
    if output.len() < least {
        return Err(HashRefusal::Malformed(NAME));
    }
    check_scrypt(NAME, (log_n, r, p))?;
    let log_n = u8::try_from(log_n).map_err(|_| HashRefusal::Malformed(NAME))?;
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| HashRefusal::Malformed(NAME))?;
    Ok(Scheme::Scrypt { params, salt, output })
}

fn check_scrypt(name: &'static str, (log_n, r, p): (u32, u32, u32)) -> Result<(), HashRefusal> {
    let memory = 1_u64.checked_shl(log_n).and_then(|n| n.checked_mul(128)?.checked_mul(r.into()));
    let work = memory.and_then(|memory| memory.checked_mul(p.into()));
    match (memory, work) {
        (Some(1..=MAX_SCRYPT_MEMORY), Some(1..=MAX_SCRYPT_WORK)) => Ok(()),
        _ => Err(HashRefusal::Costs(name)),
    }
}

/// `[rounds=…$]salt$hash`.
fn sha_crypt_of(name: &'static str, text: &str, fields: &[&str]) -> Result<Scheme, HashRefusal> {
    let malformed = HashRefusal::Malformed(name);
    let (rounds, rest) = match fields {
        [first, rest @ ..] if first.starts_with("rounds=") => (first.strip_prefix("rounds="), rest),
        rest => (None, rest),
    };
    let rounds = rounds.map(str::parse::<u32>).transpose().map_err(|_| malformed)?;
    if rounds.is_some_and(|rounds| rounds > MAX_SHA_CRYPT_ROUNDS) {
        return Err(HashRefusal::Costs(name));
    }
    let length = if name == "SHA-256-crypt" { 43 } else { 86 };
    let is_whole = matches!(rest, [salt, output] if salt.len() <= MAX_SALT && output.len() == length);
    if !is_whole || rounds == Some(0) || sha_crypt::PasswordHashRef::new(text).is_err() {
        return Err(malformed);
    }
    Ok(Scheme::ShaCrypt(name))
}

/// `parameters$salt$hash`, with the parameters that crypt(3) makes: `j`, and one digit each for the memory and the block.
fn yescrypt_of(text: &str, fields: &[&str]) -> Result<Scheme, HashRefusal> {
    const NAME: &str = "yescrypt";
    const DIGITS: &str = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let malformed = HashRefusal::Malformed(NAME);
    let [costs, salt, output] = fields else { return Err(malformed) };
    let digit = |c| DIGITS.find(char::from(c)).and_then(|at| u32::try_from(at + 1).ok());
    let costs = match costs.as_bytes() {
        [b'j', n, r] => digit(*n).zip(digit(*r)),
        _ => return Err(HashRefusal::Unsupported("yescrypt with other parameters than crypt(3) makes")),
    };
    let (log_n, r) = costs.ok_or(malformed)?;
    check_scrypt(NAME, (log_n, r, 1))?;
    let is_text = [salt, output].iter().all(|text| text.chars().all(|c| DIGITS.contains(c)));
    if !is_text || salt.len() > MAX_SALT || output.len() != 43 {
        return Err(malformed);
    }
    // Whether the crate reads it as well.
    sha_crypt::PasswordHashRef::new(text).map_err(|_| malformed)?;
    Ok(Scheme::Yescrypt)
}

/// `SSHA}…` and its like: Base64 of the digest and then the salt.
fn ldap(rest: &str) -> Result<Scheme, HashRefusal> {
    let (scheme, encoded) = rest.split_once('}').ok_or(HashRefusal::Unknown)?;
    let (name, digest, is_salted) = match &*scheme.to_ascii_uppercase() {
        "SSHA" => ("salted SHA-1", &digest::SHA1_FOR_LEGACY_USE_ONLY, true),
        "SHA" => ("SHA-1", &digest::SHA1_FOR_LEGACY_USE_ONLY, false),
        "SSHA256" => ("salted SHA-256", &digest::SHA256, true),
        "SHA256" => ("SHA-256", &digest::SHA256, false),
        "SSHA512" => ("salted SHA-512", &digest::SHA512, true),
        "SHA512" => ("SHA-512", &digest::SHA512, false),
        "MD5" | "SMD5" => return Err(HashRefusal::Weak("MD5")),
        "CLEARTEXT" | "PLAIN" => return Err(HashRefusal::Weak("a password in clear")),
        _ => return Err(HashRefusal::Unknown),
    };
    let mut output = base64(encoded, name)?;
    if output.len() < digest.output_len() {
        return Err(HashRefusal::Malformed(name));
    }
    let salt = output.split_off(digest.output_len());
    if salt.is_empty() == is_salted || salt.len() > MAX_SALT {
        return Err(HashRefusal::Malformed(name));
    }
    Ok(Scheme::Sha { name, digest, output, salt })
}

fn base64(text: &str, name: &'static str) -> Result<Vec<u8>, HashRefusal> {
    BASE64.decode(text).map_err(|_| HashRefusal::Malformed(name))
}

/// A short output would match many passwords.
fn lengths_of(salt: &[u8], output: &[u8], name: &'static str) -> Result<(), HashRefusal> {
    let is_usual = salt.len() <= MAX_SALT && (16..=MAX_OUTPUT).contains(&output.len());
    if is_usual { Ok(()) } else { Err(HashRefusal::Malformed(name)) }
}

#[cfg(test)]
mod tests {
    use super::super::{HashRefusal, Scratch, StoredHash};

    /// Of "correct horse": made by crypt(3) of libxcrypt, passlib and Django.
    const MADE_ELSEWHERE: [(&str, &str); 21] = [
        ("SHA-256-crypt", "$5$rounds=5000$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC"),
        (
            "SHA-512-crypt",
            "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0",
        ),
        ("yescrypt", "$y$j9T$saltsaltsaltsalt$gNcNhvFTt75JDF1LO9O.MCPyp8TkQxrhQSKqUeo/Uy6"),
        ("bcrypt", "$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu"),
        ("bcrypt", "$2a$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"),
        ("bcrypt", "$2b$05$DZziMEjr0Eoxdhp7pB/FKeeN/45kD0BbuQsI9g89mwgseVJxQ2tAS"),
        ("bcrypt", "bcrypt$$2b$05$460XKRh/KyVCnY/eg/1ZbOtTGnLoICxQYrNAxCRH1yYupbK56KQdG"),
        ("bcrypt of SHA-256", "bcrypt_sha256$$2b$05$8BCaFPJzSaHnoVcv7Rl5ROX69Skbo0.NcfVpszttut9hpphbbYcbm"),
        ("PBKDF2-SHA1", "$pbkdf2$1000$jpGylhJirPUeo9Sa814rpQ$a/w5UuPVGLu0yJqpvtFTKeo4gV0"),
        (
            "PBKDF2-SHA256",
            "$pbkdf2-sha256$1000$KWUsBUBICQFA6D0nBOC8dw$FNh0matATNQttT8AEeiAEqlp2z6TRLlnUe1hYVNtFgU",
        ),
        (
            "PBKDF2-SHA512",
            "$pbkdf2-sha512$1000$M0ZojZEyBmDs/T.ntNbaew$1.UwFtXKW4aSVr7IYpoaz5gqjnriVjhTq4cJmChAllfPYrUOaRGKTZrfekL.ek2JEVM0OPnMdHEat06MHRm.aQ",
        ),
        (
            "PBKDF2-SHA256",
            "$pbkdf2-sha256$i=1000,l=32$KWUsBUBICQFA6D0nBOC8dw$FNh0matATNQttT8AEeiAEqlp2z6TRLlnUe1hYVNtFgU",
        ),
        ("PBKDF2-SHA256", "pbkdf2_sha256$1000$bcDKKvT8LOrZ$/eyOzslqV7vK6FNLAm7d5t0hYvnM+JjJ0wahoR/E/8E="),
        ("PBKDF2-SHA1", "pbkdf2_sha1$1000$j2egjUjur1p4$otzWtXbGOOljYNTNxMTraBu0TE0="),
        (
            "scrypt",
            "$scrypt$ln=10,r=8,p=1$eU+JsdZ6T+lda40xJsS4tw$J8sk7ILKtp19SD2JBmglVjhUSwyQe8GwbPLdhEo0l50",
        ),
        (
            "scrypt",
            "scrypt$16384$JzTb7iQxs57fRGY9TUQMI1$8$5$cmmBqC9al7j/5JBplkKlPWJ81grqIqSNu30/GNefrV6iwx4ZMeGBBtOyjPg/CzMTFjdW0JJh2d8psf+zMfZBIA==",
        ),
        ("salted SHA-1", "{SSHA}nTXOmji5UStDI0NyjRsL4CdN0v6ecy7F"),
        ("salted SHA-256", "{SSHA256}5k2EfcUTRluX1o8k60QmibfqjlHcBMbePd63E5lwLIDdO6dU6v2/Vw=="),
        (
            "salted SHA-512",
            "{SSHA512}zEncE+OAf+KLqFVHn65jvY6lnO7foM6qaobRyh/3t94jjALjzhSHMrQL8cBNZORApR7FQy+8XL/eq290aOel5eAcI2TsHQOg",
        ),
        ("SHA-1", "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A="),
        ("yescrypt", "{CRYPT}$y$j9T$saltsaltsaltsalt$gNcNhvFTt75JDF1LO9O.MCPyp8TkQxrhQSKqUeo/Uy6"),
    ];

    #[test]
    fn hashes_of_other_systems_open_with_their_password_and_no_other() {
        let mut scratch = Scratch::default();
        for (name, text) in MADE_ELSEWHERE {
            let hash = StoredHash::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
            assert_eq!(hash.scheme(), name, "{text}");
            for (password, matches) in
                [("correct horse", true), ("correct horse ", false), ("Correct horse", false), ("", false)]
            {
                assert_eq!(
                    hash.matches(password.as_bytes(), &mut scratch).unwrap(),
                    matches,
                    "{text}: {password}"
                );
            }
            assert!(hash.is_weaker_than_today(), "{text}");
            let again = StoredHash::parse(&hash.to_text()).unwrap();
            assert!(again.matches(b"correct horse", &mut scratch).unwrap(), "{text}");
        }
    }

    #[test]
    fn a_hash_cut_off_anywhere_never_matches_and_never_panics() {
        let mut scratch = Scratch::default();
        for (_, text) in MADE_ELSEWHERE {
            for end in 0..text.len() {
                // Base64 is read without its padding as well.
                if text[end..].chars().all(|c| c == '=') {
                    continue;
                }
                if let Ok(hash) = StoredHash::parse(&text[..end]) {
                    assert!(!hash.matches(b"correct horse", &mut scratch).unwrap(), "{}", &text[..end]);
                }
            }
        }
    }

    #[test]
    fn what_is_weak_unknown_or_too_expensive_is_refused_by_its_name() {
        let long = "A".repeat(400);
        for (text, refusal) in [
            ("", HashRefusal::Unknown),
            ("secret", HashRefusal::Unknown),
            ("$x$abc", HashRefusal::Unknown),
            ("{NTLM}abc", HashRefusal::Unknown),
            ("$apr1$RRJSunwr$ti.lOD0IapgL4iIyR5Mfd0", HashRefusal::Weak("MD5-crypt")),
            ("$1$saltsalt$NuzA7WTAelpl95xgBGWN60", HashRefusal::Weak("MD5-crypt")),
            ("{MD5}abc", HashRefusal::Weak("MD5")),
            ("{CLEARTEXT}secret", HashRefusal::Weak("a password in clear")),
            ("$2b$16$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu", HashRefusal::Costs("bcrypt")),
            ("$2b$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3X", HashRefusal::Malformed("bcrypt")),
            (
                "pbkdf2_sha256$4000001$salt$/eyOzslqV7vK6FNLAm7d5t0hYvnM+JjJ0wahoR/E/8E=",
                HashRefusal::Costs("PBKDF2-SHA256"),
            ),
            (
                "pbkdf2_sha256$0$salt$/eyOzslqV7vK6FNLAm7d5t0hYvnM+JjJ0wahoR/E/8E=",
                HashRefusal::Malformed("PBKDF2-SHA256"),
            ),
            ("pbkdf2_sha256$1000$salt$AAAA", HashRefusal::Malformed("PBKDF2-SHA256")),
            (
                "$scrypt$ln=30,r=8,p=1$c2FsdA$J8sk7ILKtp19SD2JBmglVjhUSwyQe8GwbPLdhEo0l50",
                HashRefusal::Costs("scrypt"),
            ),
            (
                "$scrypt$ln=4294967295,r=8,p=1$c2FsdA$J8sk7ILKtp19SD2JBmglVjhUSwyQe8GwbPLdhEo0l50",
                HashRefusal::Costs("scrypt"),
            ),
            (
                "$scrypt$ln=10,r=8,p=100000$c2FsdA$J8sk7ILKtp19SD2JBmglVjhUSwyQe8GwbPLdhEo0l50",
                HashRefusal::Costs("scrypt"),
            ),
            (
                "$scrypt$ln=10,r=0,p=1$c2FsdA$J8sk7ILKtp19SD2JBmglVjhUSwyQe8GwbPLdhEo0l50",
                HashRefusal::Costs("scrypt"),
            ),
            (
                "$6$rounds=2000001$salt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0",
                HashRefusal::Costs("SHA-512-crypt"),
            ),
            (
                "$y$jzT$saltsaltsaltsalt$gNcNhvFTt75JDF1LO9O.MCPyp8TkQxrhQSKqUeo/Uy6",
                HashRefusal::Costs("yescrypt"),
            ),
            ("{SSHA}L55TUjtiq8FBorTWAZ0jy6g129A=", HashRefusal::Malformed("salted SHA-1")),
            (
                &format!("$pbkdf2-sha256$1000${long}$FNh0matATNQttT8AEeiAEqlp2z6TRLlnUe1hYVNtFgU"),
                HashRefusal::Malformed("PBKDF2-SHA256"),
            ),
        ] {
            assert_eq!(StoredHash::parse(text).unwrap_err(), refusal, "{text}");
        }
    }
}
