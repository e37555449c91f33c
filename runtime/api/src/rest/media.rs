//! Media types: what a body is, and what the client wants to get.
use crate::{
    http::{Request, Response},
    server::Api,
};
use kube_core::GroupVersion;
use mote_schema::{Object, Status, protobuf};
use serde_json::{Value, json};

pub(crate) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The shape an answer takes, by the `as` parameter of the Accept header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// PartialObjectMetadata(List)
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Shape,
    pub yaml: bool,
}

/// The first acceptable of the client's list; `q` only matters when it is 0.
pub(crate) fn negotiate(accept: &str) -> Result<Form, Status> {
    if accept.trim().is_empty() {
        return Ok(Form { shape: Shape::Object, yaml: false });
    }
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let yaml = match media.as_str() {
            JSON | "*/*" | "application/*" => false,
            YAML => true,
            _ => continue,
        };
        let (mut shape, mut version, mut refused) = (Some(Shape::Object), "v1", false);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", "Table")) => shape = Some(Shape::Table),
                Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => shape = Some(Shape::Metadata),
                Some(("as", _)) => shape = None,
                Some(("v", v)) => version = v,
                Some(("q", q)) => refused = q.trim_end_matches('0').trim_end_matches('.').is_empty(),
                // A watch's frames are always newline-delimited JSON, so `stream=watch` needs no other form.
                _ => {}
            }
        }
        let usable = shape.filter(|shape| *shape == Shape::Object || version == "v1");
        if let Some(shape) = usable.filter(|_| !refused) {
            return Ok(Form { shape, yaml });
        }
    }
    Err(Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {JSON}, {YAML}")))
}

/// One object in the form asked for.
pub(crate) fn respond(status: u16, object: &Object, form: Form) -> Result<Response, Status> {
    let mut out = Vec::new();
    match form.shape {
        Shape::Object if !form.yaml => object.write_json(true, &mut out),
        Shape::Object => return document(status, &object.to_value(), form),
        Shape::Metadata => write_metadata(object, &mut out),
        Shape::Table => {
            crate::print::write_table(&object.kind, std::slice::from_ref(object), &Default::default(), &mut out)
        }
    }
    Ok(Response::json(status, out))
}

/// A document that is no stored object.
pub(crate) fn document(status: u16, value: &Value, form: Form) -> Result<Response, Status> {
    if !form.yaml {
        return Ok(Response::value(status, value));
    }
    let text = mote_schema::prune::to_yaml(value).map_err(Status::internal)?;
    Ok(Response::new(status, YAML, crate::http::Body::Full(text.into())))
}

pub(crate) fn write_metadata(object: &Object, out: &mut Vec<u8>) {
    let mut metadata = object.meta().to_value();
    metadata["resourceVersion"] = Value::from(object.revision.to_string());
    let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    out.extend_from_slice(partial.to_string().as_bytes());
}

/// A request's body as a tree, with what parsing had to complain about (duplicate fields).
pub(crate) fn parse(api: &Api, request: &Request) -> Result<(Value, Vec<String>), Status> {
    let given = request.header(http::header::CONTENT_TYPE);
    let media = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let parsed = match media.as_str() {
        "" | JSON => mote_schema::prune::parse_json(&request.body),
        YAML | "application/x-yaml" | "text/yaml" => mote_schema::prune::parse_yaml(&request.body),
        PROTOBUF => parse_protobuf(api, &request.body).map(|value| (value, Vec::new())),
        _ => {
            return Err(Status::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
                ),
            ));
        }
    };
    parsed.map_err(Status::bad_request)
}

/// The kind is what the envelope says: a subresource's body is of another kind than its object.
fn parse_protobuf(api: &Api, body: &[u8]) -> Result<Value, String> {
    let envelope = protobuf::envelope(body)?;
    let (version, name) = (envelope.api_version.as_str(), envelope.kind.as_str());
    let parsed: GroupVersion = version.parse().map_err(|error| format!("{error}"))?;
    let catalog = api.catalog();
    // Upstream registers the options kinds in every group's version (meta/v1/register.go), and clients name the resource's.
    let group = if name == "DeleteOptions" { ("", "v1") } else { (&*parsed.group, &*parsed.version) };
    let kind = catalog.by_kind(group.0, group.1, name);
    let kind = kind.ok_or_else(|| format!("no kind {name:?} is registered for version {version:?}"))?;
    let mut value = protobuf::decode(kind, envelope.raw)?;
    value["apiVersion"] = Value::from(version);
    value["kind"] = Value::from(name);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let form = |shape, yaml| Ok(Form { shape, yaml });
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            ("", form(Shape::Object, false)),
            ("*/*", form(Shape::Object, false)),
            ("application/yaml", form(Shape::Object, true)),
            (kubectl, form(Shape::Table, false)),
            ("application/vnd.kubernetes.protobuf,application/json", form(Shape::Object, false)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", form(Shape::Metadata, false)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", form(Shape::Object, false)),
            ("application/json;q=0,application/yaml", form(Shape::Object, true)),
            ("application/json;stream=watch", form(Shape::Object, false)),
        ] {
            assert_eq!(negotiate(accept), expected, "{accept}");
        }
        assert_eq!(negotiate("text/html").map_err(|s| s.code), Err(406));
    }
}
