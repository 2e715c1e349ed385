//! The pages for an operator, done line by line in a folder that stands for the machine: programs of the system that would
//! change it are replaced by a few lines, Portcullis is the real one, and in the end a gateway serves.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{
    PROGRAM,
    commands::{arguments, commands, is_shell},
    expect_none,
    page::{Block, Page, root},
    postgres::PostgresServer,
};

/// In the order in which an operator comes to them.
const PAGES: [&str; 5] = ["install", "roll-out", "operations", "help-desk", "troubleshooting"];
/// Done with a PostgreSQL.
const WITH_POSTGRES: &str = "high-availability";
/// What the pages name of the machine, and what is in the folder.
const PLACES: [&str; 5] =
    ["/usr/local/bin", "/var/lib/portcullis", "/etc/portcullis", "/etc/systemd/system", "/etc/letsencrypt"];
const PASSWORD: &str = "correct horse battery staple";

/// What the machine has of its own. Each is a script whose `ROOT` is the folder.
const SYSTEM: [(&str, &str); 8] = [
    ("cargo", "exit 0"),
    ("useradd", "exit 0"),
    ("chown", "exit 0"),
    ("sudo", "shift 2; exec \"$@\""),
    // Without owner and group, who are not here.
    (
        "install",
        "arguments=(); while (($#)); do case $1 in -o|-g) shift 2;; *) arguments+=(\"$1\"); shift;; esac; done
         exec /usr/bin/install \"${arguments[@]}\"",
    ),
    (
        "systemctl",
        "case $1 in
           enable|start) command=$(sed -n 's/^ExecStart=//p' ROOT/etc/systemd/system/portcullis.service)
             command=${command//\\/usr\\/local/ROOT/usr/local}
             setsid ${command//\\/etc\\/portcullis/ROOT/etc/portcullis} >ROOT/journal 2>&1 </dev/null &
             echo $! >ROOT/pid
             for _ in $(seq 600); do portcullis healthcheck --ready >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1;;
           stop) kill $(cat ROOT/pid); while readlink /proc/$(cat ROOT/pid)/exe >/dev/null; do sleep 0.1; done;;
         esac",
    ),
    ("journalctl", "cat ROOT/journal"),
    (
        "systemd-run",
        "export CREDENTIALS_DIRECTORY=ROOT/credentials; mkdir -p ROOT/credentials
         while [[ $1 == --* ]]; do
           case $1 in --property=LoadCredential=*) IFS=: read -r id from <<<\"${1#--property=LoadCredential=}\"
             cp \"$from\" \"ROOT/credentials/$id\";; esac; shift
         done; exec \"$@\"",
    ),
];

/// A folder that stands for the machine.
struct Machine {
    folder: TempDir,
    port: u16,
    admin_port: u16,
    /// What else of the pages is called otherwise here.
    elsewhere: Vec<(&'static str, String)>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            admin_port: free_port(),
            elsewhere: Vec::new(),
        };
        for folder in
            PLACES.iter().chain(&["/bin", "/repository/target/dist", "/etc/letsencrypt/renewal-hooks/deploy"])
        {
            fs::create_dir_all(machine.at(folder)).unwrap();
        }
        for (name, script) in SYSTEM {
            let script = script.replace("ROOT", machine.folder.path().to_str().unwrap());
            machine.executable(&format!("/bin/{name}"), &format!("#!/bin/bash\n{script}\n"));
        }
        // By itself the program looks into /etc, which is not the folder's.
        let file = machine.at("/etc/portcullis/portcullis.toml");
        let wrapper = format!(
            "#!/bin/bash\n[[ \" $* \" == *' --config '* ]] && exec {PROGRAM} \"$@\"\nexec {PROGRAM} --config {} \"$@\"\n",
            file.display()
        );
        machine.executable("/repository/target/dist/portcullis", &wrapper);
        for folder in ["packaging", "certs"] {
            symlink(root().join(folder), machine.at("/repository").join(folder)).unwrap();
        }
        fs::write(
            machine.at("/repository/users.csv"),
            "email,name,groups\ngrace@example.com,Grace,ops;dev\n",
        )
        .unwrap();
        let live = machine.at("/etc/letsencrypt/live/iot.example.com");
        let made =
            machine.run(&format!("certs/make-dev-certs.sh --out {} iot.example.com", live.display()), "");
        assert!(made.status.success(), "{made:?}");
        fs::write(machine.at("/etc/portcullis/sealing.key"), "5e".repeat(32)).unwrap();
        machine
    }

    /// Where a path of the pages is.
    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn executable(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A text of the pages as it has to be for this machine.
    fn here(&self, text: &str) -> String {
        let folder = self.folder.path().to_str().unwrap();
        let moved = PLACES
            .iter()
            .fold(text.to_owned(), |text, place| text.replace(place, &format!("{folder}{place}")));
        let moved = moved.replace("127.0.0.1:9180", &format!("127.0.0.1:{}", self.admin_port));
        self.elsewhere.iter().fold(moved, |text, (from, to)| text.replace(from, to))
    }

    /// Runs a script at a terminal of its own, where `typed` is typed.
    fn run(&self, script: &str, typed: &str) -> Output {
        let file = self.at("/script");
        fs::write(&file, script).unwrap();
        let (own, installed) = (self.at("/bin"), self.at("/usr/local/bin"));
        let inner = format!(
            "PATH={}:{}:$PATH bash -euo pipefail {}",
            own.display(),
            installed.display(),
            file.display()
        );
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--echo", "never", "--command", &inner, "/dev/null"]);
        terminal.env("PORTCULLIS_SERVER__LISTEN", format!("127.0.0.1:{}", self.port));
        terminal.env("PORTCULLIS_SERVER__ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin_port));
        terminal
            .current_dir(self.at("/repository"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = terminal.spawn().unwrap();
        // What asks nothing may have ended by now.
        let _ = running.stdin.take().unwrap().write_all(typed.as_bytes());
        running.wait_with_output().unwrap()
    }

    /// Does what a block says: saves it where its introduction says, or runs it.
    fn follow(&self, block: &Block) -> Option<Output> {
        if let Some(path) = saved_as(&block.introduction) {
            self.executable(path, &self.here(&block.text));
            return None;
        }
        let sealing = block.text.contains("sealing-key remove KEY").then(|| self.sealing_key());
        let text = self.here(&block.text);
        let text = sealing
            .as_ref()
            .map_or_else(|| text.clone(), |key| text.replace("remove KEY", &format!("remove {key}")));
        Some(self.run(&text, &typed(&text)))
    }

    fn sealing_key(&self) -> String {
        let listed = self.run("portcullis sealing-key list --json", "");
        let text = String::from_utf8(listed.stdout).unwrap();
        let facts: serde_json::Value =
            serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
        facts[0]["key"].as_str().unwrap().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.at("/pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The file that the paragraph before a block says to save it as.
fn saved_as(introduction: &str) -> Option<&str> {
    let (_, rest) = introduction.split_once("ave ")?;
    let (_, path) = rest.split_once("as `")?;
    path.split_once('`').map(|(path, _)| path).filter(|path| path.starts_with('/'))
}

/// What the commands of a script ask for, line by line.
fn typed(script: &str) -> String {
    let twice = format!("{PASSWORD}\n{PASSWORD}\n");
    let asked = |words: &Vec<String>| {
        let arguments = arguments(words)?;
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            _ if has("--yes") || has("--password-stdin") => None,
            ["user", "add" | "set-password", ..] => Some(twice.clone()),
            ["session", "revoke", "--all"] => Some("all\n".to_owned()),
            ["sealing-key", "remove", key] => Some(format!("{key}\n")),
            _ => None,
        }
    };
    commands(script).iter().filter_map(asked).collect()
}

/// Does what the blocks of a page say, and gives what failed.
fn follow_page(machine: &Machine, page: &str) -> (Vec<String>, usize) {
    let blocks = Page::read(Path::new(&format!("docs/{page}.md"))).blocks();
    let done = blocks.iter().filter(|block| block.not_run.is_none());
    let done = done.filter(|block| is_shell(&block.language) || saved_as(&block.introduction).is_some());
    let (mut breaches, mut count) = (Vec::new(), 0);
    for block in done {
        count += 1;
        if let Some(output) = machine.follow(block).filter(|output| !output.status.success()) {
            breaches.push(format!("{}: {}", block.place, String::from_utf8_lossy(&output.stdout)));
        }
    }
    (breaches, count)
}

#[test]
fn an_operator_who_does_what_the_pages_say_has_a_gateway() {
    let machine = Machine::new();
    let (mut breaches, mut count) = (Vec::new(), 0);
    for page in PAGES {
        let (failed, done) = follow_page(&machine, page);
        breaches.extend(failed);
        count += done;
        if page == "install" {
            expect_none(&breaches, "a block of shell does what its page says");
            serves(&machine);
        }
    }
    expect_none(&breaches, "a block of shell does what its page says");
    assert!(count > 14, "only {count} blocks were done");
}

#[test]
fn a_store_moves_to_postgres_as_the_page_says() {
    let mut machine = Machine::new();
    let (breaches, _) = follow_page(&machine, "install");
    expect_none(&breaches, "a block of shell does what its page says");
    let server = PostgresServer::start_encrypted();
    server.require_passwords();
    fs::copy(server.folder().join("ca.pem"), machine.at("/etc/portcullis/postgres-ca.pem")).unwrap();
    fs::write(machine.at("/etc/portcullis/postgres-password"), PASSWORD).unwrap();
    let place = format!("gateway@localhost:{}/", server.port());
    machine.elsewhere = [
        // It would throw away what was typed before it asks. And the superuser of a test's server has the user's name.
        (
            "createuser --pwprompt portcullis",
            format!("psql -qd postgres -c \"CREATE ROLE gateway LOGIN PASSWORD '{PASSWORD}'\""),
        ),
        ("--owner=portcullis", "--owner=gateway".to_owned()),
        ("portcullis@db1.example.com,db2.example.com/", place.clone()),
        ("portcullis@db1.example.com/", place),
        (
            "sudo -u postgres ",
            format!("PGHOST=127.0.0.1 PGPORT={} PGUSER={} ", server.port(), PostgresServer::USER),
        ),
    ]
    .to_vec();
    let (breaches, count) = follow_page(&machine, WITH_POSTGRES);
    expect_none(&breaches, "a block of shell does what its page says");
    assert_eq!(count, 2);

    let blocks = Page::read(Path::new("docs/high-availability.md")).blocks();
    let storage = blocks.iter().find(|block| block.text.starts_with("[storage]\n")).expect("its settings");
    let settings = machine.here(storage.text.trim_start_matches("[storage]\n"));
    let file = machine.at("/etc/portcullis/portcullis.toml");
    let before = fs::read_to_string(&file).unwrap();
    let old = before.lines().find(|line| line.starts_with("database = ")).expect("SQLite's line");
    fs::write(&file, before.replace(old, settings.trim())).unwrap();
    let started = machine.run("systemctl start portcullis; portcullis store status", "");
    assert!(String::from_utf8_lossy(&started.stdout).contains("postgres"), "{started:?}");
    serves(&machine);
}

/// The end of the install page is a gateway that asks for a login, with the users that were added.
fn serves(machine: &Machine) {
    let ready = machine.run(&machine.here("curl -s http://127.0.0.1:9180/ready"), "");
    assert!(String::from_utf8_lossy(&ready.stdout).contains("\"ready\":true"), "{ready:?}");
    let asked = machine.run(
        &format!(
            "curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' -H 'Accept: text/html' \
             --cacert {} --connect-to iot.example.com:443:127.0.0.1:{} https://iot.example.com/",
            machine.at("/etc/letsencrypt/live/iot.example.com/authority.pem").display(),
            machine.port
        ),
        "",
    );
    let asked = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(asked.starts_with("302 https://iot.example.com/.portcullis/login"), "{asked}");
    let users = machine.run("portcullis user list", "");
    let users = String::from_utf8_lossy(&users.stdout).into_owned();
    assert!(users.contains("ada@example.com") && users.contains("grace@example.com"), "{users}");
}

#[test]
fn every_block_of_shell_is_run_or_says_why_not() {
    let pages = Page::all();
    let inside = |page: &&Page| {
        page.path.starts_with("docs") || page.path.parent().is_some_and(|parent| parent == Path::new(""))
    };
    let outside = |page: &&Page| {
        !PAGES.iter().chain(&[WITH_POSTGRES]).any(|name| page.path == Path::new(&format!("docs/{name}.md")))
    };
    let blocks = pages
        .iter()
        .filter(inside)
        .filter(outside)
        .flat_map(Page::blocks)
        .filter(|block| is_shell(&block.language));
    let silent = blocks.filter(|block| block.not_run.is_none()).map(|block| block.place);
    expect_none(
        &silent.collect::<Vec<_>>(),
        "a block of shell is on a page of the walkthrough, or its fence says `not run:`",
    );
}
