//! Reads pages of Markdown as text, and knows just enough of it: headings, links, fenced blocks, quoted code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of the documentation, by its path from the root of the package.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    text: String,
}

/// A fenced block.
pub(crate) struct Block {
    /// Page and line, for messages.
    pub(crate) place: String,
    pub(crate) language: String,
    /// Why it is not run, where it is not.
    pub(crate) not_run: Option<String>,
    /// The paragraph that introduces it.
    pub(crate) introduction: String,
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(root().join(path)).expect("a page is text");
        Self { path: path.to_owned(), text }
    }

    /// All pages for whoever runs or changes the program.
    pub(crate) fn all() -> Vec<Self> {
        let folders = ["", "docs", "benches", "tests/browser", "tests/portals"];
        let entries =
            folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder of ours"));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
        paths.sort();
        let inside = |path: &PathBuf| Self::read(path.strip_prefix(root()).expect("a page of ours"));
        paths.iter().map(inside).collect()
    }

    /// The lines outside fenced blocks, each with its number.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        (1..).zip(self.text.lines()).filter(move |(_, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }

    /// What a link can name of this page, the way GitHub makes it of headings.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let heading = |line: &str| line.trim_start_matches('#').strip_prefix(' ').map(anchor);
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings.filter_map(|(_, line)| heading(line)).collect()
    }

    /// The targets of the links and pictures of this page, each with its line.
    pub(crate) fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        let between = |line, start, end| {
            str::split(line, start)
                .skip(1)
                .filter_map(move |rest| rest.split_once(end))
                .map(|(target, _)| target)
        };
        let targets = move |line| between(line, "](", ')').chain(between(line, "src=\"", '"'));
        self.prose().flat_map(move |(at, line)| targets(line).map(move |target| (at, target)))
    }

    /// The code that prose quotes, each with its line.
    pub(crate) fn quoted(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose().flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |code| (at, code)))
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = (1..).zip(self.text.lines());
        let mut paragraph = String::new();
        while let Some((at, line)) = lines.next() {
            if let Some(info) = line.strip_prefix("```") {
                let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
                blocks.push(Block {
                    place: format!("{}:{at}", self.path.display()),
                    language: language.to_owned(),
                    not_run: rest.strip_prefix("not run: ").map(str::to_owned),
                    introduction: std::mem::take(&mut paragraph),
                    text: inside.flat_map(|line| [line, "\n"]).collect(),
                });
            } else if !line.is_empty() {
                // A blank line does not end a paragraph here: one stands between it and its block.
                if paragraph.ends_with("\n\n") {
                    paragraph.clear();
                }
                paragraph.extend([line, "\n"]);
            } else {
                paragraph.push('\n');
            }
        }
        blocks
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
