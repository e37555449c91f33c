//! Volumes and claims of the cluster (pkg/apis/{core,storage}/validation).
use super::{
    at::{At, Errors},
    meta, scheduling,
};
use crate::{quantity::Quantity, validate as format};
use serde_json::Value;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(spec: &At<'_>, detail: &str, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.required(&modes, detail);
    }
    let has =
        |one_pod: bool| modes.items().any(|m| (m.str() == "ReadWriteOncePod") == one_pod && MODES.contains(&m.str()));
    if has(true) && has(false) {
        errors.forbidden(&modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(at: &At<'_>, errors: &mut Errors) {
    match Quantity::parse(at.str()) {
        Ok(quantity) if quantity.is_zero() || quantity.is_negative() => errors.invalid(at, "must be greater than zero"),
        _ => {}
    }
}

/// ValidatePersistentVolumeClaimSpec
pub(super) fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    access_modes(spec, "at least 1 access mode is required", errors);
    meta::label_selector(&spec.get("selector"), errors);
    // Upstream leaves `requests` out of this path.
    let storage = spec.at("resources.requests").get("storage").moved(format!("{}.resources[storage]", spec.path));
    if storage.is_set() {
        positive(&storage, errors);
    } else {
        errors.required(&storage, "");
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let at = spec.get(field);
        if !at.str().is_empty() {
            errors.each(&at, format::dns1123_subdomain(at.str()));
        }
    }
    for field in ["dataSource", "dataSourceRef"] {
        let at = spec.get(field);
        if at.is_set() {
            for name in ["name", "kind"] {
                if at.get(name).str().is_empty() {
                    errors.required(&at.get(name), "");
                }
            }
        }
    }
}

pub(super) fn persistent_volume_claim(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    claim_spec(&spec, errors);
    let Some(old) = old else { return };
    let before = old.get("spec");
    let bound = new.at("status.phase").str() == "Bound";
    let frozen = |at: &At<'_>| {
        let mut value = at.value.clone();
        if let Some(map) = value.as_object_mut() {
            if before.get("volumeName").str().is_empty() {
                map.remove("volumeName");
            }
            // A class may be given to a claim that had none.
            if !before.get("storageClassName").is_set() {
                map.remove("storageClassName");
            }
            if bound {
                map.remove("volumeAttributesClassName");
                if let Some(requests) =
                    map.get_mut("resources").and_then(|r| r.get_mut("requests")).and_then(Value::as_object_mut)
                {
                    requests.remove("storage");
                }
            }
        }
        value
    };
    if frozen(&spec) != frozen(&before) {
        errors.forbidden(
            &spec,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n",
        );
    }
    let size = |at: &At<'_>, path: &str| Quantity::parse(at.at(path).str()).ok();
    let (new_size, old_size) = (size(&spec, "resources.requests.storage"), size(&before, "resources.requests.storage"));
    if let (Some(now), Some(was)) = (new_size, old_size)
        && now < was
        && size(old, "status.capacity.storage").is_none_or(|capacity| now <= capacity)
    {
        errors.forbidden(&spec.at("resources.requests.storage"), "field can not be less than status.capacity");
    }
    errors.immutable(&spec.get("volumeMode").moved("volumeMode"), &before.get("volumeMode"));
}

/// What makes a PersistentVolume's spec besides where the data lies.
const NOT_A_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeMode",
    "volumeAttributesClassName",
];

pub(super) fn persistent_volume(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    access_modes(&spec, "", errors);
    let capacity = spec.get("capacity");
    if capacity.is_empty() {
        errors.required(&capacity, "");
    }
    if !capacity.get("storage").is_set() || capacity.len() > 1 {
        errors.unsupported(&capacity, &["storage"]);
    }
    for (name, _) in capacity.members() {
        positive(&capacity.key(name), errors);
    }
    let sources: Vec<&str> = spec.members().map(|(name, _)| name).filter(|n| !NOT_A_SOURCE.contains(n)).collect();
    match sources.as_slice() {
        [] => errors.required(&spec, "must specify a volume type"),
        [name, rest @ ..] => {
            for extra in rest {
                errors.forbidden(&spec.get(extra), "may not specify more than 1 volume type");
            }
            source(&spec, name, errors);
        }
    }
    let affinity = spec.at("nodeAffinity.required");
    if affinity.is_set() {
        scheduling::node_selector(&affinity, errors);
    } else if spec.get("local").is_set() {
        errors.required(&spec.at("nodeAffinity"), "Local volume requires node affinity");
    }
    let class = spec.get("storageClassName");
    if !class.str().is_empty() {
        errors.each(&class, format::dns1123_subdomain(class.str()));
    }
    if let Some(old) = old {
        for name in sources {
            if spec.peek(name) != old.get("spec").peek(name) {
                errors.forbidden(
                    &spec.get("persistentvolumesource"),
                    "spec.persistentvolumesource is immutable after creation\n",
                );
            }
        }
        errors.immutable(&spec.get("volumeMode").moved("volumeMode"), &old.at("spec.volumeMode"));
    }
}

fn source(spec: &At<'_>, name: &str, errors: &mut Errors) {
    let at = spec.get(name);
    let fields: &[&str] = match name {
        "hostPath" | "local" => &["path"],
        "nfs" => &["server", "path"],
        "csi" => &["driver", "volumeHandle"],
        _ => &[],
    };
    for field in fields {
        if at.get(field).str().is_empty() {
            errors.required(&at.get(field), "");
        }
    }
    if matches!(name, "hostPath" | "local") {
        errors.each(&at.get("path"), format::path_no_backsteps(at.get("path").str()));
    }
}

pub(super) fn storage_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let provisioner = new.get("provisioner");
    match provisioner.str() {
        "" => errors.required(&provisioner, ""),
        text => errors.each(&provisioner, format::qualified_name(&text.to_lowercase())),
    }
    let parameters = new.get("parameters");
    if parameters.len() > 512 {
        errors.0.push(crate::Cause::too_long("parameters", 512));
    }
    for (key, _) in parameters.members().filter(|(k, _)| k.is_empty()) {
        errors.invalid_value(&parameters.path, &Value::from(key), "field can not be empty.");
    }
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            errors.immutable(&new.get(field), &old.get(field));
        }
    }
}
