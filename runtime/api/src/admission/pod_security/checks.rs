//! The checks of the baseline and restricted levels, each from the version on that has it
//! (pod-security-admission/policy). A check looks at a pod or a template and answers with what it calls the fault, and
//! where it is.
use super::{
    super::references::items,
    policy::{Demand, Level},
};
use mote_schema::Gather as _;
use mote_schema::{Name, Value};
use std::collections::BTreeSet;

/// The newest minor version with a check of its own; later ones, and the latest, are the same.
const NEWEST: u32 = 35;

struct Fault {
    reason: &'static str,
    detail: String,
}

pub(super) struct Violations(Vec<Fault>);

impl Violations {
    /// "host namespaces, privileged"
    pub(super) fn reason(&self) -> String {
        self.0.iter().map(|fault| fault.reason).collect::<Vec<_>>().join(", ")
    }

    /// "host namespaces (hostNetwork=true), privileged (container "a" must not set ...)"
    pub(super) fn detail(&self) -> String {
        self.0.iter().map(|fault| format!("{} ({})", fault.reason, fault.detail)).collect::<Vec<_>>().join(", ")
    }
}

type Check = fn(&Pod<'_>, u32) -> Option<Fault>;

/// Of the baseline level, by upstream's name, with the version from which the restricted level has a stricter one.
const BASELINE: &[(u32, Option<u32>, Check)] = &[
    (0, None, app_armor),
    (0, Some(22), capabilities_baseline),
    (0, None, host_namespaces),
    (0, Some(0), host_path),
    (0, None, host_ports),
    (34, None, hosts_of_probes),
    (0, None, privileged),
    (0, Some(35), proc_mount_baseline),
    (0, None, selinux),
    (0, Some(19), seccomp_baseline),
    (0, None, sysctls),
    (0, None, windows_host_process),
];

const RESTRICTED: &[(u32, Check)] = &[
    (8, privilege_escalation),
    (22, capabilities_restricted),
    (35, proc_mount),
    (0, volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp_restricted),
];

pub(super) fn violations(demand: Demand, pod: &Value) -> Option<Violations> {
    if demand.level == Level::Privileged {
        return None;
    }
    let minor = demand.version.unwrap_or(NEWEST).min(NEWEST);
    let restricted = demand.level == Level::Restricted;
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    let baseline = BASELINE.iter().filter(|(since, replaced, _)| {
        *since <= minor && !(restricted && replaced.is_some_and(|since| since <= minor))
    });
    let mut faults: Vec<Fault> = baseline.filter_map(|(_, _, check)| check(&pod, minor)).collect();
    if restricted {
        let stricter = RESTRICTED.iter().filter(|(since, _)| *since <= minor);
        faults.extend(stricter.filter_map(|(_, check)| check(&pod, minor)));
    }
    (!faults.is_empty()).then_some(Violations(faults))
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|field| items(&spec[field]))
    }

    fn bad(&self, is_bad: impl FnMut(&&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(is_bad).map(|container| container["name"].as_str().unwrap_or("")).collect()
    }

    fn windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    fn user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a Name, &'a str)> {
        let map = self.metadata["annotations"].as_object().into_iter().flatten();
        map.map(|(key, value)| (key, value.as_str().unwrap_or("")))
    }
}

fn fault(reason: &'static str, detail: String) -> Option<Fault> {
    Some(Fault { reason, detail })
}

fn quoted<'s>(list: impl IntoIterator<Item = &'s str>) -> String {
    list.into_iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ")
}

/// "container "a"", "containers "a", "b""
fn named(one: &str, names: &[&str]) -> String {
    format!("{one}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names.iter().copied()))
}

fn plural<'w>(count: usize, one: &'w str, many: &'w str) -> &'w str {
    if count == 1 { one } else { many }
}

/// The pod itself and the containers that set something bad: "pod and container "a"".
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let list = (!containers.is_empty()).then(|| named("container", containers));
    match (pod, list) {
        (false, None) => None,
        (true, None) => Some("pod".into()),
        (false, Some(list)) => Some(list),
        (true, Some(list)) => Some(format!("pod and {list}")),
    }
}

/// Where a field of the security contexts has a value that is not allowed, and which values those are.
fn wrong<'a>(
    pod: &Pod<'a>,
    field: &str,
    part: &str,
    allowed: impl Fn(&str) -> bool,
) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
    let mut values = BTreeSet::new();
    let mut is_wrong = |holder: &'a Value| {
        let set = &holder["securityContext"][field];
        let value = set[part].as_str().unwrap_or("");
        let wrong = set.is_object() && !allowed(value);
        if wrong {
            values.insert(value);
        }
        wrong
    };
    let own = is_wrong(pod.spec);
    let mut containers = Vec::new();
    for container in pod.containers() {
        if is_wrong(container) {
            containers.push(container["name"].as_str().unwrap_or(""));
        }
    }
    (own, containers, values)
}

fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let allowed = |profile: &str| matches!(profile, "RuntimeDefault" | "Localhost");
    let (own, containers, values) = wrong(pod, "appArmorProfile", "type", allowed);
    let mut annotations: Vec<String> = Vec::new();
    for (key, value) in pod.annotations() {
        let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !fine {
            annotations.push(format!("{key}={}", mote_schema::status::go_quote(value)));
        }
    }
    let mut who: Vec<String> = setters(own, &containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural(annotations.len(), "annotation", "annotations").into());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<&str> = values.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    fault(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    items(&container["securityContext"]["capabilities"][list]).filter_map(Value::as_str)
}

/// Containers that add what is not in `allowed`, and what that is.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let (mut containers, mut names) = (Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let before = containers.len();
        for capability in capabilities(container, "add").filter(|capability| !allowed.contains(capability)) {
            names.insert(capability);
            if containers.len() == before {
                containers.push(container["name"].as_str().unwrap_or(""));
            }
        }
    }
    (containers, names)
}

fn adds(containers: &[&str], names: BTreeSet<&str>) -> String {
    let (who, what) = (named("container", containers), quoted(names));
    format!("{who} must not include {what} in securityContext.capabilities.add")
}

fn capabilities_baseline(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let (containers, names) = added(pod, DEFAULT_CAPABILITIES);
    if containers.is_empty() {
        return None;
    }
    fault("non-default capabilities", adds(&containers, names))
}

fn capabilities_restricted(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    let keeping = pod.bad(|container| !capabilities(container, "drop").any(|capability| capability == "ALL"));
    let (containers, names) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named("container", &keeping)));
    }
    if !containers.is_empty() {
        details.push(adds(&containers, names));
    }
    if details.is_empty() { None } else { fault("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|field| pod.spec[**field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { fault("host namespaces", set.join(", ")) }
}

fn host_path(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let volumes = items(&pod.spec["volumes"]).filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(|volume| volume["name"].as_str().unwrap_or("")).collect();
    if names.is_empty() { None } else { fault("hostPath volumes", named("volume", &names)) }
}

fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = items(&container["ports"]).filter_map(|port| port["hostPort"].as_i64());
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let containers = pod.bad(|container| !ports(container).is_empty());
    if containers.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = pod.containers().flat_map(ports).gather();
    let list = all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (uses, what) = (plural(containers.len(), "uses", "use"), plural(all.len(), "hostPort", "hostPorts"));
    fault("hostPort", format!("{} {uses} {what} {list}", named("container", &containers)))
}

fn hosts_of_probes(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let hosts = |container: &Value| -> BTreeSet<String> {
        let (probes, lifecycle) = (["livenessProbe", "readinessProbe", "startupProbe"], &container["lifecycle"]);
        let handlers = probes.iter().map(|probe| &container[*probe]);
        let handlers = handlers.chain(["postStart", "preStop"].iter().map(|hook| &lifecycle[*hook]));
        let hosts = handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|how| handler[how]["host"].as_str()));
        hosts.flatten().filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let containers: BTreeSet<&str> = pod.bad(|container| !hosts(container).is_empty()).into_iter().gather();
    if containers.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = pod.containers().flat_map(hosts).gather();
    let containers: Vec<&str> = containers.into_iter().collect();
    let what = plural(all.len(), "probe or lifecycle host", "probe or lifecycle hosts");
    let (uses, list) = (plural(containers.len(), "uses", "use"), quoted(all.iter().map(String::as_str)));
    fault("probe or lifecycle host", format!("{} {uses} {what} {list}", named("container", &containers)))
}

fn privileged(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let containers = pod.bad(|container| container["securityContext"]["privileged"] == true);
    let who = setters(false, &containers)?;
    fault("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount_baseline(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 35 && pod.user_namespace() { None } else { proc_mount(pod, minor) }
}

fn proc_mount(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let mount = |container: &Value| {
        let mount = container["securityContext"]["procMount"].as_str();
        mount.filter(|mount| *mount != "Default").map(str::to_owned)
    };
    let containers = pod.bad(|container| mount(container).is_some());
    let who = setters(false, &containers)?;
    let values: BTreeSet<String> = pod.containers().filter_map(mount).gather();
    let values = quoted(values.iter().map(String::as_str));
    fault("procMount", format!("{who} must not set securityContext.procMount to {values}"))
}

fn selinux(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || minor >= 31 && kind == "container_engine_t"
    };
    let (own_type, mut containers, types) = wrong(pod, "seLinuxOptions", "type", allowed);
    let (own_user, by_user, _) = wrong(pod, "seLinuxOptions", "user", str::is_empty);
    let (own_role, by_role, _) = wrong(pod, "seLinuxOptions", "role", str::is_empty);
    let (user, role) = (own_user || !by_user.is_empty(), own_role || !by_role.is_empty());
    if !by_user.is_empty() || !by_role.is_empty() {
        containers = pod.bad(|container| {
            let options = &container["securityContext"]["seLinuxOptions"];
            let text = |field: &str| options[field].as_str().unwrap_or("");
            !allowed(text("type")) || !text("user").is_empty() || !text("role").is_empty()
        });
    }
    let who = setters(own_type || own_user || own_role, &containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(named("type", &types.into_iter().collect::<Vec<_>>()));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    fault("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

fn good_seccomp(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

fn seccomp_types(pod: &Pod<'_>) -> Option<Fault> {
    let (own, containers, values) = wrong(pod, "seccompProfile", "type", good_seccomp);
    let who = setters(own, &containers)?;
    fault("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values)))
}

fn seccomp_baseline(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 19 {
        return seccomp_types(pod);
    }
    // Before the field there were annotations.
    let names = pod.containers().filter_map(|container| container["name"].as_str());
    let keys = names.map(|name| format!("container.seccomp.security.alpha.kubernetes.io/{name}"));
    let keys: BTreeSet<String> = keys.chain(["seccomp.security.alpha.kubernetes.io/pod".to_owned()]).gather();
    let mut forbidden = BTreeSet::new();
    for (key, value) in pod.annotations().filter(|(key, _)| keys.contains(key.as_str())) {
        if !matches!(value, "runtime/default" | "docker/default") && !value.starts_with("localhost/") {
            forbidden.insert(format!("{key}={}", mote_schema::status::go_quote(value)));
        }
    }
    if forbidden.is_empty() {
        return None;
    }
    let word = plural(forbidden.len(), "annotation", "annotations");
    let list: Vec<String> = forbidden.into_iter().collect();
    fault("seccompProfile", format!("forbidden {word} {}", list.join(", ")))
}

fn seccomp_restricted(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    if let Some(fault) = seccomp_types(pod) {
        return Some(fault);
    }
    if pod.spec["securityContext"]["seccompProfile"].is_object() {
        return None;
    }
    let containers = pod.bad(|container| !container["securityContext"]["seccompProfile"].is_object());
    let who = setters(false, &containers)?;
    fault(
        "seccompProfile",
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""),
    )
}

/// Since which minor version a sysctl is known to be safe.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    let names = items(&pod.spec["securityContext"]["sysctls"]).map(|sysctl| sysctl["name"].as_str().unwrap_or(""));
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let forbidden: Vec<&str> = names.filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { fault("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let set = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let containers = pod.bad(|container| set(container));
    let who = setters(set(pod.spec), &containers)?;
    fault("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    let containers = pod.bad(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let who = setters(false, &containers)?;
    fault("allowPrivilegeEscalation != false", format!("{who} must set securityContext.allowPrivilegeEscalation=false"))
}

const OPEN_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Pod<'_>, _: u32) -> Option<Fault> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in items(&pod.spec["volumes"]) {
        if OPEN_VOLUMES.iter().any(|source| volume[*source].is_object()) {
            continue;
        }
        names.push(volume["name"].as_str().unwrap_or(""));
        let mut sources = volume.as_object().into_iter().flatten().filter(|(_, source)| source.is_object());
        kinds.insert(sources.next().map_or("unknown", |(kind, _)| kind));
    }
    if names.is_empty() {
        return None;
    }
    let what = plural(kinds.len(), "restricted volume type", "restricted volume types");
    let (uses, list) = (plural(names.len(), "uses", "use"), quoted(kinds));
    fault("restricted volume types", format!("{} {uses} {what} {list}", named("volume", &names)))
}

fn run_as_non_root(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 35 && pod.user_namespace() {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let set = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let containers = pod.bad(|container| set(container) == Some(false));
    if let Some(who) = setters(set(pod.spec) == Some(false), &containers) {
        return fault(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if set(pod.spec) == Some(true) {
        return None;
    }
    let who = setters(false, &pod.bad(|container| set(container).is_none()))?;
    fault(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: &Pod<'_>, minor: u32) -> Option<Fault> {
    if minor >= 35 && pod.user_namespace() {
        return None;
    }
    let root = |holder: &Value| holder["securityContext"]["runAsUser"].as_i64() == Some(0);
    let who = setters(root(pod.spec), &pod.bad(|container| root(container)))?;
    fault("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    fn check(level: Level, minor: Option<u32>, spec: Value, expected: &str) {
        let found = violations(Demand { level, version: minor }, &json!({"metadata": {}, "spec": spec}));
        assert_eq!(found.map(|found| found.detail()).unwrap_or_default(), expected, "{spec}");
    }

    #[test]
    fn a_plain_pod_is_baseline_and_far_from_restricted() {
        let plain = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
        check(Level::Privileged, None, json!({"hostNetwork": true}), "");
        check(Level::Baseline, None, plain(), "");
        check(
            Level::Restricted,
            None,
            plain(),
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        );
        let strict = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
        check(Level::Restricted, None, strict, "");
    }

    #[test]
    fn baseline_faults() {
        let one = |context: Value| json!({"containers": [{"name": "a", "securityContext": context}]});
        for (spec, expected) in [
            (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
            (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"v\")"),
            (
                json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
                "hostPort (container \"a\" uses hostPorts 443, 80)",
            ),
            (
                json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
            ),
            (
                one(json!({"privileged": true})),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                one(json!({"capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}})),
                "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)",
            ),
            (
                one(json!({"procMount": "Unmasked"})),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                one(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
                "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
            (
                one(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
        ] {
            check(Level::Baseline, None, spec, expected);
        }
    }

    #[test]
    fn versions_matter() {
        let rmem = || json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
        check(Level::Baseline, Some(31), rmem(), "forbidden sysctls (net.ipv4.tcp_rmem)");
        check(Level::Baseline, Some(32), rmem(), "");
        check(Level::Baseline, Some(99), rmem(), "");
        let root = || json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": true}});
        check(Level::Restricted, Some(34), root(), "runAsUser=0 (pod must not set runAsUser=0)");
        check(Level::Restricted, Some(35), root(), "");
        check(
            Level::Restricted,
            Some(20),
            json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "Localhost"}},
                "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"add": ["BPF"]}}}],
                "volumes": [{"name": "n", "nfs": {}}, {"name": "h", "hostPath": {}}]}),
            "non-default capabilities (container \"a\" must not include \"BPF\" in securityContext.capabilities.add), \
             restricted volume types (volumes \"n\", \"h\" use restricted volume types \"hostPath\", \"nfs\")",
        );
    }
}
