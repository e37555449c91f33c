//! Volumes and claims of the cluster (pkg/apis/{core,storage}/validation).
use super::{
    at::{At, Errors},
    meta,
    rules::rules,
    scheduling, volume,
};
use crate::Order as _;
use crate::{Cause, Text, Value, quantity::Quantity, validate as format};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(spec: &At<'_>, detail: &str, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        errors.required(&modes, detail);
    }
    for mode in modes.items().filter(|m| !MODES.contains(&m.str())) {
        // Upstream leaves the index out of this path.
        errors.unsupported(&mode.moved(&*modes.path), &MODES);
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
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    if source.is_set() && reference.is_set() && source.value != reference.value {
        errors.invalid(spec, "must match dataSourceRef");
    }
    for field in ["dataSource", "dataSourceRef"] {
        let at = spec.get(field);
        if at.is_set() && at.get("apiGroup").str().is_empty() && at.get("kind").str() != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid_value(&at.path, at.get("kind").value, detail);
        }
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

fn sources<'v>(spec: &At<'v>) -> Vec<&'v str> {
    spec.members().filter(|(_, v)| !v.is_null()).map(|(name, _)| name).filter(|n| !NOT_A_SOURCE.contains(n)).collect()
}

/// Plugins that can be told how to mount (pkg/volume, SupportsMountOption).
const MOUNTED: [&str; 8] =
    ["awsElasticBlockStore", "azureDisk", "azureFile", "cinder", "csi", "gcePersistentDisk", "iscsi", "nfs"];

pub(super) fn persistent_volume(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    let options = new.at("metadata.annotations").key(OPTIONS);
    if options.is_set() && !MOUNTED.iter().any(|name| new.get("spec").get(name).is_set()) {
        let at = options.moved(["metadata.annotations.", OPTIONS].concat());
        errors.forbidden(&at, "may not specify mount options for this volume type");
    }
    let spec = new.get("spec");
    volume_spec(&spec, false, errors);
    if let Some(old) = old {
        let before = old.get("spec");
        if !is_source_kept(&spec, &before) {
            let detail = "spec.persistentvolumesource is immutable after creation\n";
            errors.forbidden(&spec.get("persistentvolumesource"), detail);
        }
        errors.immutable(&spec.get("volumeMode").moved("volumeMode"), &before.get("volumeMode"));
        let (affinity, known) = (spec.get("nodeAffinity"), before.get("nodeAffinity"));
        if known.is_set() && !scheduling::is_volume_affinity_kept(&affinity, &known) {
            let detail = "field is immutable, except for updating from beta label to GA";
            errors.invalid_null(&affinity.moved("nodeAffinity"), detail);
        }
        let class = spec.get("volumeAttributesClassName");
        if before.get("volumeAttributesClassName").is_set() && !class.is_set() {
            errors.forbidden(&class, "update from non-nil value to nil is forbidden");
        }
        attributes_class_needs_driver(&spec, errors);
    }
}

/// Where the data lies stays as it is; a CSI volume that had no secret for its expansion may get one.
fn is_source_kept(spec: &At<'_>, before: &At<'_>) -> bool {
    const SECRET: &str = "controllerExpandSecretRef";
    let had_none = before.get("csi").is_set() && !before.at("csi").get(SECRET).is_set();
    sources(spec).into_iter().chain(sources(before)).all(|name| {
        let (new, old) = (spec.get(name), before.get(name));
        let gets_secret = || {
            let same = |field: &str| had_none && field == SECRET || new.peek(field) == old.peek(field);
            name == "csi" && new.is_set() && new.members().chain(old.members()).all(|(field, _)| same(field))
        };
        new.value == old.value || gets_secret()
    })
}

fn attributes_class_needs_driver(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("volumeAttributesClassName").is_set() && !spec.get("csi").is_set() {
        errors.required(&spec.get("csi"), "has to be specified when using volumeAttributesClassName");
    }
}

/// ValidatePersistentVolumeSpec; `inline` in an attachment, which has no capacity.
pub(super) fn volume_spec(spec: &At<'_>, inline: bool, errors: &mut Errors) {
    access_modes(spec, "", errors);
    let capacity = spec.get("capacity");
    if !inline {
        if capacity.is_empty() {
            errors.required(&capacity, "");
        }
        if !capacity.get("storage").is_set() || capacity.len() > 1 {
            errors.0.push(Cause::not_supported(&*capacity.path, capacity.value, &["storage"]));
        }
        for (name, _) in capacity.members() {
            resource_value(&capacity.key(name), errors);
            positive(&capacity.key(name), errors);
        }
    }
    let sources = sources(spec);
    match sources.as_slice() {
        [] => errors.required(spec, "must specify a volume type"),
        [name, rest @ ..] => {
            for extra in rest {
                errors.forbidden(&spec.get(extra), "may not specify more than 1 volume type");
            }
            source(spec, name, errors);
        }
    }
    let affinity = spec.at("nodeAffinity.required");
    if affinity.is_set() {
        scheduling::node_selector(&affinity, errors);
    } else if spec.get("nodeAffinity").is_set() {
        errors.required(&affinity, "must specify required node constraints");
    } else if spec.get("local").is_set() {
        errors.required(&spec.at("nodeAffinity"), "Local volume requires node affinity");
    }
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    if reclaim.str() == "Recycle" && spec.at("hostPath.path").str() == "/" {
        errors.forbidden(&reclaim, "may not be 'recycle' for a hostPath mount of '/'");
    }
    rules(spec, "storageClassName~subdomain", errors);
    let class = spec.get("volumeAttributesClassName");
    if class.is_set() && class.str().is_empty() {
        errors.required(&class, "an empty string is disallowed");
    }
    rules(spec, "volumeAttributesClassName~subdomain", errors);
    attributes_class_needs_driver(spec, errors);
}

/// ValidateBasicResource
fn resource_value(at: &At<'_>, errors: &mut Errors) {
    if let Ok(quantity) = Quantity::parse(at.str())
        && quantity.is_negative()
    {
        let shown = Value::from(quantity.milli_value() / 1000);
        errors.invalid_value(&at.path, &shown, "must be a valid resource quantity");
    }
}

const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// ValidatePersistentVolumeClaimStatusUpdate
pub(super) fn claim_status(new: &At<'_>, errors: &mut Errors) {
    let status = new.get("status");
    let capacity = status.get("capacity");
    capacity.members().for_each(|(name, _)| resource_value(&capacity.key(name), errors));
    let statuses = status.get("allocatedResourceStatuses");
    for (name, value) in statuses.members() {
        if value.as_str().is_some_and(|v| !RESIZES.contains(&v)) {
            errors.0.push(Cause::not_supported(&*statuses.path, &Value::from(name), &RESIZES));
        }
    }
}

fn source(spec: &At<'_>, name: &str, errors: &mut Errors) {
    let at = spec.get(name);
    match name {
        "hostPath" => volume::host_path(&at, errors),
        "local" => rules(&at, "path!path", errors),
        "csi" => {
            rules(&at, "driver!driver volumeHandle!", errors);
            for secret in [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ] {
                if at.get(secret).is_set() {
                    rules(&at.get(secret), "name! namespace!", errors);
                }
            }
        }
        _ => volume::remote(name, &at, errors),
    }
}

pub(super) fn storage_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let provisioner = new.get("provisioner");
    match provisioner.str() {
        "" => errors.required(&provisioner, ""),
        text => lower_name(&provisioner, text, errors),
    }
    let parameters = new.get("parameters");
    if parameters.len() > 512 {
        errors.0.push(crate::Cause::too_long("parameters", 512));
    }
    for (key, _) in parameters.members().filter(|(k, _)| k.is_empty()) {
        errors.invalid_value(&parameters.path, &Value::from(key), "field can not be empty.");
    }
    let policy = new.get("reclaimPolicy");
    if !matches!(policy.str(), "" | "Delete" | "Retain") {
        errors.unsupported(&policy, &["Delete", "Retain"]);
    }
    topologies(&new.get("allowedTopologies"), errors);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            errors.immutable(&new.get(field), &old.get(field));
        }
    }
}

/// A name in any case, which is said in lower case.
pub(super) fn lower_name(at: &At<'_>, text: &str, errors: &mut Errors) {
    let lower = text.to_lowercase();
    for message in format::qualified_name(&lower) {
        errors.invalid_value(&at.path, &Value::from(lower.as_str()), &message);
    }
}

/// validateAllowedTopologies
fn topologies(list: &At<'_>, errors: &mut Errors) {
    let mut terms: Vec<Value> = Vec::new();
    for term in list.items() {
        let mut found = crate::Map::new();
        for requirement in term.get("matchLabelExpressions").items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            let mut seen: Vec<&str> = Vec::new();
            if values.is_empty() {
                errors.required(&values, "");
            }
            for value in values.items() {
                if seen.contains(&value.str()) {
                    errors.duplicate(&value);
                }
                seen.push(value.str());
            }
            errors.each(&key, format::qualified_name(key.str()));
            seen.order();
            seen.dedup();
            if found.insert(key.str().to_owned().into(), seen.into()).is_some() {
                errors.duplicate(&key);
            }
        }
        let found = Value::Object(found);
        if terms.contains(&found) || found.as_object().is_some_and(|f| f.is_empty()) {
            errors.duplicate(&term.get("matchLabelExpressions").with(&EMPTY));
        }
        terms.push(found);
    }
}

static EMPTY: Value = Value::String(Text::new());
