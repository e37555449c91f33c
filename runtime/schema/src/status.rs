//! `metav1.Status`: every error a client sees, with the code, reason, message and causes that kube-apiserver gives.
use serde_json::{Value, json};

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
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

impl Cause {
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Cause { reason: "FieldValueRequired", message, field: field.into() }
    }
    /// `value` is shown as Go's %v of the JSON value (strings quoted).
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause { reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {detail}"), field: field.into() }
    }
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause { reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}"), field: field.into() }
    }
    pub fn not_found(field: impl Into<String>, value: &Value) -> Cause {
        Cause { reason: "FieldValueNotFound", message: format!("Not found: {value}"), field: field.into() }
    }
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Cause {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {list}"),
            field: field.into(),
        }
    }
    pub fn too_long(field: impl Into<String>, max: usize) -> Cause {
        Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {max} bytes"),
            field: field.into(),
        }
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
        Status::new(404, "NotFound", format!("{q} {name:?} not found")).of(group, resource, name)
    }
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(409, "AlreadyExists", format!("{q} {name:?} already exists")).of(group, resource, name)
    }
    pub fn conflict(group: &str, resource: &str, name: &str, detail: &str) -> Status {
        let q = Status::qualified(group, resource);
        Status::new(409, "Conflict", format!("Operation cannot be fulfilled on {q} {name:?}: {detail}"))
            .of(group, resource, name)
    }
    pub fn forbidden(group: &str, resource: &str, name: &str, detail: &str) -> Status {
        let q = Status::qualified(group, resource);
        let message = if name.is_empty() {
            format!("{q} is forbidden: {detail}")
        } else {
            format!("{q} {name:?} is forbidden: {detail}")
        };
        Status::new(403, "Forbidden", message).of(group, resource, name)
    }
    /// 422 with one cause per field; `kind` is the Kind ("Deployment").
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let list: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let detail = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let q = Status::qualified(group, kind);
        let mut s = Status::new(422, "Invalid", format!("{q} {name:?} is invalid: {detail}")).of(group, kind, name);
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
        Status::new(405, "MethodNotAllowed", format!("{verb} is not supported on resources of kind {q:?}"))
            .of(group, resource, "")
    }
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }
    pub fn internal(message: impl std::fmt::Display) -> Status {
        let mut s = Status::new(500, "InternalError", format!("Internal error occurred: {message}"));
        s.causes = vec![Cause { reason: "", message: message.to_string(), field: String::new() }];
        s
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
        let mut details = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                details.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut m = serde_json::Map::new();
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
            "message": self.message, "reason": self.reason, "code": self.code});
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}
impl std::error::Error for Status {}
