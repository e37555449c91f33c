//! What the tool knows while it reads: types by OpenAPI definition name, and the kinds among them.
use std::collections::BTreeMap;

#[derive(Default, Debug)]
pub struct Model {
    /// By definition name, "io.k8s.api.apps.v1.DeploymentSpec".
    pub types: BTreeMap<String, Type>,
}

#[derive(Default, Debug)]
pub struct Type {
    /// By JSON name.
    pub fields: BTreeMap<String, Field>,
    pub kind: Option<Kind>,
}

#[derive(Debug, Clone)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    /// The plural, or the name of a subresource.
    pub segment: String,
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespace,
    Sub,
}

#[derive(Default, Debug, Clone)]
pub struct Field {
    /// The Rust name in k8s-openapi.
    pub rust: String,
    pub shape: String,
    /// Definition name when `shape` is "Object".
    pub object: String,
    pub container: &'static str,
    pub required: bool,
    pub number: u32,
    /// Protobuf number of the embedded message that JSON inlines; 0 for none.
    pub inline: u32,
    pub list_type: Option<&'static str>,
    pub list_keys: Vec<String>,
    pub merge_key: String,
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    pub patch_replace: bool,
    pub atomic: bool,
    /// JSON text.
    pub default: String,
    pub values: Vec<String>,
    /// Named Go type of a scalar: "v1.Protocol".
    pub go_type: String,
    pub presence: Option<&'static str>,
}

/// "io.k8s.api.apps.v1.DeploymentSpec" into its package and its name.
pub fn split(definition: &str) -> (&str, &str) {
    definition.rsplit_once('.').unwrap_or(("", definition))
}

/// Rust, protobuf and JSON spell one name differently; letters and digits agree.
pub fn bare(name: &str) -> String {
    name.trim_start_matches("r#").chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}
