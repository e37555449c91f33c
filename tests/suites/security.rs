//! Who may do what, who gets a turn, and what is written down of it: on an API server alone, with real kubectl.
use base64::{Engine as _, prelude::BASE64_STANDARD};
use mote_tests::{Kubectl, Server, eventually, server::scratch};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use serde_json::{Value, json};
use std::{fs, path::Path, sync::OnceLock};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

/// A server whose `apiServer` section has more in it; `files` are beside the configuration, DIR in it is where.
fn server_with(api_server: &str, files: &[(&str, &str)]) -> Server {
    let dir = scratch();
    fs::create_dir_all(dir.join("config.d")).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
    let section = api_server.replace("DIR", &dir.display().to_string());
    fs::write(dir.join("config.d/test.yaml"), format!("apiServer: {{{section}}}\n")).unwrap();
    Server::start_at(dir, "components: {disabled: [kubelet, network]}\n")
}

fn events(server: &Server) -> Vec<Value> {
    let text = fs::read_to_string(server.dir.join("data/audit/audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is an event")).collect()
}

#[test]
fn the_audit_log_tells_who_did_what_and_no_secrets() {
    let server = server_with("auditLog: {profile: WriteRequestBodies}", &[]);
    assert!(!server.dir.join("data/audit").exists(), "a node that nobody asks writes nothing");
    let kubectl = &server.kubectl;
    kubectl.wait_for_account();
    kubectl.ok("create secret generic s --from-literal=word=open-sesame");
    kubectl.ok("create configmap c --from-literal=word=hush-hush");
    kubectl.ok("create deployment d --image=localhost/nothing:1 --replicas=0");
    kubectl.ok_args(&["patch", "deployment", "d", "-p", r#"{"spec":{"paused":true}}"#]);
    kubectl.fails("get pods --as ann");
    let token = kubectl.ok("create token default");
    server.client().with_token(token.trim()).get("/api/v1/namespaces/default/pods");
    server.client().with_token("rubbish").get("/api/v1/pods");
    let found = |what: &str, test: &dyn Fn(&Value) -> bool| -> Value {
        eventually(what, 5, || {
            events(&server).into_iter().rfind(|event| test(event)).ok_or_else(|| "not yet".to_owned())
        })
    };
    let is = |verb: &'static str, resource: &'static str| {
        move |event: &Value| event["verb"] == verb && event["objectRef"]["resource"] == resource
    };
    let secret = found("the secret", &is("create", "secrets"));
    assert_eq!((&secret["level"], &secret["objectRef"]["name"]), (&json!("Metadata"), &json!("s")));
    assert_eq!(secret["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(found("the ConfigMap", &is("create", "configmaps"))["requestObject"], Value::Null);
    let deployment = found("the Deployment", &is("create", "deployments"));
    assert_eq!(deployment["requestObject"]["spec"]["replicas"], 0);
    assert_eq!(deployment["responseObject"]["metadata"]["name"], "d");
    assert_eq!(deployment["responseObject"]["metadata"]["managedFields"], Value::Null);
    let patch = found("the patch", &is("patch", "deployments"));
    assert_eq!(patch["requestObject"], json!({"spec": {"paused": true}}));
    let ann = found("a refusal", &|event| event["impersonatedUser"]["username"] == "ann" && event["verb"] == "list");
    assert_eq!((&ann["responseStatus"]["code"], &ann["user"]["username"]), (&json!(403), &json!("kubernetes-admin")));
    assert_eq!(ann["annotations"]["authorization.k8s.io/decision"], "forbid");
    let stranger = found("a wrong token", &|event| event["responseStatus"]["code"] == 401);
    assert_eq!(stranger["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(stranger["stage"], "ResponseStarted");
    // Neither there nor in the node's own log.
    let written = format!("{}{}", fs::read_to_string(server.dir.join("data/audit/audit.log")).unwrap(), server.log());
    for hidden in ["open-sesame", "hush-hush", token.trim()] {
        let encoded = BASE64_STANDARD.encode(hidden);
        assert!(!written.contains(hidden) && !written.contains(&encoded), "{hidden} was written");
    }
}

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Request, verbs: [create], resources: [{resources: [configmaps]}]}
";

#[test]
fn an_audit_policy_of_ones_own() {
    let server =
        server_with("auditLog: {policyFile: DIR/policy.yaml, path: DIR/audit/own.log}", &[("policy.yaml", POLICY)]);
    server.kubectl.ok("create configmap c --from-literal=a=b");
    server.kubectl.ok("get configmap c");
    let log = server.dir.join("audit/own.log");
    let lines = eventually("both stages", 5, || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if lines.len() >= 2 { Ok(lines) } else { Err(text) }
    });
    let stages: Vec<&str> = lines.iter().filter_map(|event| event["stage"].as_str()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    assert_eq!(lines[0]["auditID"], lines[1]["auditID"]);
    assert_eq!(lines[1]["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(lines[1]["responseObject"], Value::Null);
}

fn keys(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}"
    )
}

const ONE: &str = "  - aescbc: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}\n";
const TWO: &str = "  - secretbox: {keys: [{name: two, secret: YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=}]}\n";
const PLAIN: &str = "  - identity: {}\n";

/// In the database or in the journal before it.
fn disk_has(server: &Server, text: &str) -> bool {
    ["store.redb", "store.log"].iter().any(|file| {
        let bytes = fs::read(server.dir.join("data").join(file)).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[test]
fn secrets_are_sealed_on_disk_and_keys_turn() {
    let mut server = server_with("encryptionConfig: DIR/keys.yaml", &[("keys.yaml", &keys(&format!("{ONE}{PLAIN}")))]);
    let file = server.dir.join("keys.yaml");
    let kubectl = server.kubectl.clone();
    kubectl.ok("create secret generic s --from-literal=a=open-sesame");
    kubectl.ok("create configmap c --from-literal=a=in-the-open");
    assert!(disk_has(&server, "k8s:enc:aesgcm:v1:one:") && disk_has(&server, "in-the-open"));
    assert!(!disk_has(&server, &BASE64_STANDARD.encode("open-sesame")));

    // A new first key seals what is written from now on, also what is written unchanged.
    fs::write(&file, keys(&format!("{TWO}{ONE}"))).unwrap();
    eventually("the new key", 10, || {
        kubectl.ok_args(&["get", "secret", "s"]);
        let object = kubectl.ok("get secret s -o json");
        assert!(kubectl.with_input(&["replace", "-f", "-"], Some(&object)).success);
        if disk_has(&server, "k8s:enc:chacha20poly1305:v1:two:") { Ok(()) } else { Err("not on disk".to_owned()) }
    });

    // Without its key it cannot be read, is not lost, and is named.
    assert!(server.stop(libc::SIGTERM).0.success());
    fs::write(&file, keys(ONE)).unwrap();
    server.start_again();
    for attempt in ["get secret s", "get secrets", "create secret generic s --from-literal=a=b"] {
        let refusal = kubectl.fails(attempt);
        assert!(refusal.contains("secrets/default/s") && refusal.contains("chacha20poly1305 key \"two\""), "{refusal}");
    }
    kubectl.ok("get configmap c");
    fs::write(&file, keys(&format!("{TWO}{ONE}"))).unwrap();
    eventually("the secret again", 10, || kubectl.field("secret/s", ".data.a").map(drop));
    assert_eq!(kubectl.field("secret/s", ".data.a").unwrap(), BASE64_STANDARD.encode("open-sesame"));
}

/// A request for a certificate, and its key.
fn signing_request(name: &str, organizations: &[&str]) -> (String, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

fn csr(name: &str, pem: &str, signer: &str, usages: &[&str]) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": BASE64_STANDARD.encode(pem), "signerName": signer, "usages": usages, "expirationSeconds": 3600}})
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn certificate(kubectl: &Kubectl, name: &str) -> String {
    let text = eventually("the certificate", 10, || {
        let found = kubectl.field(&format!("certificatesigningrequest/{name}"), ".status.certificate")?;
        if found.is_empty() { Err("no certificate".to_owned()) } else { Ok(found) }
    });
    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn a_certificate_is_approved_signed_and_good() {
    let (kubectl, client) = (&server().kubectl, server().client());
    let (pem, key) = signing_request("ann", &["devs"]);
    let usages = ["digital signature", "client auth"];
    let made = client.post(REQUESTS, &csr("ann", &pem, "kubernetes.io/kube-apiserver-client", &usages));
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.json()["spec"]["username"], "kubernetes-admin");
    kubectl.ok("certificate approve ann");
    let ann = client.with_certificate(&certificate(kubectl, "ann"), &key.serialize_pem());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = ann.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).json();
    let user = &answer["status"]["userInfo"];
    assert_eq!((&user["username"], &user["groups"]), (&json!("ann"), &json!(["devs", "system:authenticated"])));

    let wrong = csr("wrong", &pem, "kubernetes.io/kube-apiserver-client", &["digital signature", "server auth"]);
    assert_eq!(client.post(REQUESTS, &wrong).code, 201);
    kubectl.ok("certificate approve wrong");
    let failed = "{.status.conditions[?(@.type==\"Failed\")].message}";
    eventually("the failure", 10, || {
        let message = kubectl.ok_args(&["get", "csr", "wrong", "-o", &format!("jsonpath={failed}")]);
        if message == "invalid usage for client certificate: server auth" { Ok(()) } else { Err(message) }
    });
}

#[test]
fn a_machine_joins_with_a_bootstrap_token() {
    let (kubectl, client) = (&server().kubectl, server().client());
    kubectl.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: 'true'
  auth-extra-groups: system:bootstrappers:test
  expiration: '2999-01-01T00:00:00Z'
",
    );
    for role in ["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"] {
        let name = role.rsplit(':').next().unwrap();
        kubectl.ok(&format!("create clusterrolebinding {name} --clusterrole={role} --group=system:bootstrappers:test"));
    }
    let newcomer = client.with_token("abcdef.0123456789abcdef");
    let (pem, key) = signing_request("system:node:n7", &["system:nodes"]);
    let usages = ["digital signature", "client auth"];
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let made = newcomer.post(REQUESTS, &csr("n7", &pem, signer, &usages));
    assert_eq!((made.code, &made.json()["spec"]["username"]), (201, &json!("system:bootstrap:abcdef")));
    let node = client.with_certificate(&certificate(kubectl, "n7"), &key.serialize_pem());
    let refused = node.get("/api/v1/nodes/n8").json();
    assert_eq!(
        refused["message"],
        r#"nodes "n8" is forbidden: User "system:node:n7" cannot get resource "nodes" in API group "" at the cluster scope: node 'n7' cannot read 'n8', only its own Node object"#
    );
    assert_eq!(client.with_token("abcdef.0123456789abcdee").get("/api/v1/nodes").code, 401);
    // One that has expired goes by itself.
    kubectl.ok_args(&[
        "patch",
        "secret",
        "bootstrap-token-abcdef",
        "-n",
        "kube-system",
        "-p",
        r#"{"stringData":{"expiration":"2020-01-01T00:00:00Z"}}"#,
    ]);
    eventually("the token is gone", 10, || {
        let left = kubectl.run("get secret bootstrap-token-abcdef -n kube-system");
        if left.success { Err("still there".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_kubelet_reads_what_its_pods_use() {
    let kubectl = server().kubectl.namespace("node");
    kubectl.ok("create secret generic used --from-literal=a=b");
    kubectl.ok("create secret generic other --from-literal=a=b");
    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: n1
  containers: [{name: c, image: 'localhost/nothing:1', envFrom: [{secretRef: {name: used}}]}]
",
    );
    const AS: &str = "--as system:node:n1 --as-group system:nodes";
    kubectl.ok(&format!("get secret used {AS}"));
    let refusal = kubectl.fails(&format!("get secret other {AS}"));
    assert!(refusal.contains("no relationship found between node 'n1' and this object"), "{refusal}");
    let refusal = kubectl.fails("get secret used --as system:node:n2 --as-group system:nodes");
    assert!(refusal.contains("no relationship found between node 'n2' and this object"), "{refusal}");
    kubectl.ok(&format!("get pods --field-selector spec.nodeName=n1 {AS}"));
    let refusal = kubectl.fails(&format!("get pods {AS}"));
    assert!(refusal.contains("can only list/watch pods with spec.nodeName field selector"), "{refusal}");
    let uid = kubectl.field("pod/p", ".metadata.uid").unwrap();
    let bound = format!("--bound-object-kind Pod --bound-object-name p --bound-object-uid {uid}");
    assert_eq!(kubectl.ok(&format!("create token default {bound} {AS}")).matches('.').count(), 2);
}

/// A client certificate of the front proxy's authority.
fn proxy_certificate(data: &Path, name: &str) -> (String, String) {
    let read = |file: &str| fs::read_to_string(data.join("certs").join(file)).unwrap();
    let authority = KeyPair::from_pem(&read("front-proxy-ca.key")).unwrap();
    let mut own = CertificateParams::default();
    own.distinguished_name = DistinguishedName::new();
    own.distinguished_name.push(DnType::CommonName, "mote-front-proxy-ca");
    let issuer = Issuer::from_params(&own, &authority);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_front_proxy_names_users() {
    let (client, data) = (server().client(), server().dir.join("data"));
    let headers = [("X-Remote-User", "zoe"), ("X-Remote-Group", "system:masters")];
    let ask = |name: &str, headers: &[(&str, &str)]| {
        let (certificate, key) = proxy_certificate(&data, name);
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        client.with_certificate(&certificate, &key).request("POST", path, &headers, review.as_bytes())
    };
    let answer = ask("front-proxy-client", &headers).json();
    let user = &answer["status"]["userInfo"];
    assert_eq!(
        (&user["username"], &user["groups"]),
        (&json!("zoe"), &json!(["system:masters", "system:authenticated"]))
    );
    assert_eq!(ask("front-proxy-client", &[]).code, 401);
    assert_eq!(ask("somebody", &headers).code, 401);
    // Anybody else's such headers mean nothing.
    let plain = client.anonymous().request("GET", "/api/v1/pods", &headers, b"");
    assert!(plain.text().contains("system:anonymous"), "{}", plain.text());
}

#[test]
fn requests_are_classified_and_refused_by_level() {
    let (kubectl, client) = (&server().kubectl, server().client());
    kubectl.apply(
        "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: closed}
spec: {type: Limited, limited: {nominalConcurrencyShares: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: greedy}
spec:
  priorityLevelConfiguration: {name: closed}
  matchingPrecedence: 50
  rules:
  - subjects: [{kind: User, user: {name: greedy}}]
    resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: [pods], namespaces: ['*'], clusterScope: true}]
",
    );
    kubectl.eventually_field("flowschema/greedy", ".status.conditions[0].reason", "Found", 10);
    let get = |user: &str, path: &str| client.request("GET", path, &[("Impersonate-User", user)], b"");
    let refused = eventually("the refusal", 10, || {
        let answer = get("greedy", "/api/v1/pods");
        if answer.code == 429 { Ok(answer) } else { Err(answer.text()) }
    });
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    let headers = refused.headers.to_lowercase();
    assert!(headers.contains("retry-after: 1"), "{headers}");
    for (object, header) in [
        ("flowschema/greedy", "x-kubernetes-pf-flowschema-uid"),
        ("prioritylevelconfiguration/closed", "x-kubernetes-pf-prioritylevel-uid"),
    ] {
        let uid = kubectl.field(object, ".metadata.uid").unwrap();
        assert!(headers.contains(&format!("{header}: {uid}")), "{headers}");
    }
    assert_eq!(get("greedy", "/api/v1/configmaps").code, 403);
    assert_eq!(get("ann", "/api/v1/pods").code, 403);
    let metrics = client.get("/metrics").text();
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"closed\"} 0"), "{metrics}");
    // What is mandatory comes back, and as it was.
    kubectl.ok("delete flowschema catch-all --wait=false");
    kubectl.eventually_field("flowschema/catch-all", ".spec.matchingPrecedence", "10000", 10);
    kubectl.ok_args(&[
        "patch",
        "prioritylevelconfiguration",
        "system",
        "--type=merge",
        "-p",
        r#"{"spec":{"limited":{"nominalConcurrencyShares":1}}}"#,
    ]);
    kubectl.eventually_field("prioritylevelconfiguration/system", ".spec.limited.nominalConcurrencyShares", "30", 10);
}

#[test]
fn access_reviews_tell_the_reason() {
    let client = server().client();
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {"verb": "list", "version": "v1",
            "resource": "pods", "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]}}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(client.post(path, &review).json()["status"]["allowed"], true);
    let mut all = review.clone();
    all["spec"]["resourceAttributes"]["fieldSelector"] = Value::Null;
    let status = client.post(path, &all).json()["status"].clone();
    assert_eq!(
        status,
        json!({"allowed": false, "reason": "can only list/watch pods with spec.nodeName field selector"})
    );
}
