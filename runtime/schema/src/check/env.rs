//! A container's environment, and references to a pod's own fields (ValidateEnv, ValidateEnvFrom, validateObjectFieldSelector).
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::Value;
use crate::validate;

pub(super) fn env(list: &At<'_>, errors: &mut Errors) {
    for variable in list.items() {
        let name = variable.get("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.each(&name, validate::env_var_name(name.str()));
        }
        let from = variable.get("valueFrom");
        if from.is_set() {
            value_from(&from, !variable.get("value").str().is_empty(), errors);
        }
    }
}

/// What a variable may hold of its own pod (validEnvDownwardAPIFieldPathExpressions).
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn value_from(from: &At<'_>, has_value: bool, errors: &mut Errors) {
    let empty = Value::from("");
    let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let count = sources.iter().filter(|s| from.get(s).is_set()).count();
    if from.get("fieldRef").is_set() {
        field_ref(&from.get("fieldRef"), &ENV_FIELDS, errors);
    }
    if from.get("resourceFieldRef").is_set() {
        resource_field_ref(&from.get("resourceFieldRef"), false, errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let at = from.get(source);
        if at.is_set() {
            errors.each(&at.get("name"), validate::dns1123_subdomain(at.get("name").str()));
            let key = at.get("key");
            if key.str().is_empty() {
                errors.required(&key, "");
            } else {
                errors.each(&key, validate::config_map_key(key.str()));
            }
        }
    }
    let file = from.get("fileKeyRef");
    if file.is_set() {
        rules(&file, "key!variable volumeName!label path!path", errors);
    }
    match count {
        0 => errors.invalid_value(
            &from.path,
            &empty,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => errors.invalid_value(&from.path, &empty, "may not be specified when `value` is not empty"),
        1 => {}
        _ => errors.invalid_value(&from.path, &empty, "may not have more than one field specified at a time"),
    }
}

/// validateFileKeyRefVolumes: only from an emptyDir does the kubelet read variables.
pub(super) fn file_volumes<'v>(spec: &At<'v>, containers: impl Iterator<Item = At<'v>>, errors: &mut Errors) {
    for variable in containers.flat_map(|container| container.get("env").items()) {
        let file = variable.at("valueFrom.fileKeyRef");
        if !file.is_set() {
            continue;
        }
        let name = file.get("volumeName");
        match spec.get("volumes").items().find(|volume| volume.get("name").str() == name.str()) {
            None => errors.not_found(&name),
            Some(volume) if volume.get("emptyDir").is_set() => {}
            Some(_) => errors.invalid(&name, "referenced volume must be of type emptyDir"),
        }
    }
}

/// validateObjectFieldSelector
pub(super) fn field_ref(at: &At<'_>, expressions: &[&str], errors: &mut Errors) {
    let path = at.get("fieldPath");
    if at.get("apiVersion").str().is_empty() {
        return errors.required(&at.get("apiVersion"), "");
    }
    if path.str().is_empty() {
        return errors.required(&path, "");
    }
    if at.get("apiVersion").str() != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", at.get("apiVersion").str());
        return errors.invalid(&path, &detail);
    }
    if let Some((field, rest)) = path.str().split_once("['")
        && let Some(subscript) = rest.strip_suffix("']")
    {
        let messages = match field {
            "metadata.annotations" => validate::qualified_name(&subscript.to_lowercase()),
            "metadata.labels" => validate::qualified_name(subscript),
            _ => {
                let detail =
                    format!("error converting fieldPath: field label does not support subscript: {}", path.str());
                return errors.invalid(&path, &detail);
            }
        };
        for message in messages {
            errors.invalid_value(&at.path, &Value::from(subscript), &message);
        }
    } else if !expressions.contains(&path.str()) {
        let known =
            matches!(path.str(), "metadata.annotations" | "metadata.labels") || ENV_FIELDS.contains(&path.str());
        let others = [
            "spec.restartPolicy",
            "spec.schedulerName",
            "status.phase",
            "status.message",
            "status.reason",
            "spec.hostNetwork",
        ];
        if known || others.contains(&path.str()) {
            errors.unsupported(&path, expressions);
        } else {
            errors.invalid(&path, &format!("error converting fieldPath: field label not supported: {}", path.str()));
        }
    }
}

const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// validateContainerResourceFieldSelector
pub(super) fn resource_field_ref(at: &At<'_>, in_volume: bool, errors: &mut Errors) {
    let (container, resource, divisor) = (at.get("containerName"), at.get("resource"), at.get("divisor"));
    if in_volume && container.str().is_empty() {
        errors.required(&container, "");
    } else if resource.str().is_empty() {
        errors.required(&resource, "");
    } else if !RESOURCE_FIELDS.contains(&resource.str())
        && !["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.str().starts_with(p))
    {
        errors.unsupported(&resource, &RESOURCE_FIELDS);
    }
    let allowed: &[&str] = match resource.str().rsplit('.').next() {
        Some("cpu") => &["1", "1m"],
        _ => &["1", "1E", "1Ei", "1G", "1Gi", "1K", "1Ki", "1M", "1Mi", "1P", "1Pi", "1T", "1Ti", "1k"],
    };
    if !matches!(divisor.str(), "" | "0") && !allowed.contains(&divisor.str()) {
        let what = if resource.str().ends_with("cpu") {
            "only divisor's values 1m and 1 are supported with the cpu resource".into()
        } else {
            let name = resource.str().rsplit('.').next().unwrap_or("");
            format!(
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {name} resource"
            )
        };
        errors.invalid_value(&divisor.path, resource.value, &what);
    }
}

pub(super) fn env_from(list: &At<'_>, errors: &mut Errors) {
    let empty = Value::from("");
    for source in list.items() {
        let prefix = source.get("prefix");
        if !prefix.str().is_empty() {
            errors.each(&prefix, validate::env_var_name(prefix.str()));
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let at = source.get(name);
            if at.is_set() {
                count += 1;
                if at.get("name").str().is_empty() {
                    errors.required(&at.get("name"), "");
                } else {
                    errors.each(&at.get("name"), validate::dns1123_subdomain(at.get("name").str()));
                }
            }
        }
        match count {
            0 => errors.invalid_value(&list.path, &empty, "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid_value(&list.path, &empty, "may not have more than one field specified at a time"),
        }
    }
}
