//! A definition as the kinds it makes: one for each version that is served.
use super::{Compiled, Custom, definition::is_true};
use crate::Order as _;
use crate::{
    Doc, Kind, Ref,
    kind::{Scale, Subresource},
};
use std::{borrow::Cow, cmp::Ordering, sync::Arc};

type Text = Cow<'static, str>;

fn owned(place: Ref<'_>) -> Text {
    Cow::Owned(place.str().to_owned())
}

fn list(place: Ref<'_>) -> Vec<Text> {
    place.items().map(owned).collect()
}

fn texts(words: &[&'static str]) -> Vec<Text> {
    words.iter().map(|word| Cow::Borrowed(*word)).collect()
}

/// The version that objects of this definition are stored as.
pub fn storage_version(definition: Ref<'_>) -> &str {
    let mut versions = definition.at("spec.versions").items();
    versions.find(|version| version.get("storage").is_true()).map_or("", |version| version.get("name").str())
}

/// The kinds of a definition, the preferred version first; none while its names are not accepted. `since` is the revision from
/// which on objects were written under these very schemas; `previous` are kinds with the same schemas.
pub fn kinds(doc: &Doc, since: u64, previous: &[Arc<Kind>]) -> Vec<Arc<Kind>> {
    let root = doc.root();
    if !is_true(root, "NamesAccepted") && !is_true(root, "Established") {
        return Vec::new();
    }
    let versions = root.at("spec.versions").items().enumerate();
    let mut kinds: Vec<Arc<Kind>> = versions
        .filter(|(_, version)| version.get("served").is_true())
        .map(|(at, version)| {
            let same = previous.iter().find(|kind| kind.version == version.get("name").str());
            let compiled = same.and_then(|kind| Some(kind.custom.as_ref()?.compiled.clone()));
            Arc::new(kind(doc, at, version, since, compiled.unwrap_or_default()))
        })
        .collect();
    kinds.order_by(|a, b| version_order(&a.version, &b.version));
    kinds
}

/// The kind behind a definition's storage version, served or not.
pub fn stored_kind(doc: &Doc) -> Option<Arc<Kind>> {
    let mut versions = doc.root().at("spec.versions").items().enumerate();
    let (at, version) = versions.find(|(_, version)| version.get("storage").is_true())?;
    Some(Arc::new(kind(doc, at, version, u64::MAX, Arc::default())))
}

fn kind(doc: &Doc, at: usize, version: Ref<'_>, since: u64, compiled: Arc<Compiled>) -> Kind {
    let root = doc.root();
    let (spec, names) = (root.get("spec"), root.at("status.acceptedNames"));
    let (group, plural) = (spec.get("group").str(), names.get("plural").str());
    let is_terminating = is_true(root, "Terminating");
    let verbs: &[&str] = match is_terminating {
        true => &["delete", "deletecollection", "get", "list", "watch"],
        false => &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
    };
    let subresource = |name: &'static str, group: Text, version: Text, kind: Text| Subresource {
        name: name.into(),
        group,
        version,
        kind,
        verbs: texts(&["get", "patch", "update"]),
    };
    let own = version.get("subresources");
    let has_status = own.get("status").is_map();
    let mut subresources = Vec::new();
    if has_status {
        subresources.push(subresource(
            "status",
            owned(spec.get("group")),
            owned(version.get("name")),
            owned(names.get("kind")),
        ));
    }
    let scale = own.get("scale");
    let path = |name: &str| Cow::Owned(scale.get(name).str().trim_start_matches('.').to_owned());
    let scale = scale.is_map().then(|| Scale {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    });
    if scale.is_some() {
        subresources.push(subresource("scale", "autoscaling".into(), "v1".into(), "Scale".into()));
    }
    let trimmed = |field: Ref<'_>| field.get("jsonPath").str().trim_start_matches('.').into();
    let api_version = format!("{group}/{}", version.get("name").str());
    let warning = version.get("deprecated").is_true().then(|| match version.get("deprecationWarning").as_str() {
        Some(text) => text.into(),
        None => deprecation(root, version, &api_version),
    });
    Kind {
        group: owned(spec.get("group")),
        version: owned(version.get("name")),
        kind: owned(names.get("kind")),
        list_kind: owned(names.get("listKind")),
        plural: owned(names.get("plural")),
        singular: owned(names.get("singular")),
        short_names: list(names.get("shortNames")),
        categories: list(names.get("categories")),
        verbs: texts(verbs),
        subresources,
        namespaced: spec.get("scope").str() == "Namespaced",
        root: u16::MAX,
        has_status,
        scale,
        prefix: Cow::Owned(format!("{group}/{plural}/")),
        virtual_kind: false,
        has_generation: true,
        custom: Some(Arc::new(Custom {
            doc: doc.clone(),
            version: at,
            storage_version: storage_version(root).into(),
            since,
            has_webhook: spec.at("conversion.strategy").str() == "Webhook",
            is_terminating,
            selectable: version.get("selectableFields").items().map(trimmed).collect(),
            warning,
            compiled,
        })),
    }
}

/// defaultDeprecationWarning of customresource_handler.go: names what to use instead, when there is something.
fn deprecation(root: Ref<'_>, version: Ref<'_>, api_version: &str) -> Box<str> {
    let (spec, kind) = (root.get("spec"), root.at("spec.names.kind").str());
    let name = version.get("name").str();
    let mut better: Vec<&str> = spec
        .get("versions")
        .items()
        .filter(|other| other.get("served").is_true() && !other.get("deprecated").is_true())
        .map(|other| other.get("name").str())
        .filter(|other| version_order(other, name).is_lt())
        .collect();
    better.order_by(|a, b| version_order(a, b));
    match better.first() {
        Some(other) => {
            let group = spec.get("group").str();
            format!("{api_version} {kind} is deprecated; use {group}/{other} {kind}").into()
        }
        None => format!("{api_version} {kind} is deprecated").into(),
    }
}

/// The preferred version first: v10, v2, v1, v11beta2, v10beta3, v3beta1, v12alpha1, then others by name
/// (apimachinery/pkg/version, CompareKubeAwareVersionStrings).
pub fn version_order(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (stability, major, minor)
fn parse_version(text: &str) -> Option<(u8, u64, u64)> {
    let rest = text.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest.get(..digits)?.parse().ok().filter(|_| !rest.starts_with('0'))?;
    let rest = &rest[digits..];
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    let minor = minor.parse().ok().filter(|_| !minor.starts_with('0'))?;
    Some((stability, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut names =
            ["foo1", "v1", "v3beta1", "v12alpha1", "v10", "foo10", "v11alpha2", "v2", "v11beta2", "v10beta3"];
        names.order_by(|a, b| version_order(a, b));
        assert_eq!(
            names,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
}
