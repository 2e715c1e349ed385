//! The layers of the configuration: files, then environment, then flags, each overriding the one before; and the faults
//! in them.
//!
//! Every fault is found in one run: a value that cannot be read is reported and removed, and the rest is read again.

use std::{
    ffi::OsString,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind,
    value::{Dict, Map, Value},
};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    Flag,
    key_path::{find, find_mut, shown, steps, take_out},
    kinds::{in_words, kind_of},
    known::{PREFIX, instead_of, suggestion},
    masking::mask,
    problems::{Location, Position, Problem, Problems, Severity},
    site_scope::SiteScope,
    slips,
    source::{SourceFile, parse_value},
    values::{Parsed, Secret},
};
use crate::permission::{Need, explained};

/// The prefix of a path that names a systemd credential.
const CREDENTIAL: &str = "credential:";
/// The variable with the folder of systemd's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// All layers, merged, and the problems found so far.
pub(super) struct Layers {
    files: Vec<SourceFile>,
    merged: Figment,
    values: Value,
    problems: Vec<Problem>,
    /// The folder of the service's credentials.
    credentials: Option<PathBuf>,
    /// Ranges of a file that must not be shown, besides the secrets recognised by their keys.
    hidden: Vec<(PathBuf, Range<usize>)>,
    /// A file cannot be read or is not TOML: a missing key may only be illegible.
    illegible: bool,
    /// The site whose keys are being read; `None`: the first site, or keys of no site.
    site: Option<SiteScope>,
}

/// One layer for figment.
struct Layer {
    source: Source,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::from("configuration", self.source.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

impl Layers {
    pub(super) fn gather(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Self {
        let mut layers = Self {
            files: Vec::new(),
            merged: Figment::new(),
            values: Value::from(Dict::new()),
            problems: Vec::new(),
            credentials: None,
            hidden: Vec::new(),
            illegible: false,
            site: None,
        };
        for path in files {
            layers.add_file(path);
        }
        let mut variables = Vec::new();
        for (name, value) in environment {
            if name == CREDENTIALS_DIRECTORY {
                layers.credentials = Some(PathBuf::from(&value)).filter(|folder| folder.is_absolute());
            }
            variables.extend(ours((name, value)));
        }
        variables.sort();
        for (name, value) in variables {
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            match value.into_string() {
                Ok(value) => layers.add_setting(&name, &key, value),
                Err(_) => {
                    layers.note(Severity::Fault, key, Location::Setting(name), "is not valid UTF-8".into());
                }
            }
        }
        for Flag { name, key, value } in flags {
            layers.add_setting(name, key, value.clone());
        }
        let values = layers.merged.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default));
        layers.values = Value::from(values.unwrap_or_default());
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let file = match SourceFile::read(path) {
            Ok(file) => file,
            Err(reason) => {
                let reason = explained(path, Need::Read, reason);
                let place = Location::File { path: path.into(), position: None };
                self.illegible = true;
                return self.note(
                    Severity::Fault,
                    String::new(),
                    place,
                    format!("cannot read the file: {reason}"),
                );
            }
        };
        let (values, faults) = file.values();
        for fault in faults {
            let at = fault.span().map_or(0, |span| span.start);
            let position = fault.span().map(|span| Position::new(file.text(), span));
            let place = Location::File { path: path.into(), position };
            // A second fault in the same line follows from the first.
            if !self.problems.iter().any(|earlier| same_line(&earlier.place, &place)) {
                let message = slips::explained(file.text(), at, fault.message());
                self.note(Severity::Fault, String::new(), place, message);
            }
            self.illegible = true;
        }
        self.merge(Source::File(path.into()), values);
        self.files.push(file);
    }

    fn add_setting(&mut self, name: &str, key: &str, value: String) {
        let mut steps = key.rsplit('.');
        let leaf = steps.next().unwrap_or_default().to_owned();
        let values = steps.fold(Dict::from([(leaf, Value::from(value))]), |inner, step| {
            Dict::from([(step.to_owned(), Value::from(inner))])
        });
        self.merge(Source::Custom(name.to_owned()), values);
    }

    fn merge(&mut self, source: Source, values: Dict) {
        self.merged = std::mem::take(&mut self.merged).merge(Layer { source, values });
    }

    /// Reads all values into a struct, and reports each that does not fit.
    pub(super) fn read<T: DeserializeOwned + Default>(&mut self) -> T {
        self.read_from(self.values.clone())
    }

    /// The same for one site: keys are the site's from then on, until [`Self::leave_site`].
    pub(super) fn read_site<T: DeserializeOwned + Default>(&mut self, site: SiteScope) -> T {
        let values = site.values(&self.values);
        self.site = Some(site);
        self.read_from(values)
    }

    /// From here on keys belong to no single site.
    pub(super) fn leave_site(&mut self) -> Option<SiteScope> {
        self.site.take()
    }

    pub(super) fn enter_site(&mut self, site: Option<SiteScope>) {
        self.site = site;
    }

    /// The entries of `[[sites]]`, as written; a variable may hold all of them.
    pub(super) fn sites(&self) -> Vec<Value> {
        let listed = match find(&self.values, &steps("sites")) {
            (Value::String(_, text), 1) => parse_value(text),
            (value, 1) => Some(value.clone()),
            _ => None,
        };
        listed.and_then(Value::into_array).unwrap_or_default()
    }

    fn read_from<T: DeserializeOwned + Default>(&mut self, mut values: Value) -> T {
        loop {
            let error = match T::deserialize(&values) {
                Ok(read) => return read,
                Err(error) => error,
            };
            if self.read_setting_as_toml(&mut values, &error.path) {
                continue;
            }
            self.note_misfit::<T>(&error);
            if !take_out(&mut values, &error.path) {
                return T::default();
            }
        }
    }

    /// A variable's or flag's text is first taken as it is, so that a password may be all digits. Where text does not
    /// fit, it is parsed as TOML: a number, a boolean, a list. Returns whether that changed anything.
    fn read_setting_as_toml(&self, values: &mut Value, path: &[String]) -> bool {
        let Some(value) = find_mut(values, path) else { return false };
        if !matches!(self.source_of(value), Some(Source::Custom(_))) {
            return false;
        }
        let parsed = value.as_str().and_then(parse_value).filter(|parsed| parsed.as_str().is_none());
        parsed.map(|parsed| *value = parsed).is_some()
    }

    fn note_misfit<T: DeserializeOwned>(&mut self, error: &figment::Error) {
        let unknown = matches!(error.kind, Kind::UnknownField(..));
        let (path, inherited) = self.located(error.path.clone());
        if inherited {
            // That fault has been reported where it is.
            return;
        }
        let place = self.place(&path, unknown);
        if unknown {
            self.hide_value(&path);
        }
        let message = match &error.kind {
            Kind::Message(message) => message.clone(),
            Kind::UnknownField(name, known) if self.site.is_some() => {
                let own = if path.len() == 3 { SiteScope::KEYS } else { &[] };
                format!("unknown key; {}", suggestion(name, &[known, own].concat()))
            }
            Kind::UnknownField(name, known) => {
                let variable = match &place {
                    Location::Setting(name) => Some(name.as_str()),
                    Location::File { .. } | Location::Nowhere => None,
                };
                format!("unknown key; {}", instead_of::<T>(name, known, variable))
            }
            Kind::UnknownVariant(name, known) => {
                format!("`{name}` is not known; {}", suggestion(name, known))
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                format!("expected {}, found {}", in_words(expected), kind_of(found))
            }
            other => other.to_string(),
        };
        let message = self.said_of_site(message);
        self.note(Severity::Fault, shown(&path), place, message);
    }

    /// Where a key is written that may be a site's, and whether the site inherits it from the first.
    fn located(&self, path: Vec<String>) -> (Vec<String>, bool) {
        match &self.site {
            Some(site) => site.locate(path),
            None => (path, false),
        }
    }

    /// Whether the site itself sets this key instead of inheriting it.
    pub(super) fn locates_at_site(&self, key: &str) -> bool {
        self.site.is_some() && !self.located(steps(key)).1
    }

    fn said_of_site(&self, message: String) -> String {
        match &self.site {
            Some(site) => site.say(&message),
            None => message,
        }
    }

    fn has_noted(&self, severity: Severity, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.severity == severity && problem.key == key)
    }

    fn note(&mut self, severity: Severity, key: String, place: Location, message: String) {
        // A fault in a line that is not TOML follows from just that.
        let no_toml = |earlier: &Problem| earlier.key.is_empty() && same_line(&earlier.place, &place);
        if !key.is_empty() && self.problems.iter().any(no_toml) {
            return;
        }
        self.problems.push(Problem { severity, key, place, message });
    }

    /// Reports a fault at a key; the message says what to write instead.
    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        let (path, inherited) = self.located(steps(key));
        if inherited && self.has_noted(Severity::Fault, &shown(&path)) {
            return;
        }
        let place = self.place(&path, false);
        let message = self.said_of_site(message.into());
        self.note(Severity::Fault, shown(&path), place, message);
    }

    /// Reports a missing required key, unless another fault already explains it.
    pub(super) fn missing(&mut self, key: &str, wanted: &str) {
        if !self.illegible && self.sound(&[key]) {
            self.fault(key, format!("is missing; {wanted}"));
        }
    }

    /// Reports a setting that works but is probably not meant.
    pub(super) fn warn(&mut self, key: &str, message: impl Into<String>) {
        let (path, inherited) = self.located(steps(key));
        if inherited {
            // A setting without effect at one site may have one at the next.
            return;
        }
        let place = self.place(&path, false);
        let message = self.said_of_site(message.into());
        self.note(Severity::Warning, shown(&path), place, message);
    }

    /// Whether there is no fault at these keys, in them or around them. A rule between keys makes no sense if one of
    /// them could not be read.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let keys: Vec<String> = keys
            .iter()
            .flat_map(|key| match &self.site {
                Some(site) => site.both(key),
                None => vec![(*key).to_owned()],
            })
            .collect();
        let mut faults = self.problems.iter().filter(|problem| problem.severity == Severity::Fault);
        !faults.any(|fault| keys.iter().any(|key| within(&fault.key, key) || within(key, &fault.key)))
    }

    /// Whether any layer sets this key or something in this table.
    pub(super) fn says(&self, key: &str) -> bool {
        let (path, inherited) = self.located(steps(key));
        let is_of_site = !inherited && self.site.as_ref().is_some_and(|site| site.says(key));
        is_of_site || find(&self.values, &path).1 == path.len()
    }

    /// Resolves a path. In a file, a relative path is relative to that file's folder, and so is a default if there is a
    /// file; in variables and flags it is relative to the working directory. `credential:NAME` is a systemd credential.
    pub(super) fn resolve(&mut self, key: &str, path: &Path) -> PathBuf {
        if let Some(name) = credential_name(path) {
            return self.credential(key, name).unwrap_or_default();
        }
        let file =
            if self.says(key) { self.file_of(key) } else { self.files.first().map(|file| &*file.path) };
        file.and_then(Path::parent).map_or_else(|| path.into(), |folder| folder.join(path))
    }

    fn credential(&mut self, key: &str, name: &str) -> Option<PathBuf> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            self.fault(key, format!("`{CREDENTIAL}` takes the name of a credential, without a folder"));
            return None;
        }
        let remedy = format!("give its unit `LoadCredential={name}:/path/of/the/file`");
        let Some(folder) = &self.credentials else {
            self.fault(
                key,
                format!("there are no credentials: ${CREDENTIALS_DIRECTORY} is not set; run this under systemd and {remedy}"),
            );
            return None;
        };
        let path = folder.join(name);
        if !path.exists() {
            self.fault(key, format!("the service has no credential `{name}`; {remedy}"));
            return None;
        }
        Some(path)
    }

    /// Where a key is written, for messages: file and line, or a variable.
    pub(super) fn written_at(&self, key: &str) -> String {
        let (path, _) = self.located(steps(key));
        match self.place(&path, false) {
            Location::File { path, position } => {
                let path = std::path::absolute(&path).unwrap_or(path);
                let line = position.map_or_else(String::new, |position| format!(":{}", position.line));
                format!("{}{line}", path.display())
            }
            Location::Setting(name) => name,
            Location::Nowhere => shown(&path),
        }
    }

    /// The file that sets a key; `None` if a variable or a flag does, or nothing.
    pub(super) fn file_of(&self, key: &str) -> Option<&Path> {
        let (path, _) = self.located(steps(key));
        let value = self.says(key).then(|| find(&self.values, &path).0)?;
        self.source_of(value).and_then(Source::file_path)
    }

    /// The secret in a key or in its `_file` twin.
    pub(super) fn secret(
        &mut self,
        key: &str,
        inline: Option<Parsed<Secret>>,
        file: Option<Parsed<PathBuf>>,
    ) -> Option<SecretString> {
        let twin = format!("{key}_file");
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.fault(&twin, format!("`{key}` is set as well; keep one of the two"));
                None
            }
            (Some(Parsed(Secret(secret))), None) => Some(secret),
            (None, Some(Parsed(path))) => {
                let path = self.resolve(&twin, &path);
                match std::fs::read_to_string(&path).map(Zeroizing::new) {
                    Ok(text) => self.secret_in_file(&twin, &path, &text),
                    Err(reason) => {
                        let reason = explained(&path, Need::Read, reason);
                        self.fault(&twin, format!("cannot read {}: {reason}", path.display()));
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }

    fn secret_in_file(&mut self, key: &str, path: &Path, text: &str) -> Option<SecretString> {
        if is_public(path) {
            self.warn(
                key,
                format!("everyone on this machine can read it; run `chmod o-r {}`", path.display()),
            );
        }
        let secret = text.strip_suffix('\n').unwrap_or(text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            self.fault(key, format!("{} is empty", path.display()));
            return None;
        }
        Some(SecretString::from(secret))
    }

    /// All problems: those that stop the start, and the warnings.
    pub(super) fn finish(self) -> (Problems, Problems) {
        let shown = |file: &SourceFile| {
            let hidden = self.hidden.iter().filter(|(path, _)| *path == file.path);
            let hidden: Vec<_> = hidden.map(|(_, range)| range.clone()).collect();
            (file.path.clone(), mask(file.text(), &hidden))
        };
        let sources: Vec<_> = self.files.iter().map(shown).collect();
        let (faults, warnings) =
            self.problems.into_iter().partition(|problem| problem.severity == Severity::Fault);
        (Problems::new(faults, sources.clone()), Problems::new(warnings, sources))
    }

    /// A misspelt key may be that of a secret: its value is not shown.
    fn hide_value(&mut self, path: &[String]) {
        for file in &self.files {
            let spot = file.locate(path).filter(|spot| spot.depth == path.len());
            // The span of a table with a header is that header, which can be shown.
            if let Some(spot) = spot.filter(|spot| spot.value.start >= spot.key.end) {
                self.hidden.push((file.path.clone(), spot.value));
            }
        }
    }

    fn source_of(&self, value: &Value) -> Option<&Source> {
        self.merged.get_metadata(value.tag()).and_then(|layer| layer.source.as_ref())
    }

    /// Where a key is written or, if it is missing, where its table is.
    fn place(&self, path: &[String], at_key: bool) -> Location {
        let (value, depth) = find(&self.values, path);
        // A table may come from several layers, a value from one, even if the path continues below it.
        let written = !matches!(value, Value::Dict(..)) || depth == path.len();
        let source = self.source_of(value).filter(|_| written);
        if let Some(Source::Custom(name)) = source {
            return Location::Setting(name.clone());
        }
        let only = source.and_then(Source::file_path);
        let files = self.files.iter().filter(|file| only.is_none_or(|path| path == file.path));
        let spots = files.map(|file| (file, file.locate(path)));
        let deepest = spots.max_by_key(|(_, spot)| spot.as_ref().map_or(0, |spot| spot.depth));
        let Some((file, spot)) = deepest else { return Location::Nowhere };
        let span = spot.map(|spot| if at_key || spot.depth < path.len() { spot.key } else { spot.value });
        let position = span.map(|span| Position::new(file.text(), span));
        Location::File { path: file.path.clone(), position }
    }
}

/// The part of a path after `credential:`.
fn credential_name(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(CREDENTIAL)
}

/// Whether a path names a systemd credential.
pub(super) fn is_credential(path: &Path) -> bool {
    credential_name(path).is_some()
}

/// Whether everyone on this machine can read the file.
pub(super) fn is_public(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// A variable of ours whose name is valid Unicode.
pub(super) fn ours((name, value): (OsString, OsString)) -> Option<(String, OsString)> {
    let name = name.into_string().ok()?;
    (name.starts_with(PREFIX) && !is_of_kubernetes(&name)).then_some((name, value))
}

/// Whether Kubernetes sets it in every container next to a service called `portcullis`.
fn is_of_kubernetes(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest == "PORT"
            || rest.starts_with("PORT_")
            || rest.starts_with("SERVICE_HOST")
            || rest.starts_with("SERVICE_PORT")
    })
}

fn same_line(a: &Location, b: &Location) -> bool {
    match (a, b) {
        (Location::File { path: a, position: Some(at) }, Location::File { path: b, position: Some(bt) }) => {
            a == b && at.line == bt.line
        }
        _ => false,
    }
}
