//! The ways in which portals read a path, so that a rule holds for each of them.
//!
//! A plain path has one reading, and one scan shows it. Letter case and a trailing slash are no separate readings: the
//! comparison ignores them.

use caseless::Caseless as _;
use percent_encoding::percent_decode;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::{users::is_invisible, web::path::PLAIN};

/// Maximum number of readings of one path, and their bytes. A path with more can be read as any path.
const MOST: usize = 64;
const MOST_BYTES: usize = 64 * 1024;
/// Maximum number of non-ASCII bytes in all readings that are folded.
const MOST_FOLDED: usize = 4096;

/// The ways to read a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readings<'a> {
    /// Only as it is written.
    Plain(&'a [u8]),
    /// The first is the path decoded once.
    Several(Vec<Reading>),
    /// In more ways than anybody sends in good faith: it may be any path.
    Any,
}

/// A path as some portal reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) path: Vec<u8>,
    /// The reader.
    pub(super) by: Reader,
}

/// How a reader compares paths, where it differs from most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reader {
    /// Names that fold to the same text are equal.
    pub(super) folds: bool,
    /// `index.php` is not a part of a path.
    pub(super) skips_scripts: bool,
}

/// One habit of some reader: the other path that it reads, if there is one.
type Habit = fn(&[u8]) -> Option<Vec<u8>>;

const HABITS: [Habit; 16] = [
    decode_once,
    decode_utf16,
    shorten_overlong,
    drop_broken_utf8,
    replace_broken_utf8,
    cut_at_query,
    cut_at_null,
    drop_controls,
    turn_backslashes,
    drop_parameters,
    cut_at_parameters,
    merge_slashes,
    drop_authority,
    resolve_dots,
    trim_segments,
    read_plus_as_space,
];

impl<'a> Readings<'a> {
    /// The readings of a path as it was sent.
    pub(super) fn of(path: &'a str) -> Self {
        let bytes = path.as_bytes();
        if is_plain(bytes) {
            return Self::Plain(bytes);
        }
        Search::of(bytes).map_or(Self::Any, |search| Self::Several(search.found))
    }
}

/// The readings of one path found so far.
struct Search {
    found: Vec<Reading>,
    /// Bytes of all readings.
    size: usize,
    /// Non-ASCII bytes that have been folded, which takes time.
    folded: usize,
}

/// There are too many readings.
struct TooMany;

impl Search {
    /// `None` if there are too many.
    fn of(path: &[u8]) -> Option<Self> {
        let mut search = Self { found: Vec::new(), size: 0, folded: 0 };
        search.all(path).is_ok().then_some(search)
    }

    fn all(&mut self, path: &[u8]) -> Result<(), TooMany> {
        self.note(percent_decode(path).collect(), Reader::default())?;
        self.note(keep_structure(path), Reader::default())?;
        let mut at = 0;
        while let Some(Reading { path, by }) = self.found.get(at).cloned() {
            for habit in HABITS {
                if let Some(read) = habit(&path) {
                    self.note(read, by)?;
                }
            }
            if !by.folds
                && let Some(read) = self.fold(&path)?
            {
                self.note(read, Reader { folds: true, ..by })?;
            }
            if let Some(read) = changed(&path, without_scripts(&path)) {
                self.note(read, Reader { skips_scripts: true, ..by })?;
            }
            at += 1;
        }
        Ok(())
    }

    fn note(&mut self, path: Vec<u8>, by: Reader) -> Result<(), TooMany> {
        if self.found.iter().any(|known| known.path == path) {
            return Ok(());
        }
        self.size += path.len();
        if self.found.len() >= MOST || self.size > MOST_BYTES {
            return Err(TooMany);
        }
        self.found.push(Reading { path, by });
        Ok(())
    }

    /// Folds characters that are equal to a reader who compares names in Unicode: other case, wide forms, compositions,
    /// accents.
    fn fold(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, TooMany> {
        let Some(text) = std::str::from_utf8(path).ok().filter(|text| !text.is_ascii()) else {
            return Ok(None);
        };
        self.folded += text.bytes().filter(|byte| !byte.is_ascii()).count();
        if self.folded > MOST_FOLDED {
            return Err(TooMany);
        }
        Ok(changed(path, folded(text).into_bytes()))
    }
}

/// Whether the path has one reading, apart from letter case and a trailing slash.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for (at, &byte) in path.iter().enumerate() {
        let ends_segment = byte == b'/'
            && (matches!(before, b'/' | b'.')
                || (matches!(before, b'p' | b'P') && ends_in_script(&path[..at])));
        // Some readers take a plus for a space.
        let is_itself = PLAIN[usize::from(byte)] && byte != b'+';
        let begins_stream = before == b':' && matches!(byte, b':' | b'$');
        if !is_itself || ends_segment || begins_stream {
            return false;
        }
        before = byte;
    }
    before != b'.'
}

/// The program that PHP portals are, which takes what follows for the path.
const SCRIPT: &[u8] = b"index.php";

fn ends_in_script(path: &[u8]) -> bool {
    path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.eq_ignore_ascii_case(SCRIPT))
}

/// Without the name of that program where something follows, as for patterns.
pub(super) fn without_scripts(path: &[u8]) -> Vec<u8> {
    let last = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let (folders, name) = path.split_at(last);
    let kept: Vec<&[u8]> =
        folders.split(|&byte| byte == b'/').filter(|name| !name.eq_ignore_ascii_case(SCRIPT)).collect();
    [&kept.join(&b'/'), name].concat()
}

/// Decodes everything except slashes, dots and semicolons: the reading of a portal that routes first and decodes later.
fn keep_structure(path: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        match escape(rest) {
            Some(byte) if !matches!(byte, b'/' | b'.' | b';' | b'\\') => {
                kept.push(byte);
                rest = &rest[3..];
            }
            _ => {
                kept.push(first);
                rest = after;
            }
        }
    }
    kept
}

/// The byte that the escape at the start of a text encodes.
fn escape(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else { return None };
    Some(hex(high)? << 4 | hex(low)?)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Some component decodes a path twice if it was encoded twice.
fn decode_once(path: &[u8]) -> Option<Vec<u8>> {
    changed(path, percent_decode(path).collect())
}

/// Decodes `%uXXXX`, once a standard of JavaScript and IIS.
fn decode_utf16(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(path, b"%u").or_else(|| memchr::memmem::find(path, b"%U"))?;
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        let unit = match rest {
            [b'%', b'u' | b'U', digits @ ..] => digits.get(..4).and_then(|digits| {
                digits.iter().try_fold(0_u32, |unit, &digit| Some(unit << 4 | u32::from(hex(digit)?)))
            }),
            _ => None,
        };
        match unit.and_then(char::from_u32) {
            Some(character) => {
                decoded.extend(character.encode_utf8(&mut [0; 4]).bytes());
                rest = &rest[6..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    changed(path, decoded)
}

/// Decodes ASCII characters in two, three or four bytes, as a careless decoder does.
fn shorten_overlong(path: &[u8]) -> Option<Vec<u8>> {
    let mut short = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        let low = |byte: u8| byte & 0x3f;
        let (character, length) = match *rest {
            // Such a decoder ignores the high bits of a continuation byte.
            [lead @ (0xc0 | 0xc1), second, ..] => ((lead & 1) << 6 | low(second), 2),
            [0xe0, second, third, ..] if low(second) < 2 => (low(second) << 6 | low(third), 3),
            [0xf0, second, third, fourth, ..] if low(second) == 0 && low(third) < 2 => {
                (low(third) << 6 | low(fourth), 4)
            }
            _ => (first, 1),
        };
        short.push(character);
        rest = if length == 1 { after } else { &rest[length..] };
    }
    changed(path, short)
}

/// Some readers drop bytes that are not valid UTF-8.
fn drop_broken_utf8(path: &[u8]) -> Option<Vec<u8>> {
    if std::str::from_utf8(path).is_ok() {
        return None;
    }
    Some(path.utf8_chunks().flat_map(|chunk| chunk.valid().bytes()).collect())
}

/// Other readers put the replacement character in their place.
fn replace_broken_utf8(path: &[u8]) -> Option<Vec<u8>> {
    changed(path, String::from_utf8_lossy(path).into_owned().into_bytes())
}

/// A name without case, accents and invisible characters, for readers that compare names so. Patterns are folded in the
/// same way.
pub(super) fn folded(text: &str) -> String {
    let bare = text.nfkd().filter(|&c| !is_combining_mark(c) && !is_invisible(c)).map(best_fit);
    bare.default_case_fold().nfkc().collect()
}

/// The best-fit character of a Windows code page, which databases use to compare as well.
fn best_fit(character: char) -> char {
    match character {
        'ı' => 'i',
        'ł' | 'Ł' => 'l',
        'đ' | 'Đ' => 'd',
        'ħ' | 'Ħ' => 'h',
        'ŧ' | 'Ŧ' => 't',
        'ø' | 'Ø' => 'o',
        '⁄' | '∕' | '╱' => '/',
        '∖' | '⧵' => '\\',
        other => other,
    }
}

/// For a reader that decodes first and splits later, a decoded `?` or `#` begins a query or fragment.
fn cut_at_query(path: &[u8]) -> Option<Vec<u8>> {
    let end = memchr::memchr2(b'?', b'#', path)?;
    Some(path[..end].to_vec())
}

/// A C string ends here, and a Windows file name continues with a stream.
fn cut_at_null(path: &[u8]) -> Option<Vec<u8>> {
    let stream = || path.windows(2).position(|two| matches!(two, b"::" | b":$"));
    let end = memchr::memchr(0, path).or_else(stream)?;
    Some(path[..end].to_vec())
}

fn drop_controls(path: &[u8]) -> Option<Vec<u8>> {
    changed(path, path.iter().copied().filter(|byte| !byte.is_ascii_control()).collect())
}

fn turn_backslashes(path: &[u8]) -> Option<Vec<u8>> {
    changed(path, path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect())
}

/// Servlet containers ignore the part of a segment after a `;`.
fn drop_parameters(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b';', path)?;
    Some(by_segment(path, |segment| segment.split(|&byte| byte == b';').next().unwrap_or_default()))
}

/// Fastify takes them for the query.
fn cut_at_parameters(path: &[u8]) -> Option<Vec<u8>> {
    Some(path[..memchr::memchr(b';', path)?].to_vec())
}

fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let mut merged = path.to_vec();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    changed(path, merged)
}

/// Two leading slashes begin an address without a scheme: a host, then the path. Some readers skip further slashes as
/// well.
fn drop_authority(path: &[u8]) -> Option<Vec<u8>> {
    let host = path.strip_prefix(b"//")?;
    let host = &host[host.iter().position(|&byte| byte != b'/').unwrap_or(host.len())..];
    let end = memchr::memchr(b'/', host).unwrap_or(host.len());
    let rest = &host[end..];
    Some(if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() })
}

/// Resolves dot segments, which only another habit can produce: the request gate refuses those that were sent.
fn resolve_dots(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(path, b"/.")?;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_folder = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => _ = kept.pop(),
            segment => kept.push(segment),
        }
    }
    let mut resolved: Vec<u8> = kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect();
    if ends_in_folder || resolved.is_empty() {
        resolved.push(b'/');
    }
    changed(path, resolved)
}

/// Windows drops dots and spaces at the end of a name, and other readers trim spaces.
fn trim_segments(path: &[u8]) -> Option<Vec<u8>> {
    let trimmed = by_segment(path, |segment| {
        let end = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
        let start = segment.iter().position(|&byte| byte != b' ').unwrap_or(0);
        // A segment of dots only is not a file name.
        if end == 0 { segment } else { &segment[start..end] }
    });
    changed(path, trimmed)
}

/// Reads a plus as in a query.
fn read_plus_as_space(path: &[u8]) -> Option<Vec<u8>> {
    changed(path, path.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect())
}

fn by_segment(path: &[u8], change: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|&byte| byte == b'/').map(change).collect();
    segments.join(&b'/')
}

fn changed(before: &[u8], after: Vec<u8>) -> Option<Vec<u8>> {
    (after != before).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Vec<String> {
        match Readings::of(path) {
            Readings::Plain(plain) => vec![String::from_utf8_lossy(plain).into_owned()],
            Readings::Several(all) => {
                all.iter().map(|reading| String::from_utf8_lossy(&reading.path).into_owned()).collect()
            }
            Readings::Any => vec!["any".to_owned()],
        }
    }

    #[test]
    fn a_plain_path_has_one_reading() {
        for path in [
            "/",
            "/index.php",
            "/a/index.php",
            "/xindex.php/a",
            "/index.phpx/a",
            "/x.php/a",
            "/a/b.html",
            "/a-b_c~d/",
            "/a.b.c",
            "/.well-known/x",
            "/..a/...b",
            "/@me/x:y,z=1",
            "/A",
        ] {
            assert_eq!(Readings::of(path), Readings::Plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_everybody_decodes_alike_has_one_reading_too() {
        for (path, reading) in
            [("/a%20b", "/a b"), ("/%61dmin", "/admin"), ("/%7Eme", "/~me"), ("/100%25", "/100%")]
        {
            assert_eq!(read(path), [reading], "{path}");
        }
        assert_eq!(read("/%C3%BC"), ["/ü", "/u"]);
    }

    #[test]
    fn what_some_portal_reads_as_the_admin_area_has_that_reading() {
        for path in [
            // Encoded or doubled slashes.
            "//admin",
            "/%2fadmin",
            "/%2Fadmin",
            "/%252fadmin",
            "/%25252fadmin",
            "/x%2f%2e%2e/../admin",
            // Parameters.
            "/admin;x=y",
            "/;x/admin",
            "/admin%3bx",
            "/admin%253bx",
            "/admin;",
            "/admin;/x",
            "/admin;a/../b",
            // Dots and spaces at the end.
            "/admin.",
            "/admin..",
            "/admin%20",
            "/admin%2e",
            "/admin%20.",
            "/%20admin",
            "/admin%252e",
            // Encoded twice.
            "/%2561dmin",
            "/%252561dmin",
            "/ad%25%36%64in",
            // Overlong UTF-8: letters, slashes, dots.
            "/%c1%a1dmin",
            "/%c0%afadmin",
            "/%e0%80%afadmin",
            "/%f0%80%80%afadmin",
            "/x/%c0%ae%c0%ae/admin",
            "/x%c0%af..%c0%afadmin",
            "/x/%c0%2e%c0%2e/admin",
            // An address without a scheme.
            "//x/admin",
            "///x/admin",
            "//localhost:8443/admin",
            "//u@x%2fadmin",
            "/%2fx/admin",
            "/%5c%5cx/admin",
            "//x/..%2fadmin",
            // Streams of Windows files.
            "/admin:$i30:$INDEX_ALLOCATION",
            // Invisible characters, accents and best-fit characters.
            "/ad%E2%80%8Dmin",
            "/ad%C2%ADmin",
            "/%EF%BB%BFadmin",
            "/%C3%A1dmin",
            "/%C4%81dmin",
            "/a%CC%81dmin",
            "/adm%C4%B1n",
            "/%E2%88%95admin",
            "/x%E2%81%84..%E2%81%84admin",
            // Broken UTF-8.
            "/ad%ffmin",
            "/ad%c3min",
            "/%80admin",
            // Other characters that are read as these.
            "/%ef%bd%81dmin",
            "/%ef%bc%8fadmin",
            "/x/%ef%bc%8e%ef%bc%8e/admin",
            "/x%25u002f..%25u002fadmin",
            "/%25u0061dmin",
            // Characters that end a path for some readers.
            "/admin%3fx",
            "/admin%23x",
            "/admin%253fx",
            "/admin%c0%80.png",
            "/admin::$DATA",
            "/admin%3a%3a$DATA",
            // The program that a portal in PHP is.
            "/index.php/admin",
            "/Index.PHP/admin/",
            "/index.php//admin",
            "/index%2ephp/admin",
            "/index.php%2fadmin",
            "/%69ndex.php/ADMIN",
            "/index.php/index.php/admin",
            "/index.php;x/admin",
            // Backslashes that only decoding produces.
            "/x%c1%9c..%c1%9cadmin",
        ] {
            let folds = |reading: &String| reading.to_lowercase().trim_end_matches('/') == "/admin";
            assert!(read(path).iter().any(folds), "{path}: {:?}", read(path));
        }
        assert!(read("/a+b").contains(&"/a b".to_owned()));
    }

    #[test]
    fn the_first_reading_is_the_path_decoded_once() {
        for (path, first) in [("/a%2Fb", "/a/b"), ("//a", "//a"), ("/a;b", "/a;b"), ("/%2561", "/%61")] {
            assert_eq!(read(path)[0], first, "{path}");
        }
    }

    #[test]
    fn a_portal_that_does_not_decode_a_slash_is_thought_of() {
        assert_eq!(read("/a%2Fb"), ["/a/b", "/a%2Fb"]);
        assert_eq!(read("/a%2eb"), ["/a.b", "/a%2eb"]);
    }

    #[test]
    fn what_has_too_many_readings_may_be_anything_and_costs_little() {
        let long = format!("/{}", "%2f;a.".repeat(2000));
        assert_eq!(Readings::of(&long), Readings::Any);
        let deep = format!("/%{}61", "25".repeat(5000));
        assert_eq!(Readings::of(&deep), Readings::Any);
        // A three-byte character that folds to eighteen bytes, and one that does not change.
        for letter in ["%EF%B7%BA", "%E4%B8%AD"] {
            assert_eq!(Readings::of(&format!("/{}", letter.repeat(1700))), Readings::Any, "{letter}");
            assert!(
                matches!(Readings::of(&format!("/{}", letter.repeat(250))), Readings::Several(_)),
                "{letter}"
            );
        }
    }
}
