//! Volumes, their classes and drivers, and devices.
use super::row::{Row, UNSET, join, quantity};
use mote_schema::Ref;

/// Short forms in a fixed order, each once (pkg/apis/core/helper).
fn access_modes(modes: Ref<'_>) -> String {
    let has = |mode: &str| modes.items().any(|found| found.str() == mode);
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    join(short.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short), ",")
}

/// The class by the annotation that came before the field, or by the field.
fn class_of<'a>(row: &Row<'a>) -> &'a str {
    let annotation = row.object.meta().get("annotations").get("volume.beta.kubernetes.io/storage-class");
    annotation.as_str().unwrap_or(row.at("spec.storageClassName").str())
}

fn phase<'a>(row: &Row<'a>) -> &'a str {
    if row.object.is_deleting() { "Terminating" } else { row.at("status.phase").str() }
}

fn or_unset<'a>(row: &Row<'a>, path: &str) -> &'a str {
    row.at(path).as_str().unwrap_or(UNSET)
}

pub(super) fn volume(row: &mut Row<'_>) {
    let claim = row.at("spec.claimRef");
    row.name();
    row.text(&quantity(row.at("spec.capacity.storage")));
    row.text(&access_modes(row.at("spec.accessModes")));
    row.string("spec.persistentVolumeReclaimPolicy");
    row.text(phase(row));
    row.text(&match claim.exists() {
        true => format!("{}/{}", claim.get("namespace").str(), claim.get("name").str()),
        false => String::new(),
    });
    row.text(class_of(row));
    row.text(or_unset(row, "spec.volumeAttributesClassName"));
    row.string("status.reason");
    row.age();
    row.text(or_unset(row, "spec.volumeMode"));
}

pub(super) fn claim(row: &mut Row<'_>) {
    let bound = !row.at("spec.volumeName").is_empty();
    row.name();
    row.text(phase(row));
    row.string("spec.volumeName");
    row.text(&if bound { quantity(row.at("status.capacity.storage")) } else { String::new() });
    row.text(&if bound { access_modes(row.at("status.accessModes")) } else { String::new() });
    row.text(class_of(row));
    row.text(or_unset(row, "spec.volumeAttributesClassName"));
    row.age();
    row.text(or_unset(row, "spec.volumeMode"));
}

pub(super) fn class(row: &mut Row<'_>) {
    let annotations = row.object.meta().get("annotations");
    let keys = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = keys.iter().any(|key| annotations.get(key).str() == "true");
    let name = row.object.name();
    row.text(&if default { format!("{name} (default)") } else { name.into() });
    row.string("provisioner");
    row.text(row.at("reclaimPolicy").as_str().unwrap_or("Delete"));
    row.text(row.at("volumeBindingMode").as_str().unwrap_or("Immediate"));
    row.bool(row.at("allowVolumeExpansion").is_true());
    row.age();
}

pub(super) fn attributes_class(row: &mut Row<'_>) {
    row.name();
    row.string("driverName");
    row.age();
}

pub(super) fn attachment(row: &mut Row<'_>) {
    row.name();
    row.string("spec.attacher");
    row.string("spec.source.persistentVolumeName");
    row.string("spec.nodeName");
    row.bool(row.at("status.attached").is_true());
    row.age();
}

pub(super) fn csi_node(row: &mut Row<'_>) {
    row.name();
    row.count("spec.drivers");
    row.age();
}

pub(super) fn csi_driver(row: &mut Row<'_>) {
    let requests = row.at("spec.tokenRequests");
    let modes = join(row.at("spec.volumeLifecycleModes").items().map(Ref::str), ",");
    row.name();
    row.bool(row.at("spec.attachRequired").as_bool().unwrap_or(true));
    row.bool(row.at("spec.podInfoOnMount").is_true());
    row.bool(row.at("spec.storageCapacity").is_true());
    row.text(&match requests.exists() {
        true => join(requests.items().map(|request| request.get("audience").str()), ","),
        false => UNSET.into(),
    });
    row.bool(row.at("spec.requiresRepublish").is_true());
    row.text(&super::row::or_none(modes));
    row.age();
}

pub(super) fn resource_claim(row: &mut Row<'_>) {
    let (deleting, allocated) = (row.object.is_deleting(), row.at("status.allocation").exists());
    let reserved = allocated && row.at("status.reservedFor").items().next().is_some();
    let states =
        [(deleting, "deleted"), (!deleting && !allocated, "pending"), (allocated, "allocated"), (reserved, "reserved")];
    row.name();
    row.text(&join(states.iter().filter(|(holds, _)| *holds).map(|(_, state)| *state), ","));
    row.age();
}

pub(super) fn resource_slice(row: &mut Row<'_>) {
    row.name();
    row.string("spec.nodeName");
    row.string("spec.driver");
    row.string("spec.pool.name");
    row.age();
}
