//! Media types: what a body is, and what the client wants to get.
use crate::{
    http::{
        Body, Request, Response,
        accept::{Indent, JSON, PROTOBUF, YAML, clauses, is_pretty, is_produced},
    },
    print::{self, Include},
    server::Api,
};
use http::header::{ACCEPT, CONTENT_TYPE};
use kube_core::GroupVersion;
use mote_schema::{Doc, Kind, Object, Status, protobuf};
use mote_schema::{Value, json};
use std::sync::Arc;

/// What one object or a list of them is shown as, by the `as` parameter of the Accept header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// PartialObjectMetadata
    Metadata,
    /// PartialObjectMetadataList
    MetadataList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Shape,
    pub encoding: Encoding,
    /// Tables and metadata of meta.k8s.io/v1beta1.
    pub beta: bool,
    /// JSON for people.
    pub pretty: bool,
    /// What a Table's rows carry.
    pub include: Include,
}

impl Form {
    /// The apiVersion of Tables and metadata.
    pub fn meta_version(self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// What the client likes best of what is there for this kind: custom kinds have no protobuf, but their metadata has; a Table is
/// JSON or YAML (negotiation.NegotiateMediaTypeOptions, RequestScope.AllowsMediaTypeTransform).
pub(crate) fn negotiate(request: &Request, kind: &Kind) -> Result<Form, Status> {
    let accept = request.header(ACCEPT);
    let pretty = is_pretty(&request.headers, &request.query);
    let plain =
        Form { shape: Shape::Object, encoding: Encoding::Json, beta: false, pretty, include: Include::Metadata };
    if accept.is_empty() {
        return Ok(plain);
    }
    if kind.custom.is_none() && !is_produced(accept) {
        return Err(not_produced(&request.info.verb));
    }
    for clause in clauses(accept) {
        let (mut target, mut group, mut version, mut pretty, mut usable) = ("", "", "", pretty, true);
        for (name, value) in clause.parameters() {
            match name {
                "as" => target = value,
                "g" => group = value,
                "v" => version = value,
                "stream" => usable &= value == "watch",
                "sv" => usable &= value == "v1",
                "pretty" => pretty |= value == "1",
                _ => {}
            }
        }
        let shape = match target {
            "" if group.is_empty() && version.is_empty() => Shape::Object,
            "Table" => Shape::Table,
            "PartialObjectMetadata" => Shape::Metadata,
            "PartialObjectMetadataList" => Shape::MetadataList,
            _ => continue,
        };
        if !usable || shape != Shape::Object && (group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1")) {
            continue;
        }
        let is_there = |encoding: &Encoding| {
            clause.takes(encoding.media_type())
                && match shape {
                    Shape::Object => *encoding != Encoding::Protobuf || kind.custom.is_none(),
                    Shape::Table => *encoding != Encoding::Protobuf,
                    Shape::Metadata | Shape::MetadataList => true,
                }
        };
        let found = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf].into_iter().find(is_there);
        if let Some(encoding) = found {
            let include = match shape {
                Shape::Table => Include::parse(request.query.get("includeObject").unwrap_or(""))?,
                _ => Include::Metadata,
            };
            return Ok(Form { shape, encoding, beta: version == "v1beta1", pretty, include });
        }
    }
    Err(Status::not_acceptable(&[JSON, YAML, PROTOBUF]))
}

fn not_produced(verb: &str) -> Status {
    let streams = if matches!(verb, "list" | "watch") {
        ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        ""
    };
    let message = format!("406: Not Acceptable\n\nAvailable representations: {JSON}, {YAML}, {PROTOBUF}{streams}");
    Status::unrouted(406, "NotAcceptable", message)
}

/// The refusal of a shape that an object, or a list, has not.
pub(crate) fn no_such_shape(kind: &Kind, is_list: bool) -> Status {
    let package = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let (wanted, what) = if is_list {
        ("PartialObjectMetadata, but the requested object is a list", "List")
    } else {
        ("PartialObjectMetadataList, but the requested object is not a list", "")
    };
    Status::new(406, "NotAcceptable", format!("you requested {wanted} (*{package}.{}{what})", kind.kind))
}

/// One object in the form asked for.
pub(crate) fn respond(status: u16, object: &Object, form: Form) -> Result<Response, Status> {
    if form.encoding == Encoding::Protobuf && form.shape == Shape::Object {
        // The audit log reads JSON from the answer itself.
        crate::audit::response_object(object);
    }
    let mut out = Vec::new();
    match form.shape {
        Shape::MetadataList => return Err(no_such_shape(&object.kind, false)),
        Shape::Table => {
            // As upstream: of one object, the Table's version is the object's.
            let metadata = match object.revision {
                0 => Value::Null,
                revision => json!({"resourceVersion": revision.to_string()}),
            };
            let options = print::Options { include: form.include, metadata, beta: form.beta, ..Default::default() };
            print::write_table(&object.kind, std::slice::from_ref(object), &options, &mut out);
        }
        Shape::Object | Shape::Metadata => write(object, form, &mut out),
    }
    written(status, out, form)
}

/// Appends an object, or its metadata, in its envelope: JSON, or protobuf when the form says so.
pub(crate) fn write(object: &Object, form: Form, out: &mut Vec<u8>) {
    match (form.encoding, form.shape) {
        (Encoding::Protobuf, Shape::Object) => protobuf::write_object(object, out),
        (Encoding::Protobuf, _) => protobuf::write_metadata(object, form.meta_version(), out),
        (_, Shape::Object) => object.write_json(true, out),
        (_, _) => print::write_metadata(object, form.meta_version(), out),
    }
}

/// What was written as JSON, or protobuf, as the response it is.
pub(crate) fn written(status: u16, mut out: Vec<u8>, form: Form) -> Result<Response, Status> {
    match form.encoding {
        Encoding::Protobuf => {}
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&out).map_err(Status::internal)?;
            out = mote_schema::prune::to_yaml(&value).map_err(Status::internal)?.into_bytes();
        }
        Encoding::Json if form.pretty => {
            let text = std::mem::take(&mut out);
            Indent::default().write(&text, &mut out);
        }
        Encoding::Json => out.push(b'\n'),
    }
    Ok(Response::new(status, form.encoding.media_type(), Body::Full(out.into())))
}

/// A document that is no stored object: a Status, a review, a Scale.
pub(crate) fn document(api: &Api, status: u16, value: &Value, form: Form) -> Result<Response, Status> {
    let (version, name) = (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    let mut out = Vec::new();
    let is_status = name == "Status" && version == "v1";
    let shape = if is_status { Shape::Object } else { form.shape };
    match (shape, form.encoding) {
        (Shape::Metadata, _) => {
            let kind = find_kind(api, version, name).map_err(Status::internal)?;
            let doc = Doc::encode(&json!({"metadata": value["metadata"]})).map_err(Status::internal)?;
            write(&Object { kind, doc, revision: 0 }, form, &mut out);
        }
        (Shape::Table, _) => {
            let kind = find_kind(api, version, name).map_err(Status::internal)?;
            let mut own = value.clone();
            let revision = own["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            for field in ["apiVersion", "kind"] {
                own.as_object_mut().map(|map| map.remove(field));
            }
            let doc = Doc::encode(&own).map_err(Status::internal)?;
            return respond(status, &Object { kind, doc, revision }, form);
        }
        (_, Encoding::Protobuf) if is_status => protobuf::write_status(value, &mut out),
        (_, Encoding::Protobuf) => {
            let kind = find_kind(api, version, name).map_err(Status::internal)?;
            protobuf::write_value(&kind, value, &mut out).map_err(Status::internal)?;
        }
        _ => out = value.to_string().into_bytes(),
    }
    written(status, out, form)
}

/// A request's body as a tree, with what parsing had to complain about (duplicate fields). `wanted` is the kind it should be of.
pub(crate) fn parse(api: &Api, request: &Request, wanted: &str) -> Result<(Value, Vec<String>), Status> {
    let given = request.header(CONTENT_TYPE);
    let given = if given.is_empty() { JSON } else { given };
    let mut parts = given.split(';').map(str::trim);
    let media = parts.next().unwrap_or("").to_ascii_lowercase();
    let is_well_formed = parts.all(|parameter| parameter.is_empty() || parameter.contains('='));
    let parsed = match media.as_str() {
        _ if !is_well_formed => return Err(Status::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
        // No type at all is JSON's; one that says nothing is none.
        JSON => mote_schema::prune::parse_json(&request.body).map_err(|error| format!("{NO_KIND}{error}")),
        YAML | "application/x-yaml" | "text/yaml" => mote_schema::prune::parse_yaml(&request.body).map_err(|error| {
            let prefix = "error converting YAML to JSON: ";
            error.strip_prefix(prefix).unwrap_or(&error).to_owned()
        }),
        PROTOBUF => parse_protobuf(api, &request.body).map(|value| (value, Vec::new())),
        _ => {
            return Err(Status::unsupported_media_type(&[JSON, YAML, PROTOBUF]));
        }
    };
    let (value, complaints) = parsed.map_err(|error| unrecognized(wanted, &error, &request.body))?;
    let error = match (json_type(&value), &value) {
        // Nothing was said, which is no mistake yet.
        (None, _) => return Ok((json!({}), complaints)),
        (_, Value::Object(members)) => {
            let wrong = |name: &str| members.get(name).and_then(json_type).filter(|found| *found != "string");
            let wrong = ["apiVersion", "kind"].into_iter().find_map(|name| Some((name, wrong(name)?)));
            let Some((name, found)) = wrong else { return Ok((value, complaints)) };
            format!("{NO_KIND}json: cannot unmarshal {found} into Go struct field .{name} of type string")
        }
        (Some(found), _) => format!(
            "{NO_KIND}json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        ),
    };
    Err(unrecognized(wanted, &error, &request.body))
}

/// As Go's decoder calls it; None: null.
fn json_type(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => None,
        Value::Object(_) => Some("object"),
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
    }
}

const NO_KIND: &str = "couldn't get version/kind; json parse error: ";

/// endpoints/handlers/rest.go, transformDecodeError, of a body that does not say what it is.
pub(crate) fn unrecognized(wanted: &str, error: &str, body: &[u8]) -> Status {
    const SHOWN_BYTES: usize = 30;
    // A delete is not told what it should have sent.
    if wanted == "DeleteOptions" {
        return Status::bad_request(error);
    }
    let (shown, rest) = body.split_at_checked(SHOWN_BYTES).unwrap_or((body, &[]));
    let mut summary = match shown {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(shown).into_owned(),
        _ => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if !rest.is_empty() {
        summary.push_str(" ...");
    }
    Status::bad_request(format!("the object provided is unrecognized (must be of type {wanted}): {error} ({summary})"))
}

/// The kind is what the envelope says: a subresource's body is of another kind than its object.
fn parse_protobuf(api: &Api, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Err("empty data".into());
    }
    let envelope = protobuf::envelope(body)?;
    let (version, name) = (envelope.api_version.as_str(), envelope.kind.as_str());
    let kind = find_kind(api, version, name)?;
    let mut value = protobuf::decode(&kind, envelope.raw)?;
    value["apiVersion"] = Value::from(version);
    value["kind"] = Value::from(name);
    Ok(value)
}

fn find_kind(api: &Api, version: &str, name: &str) -> Result<Arc<Kind>, String> {
    let parsed: GroupVersion = version.parse().map_err(|error| format!("{error}"))?;
    let catalog = api.catalog();
    // Upstream registers the options kinds in every group's version (meta/v1/register.go), and clients name the resource's.
    let group = if name == "DeleteOptions" { ("", "v1") } else { (&*parsed.group, &*parsed.version) };
    let kind = catalog.by_kind(group.0, group.1, name).cloned();
    kind.ok_or_else(|| format!("no kind {name:?} is registered for version {version:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Query, User, request_info};
    use mote_schema::{Catalog, structural};

    fn request(accept: &str, query: &str) -> Request {
        let (method, path, query) = (http::Method::GET, "/api/v1/pods", Query::parse(query));
        let mut headers = http::HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        let info = request_info(&method, path, &query).expect("a request");
        let user = Arc::new(User::default());
        Request {
            method,
            path: path.into(),
            query,
            headers,
            body: Default::default(),
            user,
            info,
            peer: None,
            upgrade: None,
        }
    }

    #[test]
    fn accept_headers() {
        use Encoding::{Json, Protobuf, Yaml};
        let catalog = Catalog::builtin();
        let pods = catalog.by_resource("", "v1", "pods").expect("pods").clone();
        let definition = json!({"spec": {"group": "example.com", "names": {"kind": "Color", "plural": "colors"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
        let custom = structural::stored_kind(&Doc::encode(&definition).expect("a definition")).expect("a kind");
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        let client = "application/vnd.kubernetes.protobuf,application/json";
        for (accept, shape, encoding, beta) in [
            ("", Shape::Object, Json, false),
            ("*/*", Shape::Object, Json, false),
            ("application/*,application/json;q=0.5", Shape::Object, Json, false),
            ("application/yaml", Shape::Object, Yaml, false),
            (kubectl, Shape::Table, Json, false),
            (client, Shape::Object, Protobuf, false),
            (metadata, Shape::MetadataList, Protobuf, false),
            ("application/vnd.kubernetes.protobuf;stream=watch", Shape::Object, Protobuf, false),
            ("application/json;stream=other,application/yaml", Shape::Object, Yaml, false),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Shape::Table, Json, true),
            ("application/json;as=Table;v=v1,application/yaml", Shape::Object, Yaml, false),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Shape::Object, Json, false),
            ("application/json;q=0.1,application/yaml", Shape::Object, Yaml, false),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
                Shape::Table,
                Json,
                false,
            ),
        ] {
            let found = negotiate(&request(accept, ""), &pods).expect("acceptable");
            assert_eq!((found.shape, found.encoding, found.beta), (shape, encoding, beta), "{accept}");
        }
        let custom_form = |accept| negotiate(&request(accept, ""), &custom).map(|form| form.encoding);
        assert_eq!(custom_form(client), Ok(Json));
        assert_eq!(custom_form(metadata), Ok(Protobuf));
        assert_eq!(custom_form(PROTOBUF).map_err(|status| status.code), Err(406));
        let unrouted = negotiate(&request("text/html", ""), &pods).expect_err("HTML");
        assert!(
            unrouted.with_details && unrouted.message.ends_with("application/vnd.kubernetes.protobuf;stream=watch")
        );
        let refused = negotiate(&request("application/json;as=Foo", ""), &pods).expect_err("no such shape");
        assert_eq!(refused.message, format!("only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}"));
        assert_eq!(negotiate(&request(kubectl, "includeObject=All"), &pods).map_err(|s| s.code), Err(400));
        assert_eq!(negotiate(&request(client, "includeObject=All"), &pods).map(|f| f.pretty), Ok(false));
        assert_eq!(negotiate(&request("", "pretty=true"), &pods).map(|f| f.pretty), Ok(true));
    }
}
