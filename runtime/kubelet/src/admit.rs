//! Whether a pod that has just come to this node can run beside those that are here: the scheduler has asked the same,
//! but a pod whose author named the node never met it (pkg/kubelet/lifecycle/predicate.go). Host ports only. Pure.
use mote_api::{Object, Ref};

/// Status reason, and the words that follow "Pod was rejected: ".
pub type Refusal = (&'static str, &'static str);

/// `others` are the pods of the node that have started and not finished.
pub fn refusal<'a>(pod: &Object, mut others: impl Iterator<Item = &'a Object>) -> Option<Refusal> {
    let wanted = ports(pod);
    let taken = others.any(|other| ports(other).iter().any(|port| meets(port, &wanted)));
    taken.then_some((
        "NodePorts",
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    ))
}

/// There is something to ask: most pods want no port of the host.
pub fn wants_ports(pod: &Object) -> bool {
    !ports(pod).is_empty()
}

/// On this node since an earlier reconcile, and still there.
pub fn holds_ports(pod: &Object) -> bool {
    let status = pod.root().get("status");
    status.get("startTime").exists() && !matches!(status.get("phase").str(), "Succeeded" | "Failed")
}

struct Port<'a> {
    protocol: &'a str,
    /// "" for all.
    address: &'a str,
    number: i64,
}

/// Of containers and sidecars.
fn ports(pod: &Object) -> Vec<Port<'_>> {
    let spec: Ref<'_> = pod.root().get("spec");
    let sidecars = spec.get("initContainers").items().filter(|c| c.get("restartPolicy").str() == "Always");
    let ports = spec.get("containers").items().chain(sidecars).flat_map(|c| c.get("ports").items());
    ports
        .filter_map(|port| {
            let number = port.get("hostPort").as_i64().filter(|number| *number > 0)?;
            let address = port.get("hostIP").as_str().filter(|ip| *ip != "0.0.0.0").unwrap_or("");
            Some(Port { protocol: port.get("protocol").as_str().unwrap_or("TCP"), address, number })
        })
        .collect()
}

fn meets(port: &Port<'_>, wanted: &[Port<'_>]) -> bool {
    wanted.iter().any(|other| {
        let apart = !port.address.is_empty() && !other.address.is_empty() && port.address != other.address;
        port.number == other.number && port.protocol == other.protocol && !apart
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};
    use serde_json::{Value, json};

    fn pod(port: Value, status: Value) -> Object {
        let kind = Catalog::builtin().by_resource("", "v1", "pods").unwrap().clone();
        let value = json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}, "status": status});
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    #[test]
    fn host_ports_meet() {
        let there = pod(json!({"hostPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}), json!({}));
        for (port, meets) in [
            (json!({"hostPort": 80}), true),
            (json!({"hostPort": 80, "hostIP": "0.0.0.0"}), true),
            (json!({"hostPort": 80, "hostIP": "10.0.0.1"}), true),
            (json!({"hostPort": 80, "hostIP": "10.0.0.2"}), false),
            (json!({"hostPort": 80, "protocol": "UDP"}), false),
            (json!({"hostPort": 81}), false),
            (json!({"containerPort": 80}), false),
        ] {
            assert_eq!(refusal(&pod(port.clone(), json!({})), [&there].into_iter()).is_some(), meets, "{port}");
        }
    }

    #[test]
    fn only_pods_that_run_hold_ports() {
        for (status, holds) in [
            (json!({"phase": "Pending"}), false),
            (json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"}), true),
            (json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z"}), false),
        ] {
            assert_eq!(holds_ports(&pod(json!({}), status.clone())), holds, "{status}");
        }
    }
}
