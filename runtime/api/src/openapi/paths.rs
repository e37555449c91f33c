//! Which path takes which verb with which parameters and bodies. The operations' names are those that client generators
//! make method names of (`readCoreV1NamespacedPod`).
use super::{
    Dialect, Visit,
    json::Json,
    schemas::{META, PATCH, definition, list_definition, reference},
};
use crate::discovery::api_path;
use mote_schema::{Kind, kind::Subresource};
use std::{borrow::Cow, sync::Arc};

/// YAML and protobuf are taken as well; naming them at each operation would double the documents.
const BODIES: [&str; 1] = ["application/json"];
/// kubectl reads here whether a kind has strategic merge patches; custom ones have not, so that theirs comes last.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

type Parameter = (&'static str, &'static str);

const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: [Parameter; 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const FORCE: [Parameter; 1] = [("force", "boolean")];
const DELETE: [Parameter; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// One verb at one path.
struct Operation<'a> {
    method: &'static str,
    /// x-kubernetes-action
    action: &'static str,
    /// First word of the operation's name.
    word: &'static str,
    /// (group, version, kind) of what is read or written.
    about: [&'a str; 3],
    /// Definitions of the body and the answer; "" for none.
    body: String,
    answer: String,
    parameters: Vec<Parameter>,
    is_custom: bool,
}

/// A path below the version's, and what can be done there.
struct Place<'a> {
    path: String,
    /// Last words of its operations' names.
    name: String,
    operations: Vec<Operation<'a>>,
}

pub(super) fn each(dialect: Dialect, kinds: &[Arc<Kind>], visit: Visit<'_>) {
    for kind in kinds {
        let (base, scope) = (api_path(&kind.group, &kind.version), version_words(&kind.group, &kind.version));
        for place in places(kind).into_iter().filter(|place| !place.operations.is_empty()) {
            visit(&format!("/{base}/{}", place.path), &|json| write_place(dialect, &place, &scope, json));
        }
    }
}

fn write_place(dialect: Dialect, place: &Place<'_>, scope: &str, json: &mut Json) {
    let in_path = ["name", "namespace"].into_iter().filter(|name| place.path.contains(&format!("{{{name}}}")));
    let in_path: Vec<&str> = in_path.collect();
    if !in_path.is_empty() {
        json.objects("parameters", in_path, |json, name| {
            json.field("in", "path").field("name", name).key("required").raw("true");
            write_type(dialect, "string", json);
        });
    }
    for operation in &place.operations {
        json.object(operation.method, |json| {
            json.field("operationId", &format!("{}{scope}{}", operation.word, place.name));
            write_operation(dialect, operation, json);
        });
    }
}

/// "AppsV1", "RbacAuthorizationV1", "CoreV1"
fn version_words(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
    group.split('.').chain([version]).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn places(kind: &Kind) -> Vec<Place<'_>> {
    let (namespaced, plural) = (kind.namespaced, &kind.plural);
    let (folder, scope) = if namespaced { ("namespaces/{namespace}/", "Namespaced") } else { ("", "") };
    let has = |verb: &str| kind.has_verb(verb);
    let about = [&*kind.group, &*kind.version, &*kind.kind];
    let itself = definition(kind);
    let list = list_definition(kind).unwrap_or_default();
    let operation = |verb: &'static str| make(verb, about, &itself, &list);
    let pick = |verbs: &[&'static str]| verbs.iter().filter(|verb| has(verb)).map(|verb| operation(verb)).collect();
    let mut places = vec![
        Place {
            path: format!("{folder}{plural}"),
            name: format!("{scope}{}", kind.kind),
            operations: pick(&["list", "create", "deletecollection"]),
        },
        Place {
            path: format!("{folder}{plural}/{{name}}"),
            name: format!("{scope}{}", kind.kind),
            operations: pick(&["get", "update", "patch", "delete"]),
        },
    ];
    if namespaced {
        let name = format!("{}ForAllNamespaces", kind.kind);
        places.push(Place { path: plural.to_string(), name, operations: pick(&["list"]) });
    }
    for sub in &kind.subresources {
        let name = format!("{scope}{}{}", kind.kind, capital(&sub.name));
        let path = format!("{folder}{plural}/{{name}}/{}", sub.name);
        places.push(Place { path, name, operations: sub_operations(kind, sub) });
    }
    for operation in places.iter_mut().flat_map(|place| &mut place.operations) {
        operation.is_custom = kind.is_custom();
    }
    places
}

/// A subresource's definition: the kind's own, or that of the package its version is in.
fn sub_operations<'a>(kind: &Kind, sub: &'a Subresource) -> Vec<Operation<'a>> {
    let carried = match (&*sub.group, &*sub.kind) {
        (group, name) if group == kind.group && name == kind.kind => definition(kind),
        ("autoscaling", "Scale") => "io.k8s.api.autoscaling.v1.Scale".into(),
        ("policy", "Eviction") => "io.k8s.api.policy.v1.Eviction".into(),
        ("authentication.k8s.io", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest".into(),
        ("", "Binding") => "io.k8s.api.core.v1.Binding".into(),
        // Streams: what goes through is not an object.
        _ => String::new(),
    };
    let about = [&*sub.group, &*sub.version, &*sub.kind];
    let verb =
        |verb: &Cow<'static, str>| ["get", "create", "update", "patch", "delete"].into_iter().find(|v| v == verb);
    sub.verbs.iter().filter_map(verb).map(|verb| make(verb, about, &carried, "")).collect()
}

fn make<'a>(verb: &'static str, about: [&'a str; 3], itself: &str, list: &str) -> Operation<'a> {
    let status = || format!("{META}.Status");
    let options = || format!("{META}.DeleteOptions");
    let (method, action, word, body, answer, parameters): (_, _, _, String, String, &[&[Parameter]]) = match verb {
        "list" => ("get", "list", "list", String::new(), list.into(), &[&LIST]),
        "get" => ("get", "get", "read", String::new(), itself.into(), &[]),
        "create" => ("post", "post", "create", itself.into(), itself.into(), &[&WRITE]),
        "update" => ("put", "put", "replace", itself.into(), itself.into(), &[&WRITE]),
        "patch" => ("patch", "patch", "patch", PATCH.into(), itself.into(), &[&WRITE, &FORCE]),
        "delete" => ("delete", "delete", "delete", options(), status(), &[&DELETE]),
        _ => ("delete", "deletecollection", "deleteCollection", options(), status(), &[&DELETE, &LIST]),
    };
    let parameters = parameters.concat();
    Operation { method, action, word, about, body, answer, parameters, is_custom: false }
}

fn write_operation(dialect: Dialect, operation: &Operation<'_>, json: &mut Json) {
    let patch = operation.method == "patch";
    let schema = |name: &str, json: &mut Json| {
        json.object("schema", |json| {
            json.field("$ref", &reference(dialect, name));
        });
    };
    let content = |media: &[&str], name: &str, json: &mut Json| {
        json.object("content", |json| {
            for media in media {
                json.object(media, |json| schema(name, json));
            }
        });
    };
    let patches = if operation.is_custom { &PATCHES[..3] } else { &PATCHES };
    let media: &[&str] = if patch { patches } else { &BODIES };
    if dialect == Dialect::V2 {
        json.list("consumes", if operation.body.is_empty() { &["*/*"] } else { media }.iter().copied());
        json.list("produces", BODIES);
    }
    let in_body = dialect == Dialect::V2 && !operation.body.is_empty();
    // A client that reads an empty list and writes it again leaves it out.
    if in_body || !operation.parameters.is_empty() {
        json.key("parameters").open(b'[');
        for (name, kind) in &operation.parameters {
            json.open(b'{').field("in", "query").field("name", name);
            write_type(dialect, kind, json);
            json.close(b'}');
        }
        if in_body {
            json.open(b'{').field("in", "body").field("name", "body").key("required").raw("true");
            schema(&operation.body, json);
            json.close(b'}');
        }
        json.close(b']');
    }
    if dialect == Dialect::V3 && !operation.body.is_empty() {
        json.object("requestBody", |json| content(media, &operation.body, json));
    }
    json.object("responses", |json| {
        json.object("200", |json| {
            json.field("description", "OK");
            match (dialect, operation.answer.as_str()) {
                (_, "") => {}
                (Dialect::V2, name) => schema(name, json),
                (Dialect::V3, name) => content(&BODIES, name, json),
            }
        });
    });
    let [group, version, kind] = operation.about;
    json.field("x-kubernetes-action", operation.action).object("x-kubernetes-group-version-kind", |json| {
        json.field("group", group).field("kind", kind).field("version", version);
    });
}

fn write_type(dialect: Dialect, kind: &str, json: &mut Json) {
    match dialect {
        Dialect::V2 => {
            json.field("type", kind);
        }
        Dialect::V3 => {
            json.object("schema", |json| {
                json.field("type", kind);
            });
        }
    }
}
