//! Kinds of storage.k8s.io about drivers, their nodes and attachments (pkg/apis/storage/validation).
use super::{
    at::{At, Errors},
    autoscaling::non_negative_quantity,
    rules::rules,
    storage,
};
use crate::Value;
use crate::validate as format;

const NODE_ID_MAX_BYTES: usize = 256;

pub(super) fn driver(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    rules(new, "metadata.name!driver", errors);
    rules(&spec, "fsGroupPolicy?=File|None|ReadWriteOnceWithFSType", errors);
    for mode in spec.get("volumeLifecycleModes").items().filter(|m| !matches!(m.str(), "Persistent" | "Ephemeral")) {
        // Upstream leaves the index out of this path.
        errors.unsupported(&mode.moved("spec.volumeLifecycleModes"), &["Persistent", "Ephemeral"]);
    }
    let mut seen: Vec<&str> = Vec::new();
    for request in spec.get("tokenRequests").items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if seen.contains(&audience.str()) {
            errors.duplicate(&audience);
        }
        seen.push(audience.str());
        match seconds.int() {
            Some(..600) => errors.invalid(&seconds, "may not specify a duration less than 10 minutes"),
            Some(n) if n > 1 << 32 => errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|n| n < 10) {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
    if let Some(before) = old.map(|old| old.get("spec")) {
        errors.immutable(&spec.get("attachRequired").moved("spec.attachedRequired"), &before.get("attachRequired"));
        errors.immutable(&spec.get("volumeLifecycleModes"), &before.get("volumeLifecycleModes"));
    }
}

pub(super) fn node(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let drivers = new.at("spec.drivers");
    let mut seen: Vec<&str> = Vec::new();
    for driver in drivers.items() {
        rules(&driver, "name!driver nodeID! allocatable.count>=0", errors);
        if driver.peek("nodeID").as_str().is_some_and(|id| id.len() > NODE_ID_MAX_BYTES) {
            errors.invalid(&driver.get("nodeID"), &format!("must be {NODE_ID_MAX_BYTES} characters or less"));
        }
        let name = driver.get("name");
        if seen.contains(&name.str()) {
            errors.duplicate(&name);
        }
        seen.push(name.str());
        let mut keys: Vec<&str> = Vec::new();
        for key in driver.get("topologyKeys").items() {
            // Upstream names the driver here, not the key.
            let at = key.moved(&*driver.path);
            match key.str() {
                "" => errors.required(&at, ""),
                text if keys.contains(&text) => errors.duplicate(&at),
                text => errors.each(&at, format::qualified_name(text)),
            }
            keys.push(key.str());
        }
    }
    // A driver that stays is what it was, but for how many volumes it takes.
    let Some(before) = old.map(|old| old.at("spec.drivers")) else { return };
    let is_same = |a: &At<'_>, b: &At<'_>| ["nodeID", "topologyKeys"].iter().all(|f| a.peek(f) == b.peek(f));
    let changed =
        |new: &At<'_>| before.items().any(|old| old.get("name").str() == new.get("name").str() && !is_same(&old, new));
    for driver in drivers.items().filter(changed) {
        errors.invalid(&driver.moved(&*drivers.path), "field is immutable");
    }
}

pub(super) fn capacity(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let class = new.get("storageClassName");
    errors.each(&class, format::dns1123_subdomain(class.str()));
    non_negative_quantity(&new.get("capacity"), errors);
    rules(new, "nodeTopology~selector", errors);
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            errors.immutable(&new.get(field), &old.get(field));
        }
    }
}

pub(super) fn attachment(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    rules(&spec, "attacher!driver", errors);
    let (source, node) = (spec.get("source"), spec.get("nodeName"));
    let (name, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    match (name.is_set(), inline.is_set()) {
        (false, false) => {
            errors.required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, true) => {
            errors.forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, false) => {
            if name.str().is_empty() {
                errors.required(&name, "must specify non empty persistentVolumeName");
            }
            errors.each(&name, format::dns1123_subdomain(name.str()));
        }
        (false, true) => {
            if !inline.get("csi").is_set() {
                errors.required(&inline.get("csi"), "has to be specified in the context of inline volumes");
            }
            storage::volume_spec(&inline, true, errors);
        }
    }
    errors.each(&node, format::dns1123_subdomain(node.str()));
    if let Some(old) = old {
        errors.immutable(&spec, &old.get("spec"));
    }
}

pub(super) fn attributes_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let driver = new.get("driverName");
    match driver.str() {
        "" => errors.required(&driver, ""),
        text => super::storage::lower_name(&driver, text, errors),
    }
    let parameters = new.get("parameters");
    if parameters.is_empty() {
        errors.required(&parameters, "must contain at least one key/value pair");
    }
    for (key, _) in parameters.members().filter(|(k, _)| k.is_empty()) {
        errors.invalid_value(&parameters.path, &Value::from(key), "field can not be empty.");
    }
    for field in ["driverName", "parameters"] {
        if old.is_some_and(|old| old.peek(field) != new.peek(field)) {
            errors.forbidden(&new.get(field), &format!("updates to {field} are forbidden."));
        }
    }
}
