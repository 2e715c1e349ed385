//! Every link leads to a file and a heading, and every page can be found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    expect_none,
    page::{Page, root},
};

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
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
    expect_none(&breaches, "a link leads somewhere");
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
fn the_readme_is_one_screen() {
    let length = fs::read(root().join("README.md")).unwrap().len();
    assert!(length <= 8192, "README.md has {length} bytes; what is longer belongs to docs/");
}

#[test]
fn every_page_is_in_the_index() {
    let pages = Page::all();
    let index =
        pages.iter().find(|page| page.path == Path::new("docs/README.md")).expect("there is an index");
    let listed: BTreeSet<_> = index.links().map(|(_, target)| Path::new("docs").join(target)).collect();
    let inside = pages.iter().filter(|page| page.path.starts_with("docs") && page.path != index.path);
    let missing = inside.map(|page| &page.path).filter(|path| !listed.contains(*path));
    let missing: Vec<_> = missing.map(|path| path.display().to_string()).collect();
    expect_none(&missing, "docs/README.md lists every page");
}

#[test]
fn every_file_and_module_that_a_page_names_exists() {
    let folders = ["src/", "tests/", "docs/", "benches/", "fuzz/", "packaging/", "config/", "certs/", ".ci/"];
    let mut breaches = Vec::new();
    let mut count = 0;
    for page in Page::all() {
        for (line, code) in page.quoted() {
            let path = code.split([' ', ':']).next().unwrap_or_default();
            let missing = if folders.iter().any(|folder| path.starts_with(folder)) {
                !root().join(path).exists()
            } else if page.path == Path::new("CONTRIBUTING.md") && code.contains("::") {
                !is_in_source(code)
            } else {
                continue;
            };
            count += 1;
            if missing {
                breaches.push(format!("{}:{line}: {code}", page.path.display()));
            }
        }
    }
    expect_none(&breaches, "what a page names of the repository is there");
    assert!(count > 50, "only {count} names were found");
}

/// Whether a path such as `web::gate::CanonicalRequest` leads to a module, or to a word in the last module of it. Other
/// paths, such as arguments of a test, are none of ours.
fn is_in_source(path: &str) -> bool {
    let mut steps = path.split("::").filter(|step| !step.is_empty());
    let mut folder = root().join("src");
    let file =
        |at: &Path| [at.with_extension("rs"), at.join("mod.rs")].into_iter().find(|file| file.exists());
    let Some(mut module) = steps.next().map(|step| folder.join(step)).filter(|at| file(at).is_some()) else {
        return true;
    };
    for step in steps {
        folder.clone_from(&module);
        module = folder.join(step);
        if file(&module).is_none() {
            let mut files = vec![file(&folder).expect("it was found before")];
            files.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()));
            return files
                .iter()
                .filter_map(|file| fs::read_to_string(file).ok())
                .any(|text| text.contains(step));
        }
    }
    true
}
