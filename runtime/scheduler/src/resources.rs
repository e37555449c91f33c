//! What a pod asks for and what a node has.
use mote_api::Ref;
use mote_schema::quantity::Quantity;
use std::collections::BTreeMap;

/// CPU in thousandths of a core, the rest in bytes or pieces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Extended resources and huge pages, by name.
    pub scalar: BTreeMap<String, i64>,
}

fn quantity(value: Ref<'_>, milli: bool) -> i64 {
    let parsed = match value.as_str() {
        Some(text) => Quantity::parse(text).ok(),
        None => value.as_i64().and_then(|number| Quantity::parse(&number.to_string()).ok()),
    };
    parsed.map_or(0, |q| if milli { q.milli_value() } else { q.value() })
}

impl Resources {
    /// A ResourceList; "pods" is not kept here.
    pub fn of(list: Ref<'_>) -> Resources {
        let mut resources = Resources::default();
        for (name, value) in list.entries() {
            match name {
                "cpu" => resources.cpu_milli = quantity(value, true),
                "memory" => resources.memory_bytes = quantity(value, false),
                "ephemeral-storage" => resources.ephemeral_bytes = quantity(value, false),
                "pods" => {}
                _ => drop(resources.scalar.insert(name.into(), quantity(value, false))),
            }
        }
        resources
    }

    fn combine(&mut self, other: &Resources, with: fn(i64, i64) -> i64) {
        self.cpu_milli = with(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub fn sub(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    fn max(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    pub fn is_zero(&self) -> bool {
        self.cpu_milli == 0
            && self.memory_bytes == 0
            && self.ephemeral_bytes == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

/// What the node must have left for the pod: its containers and sidecars together, or the largest moment of its
/// init containers, whichever is more; a pod-level request replaces that for its resource; then the overhead
/// (component-helpers' resource.PodRequests).
pub fn requests(spec: Ref<'_>) -> Resources {
    let of = |container: Ref<'_>| Resources::of(container.at("resources.requests"));
    let mut total = Resources::default();
    for container in spec.get("containers").items() {
        total.add(&of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.get("initContainers").items() {
        let mut own = of(container);
        if container.get("restartPolicy").str() == "Always" {
            total.add(&own);
            sidecars.add(&own);
            peak.max(&sidecars);
        } else {
            own.add(&sidecars);
            peak.max(&own);
        }
    }
    total.max(&peak);
    let pod_level = spec.at("resources.requests");
    if pod_level.exists() {
        let stated = Resources::of(pod_level);
        if pod_level.get("cpu").exists() {
            total.cpu_milli = stated.cpu_milli;
        }
        if pod_level.get("memory").exists() {
            total.memory_bytes = stated.memory_bytes;
        }
        total.scalar.extend(stated.scalar);
    }
    total.add(&Resources::of(spec.get("overhead")));
    total
}

/// How many pods a node takes.
pub fn max_pods(allocatable: Ref<'_>) -> usize {
    usize::try_from(quantity(allocatable.get("pods"), false)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::Doc;
    use mote_schema::{Value, json};

    #[test]
    fn pod_requests() {
        let check = |spec: Value, cpu: i64, memory: i64| {
            let doc = Doc::encode(&spec).unwrap();
            let found = requests(doc.root());
            assert_eq!((found.cpu_milli, found.memory_bytes), (cpu, memory), "{spec}");
        };
        let container = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        check(json!({"containers": [{}]}), 0, 0);
        check(json!({"containers": [container("100m", "1Mi"), container("0.2", "1M")]}), 300, 2_048_576);
        check(json!({"containers": [container("100m", "1")], "initContainers": [container("1", "0")]}), 1000, 1);
        check(
            json!({"containers": [container("100m", "1")], "initContainers": [sidecar("200m"), container("300m", "0")]}),
            500,
            1,
        );
        check(json!({"containers": [container("100m", "1")], "overhead": {"cpu": "50m"}}), 150, 1);
        check(json!({"containers": [container("100m", "1")], "resources": {"requests": {"cpu": "1"}}}), 1000, 1);
    }
}
