//! Why this user may not read or make a file: its owner, the current user, and what to type.
//!
//! Asks the file system again after the refusal, so the usual case costs nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The intended access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Reading a file that somebody else provides.
    Read,
    /// Making or changing a file of our own.
    Write,
}

/// The same error; for a refused permission with the reason and the remedy.
pub fn explained(path: &Path, need: Need, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    match advice(path, need) {
        Some(advice) => {
            io::Error::new(io::ErrorKind::PermissionDenied, format!("permission denied: {advice}"))
        }
        None => error,
    }
}

/// The owner of the file or folder in the way, and what that user or root would type.
pub fn advice(path: &Path, need: Need) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let (blocker, facts) = path.ancestors().find_map(|known| Some((known, fs::metadata(known).ok()?)))?;
    let (owner, group) = (name("/etc/passwd", facts.uid()), name("/etc/group", facts.gid()));
    let asks = name("/etc/passwd", rustix::process::geteuid().as_raw());
    let remedy = remedy(&Refusal {
        path: &path,
        blocker,
        owner: &owner,
        group: &group,
        group_may: facts.mode() & 0o040 != 0 && is_user(&group),
        asks: &asks,
        need,
    });
    Some(format!(
        "{} belongs to {owner}:{group} (mode {:04o}), and this runs as {asks}{remedy}",
        blocker.display(),
        facts.mode() & 0o7777
    ))
}

/// The facts about a refusal.
struct Refusal<'a> {
    path: &'a Path,
    /// The file, or the parent folder that denies access.
    blocker: &'a Path,
    owner: &'a str,
    group: &'a str,
    /// The group may read it, and has a user of the same name, as services do.
    group_may: bool,
    asks: &'a str,
    need: Need,
}

fn remedy(refusal: &Refusal<'_>) -> String {
    let Refusal { path, blocker, owner, group, group_may, asks, need } = *refusal;
    if asks == "root" || owner == asks {
        return String::new();
    }
    if owner != "root" {
        return format!(". Run it as that user: `sudo -u {owner} portcullis …`");
    }
    if group_may && group != "root" && group != asks {
        return format!(". Run it as the service's user: `sudo -u {group} portcullis …`");
    }
    match (need, missing_folder(path, blocker)) {
        (Need::Write, Some(folder)) => {
            format!(". Make the folder: `sudo install -d -m 0700 -o {asks} {}`", folder.display())
        }
        (Need::Write, None) => {
            // The files of a database are side by side, and have the same prefix.
            let all = if blocker == path { "*" } else { "" };
            let blocker = blocker.display();
            format!(". If an earlier command was run as root, type `sudo chown {asks}: {blocker}{all}`")
        }
        (Need::Read, _) => {
            let right = if blocker == path { "r" } else { "rx" };
            let blocker = blocker.display();
            format!(". Let {asks} read it: `sudo chgrp {asks} {blocker} && sudo chmod g+{right} {blocker}`")
        }
    }
}

/// The folder of the file, if it does not exist yet.
fn missing_folder(path: &Path, blocker: &Path) -> Option<PathBuf> {
    path.parent().filter(|folder| blocker != path && *folder != blocker).map(Path::to_owned)
}

/// The name of a user or a group, or else its number.
fn name(register: &str, id: u32) -> String {
    let found = lines(register).find(|fields| fields.get(2).is_some_and(|field| *field == id.to_string()));
    found.and_then(|fields| fields.into_iter().next()).unwrap_or_else(|| id.to_string())
}

fn is_user(name: &str) -> bool {
    lines("/etc/passwd").any(|fields| fields.first().is_some_and(|field| field == name))
}

fn lines(register: &str) -> impl Iterator<Item = Vec<String>> + use<> {
    let text = fs::read_to_string(register).unwrap_or_default();
    let lines: Vec<Vec<String>> =
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect();
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(path: &str, blocker: &str, owner: &str, group: Option<&str>, need: Need) -> String {
        remedy(&Refusal {
            path: Path::new(path),
            blocker: Path::new(blocker),
            owner,
            group: group.unwrap_or("root"),
            group_may: group.is_some(),
            asks: "portcullis",
            need,
        })
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        let (data, key) = ("/var/lib/portcullis/portcullis.db", "/etc/portcullis/tls/privkey.pem");
        for (typed, says) in [
            // The first command was run as root.
            (
                typed(data, data, "root", None, Need::Write),
                "`sudo chown portcullis: /var/lib/portcullis/portcullis.db*`",
            ),
            (
                typed(data, "/var/lib/portcullis", "root", None, Need::Write),
                "`sudo chown portcullis: /var/lib/portcullis`",
            ),
            (
                typed(data, "/var/lib", "root", None, Need::Write),
                "`sudo install -d -m 0700 -o portcullis /var/lib/portcullis`",
            ),
            // A personal account instead of the service's.
            (typed(data, "/var/lib/portcullis", "iot", None, Need::Write), "`sudo -u iot portcullis …`"),
            (typed(key, key, "root", Some("iot"), Need::Read), "`sudo -u iot portcullis …`"),
            (
                typed(key, key, "root", None, Need::Read),
                "`sudo chgrp portcullis /etc/portcullis/tls/privkey.pem && sudo chmod g+r /etc/portcullis/tls/privkey.pem`",
            ),
            (typed(key, "/etc/portcullis", "root", None, Need::Read), "sudo chmod g+rx /etc/portcullis`"),
        ] {
            assert!(typed.contains(says), "{says}: {typed}");
        }
        // No command is known to help.
        assert_eq!(typed(data, data, "portcullis", None, Need::Write), "");
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        assert_eq!((name("/etc/passwd", 0), name("/etc/group", 0)), ("root".into(), "root".into()));
        assert_eq!(name("/etc/passwd", 3_999_999_999), "3999999999");
        assert!(is_user("root") && !is_user("nobody-of-this-name"));
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let error = explained(Path::new("/x"), Need::Read, io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let denied =
            explained(Path::new("/etc/x"), Need::Read, io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(
            denied.to_string().starts_with("permission denied: /etc belongs to root:root (mode 0755)"),
            "{denied}"
        );
    }
}
