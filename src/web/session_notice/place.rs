//! Where a page takes our script: the first place in its head. Found while the page streams, as browsers tokenize HTML (HTML
//! §13.2.5). Nothing is looked at beyond the first token that is neither in front of the head nor its start tag, so what
//! stands in scripts, templates or attributes is never taken for a head.

use bytes::{Bytes, BytesMut};

/// How far the place is looked for. Pages with longer comments in front are left alone.
const FARTHEST: usize = 64 * 1024;

/// Puts a tag into a page on its way.
#[derive(Debug)]
pub struct Insertion {
    tag: Bytes,
    scan: Scan,
    /// What was read and not passed on: the start of a token that is not known yet.
    held: BytesMut,
}

impl Insertion {
    pub fn new(tag: Bytes) -> Self {
        Self { tag, scan: Scan { state: State::Mark(0), read: 0 }, held: BytesMut::new() }
    }

    /// Takes the next part of the page, and returns what may go on. That is empty when it is not known yet what the part
    /// begins, never more than a few bytes.
    pub fn pass(&mut self, part: Bytes) -> Bytes {
        if self.scan.is_over() {
            return part;
        }
        let mut part = part;
        if !self.held.is_empty() {
            // It is read again: a few bytes at most.
            self.held.extend_from_slice(&part);
            part = std::mem::take(&mut self.held).freeze();
        }
        match self.scan.read(&part) {
            Found::Place(at) => {
                let mut whole = BytesMut::with_capacity(part.len() + self.tag.len());
                whole.extend_from_slice(part.get(..at).unwrap_or_default());
                whole.extend_from_slice(&self.tag);
                whole.extend_from_slice(part.get(at..).unwrap_or_default());
                whole.freeze()
            }
            Found::None => part,
            Found::Unknown(from) => {
                self.held = BytesMut::from(&*part.split_off(from.min(part.len())));
                part
            }
        }
    }

    /// What is still held when the page ends: a page that ends there has no head.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.scan.state = State::Over;
        (!self.held.is_empty()).then(|| std::mem::take(&mut self.held).freeze())
    }

    pub fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }
}

/// The result of a part.
enum Found {
    /// In this part, at this byte.
    Place(usize),
    /// No place, in what came so far.
    None,
    /// What begins at this byte is not known yet.
    Unknown(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the byte order mark have been read.
    Mark(usize),
    /// Between tokens.
    Between,
    Comment(Comment),
    /// A doctype, or what HTML takes for a comment: until the next `>`.
    UntilEnd,
    Tag(Tag, Attribute),
    /// The place has been found, or there is none.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comment {
    Start,
    StartDash,
    Inside,
    EndDash,
    End,
    EndBang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Html,
    Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Double,
    Single,
    Unquoted,
    AfterQuoted,
}

/// What begins at a `<`.
enum Start {
    Comment,
    UntilEnd,
    Tag(Tag, usize),
    Other,
    /// More bytes are needed.
    Unknown,
}

#[derive(Debug)]
struct Scan {
    state: State,
    read: usize,
}

impl Scan {
    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn read(&mut self, part: &[u8]) -> Found {
        let mut at = 0;
        while let Some(&byte) = part.get(at) {
            if self.read + at > FARTHEST || byte == 0 {
                return self.over(Found::None);
            }
            match self.state {
                State::Mark(read) => match (read, byte) {
                    (0, 0xef) | (1, 0xbb) => self.state = State::Mark(read + 1),
                    (2, 0xbf) => self.state = State::Between,
                    // A mark of UTF-16, or half of ours.
                    (0, 0xfe | 0xff) | (1.., _) => return self.over(Found::None),
                    _ => {
                        self.state = State::Between;
                        continue;
                    }
                },
                State::Between if is_space(byte) => {}
                // No text: compressed, say, by a portal that does not say so.
                State::Between if byte.is_ascii_control() => return self.over(Found::None),
                // Two bytes a letter.
                State::Between if byte == b'<' && part.get(at + 1) == Some(&0) => {
                    return self.over(Found::None);
                }
                State::Between if byte == b'<' => match starts(part.get(at..).unwrap_or_default()) {
                    Start::Comment => {
                        self.state = State::Comment(Comment::Start);
                        at += "<!--".len();
                        continue;
                    }
                    Start::UntilEnd => self.state = State::UntilEnd,
                    Start::Tag(tag, length) => {
                        self.state = State::Tag(tag, Attribute::BeforeName);
                        at += length;
                        continue;
                    }
                    Start::Other => return self.over(Found::Place(at)),
                    Start::Unknown => {
                        self.read += at;
                        return Found::Unknown(at);
                    }
                },
                // Text: the head in front of it has no tag.
                State::Between => return self.over(Found::Place(at)),
                State::Comment(comment) => {
                    self.state = comment.next(byte).map_or(State::Between, State::Comment);
                }
                State::UntilEnd if byte == b'>' => self.state = State::Between,
                State::UntilEnd => {}
                State::Tag(tag, attribute) => match attribute.next(byte) {
                    Some(next) => self.state = State::Tag(tag, next),
                    None if tag == Tag::Html => self.state = State::Between,
                    None => return self.over(Found::Place(at + 1)),
                },
                State::Over => return Found::None,
            }
            at += 1;
        }
        self.read += at;
        Found::None
    }

    fn over(&mut self, found: Found) -> Found {
        self.state = State::Over;
        found
    }
}

/// What begins at the `<` that `bytes` begin with.
fn starts(bytes: &[u8]) -> Start {
    let could_be = |word: &[u8]| {
        let length = bytes.len().min(word.len());
        bytes.get(..length).is_some_and(|start| start.eq_ignore_ascii_case(&word[..length]))
    };
    match bytes.get(1) {
        None => Start::Unknown,
        Some(b'!') if could_be(b"<!--") => {
            if bytes.len() < "<!--".len() {
                Start::Unknown
            } else {
                Start::Comment
            }
        }
        Some(b'!' | b'?') => Start::UntilEnd,
        Some(_) => {
            for (tag, name) in [(Tag::Html, &b"<html"[..]), (Tag::Head, b"<head")] {
                if could_be(name) {
                    return match bytes.get(name.len()) {
                        None => Start::Unknown,
                        Some(&end) if is_space(end) || matches!(end, b'/' | b'>') => {
                            Start::Tag(tag, name.len())
                        }
                        _ => Start::Other,
                    };
                }
            }
            Start::Other
        }
    }
}

/// What separates tokens and attributes.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

impl Comment {
    /// `None`: the comment ends here.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Start, b'-') => Self::StartDash,
            (Self::StartDash | Self::EndDash | Self::End, b'-') => Self::End,
            (Self::Start | Self::StartDash | Self::End | Self::EndBang, b'>') => return None,
            (Self::End, b'!') => Self::EndBang,
            (Self::Inside | Self::EndBang, b'-') => Self::EndDash,
            _ => Self::Inside,
        })
    }
}

impl Attribute {
    /// `None`: the tag ends here.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Double, b'"') | (Self::Single, b'\'') => Self::AfterQuoted,
            (Self::Double | Self::Single, _) => self,
            (_, b'>') => return None,
            (Self::BeforeValue, b'"') => Self::Double,
            (Self::BeforeValue, b'\'') => Self::Single,
            (Self::BeforeValue, byte) if is_space(byte) => Self::BeforeValue,
            (Self::Unquoted, byte) if is_space(byte) => Self::BeforeName,
            (Self::BeforeValue | Self::Unquoted, _) => Self::Unquoted,
            (Self::Name | Self::AfterName, byte) if is_space(byte) => Self::AfterName,
            (Self::Name | Self::AfterName, b'=') => Self::BeforeValue,
            (_, b'/') => Self::BeforeName,
            (Self::BeforeName | Self::AfterQuoted, byte) if is_space(byte) => Self::BeforeName,
            (Self::BeforeName | Self::AfterQuoted | Self::Name | Self::AfterName, _) => Self::Name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "[TAG]";

    /// What becomes of a page that comes in these parts.
    fn passed<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut insertion = Insertion::new(Bytes::from_static(TAG.as_bytes()));
        let mut out = Vec::new();
        for part in parts {
            out.extend_from_slice(&insertion.pass(Bytes::copy_from_slice(part)));
            assert!(insertion.held.len() <= "<head".len());
        }
        out.extend(insertion.rest().into_iter().flatten());
        out
    }

    /// `|` marks the place, if there is one.
    const PAGES: &[&str] = &[
        "<!doctype html><html><head>|<title>A</title></head><body></body></html>",
        "<!DOCTYPE html>\n<HTML lang=\"en\">\n<HEAD>|\n<meta charset=utf-8>",
        "<html><head\t>|",
        "<html><head/>|",
        "<html><head / >|",
        "<head>|",
        "<head>|<head>",
        // No tag of a head.
        "|<title>A</title>",
        "|<p>A",
        "|A",
        "<!doctype html>|<title>A</title>",
        "<!doctype html>\n|Text",
        "<!doctype html><html>|<body>",
        "<html lang=en>|<script>'<head>'</script><head>",
        "<html>|<header>",
        "<html>|<headline>",
        "|<htmlx><head>",
        "|</head><head>",
        "|</p>",
        "|< head>",
        "|<1>",
        "<html>|<template><head></template>",
        "<html>|<body data-x='<head>'>",
        "|{\"a\": 1}",
        "|<frameset>",
        "|<svg><head>",
        "<!doctype html>|<title><head></title>",
        "<html>|<noscript><head></noscript>",
        "|<style><head></style>",
        "|<textarea><head></textarea>",
        "<html>|&amp;",
        // Comments, and what HTML takes for one.
        "<!-- <head> --><html><head>|",
        "<!--><head>|",
        "<!---><head>|",
        "<!----><head>|",
        "<!-----><head>|",
        "<!-- --!><head>|",
        "<!-- --!-><head> --><head>|",
        "<!-- -- ><head> --><head>|",
        "<!-- <!--><head>|",
        "<!-- <!-- --><head>|",
        "<!--!><head> --><head>|",
        "<!--->--><head>",
        "<!-- - -- - --><head>|",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\" \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd\"><html xmlns=\"http://www.w3.org/1999/xhtml\"><head>|",
        "<![CDATA[<head>]]>",
        "<!ELEMENT x><head>|",
        "<!-x><head>|",
        "<!><head>|",
        "<?><head>|",
        "<!doctype html \"a>b\"><head>",
        "<!DOCTYPEhtml><head>|",
        // Attributes.
        "<html a='<head>' b=\"<head>\"><head c=\">\" d='>'>|<x>",
        "<html a=<head><head>|",
        "<html a=\"'>\"><head>|",
        "<html a'=>\"><head>",
        "<html =\"><head>|\"><head>",
        "<html a= \n'>'><head>|",
        "<html a='x'b='>'><head>|",
        "<html a = '>' ><head>|",
        "<html a=/'><head>|",
        "<html/a=\">\"><head>|",
        "<html a=><head>|",
        "<html \u{26a1}><head>|",
        // A mark.
        "\u{feff}<!doctype html><head>|",
        "\u{feff}|A",
        "\u{feff}\u{feff}",
        // No place at all.
        "",
        " ",
        "<",
        "<h",
        "<head",
        "<html",
        "<html>",
        "<head a",
        "<!",
        "<!-",
        "<!--",
        "<!doctype html>",
        "<!-- <head>",
        // No text.
        "\u{1f}\u{8b}\u{8}<head>",
        "\u{1b}$B<head>",
        "<!doctype html>\u{7f}<head>",
    ];

    /// Where the mark is not what the text says itself.
    fn expected(page: &str) -> (String, String) {
        match page {
            // Browsers end these where the quotes are open: what follows is text, in front of which the place is.
            "<!--->--><head>" => (page.into(), "<!--->[TAG]--><head>".into()),
            "<![CDATA[<head>]]>" => (page.into(), "<![CDATA[<head>[TAG]]]>".into()),
            "<!doctype html \"a>b\"><head>" => (page.into(), "<!doctype html \"a>[TAG]b\"><head>".into()),
            "<html a'=>\"><head>" => (page.into(), "<html a'=>[TAG]\"><head>".into()),
            "\u{feff}\u{feff}" => (page.into(), "\u{feff}[TAG]\u{feff}".into()),
            _ => (page.replace('|', ""), page.replace('|', TAG)),
        }
    }

    #[test]
    fn the_place_is_the_first_in_the_head_however_the_page_comes() {
        for page in PAGES {
            let (page, becomes) = expected(page);
            let bytes = page.as_bytes();
            let shown = |parts: &[&[u8]]| String::from_utf8(passed(parts.iter().copied())).unwrap();
            assert_eq!(shown(&[bytes]), becomes);
            assert_eq!(passed(bytes.chunks(1)), becomes.as_bytes(), "{page:?} byte by byte");
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(
                        passed(parts),
                        becomes.as_bytes(),
                        "{page:?} in three, at {first} and {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn pages_of_two_bytes_a_letter_are_left_alone() {
        let page = "<!doctype html><html><head><title>A</title>";
        let (little, big): (Vec<u8>, Vec<u8>) = (
            page.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            page.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        );
        for page in [&[0xff, 0xfe][..], &[0xfe, 0xff], &[]]
            .into_iter()
            .flat_map(|mark| [[mark, &little[..]].concat(), [mark, &big[..]].concat()])
        {
            for size in [1, 2, 7, page.len()] {
                assert_eq!(passed(page.chunks(size)), page);
            }
        }
    }

    #[test]
    fn the_search_ends() {
        let page = format!("<!--{}--><head>", " ".repeat(FARTHEST));
        for size in [1000, page.len()] {
            assert_eq!(passed(page.as_bytes().chunks(size)), page.as_bytes());
        }
        let page = format!("<!--{}--><head>", " ".repeat(FARTHEST - 100));
        assert!(passed(page.as_bytes().chunks(1000)).ends_with(b"<head>[TAG]"));
    }

    #[test]
    fn what_is_not_needed_to_know_is_not_held() {
        let mut insertion = Insertion::new(Bytes::from_static(b"[TAG]"));
        for (part, goes_on) in [
            ("<!doc", "<!doc"),
            ("type html>", "type html>"),
            ("<!", ""),
            ("-", ""),
            ("- a ", "<!-- a "),
            ("b -->\n<", "b -->\n"),
            ("ht", ""),
            ("ml lang=", "<html lang="),
            ("en><hea", "en>"),
            ("d", ""),
            (" >", "<head >[TAG]"),
            ("<", "<"),
        ] {
            assert_eq!(insertion.pass(Bytes::from(part)), goes_on, "{part:?}");
        }
        assert_eq!(insertion.rest(), None);
    }

    #[test]
    fn nothing_but_the_tag_is_added_whatever_comes() {
        // A small generator of its own: pages of the pieces that matter, cut anywhere.
        let pieces = [
            "<",
            ">",
            "!",
            "--",
            "-",
            "<!--",
            "-->",
            "<head",
            "<html",
            "<HEAD>",
            " ",
            "=",
            "\"",
            "'",
            "/",
            "?",
            "a",
            "<!doctype",
            "\0",
            "\u{feff}",
            "\n",
            "é",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
        };
        for _ in 0..20_000 {
            let page: String = (0..next(12)).map(|_| pieces[next(pieces.len())]).collect();
            let whole = passed([page.as_bytes()]);
            let at = next(page.len() + 1);
            assert_eq!(passed([&page.as_bytes()[..at], &page.as_bytes()[at..]]), whole, "{page:?} at {at}");
            assert_eq!(passed(page.as_bytes().chunks(1)), whole, "{page:?}");
            let text = String::from_utf8(whole).unwrap();
            assert!(text == page || text.replacen(TAG, "", 1) == page, "{page:?}");
        }
    }
}
