//! argon2id, with which this gateway hashes, and argon2i of other systems: PHC strings.

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};

use super::HashRefusal;
use crate::{random::Random, secret::constant_time_eq};

/// The maximum costs of an imported hash: whoever can store a hash must not be able to stop logins with it.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// The costs of new hashes: m = 19456 KiB, t = 2, p = 1, as OWASP recommends for argon2id.
const COSTS: Params = Params::DEFAULT;
const VERSION: Version = Version::V0x13;
const OUTPUT_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;

/// The working memory of one thread, kept between hashes: freeing 19 MiB after each fragments the heap.
#[derive(Default)]
pub(in crate::credentials) struct Scratch(Vec<Block>);

impl Scratch {
    fn with_blocks<R>(&mut self, count: usize, compute: impl FnOnce(&mut [Block]) -> R) -> R {
        if count > COSTS.block_count() {
            // Rare and imported: not worth keeping that much memory for.
            return compute(&mut vec![Block::new(); count]);
        }
        if self.0.is_empty() {
            self.0 = vec![Block::new(); COSTS.block_count()];
        }
        compute(&mut self.0[..count])
    }
}

/// A checked hash.
#[derive(Clone)]
pub(super) struct Argon {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    output: Output,
}

impl Argon {
    /// Parses `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    pub(super) fn parse(text: &str) -> Result<Self, HashRefusal> {
        const NAME: &str = "argon2";
        let (malformed, costs) = (HashRefusal::Malformed(NAME), HashRefusal::Costs(NAME));
        let hash = PasswordHash::new(text).map_err(|_| malformed)?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| malformed)?;
        if algorithm == Algorithm::Argon2d {
            return Err(HashRefusal::Unsupported("argon2d"));
        }
        let params = Params::try_from(&hash).map_err(|_| costs)?;
        let version = hash.version.map_or(Ok(VERSION), Version::try_from).map_err(|_| malformed)?;
        if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
            return Err(costs);
        }
        match (hash.salt, hash.hash) {
            (Some(salt), Some(output)) => Ok(Self { algorithm, version, params, salt, output }),
            _ => Err(malformed),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.algorithm.as_str()
    }

    /// Hashes `password` at the current costs.
    pub(super) fn compute(
        password: &[u8],
        salt: [u8; 16],
        scratch: &mut Scratch,
    ) -> Result<Self, argon2::Error> {
        let mut output = [0; OUTPUT_BYTES];
        digest((Algorithm::Argon2id, &COSTS, VERSION), password, &salt, &mut output, scratch)?;
        Ok(Self::today(salt, output))
    }

    /// A hash that takes as long to check as a real one, and that no password matches.
    pub(super) fn dummy(random: &dyn Random) -> Self {
        Self::today(random.bytes(), random.bytes())
    }

    #[expect(
        clippy::unwrap_used,
        reason = "16 bytes are a salt and 32 an output: the lengths are in the types"
    )]
    fn today(salt: [u8; 16], output: [u8; OUTPUT_BYTES]) -> Self {
        Self {
            algorithm: Algorithm::Argon2id,
            version: VERSION,
            params: COSTS,
            salt: Salt::new(&salt).unwrap(),
            output: Output::new(&output).unwrap(),
        }
    }

    /// Whether this is the hash of `password`.
    pub(super) fn matches(&self, password: &[u8], scratch: &mut Scratch) -> Result<bool, argon2::Error> {
        let mut output = [0; Output::MAX_LENGTH];
        let output = &mut output[..self.output.len()];
        digest((self.algorithm, &self.params, self.version), password, self.salt.as_ref(), output, scratch)?;
        Ok(constant_time_eq(output, self.output.as_bytes()))
    }

    /// Whether a new hash would be harder to guess from.
    pub(super) fn is_weaker_than_today(&self) -> bool {
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        self.params.m_cost() < COSTS.m_cost()
            || work(&self.params) < work(&COSTS)
            || self.algorithm != Algorithm::Argon2id
            || self.version != VERSION
            || self.output.len() < OUTPUT_BYTES
    }

    /// The PHC string.
    pub(super) fn to_phc(&self) -> String {
        // Fails only for parameters that do not fit a PHC string; these came from one.
        #[expect(clippy::unwrap_used, reason = "the parameters are today's or were parsed from a PHC string")]
        let params = ParamsString::try_from(&self.params).unwrap();
        PasswordHash {
            algorithm: self.algorithm.ident(),
            version: Some(self.version.into()),
            params,
            salt: Some(self.salt),
            hash: Some(self.output),
        }
        .to_string()
    }
}

fn digest(
    (algorithm, params, version): (Algorithm, &Params, Version),
    password: &[u8],
    salt: &[u8],
    output: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), argon2::Error> {
    scratch.with_blocks(params.block_count(), |blocks| {
        Argon2::new(algorithm, version, params.clone())
            .hash_password_into_with_memory(password, salt, output, blocks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    fn matches(phc: &str, password: &str) -> bool {
        Argon::parse(phc).unwrap().matches(password.as_bytes(), &mut Scratch::default()).unwrap()
    }

    /// The first comes from the tests of the reference implementation, the others from its Python binding.
    #[test]
    fn hashes_made_elsewhere_are_checked_at_their_own_costs() {
        for (phc, password) in [
            (
                "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "password",
            ),
            (
                "$argon2id$v=19$m=1024,t=1,p=4$MDEyMzQ1Njc4OWFiY2RlZg$41rLQhXhdcRWdYZmyJFHotLW6U90fsz9374tfcqOXZw",
                "correct horse",
            ),
            ("$argon2id$v=16$m=512,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MSMeYUoWKXU3677Ta3V3Qw", "correct horse"),
        ] {
            assert!(matches(phc, password), "{phc}");
            assert!(!matches(phc, &format!("{password} ")));
            assert_eq!(Argon::parse(phc).unwrap().to_phc(), phc);
        }
    }

    #[test]
    fn a_new_hash_is_read_back_and_checks() {
        let mut scratch = Scratch::default();
        let hash = Argon::compute(b"a password", [7; 16], &mut scratch).unwrap();
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let read = Argon::parse(&hash.to_phc()).unwrap();
        assert!(read.matches(b"a password", &mut scratch).unwrap());
        assert!(!read.matches(b"another password", &mut scratch).unwrap());
        assert!(!read.is_weaker_than_today());
        assert!(!Argon::dummy(&OsRandom).matches(b"", &mut scratch).unwrap());
    }

    #[test]
    fn every_byte_of_a_long_password_matters() {
        let mut scratch = Scratch::default();
        let hash = Argon::compute("x".repeat(73).as_bytes(), [7; 16], &mut scratch).unwrap();
        assert!(!hash.matches(format!("{}y", "x".repeat(72)).as_bytes(), &mut scratch).unwrap());
    }

    #[test]
    fn a_hash_that_would_stop_the_gateway_is_refused() {
        let end = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for (costs, verdict) in [
            ("m=262144,t=16,p=16", true),
            ("m=262145,t=1,p=1", false),
            ("m=4194304,t=1,p=1", false),
            ("m=65536,t=17,p=1", false),
            ("m=65536,t=4294967295,p=1", false),
            ("m=65536,t=1,p=17", false),
            ("m=65536,t=1,p=16777216", false),
            ("m=8,t=0,p=1", false),
            ("m=7,t=1,p=1", false),
            ("m=8,t=1,p=0", false),
        ] {
            assert_eq!(Argon::parse(&format!("$argon2id$v=19${costs}{end}")).is_ok(), verdict, "{costs}");
        }
        for (text, refusal) in [
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ", HashRefusal::Malformed("argon2")),
            (
                "$argon2d$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashRefusal::Unsupported("argon2d"),
            ),
            (
                "$argon2id$v=18$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashRefusal::Malformed("argon2"),
            ),
        ] {
            assert_eq!(Argon::parse(text).err().unwrap(), refusal, "{text}");
        }
    }

    #[test]
    fn weaker_hashes_are_told_apart() {
        let end = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for (costs, weaker) in [
            ("v=19$m=19456,t=2,p=1", false),
            ("v=19$m=65536,t=1,p=4", false),
            ("v=16$m=19456,t=2,p=1", true),
            ("v=19$m=19456,t=1,p=1", true),
            ("v=19$m=19455,t=16,p=1", true),
        ] {
            let hash = Argon::parse(&format!("$argon2id${costs}{end}")).unwrap();
            assert_eq!(hash.is_weaker_than_today(), weaker, "{costs}");
        }
        let short = "$argon2id$v=19$m=65536,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MSMeYUoWKXU3677Ta3V3Qw";
        assert!(Argon::parse(short).unwrap().is_weaker_than_today());
    }

    #[test]
    fn an_expensive_hash_leaves_no_memory_behind() {
        let mut scratch = Scratch::default();
        let phc = "$argon2id$v=19$m=65536,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$XlIARiBE0nDF7PsfubnEl7+kj2YcIpRpFBydLDuxDgI";
        assert!(Argon::parse(phc).unwrap().matches(b"correct horse", &mut scratch).unwrap());
        Argon::compute(b"x", [0; 16], &mut scratch).unwrap();
        assert_eq!(scratch.0.len(), COSTS.block_count());
    }
}
