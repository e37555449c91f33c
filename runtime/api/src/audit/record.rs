//! One request's audit Event: filled while the request runs, written at the stages the policy wants
//! (apiserver/pkg/audit/{context,request}.go). The fields' order is that of upstream's type.
use super::{
    log::Log,
    policy::{Level, Stage, Verdict},
};
use crate::{
    Object,
    http::{RequestInfo, User},
};
use jiff::Timestamp;
use mote_schema::Status;
use mote_schema::{Value, json};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

/// As upstream cuts them off.
const MAX_USER_AGENT_BYTES: usize = 1024;
/// A body that is longer is not written: a line of the log is bounded as all else is.
const MAX_OBJECT_BYTES: usize = 512 * 1024;

/// What the front knows of a request.
pub struct Facts<'a> {
    pub id: &'a str,
    /// Path and query as they came.
    pub uri: String,
    pub user_agent: &'a str,
    pub source_ips: Vec<IpAddr>,
}

pub struct Record {
    log: Arc<Log>,
    verdict: Verdict,
    id: String,
    uri: String,
    verb: String,
    user: Option<Arc<User>>,
    source_ips: Vec<IpAddr>,
    user_agent: String,
    received: Timestamp,
    is_resource: bool,
    /// resource, namespace, name, uid, apiGroup, apiVersion, resourceVersion, subresource
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    impersonated: Option<(Arc<User>, String)>,
    object: [String; 8],
    code: u16,
    /// The bounded fields of a Status, when the answer is one.
    status: Option<Value>,
    request: Option<Value>,
    response: Option<Value>,
    annotations: BTreeMap<String, String>,
    complete: bool,
}

const OBJECT_FIELDS: [&str; 8] =
    ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"];
const NAMESPACE: usize = 1;
const NAME: usize = 2;
const UID: usize = 3;
const RESOURCE_VERSION: usize = 6;

impl Record {
    pub fn new(
        log: Arc<Log>,
        verdict: Verdict,
        user: Option<Arc<User>>,
        info: &RequestInfo,
        facts: Facts<'_>,
    ) -> Record {
        let mut user_agent = facts.user_agent.to_owned();
        if user_agent.len() > MAX_USER_AGENT_BYTES {
            user_agent.truncate(user_agent.floor_char_boundary(MAX_USER_AGENT_BYTES));
            user_agent.push_str("...TRUNCATED");
        }
        let mut state = State::default();
        if info.is_resource {
            let RequestInfo { resource, namespace, name, group, version, subresource, .. } = info;
            let none = String::new();
            state.object = [resource, namespace, name, &none, group, version, &none, subresource].map(Clone::clone);
        }
        Record {
            log,
            verdict,
            id: facts.id.into(),
            uri: facts.uri,
            verb: info.verb.clone(),
            user,
            source_ips: facts.source_ips,
            user_agent,
            received: Timestamp::now(),
            is_resource: info.is_resource,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn annotate(&self, key: &str, value: &str) {
        self.state().annotations.entry(key.into()).or_insert_with(|| value.into());
    }

    pub fn writes_bodies(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// `constraint` is the verb that allowed it, when a constrained one did.
    pub fn impersonates(&self, user: &Arc<User>, constraint: &str) {
        self.state().impersonated = Some((user.clone(), constraint.into()));
    }

    /// What the client sent, decoded; the first that is told counts.
    pub fn request_object(&self, object: &Value) {
        let mut state = self.state();
        let metadata = &object["metadata"];
        for (at, field) in
            [(NAMESPACE, "namespace"), (NAME, "name"), (UID, "uid"), (RESOURCE_VERSION, "resourceVersion")]
        {
            if self.is_resource && state.object[at].is_empty() {
                state.object[at] = metadata[field].as_str().unwrap_or("").into();
            }
        }
        if self.verdict.level >= Level::Request && state.request.is_none() {
            state.request = Some(self.cleaned(object.clone()));
        }
    }

    /// The body as it came, for what has no object: patches and options.
    pub fn request_body(&self, body: &[u8]) {
        let mut state = self.state();
        if self.verdict.level >= Level::Request && state.request.is_none() {
            state.request = self.parsed(body);
        }
    }

    pub fn response_object(&self, object: &Object) {
        if self.verdict.level >= Level::RequestResponse {
            self.state().response = Some(self.cleaned(object.to_value()));
        }
    }

    pub fn response_body(&self, body: &[u8]) {
        let mut state = self.state();
        if self.verdict.level >= Level::RequestResponse && state.response.is_none() {
            state.response = self.parsed(body);
        }
    }

    pub fn code(&self, code: u16) {
        self.state().code = code;
    }

    pub fn failed(&self, status: &Status) {
        let mut value = status.to_value();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| !matches!(name.as_str(), "kind" | "apiVersion"));
        }
        let mut state = self.state();
        state.code = status.code;
        state.status = Some(value);
    }

    /// Nobody authenticated: what was tried.
    pub fn unauthenticated(&self, tried: &[&str]) {
        let message = if tried.is_empty() {
            "Authentication failed, no credentials provided".to_owned()
        } else {
            format!("Authentication failed, attempted: {}", tried.join(", "))
        };
        let mut state = self.state();
        state.code = 401;
        state.status = Some(json!({"metadata": {}, "message": message, "code": 401}));
        drop(state);
        self.write(Stage::ResponseStarted);
        self.state().complete = true;
    }

    fn parsed(&self, body: &[u8]) -> Option<Value> {
        if body.len() > MAX_OBJECT_BYTES {
            return None;
        }
        let parsed = match body.first()? {
            b'{' | b'[' => serde_json::from_slice(body).ok(),
            // Protobuf's envelope.
            b'k' if body.starts_with(b"k8s\0") => None,
            _ => mote_schema::prune::parse_yaml(body).ok().map(|(value, _)| value).filter(Value::is_object),
        };
        parsed.map(|value| self.cleaned(value))
    }

    fn cleaned(&self, mut value: Value) -> Value {
        if self.verdict.omit_managed_fields {
            drop_managed_fields(&mut value);
            for field in ["items", "rows"] {
                for item in value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                    match item.get_mut("object") {
                        Some(object) => drop_managed_fields(object),
                        None => drop_managed_fields(item),
                    }
                }
            }
        }
        value
    }

    /// Writes the Event as it is now, unless the policy leaves the stage out.
    pub fn write(&self, stage: Stage) {
        if !self.verdict.omit_stages.has(stage) {
            self.log.write(&self.line(stage, Timestamp::now()));
        }
    }

    /// The last stage; what comes after it is not written.
    pub fn complete(&self) {
        if std::mem::replace(&mut self.state().complete, true) {
            return;
        }
        self.write(Stage::ResponseComplete);
    }

    fn line(&self, stage: Stage, now: Timestamp) -> String {
        let state = self.state();
        let mut line = Line(String::with_capacity(1024));
        line.text("kind", "Event");
        line.text("apiVersion", "audit.k8s.io/v1");
        line.text("level", self.verdict.level.name());
        line.text("auditID", &self.id);
        line.text("stage", stage.name());
        line.text("requestURI", &self.uri);
        line.text("verb", &self.verb);
        line.raw("user", &user(self.user.as_deref()));
        if let Some((impersonated, constraint)) = &state.impersonated {
            line.raw("impersonatedUser", &user(Some(impersonated)));
            if !constraint.is_empty() {
                line.value("authenticationMetadata", &json!({"impersonationConstraint": constraint}));
            }
        }
        if !self.source_ips.is_empty() {
            line.value("sourceIPs", &self.source_ips.iter().map(|ip| Value::from(ip.to_string())).collect());
        }
        line.some("userAgent", &self.user_agent);
        if self.is_resource {
            let mut object = Line(String::new());
            for (field, value) in OBJECT_FIELDS.iter().zip(&state.object) {
                object.some(field, value);
            }
            line.raw("objectRef", &object.end());
        }
        if stage != Stage::RequestReceived && state.code != 0 {
            match &state.status {
                Some(status) => line.value("responseStatus", status),
                None => line.value("responseStatus", &json!({"metadata": {}, "code": state.code})),
            }
        }
        for (field, object) in [("requestObject", &state.request), ("responseObject", &state.response)] {
            if let Some(object) = object {
                line.value(field, object);
            }
        }
        line.text("requestReceivedTimestamp", &micro_time(self.received));
        line.text("stageTimestamp", &micro_time(now));
        if !state.annotations.is_empty() {
            let annotations = state.annotations.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
            line.value("annotations", &Value::Object(annotations.collect()));
        }
        let mut line = line.end();
        line.push('\n');
        line
    }
}

/// A request that is dropped half done: the client went away, or (in builds that unwind) its handler panicked.
impl Drop for Record {
    fn drop(&mut self) {
        if self.state().complete {
            return;
        }
        let (stage, status) = if std::thread::panicking() {
            let message = "APIServer panic'd";
            (
                Stage::Panic,
                json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}),
            )
        } else {
            let message = "Connection closed early";
            (Stage::ResponseComplete, json!({"metadata": {}, "status": "Success", "message": message, "code": 200}))
        };
        let mut state = self.state();
        if state.code == 0 {
            state.code = 200;
            state.status = Some(status);
        }
        drop(state);
        self.write(stage);
    }
}

/// Completes a record when the answer's last byte is sent, or the client is gone.
pub struct Completes(pub Arc<Record>);

impl Drop for Completes {
    fn drop(&mut self) {
        self.0.complete();
    }
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// `metav1.MicroTime`
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// `authentication.k8s.io/v1 UserInfo`; nobody is an empty one.
fn user(user: Option<&User>) -> String {
    let mut line = Line(String::new());
    if let Some(User { name, uid, groups, extra }) = user {
        line.some("username", name);
        line.some("uid", uid);
        if !groups.is_empty() {
            line.value("groups", &json!(groups));
        }
        if !extra.is_empty() {
            line.value("extra", &json!(extra));
        }
    }
    line.end()
}

/// A JSON object being written, field by field.
struct Line(String);

impl Line {
    fn raw(&mut self, field: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        for part in ["\"", field, "\":", json] {
            self.0.push_str(part);
        }
    }
    fn value(&mut self, field: &str, value: &Value) {
        self.raw(field, &value.to_string());
    }
    fn text(&mut self, field: &str, text: &str) {
        self.value(field, &Value::from(text));
    }
    /// Left out when empty.
    fn some(&mut self, field: &str, text: &str) {
        if !text.is_empty() {
            self.text(field, text);
        }
    }
    fn end(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Policy, Rotation},
        http::{Query, request_info},
    };
    use std::path::PathBuf;

    fn record(level: &str, method: &str, path: &str) -> Record {
        let policy =
            format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules: [{{level: {level}}}]");
        let info = request_info(&method.parse().unwrap(), path, &Query::default()).unwrap();
        let user =
            User { uid: "u1".into(), extra: [("a".into(), vec!["b".into()])].into(), ..User::new("ann", &["g"]) };
        let verdict = Policy::parse(policy.as_bytes()).unwrap().verdict(Some(&user), &info);
        let rotation = Rotation { max_age_days: 0, max_files: 0, max_file_bytes: 1 };
        // Nothing runs this executor: no file is ever written.
        let log = Arc::new(Log::new(PathBuf::from("/nowhere/audit.log"), rotation, Default::default()));
        let facts = Facts {
            id: "id-1",
            uri: format!("{path}?x=1"),
            user_agent: "kubectl/v1",
            source_ips: vec![[127, 0, 0, 1].into()],
        };
        let mut record = Record::new(log, verdict, Some(Arc::new(user)), &info, facts);
        record.received = Timestamp::UNIX_EPOCH;
        record
    }

    #[test]
    fn an_event_reads_as_upstreams() {
        let record = record("RequestResponse", "POST", "/api/v1/namespaces/x/pods");
        record.request_object(&json!({"metadata": {"name": "p", "uid": "u", "managedFields": [1]}}));
        record.request_body(b"{}");
        record.annotate("b", "1");
        record.annotate("a", "2");
        record.annotate("b", "3");
        record.impersonates(&Arc::new(User::new("bob", &[])), "impersonate:user-info");
        let start =
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-1","stage":"#;
        let request = r#""requestURI":"/api/v1/namespaces/x/pods?x=1","verb":"create","user":{"username":"ann","uid":"u1","groups":["g"],"extra":{"a":["b"]}},"impersonatedUser":{"username":"bob"},"authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"},"sourceIPs":["127.0.0.1"],"userAgent":"kubectl/v1","objectRef":{"resource":"pods","namespace":"x","name":"p","uid":"u","apiVersion":"v1"},"#;
        let end = r#""requestObject":{"metadata":{"name":"p","uid":"u"}},"#;
        let times = r#""requestReceivedTimestamp":"1970-01-01T00:00:00.000000Z","stageTimestamp":"1970-01-01T00:00:01.500000Z","annotations":{"a":"2","b":"1"}}"#;
        let now = Timestamp::from_millisecond(1500).unwrap();
        let line = record.line(Stage::RequestReceived, now);
        assert_eq!(line, format!("{start}\"RequestReceived\",{request}{end}{times}\n"));
        record.code(201);
        record.response_body(br#"{"items":[{"metadata":{"managedFields":[]}}]}"#);
        let line = record.line(Stage::ResponseComplete, now);
        let status = r#""responseStatus":{"code":201,"metadata":{}},"#;
        let end = format!("{end}\"responseObject\":{{\"items\":[{{\"metadata\":{{}}}}]}},");
        assert_eq!(line, format!("{start}\"ResponseComplete\",{request}{status}{end}{times}\n"));
        record.failed(&Status::not_found("", "pods", "p"));
        let line = record.line(Stage::ResponseComplete, now);
        assert!(
            line.contains(
                r#""responseStatus":{"code":404,"details":{"kind":"pods","name":"p"},"message":"pods \"p\" not found""#
            ),
            "{line}"
        );
    }

    #[test]
    fn metadata_holds_no_bodies() {
        let record = record("Metadata", "PUT", "/api/v1/namespaces/x/secrets/s");
        record.request_object(&json!({"data": {"a": "c2VjcmV0"}}));
        record.request_body(b"{}");
        record.response_body(b"{}");
        let line = record.line(Stage::ResponseComplete, Timestamp::UNIX_EPOCH);
        assert!(!line.contains("requestObject") && !line.contains("responseObject"), "{line}");
    }
}
