//! A header tells one client, whatever follows it and however it comes; and what it tells can be told again.

use std::net::{IpAddr, SocketAddr};

use portcullis::server::proxy_protocol::{HeaderFault, HeaderStep, ProxiedClient, step};

/// How many bytes a header takes of `data`, and what it tells; `None` when there is not enough.
fn taken(data: &[u8]) -> Result<Option<(usize, ProxiedClient)>, HeaderFault> {
    let mut taken = 0;
    loop {
        match step(&data[..taken])? {
            HeaderStep::More(count) => {
                assert!(count > 0, "it stands still");
                taken += count;
                if taken > data.len() {
                    return Ok(None);
                }
            }
            HeaderStep::Done(told) => return Ok(Some((taken, told))),
        }
    }
}

pub(crate) fn holds(data: &[u8]) {
    let Ok(Some((length, told))) = taken(data) else { return };
    let header = &data[..length];
    assert_eq!(taken(header), Ok(Some((length, told))), "what follows does not count");
    assert_eq!(taken(&header[..length - 1]), Ok(None));
    let is_line = header.starts_with(b"PROXY ");
    assert!(length <= if is_line { 107 } else { 16 + 4096 });
    let ProxiedClient::Client(client) = told else { return };
    assert_eq!(client.ip(), client.ip().to_canonical());
    assert!(!client.ip().is_unspecified() && !client.ip().is_multicast());
    assert_eq!(client, if is_line { in_words(header) } else { at_offsets(header) });
    let (family, own) = if client.is_ipv4() { ("TCP4", "198.51.100.1") } else { ("TCP6", "2001:db8::1") };
    let again = format!("PROXY {family} {} {own} {} 443\r\n", client.ip(), client.port());
    assert_eq!(taken(again.as_bytes()), Ok(Some((again.len(), told))));
}

/// The client of a line, read in the simplest way.
fn in_words(line: &[u8]) -> SocketAddr {
    let text = std::str::from_utf8(line).expect("a line is text");
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words.len(), 6, "{text:?}");
    assert_eq!(format!("{}\r\n", words.join(" ")), text, "nothing stands between the words");
    let address: IpAddr = words[2].parse().expect("an address");
    SocketAddr::new(address.to_canonical(), words[4].parse().expect("a port"))
}

/// The client of a header of the second version, by the offsets of the standard.
fn at_offsets(header: &[u8]) -> SocketAddr {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!((header[12], header.len()), (0x21, 16 + usize::from(port(14))));
    match header[13] {
        0x11 => SocketAddr::new(<[u8; 4]>::try_from(&header[16..20]).expect("four").into(), port(24)),
        0x21 => {
            let address: IpAddr = <[u8; 16]>::try_from(&header[16..32]).expect("sixteen").into();
            SocketAddr::new(address.to_canonical(), port(48))
        }
        other => panic!("family {other} tells no client"),
    }
}
