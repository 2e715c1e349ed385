//! Whole dumps of other systems as JSON: Django, Keycloak.

use std::collections::HashMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Entry, ImportFault, ImportedUser, seed, table};
use crate::credentials::{ImportedDevice, StoredHash};

fn parsed<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("this is not {what}: {error}"))
}

#[derive(Deserialize)]
struct DjangoObject {
    model: String,
    #[serde(default)]
    pk: Value,
    fields: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DjangoUser {
    username: String,
    email: String,
    password: String,
    first_name: String,
    last_name: String,
    is_active: Option<bool>,
    groups: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DjangoDevice {
    user: Value,
    name: String,
    confirmed: Option<bool>,
    /// In hexadecimal digits.
    key: String,
    step: Option<u32>,
    digits: Option<u32>,
}

/// A reference by number, or by name where the dump has natural keys.
fn key(value: &Value) -> String {
    match value {
        Value::Array(parts) => parts.first().map(key).unwrap_or_default(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn django(text: &str) -> Result<Vec<Entry>, String> {
    let objects: Vec<DjangoObject> = parsed(text, "what `manage.py dumpdata` writes")?;
    let mut groups = HashMap::new();
    let mut devices: HashMap<String, Vec<Result<ImportedDevice, ImportFault>>> = HashMap::new();
    for object in &objects {
        match object.model.as_str() {
            "auth.group" => {
                groups.insert(key(&object.pk), object.fields["name"].as_str().unwrap_or_default().to_owned());
            }
            "otp_totp.totpdevice" => {
                let device: DjangoDevice = serde_json::from_value(object.fields.clone()).unwrap_or_default();
                if device.confirmed != Some(false) {
                    devices.entry(key(&device.user)).or_default().push(django_device(&device));
                }
            }
            _ => {}
        }
    }
    let users = (1..).zip(objects).filter(|(_, object)| object.fields.get("username").is_some());
    let entry = |(at, object): (u64, DjangoObject)| {
        let user: DjangoUser = match serde_json::from_value(object.fields) {
            Ok(user) => user,
            Err(error) => {
                return Entry { at, email: String::new(), user: Err(ImportFault::Text(error.to_string())) };
            }
        };
        let email = if user.email.is_empty() { user.username.clone() } else { user.email.clone() };
        let own = devices.remove(&key(&object.pk)).or_else(|| devices.remove(&user.username));
        let made = || {
            Ok(ImportedUser {
                email: email.clone(),
                display_name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
                groups: user
                    .groups
                    .iter()
                    .map(|group| groups.get(&key(group)).cloned().unwrap_or_else(|| key(group)))
                    .collect(),
                disabled: user.is_active == Some(false),
                password: table::password(&user.password)?,
                device: only(own.unwrap_or_default())?,
            })
        };
        let user = made();
        Entry { at, email, user }
    };
    Ok(users.map(entry).collect())
}

fn django_device(device: &DjangoDevice) -> Result<ImportedDevice, ImportFault> {
    if device.step.is_some_and(|step| step != 30) || device.digits.is_some_and(|digits| digits != 6) {
        return Err(ImportFault::Text(
            "the authenticator: only six digits every 30 seconds are supported".to_owned(),
        ));
    }
    seed::of_bytes(&seed::hexadecimal(&device.key)?, &device.name)
}

/// The first of several devices: one of them suffices to log in, and the user adds the others again.
fn only(devices: Vec<Result<ImportedDevice, ImportFault>>) -> Result<Option<ImportedDevice>, ImportFault> {
    devices.into_iter().next().transpose()
}

#[derive(Deserialize)]
struct Realm {
    users: Vec<KeycloakUser>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeycloakUser {
    username: String,
    email: String,
    first_name: String,
    last_name: String,
    enabled: Option<bool>,
    groups: Vec<String>,
    credentials: Vec<KeycloakCredential>,
}

/// Two of its fields are JSON once more, as text.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeycloakCredential {
    #[serde(rename = "type")]
    kind: String,
    user_label: Option<String>,
    secret_data: String,
    credential_data: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeycloakSecret {
    value: String,
    salt: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeycloakCosts {
    hash_iterations: u32,
    algorithm: String,
    additional_parameters: HashMap<String, Vec<String>>,
    sub_type: String,
    digits: Option<u32>,
    period: Option<u32>,
    secret_encoding: Option<String>,
}

pub(super) fn keycloak(text: &str) -> Result<Vec<Entry>, String> {
    let realm: Realm = parsed(text, "the export of a realm")?;
    let entry = |(at, user): (u64, KeycloakUser)| {
        let email = if user.email.is_empty() { user.username.clone() } else { user.email.clone() };
        let made = || {
            let of = |kind: &'static str| user.credentials.iter().filter(move |known| known.kind == kind);
            Ok(ImportedUser {
                email: email.clone(),
                display_name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
                groups: user.groups.iter().map(|path| path.trim_start_matches('/').to_owned()).collect(),
                disabled: user.enabled == Some(false),
                password: of("password").next().map(keycloak_password).transpose()?,
                device: only(of("otp").map(keycloak_device).collect())?,
            })
        };
        let user = made();
        Entry { at, email, user }
    };
    Ok((1..).zip(realm.users).map(entry).collect())
}

fn parts(credential: &KeycloakCredential) -> Result<(KeycloakSecret, KeycloakCosts), ImportFault> {
    let malformed =
        |error: serde_json::Error| ImportFault::Text(format!("a credential cannot be read: {error}"));
    Ok((
        serde_json::from_str(&credential.secret_data).map_err(malformed)?,
        serde_json::from_str(&credential.credential_data).map_err(malformed)?,
    ))
}

fn keycloak_password(credential: &KeycloakCredential) -> Result<StoredHash, ImportFault> {
    let (secret, costs) = parts(credential)?;
    let bytes = |text: &str| {
        seed::base64(text).ok_or_else(|| ImportFault::Text("the password: not Base64".to_owned()))
    };
    let (salt, hash) = (bytes(&secret.salt)?, bytes(&secret.value)?);
    let of = |name: &str| costs.additional_parameters.get(name).and_then(|values| values.first()).cloned();
    let text = match costs.algorithm.as_str() {
        // It makes 64 bytes whatever the digest is; with the plain name the digest is SHA-1.
        "pbkdf2" => format!("$pbkdf2${}${salt}${hash}", costs.hash_iterations),
        name @ ("pbkdf2-sha256" | "pbkdf2-sha512") => {
            format!("${name}${}${salt}${hash}", costs.hash_iterations)
        }
        "argon2" => format!(
            "$argon2{}$v=19$m={},t={},p={}${salt}${hash}",
            of("type").unwrap_or_else(|| "id".to_owned()),
            of("memory").unwrap_or_default(),
            costs.hash_iterations,
            of("parallelism").unwrap_or_else(|| "1".to_owned()),
        ),
        other => return Err(ImportFault::Text(format!("the password: {other:?} is not supported"))),
    };
    Ok(StoredHash::parse(&text)?)
}

fn keycloak_device(credential: &KeycloakCredential) -> Result<ImportedDevice, ImportFault> {
    let (secret, costs) = parts(credential)?;
    let is_usual = costs.sub_type == "totp"
        && costs.digits.is_none_or(|digits| digits == 6)
        && costs.period.is_none_or(|period| period == 30)
        && matches!(costs.algorithm.as_str(), "" | "HmacSHA1");
    if !is_usual {
        let text =
            "the authenticator: only time-based codes of SHA-1, six digits and 30 seconds are supported";
        return Err(ImportFault::Text(text.to_owned()));
    }
    let name = credential.user_label.as_deref().unwrap_or_default();
    match costs.secret_encoding.as_deref() {
        Some("BASE32") => seed::device(&secret.value, name),
        // The characters themselves are the key.
        _ => seed::of_bytes(secret.value.as_bytes(), name),
    }
}
