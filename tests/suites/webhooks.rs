//! Admission webhooks, asked by the real binary: what they are sent, what they may answer, and what happens when they
//! are dead, slow, or lie.
use mote_tests::{
    Kubectl, Server,
    webhook::{Call, Reply, Webhook, own_address, patch, review},
};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

/// A namespace, and configurations that see nothing but it.
struct Room {
    kubectl: Kubectl,
    namespace: String,
}

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

impl Room {
    fn new(purpose: &str) -> Room {
        let kubectl = server().kubectl.namespace(purpose);
        Room { namespace: kubectl.name().to_owned(), kubectl }
    }

    /// One webhook with `over` laid over usual values; `suffix` orders several configurations.
    fn configure(&self, kind: &str, suffix: &str, over: Value) {
        let mut hook = json!({
            "name": format!("{suffix}.{}.example", self.namespace),
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
        });
        for (key, value) in over.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        let name = format!("{}-{suffix}", self.namespace);
        let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "webhooks": [hook]});
        let plural = format!("{}s", kind.to_lowercase());
        let answer = server().client().post(&format!("{GROUP}/{plural}"), &body);
        assert_eq!(answer.code, 201, "{}", answer.text());
    }

    fn validating(&self, webhook: &Webhook, over: Value) {
        let mut all = json!({"clientConfig": webhook.client_config("/check")});
        all.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        self.configure("ValidatingWebhookConfiguration", "v", all);
    }

    fn mutating(&self, suffix: &str, webhook: &Webhook, path: &str, over: Value) {
        let mut all = json!({"clientConfig": webhook.client_config(path)});
        all.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        self.configure("MutatingWebhookConfiguration", suffix, all);
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Code and body.
    fn create(&self, name: &str, query: &str) -> (u16, Value) {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
        let answer = server().client().post(&self.path(&format!("configmaps{query}")), &body);
        (answer.code, answer.json())
    }
}

fn allow(call: &Call) -> Reply {
    review(call, json!({}))
}

#[test]
fn a_validating_webhook_is_told_all_and_its_own_words_reach_the_client() {
    let room = Room::new("deny");
    let webhook = Webhook::start(&[], |call| match call.request()["object"]["metadata"]["name"].as_str() {
        Some("bad") => review(
            call,
            json!({"allowed": false, "status": {"code": 418, "reason": "Teapot", "message": "no maps here",
                "details": {"causes": [{"reason": "r", "message": "m", "field": "data"}]}}}),
        ),
        Some("mute") => review(call, json!({"allowed": false})),
        _ => review(call, json!({"warnings": ["careful: \"maps\""]})),
    });
    room.validating(&webhook, json!({}));
    let (code, status) = room.create("bad", "");
    let name = format!("v.{}.example", room.namespace);
    assert_eq!((code, &status["code"], &status["reason"]), (418, &json!(418), &json!("Teapot")));
    assert_eq!(status["message"], format!("admission webhook \"{name}\" denied the request: no maps here"));
    assert_eq!(status["details"]["causes"][0]["field"], "data");
    let (code, status) = room.create("mute", "");
    assert_eq!(
        (code, &status["message"]),
        (400, &json!(format!("admission webhook \"{name}\" denied the request without explanation")))
    );
    let said = room.kubectl.run("create configmap good --from-literal=a=b");
    assert!(said.success, "{}", said.stderr);
    assert!(said.stderr.contains("Warning: careful: \"maps\""), "{}", said.stderr);

    let calls = webhook.calls();
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/check?timeout=2s"));
    assert_eq!(call.header("content-type"), Some("application/json"));
    let asked = call.json();
    assert_eq!((&asked["kind"], &asked["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let request = call.request();
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    assert_eq!((&request["kind"], &request["requestKind"]), (&kind, &kind));
    assert_eq!((&request["resource"], &request["requestResource"]), (&resource, &resource));
    assert_eq!((&request["name"], &request["namespace"]), (&json!("bad"), &json!(room.namespace)));
    assert_eq!((&request["operation"], &request["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert!(request["userInfo"]["groups"].as_array().unwrap().contains(&json!("system:masters")), "{request}");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["options"]["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(calls[2].request()["options"]["fieldManager"], "kubectl-create");
    assert_eq!((&request["object"]["kind"], &request["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(request["object"]["data"], json!({"a": "b"}));
    assert_eq!(request["oldObject"], Value::Null);
    assert!(request["uid"].as_str().is_some_and(|uid| uid.len() == 36));
}

#[test]
fn mutating_webhooks_run_in_order_and_again_when_they_asked_for_that() {
    let room = Room::new("mutate");
    let webhook = Webhook::start(&[], |call| {
        let object = call.request()["object"].clone();
        let data = &object["data"];
        let operations = match call.target.split('?').next().unwrap_or("") {
            // Notes who was here before it.
            "/first" => {
                json!([{"op": "add", "path": "/data/first", "value": format!("{}", data.get("second").is_some())}])
            }
            "/second" if data.get("second").is_none() => json!([{"op": "add", "path": "/data/second", "value": "x"}]),
            "/nothing" => return review(call, json!({})),
            _ => json!([]),
        };
        review(call, patch(operations))
    });
    // A generated name is unknown while the object is changed.
    room.mutating("a", &webhook, "/first", json!({"reinvocationPolicy": "IfNeeded"}));
    room.mutating("b", &webhook, "/second", json!({}));
    room.mutating("c", &webhook, "/nothing", json!({"reinvocationPolicy": "IfNeeded"}));
    let (code, made) = room.create("it", "");
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["data"], json!({"a": "b", "first": "true", "second": "x"}));
    let paths: Vec<String> = webhook.calls().iter().map(|call| call.target.replace("?timeout=2s", "")).collect();
    assert_eq!(paths, ["/first", "/second", "/nothing", "/first", "/nothing"]);
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}, "data": {"a": "b"}});
    let before = webhook.calls().len();
    let made = server().client().post(&room.path("configmaps"), &body).json();
    let request = webhook.calls()[before].request();
    assert!(made["metadata"]["name"].as_str().is_some_and(|name| name.len() == 9), "{made}");
    assert_eq!((&request["name"], &request["object"]["metadata"]["uid"]), (&Value::Null, &Value::Null));
}

#[test]
fn failures_end_the_request_or_do_not_as_the_policy_says() {
    let room = Room::new("fail");
    let dead = mote_tests::server::free_port();
    let webhook = Webhook::start(&[], |call| match call.target.split('?').next().unwrap_or("") {
        "/silence" => Reply::Silence,
        "/hangup" => Reply::Hangup,
        "/gone" => Reply::Text(404, "nothing here"),
        "/broken" => Reply::Text(500, "I fell over"),
        "/page" => Reply::Text(200, "<html>"),
        "/empty" => Reply::Text(200, ""),
        "/list" => Reply::Json(200, json!([1])),
        "/uid" => review(call, json!({"uid": "other"})),
        "/patch" => review(call, patch(json!([{"op": "add", "path": "/data/x", "value": "y"}]))),
        "/absent" => Reply::Json(200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"})),
        "/kind" => Reply::Json(
            200,
            json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": call.request()["uid"], "allowed": true}}),
        ),
        _ => Reply::Json(403, json!({"kind": "Status", "status": "Failure", "message": "who are you", "code": 403})),
    });
    let stranger = Webhook::start(&[], allow);
    let name = format!("v.{}.example", room.namespace);
    let url = |path: &str| format!("https://127.0.0.1:{}{path}?timeout=1s", webhook.port);
    let call = |path: &str, why: &str| {
        let post = format!("failed to call webhook: Post \"{}\": {why}", url(path));
        (json!({"url": format!("https://127.0.0.1:{}{path}", webhook.port), "caBundle": webhook.ca_bundle}), post)
    };
    let said = |path: &str, why: &str| (webhook.client_config(path), why.to_owned());
    let cases = [
        (
            json!({"url": format!("https://127.0.0.1:{dead}/"), "caBundle": webhook.ca_bundle}),
            format!(
                "failed to call webhook: Post \"https://127.0.0.1:{dead}/?timeout=1s\": dial tcp 127.0.0.1:{dead}: connect: connection refused"
            ),
        ),
        (
            json!({"url": format!("https://127.0.0.1:{}/x", stranger.port), "caBundle": webhook.ca_bundle}),
            format!(
                "failed to call webhook: Post \"https://127.0.0.1:{}/x?timeout=1s\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                stranger.port
            ),
        ),
        (
            json!({"service": {"namespace": "nowhere", "name": "hook", "path": "/p"}}),
            "failed to call webhook: Post \"https://hook.nowhere.svc:443/p?timeout=1s\": service \"hook\" not found"
                .to_owned(),
        ),
        call("/silence", "context deadline exceeded"),
        call("/hangup", "EOF"),
        said("/gone", "failed to call webhook: the server could not find the requested resource"),
        said(
            "/broken",
            "failed to call webhook: an error on the server (\"I fell over\") has prevented the request from succeeding",
        ),
        said(
            "/page",
            "failed to call webhook: couldn't get version/kind; json parse error: invalid character '<' looking for beginning of value",
        ),
        said("/empty", "failed to call webhook: 0-length response with status code: 200 and content type: text/plain"),
        said(
            "/list",
            "failed to call webhook: couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }",
        ),
        said("/forbidden", "failed to call webhook: who are you"),
        said("/absent", "received invalid webhook response: webhook response was absent"),
        said("/patch", "received invalid webhook response: validating webhook may not return response.patch"),
        said(
            "/kind",
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod",
        ),
    ];
    for (index, (config, why)) in cases.iter().enumerate() {
        room.configure("ValidatingWebhookConfiguration", "v", json!({"clientConfig": config, "timeoutSeconds": 1}));
        let (code, status) = room.create(&format!("m{index}"), "");
        let expected = format!("Internal error occurred: failed calling webhook \"{name}\": {why}");
        assert_eq!(
            (code, &status["reason"], status["message"].as_str().unwrap_or("")),
            (500, &json!("InternalError"), expected.as_str())
        );
        let target = format!("validatingwebhookconfiguration/{}-v", room.namespace);
        server().kubectl.ok(&format!("patch {target} --type=json -p [{{\"op\":\"add\",\"path\":\"/webhooks/0/failurePolicy\",\"value\":\"Ignore\"}}]"));
        let (code, made) = room.create(&format!("m{index}"), "");
        assert_eq!(code, 201, "{made}");
        server().kubectl.ok(&format!("delete {target}"));
    }
    let metrics = server().client().get("/metrics").text();
    for line in [
        format!("apiserver_admission_webhook_fail_open_count{{name=\"{name}\",type=\"validating\"}} {}", cases.len()),
        format!("apiserver_admission_webhook_rejection_count{{error_type=\"calling_webhook_error\",name=\"{name}\""),
    ] {
        assert!(metrics.contains(&line), "no {line}");
    }
}

#[test]
fn a_dry_run_is_refused_where_the_webhook_has_side_effects() {
    let room = Room::new("dry");
    let webhook = Webhook::start(&[], allow);
    room.validating(&webhook, json!({"sideEffects": "NoneOnDryRun"}));
    let (code, _) = room.create("a", "?dryRun=All");
    assert_eq!(code, 201);
    let request = webhook.calls()[0].request();
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert!(room.kubectl.fails("get configmap a").contains("not found"));
    // Some is refused in a new configuration: only a v1beta1 one of old could still say so.
    let body = json!({"metadata": {"name": "x"}, "webhooks": [{"name": "x.y.z", "sideEffects": "Some",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://h"}}]});
    let answer = server().client().post(&format!("{GROUP}/validatingwebhookconfigurations"), &body);
    assert_eq!(answer.code, 422);
    assert_eq!(
        answer.json()["message"],
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"x\" is invalid: webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""
    );
}

#[test]
fn every_operation_and_subresource_passes() {
    let room = Room::new("ops");
    let webhook = Webhook::start(&[], allow);
    let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    room.validating(&webhook, json!({"rules": rules}));
    let seen = |from: usize| -> Vec<String> {
        let calls = webhook.calls();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let of = |call: &Call| {
            let request = call.request();
            let sub = text(&request["subResource"]);
            let sub = if sub.is_empty() { sub } else { format!("/{sub}") };
            format!(
                "{} {}{sub} {}",
                text(&request["operation"]),
                text(&request["resource"]["resource"]),
                text(&request["kind"]["kind"])
            )
        };
        calls[from..].iter().map(of).filter(|line| !line.contains("events") && !line.contains("replicasets")).collect()
    };
    let mut from = 0;
    let mut step = |expected: &[&str]| {
        let found = seen(from);
        from = webhook.calls().len();
        for line in expected {
            assert!(found.iter().any(|found| found == line), "no {line} in {found:?}");
        }
    };
    let kubectl = &room.kubectl;
    kubectl.ok("create deployment web --image=localhost/x --replicas=0");
    kubectl.ok("scale deployment web --replicas=0");
    kubectl.ok("patch deployment web -p {\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
    kubectl.ok("patch deployment web --subresource=status --type=merge -p {\"status\":{\"observedGeneration\":1}}");
    step(&[
        "CREATE deployments Deployment",
        "UPDATE deployments/scale Scale",
        "UPDATE deployments Deployment",
        "UPDATE deployments/status Deployment",
    ]);
    kubectl.ok("run one --image=localhost/x --restart=Never");
    assert!(kubectl.fails("exec one -- true").contains("does not have a host assigned"));
    kubectl.ok("create token default");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"}});
    assert_eq!(server().client().post(&room.path("pods/one/eviction"), &eviction).code, 201);
    step(&[
        "CREATE pods Pod",
        "CONNECT pods/exec PodExecOptions",
        "CREATE serviceaccounts/token TokenRequest",
        "CREATE pods/eviction Eviction",
    ]);
    kubectl.ok("create configmap a");
    kubectl.ok("delete configmap a");
    kubectl.ok("delete configmap --all");
    step(&["CREATE configmaps ConfigMap", "DELETE configmaps ConfigMap"]);
    let calls = webhook.calls();
    let deleted =
        calls.iter().map(Call::request).find(|r| r["operation"] == "DELETE" && r["name"] == "a").expect("a DELETE");
    assert_eq!((&deleted["object"], &deleted["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("a")));
    assert_eq!(deleted["options"]["kind"], "DeleteOptions");
    let exec = calls.iter().map(Call::request).find(|r| r["subResource"] == "exec").expect("an exec");
    assert_eq!((&exec["object"]["command"], &exec["name"]), (&json!(["true"]), &json!("one")));
}

#[test]
fn a_webhook_behind_a_service_is_reached_without_a_service_proxy() {
    let room = Room::new("service");
    let Some(address) = own_address() else { return };
    let name = format!("hook.{}.svc", room.namespace);
    let webhook = Webhook::start(&[&name], |call| {
        review(call, patch(json!([{"op": "add", "path": "/data/c", "value": call.header("host")}])))
    });
    let service = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: hook}}
spec: {{ports: [{{name: https, port: 8443, targetPort: 1}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: hook-1, labels: {{kubernetes.io/service-name: hook}}}}
addressType: IPv4
ports: [{{name: https, port: {}}}]
endpoints:
- addresses: [192.0.2.9]
  conditions: {{ready: false}}
- addresses: [{address}]
",
        webhook.port
    );
    room.kubectl.apply(&service);
    let config = json!({"service": {"namespace": room.namespace, "name": "hook", "port": 8443, "path": "/m"}, "caBundle": webhook.ca_bundle});
    room.configure("MutatingWebhookConfiguration", "m", json!({"clientConfig": config}));
    for index in 0..3 {
        let (code, made) = room.create(&format!("m{index}"), "");
        assert_eq!((code, &made["data"]["c"]), (201, &json!(format!("{name}:8443"))), "{made}");
    }
    room.kubectl.ok("delete endpointslice hook-1");
    let (_, status) = room.create("late", "");
    let why = format!(
        "failed to call webhook: Post \"https://{name}:8443/m?timeout=2s\": no endpoints available for service \"hook\""
    );
    assert!(status["message"].as_str().is_some_and(|message| message.ends_with(&why)), "{status}");
}

#[test]
fn equivalent_versions_match_and_are_sent_as_asked_for() {
    let room = Room::new("equal");
    let webhook = Webhook::start(&[], allow);
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]}]);
    room.validating(&webhook, json!({"rules": rules}));
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}});
    let path = format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers", room.namespace);
    assert_eq!(server().client().post(&path, &scaler).code, 201);
    let request = webhook.calls()[0].request();
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 70);
}

#[test]
fn configurations_are_never_asked_about_and_are_checked() {
    let room = Room::new("exempt");
    let webhook = Webhook::start(&[], allow);
    let rules = json!([{"operations": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "resources": ["*"]}]);
    room.validating(&webhook, json!({"rules": rules, "namespaceSelector": {}}));
    room.validating_again(&webhook);
    assert!(webhook.calls().is_empty());
    let bad = json!({"metadata": {"name": "bad"}, "webhooks": [
        {"name": "a.b", "sideEffects": "None", "admissionReviewVersions": ["v2"], "timeoutSeconds": 31,
            "clientConfig": {"url": "http://u@h/?q#f"},
            "rules": [{"operations": ["CREATE", "*"], "apiGroups": ["*", "apps"], "apiVersions": [""], "resources": ["*/*", "pods"]}]},
        {"name": "c.d.e", "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "x//y", "port": 0}}},
        {"name": "c.d.e", "sideEffects": "None", "admissionReviewVersions": ["v1", "v1"], "clientConfig": {}, "failurePolicy": "Never"},
    ]});
    let answer = server().client().post(&format!("{GROUP}/validatingwebhookconfigurations"), &bad).json();
    let causes = answer["details"]["causes"].as_array().expect("causes");
    let found: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c["field"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or("")))
        .collect();
    for expected in [
        "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        "webhooks[0].rules[0].operations: Invalid value: [\"CREATE\",\"*\"]: if '*' is present, must not specify other operations",
        "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"apps\"]: if '*' is present, must not specify other API groups",
        "webhooks[0].rules[0].apiVersions[0]: Required value",
        "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
        "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
        "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        "webhooks[1].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        "webhooks[1].clientConfig.service.path: Invalid value: \"x//y\": must start with a '/'",
        "webhooks[1].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        "webhooks[2].name: Duplicate value: \"c.d.e\"",
        "webhooks[2].clientConfig: Required value: exactly one of url or service is required",
        "webhooks[2].failurePolicy: Unsupported value: \"Never\": supported values: \"Fail\", \"Ignore\"",
        "webhooks[2].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
    ] {
        assert!(found.iter().any(|line| line == expected), "no {expected} in {found:#?}");
    }
}

impl Room {
    /// Another configuration, about which the first would be asked if anybody were.
    fn validating_again(&self, webhook: &Webhook) {
        self.configure("ValidatingWebhookConfiguration", "w", json!({"clientConfig": webhook.client_config("/w")}));
    }
}

#[test]
fn match_conditions_decide_before_the_webhook_is_asked() {
    let room = Room::new("conditions");
    let webhook = Webhook::start(&[], allow);
    let condition = |expression: &str| json!([{"name": "c", "expression": expression}]);
    room.validating(
        &webhook,
        json!({"matchConditions": condition("object.metadata.name != 'skipped' && request.operation == 'CREATE'")}),
    );
    assert_eq!(room.create("skipped", "").0, 201);
    assert!(webhook.calls().is_empty());
    assert_eq!(room.create("asked", "").0, 201);
    assert_eq!(webhook.calls().len(), 1);
    let target = format!("validatingwebhookconfiguration/{}-v", room.namespace);
    server().kubectl.ok(&format!("delete {target}"));
    room.validating(&webhook, json!({"matchConditions": condition("object.data.nothing == 'x'")}));
    let (code, status) = room.create("broken", "");
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{status}");
    assert_eq!(webhook.calls().len(), 1);
    let bad = json!({"metadata": {"name": "bad-condition"}, "webhooks": [{"name": "a.b.c", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://h"}, "matchConditions": condition("object.")}]});
    let answer = server().client().post(&format!("{GROUP}/validatingwebhookconfigurations"), &bad).json();
    let message = answer["message"].as_str().unwrap_or("").to_owned();
    assert!(
        message.contains("webhooks[0].matchConditions[0].expression: Invalid value: \"object.\": compilation failed"),
        "{message}"
    );
}
