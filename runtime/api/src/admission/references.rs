//! Which Secrets, ConfigMaps and claims a pod's spec names (pkg/api/pod VisitPodSecretNames and its siblings).
use mote_schema::Value;

/// Secrets by the volume source that names them: `{source}.{field}.name`, or `{source}.{field}` for a bare name.
const SECRET_VOLUMES: &[(&str, &str)] = &[
    ("azureFile", "secretName"),
    ("secret", "secretName"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("storageos", "secretRef"),
    ("csi", "nodePublishSecretRef"),
];

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Containers of all sorts.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|field| items(&spec[field]))
}

pub(super) fn has_secrets(spec: &Value) -> bool {
    items(&spec["imagePullSecrets"]).next().is_some()
        || from_environment(spec, "secretKeyRef", "secretRef")
        || items(&spec["volumes"]).any(|volume| {
            let set = |value: &Value| value.is_object() || value.as_str().is_some_and(|name| !name.is_empty());
            SECRET_VOLUMES.iter().any(|(source, field)| set(&volume[*source][*field]))
                || items(&volume["projected"]["sources"]).any(|source| source["secret"].is_object())
        })
}

pub(super) fn has_config_maps(spec: &Value) -> bool {
    from_environment(spec, "configMapKeyRef", "configMapRef")
        || items(&spec["volumes"]).any(|volume| {
            volume["configMap"].is_object()
                || items(&volume["projected"]["sources"]).any(|source| source["configMap"].is_object())
        })
}

fn from_environment(spec: &Value, key: &str, whole: &str) -> bool {
    containers(spec).any(|container| {
        items(&container["env"]).any(|variable| variable["valueFrom"][key].is_object())
            || items(&container["envFrom"]).any(|source| source[whole].is_object())
    })
}
