//! A connection of HTTP/1 as the gateway serves it, over TLS and a real socket: however the bytes arrive, and whatever the
//! service reads of a body and when it answers, the service sees the requests that the parser reads and no others, every
//! request that has to be answered is, in order, and nothing hangs.
//!
//! An input is the number of behaviours, the behaviours, the size of the pieces, and the bytes.

#[path = "connection/client.rs"]
mod client;
#[path = "connection/service.rs"]
mod service;

use bytes::BytesMut;
use portcullis::http1::{body_part::Part, framing::Framing, request_head::parse};

use self::service::{Behaviour, Run};

/// A request as the parser reads it.
struct Expected {
    /// Method, target and fields.
    head: String,
    is_head: bool,
    /// A body follows, empty or not.
    announces: bool,
    body: Vec<u8>,
    /// The body is there to its end.
    whole: bool,
}

/// What comes behind the last of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Nothing, or the beginning of another one.
    More,
    Refused,
    /// The connection ends behind the last, or its body is malformed.
    Ends,
    /// The last has said that it is, and the client sends on all the same: the reset of its connection may take the answer away
    /// (RFC 9112, section 9.6).
    SendsOn,
}

pub(crate) fn holds(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((script, rest)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let Some((&size, bytes)) = rest.split_first() else { return };
    let script: Vec<Behaviour> = script.iter().map(|&byte| Behaviour::of(byte)).collect();
    let behaves = |number: usize| match script.len() {
        0 => Behaviour::of(0),
        length => script[number % length],
    };
    let (expected, tail) = read(bytes);
    let due = due(&expected, behaves).saturating_sub(usize::from(tail == Tail::SendsOn));
    // What is refused is answered too, if the connection gets that far.
    let reads_on = |(number, request): (usize, &Expected)| request.whole && goes_on(request, behaves(number));
    let refused = tail == Tail::Refused && expected.iter().enumerate().all(reads_on);
    let run = Run::new(script.clone());
    let heads: Vec<bool> = expected.iter().map(|request| request.is_head).collect();
    let answers = client::exchange(&run, bytes, usize::from(size).max(1), &heads, due + usize::from(refused));

    let seen = run.seen();
    assert!(seen.len() <= expected.len(), "{} requests, of which there are {}", seen.len(), expected.len());
    for (number, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
        assert_eq!(seen.head, expected.head, "request {number}");
        assert!(expected.body.starts_with(&seen.body), "request {number}: a body that was not sent");
        if seen.ended {
            assert!(expected.whole, "request {number}: an end that was not sent");
            assert_eq!(seen.body.len(), expected.body.len(), "request {number}: a body cut short");
        }
    }
    for (number, answer) in answers.iter().enumerate() {
        match answer.status {
            200 => assert!(number < seen.len(), "answer {number} to no request"),
            _ => assert!(tail != Tail::More && number + 1 == answers.len(), "answer {number} refuses"),
        }
        // An answer names its request, unless it may have no body.
        let own = answer.status == 200 && !heads.get(number).copied().unwrap_or(false);
        assert!(!own || answer.body == service::name(number), "answer {number} is another's");
    }
    assert!(answers.len() >= due + usize::from(refused), "{} answers, of {due}", answers.len());
}

/// How many requests have to be answered: those up to the first that is not whole, or whose body somebody leaves unread.
fn due(expected: &[Expected], behaves: impl Fn(usize) -> Behaviour) -> usize {
    let mut due = 0;
    for (number, request) in expected.iter().enumerate() {
        if !request.whole {
            break;
        }
        due += 1;
        if !goes_on(request, behaves(number)) {
            break;
        }
    }
    due
}

/// Whether nothing of a body is left unread that may end the connection.
fn goes_on(request: &Expected, behaviour: Behaviour) -> bool {
    !request.announces || behaviour.reads_all()
}

fn read(bytes: &[u8]) -> (Vec<Expected>, Tail) {
    let mut buffer = BytesMut::from(bytes);
    let mut requests = Vec::new();
    loop {
        let head = match parse(&mut buffer) {
            Ok(Some(head)) => head,
            Ok(None) => return (requests, Tail::More),
            Err(_) => return (requests, Tail::Refused),
        };
        let (mut body, mut whole) = (Vec::new(), true);
        let announces = head.announced.is_some();
        let mut framing = head.announced.map_or(Framing::Length(0), |announced| announced.framing);
        let mut tail = if head.keep_alive { Tail::More } else { Tail::Ends };
        while !framing.is_end() {
            match framing.next(&mut buffer) {
                Ok(Some(Part::Data(data))) => body.extend_from_slice(&data),
                Ok(Some(Part::Trailers(_) | Part::End)) => {}
                Ok(None) => {
                    whole = false;
                    break;
                }
                Err(_) => {
                    (whole, tail) = (false, Tail::Ends);
                    break;
                }
            }
        }
        let is_head = head.request.method() == "HEAD";
        requests.push(Expected { head: service::head_of(&head.request), is_head, announces, body, whole });
        if !whole || tail == Tail::Ends {
            let sends_on = whole && !buffer.is_empty();
            return (requests, if sends_on { Tail::SendsOn } else { tail });
        }
    }
}
