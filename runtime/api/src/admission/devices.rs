//! Devices with `adminAccess`, which others may be using: only in namespaces that are labelled for it. Upstream says so
//! among a claim's other faults (pkg/registry/resource/utils.go); here it is asked where a namespace can be read.
use super::{Attributes, Operation};
use mote_schema::{Cause, Status, Value};

const LABEL: &str = "resource.kubernetes.io/admin-access";
const GROUP: &str = "resource.k8s.io";

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let results = |claim: &Value| first(&claim["status"]["allocation"]["devices"]["results"], |result| result);
    let requests = |spec: &Value| first(&spec["devices"]["requests"], |request| &request["exactly"]);
    let (list, at) = match (attributes.operation, attributes.subresource) {
        _ if attributes.target.kind.group != GROUP => return Ok(()),
        (Operation::Create, "") if attributes.is(GROUP, "resourceclaims") => {
            ("spec.devices.requests", requests(&new["spec"]))
        }
        // A template's fault is named as its claim's.
        (Operation::Create, "") if attributes.is(GROUP, "resourceclaimtemplates") => {
            ("spec.devices.requests", requests(&new["spec"]["spec"]))
        }
        (Operation::Update, "status") if results(attributes.old).is_none() => {
            ("status.allocation.devices.results", results(new))
        }
        _ => return Ok(()),
    };
    let Some(at) = at else { return Ok(()) };
    let namespace = attributes.api.lookup("", "v1", "namespaces", "", attributes.target.namespace);
    if namespace.is_some_and(|namespace| namespace.meta().get("labels").get(LABEL).as_str() == Some("true")) {
        return Ok(());
    }
    let detail = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let cause = Cause::forbidden(format!("{list}[{at}].adminAccess"), &detail);
    let name = new["metadata"]["name"].as_str().unwrap_or("");
    Err(Status::invalid(GROUP, &attributes.target.kind.kind, name, vec![cause]))
}

/// The first of a list that asks for it.
fn first(list: &Value, part: impl Fn(&Value) -> &Value) -> Option<usize> {
    list.as_array()?.iter().position(|each| part(each)["adminAccess"] == true)
}
