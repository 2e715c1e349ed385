//! What the documentation says is so: links lead somewhere, commands and settings are those of the program.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of the documentation, by its path from the root of the package.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// The lines outside fenced blocks.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        (1..).zip(self.text.lines()).filter(move |(_, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }

    /// What a link can name of this page, the way GitHub makes it of headings.
    fn anchors(&self) -> BTreeSet<String> {
        let heading = |line: &str| line.trim_start_matches('#').strip_prefix(' ').map(anchor);
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings.filter_map(|(_, line)| heading(line)).collect()
    }

    /// The targets of the links of this page, each with its line.
    fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        let targets = |line| str::split(line, "](").skip(1).filter_map(|rest| rest.split_once(')'));
        self.prose().flat_map(move |(at, line)| targets(line).map(move |(target, _)| (at, target)))
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn pages() -> Vec<Page> {
    let folders = ["", "docs", "benches", "tests/browser", "tests/portals"];
    let entries =
        folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder of ours"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page is text");
        Page { path: path.strip_prefix(root()).expect("a page of ours").to_owned(), text }
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut breaches = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (line, target) in page.links().filter(|(_, target)| !target.contains("://")) {
            count += 1;
            if let Some(fault) = fault_of(&pages, page, target) {
                breaches.push(format!("{}:{line}: {target}: {fault}", page.path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "links that lead nowhere:\n  {}", breaches.join("\n  "));
    assert!(count > 50, "only {count} links were found");
}

/// Why a link leads nowhere.
fn fault_of(pages: &[Page], from: &Page, target: &str) -> Option<&'static str> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = from.path.parent().expect("a file is in a folder");
    let path = if file.is_empty() { from.path.clone() } else { plain(&folder.join(file)) };
    if !root().join(&path).exists() {
        return Some("no such file");
    }
    let anchor = anchor?;
    match pages.iter().find(|page| page.path == path) {
        Some(page) => (!page.anchors().contains(anchor)).then_some("no such heading"),
        None => Some("a heading of what is no page"),
    }
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for step in path {
        if step == ".." {
            plain.pop();
        } else {
            plain.push(step);
        }
    }
    plain
}

#[test]
fn every_page_is_in_the_index() {
    let pages = pages();
    let index =
        pages.iter().find(|page| page.path == Path::new("docs/README.md")).expect("there is an index");
    let listed: BTreeSet<_> = index.links().map(|(_, target)| Path::new("docs").join(target)).collect();
    let inside = pages.iter().filter(|page| page.path.starts_with("docs") && page.path != index.path);
    let missing: Vec<_> = inside.map(|page| &page.path).filter(|path| !listed.contains(*path)).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}
