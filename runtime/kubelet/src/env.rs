//! A container's environment, and `$(NAME)` expansion in commands, arguments and values.
//! Order and texts: upstream's makeEnvironmentVariables (pkg/kubelet/kubelet_pods.go).
pub mod fields;
mod file;

use crate::spec::{Container, EnvVarSource};
use crate::{
    pod::Pod,
    volumes::{self, Volumes},
};
use fields::Node;
use mote_api::Client;
use mote_schema::{Object, Ref, Status, status::go_quote};
use std::{collections::BTreeMap, path::PathBuf};

/// What the environment needs to know beyond the pod.
pub struct Facts<'a> {
    pub client: &'a Client,
    pub host_ip: &'a str,
    /// Newest first is the primary one; on the host network the node's.
    pub pod_ips: &'a [String],
    /// Node allocatable: resourceFieldRef's value for a limit that is not set. (resource, quantity)
    pub allocatable: &'a [(String, String)],
    /// Where fileKeyRef finds its files.
    pub volumes: &'a Volumes,
}

type Variables = Vec<(String, String)>;

/// By volume and path: where the file is, and its text.
type Files = BTreeMap<(String, String), Result<(PathBuf, String), String>>;

/// ConfigMaps and Secrets of the pod's namespace, by plural and name.
type Get<'a> = dyn Fn(&str, &str) -> Result<Object, Status> + 'a;

/// The error is the message of CreateContainerConfigError, in upstream's words.
pub async fn make(facts: &Facts<'_>, pod: &Pod, container: &Container) -> Result<Vec<(String, String)>, String> {
    let files = read_files(facts.volumes, container).await;
    let get = |plural: &str, name: &str| lookup(facts.client, &pod.namespace, plural, name);
    let services = service_variables(facts.client, pod)?;
    let node = Node { host_ip: facts.host_ip, pod_ips: facts.pod_ips };
    variables(pod, container, node, facts.allocatable, &get, &files, services)
}

async fn read_files(volumes: &Volumes, container: &Container) -> Files {
    let mut files = Files::new();
    for variable in container.env.iter().flatten() {
        let Some(selector) = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref()) else {
            continue;
        };
        let (volume, path) = (selector.volume_name.clone(), selector.path.clone());
        let read = match volumes.paths.get(&volume) {
            Some(root) => volumes::read_inside(root.clone(), path.clone()).await.map_err(|error| {
                tracing::warn!(volume, path, %error, "an environment file is not read");
                "couldn't parse env file".to_owned()
            }),
            None => Err(format!("cannot find the volume {} referenced by FileKeyRef", go_quote(&volume))),
        };
        files.insert((volume, path), read);
    }
    files
}

/// One ConfigMap or Secret; an error in upstream's words.
pub fn lookup(client: &Client, namespace: &str, plural: &str, name: &str) -> Result<Object, Status> {
    let Some(kind) = client.kind("", "v1", plural) else { return Err(Status::no_such_path()) };
    client.get(&kind, namespace, name).map_err(|status| {
        // The kubelet names the kind in the singular.
        if status.is_not_found() { Status::not_found("", plural.trim_end_matches('s'), name) } else { status }
    })
}

fn variables(
    pod: &Pod,
    container: &Container,
    node: Node<'_>,
    allocatable: &[(String, String)],
    get: &Get<'_>,
    files: &Files,
    services: Variables,
) -> Result<Variables, String> {
    let mut all = Variables::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (plural, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(reference), _) => ("configmaps", &reference.name, reference.optional),
            (_, Some(reference)) => ("secrets", &reference.name, reference.optional),
            _ => continue,
        };
        let Some(object) = find(get, plural, name, optional)? else { continue };
        for (key, value) in object.root().get("data").entries() {
            set(&mut all, format!("{prefix}{key}"), text(plural, value));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => match from_source(pod, container, node, allocatable, (get, files), source)? {
                Some(value) => value,
                None => continue,
            },
            (value, _) => expand_by(value, &|name| find_in(&all, name).or_else(|| find_in(&services, name))),
        };
        set(&mut all, variable.name.clone(), value);
    }
    for (name, value) in services {
        if find_in(&all, &name).is_none() {
            all.push((name, value));
        }
    }
    Ok(all)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    node: Node<'_>,
    allocatable: &[(String, String)],
    (get, files): (&Get<'_>, &Files),
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, node, selector).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(pod, Some(container), allocatable, selector).map(Some);
    }
    if let Some(selector) = &source.file_key_ref {
        let read = files.get(&(selector.volume_name.clone(), selector.path.clone()));
        let (path, text) = read.cloned().unwrap_or_else(|| Err("couldn't parse env file".into()))?;
        let value = file::value(&text, &selector.key).map_err(|_| "couldn't parse env file")?;
        return match value {
            Some(value) => Ok(Some(value)),
            None if selector.optional == Some(true) => Ok(None),
            None => {
                let (key, path) = (go_quote(&selector.key), go_quote(&path.to_string_lossy()));
                Err(format!("environment variable key {key} not found in file {path}"))
            }
        };
    }
    let (plural, kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), _) => ("configmaps", "ConfigMap", &reference.name, &reference.key, reference.optional),
        (_, Some(reference)) => ("secrets", "Secret", &reference.name, &reference.key, reference.optional),
        _ => return Ok(Some(String::new())),
    };
    let Some(object) = find(get, plural, name, optional)? else { return Ok(None) };
    let value = object.root().get("data").get(key);
    match value.exists() {
        true => Ok(Some(text(plural, value))),
        false if optional == Some(true) => Ok(None),
        false => Err(format!("couldn't find key {key} in {kind} {}/{name}", pod.namespace)),
    }
}

/// None when it is not there and need not be.
fn find(get: &Get<'_>, plural: &str, name: &str, optional: Option<bool>) -> Result<Option<Object>, String> {
    match get(plural, name) {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() && optional == Some(true) => Ok(None),
        Err(status) => Err(status.message),
    }
}

/// A value of `data`: text in ConfigMaps, base64 in Secrets. Go passes bytes on as they are; what is not UTF-8 cannot be.
fn text(plural: &str, value: Ref<'_>) -> String {
    match plural {
        "secrets" => String::from_utf8_lossy(&crate::base64_decode(value.str()).unwrap_or_default()).into_owned(),
        _ => value.str().to_owned(),
    }
}

fn set(all: &mut Variables, name: String, value: String) {
    match all.iter_mut().find(|(known, _)| *known == name) {
        Some(known) => known.1 = value,
        None => all.push((name, value)),
    }
}

fn find_in<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
    all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// `default/kubernetes`, and the services of the namespace when the pod wants links to them.
fn service_variables(client: &Client, pod: &Pod) -> Result<Variables, String> {
    const FAILED: &str = "failed to list services when setting up env vars";
    let kind = client.kind("", "v1", "services").ok_or(FAILED)?;
    let mut all = Variables::new();
    if pod.spec.enable_service_links.unwrap_or(true) {
        for service in client.list(&kind, Some(&pod.namespace)).map_err(|_| FAILED)? {
            links(service.root(), &mut all);
        }
    }
    match client.get(&kind, "default", "kubernetes") {
        Ok(service) => links(service.root(), &mut all),
        Err(status) if status.is_not_found() => {}
        Err(_) => return Err(FAILED.into()),
    }
    Ok(all)
}

/// What containers once learned from Docker links (pkg/kubelet/envvars).
fn links(service: Ref<'_>, all: &mut Variables) {
    let upper = |text: &str| text.replace('-', "_").to_uppercase();
    let ip = service.at("spec.clusterIP").str();
    let name = upper(service.at("metadata.name").str());
    let ports = service.at("spec.ports");
    let Some(first) = ports.items().next().filter(|_| !matches!(ip, "" | "None")) else { return };
    let number = |port: Ref<'_>| port.get("port").as_i64().unwrap_or_default();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    set(all, format!("{name}_SERVICE_HOST"), ip.into());
    set(all, format!("{name}_SERVICE_PORT"), number(first).to_string());
    for port in ports.items().filter(|port| !port.get("name").str().is_empty()) {
        let port_name = upper(port.get("name").str());
        set(all, format!("{name}_SERVICE_PORT_{port_name}"), number(port).to_string());
    }
    for (i, port) in ports.items().enumerate() {
        let protocol = port.get("protocol").as_str().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), number(port));
        let url = format!("{lower}://{host}:{number}");
        if i == 0 {
            set(all, format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{number}_{}", protocol.to_uppercase());
        set(all, format!("{prefix}_PROTO"), lower);
        set(all, format!("{prefix}_PORT"), number.to_string());
        set(all, format!("{prefix}_ADDR"), ip.into());
        set(all, prefix, url);
    }
}

/// `$(NAME)` by `env`; `$$` is a dollar; what is not found stays as it is.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_by(text, &|name| find_in(env, name))
}

/// As `expand`, but names without a value are an error: the names (upstream's ExpandContainerVolumeMounts).
pub fn expand_strict(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let expanded = expand_by(text, &|name| {
        let found = find_in(env, name).filter(|value| !value.is_empty());
        if found.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        found
    });
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    if missing.is_empty() { Ok(expanded) } else { Err(missing.join(", ")) }
}

fn expand_by<'a>(text: &str, value: &dyn Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

/// command and args of the container, expanded.
pub fn command_and_args(container: &Container, env: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let all = |list: &Option<Vec<String>>| list.iter().flatten().map(|t| expand(t, env)).collect();
    (all(&container.command), all(&container.args))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use mote_schema::Doc;
    use mote_schema::{Value, json};

    #[test]
    fn references_expand() {
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expanded) in [
            ("$(A)-$(B)", "1-$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C) $(", "$(C) $("),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("é$é", "é$é"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
        assert_eq!(expand_strict("x/$(A)", &env), Ok("x/1".into()));
        assert_eq!(expand_strict("x/$(C)", &env), Err("C".into()));
    }

    fn check(container: Value, expected: Result<Value, &str>) {
        let pod = fixture::pod(json!({"containers": [container], "enableServiceLinks": true}));
        let get = |plural: &str, name: &str| {
            let data = match (plural, name) {
                ("configmaps", "c") => json!({"data": {"k": "v", "A": "from"}}),
                ("secrets", "s") => json!({"data": {"k": "aGk="}}),
                _ => return Err(Status::not_found("", plural.trim_end_matches('s'), name)),
            };
            Ok(Object { doc: Doc::encode(&data).unwrap(), ..pod.object.clone() })
        };
        let mut services = Variables::new();
        let service = json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.43.0.7",
            "ports": [{"name": "sql-x", "port": 5432}]}});
        links(Doc::encode(&service).unwrap().root(), &mut services);
        let node = Node { host_ip: "192.0.2.1", pod_ips: &["10.0.0.2".into()] };
        let file = |text: &str| Ok((PathBuf::from("/vol/e"), text.to_owned()));
        let files = [(("v".to_owned(), "e".to_owned()), file("K='x'\n"))].into();
        let made = variables(&pod, &pod.spec.containers[0], node, &[], &get, &files, services);
        let made = made.map(|all| {
            let own = all.into_iter().filter(|(name, _)| !name.starts_with("MY_DB_"));
            Value::from(own.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        });
        assert_eq!(made, expected.map_err(str::to_owned));
    }

    #[test]
    fn sources_in_upstreams_order() {
        check(
            json!({"name": "x", "env": [{"name": "A", "value": "own"}, {"name": "D", "value": "$(A) $(k) $(MY_DB_SERVICE_HOST)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                {"name": "EMPTY"}],
                "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "P_", "secretRef": {"name": "s"}},
                {"secretRef": {"name": "none", "optional": true}}]}),
            Ok(json!(["A=own", "k=v", "P_k=hi", "D=own v 10.43.0.7", "IP=10.0.0.2", "S=hi", "EMPTY="])),
        );
        let one = |source: Value| json!({"name": "x", "env": [{"name": "A", "valueFrom": source}]});
        check(one(json!({"configMapKeyRef": {"name": "none", "key": "k"}})), Err("configmap \"none\" not found"));
        check(one(json!({"fileKeyRef": {"volumeName": "v", "path": "e", "key": "K"}})), Ok(json!(["A=x"])));
        check(
            one(json!({"fileKeyRef": {"volumeName": "v", "path": "e", "key": "Q"}})),
            Err("environment variable key \"Q\" not found in file \"/vol/e\""),
        );
        check(one(json!({"secretKeyRef": {"name": "s", "key": "q"}})), Err("couldn't find key q in Secret ns/s"));
        check(json!({"name": "x", "envFrom": [{"secretRef": {"name": "none"}}]}), Err("secret \"none\" not found"));
    }

    #[test]
    fn services_are_linked() {
        let mut all = Variables::new();
        let service = json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "fd00::7",
            "ports": [{"name": "sql-x", "port": 5432, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
        links(Doc::encode(&service).unwrap().root(), &mut all);
        let get = |name| find_in(&all, name).unwrap();
        assert_eq!(get("MY_DB_SERVICE_HOST"), "fd00::7");
        assert_eq!(get("MY_DB_SERVICE_PORT"), "5432");
        assert_eq!(get("MY_DB_SERVICE_PORT_SQL_X"), "5432");
        assert_eq!(get("MY_DB_PORT"), "tcp://[fd00::7]:5432");
        assert_eq!(get("MY_DB_PORT_53_UDP"), "udp://[fd00::7]:53");
        assert_eq!(get("MY_DB_PORT_53_UDP_ADDR"), "fd00::7");
        assert_eq!(all.len(), 2 + 2 + 1 + 8);
        let mut none = Variables::new();
        let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        links(Doc::encode(&headless).unwrap().root(), &mut none);
        assert!(none.is_empty());
    }
}
