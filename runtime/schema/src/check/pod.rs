//! Pods and pod templates as a whole, and what may change in a pod that runs (ValidatePodSpec, ValidatePodUpdate).
use super::{
    at::{At, Errors},
    container::{self, Pod},
    env, meta, resources,
    rules::rules,
    scheduling, volume,
};
use crate::Gather as _;
use crate::validate as format;
use crate::{Map, Name, Value};
use std::collections::HashSet;

pub(super) fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    pod_annotations(&new.at("metadata.annotations"), &spec, errors);
    pod_spec(&spec, true, &[], errors);
    if spec.get("serviceAccountName").str().is_empty() {
        for at in spec.get("volumes").items() {
            for source in at.get("projected").get("sources").items() {
                if source.get("serviceAccountToken").is_set() {
                    errors.forbidden(
                        &source.get("serviceAccountToken"),
                        "must not be specified when serviceAccountName is not set",
                    );
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.get(list).items().for_each(|at| container::image_is_trimmed(&at, errors));
    }
    match old {
        None => {
            if !spec.get("ephemeralContainers").is_empty() {
                errors.forbidden(&spec.get("ephemeralContainers"), "cannot be set on create");
            }
            if !spec.get("nodeName").str().is_empty() && !spec.get("schedulingGates").is_empty() {
                errors.forbidden(&spec.get("nodeName"), "cannot be set until all schedulingGates have been cleared");
            }
        }
        Some(old) => update(&spec, &old.get("spec"), errors),
    }
}

/// ValidatePodTemplateSpec; `extra_volumes` are those a StatefulSet adds itself.
pub(super) fn template_with(at: &At<'_>, extra_volumes: &[&str], errors: &mut Errors) {
    // Upstream leaves `metadata` out of these paths.
    let (labels, annotations) = (at.at("metadata.labels"), at.at("metadata.annotations"));
    let spec = at.get("spec");
    meta::labels(&labels.moved(format!("{}.labels", at.path)), errors);
    let annotations = annotations.moved(format!("{}.annotations", at.path));
    meta::annotations(&annotations, errors);
    pod_annotations(&annotations, &spec, errors);
    pod_spec(&spec, false, extra_volumes, errors);
    if !spec.get("ephemeralContainers").is_empty() {
        errors.forbidden(&spec.get("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

pub(super) fn template(at: &At<'_>, errors: &mut Errors) {
    template_with(at, &[], errors);
}

fn pod_annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let mirror = annotations.key("kubernetes.io/config.mirror");
    if mirror.is_set() && spec.get("nodeName").str().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key("controller.kubernetes.io/pod-deletion-cost");
    // Paths as upstream makes them, with the key as a name here and as a key there.
    for (key, value) in annotations.members() {
        let profile = value.as_str().unwrap_or("");
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp_profile(profile, &format!("{}.{key}", annotations.path), errors);
        }
        if let Some(name) = key.strip_prefix(APPARMOR_CONTAINER) {
            let at = annotations.key(key);
            if !all_containers(spec).any(|container| container.get("name").str() == name) {
                errors.invalid_value(&at.path, &name.into(), "container not found");
            }
            if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
                errors.invalid(&at, &format!("invalid AppArmor profile name: {profile:?}"));
            }
        }
    }
    let valid = |text: &str| text.parse::<i32>().is_ok_and(|n| n.to_string() == text);
    if cost.is_set() && !valid(cost.str()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// ValidateSeccompProfile
fn seccomp_profile(profile: &str, path: &str, errors: &mut Errors) {
    let value = Value::from(profile);
    match profile.strip_prefix("localhost/") {
        Some(file) => {
            for message in format::local_descending_path(file) {
                errors.invalid_value(path, &file.into(), &message);
            }
        }
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.invalid_value(path, &value, "must be a valid seccomp profile"),
    }
}

/// validatePodResources
fn pod_resources(at: &At<'_>, claims: &[&str], errors: &mut Errors) {
    if at.get("claims").is_set() {
        errors.forbidden(&at.get("claims"), "claims may not be set for Resources at pod-level");
    }
    for list in ["limits", "requests"] {
        let list = at.get(list);
        for (name, _) in list.members() {
            if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
                let known = ["cpu", "hugepages-", "memory"];
                errors.0.push(crate::Cause::not_supported(list.key(name).path, &name.into(), &known));
            }
        }
    }
    resources::requirements(at, claims, errors);
}

pub(super) fn pod_spec(spec: &At<'_>, is_pod: bool, extra_volumes: &[&str], errors: &mut Errors) {
    let mut volumes = volume::volumes(&spec.get("volumes"), is_pod, errors);
    volumes.extend(extra_volumes.iter().map(|name| (*name, true)));
    let claims = spec.get("resourceClaims").items().map(|c| c.get("name").str()).gather();
    let pod = Pod {
        volumes,
        claims,
        host_users: spec.get("hostUsers").value != &Value::Bool(false),
        grace_seconds: spec.get("terminationGracePeriodSeconds").int().unwrap_or(30),
        never_restarts: spec.get("restartPolicy").str() == "Never",
    };
    resource_claims(&spec.get("resourceClaims"), errors);
    let regular = spec.get("containers");
    container::containers(&regular, &pod, errors);
    container::init_containers(&spec.get("initContainers"), &regular, &pod, errors);
    container::ephemeral_containers(&spec.get("ephemeralContainers"), spec, &pod, errors);
    pod_resources(&spec.get("resources"), &pod.claims, errors);
    if spec.get("hostNetwork").is_true() {
        for port in regular.items().flat_map(|c| c.get("ports").items()) {
            let (host, inner) = (port.get("hostPort"), port.get("containerPort"));
            let number = host.int().unwrap_or(0);
            if (is_pod || number != 0) && host.int() != inner.int() {
                errors.invalid_value(
                    &host.path,
                    &Value::from(number),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
    let policy = spec.get("restartPolicy");
    match policy.str() {
        "Always" | "OnFailure" | "Never" => {}
        "" => errors.required(&policy, ""),
        _ => errors.unsupported(&policy, &["Always", "OnFailure", "Never"]),
    }
    if spec.get("dnsPolicy").str().is_empty() {
        errors.required(&spec.get("dnsPolicy"), "");
    }
    meta::labels(&spec.get("nodeSelector"), errors);
    security_context(spec, errors);
    host_users(spec, errors);
    scheduling::validate(spec, errors);
    dns_config(spec, errors);
    for gate in spec.get("readinessGates").items() {
        let condition = gate.get("conditionType");
        errors.each(&condition, format::qualified_name(condition.str()));
    }
    names(spec, errors);
    env::file_volumes(spec, all_containers(spec), errors);
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.int().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        errors.invalid(&deadline, "must be between 1 and 2147483647, inclusive");
    }
    for alias in spec.get("hostAliases").items() {
        let ip = alias.get("ip");
        errors.each(&ip, format::ip_legacy(ip.str()));
        for host in alias.get("hostnames").items() {
            errors.each(&host, format::dns1123_subdomain(host.str()));
        }
    }
    let os = spec.at("os.name");
    if spec.get("os").is_set() {
        match os.str() {
            "" => errors.required(&os, "cannot be empty"),
            "linux" => linux(spec, errors),
            "windows" => windows(spec, errors),
            _ => errors.unsupported(&os.moved(spec.get("os").path), &["linux", "windows"]),
        }
    }
}

/// validatePodResourceClaims
fn resource_claims(list: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in list.items() {
        let (name, claimed, template) =
            (claim.get("name"), claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        if !name.str().is_empty() && !seen.insert(name.str()) {
            errors.duplicate(&name);
        } else {
            rules(&claim, "name!label", errors);
        }
        match (claimed.is_set(), template.is_set()) {
            (true, true) => errors
                .invalid(&claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, false) => {
                errors.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        rules(&claim, "resourceClaimName~subdomain resourceClaimTemplateName~subdomain", errors);
    }
}

/// Every container, of whatever kind.
fn all_containers<'v>(spec: &At<'v>) -> impl Iterator<Item = At<'v>> + use<'v> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| spec.get(list));
    lists.into_iter().flat_map(|list| list.items())
}

fn linux(spec: &At<'_>, errors: &mut Errors) {
    for at in std::iter::once(spec.clone()).chain(all_containers(spec)) {
        let options = at.at("securityContext.windowsOptions");
        if options.is_set() {
            errors.forbidden(&options, "windows options cannot be set for a linux pod");
        }
    }
}

/// validateWindows
fn windows(spec: &At<'_>, errors: &mut Errors) {
    const POD: [&str; 15] = [
        "securityContext.appArmorProfile",
        "securityContext.seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "securityContext.runAsGroup",
        "securityContext.supplementalGroups",
        "securityContext.supplementalGroupsPolicy",
        "securityContext.seLinuxChangePolicy",
    ];
    const CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let mut refuse = |at: &At<'_>, fields: &[&str]| {
        for at in fields.iter().map(|field| at.at(field)).filter(|at| at.is_set()) {
            errors.forbidden(&at, "cannot be set for a windows pod");
        }
    };
    refuse(spec, &POD);
    all_containers(spec).for_each(|container| refuse(&container.get("securityContext"), &CONTAINER));
}

/// validateHostUsers
fn host_users(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("hostUsers").value != &Value::Bool(false) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            errors.forbidden(&spec.get(shown), "when `hostUsers` is false");
        }
    }
    for devices in all_containers(spec).map(|c| c.get("volumeDevices")).filter(|d| !d.is_empty()) {
        errors.forbidden(&devices, "when `hostUsers` is false");
    }
}

fn names(spec: &At<'_>, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let at = spec.get(field);
        if !at.str().is_empty() {
            errors.each(&at, format::dns1123_subdomain(at.str()));
        }
    }
    let host = spec.get("hostnameOverride");
    if host.is_set() {
        errors.each(&host, format::dns1123_subdomain(host.str()));
        for (field, set) in [
            ("setHostnameAsFQDN", spec.get("setHostnameAsFQDN").is_true()),
            ("hostNetwork", spec.get("hostNetwork").is_true()),
        ] {
            if set {
                errors.forbidden(&host, &format!("may not be specified when {field} is true"));
            }
        }
    }
    for field in ["hostname", "subdomain"] {
        let at = spec.get(field);
        if !at.str().is_empty() {
            errors.each(&at, format::dns1123_label(at.str()));
        }
    }
}

/// validatePodSpecSecurityContext
fn security_context(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        if let Some(id) = at.get(field).int() {
            errors.each(&at.get(field), format::group_id(id));
        }
    }
    for group in at.get("supplementalGroups").items() {
        errors.each(&group, format::group_id(group.int().unwrap_or(0)));
    }
    // In the internal type this one lies in the security context.
    let share = spec.get("shareProcessNamespace");
    if share.is_true() && spec.get("hostPID").is_true() {
        errors.invalid(
            &share.moved(format!("{}.shareProcessNamespace", at.path)),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    let mut seen = HashSet::new();
    for sysctl in at.get("sysctls").items() {
        let name = sysctl.get("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else if !is_sysctl(name.str()) {
            errors.invalid(&name, SYSCTL_FORM);
        } else if !seen.insert(name.str().replace('/', ".")) {
            errors.duplicate(&name);
        }
        for (host, is_namespaced) in [("hostNetwork", is_net_sysctl as fn(&str) -> bool), ("hostIPC", is_ipc_sysctl)] {
            if spec.get(host).is_true() && is_namespaced(&name.str().replace('/', ".")) {
                errors.invalid(&name, &format!("may not be specified when '{host}' is true"));
            }
        }
    }
    container::seccomp_profile(&at.get("seccompProfile"), errors);
    container::app_armor_profile(&at.get("appArmorProfile"), errors);
    container::windows_options(&at.get("windowsOptions"), errors);
    rules(&at, "seLinuxChangePolicy=Recursive", errors);
}

const SYSCTL_FORM: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(is_segment)
}

/// component-helpers/node/util/sysctl/namespace.go
fn is_net_sysctl(name: &str) -> bool {
    name.starts_with("net.")
}

fn is_ipc_sysctl(name: &str) -> bool {
    name.starts_with("fs.mqueue.")
        || matches!(
            name.strip_prefix("kernel."),
            Some(
                "sem"
                    | "shmall"
                    | "shmmax"
                    | "shmmni"
                    | "shm_rmid_forced"
                    | "shm"
                    | "msgmax"
                    | "msgmnb"
                    | "msgmni"
                    | "msg"
            )
        )
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

fn dns_config(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").str() == "None" {
        if !config.is_set() {
            return errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(&servers, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > MAX_NAMESERVERS {
        errors.invalid(&servers, &format!("must not have more than {MAX_NAMESERVERS} nameservers"));
    }
    for server in servers.items() {
        errors.each(&server, format::ip_legacy(server.str()));
    }
    if searches.len() > MAX_SEARCHES {
        errors.invalid(&searches, &format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    let bytes = searches.items().map(|s| s.str().len() + 1).sum::<usize>().saturating_sub(1);
    if bytes > MAX_SEARCH_BYTES {
        let detail =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        errors.invalid(&searches, &detail);
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        let text = search.str().strip_suffix('.').unwrap_or(search.str());
        // An underscore may stand where a letter may.
        for message in format::dns1123_subdomain_underscore(text) {
            errors.invalid_value(&search.path, &Value::from(text), &message);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").str().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// ValidatePodUpdate
fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        if new.get(list).len() != old.get(list).len() {
            return errors.forbidden(&new.get(list), "pod updates may not add or remove containers");
        }
    }
    for at in ["containers", "initContainers"].iter().flat_map(|list| new.get(list).items()) {
        if at.get("image").str().is_empty() {
            errors.required(&at.get("image"), "");
        }
    }
    let (deadline, before) = (new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"));
    if deadline.int().is_some_and(|n| !(0..=i64::from(i32::MAX)).contains(&n)) {
        return errors.invalid(&deadline, "must be between 0 and 2147483647, inclusive");
    }
    match (deadline.int(), before.int()) {
        (Some(n), Some(o)) if n > o => {
            return errors.invalid(&deadline, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid_null(&deadline, "must not update from a positive integer to nil value"),
        _ => {}
    }
    only_added_tolerations(&new.get("tolerations"), &old.get("tolerations"), errors);
    let gates = old.get("schedulingGates");
    for gate in new.get("schedulingGates").items() {
        let name = gate.get("name");
        if !gates.items().any(|g| g.get("name").str() == name.str()) {
            errors
                .forbidden(&name, &format!("only deletion is allowed, but found new scheduling gate '{}'", name.str()));
        }
    }
    if !gates.is_empty() {
        scheduling::only_narrower(new, old, errors);
    }
    let (Value::Object(mut munged), Value::Object(old)) = (without_nulls(new.value), without_nulls(old.value)) else {
        return;
    };
    take_over(&mut munged, &old, !gates.is_empty());
    if munged != old {
        let changed = differences(&old, &munged);
        errors.forbidden(new, &format!("pod updates may not change fields other than {UPDATABLE}\n{changed}"));
    }
}

/// A null is an absent field to Go; a pod that was stored with one must not be stuck for it.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, v)| !v.is_null());
            Value::Object(members.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        plain => plain.clone(),
    }
}

/// Puts back what may change, so that what is left may not have.
fn take_over(munged: &mut Map, old: &Map, gated: bool) {
    let mut restore = |field: &str| match old.get(field) {
        Some(value) => {
            munged.insert(field.into(), value.clone());
        }
        None => {
            munged.remove(field);
        }
    };
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(field);
    }
    if gated {
        // A pod that waits at a gate may still say better where it belongs.
        restore("nodeSelector");
    }
    let grace = |m: &Map| m.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|g| g < 0)
        && grace(munged) == Some(1)
        && let Some(value) = old.get("terminationGracePeriodSeconds")
    {
        munged.insert("terminationGracePeriodSeconds".into(), value.clone());
    }
    for list in ["containers", "initContainers"] {
        let before = old.get(list).and_then(Value::as_array).into_iter().flatten();
        let containers = munged.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(before) {
            if let (Some(container), Some(image)) = (container.as_object_mut(), before.get("image")) {
                container.insert("image".into(), image.clone());
            }
        }
    }
    if gated {
        let affinity = old.get("affinity").and_then(|a| a.get("nodeAffinity"));
        match (munged.get_mut("affinity").and_then(Value::as_object_mut), affinity) {
            (Some(new), Some(old)) => {
                new.insert("nodeAffinity".into(), old.clone());
            }
            (Some(new), None) => {
                new.remove("nodeAffinity");
            }
            (None, Some(old)) => {
                munged.insert("affinity".into(), crate::json!({ "nodeAffinity": old }));
            }
            (None, None) => {}
        }
        if !old.contains_key("affinity") && munged.get("affinity").is_some_and(|a| a == &crate::json!({})) {
            munged.remove("affinity");
        }
    }
}

/// Upstream prints its own structural difference here; the changed fields, one a line, say as much.
fn differences(old: &Map, new: &Map) -> String {
    let names: std::collections::BTreeSet<&Name> = old.keys().chain(new.keys()).gather();
    let mut out = String::new();
    let null = Value::Null;
    for name in names {
        let (before, after) = (old.get(name).unwrap_or(&null), new.get(name).unwrap_or(&null));
        if before != after {
            out += &format!("- {name}: {before}\n+ {name}: {after}\n");
        }
    }
    out
}

fn only_added_tolerations(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let without = |at: &At<'_>| {
        let mut value = at.value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        value
    };
    if old.items().any(|o| !new.items().any(|n| without(&n) == without(&o))) {
        errors.forbidden(new, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// ValidatePodEphemeralContainersUpdate
pub(super) fn ephemeral_update(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    pod_spec(&spec, true, &[], errors);
    let Some(old) = old else { return };
    let list = spec.get("ephemeralContainers");
    for before in old.at("spec.ephemeralContainers").items() {
        let name = before.get("name").str();
        match list.items().find(|c| c.get("name").str() == name) {
            None => errors.forbidden(&list, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if now.value != before.value => {
                errors.forbidden(&list, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// What a kubelet may report.
pub(super) fn status(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let status = new.get("status");
    for condition in status.get("conditions").items() {
        let kind = condition.get("type");
        errors.non_negative(&condition.get("observedGeneration"));
        if !matches!(kind.str(), "PodScheduled" | "Ready" | "Initialized") {
            // The path has Go's name of the field.
            errors.each(&kind.moved(format!("{}.Type", condition.path)), format::qualified_name(kind.str()));
        }
    }
    let nominated = status.get("nominatedNodeName");
    if let Some(old) = old {
        if !nominated.str().is_empty() && nominated.value != old.at("status.nominatedNodeName").value {
            errors.each(&nominated, format::dns1123_subdomain(nominated.str()));
            if !old.at("spec.nodeName").str().is_empty() {
                errors.forbidden(&nominated, "may not be set on pods that are already bound to a node");
            }
        }
        errors.immutable(&status.get("qosClass"), &old.at("status.qosClass"));
    }
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        let ips = status.get(list);
        let first = ips.items().next().map(|i| i.get("ip"));
        if let Some(first) = first.filter(|first| list == "hostIPs" && first.str() != status.get(single).str()) {
            errors.invalid(&first, "must be equal to `hostIP`");
        }
        let mut families: Vec<bool> = Vec::new();
        for ip in ips.items() {
            let text = ip.get("ip").str();
            // Upstream leaves the field's name out of these paths.
            errors.each(&ip.get("ip").moved(&*ip.path), format::ip_legacy(text));
            families.push(text.contains(':'));
        }
        if families.len() > 2 || matches!(families[..], [a, b] if a == b) {
            errors.invalid(&ips, "may specify no more than one IP for each IP family");
        }
    }
}
