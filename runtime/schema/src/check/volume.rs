//! Volumes of a pod: one source each, with what that source needs. Sources of clouds that this node does not mount are only
//! counted.
use super::{
    at::{At, Errors},
    env,
};
use crate::{quantity::Quantity, validate as format};
use serde_json::Value;
use std::collections::HashSet;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// What a file may hold of its own pod (validVolumeDownwardAPIFieldPathExpressions).
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Names that mounts may refer to.
pub(super) fn volumes<'v>(list: &At<'v>, errors: &mut Errors) -> Vec<&'v str> {
    let mut names = Vec::new();
    for volume in list.items() {
        let before = errors.0.len();
        source(&volume, errors);
        let name = volume.get("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.each(&name, format::dns1123_label(name.str()));
        }
        if names.contains(&name.str()) {
            errors.duplicate(&name);
        }
        if errors.0.len() == before {
            names.push(name.str());
        }
    }
    names
}

fn source(volume: &At<'_>, errors: &mut Errors) {
    let mut found = 0;
    for (name, _) in volume.members().filter(|(n, _)| *n != "name") {
        let at = volume.get(name);
        found += 1;
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        match name {
            "emptyDir" => {
                let limit = at.get("sizeLimit");
                if Quantity::parse(limit.str()).is_ok_and(|q| q.is_negative()) {
                    errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
                }
            }
            "hostPath" => match at.get("path").str() {
                "" => errors.required(&at.get("path"), ""),
                path => errors.each(&at.get("path"), format::path_no_backsteps(path)),
            },
            "secret" => {
                needs(&at, "secretName", errors);
                mode(&at.get("defaultMode"), errors);
                keys_to_paths(&at.get("items"), errors);
            }
            "configMap" => {
                needs(&at, "name", errors);
                mode(&at.get("defaultMode"), errors);
                keys_to_paths(&at.get("items"), errors);
            }
            "persistentVolumeClaim" => needs(&at, "claimName", errors),
            "nfs" => {
                needs(&at, "server", errors);
                needs(&at, "path", errors);
                if !at.get("path").str().is_empty() && !at.get("path").str().starts_with('/') {
                    errors.invalid(&at.get("path"), "must be an absolute path");
                }
            }
            "csi" => needs(&at, "driver", errors),
            "downwardAPI" => {
                mode(&at.get("defaultMode"), errors);
                for file in at.get("items").items() {
                    // Upstream leaves the items' index out of these paths.
                    downward_file(&file.moved(&*at.path), errors);
                }
            }
            "projected" => {
                mode(&at.get("defaultMode"), errors);
                projected(&at, errors);
            }
            "ephemeral" => {
                let template = at.get("volumeClaimTemplate");
                if !template.is_set() {
                    errors.required(&template, "");
                } else {
                    super::storage::claim_spec(&template.get("spec"), errors);
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.required(volume, "must specify a volume type");
    }
}

fn needs(at: &At<'_>, field: &str, errors: &mut Errors) {
    if at.get(field).str().is_empty() {
        errors.required(&at.get(field), "");
    }
}

fn mode(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        errors.invalid(at, FILE_MODE);
    }
}

/// ValidateLocalNonReservedPath
fn local_path(at: &At<'_>, errors: &mut Errors) {
    errors.each(at, format::local_descending_path(at.str()));
    // The kubelet swaps versions of a volume under such names.
    if at.str().starts_with("..") && at.str().len() > 2 {
        errors.invalid(at, "must not start with '..'");
    }
}

fn keys_to_paths(items: &At<'_>, errors: &mut Errors) {
    for item in items.items() {
        needs(&item, "key", errors);
        needs(&item, "path", errors);
        if !item.get("path").str().is_empty() {
            local_path(&item.get("path"), errors);
        }
        mode(&item.get("mode"), errors);
    }
}

fn downward_file(file: &At<'_>, errors: &mut Errors) {
    needs(file, "path", errors);
    local_path(&file.get("path"), errors);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    match (field.is_set(), resource.is_set()) {
        (true, both) => {
            env::field_ref(&field, &FILE_FIELDS, errors);
            if both {
                errors.invalid_value(
                    &file.path,
                    &Value::from("resource"),
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (false, true) => env::resource_field_ref(&resource, true, errors),
        (false, false) => errors.required(file, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(&file.get("mode"), errors);
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    for source in at.get("sources").items() {
        let mut count = 0;
        let mut once = |path: &str, shown: &str, errors: &mut Errors| {
            if !path.is_empty() && !paths.insert(path.to_owned()) {
                errors.invalid_value(&at.path, &Value::from(shown), "conflicting duplicate paths");
            }
        };
        for kind in ["secret", "configMap"] {
            let part = source.get(kind);
            if part.is_set() {
                count += 1;
                needs(&part, "name", errors);
                keys_to_paths(&part.get("items"), errors);
                for item in part.get("items").items() {
                    once(item.get("path").str(), part.get("name").str(), errors);
                }
            }
        }
        let downward = source.get("downwardAPI");
        if downward.is_set() {
            count += 1;
            for file in downward.get("items").items() {
                downward_file(&file.moved(&*downward.path), errors);
                once(file.get("path").str(), file.get("path").str(), errors);
            }
        }
        let token = source.get("serviceAccountToken");
        if token.is_set() {
            count += 1;
            let seconds = token.get("expirationSeconds");
            match seconds.int().unwrap_or(0) {
                n if n < 600 => errors.invalid(&seconds, "may not specify a duration less than 10 minutes"),
                n if n > 1 << 32 => errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds"),
                _ => {}
            }
            let path = token.get("path").moved(format!("{}.path", at.path));
            if path.str().is_empty() {
                errors.required(&path, "");
            } else {
                local_path(&path, errors);
            }
        }
        if count > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}
