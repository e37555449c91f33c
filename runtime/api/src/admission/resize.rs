//! What a running pod may be resized to: no more than its node has, and only what the node's kubelet says it can do
//! (plugin/pkg/admission/{podresize,nodedeclaredfeatures}); and PersistentVolumeClaimResize: only a bound claim of a
//! class that allows it grows (plugin/pkg/admission/storage/persistentvolume/resize).
use super::{Attributes, references::items};
use crate::quota::{
    Amounts,
    pod::{Counted, Side, totals},
};
use mote_schema::{Cause, Doc, Object, Status, Value, quantity::Quantity};

pub(super) fn declared_features(attributes: &mut Attributes<'_, '_>, pod: &Value) -> Result<(), Status> {
    let ours = attributes.is("", "pods") && matches!(attributes.subresource, "" | "resize") && attributes.is_update();
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|name| ours && !name.is_empty()) else { return Ok(()) };
    let old = &attributes.old["spec"];
    let mut needed = Vec::new();
    if old["resources"] != pod["spec"]["resources"] {
        needed.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let ordinary = |container: &&Value| container["restartPolicy"] != "Always";
    let pairs = items(&old["initContainers"]).zip(items(&pod["spec"]["initContainers"]));
    if pairs.into_iter().any(|(before, after)| ordinary(&before) && before["resources"] != after["resources"]) {
        needed.push("InPlacePodVerticalScalingInitContainers");
    }
    if needed.is_empty() {
        return Ok(());
    }
    let found = find(attributes, node, pod)?;
    let declares = |feature: &str| found.root().at("status.declaredFeatures").items().any(|has| has.str() == feature);
    needed.retain(|feature| !declares(feature));
    if needed.is_empty() {
        return Ok(());
    }
    let list = needed.join(", ");
    let detail = format!("pod update requires features {list} which are not available on node {node:?}");
    Err(attributes.forbidden(pod, &detail))
}

fn find(attributes: &Attributes<'_, '_>, node: &str, pod: &Value) -> Result<Object, Status> {
    let found = attributes.api.lookup("", "v1", "nodes", "", node);
    found.ok_or_else(|| attributes.forbidden(pod, &format!("node {node:?} not found")))
}

pub(super) fn pod(attributes: &mut Attributes<'_, '_>, pod: &Value) -> Result<(), Status> {
    let ours = attributes.is("", "pods") && attributes.subresource == "resize" && attributes.is_update();
    let Some(name) = pod["spec"]["nodeName"].as_str().filter(|name| ours && !name.is_empty()) else { return Ok(()) };
    if attributes.old["spec"] == pod["spec"] {
        return Ok(());
    }
    let node = find(attributes, name, pod)?;
    let refuse = |detail: String, reason: &'static str| {
        let mut status = attributes.forbidden(pod, &detail);
        status.causes = vec![Cause { reason, message: String::new(), field: String::new() }];
        Err(status)
    };
    let system = node.meta().get("labels").get("kubernetes.io/os").as_str().unwrap_or("linux");
    if system != "linux" {
        let detail = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return refuse(detail, "UnsupportedPlatform");
    }
    let doc = Doc::encode(pod).map_err(|error| Status::bad_request(format!("{error:?}")))?;
    let requests = totals(doc.root(), Side::Requests, Counted { status: false, overhead: true });
    let allocatable = Amounts::of(node.root().at("status.allocatable"));
    let both = |name: &str| (requests.get(name).unwrap_or_default(), allocatable.get(name).unwrap_or_default());
    let number = |name: &str, amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    let beyond = ["cpu", "memory"].into_iter().filter(|name| both(name).0 > both(name).1).map(|name| {
        let (requested, available) = both(name);
        format!("{name}, requested: {}, allocatable: {}", number(name, requested), number(name, available))
    });
    let beyond: Vec<String> = beyond.collect();
    if beyond.is_empty() {
        return Ok(());
    }
    let detail = format!("node didn't have enough allocatable resources: {}", beyond.join("; "));
    refuse(detail, "NodeCapacity")
}

pub(super) fn claim(attributes: &mut Attributes<'_, '_>, claim: &Value) -> Result<(), Status> {
    if !attributes.is_update() || !attributes.is_main("", "persistentvolumeclaims") {
        return Ok(());
    }
    let old = attributes.old;
    let size = |claim: &Value| {
        let text = claim["spec"]["resources"]["requests"]["storage"].as_str();
        text.and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(attributes.forbidden(claim, "Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(claim);
    let found = attributes.api.lookup("storage.k8s.io", "v1", "storageclasses", "", class);
    let allowed = found.is_some_and(|class| class.root().get("allowVolumeExpansion").is_true());
    if class.is_empty() || class != class_of(old) || !allowed {
        let detail = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        return Err(attributes.forbidden(claim, detail));
    }
    Ok(())
}

fn class_of(claim: &Value) -> &str {
    let annotation = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    annotation.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or("")
}
