//! `metav1.Status`: every error a client sees, with the code, reason, message and causes that kube-apiserver gives.
use crate::{Value, json};

#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub name: String,
    pub group: String,
    /// The resource ("pods") or kind, as upstream fills `details.kind` for this reason.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
    /// `metadata.continue`: how an expired LIST may go on.
    pub continue_token: Option<String>,
    /// `details` is there, empty or not: what upstream's router says before a handler is asked.
    pub with_details: bool,
    /// The whole Status as a webhook wrote it, with words and details of its own: what the client gets.
    pub verbatim: Option<Box<Value>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

/// field.Error's text for a bad value (apimachinery/pkg/util/validation/field/errors.go): strings as Go quotes them,
/// numbers and booleans bare, all else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => {
            let mut out = Vec::new();
            if let Ok(doc) = crate::Doc::encode(value) {
                doc.write_json(&mut out);
            }
            String::from_utf8(out).unwrap_or_default()
        }
    }
}

/// `text` as Go's %q prints it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\'' => out.push(c),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\\' | '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            '\0'..' ' | '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if c.escape_debug().len() == 1 => out.push(c),
            ..'\u{10000}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// "1 byte", "2 bytes"
fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl Cause {
    fn of(reason: &'static str, message: String, field: impl Into<String>) -> Cause {
        Cause { reason, message, field: field.into() }
    }
    /// "Invalid value: 7: must be small"; the detail may be empty.
    fn bad(
        reason: &'static str,
        what: &str,
        field: impl Into<String>,
        value: impl std::fmt::Display,
        detail: &str,
    ) -> Cause {
        let separator = if detail.is_empty() { "" } else { ": " };
        Cause::of(reason, format!("{what}: {value}{separator}{detail}"), field)
    }
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let separator = if detail.is_empty() { "" } else { ": " };
        Cause::of("FieldValueRequired", format!("Required value{separator}{detail}"), field)
    }
    /// Strings are quoted, numbers and booleans bare, lists and objects JSON.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause::bad("FieldValueInvalid", "Invalid value", field, shown(value), detail)
    }
    /// The value's JSON type is wrong; looks like `invalid` with another reason.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause::bad("FieldValueTypeInvalid", "Invalid value", field, shown(value), detail)
    }
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        let separator = if detail.is_empty() { "" } else { ": " };
        Cause::of("FieldValueForbidden", format!("Forbidden{separator}{detail}"), field)
    }
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause::bad("FieldValueDuplicate", "Duplicate value", field, shown(value), "")
    }
    pub fn not_found(field: impl Into<String>, value: &Value) -> Cause {
        Cause::bad("FieldValueNotFound", "Not found", field, shown(value), "")
    }
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Cause {
        let list = supported.iter().map(|s| go_quote(s)).collect::<Vec<_>>().join(", ");
        let detail = if list.is_empty() { list } else { format!("supported values: {list}") };
        Cause::bad("FieldValueNotSupported", "Unsupported value", field, shown(value), &detail)
    }
    pub fn too_long(field: impl Into<String>, max: usize) -> Cause {
        let message = format!("Too long: may not be more than {}", plural(max, "byte", "bytes"));
        Cause::of("FieldValueTooLong", message, field)
    }
    pub fn too_many(field: impl Into<String>, count: usize, max: usize) -> Cause {
        let detail = format!("must have at most {}", plural(max, "item", "items"));
        Cause::bad("FieldValueTooMany", "Too many", field, count, &detail)
    }
    pub fn too_few(field: impl Into<String>, count: usize, min: usize) -> Cause {
        let detail = format!("must have at least {}", plural(min, "item", "items"));
        Cause::bad("FieldValueTooFew", "Too few", field, count, &detail)
    }
    /// One `invalid` per message of a check in `validate`.
    pub fn each(field: &str, value: &str, messages: Vec<String>) -> impl Iterator<Item = Cause> {
        let value = Value::from(value);
        messages.into_iter().map(move |message| Cause::invalid(field, &value, &message))
    }
}

impl Status {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status {
            code,
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            continue_token: None,
            with_details: false,
            verbatim: None,
        }
    }
    fn of(mut self, group: &str, kind: &str, name: &str) -> Status {
        self.group = group.into();
        self.kind = kind.into();
        self.name = name.into();
        self
    }
    /// `resource.group` as upstream prints it: "pods", "deployments.apps".
    fn qualified(group: &str, resource: &str) -> String {
        if group.is_empty() { resource.into() } else { format!("{resource}.{group}") }
    }
    pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(404, "NotFound", format!("{q} {} not found", go_quote(name))).of(group, resource, name)
    }
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(409, "AlreadyExists", format!("{q} {} already exists", go_quote(name))).of(group, resource, name)
    }
    pub fn conflict(group: &str, resource: &str, name: &str, detail: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(409, "Conflict", format!("Operation cannot be fulfilled on {q} {}: {detail}", go_quote(name)))
            .of(group, resource, name)
    }
    pub fn forbidden(group: &str, resource: &str, name: &str, detail: &str) -> Status {
        let q = Status::qualified(group, resource);
        let message = if q.is_empty() {
            format!("forbidden: {detail}")
        } else if name.is_empty() {
            format!("{q} is forbidden: {detail}")
        } else {
            format!("{q} {} is forbidden: {detail}", go_quote(name))
        };
        Status::new(403, "Forbidden", message).of(group, resource, name)
    }
    /// 422 with one cause per field; `kind` is the Kind ("Deployment").
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let q = Status::qualified(group, kind);
        let mut message = format!("{q} {} is invalid", go_quote(name));
        if !causes.is_empty() {
            message += ": ";
            message += &aggregate(&causes);
        }
        let mut s = Status::new(422, "Invalid", message).of(group, kind, name);
        s.causes = causes;
        s
    }
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }
    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(405, "MethodNotAllowed", format!("{verb} is not supported on resources of kind {}", go_quote(&q)))
            .of(group, resource, "")
    }
    /// What upstream's router says of a path nobody serves (404), a method or a media type nobody takes there (405, 406, 415), before
    /// any handler is asked (apimachinery's NewGenericServerResponse).
    pub fn unrouted(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { with_details: true, ..Status::new(code, reason, message) }
    }
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }
    pub fn internal(message: impl std::fmt::Display) -> Status {
        let mut s = Status::new(500, "InternalError", format!("Internal error occurred: {message}"));
        s.causes = vec![Cause { reason: "", message: message.to_string(), field: String::new() }];
        s
    }
    /// No unique name was found for a generateName; the client may try again.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Status {
        let q = Status::qualified(group, resource);
        let message = format!(
            "{q} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        Status::new(409, "AlreadyExists", message).of(group, resource, name).retry_after(1)
    }
    /// A server-side apply that would take fields which others own.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Status {
        Status { causes, ..Status::new(409, "Conflict", message) }
    }
    /// 500 with reason ServerTimeout: try again. The name in the details is the operation, as upstream has it.
    pub fn server_timeout(group: &str, resource: &str, operation: &str, retry_after_seconds: u32) -> Status {
        let q = Status::qualified(group, resource);
        let message =
            format!("The {operation} operation against {q} could not be completed at this time, please try again.");
        Status::new(500, "ServerTimeout", message).of(group, resource, operation).retry_after(retry_after_seconds)
    }
    /// 504: the operation may still complete.
    pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Status {
        Status::new(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status::new(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }
    pub fn too_large(message: impl std::fmt::Display) -> Status {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }
    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::new(503, "ServiceUnavailable", message)
    }
    /// No representation that the client accepts; `accepted` are the media types there are.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let list = accepted.join(", ");
        Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {list}"))
    }
    /// A body in a media type that is not understood.
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let list = accepted.join(", ");
        Status::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types include: {list}"),
        )
    }
    /// A path that nothing is served at.
    pub fn no_such_path() -> Status {
        Status::unrouted(404, "NotFound", "the server could not find the requested resource")
    }
    fn retry_after(mut self, seconds: u32) -> Status {
        self.retry_after_seconds = Some(seconds).filter(|seconds| *seconds > 0);
        self
    }
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
    pub fn to_value(&self) -> Value {
        if let Some(verbatim) = &self.verbatim {
            return (**verbatim).clone();
        }
        let mut details = crate::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                details.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut m = crate::Map::new();
                for (key, text) in [("reason", c.reason), ("message", c.message.as_str()), ("field", c.field.as_str())]
                {
                    if !text.is_empty() {
                        m.insert(key.into(), json!(text));
                    }
                }
                Value::Object(m)
            });
            details.insert("causes".into(), causes.collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(token) = &self.continue_token {
            status["metadata"] = json!({"continue": token});
        }
        if !details.is_empty() || self.with_details {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// Go's aggregate of errors: each text once, in brackets when there are several.
pub(crate) fn aggregate(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = format!("{}: {}", cause.field, cause.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}
impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_as_upstream_prints_them() {
        let invalid = |value: Value| Cause::invalid("f", &value, "no").message;
        assert_eq!(invalid(json!("a\"b<\u{7f}é\n")), r#"Invalid value: "a\"b<\x7fé\n": no"#);
        assert_eq!(invalid(json!(-1)), "Invalid value: -1: no");
        assert_eq!(invalid(json!(true)), "Invalid value: true: no");
        assert_eq!(invalid(json!({"a": ["<"]})), r#"Invalid value: {"a":["\u003c"]}: no"#);
        assert_eq!(Cause::required("f", "").message, "Required value");
        assert_eq!(Cause::too_long("f", 1).message, "Too long: may not be more than 1 byte");
        assert_eq!(Cause::too_many("f", 3, 2).message, "Too many: 3: must have at most 2 items");
        assert_eq!(
            Cause::not_supported("f", &json!("x"), &["A", "B"]).message,
            r#"Unsupported value: "x": supported values: "A", "B""#
        );
        assert_eq!(Cause::duplicate("f", &json!(80)).message, "Duplicate value: 80");
    }

    #[test]
    fn invalid_lists_each_cause_once() {
        let message = |causes| Status::invalid("apps", "Deployment", "d", causes).message;
        let (a, b) = (Cause::required("spec.a", ""), Cause::forbidden("spec.b", "no"));
        assert_eq!(message(vec![]), r#"Deployment.apps "d" is invalid"#);
        assert_eq!(message(vec![a.clone(), a.clone()]), r#"Deployment.apps "d" is invalid: spec.a: Required value"#);
        assert_eq!(
            message(vec![a, b]),
            r#"Deployment.apps "d" is invalid: [spec.a: Required value, spec.b: Forbidden: no]"#
        );
    }

    #[test]
    fn a_status_as_json() {
        let status = Status::generate_name_conflict("", "pods", "p-x").to_value();
        assert_eq!(status["code"], 409);
        assert_eq!(status["details"], json!({"name": "p-x", "kind": "pods", "retryAfterSeconds": 1}));
        assert_eq!(Status::unauthorized().to_value().get("details"), None);
        assert_eq!(Status::forbidden("", "", "", "no").message, "forbidden: no");
    }
}
