//! Volumes: one source each, with what that source needs.
use super::{
    at::{At, Errors},
    env,
    rules::rules,
};
use crate::{Order as _, Value, quantity::Quantity, validate as format};
use std::collections::HashSet;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// What a file may hold of its own pod (validVolumeDownwardAPIFieldPathExpressions).
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Names that mounts may refer to, and whether a block device may be there.
pub(super) fn volumes<'v>(list: &At<'v>, is_pod: bool, errors: &mut Errors) -> Vec<(&'v str, bool)> {
    let mut names = Vec::new();
    for volume in list.items() {
        let before = errors.0.len();
        source(&volume, is_pod, errors);
        let name = volume.get("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.each(&name, format::dns1123_label(name.str()));
        }
        if names.iter().any(|(known, _)| *known == name.str()) {
            errors.duplicate(&name);
        }
        if errors.0.len() == before {
            let block = volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set();
            names.push((name.str(), block));
        }
    }
    names
}

fn source(volume: &At<'_>, is_pod: bool, errors: &mut Errors) {
    let mut found = 0;
    // Upstream looks at them in an order of its own.
    const ORDER: &str = "emptyDir hostPath gitRepo gcePersistentDisk awsElasticBlockStore secret nfs iscsi glusterfs \
                         persistentVolumeClaim rbd cinder cephfs flocker downwardAPI fc configMap azureFile";
    let mut sources: Vec<&str> = volume.members().map(|(name, _)| name).filter(|name| *name != "name").collect();
    sources.order_by_key(|name| ORDER.find(name).unwrap_or(usize::MAX));
    for name in sources {
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
            "hostPath" => host_path(&at, errors),
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
            "image" => {
                if is_pod {
                    needs(&at, "reference", errors);
                }
                rules(&at, "pullPolicy=Always|IfNotPresent|Never", errors);
            }
            _ => remote(name, &at, errors),
        }
    }
    if found == 0 {
        errors.required(volume, "must specify a volume type");
    }
}

/// validateHostPathVolumeSource
pub(super) fn host_path(at: &At<'_>, errors: &mut Errors) {
    rules(at, "path!path", errors);
    let kinds = "|BlockDevice|CharDevice|Directory|DirectoryOrCreate|File|FileOrCreate|Socket";
    rules(at, &format!("type={kinds}"), errors);
}

/// Sources on some other machine: field, and what each needs. A PersistentVolume has the same ones.
const REMOTE: [(&str, &str); 19] = [
    ("awsElasticBlockStore", "volumeID!"),
    ("gcePersistentDisk", "pdName!"),
    ("nfs", "server! path!"),
    ("iscsi", "targetPortal! iqn!"),
    ("glusterfs", "endpoints! path!"),
    ("rbd", "monitors! image!"),
    ("cephfs", "monitors!"),
    ("gitRepo", "repository!"),
    ("flexVolume", "driver!"),
    ("cinder", "volumeID!"),
    ("azureFile", "secretName! shareName!"),
    ("azureDisk", "diskName! diskURI! cachingMode=None|ReadOnly|ReadWrite kind=Dedicated|Managed|Shared"),
    ("vsphereVolume", "volumePath!"),
    ("photonPersistentDisk", "pdID!"),
    ("portworxVolume", "volumeID!"),
    ("scaleIO", "gateway! system! volumeName!"),
    ("storageos", "volumeName!"),
    ("csi", "driver!driver"),
    ("quobyte", ""),
];

pub(super) fn remote(name: &str, at: &At<'_>, errors: &mut Errors) {
    // The internal type has another name for this one.
    let at = &if name == "gcePersistentDisk" { at.moved(at.path.replace(name, "persistentDisk")) } else { at.clone() };
    if let Some((_, words)) = REMOTE.iter().find(|(n, _)| *n == name) {
        rules(at, words, errors);
    }
    match name {
        "awsElasticBlockStore" | "gcePersistentDisk" => partition(&at.get("partition"), errors),
        "nfs" if !at.get("path").str().starts_with('/') => {
            errors.invalid(&at.get("path"), "must be an absolute path");
        }
        "iscsi" => iscsi(at, errors),
        "fc" => fibre_channel(at, errors),
        "gitRepo" if !at.get("directory").str().is_empty() => local_path(&at.get("directory"), errors),
        "azureDisk" => azure_disk(at, errors),
        "quobyte" => {
            if at.get("registry").str().is_empty() {
                let detail = "must be a host:port pair or multiple pairs separated by commas";
                errors.required(&at.get("registry"), detail);
            }
            needs(at, "volume", errors);
        }
        "csi" if at.get("nodePublishSecretRef").is_set() => {
            rules(&at.get("nodePublishSecretRef"), "name!subdomain", errors);
        }
        _ => {}
    }
}

fn partition(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|n| !(0..=255).contains(&n)) {
        errors.invalid(at, "must be between 1 and 255, inclusive");
    }
}

fn azure_disk(at: &At<'_>, errors: &mut Errors) {
    const DISK: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let uri = at.get("diskURI");
    let (prefix, form) = match at.get("kind").str() {
        "" => return,
        "Managed" => ("/subscriptions/", DISK),
        _ => ("https://", BLOB),
    };
    if !uri.str().starts_with(prefix) {
        errors.unsupported(&uri, &[form]);
    }
}

fn iscsi(at: &At<'_>, errors: &mut Errors) {
    let name = |field: &str, errors: &mut Errors| {
        let at = at.get(field);
        if !at.str().is_empty() && !["iqn", "eui", "naa"].iter().any(|p| at.str().starts_with(p)) {
            errors.invalid(&at, "must be valid format starting with iqn, eui, or naa");
        } else if !at.str().is_empty() && !is_initiator(at.str()) {
            errors.invalid(&at, "must be valid format");
        }
    };
    name("iqn", errors);
    rules(at, "lun:0..255", errors);
    if (at.get("chapAuthDiscovery").is_true() || at.get("chapAuthSession").is_true()) && !at.get("secretRef").is_set() {
        errors.required(&at.get("secretRef"), "");
    }
    name("initiatorName", errors);
}

/// "iqn.2001-04.com.example:x", "eui." and 16 digits, "naa." and up to 32.
fn is_initiator(text: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((kind, rest)) = text.split_once('.') else { return false };
    match kind {
        "eui" => rest.len() == 16 && hex(rest),
        "naa" => rest.len() <= 32 && hex(rest),
        _ => {
            let mut parts = rest.splitn(2, '.');
            let date: Vec<&str> = parts.next().unwrap_or("").split('-').collect();
            let [year, month] = date[..] else { return false };
            let number = |t: &str, len: usize| t.len() == len && t.bytes().all(|b| b.is_ascii_digit());
            let domain = parts.next().and_then(|tail| tail.split(':').next()).unwrap_or("");
            number(year, 4) && number(month, 2) && !domain.is_empty()
        }
    }
}

fn fibre_channel(at: &At<'_>, errors: &mut Errors) {
    let (names, ids, lun) = (at.get("targetWWNs"), at.get("wwids"), at.get("lun"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => errors.required(&names, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => errors.invalid(&names, "targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !names.is_empty() && !lun.is_set() {
        errors.required(&lun, "lun is required if targetWWNs is specified");
    } else if !names.is_empty() {
        rules(at, "lun:0..255", errors);
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
