//! PodTopologyLabels: a pod carries its node's zone and region (plugin/pkg/admission/podtopologylabels). They reach a
//! scheduled pod through its Binding.
use super::{Attributes, Operation};
use mote_schema::Status;
use mote_schema::{Value, json};

const LABELS: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    if !attributes.is("", "pods") || attributes.operation == Operation::Delete {
        return Ok(());
    }
    let node = match attributes.subresource {
        "" => &new["spec"]["nodeName"],
        "binding" if new["target"]["kind"] == "Node" => &new["target"]["name"],
        _ => return Ok(()),
    };
    let Some(name) = node.as_str().filter(|name| !name.is_empty()) else { return Ok(()) };
    let Some(node) = attributes.api.lookup("", "v1", "nodes", "", name) else { return Ok(()) };
    let labels = node.meta().get("labels");
    for label in LABELS {
        if let Some(value) = labels.get(label).as_str() {
            if !new["metadata"]["labels"].is_object() {
                new["metadata"]["labels"] = json!({});
            }
            new["metadata"]["labels"][*label] = Value::from(value);
        }
    }
    Ok(())
}
