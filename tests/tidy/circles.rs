//! Which files use each other in a circle, by their paths in Rust: `crate::`, `self::`, `super::` and the names of folders below.
//!
//! A name that a module passes on is looked up where it is defined. A file and the `mod.rs` of a folder around it are of one
//! piece: that it uses what is written there makes no circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{body_end, elements, words};

type Path = Vec<String>;

/// What files there are, by their modules.
pub(super) struct Files {
    files: BTreeMap<Path, File>,
}

#[derive(Default)]
struct File {
    /// Where names lead that the module brings in.
    names: BTreeMap<String, Path>,
    used: BTreeSet<Path>,
}

impl Files {
    /// Takes the path of each file from the root of the package, and its code without comments and literals.
    pub(super) fn new<'a>(sources: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let codes: BTreeMap<Path, String> = sources
            .filter_map(|(path, code)| Some((module(path)?, without_tests(code))))
            .filter(|(module, _)| !module.iter().any(|step| step == "tests"))
            .collect();
        let files = codes.iter().map(|(module, code)| (module.clone(), read(module, code, &codes))).collect();
        Self { files }
    }

    /// Every circle, with who uses whom in it.
    pub(super) fn circles(&self) -> Vec<String> {
        let arrows: BTreeMap<&Path, BTreeSet<&Path>> =
            self.files.iter().map(|(module, file)| (module, self.used(module, file))).collect();
        let reached: BTreeMap<&Path, BTreeSet<&Path>> =
            arrows.keys().map(|module| (*module, reach(module, &arrows))).collect();
        let mut told = BTreeSet::new();
        let mut circles = Vec::new();
        for (&module, all) in &reached {
            let circle: Vec<&Path> =
                all.iter().copied().filter(|other| reached[other].contains(module)).collect();
            if circle.len() < 2 || !told.insert(circle.clone()) {
                continue;
            }
            let uses = circle.iter().map(|one| {
                let others = arrows[one].iter().filter(|other| circle.contains(other));
                format!(
                    "{} uses {}",
                    one.join("::"),
                    others.map(|o| o.join("::")).collect::<Vec<_>>().join(", ")
                )
            });
            circles.push(uses.collect::<Vec<_>>().join("; "));
        }
        circles
    }

    /// The files that one uses, but for those around it.
    fn used(&self, module: &Path, file: &File) -> BTreeSet<&Path> {
        let files = file.used.iter().filter_map(|path| self.find(path.clone()));
        files.filter(|found| !module.starts_with(found)).collect()
    }

    /// The file in which a path ends.
    fn find(&self, mut path: Path) -> Option<&Path> {
        // No name is passed on so often.
        for _ in 0..16 {
            let depth = (1..=path.len()).rev().find(|depth| self.files.contains_key(&path[..*depth]))?;
            let (module, file) = self.files.get_key_value(&path[..depth])?;
            match path.get(depth).and_then(|name| file.names.get(name)) {
                Some(further) => path = further.iter().chain(&path[depth + 1..]).cloned().collect(),
                None => return Some(module),
            }
        }
        None
    }
}

/// The module that a file is; none for the roots.
fn module(path: &str) -> Option<Path> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    (!matches!(inside, "main" | "lib")).then(|| inside.split('/').map(str::to_owned).collect())
}

/// The code that is compiled without its tests.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut left = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        left.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let end = body_end(item).or_else(|| item.find(';').map(|at| at + 1));
        rest = &item[end.unwrap_or(item.len())..];
    }
    left + rest
}

fn read(module: &Path, code: &str, files: &BTreeMap<Path, String>) -> File {
    let below: BTreeSet<&str> = files
        .keys()
        .filter(|other| other.len() == module.len() + 1 && other.starts_with(module))
        .filter_map(|other| other.last().map(String::as_str))
        .collect();
    let mut file = File::default();
    let mut plain = code.to_owned();
    for (at, _) in words(code).filter(|(_, word)| *word == "use") {
        let end = code[at..].find(';').map_or(code.len(), |length| at + length);
        for (mut path, name) in paths(&code[at + "use".len()..end]) {
            if absolute(&mut path, module, &below) {
                file.used.insert(path.clone());
                file.names.insert(name, path);
            }
        }
        plain.replace_range(at..end, &" ".repeat(end - at));
    }
    let begins = |at: usize| !plain[..at].ends_with([':', '.']);
    let goes_on = |at: usize, word: &str| plain[at + word.len()..].starts_with("::");
    for (at, _) in words(&plain).filter(|(at, word)| begins(*at) && goes_on(*at, word)) {
        for (mut path, _) in paths(&plain[at..]) {
            if absolute(&mut path, module, &below) {
                file.used.insert(path);
            }
        }
    }
    file
}

/// The paths of a tree such as `a::{b, c::d as e}`, and the name of each.
fn paths(tree: &str) -> Vec<(Path, String)> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        return elements(group).into_iter().flat_map(paths).collect();
    }
    let Some((0, step)) = words(tree).next() else { return Vec::new() };
    let rest = tree[step.len()..].trim_start();
    let step = step.to_owned();
    match rest.strip_prefix("::") {
        Some(inner) => {
            let mut found = paths(inner);
            if found.is_empty() {
                // `a::*`, or `a::<B>`.
                found.push((Vec::new(), step.clone()));
            }
            for (path, name) in &mut found {
                if path.as_slice() == ["self"] {
                    path.clear();
                    name.clone_from(&step);
                }
                path.insert(0, step.clone());
            }
            found
        }
        None => {
            let named = rest.strip_prefix("as ").and_then(|name| words(name).next());
            let name = named.map_or_else(|| step.clone(), |(_, name)| name.to_owned());
            vec![(vec![step], name)]
        }
    }
}

/// Makes a path one from the root. False when it leads out of the package.
fn absolute(path: &mut Path, module: &Path, below: &BTreeSet<&str>) -> bool {
    let ups = path.iter().take_while(|step| *step == "super").count();
    let (leave, around) = match path.first().map(String::as_str) {
        Some("crate") => (1, 0),
        Some("self") => (1, module.len()),
        Some("super") => (ups, module.len().saturating_sub(ups)),
        Some(first) if below.contains(first) => (0, module.len()),
        _ => return false,
    };
    path.splice(..leave, module[..around].iter().cloned());
    true
}

/// Everything that can be got to from one.
fn reach<'a>(from: &'a Path, arrows: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(next) = left.pop() {
        left.extend(arrows[next].iter().copied().filter(|other| reached.insert(*other)));
    }
    reached
}

#[test]
fn circles_are_found_through_names_that_are_passed_on_and_below_folders() {
    let files = [
        (
            "src/a/mod.rs",
            "mod one; mod two; pub use self::{one::One, two::Two as Other}; fn f() { one::g(); }",
        ),
        ("src/a/one.rs", "use super::{Other, Unit}; use crate::b::deep::{self, Three};"),
        ("src/a/two.rs", "use http::{self, one}; fn f(one: super::One) { one.two(); }"),
        ("src/b/mod.rs", "pub mod deep;"),
        (
            "src/b/deep.rs",
            "#[cfg(test)] use crate::a::One; fn f() {} #[cfg(test)] mod tests { use crate::a::One; }",
        ),
        ("src/c.rs", "use crate::d::f;"),
        ("src/d.rs", "pub fn f() { let x = crate::e::Vec::<crate::b::deep::X>::new(); }"),
        ("src/e.rs", "fn g() -> Vec<crate::c::C> { std::c::d() }"),
        ("src/lib.rs", "use crate::a; pub mod a;"),
    ];
    assert_eq!(
        Files::new(files.into_iter()).circles(),
        ["a::one uses a::two; a::two uses a::one", "c uses d; d uses e; e uses c",]
    );
}
