//! The downward API: fields of the pod and resources of its containers as text, for environment and volumes.
//! Pure. Texts of errors: upstream's pkg/fieldpath, pkg/apis/core/pods and pkg/api/v1/resource.
use crate::pod::Pod;
use crate::spec::{Container, ObjectFieldSelector, ResourceFieldSelector, ResourceRequirements};
use mote_schema::{quantity::Quantity, status::go_quote, validate};
use std::collections::BTreeMap;

/// What the node knows about the pod.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub host_ip: &'a str,
    pub pod_ips: &'a [String],
}

/// In a volume there is only the metadata; the rest may change after the pod has started.
pub fn metadata(pod: &Pod, path: &str) -> Result<String, String> {
    if let Some((field, key)) = subscript(path) {
        let (map, checked) = match field {
            "metadata.annotations" => (&pod.annotations, key.to_lowercase()),
            "metadata.labels" => (&pod.labels, key.to_owned()),
            _ => return Err(format!("fieldPath {} does not support subscript", go_quote(path))),
        };
        let wrong = validate::qualified_name(&checked);
        if !wrong.is_empty() {
            return Err(format!("invalid key subscript in {path}: {}", wrong.join(";")));
        }
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.annotations" => lines(&pod.annotations),
        "metadata.labels" => lines(&pod.labels),
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// In the environment.
pub fn field(pod: &Pod, node: Node<'_>, selector: &ObjectFieldSelector) -> Result<String, String> {
    let version = selector.api_version.as_deref().unwrap_or("v1");
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    let path = selector.field_path.as_str();
    if let Some((field, _)) = subscript(path) {
        return match field {
            "metadata.annotations" | "metadata.labels" => metadata(pod, path),
            _ => Err(format!("field label does not support subscript: {path}")),
        };
    }
    Ok(match path {
        "spec.nodeName" | "spec.host" => pod.spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => node.host_ip.into(),
        "status.podIP" => node.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => node.pod_ips.join(","),
        "spec.restartPolicy" | "spec.schedulerName" | "status.phase" => {
            return Err(format!("unsupported fieldPath: {path}"));
        }
        _ if path.starts_with("metadata.") => {
            return metadata(pod, path).map_err(|_| format!("field label not supported: {path}"));
        }
        _ => return Err(format!("field label not supported: {path}")),
    })
}

/// "metadata.labels['a']" is ("metadata.labels", "a").
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, key) = path.strip_suffix("']")?.split_once("['")?;
    (!field.is_empty()).then_some((field, key))
}

/// `key="value"`, one a line, by key.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={}", go_quote(value))).collect();
    lines.join("\n")
}

/// `own` is the container that asks; the selector may name another. `allocatable` stands in for limits that are not set.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    allocatable: &[(String, String)],
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref().unwrap_or_default() {
        "" => own.ok_or_else(|| "container  not found".to_owned())?,
        name => pod
            .spec
            .containers
            .iter()
            .chain(pod.init_containers())
            .find(|container| container.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if !known && !name.starts_with("hugepages-") || !matches!(list, "limits" | "requests") {
        return Err(unsupported());
    }
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::new(1, Default::default()));
    let amount = match list {
        "limits" => limit(pod, container, allocatable, name),
        _ => of(&container.resources, false, name),
    };
    let amount = amount.unwrap_or_default();
    let (amount, divisor) = match name {
        "cpu" => (amount.milli_value(), divisor.milli_value()),
        _ => (amount.value(), divisor.value()),
    };
    // Rounded up; amounts are not negative.
    Ok((amount / divisor.max(1) + i64::from(amount % divisor.max(1) > 0)).to_string())
}

/// The container's, else the pod's, else what the node has.
fn limit(pod: &Pod, container: &Container, allocatable: &[(String, String)], name: &str) -> Option<Quantity> {
    let node = || {
        let (_, text) = allocatable.iter().find(|(resource, _)| resource == name)?;
        Quantity::parse(text).ok()
    };
    of(&container.resources, true, name)
        .or_else(|| if name == "ephemeral-storage" { None } else { of(&pod.spec.resources, true, name) })
        .or_else(|| if name.starts_with("hugepages-") { None } else { node() })
}

/// None when it is absent or zero.
fn of(resources: &Option<ResourceRequirements>, limits: bool, name: &str) -> Option<Quantity> {
    let resources = resources.as_ref()?;
    let list = if limits { &resources.limits } else { &resources.requests };
    Quantity::parse(&list.as_ref()?.get(name)?.0).ok().filter(|amount| !amount.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use mote_schema::json;

    fn pod() -> Pod {
        let mut pod = fixture::pod(json!({"nodeName": "n", "serviceAccountName": "sa", "containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}},
            {"name": "b"},
        ]}));
        pod.labels = [("a".to_owned(), "x\"y".to_owned()), ("b/c".to_owned(), "z".to_owned())].into();
        pod.annotations = [("K".to_owned(), "v".to_owned())].into();
        pod
    }

    #[test]
    fn fields_read_as_text() {
        let pod = pod();
        let ips = ["10.0.0.2".to_owned(), "fd00::2".to_owned()];
        let node = Node { host_ip: "192.0.2.1", pod_ips: &ips };
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.uid", Ok("uid-1")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb/c=\"z\"")),
            ("metadata.labels['b/c']", Ok("z")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['K']", Ok("v")),
            ("spec.nodeName", Ok("n")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("status.podIP", Ok("10.0.0.2")),
            ("status.podIPs", Ok("10.0.0.2,fd00::2")),
            ("spec.x['a']", Err("field label does not support subscript: spec.x['a']")),
            ("spec.containers", Err("field label not supported: spec.containers")),
        ] {
            let selector = ObjectFieldSelector { api_version: None, field_path: path.into() };
            let read = field(&pod, node, &selector);
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{path}");
        }
        assert_eq!(metadata(&pod, "spec.nodeName"), Err("unsupported fieldPath: spec.nodeName".into()));
    }

    #[test]
    fn resources_are_rounded_up() {
        let pod = pod();
        let allocatable = [("cpu".to_owned(), "4".to_owned()), ("memory".to_owned(), "1000Mi".to_owned())];
        for (container, resource, divisor, expected) in [
            ("a", "limits.cpu", None, "2"),
            ("a", "limits.cpu", Some("1m"), "1500"),
            ("a", "requests.cpu", Some("1m"), "100"),
            ("a", "limits.memory", None, "67108864"),
            ("a", "limits.memory", Some("1Mi"), "64"),
            ("a", "requests.memory", None, "0"),
            ("b", "limits.cpu", None, "4"),
            ("b", "limits.memory", Some("1Gi"), "1"),
            ("b", "limits.hugepages-2Mi", None, "0"),
        ] {
            let selector: ResourceFieldSelector = crate::fixture::read(
                json!({"containerName": container, "resource": resource, "divisor": divisor.unwrap_or("0")}),
            );
            let read = super::resource(&pod, None, &allocatable, &selector);
            assert_eq!(read.as_deref(), Ok(expected), "{container} {resource}");
        }
        let selector = ResourceFieldSelector { resource: "limits.disk".into(), ..Default::default() };
        let read = super::resource(&pod, Some(&pod.spec.containers[0]), &allocatable, &selector);
        assert_eq!(read, Err("unsupported container resource : limits.disk".into()));
    }
}
