//! Admission policies in CEL, with real kubectl: what they refuse, warn of and change, and what of them is refused.
use mote_tests::{Kubectl, Server, eventually};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

/// A namespace, and policies that see nothing but it.
struct Room {
    kubectl: Kubectl,
    name: String,
}

impl Room {
    fn new(purpose: &str) -> Room {
        let kubectl = server().kubectl.namespace(purpose);
        Room { name: kubectl.name().to_owned(), kubectl }
    }

    /// A policy about ConfigMaps and its binding; `spec` and `binding` are laid over usual values.
    fn policy(&self, kind: &str, spec: Value, binding: Value) {
        let mut policy = json!({"matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.name}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"]}]}});
        let mut bound = json!({"policyName": self.name});
        for (target, over) in [(&mut policy, spec), (&mut bound, binding)] {
            for (key, value) in over.as_object().into_iter().flatten() {
                target[key] = value.clone();
            }
        }
        let object = |kind: &str, spec: Value| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": self.name},
                "spec": spec})
        };
        self.kubectl.apply(&object(kind, policy).to_string());
        self.kubectl.apply(&object(&format!("{kind}Binding"), bound).to_string());
    }
}

const VALIDATING: &str = "ValidatingAdmissionPolicy";
const MUTATING: &str = "MutatingAdmissionPolicy";

#[test]
fn a_policy_refuses_with_its_own_words() {
    let room = Room::new("policy-deny");
    room.policy(
        VALIDATING,
        json!({
        "variables": [{"name": "size", "expression": "object.data.size()"}],
        "matchConditions": [{"name": "mine", "expression": "object.metadata.name.startsWith('p-')"}],
        "validations": [
            {"expression": "variables.size < 3", "messageExpression": "'at most two, not ' + string(variables.size)"},
            {"expression": "!('secret' in object.data)", "reason": "Forbidden", "message": "no secrets here"},
            {"expression": "request.userInfo.username != '' && namespaceObject.metadata.name == request.namespace"},
            {"expression": "authorizer.requestResource.check('create').allowed()"},
        ]}),
        json!({"validationActions": ["Deny"]}),
    );
    room.kubectl.ok("create configmap p-small --from-literal=a=b");
    room.kubectl.ok("create configmap other --from-literal=a=b --from-literal=c=d --from-literal=e=f");
    let said = room.kubectl.fails("create configmap p-large --from-literal=a=b --from-literal=c=d --from-literal=e=f");
    let by = format!("ValidatingAdmissionPolicy '{0}' with binding '{0}' denied request: ", room.name);
    assert!(said.contains(&format!("configmaps \"p-large\" is forbidden: {by}at most two, not 3")), "{said}");
    let said = room.kubectl.fails("create configmap p-secret --from-literal=secret=b");
    assert!(said.contains(&format!("{by}no secrets here")), "{said}");
    let said = room.kubectl.fails("patch configmap p-small --type=merge -p {\"data\":{\"x\":\"y\",\"z\":\"y\"}}");
    assert!(said.contains("at most two, not 3"), "{said}");
}

#[test]
fn a_policy_may_only_warn() {
    let room = Room::new("policy-warn");
    room.policy(
        VALIDATING,
        json!({"validations": [{"expression": "has(object.data)", "message": "empty"}]}),
        json!({"validationActions": ["Warn", "Audit"]}),
    );
    let output = room.kubectl.run("create configmap none");
    let told = &output.stderr;
    assert!(output.success, "{told}");
    let warning =
        format!("Warning: Validation failed for ValidatingAdmissionPolicy '{0}' with binding '{0}': empty", room.name);
    assert!(told.contains(&warning), "{told}");
}

#[test]
fn params_come_from_the_cluster() {
    let room = Room::new("policy-params");
    room.policy(
        VALIDATING,
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "mine", "expression": "object.metadata.name.startsWith('p-')"}],
            "validations": [{"expression": "object.data.size() <= int(params.data.most)"}]}),
        // Params are looked for before conditions are asked, so they are kept out of the policy themselves.
        json!({"validationActions": ["Deny"],
            "matchResources": {"excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["configmaps"], "resourceNames": ["limits"]}]},
            "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}}),
    );
    let said = room.kubectl.fails("create configmap p-one --from-literal=a=b");
    assert!(said.contains("no params found for policy binding with `Deny` parameterNotFoundAction"), "{said}");
    room.kubectl.ok("create configmap limits --from-literal=most=1");
    room.kubectl.ok("create configmap p-one --from-literal=a=b");
    let said = room.kubectl.fails("create configmap p-two --from-literal=a=b --from-literal=c=d");
    assert!(said.contains("failed expression: object.data.size() <= int(params.data.most)"), "{said}");
}

#[test]
fn errors_follow_the_failure_policy() {
    for (policy, refuses) in [("Fail", true), ("Ignore", false)] {
        let room = Room::new("policy-error");
        room.policy(
            VALIDATING,
            json!({"failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]}),
            json!({"validationActions": ["Deny"]}),
        );
        if refuses {
            let said = room.kubectl.fails("create configmap a --from-literal=a=b");
            assert!(
                said.contains("expression 'object.data.missing == 'x'' resulted in error: no such key: missing"),
                "{said}"
            );
        } else {
            room.kubectl.ok("create configmap a --from-literal=a=b");
        }
    }
}

#[test]
fn policies_change_objects() {
    let room = Room::new("policy-mutate");
    room.policy(
        MUTATING,
        json!({
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: {'by': 'policy'}}, data: {'who': request.userInfo.username}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}},
            ]}),
        json!({}),
    );
    room.kubectl.ok("create configmap a --from-literal=x=y");
    let labels = room.kubectl.field("configmap/a", ".metadata.labels").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&labels).unwrap(), json!({"by": "policy", "a/b": "c"}));
    assert_eq!(room.kubectl.field("configmap/a", ".data.x").unwrap(), "y");
    assert!(!room.kubectl.field("configmap/a", ".data.who").unwrap().is_empty());
}

#[test]
fn what_does_not_compile_is_refused() {
    let room = Room::new("policy-compile");
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": VALIDATING,
        "metadata": {"name": room.name}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"]}]},
            "variables": [{"name": "v", "expression": "1"}],
            "validations": [{"expression": "variables.v + 'a' == 2"}, {"expression": "object.x"},
                {"expression": "true", "messageExpression": "1"}]}});
    let answer = server().client().post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", &policy);
    let status = answer.json();
    assert_eq!((answer.code, &status["reason"]), (422, &json!("Invalid")), "{status}");
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
    assert_eq!(
        fields,
        ["spec.validations[0].expression", "spec.validations[1].expression", "spec.validations[2].messageExpression"]
    );
    let text = causes[0]["message"].as_str().unwrap();
    assert!(
        text.contains("ERROR: <input>:1:13: found no matching overload for '_+_' applied to '(int, string)'"),
        "{text}"
    );
}

#[test]
fn the_status_tells_of_misspelt_fields() {
    let room = Room::new("policy-types");
    room.policy(
        VALIDATING,
        json!({"validations": [{"expression": "object.dat.size() == 0"}, {"expression": "object.data.size() == 0"}]}),
        json!({"validationActions": ["Audit"]}),
    );
    let warnings = eventually("type checking", 30, || {
        let path = ".status.typeChecking.expressionWarnings";
        let found = room.kubectl.field(&format!("validatingadmissionpolicy/{}", room.name), path)?;
        if found.is_empty() { Err("none yet".into()) } else { Ok(found) }
    });
    let warnings: Value = serde_json::from_str(&warnings).unwrap();
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let text = warnings[0]["warning"].as_str().unwrap();
    assert!(text.contains("v1, Kind=ConfigMap: ") && text.contains("undefined field 'dat'"), "{text}");
}
