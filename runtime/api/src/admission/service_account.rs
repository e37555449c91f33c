//! ServiceAccount: every Pod runs as one, with its token, CA and namespace in a volume
//! (plugin/pkg/admission/serviceaccount).
use crate::{Object, registry::Target, registry::random, server::Api};
use mote_schema::Status;
use serde_json::{Value, json};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const TOKEN_SECONDS: i64 = 3607;
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub(super) fn mutate(api: &Api, target: &Target<'_>, pod: &mut Value) -> Result<(), Status> {
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return Ok(());
    }
    let name = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default".to_owned(),
        Some(name) => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = Value::from(name.as_str());
    pod["spec"]["serviceAccount"] = Value::from(name.as_str());
    let account = account(api, target, &name, pod)?;
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
    Ok(())
}

fn account(api: &Api, target: &Target<'_>, name: &str, pod: &Value) -> Result<Object, Status> {
    let catalog = api.catalog();
    let missing = || {
        let detail =
            format!("error looking up service account {}/{name}: serviceaccount {name:?} not found", target.namespace);
        Status::forbidden("", "pods", pod["metadata"]["name"].as_str().unwrap_or(""), &detail)
    };
    let kind = catalog.by_resource("", "v1", "serviceaccounts").ok_or_else(missing)?;
    api.get(kind, target.namespace, name).map_err(|_| missing())
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
