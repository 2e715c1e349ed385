//! `docs/promises.md` has a row for each promise, `docs/asvs.md` one for each requirement, and what a row says shows it is there.

use std::fs;

use super::{expect_none, root};

/// How many promises each letter has.
const PROMISED: [(&str, usize); 3] = [("S", 15), ("R", 14), ("X", 9)];

struct Row {
    id: String,
    shown_by: String,
    figure: String,
    date: String,
}

/// `| **S1** words | shown by | figure | date |`
fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page of promises is there");
    let row = |line: &str| {
        let (id, rest) = line.strip_prefix("| **")?.split_once("**")?;
        let mut cells = rest.trim_end_matches('|').split(" | ").skip(1).map(|cell| cell.trim().to_owned());
        let mut cell = || cells.next().unwrap_or_default();
        Some(Row { id: id.to_owned(), shown_by: cell(), figure: cell(), date: cell() })
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn every_promise_has_a_row_that_names_what_shows_it() {
    let rows = rows();
    let mut breaches = Vec::new();
    for (letter, count) in PROMISED {
        for id in (1..=count).map(|number| format!("{letter}{number}")) {
            match rows.iter().filter(|row| row.id == id).count() {
                1 => {}
                rows => breaches.push(format!("{id} has {rows} rows")),
            }
        }
    }
    for row in &rows {
        let not_yet = row.figure.starts_with("not in this version");
        if row.figure.is_empty() || (row.date.is_empty() && !not_yet) {
            breaches.push(format!("{}: no figure, or no date", row.id));
        }
        let shown: Vec<&str> = row.shown_by.split('`').skip(1).step_by(2).collect();
        let page = row.shown_by.split_once("](").and_then(|(_, link)| link.split_once(')'));
        let page = page.is_some_and(|(page, _)| root().join("docs").join(page).exists());
        if shown.is_empty() && !page && !not_yet {
            breaches.push(format!("{}: nothing shows it", row.id));
        }
        let missing = shown.into_iter().filter(|what| !is_there(what));
        breaches.extend(missing.map(|what| format!("{}: there is no `{what}`", row.id)));
    }
    expect_none(&breaches, "docs/promises.md has a row for each promise, with a command or tests that exist");
}

#[test]
fn every_row_of_asvs_that_is_done_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/asvs.md")).expect("the page of ASVS is there");
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| 6.") || line.starts_with("| 7.")).collect();
    let mut breaches = Vec::new();
    for row in &rows {
        let tests: Vec<&str> =
            row.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")).collect();
        if row.contains(" | done | ") == tests.is_empty() {
            breaches.push(format!("done without a test, or a test without being done: {row}"));
        }
        breaches.extend(
            tests.into_iter().filter(|test| !is_there(test)).map(|test| format!("there is no `{test}`")),
        );
    }
    let done = rows.iter().filter(|row| row.contains(" | done | ")).count();
    let not_done = rows.iter().filter(|row| row.contains(" | **not done** | ")).count();
    let all = format!("| all | {} | {done} | {not_done} | {} |", rows.len(), rows.len() - done - not_done);
    if !page.contains(&all) {
        breaches.push(format!("its counts are not {all}"));
    }
    expect_none(&breaches, "docs/asvs.md says which test shows each row, and counts them");
}

/// A command of this repository by its path, a test by `module::name`, or all tests of a module by `module::`.
fn is_there(what: &str) -> bool {
    let Some((module, test)) = what.rsplit_once("::") else {
        let command = what.split_whitespace().next().unwrap_or_default();
        return command.starts_with(|first: char| first.is_uppercase()) || root().join(command).exists();
    };
    let module = module.replace("::", "/");
    let places = ["tests/gateway", "tests/alone", "src"].map(|room| root().join(room).join(&module));
    let files = places.iter().flat_map(|place| {
        [place.with_extension("rs"), place.join("mod.rs"), place.join("tests.rs"), place.join("tests/mod.rs")]
    });
    files
        .filter_map(|file| fs::read_to_string(file).ok())
        .any(|text| test.is_empty() || text.contains(&format!("fn {test}(")))
}
