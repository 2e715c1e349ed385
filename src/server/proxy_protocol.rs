//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who the client of a balancer's connection is.
//!
//! Reads one header in its one exact form, and not a byte of what follows. Crates that do it take ports such as `+80`, lines beyond
//! 107 bytes and `PROXYxTCP4`, and leave the checksum to the caller; what is taken for the client's address must have one reading.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How a header of version 2 begins.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How a header of version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// The longest header of version 1, its end included.
const LONGEST_LINE: usize = 107;
/// The start of version 2, before the part whose length it tells.
const FIXED: usize = 16;
/// The most of that part which is read: addresses and what balancers add to them.
const LONGEST_REST: usize = 4096;
/// The type of the checksum among what balancers add.
const CRC32C: u8 = 0x03;

/// The client that a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxiedClient {
    /// The connection is this client's.
    Client(SocketAddr),
    /// It is the balancer's own, such as a health check, or of a client that has no address.
    Unknown,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("there is no PROXY protocol header")]
    Absent,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    #[error("the PROXY protocol header is longer than {LONGEST_REST} bytes")]
    TooLong,
    #[error("the PROXY protocol header has a wrong checksum")]
    Checksum,
    #[error("the PROXY protocol header is not for a TCP connection")]
    NotTcp,
    #[error("the PROXY protocol header names an address that no client has")]
    Address,
}

/// How reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStep {
    /// The header has at least so many bytes more.
    More(usize),
    /// It ends with the last byte.
    Done(ProxiedClient),
}

/// What comes after `read`, the start of a header: never asks for a byte behind its end.
pub fn step(read: &[u8]) -> Result<HeaderStep, HeaderFault> {
    // The shortest header, `PROXY UNKNOWN` and its end, is longer than the signature.
    if let Some(missing) = SIGNATURE.len().checked_sub(read.len()).filter(|&missing| missing > 0) {
        return Ok(HeaderStep::More(missing));
    }
    if read.starts_with(WORD) {
        line(read)
    } else if read.starts_with(SIGNATURE) {
        binary(read)
    } else {
        Err(HeaderFault::Absent)
    }
}

/// Reads a header, and nothing of what follows it.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<ProxiedClient, HeaderFault>> {
    let mut read = Vec::new();
    loop {
        match step(&read) {
            Ok(HeaderStep::More(count)) => {
                let from = read.len();
                read.resize(from + count, 0);
                stream.read_exact(read.get_mut(from..).unwrap_or_default()).await?;
            }
            Ok(HeaderStep::Done(told)) => return Ok(Ok(told)),
            Err(fault) => return Ok(Err(fault)),
        }
    }
}

/// Whether a connection begins as one with a header does.
pub(super) fn begins_like_one(first: &[u8]) -> bool {
    let begins = |with: &[u8]| first.len() >= 6 && first.starts_with(with.get(..first.len()).unwrap_or(with));
    begins(WORD) || begins(SIGNATURE)
}

/// Version 1: one line of text.
fn line(read: &[u8]) -> Result<HeaderStep, HeaderFault> {
    let Some(text) = read.strip_suffix(b"\r\n") else {
        let closes = read.ends_with(b"\r");
        let stray = read.strip_suffix(b"\r").unwrap_or(read).iter().any(|byte| !(b' '..=b'~').contains(byte));
        let missing = if closes { 1 } else { 2 };
        let goes_on = !stray && read.len() + missing <= LONGEST_LINE;
        return if goes_on { Ok(HeaderStep::More(missing)) } else { Err(HeaderFault::Malformed) };
    };
    if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(HeaderFault::Malformed);
    }
    let text = std::str::from_utf8(text).map_err(|_| HeaderFault::Malformed)?;
    let mut words = text.split(' ').skip(1);
    let told = match words.next() {
        // What stands behind it is to be ignored.
        Some("UNKNOWN") => return Ok(HeaderStep::Done(ProxiedClient::Unknown)),
        Some("TCP4") => told::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => told::<Ipv6Addr>(&mut words)?,
        _ => return Err(HeaderFault::Malformed),
    };
    if words.next().is_some() { Err(HeaderFault::Malformed) } else { client(told).map(HeaderStep::Done) }
}

/// Source, destination and their ports, of which only the source is of use.
fn told<'a, A: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, HeaderFault> {
    fn next<'a, T>(
        words: &mut impl Iterator<Item = &'a str>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, HeaderFault> {
        words.next().and_then(parse).ok_or(HeaderFault::Malformed)
    }
    let source: A = next(words, |word| word.parse().ok())?;
    let _destination: A = next(words, |word| word.parse().ok())?;
    let (port, _) = (next(words, port)?, next(words, port)?);
    Ok(SocketAddr::new(source.into(), port))
}

/// A port as it is written: digits, and no zero in front.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// Version 2: binary, with its length.
fn binary(read: &[u8]) -> Result<HeaderStep, HeaderFault> {
    let Some((fixed, rest)) = read.split_at_checked(FIXED) else {
        return Ok(HeaderStep::More(FIXED - read.len()));
    };
    let &[command, family, high, low] = fixed.get(SIGNATURE.len()..).unwrap_or_default() else {
        return Err(HeaderFault::Malformed);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(HeaderFault::TooLong);
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderFault::Malformed),
    };
    if rest.len() < length {
        return Ok(HeaderStep::More(length - rest.len()));
    }
    // Of the balancer's own connections everything but the length is to be ignored.
    if local {
        return Ok(HeaderStep::Done(ProxiedClient::Unknown));
    }
    let (told, added) = match family {
        0x00 => (None, Some(rest)),
        0x11 => addresses(rest, |octets: [u8; 4]| octets.into()),
        0x21 => addresses(rest, |octets: [u8; 16]| octets.into()),
        // Unix sockets have paths of a fixed length.
        0x31 => (None, rest.get(216..)),
        0x12 | 0x22 | 0x32 => return Err(HeaderFault::NotTcp),
        _ => return Err(HeaderFault::Malformed),
    };
    check_added(read, added.ok_or(HeaderFault::Malformed)?)?;
    told.map_or(Ok(ProxiedClient::Unknown), client).map(HeaderStep::Done)
}

/// The source, and what follows the addresses, if there is room for them.
fn addresses<const N: usize>(
    rest: &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> (Option<SocketAddr>, Option<&[u8]>) {
    let source = rest.first_chunk::<N>();
    let port = rest.get(2 * N..).and_then(|ports| ports.first_chunk::<2>());
    let told =
        source.zip(port).map(|(source, port)| SocketAddr::new(address(*source), u16::from_be_bytes(*port)));
    (told, rest.get(2 * N + 4..))
}

/// Goes through what the balancer has added, type by type, and compares the checksum if it is there.
fn check_added(header: &[u8], mut added: &[u8]) -> Result<(), HeaderFault> {
    let mut has_checksum = false;
    while let Some((&kind, rest)) = added.split_first() {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(HeaderFault::Malformed)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(HeaderFault::Malformed)?;
        if kind == CRC32C {
            let value: [u8; 4] = value.try_into().map_err(|_| HeaderFault::Malformed)?;
            if std::mem::replace(&mut has_checksum, true) {
                return Err(HeaderFault::Malformed);
            }
            let at = header.len() - rest.len() - value.len();
            let before = header.get(..at).unwrap_or_default().iter();
            // It counts itself as zeros.
            if crc32c(before.chain(&[0; 4]).chain(rest)) != u32::from_be_bytes(value) {
                return Err(HeaderFault::Checksum);
            }
        }
        added = rest;
    }
    Ok(())
}

/// The checksum of RFC 9260, appendix A.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
    })
}

fn client(told: SocketAddr) -> Result<ProxiedClient, HeaderFault> {
    let address = told.ip().to_canonical();
    if address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST {
        return Err(HeaderFault::Address);
    }
    Ok(ProxiedClient::Client(SocketAddr::new(address, told.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` as they come; how many were taken, and what they tell.
    fn taken(bytes: &[u8]) -> Result<Option<(usize, ProxiedClient)>, HeaderFault> {
        let mut taken = 0;
        loop {
            match step(&bytes[..taken])? {
                HeaderStep::More(0) => panic!("stands still"),
                HeaderStep::More(count) if taken + count > bytes.len() => return Ok(None),
                HeaderStep::More(count) => taken += count,
                HeaderStep::Done(told) => return Ok(Some((taken, told))),
            }
        }
    }

    /// What a header tells, of which no byte is left and none behind it is taken.
    fn told(header: &[u8]) -> Result<ProxiedClient, HeaderFault> {
        let followed = [header, b"\x16\x03\x01\r\n"].concat();
        let (length, told) = taken(&followed)?.expect("it is whole");
        assert_eq!(length, header.len(), "{}", header.escape_ascii());
        for cut in 0..header.len() {
            assert_eq!(taken(&header[..cut]), Ok(None), "{cut} of {}", header.escape_ascii());
        }
        Ok(told)
    }

    fn at(text: &str) -> ProxiedClient {
        ProxiedClient::Client(text.parse().unwrap())
    }

    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    const IPV4: &[u8] = &[203, 0, 113, 9, 198, 51, 100, 1, 0xC8, 0x22, 0x01, 0xBB];

    /// With a checksum at `at` within what is added to the addresses.
    fn summed(family: u8, addresses: &[u8], before: &[u8], behind: &[u8]) -> Vec<u8> {
        let rest = [addresses, before, &[CRC32C, 0, 4, 0, 0, 0, 0], behind].concat();
        let mut header = second(0x21, family, &rest);
        let sum = crc32c(header.iter()).to_be_bytes();
        let at = header.len() - behind.len() - 4;
        header[at..at + 4].copy_from_slice(&sum);
        header
    }

    #[test]
    fn a_line_of_the_first_version_has_one_form() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LONGEST_LINE - 16));
        assert_eq!(long.len(), LONGEST_LINE);
        let widest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        for (line, expected) in [
            ("PROXY TCP4 203.0.113.9 198.51.100.1 51234 443\r\n", Ok(at("203.0.113.9:51234"))),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 0 65535\r\n", Ok(at("1.1.1.1:0"))),
            ("PROXY TCP6 2001:db8::9 2001:db8::1 51234 443\r\n", Ok(at("[2001:db8::9]:51234"))),
            ("PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n", Ok(at("203.0.113.9:1"))),
            ("PROXY UNKNOWN\r\n", Ok(ProxiedClient::Unknown)),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Ok(ProxiedClient::Unknown)),
            (&long, Ok(ProxiedClient::Unknown)),
        ] {
            assert_eq!(told(line.as_bytes()), expected, "{line}");
        }
        let line = format!("PROXY TCP6 {widest} {widest} 65535 65535\r\n");
        // No client has ff00::/8.
        assert_eq!((line.len(), told(line.as_bytes())), (104, Err(HeaderFault::Address)));
    }

    #[test]
    fn nothing_that_is_nearly_a_line_is_one() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LONGEST_LINE - 15));
        for line in [
            "PROXY  TCP4 203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY TCP4  203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 2 \r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 2\n\n\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 2\r\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 2\rx\n",
            "PROXY TCP4\t203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9\0 198.51.100.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 01 2\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 -1 2\r\n",
            "PROXY TCP4 203.0.113.9 198.51.100.1 0x1 2\r\n",
            "PROXY TCP4 203.0.113.09 198.51.100.1 1 2\r\n",
            "PROXY TCP4 203.0.113 198.51.100.1 1 2\r\n",
            "PROXY TCP4 203.0.113.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 3405803785 198.51.100.1 1 2\r\n",
            "PROXY TCP4 2001:db8::9 2001:db8::1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 2001:db8::1 1 2\r\n",
            "PROXY TCP6 203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY TCP6 2001:db8::9%eth0 2001:db8::1 1 2\r\n",
            "PROXY TCP6 [2001:db8::9] 2001:db8::1 1 2\r\n",
            "PROXY TCP5 203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY tcp4 203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY UDP4 203.0.113.9 198.51.100.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\n\n\n",
            "PROXY UNKNOWN \u{e9}\r\n",
            "PROXY \r\n\r\n\r\n\r\n",
            &long,
        ] {
            assert_eq!(taken(line.as_bytes()), Err(HeaderFault::Malformed), "{line:?}");
        }
        for other in [
            "PROXYxTCP4 203.0.113.9 198.51.100.1 1 2\r\n",
            "proxy TCP4 203.0.113.9 198.51.100.1 1 2\r\n",
            " PROXY TCP4 203.0.113.9 198.51.100.1 1 2\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03aaaa",
        ] {
            assert_eq!(taken(other.as_bytes()), Err(HeaderFault::Absent), "{other:?}");
        }
        for nobody in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            let line = format!("PROXY TCP4 {nobody} 198.51.100.1 1 2\r\n");
            assert_eq!(taken(line.as_bytes()), Err(HeaderFault::Address), "{nobody}");
        }
        for nobody in ["::", "ff02::1", "::ffff:0.0.0.0"] {
            let line = format!("PROXY TCP6 {nobody} ::1 1 2\r\n");
            assert_eq!(taken(line.as_bytes()), Err(HeaderFault::Address), "{nobody}");
        }
    }

    #[test]
    fn a_header_of_the_second_version_tells_the_client_or_nobody() {
        let ipv6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0xC8, 0x22, 1, 0xBB]].concat();
        let mapped = [&[0; 10][..], &[255, 255, 203, 0, 113, 9], &[0; 16], &[0, 1, 0, 2]].concat();
        let unix = [b'/'; 216];
        let added: &[u8] = &[0xEA, 0, 3, 1, b'v', b'p', 0x04, 0, 0, 0x02, 0, 1, b'h'];
        for (header, expected) in [
            (second(0x21, 0x11, IPV4), Ok(at("203.0.113.9:51234"))),
            (second(0x21, 0x11, &[IPV4, added].concat()), Ok(at("203.0.113.9:51234"))),
            (second(0x21, 0x21, &ipv6), Ok(at("[2001:db8::9]:51234"))),
            (second(0x21, 0x21, &mapped), Ok(at("203.0.113.9:1"))),
            (second(0x21, 0x31, &unix), Ok(ProxiedClient::Unknown)),
            (second(0x21, 0x31, &[&unix, added].concat()), Ok(ProxiedClient::Unknown)),
            (second(0x21, 0x00, &[]), Ok(ProxiedClient::Unknown)),
            (second(0x21, 0x00, added), Ok(ProxiedClient::Unknown)),
            (second(0x20, 0x00, &[]), Ok(ProxiedClient::Unknown)),
            // Whatever a health check adds is to be ignored.
            (second(0x20, 0x11, IPV4), Ok(ProxiedClient::Unknown)),
            (second(0x20, 0x77, &[1, 2, 3]), Ok(ProxiedClient::Unknown)),
            (summed(0x11, IPV4, &[], &[]), Ok(at("203.0.113.9:51234"))),
            (summed(0x11, IPV4, added, added), Ok(at("203.0.113.9:51234"))),
            (summed(0x21, &ipv6, added, &[]), Ok(at("[2001:db8::9]:51234"))),
            (summed(0x00, &[], &[], added), Ok(ProxiedClient::Unknown)),
            (second(0x21, 0x00, &vec![0; LONGEST_REST - LONGEST_REST % 3]), Ok(ProxiedClient::Unknown)),
        ] {
            assert_eq!(told(&header), expected, "{}", header.escape_ascii());
        }
    }

    #[test]
    fn nothing_that_is_nearly_a_header_of_the_second_version_is_one() {
        use HeaderFault::{Address, Checksum, Malformed, NotTcp, TooLong};
        let mut torn = summed(0x11, IPV4, &[], &[4, 0, 0]);
        torn[16] ^= 1;
        let mut bent = summed(0x11, IPV4, &[], &[]);
        *bent.last_mut().unwrap() ^= 1;
        let mut none = IPV4.to_vec();
        none[..4].fill(0);
        let twice = [IPV4, &[CRC32C, 0, 4, 1, 2, 3, 4, CRC32C, 0, 4, 1, 2, 3, 4]].concat();
        for (header, fault) in [
            (second(0x22, 0x11, IPV4), Malformed),
            (second(0x11, 0x11, IPV4), Malformed),
            (second(0x01, 0x11, IPV4), Malformed),
            (second(0x31, 0x11, IPV4), Malformed),
            (second(0x21, 0x10, IPV4), Malformed),
            (second(0x21, 0x01, IPV4), Malformed),
            (second(0x21, 0x13, IPV4), Malformed),
            (second(0x21, 0x41, IPV4), Malformed),
            (second(0x21, 0xFF, IPV4), Malformed),
            (second(0x21, 0x12, IPV4), NotTcp),
            (second(0x21, 0x22, &[1; 36]), NotTcp),
            (second(0x21, 0x32, &[1; 216]), NotTcp),
            // Too little room for the addresses.
            (second(0x21, 0x11, &[]), Malformed),
            (second(0x21, 0x11, &IPV4[..11]), Malformed),
            (second(0x21, 0x21, &[1; 35]), Malformed),
            (second(0x21, 0x21, IPV4), Malformed),
            (second(0x21, 0x31, &[1; 215]), Malformed),
            // Additions that do not end with the header.
            (second(0x21, 0x11, &[IPV4, &[4]].concat()), Malformed),
            (second(0x21, 0x11, &[IPV4, &[4, 0]].concat()), Malformed),
            (second(0x21, 0x11, &[IPV4, &[4, 0, 1]].concat()), Malformed),
            (second(0x21, 0x11, &[IPV4, &[4, 255, 255, 0]].concat()), Malformed),
            (second(0x21, 0x11, &[IPV4, &[CRC32C, 0, 3, 1, 2, 3]].concat()), Malformed),
            (second(0x21, 0x11, &[IPV4, &[CRC32C, 0, 0]].concat()), Malformed),
            (second(0x21, 0x11, &twice), Checksum),
            (torn, Checksum),
            (bent, Checksum),
            (second(0x21, 0x00, &vec![0; LONGEST_REST + 1]), TooLong),
            (second(0x20, 0x00, &vec![0; 65535]), TooLong),
            (second(0x21, 0x11, &none), Address),
        ] {
            assert_eq!(taken(&header), Err(fault), "{}", header[12..].escape_ascii());
        }
        let mut twice = summed(0x11, IPV4, &[], &[CRC32C, 0, 4, 0, 0, 0, 0]);
        let from = twice.len() - 4;
        twice[from..].fill(7);
        assert!(taken(&twice).is_err());
        for (at, _) in SIGNATURE.iter().enumerate() {
            let mut header = second(0x21, 0x11, IPV4);
            header[at] ^= 0x20;
            assert_eq!(taken(&header), Err(HeaderFault::Absent), "byte {at} of the signature");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789".iter()), 0xE306_9283);
        assert_eq!(crc32c([0_u8; 32].iter()), 0x8A91_36AA);
    }

    #[test]
    fn a_start_is_told_from_tls_and_http() {
        for first in [&b"PROXY "[..], b"PROXY TCP4 1", SIGNATURE, &SIGNATURE[..6]] {
            assert!(begins_like_one(first), "{}", first.escape_ascii());
        }
        for first in [&b""[..], b"P", b"POST / HTTP/", b"PROXY/ HTTP/", b"\x16\x03\x01\x02\x00\x01", b"\r\n"]
        {
            assert!(!begins_like_one(first), "{}", first.escape_ascii());
        }
    }
}
