//! The key file: upstream's `EncryptionConfiguration` (apiserver/pkg/apis/apiserver/v1, server/options/encryptionconfig).
//! Of several providers the first writes and all read; of several entries the first that names a resource counts.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::Catalog;
use mote_schema::Value;
use std::path::Path;

const LIMIT_BYTES: u64 = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    AesGcm,
    ChaCha20Poly1305,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::AesGcm => "aesgcm",
            Algorithm::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }
}

#[derive(PartialEq, Eq)]
pub struct Key {
    pub algorithm: Algorithm,
    pub name: String,
    pub secret: Vec<u8>,
}

/// What the file says.
#[derive(Default, PartialEq, Eq)]
pub struct Keys(Vec<Entry>);

#[derive(PartialEq, Eq)]
struct Entry {
    /// Beginnings of the store's keys; "" begins them all.
    prefixes: Vec<String>,
    /// None is `identity`.
    providers: Vec<Option<Key>>,
}

impl Keys {
    pub fn read(path: &Path) -> Result<Keys, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let size = std::fs::metadata(path).map_err(|error| named(error.to_string()))?.len();
        if size > LIMIT_BYTES {
            return Err(named(format!("larger than {} kB", LIMIT_BYTES / 1024)));
        }
        let text = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        Keys::parse(&text).map_err(named)
    }

    pub fn parse(text: &[u8]) -> Result<Keys, String> {
        let (value, complaints) = mote_schema::prune::parse_yaml(text)?;
        let mut wrong = complaints;
        for (field, wanted) in [("apiVersion", "apiserver.config.k8s.io/v1"), ("kind", "EncryptionConfiguration")] {
            if value[field] != wanted {
                wrong.push(format!("{field}: expected {wanted}"));
            }
        }
        let given = value["resources"].as_array().map_or(&[][..], Vec::as_slice);
        if given.is_empty() {
            wrong.push("resources: Required value: at least one resource configuration is required".into());
        }
        let mut entries = Vec::new();
        for (at, entry) in given.iter().enumerate() {
            entries.push(read_entry(entry, &format!("resources[{at}]"), &mut wrong));
        }
        if wrong.is_empty() { Ok(Keys(entries)) } else { Err(wrong.join("; ")) }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())))
    }

    /// What a value under this key is sealed with; None: it is not.
    pub fn writes(&self, key: &str) -> Option<&Key> {
        self.entry(key)?.providers.first()?.as_ref()
    }

    /// What may have sealed it.
    pub fn reads(&self, key: &str) -> impl Iterator<Item = &Key> {
        self.entry(key).into_iter().flat_map(|entry| entry.providers.iter().flatten())
    }
}

fn read_entry(entry: &Value, path: &str, wrong: &mut Vec<String>) -> Entry {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut prefixes = Vec::new();
    for (at, resource) in list(&entry["resources"]).iter().enumerate() {
        let resource = resource.as_str().unwrap_or("");
        match prefixes_of(resource) {
            Some(more) => prefixes.extend(more),
            None => wrong.push(format!(
                "{path}.resources[{at}]: {resource:?} is no resource, as \"secrets\" or \"widgets.example.com\""
            )),
        }
    }
    if prefixes.is_empty() {
        wrong.push(format!("{path}.resources: Required value"));
    }
    let given = list(&entry["providers"]);
    if given.is_empty() {
        wrong.push(format!("{path}.providers: Required value"));
    }
    let mut providers = Vec::new();
    for (at, provider) in given.iter().enumerate() {
        let path = format!("{path}.providers[{at}]");
        let named: Vec<(&mote_schema::Name, &Value)> = provider.as_object().into_iter().flatten().collect();
        let [(name, settings)] = named.as_slice() else {
            wrong.push(format!("{path}: expected exactly one of aescbc, aesgcm, secretbox, identity"));
            continue;
        };
        let (algorithm, sizes): (_, &[usize]) = match name.as_str() {
            "identity" => {
                providers.push(None);
                continue;
            }
            "aescbc" | "aesgcm" => (Algorithm::AesGcm, &[16, 32]),
            "secretbox" => (Algorithm::ChaCha20Poly1305, &[32]),
            other => {
                wrong
                    .push(format!("{path}.{other}: not supported here; there are aescbc, aesgcm, secretbox, identity"));
                continue;
            }
        };
        let keys = list(&settings["keys"]);
        if keys.is_empty() {
            wrong.push(format!("{path}.{name}.keys: Required value"));
        }
        for (at, key) in keys.iter().enumerate() {
            let path = format!("{path}.{name}.keys[{at}]");
            let key_name = key["name"].as_str().unwrap_or("");
            if key_name.is_empty() || key_name.len() > super::MAX_NAME_BYTES || key_name.contains(':') {
                wrong.push(format!("{path}.name: expected a name without ':'"));
            }
            let same = |known: &Option<Key>| {
                known.as_ref().is_some_and(|known| known.algorithm == algorithm && known.name == key_name)
            };
            if providers.iter().any(same) {
                wrong.push(format!("{path}.name: {key_name:?} is there twice"));
            }
            // What is wrong with a secret is said without it.
            match STANDARD.decode(key["secret"].as_str().unwrap_or("")) {
                Ok(secret) if sizes.contains(&secret.len()) => {
                    providers.push(Some(Key { algorithm, name: key_name.into(), secret }));
                }
                Ok(secret) => {
                    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                    let (found, expected) = (secret.len(), sizes.join(" or "));
                    wrong.push(format!("{path}.secret: expected {expected} bytes in base64, found {found}"));
                }
                Err(_) => wrong.push(format!("{path}.secret: not base64")),
            }
        }
    }
    Entry { prefixes, providers }
}

/// Where the store keeps a resource: "secrets", "deployments.apps", "*.apps", "*." (the core group), "*.*".
fn prefixes_of(resource: &str) -> Option<Vec<String>> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let segment = |text: &str| !text.is_empty() && !text.contains(['/', '*', ' ']);
    match (plural, group) {
        ("*", "*") => Some(vec![String::new()]),
        ("*", "") if resource == "*." => {
            let core = Catalog::builtin();
            let prefixes = core.kinds.iter().filter(|kind| kind.group.is_empty() && !kind.virtual_kind);
            Some(prefixes.map(|kind| kind.prefix.to_string()).collect())
        }
        ("*", group) if segment(group) => Some(vec![format!("{group}/")]),
        (plural, "") if segment(plural) => Some(vec![format!("{plural}/")]),
        (plural, group) if segment(plural) && segment(group) => Some(vec![format!("{group}/{plural}/")]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(resources: &str) -> String {
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}\n")
    }

    #[test]
    fn the_first_entry_that_names_a_resource_counts() {
        let key = |name: &str| format!("{{aesgcm: {{keys: [{{name: {name}, secret: MDEyMzQ1Njc4OWFiY2RlZg==}}]}}}}");
        let text = file(&format!(
            "[{{resources: [secrets, deployments.apps], providers: [{}]}}, {{resources: ['*.apps'], providers: [{{identity: {{}}}}, {}]}}, \
             {{resources: ['*.'], providers: [{}]}}]",
            key("a"),
            key("b"),
            key("c")
        ));
        let keys = Keys::parse(text.as_bytes()).unwrap();
        let writes = |at: &str| keys.writes(at).map_or("-", |key| key.name.as_str());
        let reads = |at: &str| keys.reads(at).map(|key| key.name.clone()).collect::<Vec<_>>().join(",");
        for (at, writing, reading) in [
            ("secrets/a/b", "a", "a"),
            ("apps/deployments/a/b", "a", "a"),
            ("apps/replicasets/a/b", "-", "b"),
            ("configmaps/a/b", "c", "c"),
            ("batch/jobs/a/b", "-", ""),
        ] {
            assert_eq!((writes(at), reads(at).as_str()), (writing, reading), "{at}");
        }
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        let check = |resources: &str, want: &str| {
            let got = Keys::parse(file(resources).as_bytes()).map(drop).unwrap_err();
            assert_eq!(got, want);
        };
        check("[]", "resources: Required value: at least one resource configuration is required");
        check(
            "[{resources: [a/b], providers: [{kms: {}}, {aesgcm: {keys: [{name: x, secret: c2hvcnQ=}, {secret: '!'}]}}]}]",
            "resources[0].resources[0]: \"a/b\" is no resource, as \"secrets\" or \"widgets.example.com\"; \
             resources[0].resources: Required value; \
             resources[0].providers[0].kms: not supported here; there are aescbc, aesgcm, secretbox, identity; \
             resources[0].providers[1].aesgcm.keys[0].secret: expected 16 or 32 bytes in base64, found 5; \
             resources[0].providers[1].aesgcm.keys[1].name: expected a name without ':'; \
             resources[0].providers[1].aesgcm.keys[1].secret: not base64",
        );
    }
}
