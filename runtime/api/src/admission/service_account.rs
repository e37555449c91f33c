//! ServiceAccount: every Pod runs as one, with its token, CA and namespace in a volume
//! (plugin/pkg/admission/serviceaccount).
use super::{
    Attributes, Operation,
    references::{has_secrets, items},
};
use crate::{Object, registry::random};
use async_io::Timer;
use mote_schema::Status;
use mote_schema::{Value, json};
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const TOKEN_SECONDS: i64 = 3607;
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A new namespace's default account is the controller's to make; a pod that comes with its namespace waits for it.
const DEFAULT_TRIES: usize = 10;
const DEFAULT_WAIT: Duration = Duration::from_millis(150);

fn is_new_pod(attributes: &Attributes<'_, '_>, pod: &Value) -> bool {
    attributes.is_create() && attributes.is_main("", "pods") && pod.is_object()
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

fn account_name(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().unwrap_or("")
}

/// Before anything else of a new pod: the default account of its namespace may be about to be made.
pub(super) async fn settle(attributes: &Attributes<'_, '_>, pod: &Value) {
    if !is_new_pod(attributes, pod) || is_mirror(pod) || !matches!(account_name(pod), "" | "default") {
        return;
    }
    let (api, namespace) = (attributes.api, attributes.target.namespace);
    for _ in 0..DEFAULT_TRIES {
        let found = |plural: &str, namespace: &str, name: &str| api.lookup("", "v1", plural, namespace, name).is_some();
        if found("serviceaccounts", namespace, "default") || !found("namespaces", "", namespace) {
            return;
        }
        Timer::after(DEFAULT_WAIT).await;
    }
}

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, pod: &mut Value) -> Result<(), Status> {
    if !is_new_pod(attributes, pod) {
        return Ok(());
    }
    if is_mirror(pod) {
        return validate(attributes, pod);
    }
    let name = match account_name(pod) {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = Value::from(name.as_str());
    pod["spec"]["serviceAccount"] = Value::from(name.as_str());
    let account = account(attributes, &name, pod)?;
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account.root().get("automountServiceAccountToken").as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty) {
        let secrets = account.root().get("imagePullSecrets");
        if secrets.items().next().is_some() {
            pod["spec"]["imagePullSecrets"] = secrets.to_value();
        }
    }
    validate(attributes, pod)
}

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, pod: &Value) -> Result<(), Status> {
    let ephemeral = attributes.operation == Operation::Update
        && attributes.is("", "pods")
        && attributes.subresource == "ephemeralcontainers";
    if !ephemeral && !is_new_pod(attributes, pod) {
        return Ok(());
    }
    let refuse = |detail: &str| Err(attributes.forbidden(pod, detail));
    let name = account_name(pod);
    if !ephemeral && is_mirror(pod) {
        if !name.is_empty() {
            return refuse("a mirror pod may not reference service accounts");
        }
        let mut projected = items(&pod["spec"]["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
        return if has_secrets(&pod["spec"]) {
            refuse("a mirror pod may not reference secrets")
        } else if projected.any(|source| source["serviceAccountToken"].is_object()) {
            refuse("a mirror pod may not use ServiceAccountToken volume projections")
        } else {
            Ok(())
        };
    }
    if name.is_empty() {
        let (namespace, pod_name) = (attributes.target.namespace, pod["metadata"]["name"].as_str().unwrap_or(""));
        return refuse(&format!("no service account specified for pod {namespace}/{pod_name}"));
    }
    let account = account(attributes, name, pod)?;
    let enforced = account.meta().get("annotations").get(ENFORCE_MOUNTABLE).str();
    if !matches!(enforced, "1" | "t" | "T" | "TRUE" | "true" | "True") {
        return Ok(());
    }
    match unmountable(&account, pod, ephemeral) {
        Some(detail) => refuse(&detail),
        None => Ok(()),
    }
}

/// A Secret that the pod uses and its account, which limits them, does not name.
fn unmountable(account: &Object, pod: &Value, ephemeral: bool) -> Option<String> {
    let name = account.name();
    let lists = |field: &str, secret: &str| account.root().get(field).items().any(|s| s.get("name").str() == secret);
    let mountable = |secret: &str| lists("secrets", secret);
    let spec = &pod["spec"];
    if !ephemeral {
        let volumes = items(&spec["volumes"]).filter_map(|volume| volume["secret"]["secretName"].as_str());
        if let Some(secret) = volumes.into_iter().find(|secret| !mountable(secret)) {
            return Some(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
            ));
        }
    }
    let all = [("init container", "initContainers"), ("container", "containers")];
    let parts = if ephemeral { &[("ephemeral container", "ephemeralContainers")][..] } else { &all[..] };
    for (what, field) in parts {
        for container in items(&spec[field]) {
            let called = container["name"].as_str().unwrap_or("");
            let denied = |how: String, secret: &str| {
                format!(
                    "{what} {called} with {how} referencing secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
                )
            };
            for variable in items(&container["env"]) {
                let secret = variable["valueFrom"]["secretKeyRef"]["name"].as_str();
                if let Some(secret) = secret.filter(|secret| !mountable(secret)) {
                    return Some(denied(format!("envVar {}", variable["name"].as_str().unwrap_or("")), secret));
                }
            }
            for source in items(&container["envFrom"]) {
                if let Some(secret) = source["secretRef"]["name"].as_str().filter(|secret| !mountable(secret)) {
                    return Some(denied("envFrom".into(), secret));
                }
            }
        }
    }
    if ephemeral {
        return None;
    }
    let mut pulls = items(&spec["imagePullSecrets"]).filter_map(|secret| secret["name"].as_str()).enumerate();
    pulls.find(|(_, secret)| !lists("imagePullSecrets", secret)).map(|(at, secret)| {
        format!(
            "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {name} does not reference that imagePullSecret"
        )
    })
}

fn account(attributes: &Attributes<'_, '_>, name: &str, pod: &Value) -> Result<Object, Status> {
    let namespace = attributes.target.namespace;
    attributes.api.lookup("", "v1", "serviceaccounts", namespace, name).ok_or_else(|| {
        let detail = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        attributes.forbidden(pod, &detail)
    })
}

fn mount_token(pod: &mut Value) {
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let existing = volumes.iter().filter_map(|v| v["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX));
    let volume = existing.map(str::to_owned).unwrap_or_else(|| {
        let suffix = random::<5>().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        format!("{VOLUME_PREFIX}{}", suffix.iter().collect::<String>())
    });
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if !container.is_object() {
                continue;
            }
            let mounts = &mut container["volumeMounts"];
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            let Some(list) = mounts.as_array_mut() else { continue };
            if list.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            list.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if existing.is_some() || !mounted {
        return;
    }
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    let mut volumes = volumes;
    volumes.push(source);
    pod["spec"]["volumes"] = Value::from(volumes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_once_in_every_container() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
            {"name": "own", "mountPath": MOUNT_PATH}]}], "initContainers": [{"name": "i"}]}});
        mount_token(&mut pod);
        let again = {
            let mut again = pod.clone();
            mount_token(&mut again);
            again
        };
        assert_eq!(pod, again);
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], pod["spec"]["volumes"][0]["name"]);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
    }
}
