//! Blocks parse, and every command of the program that a page names exists, with every flag; and the other way
//! round, `docs/command-line.md` leaves none out.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    PROGRAM, expect_none,
    page::{Page, root},
};

/// What may stand in front of the program in a line of shell.
const IN_FRONT: [&[&str]; 3] =
    [&["sudo", "-u", "portcullis"], &["cargo", "run", "--release", "--"], &["systemd-run"]];
/// Flags that go with every command.
const EVERYWHERE: [&str; 4] = ["--config", "--json", "--help", "--version"];

pub(crate) fn is_shell(language: &str) -> bool {
    matches!(language, "sh" | "bash")
}

#[test]
fn every_block_is_parsed_by_its_language() {
    let python = ["python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())"];
    let mut breaches = Vec::new();
    let mut count = 0;
    for block in Page::all().iter().flat_map(Page::blocks) {
        let parser: &[&str] = match block.language.as_str() {
            "sh" | "bash" => &["bash", "-n"],
            "python" => &python,
            "js" => &["node", "--input-type=module", "--check", "-"],
            // Drawings, settings, and what is typed elsewhere.
            "" | "toml" | "text" => continue,
            language => {
                breaches.push(format!("{}: nothing parses {language}", block.place));
                continue;
            }
        };
        count += 1;
        let mut command = Command::new(parser[0]);
        command.args(&parser[1..]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut parsing = command.spawn().unwrap();
        parsing.stdin.take().unwrap().write_all(block.text.as_bytes()).unwrap();
        let ended = parsing.wait_with_output().unwrap();
        if !ended.status.success() {
            breaches.push(format!("{}: {}", block.place, String::from_utf8_lossy(&ended.stderr)));
        }
    }
    expect_none(&breaches, "a block is of its language");
    assert!(count > 15, "only {count} blocks were found");
}

#[test]
fn every_file_that_a_block_of_shell_runs_is_in_the_repository() {
    let mut breaches = Vec::new();
    for block in Page::all().iter().flat_map(Page::blocks).filter(|block| is_shell(&block.language)) {
        for word in commands(&block.text).iter().filter_map(|words| words.first()) {
            let ours = ["tests/", "benches/", "fuzz/", "packaging/", "certs/", ".ci/"];
            if ours.iter().any(|folder| word.starts_with(folder)) && !root().join(word).is_file() {
                breaches.push(format!("{}: {word}", block.place));
            }
        }
    }
    expect_none(&breaches, "what a page runs is there");
}

#[test]
fn every_command_of_a_page_exists() {
    let mut named: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    for page in Page::all() {
        for block in page.blocks().iter().filter(|block| is_shell(&block.language)) {
            let ours = commands(&block.text).into_iter().filter_map(|words| arguments(&words));
            named.extend(ours.map(|arguments| (block.place.clone(), arguments)));
        }
        for (line, code) in page.quoted() {
            let words = words(&code.replace("\\|", " "));
            if let Some(arguments) = arguments(&words) {
                named.insert((format!("{}:{line}", page.path.display()), arguments));
            }
        }
    }
    let mut breaches = Vec::new();
    for (place, arguments) in &named {
        let answer = help(arguments);
        if !answer.status.success() {
            breaches.push(format!("{place}: {arguments:?}: {}", String::from_utf8_lossy(&answer.stderr)));
        }
    }
    expect_none(&breaches, "a command that a page names is one of the program");
    assert!(named.len() > 50, "only {} commands were found", named.len());
}

#[test]
fn the_reference_names_every_command_with_every_flag() {
    let page = Page::read(Path::new("docs/command-line.md"));
    let rows: Vec<Vec<String>> =
        page.quoted().filter_map(|(_, code)| arguments(&words(&code.replace("\\|", " ")))).collect();
    let mut breaches = Vec::new();
    let mut left = vec![Vec::new()];
    let mut count = 0;
    while let Some(command) = left.pop() {
        let answer = help(&command);
        let help = String::from_utf8(answer.stdout).unwrap();
        let below = subcommands(&help);
        if below.is_empty() {
            count += 1;
            let rows: Vec<_> = rows.iter().filter(|row| row.starts_with(&command)).collect();
            let flags = flags(&help).into_iter().filter(|flag| !rows.iter().any(|row| row.contains(flag)));
            let missing = flags.collect::<Vec<_>>().join(" ");
            if rows.is_empty() || !missing.is_empty() {
                breaches.push(format!("{} {missing}", command.join(" ")));
            }
        }
        left.extend(below.into_iter().map(|name| [command.clone(), vec![name]].concat()));
    }
    expect_none(&breaches, "docs/command-line.md has every command with every flag");
    assert!(count > 20, "only {count} commands were found");
}

/// What the program answers to `--help` behind a command; it refuses what it does not know.
fn help(command: &[String]) -> Output {
    Command::new(PROGRAM).args(command).arg("--help").output().expect("the program runs")
}

/// The names under `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The description of a name may go on in a line that is further in.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The long flags under `Options:` in a help text, but for those of every command.
fn flags(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Options:").map(str::trim_start);
    let named = listed
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("--")));
    named.filter(|flag| !EVERYWHERE.contains(flag)).map(str::to_owned).collect()
}

/// The simple commands of a script, each as its words. Knows as much of shell as our pages need: comments, quotes, lines
/// that go on, `&&`, `|`, `;`, and that what stands in a here-document is none of it.
pub(crate) fn commands(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let mut commands = Vec::new();
    let mut until: Option<&str> = None;
    for line in script.lines() {
        if let Some(end) = until {
            until = (line != end).then_some(end);
            continue;
        }
        let here = line.split_once("<<").map(|(_, rest)| rest.trim_start_matches(['-', '\'']));
        until = here.map(|rest| rest.split(['\'', ' ']).next().unwrap_or_default());
        let words = words(line);
        commands
            .extend(words.split(|word| matches!(word.as_str(), "&&" | "|" | ";" | "||")).map(<[_]>::to_vec));
    }
    commands.retain(|words| !words.is_empty());
    commands
}

/// The words of a line, without quotes, up to a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, ';') => {
                words.extend(word.take());
                words.push(";".to_owned());
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// The arguments of a command that runs the program; of a synopsis as well, with what is optional in it.
pub(crate) fn arguments(words: &[String]) -> Option<Vec<String>> {
    let mut words: &[String] = words;
    for front in IN_FRONT {
        if words.len() >= front.len() && words.iter().zip(front).all(|(word, expected)| word == expected) {
            words = &words[front.len()..];
            if front == ["cargo", "run", "--release", "--"] {
                return Some(words.to_vec());
            }
            // Flags of systemd-run.
            let flags = words.iter().take_while(|word| word.starts_with("--")).count();
            words = &words[flags..];
        }
    }
    let (program, rest) = words.split_first()?;
    (program == "portcullis").then(|| {
        let plain =
            rest.iter().map(|word| word.replace(['[', ']', '…'], "").trim_end_matches('>').to_owned());
        plain.filter(|word| !word.is_empty()).collect()
    })
}

#[test]
fn the_reader_finds_the_commands_of_a_script() {
    let script = "sudo -u portcullis portcullis user add ada@example.com --name \"Ada Lovelace\"  # the first\n\
                  chown root:portcullis x && portcullis check | less; portcullis \\\n  serve\n\
                  python3 - <<'PY'\nportcullis nonsense\nPY\nsystemctl stop portcullis\n\
                  systemd-run --pipe --uid=portcullis portcullis --json user list";
    let found: Vec<_> = commands(script).iter().filter_map(|words| arguments(words)).collect();
    let expected: [&[&str]; 4] = [
        &["user", "add", "ada@example.com", "--name", "Ada Lovelace"],
        &["check"],
        &["serve"],
        &["--json", "user", "list"],
    ];
    assert_eq!(found, expected);
    let synopsis = words("portcullis device remove EMAIL [--yes] [--group GROUP]…");
    assert_eq!(arguments(&synopsis).unwrap(), ["device", "remove", "EMAIL", "--yes", "--group", "GROUP"]);
}
