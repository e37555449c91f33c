//! Discovery: which groups, versions and resources are served. Two forms of the same facts: one document a group and
//! version, and, for clients that ask for it, all of them at once (apidiscovery.k8s.io v2, KEP-3352). Both are written from
//! the catalog when they are asked for.
use crate::openapi::json::Json;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::Order as _;
use mote_schema::{Catalog, Kind, kind::Subresource};
use ring::digest;
use std::sync::Arc;

const JSON: &str = "application/json";
const ALL_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answered by the server beside resources.
const OTHER_PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/apis/",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// Kinds whose storage version is not the one they are served in (upstream stores them as what 1.35 can read).
const STORED_AS: [(&str, &str, &str, &str); 5] = [
    ("autoscaling", "HorizontalPodAutoscaler", "autoscaling", "v2"),
    ("events.k8s.io", "Event", "", "v1"),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "apiextensions.k8s.io", "v1beta1"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", "admissionregistration.k8s.io", "v1beta1"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", "admissionregistration.k8s.io", "v1beta1"),
];

/// The document at a path, with its media type; None when the path is not one of discovery's. `host` is where the client
/// found this server.
pub fn document(catalog: &Catalog, path: &str, accept: &str, host: &str) -> Option<(&'static str, Vec<u8>)> {
    let mut json = Json::default();
    json.open(b'{');
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let media = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (None, ..) => roots(catalog, &mut json),
        (Some("api"), None, ..) => match asked(accept) {
            Some(Asked::All) => everything(catalog, true, &mut json),
            _ => core_versions(host, &mut json),
        },
        (Some("apis"), None, ..) => match asked(accept) {
            Some(Asked::All) => everything(catalog, false, &mut json),
            _ => groups(catalog, &mut json),
        },
        (Some("api"), Some(version), None, _) => resources(catalog, "", version, &mut json)?,
        (Some("apis"), Some(name), None, _) => one_group(catalog, name, &mut json)?,
        (Some("apis"), Some(group), Some(version), None) => resources(catalog, group, version, &mut json)?,
        _ => return None,
    };
    json.close(b'}');
    let mut bytes = json.finish();
    bytes.push(b'\n');
    Some((media, bytes))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Everything at once.
    All,
    /// One document for each group.
    Each,
}

/// The first form a client accepts.
fn asked(accept: &str) -> Option<Asked> {
    forms(accept).next()
}

/// What is asked for, one after the other.
fn forms(accept: &str) -> impl Iterator<Item = Asked> {
    accept.split(',').filter_map(|clause| {
        let mut words = clause.split(';').map(str::trim);
        let media = words.next().unwrap_or("");
        let parameter =
            |name: &str| clause.split(';').find_map(|word| word.trim().strip_prefix(name)?.strip_prefix('='));
        match (parameter("g"), parameter("v"), parameter("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => {
                matches!(media, JSON | "application/*" | "*/*").then_some(Asked::All)
            }
            (None, None, None) => Some(Asked::Each),
            _ => None,
        }
    })
}

/// Whether there is a document at the path that the client accepts.
pub(crate) fn is_acceptable(path: &str, accept: &str) -> bool {
    let is_root = path.trim_matches('/').split('/').count() == 1;
    forms(accept).any(|form| is_root || form == Asked::Each)
}

fn roots(catalog: &Catalog, json: &mut Json) -> &'static str {
    let mut paths: Vec<String> = OTHER_PATHS.iter().map(|path| path.to_string()).collect();
    paths.extend(["/api", "/apis"].map(str::to_owned));
    for (group, versions) in catalog.groups() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
        }
        paths.extend(versions.iter().map(|version| format!("/{}", api_path(group, version))));
    }
    paths.order();
    json.list("paths", paths.iter().map(String::as_str));
    JSON
}

/// "api/v1", "apis/apps/v1"
pub(crate) fn api_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn core_versions(host: &str, json: &mut Json) -> &'static str {
    json.field("kind", "APIVersions").list("versions", ["v1"]);
    json.objects("serverAddressByClientCIDRs", [host], |json, host| {
        json.field("clientCIDR", "0.0.0.0/0").field("serverAddress", host);
    });
    JSON
}

fn groups(catalog: &Catalog, json: &mut Json) -> &'static str {
    json.field("kind", "APIGroupList").field("apiVersion", "v1");
    let named = catalog.groups().into_iter().filter(|(group, _)| !group.is_empty());
    json.objects("groups", named, |json, (group, versions)| write_group(group, &versions, json));
    JSON
}

fn one_group(catalog: &Catalog, name: &str, json: &mut Json) -> Option<&'static str> {
    let (group, versions) = catalog.groups().into_iter().find(|(group, _)| *group == name)?;
    json.field("kind", "APIGroup").field("apiVersion", "v1");
    write_group(group, &versions, json);
    Some(JSON)
}

fn write_group(group: &str, versions: &[&str], json: &mut Json) {
    let write = |json: &mut Json, version: &str| {
        json.field("groupVersion", &format!("{group}/{version}")).field("version", version);
    };
    json.field("name", group);
    json.objects("versions", versions, |json, version| write(json, version));
    json.object("preferredVersion", |json| write(json, versions.first().unwrap_or(&"")));
}

/// Resources and subresources of a group and version, by name.
fn resources(catalog: &Catalog, group: &str, version: &str, json: &mut Json) -> Option<&'static str> {
    let mut kinds = of_version(catalog, group, version).peekable();
    kinds.peek()?;
    json.field("kind", "APIResourceList");
    if !group.is_empty() {
        json.field("apiVersion", "v1").field("groupVersion", &format!("{group}/{version}"));
    } else {
        json.field("groupVersion", version);
    }
    let mut kinds: Vec<&Arc<Kind>> = kinds.collect();
    kinds.order_by(|a, b| a.plural.cmp(&b.plural));
    let entries = kinds.into_iter().flat_map(|kind| {
        let subs = subresources(kind).into_iter().map(Some);
        std::iter::once(None).chain(subs).map(move |sub| (kind, sub))
    });
    json.objects("resources", entries, |json, (kind, sub)| {
        match sub {
            Some(sub) => json.field("name", &format!("{}/{}", kind.plural, sub.name)).field("singularName", ""),
            None => json.field("name", &kind.plural).field("singularName", &kind.singular),
        };
        json.key("namespaced").raw(if kind.namespaced { "true" } else { "false" });
        match sub {
            Some(sub) => {
                if (&sub.group, &sub.version) != (&kind.group, &kind.version) {
                    json.field("group", &sub.group).field("version", &sub.version);
                }
                json.field("kind", &sub.kind).list("verbs", texts(&sub.verbs));
            }
            None => {
                json.field("kind", &kind.kind).list("verbs", texts(&kind.verbs));
                write_names(kind, json);
                if !kind.virtual_kind && kind.kind != "ComponentStatus" {
                    json.field("storageVersionHash", &storage_version_hash(kind));
                }
            }
        }
    });
    Some(JSON)
}

/// By name; those of a definition in its own order.
fn subresources(kind: &Kind) -> Vec<&Subresource> {
    let mut list: Vec<_> = kind.subresources.iter().collect();
    if kind.custom.is_none() {
        list.order_by(|a, b| a.name.cmp(&b.name));
    }
    list
}

/// discovery.StorageVersionHash
fn storage_version_hash(kind: &Kind) -> String {
    let stored = STORED_AS.iter().find(|(group, name, ..)| *group == kind.group && *name == kind.kind);
    let (group, version) = match (stored, &kind.custom) {
        (Some((_, _, group, version)), _) => (*group, *version),
        (None, Some(custom)) => (&*kind.group, &*custom.storage_version),
        (None, None) => (&*kind.group, &*kind.version),
    };
    let hash = digest::digest(&digest::SHA256, format!("{group}/{version}/{}", kind.kind).as_bytes());
    STANDARD.encode(hash.as_ref().get(..8).unwrap_or_default())
}

fn everything(catalog: &Catalog, core: bool, json: &mut Json) -> &'static str {
    json.field("kind", "APIGroupDiscoveryList");
    json.field("apiVersion", "apidiscovery.k8s.io/v2").key("metadata").raw("{}");
    let groups = catalog.groups().into_iter().filter(|(group, _)| group.is_empty() == core);
    json.objects("items", groups, |json, (group, versions)| {
        json.object("metadata", |json| {
            if !group.is_empty() {
                json.field("name", group);
            }
        });
        json.objects("versions", versions, |json, version| {
            json.field("version", version);
            let mut kinds: Vec<_> = of_version(catalog, group, version).collect();
            kinds.order_by(|a, b| a.plural.cmp(&b.plural));
            json.objects("resources", kinds, |json, kind| write_resource(kind, json));
            json.field("freshness", "Current");
        });
    });
    ALL_V2
}

fn write_resource(kind: &Kind, json: &mut Json) {
    json.field("resource", &kind.plural);
    response_kind(kind, &kind.group, &kind.version, &kind.kind, json);
    json.field("scope", if kind.namespaced { "Namespaced" } else { "Cluster" });
    json.field("singularResource", &kind.singular).list("verbs", texts(&kind.verbs));
    write_names(kind, json);
    if kind.subresources.is_empty() {
        return;
    }
    json.objects("subresources", subresources(kind), |json, sub| {
        json.field("subresource", &sub.name);
        response_kind(kind, &sub.group, &sub.version, &sub.kind, json);
        json.list("verbs", texts(&sub.verbs));
    });
}

/// Built-in kinds leave out a group and version that are those of the list (ConvertGroupVersionIntoToDiscovery).
fn response_kind(owner: &Kind, group: &str, version: &str, kind: &str, json: &mut Json) {
    let is_own = owner.custom.is_none() && group == owner.group && version == owner.version;
    let (group, version) = if is_own { ("", "") } else { (group, version) };
    json.object("responseKind", |json| {
        json.field("group", group).field("version", version).field("kind", kind);
    });
}

fn write_names(kind: &Kind, json: &mut Json) {
    for (name, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !list.is_empty() {
            json.list(name, texts(list));
        }
    }
}

fn of_version<'a>(catalog: &'a Catalog, group: &str, version: &str) -> impl Iterator<Item = &'a Arc<Kind>> {
    catalog.kinds.iter().filter(move |kind| kind.group == group && kind.version == version)
}

fn texts<'a>(list: &'a [std::borrow::Cow<'static, str>]) -> impl Iterator<Item = &'a str> {
    list.iter().map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Value, json};

    fn get(path: &str, accept: &str) -> Option<(&'static str, Value)> {
        let (media, bytes) = document(&Catalog::builtin(), path, accept, "h:1")?;
        Some((media, serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}"))))
    }

    fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
        let found = list.as_array().and_then(|list| list.iter().find(|item| item[key] == value));
        found.unwrap_or_else(|| panic!("no {key} {value} in {list}"))
    }

    #[test]
    fn one_document_a_version() {
        let (media, core) = get("/api/v1", "").expect("core");
        assert_eq!((media, &core["groupVersion"], &core["apiVersion"]), (JSON, &json!("v1"), &Value::Null));
        let names: Vec<&str> =
            core["resources"].as_array().expect("list").iter().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.is_sorted());
        let verbs = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let pods = json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": verbs,
            "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8="});
        assert_eq!(find(&core["resources"], "name", "pods"), &pods);
        let eviction = json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy",
            "version": "v1", "kind": "Eviction", "verbs": ["create"]});
        assert_eq!(find(&core["resources"], "name", "pods/eviction"), &eviction);
        for sub in ["attach", "binding", "ephemeralcontainers", "exec", "log", "portforward", "proxy", "status"] {
            find(&core["resources"], "name", &format!("pods/{sub}"));
        }
        let (_, apps) = get("/apis/apps/v1/", "").expect("apps");
        assert_eq!((&apps["groupVersion"], &apps["apiVersion"]), (&json!("apps/v1"), &json!("v1")));
        assert_eq!(find(&apps["resources"], "name", "deployments/scale")["group"], "autoscaling");
        for absent in ["/api/v2", "/apis/none", "/apis/apps/v0", "/apis/apps/v1/deployments", "/version"] {
            assert!(get(absent, "").is_none(), "{absent}");
        }
    }

    #[test]
    fn groups_and_roots() {
        let (_, list) = get("/apis", "application/json, */*").expect("groups");
        assert_eq!(list["kind"], "APIGroupList");
        let apps = find(&list["groups"], "name", "apps");
        assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
        let (_, scaling) = get("/apis/autoscaling", "").expect("autoscaling");
        assert_eq!(scaling["preferredVersion"]["version"], "v2");
        assert_eq!(scaling["versions"].as_array().map(Vec::len), Some(2));
        assert_eq!(get("/api", "").expect("core").1["versions"], json!(["v1"]));
        let (_, roots) = get("/", "").expect("roots");
        for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/readyz"] {
            assert!(roots["paths"].as_array().is_some_and(|paths| paths.contains(&json!(path))), "{path}");
        }
    }

    #[test]
    fn all_at_once_for_those_who_ask() {
        let beta = ALL_V2.replace("v=v2", "v=v2beta1");
        let kubectl = format!("{ALL_V2};profile=nopeer,{ALL_V2},{beta},application/json");
        for (accept, media, version) in [
            (kubectl.as_str(), ALL_V2, "apidiscovery.k8s.io/v2"),
            (&format!("{beta},*/*"), JSON, "v1"),
            ("application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,*/*", JSON, "v1"),
            ("application/json;g=other;v=v2;as=APIGroupDiscoveryList", JSON, "v1"),
        ] {
            let (found, list) = get("/apis", accept).expect("groups");
            assert_eq!((found, &list["apiVersion"]), (media, &json!(version)), "{accept}");
        }
        for (path, accept, taken) in [
            ("/apis", ALL_V2, true),
            ("/apis", &*beta, false),
            ("/api/v1", ALL_V2, false),
            ("/api/v1", &*kubectl, true),
        ] {
            assert_eq!(is_acceptable(path, accept), taken, "{path} {accept}");
        }
        let (_, core) = get("/api", &kubectl).expect("core");
        assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let pods = find(&core["items"][0]["versions"][0]["resources"], "resource", "pods");
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "", "kind": "Pod"}));
        assert_eq!((&pods["scope"], &pods["singularResource"]), (&json!("Namespaced"), &json!("pod")));
        let eviction = find(&pods["subresources"], "subresource", "eviction");
        assert_eq!(eviction["responseKind"]["group"], "policy");
        let (_, rest) = get("/apis", &kubectl).expect("groups");
        let names: Vec<&Value> =
            rest["items"].as_array().expect("items").iter().map(|i| &i["metadata"]["name"]).collect();
        assert!(names.contains(&&json!("apps")) && !names.contains(&&Value::Null));
    }
}
