//! Containers: names, ports, mounts, probes, lifecycle, security (pkg/apis/core/validation).
use super::{
    at::{At, Errors},
    env, resources,
    rules::rules,
};
use crate::Value;
use crate::validate;
use std::collections::HashSet;

/// What the containers of one pod share.
pub(super) struct Pod<'v> {
    /// And whether a block device may be there.
    pub volumes: Vec<(&'v str, bool)>,
    pub claims: Vec<&'v str>,
    pub host_users: bool,
    /// terminationGracePeriodSeconds
    pub grace_seconds: i64,
    /// restartPolicy is Never.
    pub never_restarts: bool,
}

impl Pod<'_> {
    fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().any(|(known, _)| *known == name)
    }
}

pub(super) fn containers(list: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
        return;
    }
    let mut names = HashSet::new();
    for container in list.items() {
        common(&container, pod, errors);
        if !names.insert(container.get("name").str()) {
            errors.duplicate(&container.get("name"));
        }
        run_time_hooks(&container, pod, errors);
        restart_rules(&container, errors);
    }
    host_ports(list.items(), errors);
}

pub(super) fn init_containers(list: &At<'_>, regular: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mut names: HashSet<&str> = regular.items().map(|c| c.get("name").str()).collect();
    for container in list.items() {
        common(&container, pod, errors);
        restart_rules(&container, errors);
        let name = container.get("name");
        if !name.str().is_empty() && !names.insert(name.str()) {
            errors.duplicate(&name);
        }
        host_ports(std::iter::once(container.clone()), errors);
        if container.get("restartPolicy").str() == "Always" {
            run_time_hooks(&container, pod, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let at = container.get(field);
            if at.is_set() {
                errors.forbidden(&at, "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
}

/// validateEphemeralContainers: a debugging container shares the pod's life, so it may have little of its own.
pub(super) fn ephemeral_containers(list: &At<'_>, spec: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let others = ["containers", "initContainers"].map(|l| spec.get(l));
    let mut names: HashSet<&str> = others.iter().flat_map(|l| l.items()).map(|c| c.get("name").str()).collect();
    for container in list.items() {
        common(&container, pod, errors);
        image_is_trimmed(&container, errors);
        let name = container.get("name");
        if !names.insert(name.str()) {
            errors.duplicate(&name);
        }
        let target = container.get("targetContainerName");
        if !target.str().is_empty() && !others.iter().any(|l| l.items().any(|c| c.get("name").str() == target.str())) {
            errors.not_found(&target);
        }
        // In the order of the Go type's fields.
        let fields = [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ];
        for field in fields {
            let at = container.get(field);
            if if field == "resources" { !at.is_empty() } else { at.is_set() } {
                errors.forbidden(&at, "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).str().is_empty() {
                    errors.forbidden(&mount.get(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

pub(super) fn image_is_trimmed(container: &At<'_>, errors: &mut Errors) {
    let image = container.get("image");
    if image.str().trim() != image.str() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
}

/// validateContainerCommon
fn common(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let (name, image) = (container.get("name"), container.get("image"));
    if name.str().is_empty() {
        errors.required(&name, "");
    } else {
        errors.each(&name, validate::dns1123_label(name.str()));
    }
    if image.str().is_empty() {
        errors.required(&image, "");
    }
    for field in ["terminationMessagePolicy", "imagePullPolicy"] {
        if container.get(field).str().is_empty() {
            errors.required(&container.get(field), "");
        }
    }
    ports(&container.get("ports"), errors);
    env::env(&container.get("env"), errors);
    env::env_from(&container.get("envFrom"), errors);
    volume_mounts(container, pod, errors);
    let policies = container.get("resizePolicy");
    let mut seen = HashSet::new();
    for policy in policies.items() {
        if !seen.insert(policy.get("resourceName").str()) {
            let name = policy.get("resourceName").moved(&*policy.path);
            errors.duplicate(&name);
        }
        // Upstream leaves the index out of these paths.
        let at = |field: &str| policy.get(field).moved(&*policies.path);
        for (at, known) in
            [(at("resourceName"), ["cpu", "memory"]), (at("restartPolicy"), ["NotRequired", "RestartContainer"])]
        {
            match at.str() {
                "" => errors.required(&at, ""),
                text if !known.contains(&text) => errors.unsupported(&at, &known),
                _ => {}
            }
        }
        if pod.never_restarts && at("restartPolicy").str() != "NotRequired" {
            errors.invalid(&at("restartPolicy"), "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
    resources::requirements(&container.get("resources"), &pod.claims, errors);
    security_context(&container.get("securityContext"), pod.host_users, errors);
}

fn ports(list: &At<'_>, errors: &mut Errors) {
    let mut names = HashSet::new();
    for port in list.items() {
        let (name, number, host) = (port.get("name"), port.get("containerPort"), port.get("hostPort"));
        if !name.str().is_empty() {
            let messages = validate::port_name(name.str());
            if messages.is_empty() && !names.insert(name.str()) {
                errors.duplicate(&name);
            }
            errors.each(&name, messages);
        }
        match number.int().unwrap_or(0) {
            0 => errors.required(&number, ""),
            n => errors.each(&number, validate::port_number(n)),
        }
        if let Some(n) = host.int().filter(|n| *n != 0) {
            errors.each(&host, validate::port_number(n));
        }
        if port.get("protocol").str().is_empty() {
            errors.required(&port.get("protocol"), "");
        }
    }
}

/// validateContainerRestartPolicy
fn restart_rules(container: &At<'_>, errors: &mut Errors) {
    let (policy, list) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    rules(container, "restartPolicy?=Always|Never|OnFailure", errors);
    if !policy.is_set() && !list.is_empty() {
        errors.required(&policy, "must specify restartPolicy when restart rules are used");
    }
    for rule in list.items() {
        rules(&rule, "action!=Restart|RestartAllContainers", errors);
        let codes = rule.get("exitCodes");
        if codes.is_set() {
            rules(&codes, "operator!=In|NotIn", errors);
        } else {
            errors.required(&codes, "must be specified");
        }
    }
}

/// checkHostPortConflicts
fn host_ports<'v>(containers: impl Iterator<Item = At<'v>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for container in containers {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            let Some(number) = host.int().filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", port.get("protocol").str(), port.get("hostIP").str());
            if !seen.insert(key.clone()) {
                errors.0.push(crate::Cause::duplicate(&*host.path, &Value::from(key)));
            }
        }
    }
}

fn volume_mounts(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let mut paths = HashSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.str().is_empty() {
            errors.required(&name, "");
        }
        if !pod.has_volume(name.str()) {
            let name = if name.is_set() { name.clone() } else { name.with(&Value::Null) };
            errors.not_found(&name);
        }
        if path.str().is_empty() {
            errors.required(&path, "");
        }
        if !paths.insert(path.str()) {
            errors.invalid(&path, "must be unique");
        }
        for device in devices.items() {
            if device.get("name").str() == name.str() {
                errors.invalid(&name, "must not already exist in volumeDevices");
            }
            if device.get("devicePath").str() == path.str() {
                errors.invalid(&path, "must not already exist as a path in volumeDevices");
            }
        }
        // Upstream leaves the index out of these paths.
        let sub = mount.get("subPath").moved(format!("{}.subPath", mounts.path));
        if !sub.str().is_empty() {
            errors.each(&sub, validate::local_descending_path(sub.str()));
        }
        let expression = mount.get("subPathExpr");
        if !expression.str().is_empty() {
            if !sub.str().is_empty() {
                errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
            }
            let moved = expression.moved(format!("{}.subPathExpr", mounts.path));
            errors.each(&moved, validate::local_descending_path(expression.str()));
        }
        let propagation = mount.get("mountPropagation").moved(format!("{}.mountPropagation", mounts.path));
        match propagation.str() {
            "Bidirectional" if !container.at("securityContext.privileged").is_true() => errors
                .forbidden(&propagation, "Bidirectional mount propagation is available only to privileged containers"),
            "" | "Bidirectional" | "HostToContainer" | "None" => {}
            _ => errors.unsupported(&propagation, &["Bidirectional", "HostToContainer", "None"]),
        }
        let recursive = mount.get("recursiveReadOnly").moved(format!("{}.recursiveReadOnly", mounts.path));
        match recursive.str() {
            "" | "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if !mount.get("readOnly").is_true() {
                    errors.forbidden(&recursive, "may only be specified when readOnly is true");
                }
                if !matches!(propagation.str(), "" | "None") {
                    errors
                        .forbidden(&recursive, "may only be specified when mountPropagation is None or not specified");
                }
            }
            _ => errors.unsupported(&recursive, &["Disabled", "Enabled", "IfPossible"]),
        }
    }
    let mut device_paths = HashSet::new();
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.str().is_empty() {
            errors.required(&name, "");
        }
        match pod.volumes.iter().find(|(known, _)| *known == name.str()) {
            None => errors.not_found(&name),
            Some((_, false)) => errors
                .invalid(&name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
            Some(_) => {}
        }
        if path.str().is_empty() {
            errors.required(&path, "");
        } else if !device_paths.insert(path.str()) {
            errors.invalid(&path, "must be unique");
        } else {
            errors.each(&path, validate::path_no_backsteps(path.str()));
        }
    }
}

fn run_time_hooks(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let at = container.at("lifecycle").get(hook);
        if at.is_set() {
            handler(&at, pod, errors);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.get(kind);
        if !at.is_set() {
            continue;
        }
        handler(&at, pod, errors);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            errors.non_negative(&at.get(field));
        }
        let grace = at.get("terminationGracePeriodSeconds");
        if grace.int().is_some_and(|n| n <= 0) {
            errors.invalid(&grace, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            if grace.is_set() {
                errors.invalid(&grace, "must not be set for readinessProbes");
            }
        } else if at.get("successThreshold").int() != Some(1) {
            errors.invalid(&at.get("successThreshold"), "must be 1");
        }
    }
}

/// validateHandler
fn handler(at: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = at.get(kind);
        if !action.is_set() {
            continue;
        }
        if found {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if action.get("command").is_empty() => errors.required(&action.get("command"), ""),
            "httpGet" => {
                if action.get("path").str().is_empty() {
                    errors.required(&action.get("path"), "");
                }
                port_number_or_name(&action.get("port"), errors);
                for header in action.get("httpHeaders").items() {
                    let name = header.get("name").moved(format!("{}.httpHeaders", action.path));
                    errors.each(&name, validate::http_header_name(name.str()));
                }
            }
            "tcpSocket" | "grpc" => port_number_or_name(&action.get("port"), errors),
            "sleep" => {
                let seconds = action.get("seconds");
                if !(0..=pod.grace_seconds).contains(&seconds.int().unwrap_or(0)) {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({})",
                        pod.grace_seconds
                    );
                    errors.invalid(&seconds.moved(&*action.path), &detail);
                }
            }
            _ => {}
        }
    }
    if !found {
        errors.required(at, "must specify a handler type");
    }
}

/// ValidatePortNumOrName
pub(super) fn port_number_or_name(port: &At<'_>, errors: &mut Errors) {
    match port.value {
        Value::String(name) => errors.each(port, validate::port_name(name)),
        _ => {
            let number = port.int().unwrap_or(0);
            for message in validate::port_number(number) {
                errors.invalid_value(&port.path, &Value::from(number), &message);
            }
        }
    }
}

/// ValidateSecurityContext
fn security_context(at: &At<'_>, host_users: bool, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = at.get(field).int() {
            errors.each(&at.get(field), validate::user_id(id));
        }
    }
    if host_users && at.get("procMount").str() == "Unmasked" {
        errors.invalid(&at.get("procMount"), "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp_profile(&at.get("seccompProfile"), errors);
    app_armor_profile(&at.get("appArmorProfile"), errors);
    windows_options(&at.get("windowsOptions"), errors);
    let escalation = at.get("allowPrivilegeEscalation");
    if escalation.value == &Value::Bool(false) {
        if at.get("privileged").is_true() {
            errors.invalid(at, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if at.at("capabilities.add").items().any(|c| c.str() == "CAP_SYS_ADMIN") {
            errors.invalid(at, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

/// validateSeccompProfileField
pub(super) fn seccomp_profile(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let profile = at.get("localhostProfile");
    match at.get("type").str() {
        "" => errors.required(&at.get("type"), "type is required when seccompProfile is set"),
        "Localhost" if profile.str().is_empty() => {
            errors.required(&profile, "must be set when seccomp type is Localhost");
        }
        "Localhost" => errors.each(&profile, validate::local_descending_path(profile.str())),
        _ if profile.is_set() => {
            errors.invalid_value(&profile.path, at.value, "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}

/// ValidateAppArmorProfileField
pub(super) fn app_armor_profile(at: &At<'_>, errors: &mut Errors) {
    let profile = at.get("localhostProfile");
    match at.get("type").str() {
        _ if !at.is_set() => {}
        "" => errors.required(&at.get("type"), "type is required when appArmorProfile is set"),
        "Localhost" if profile.str().trim() != profile.str() => {
            errors.invalid(&profile, "must not be padded with whitespace");
        }
        "Localhost" if profile.str().is_empty() => {
            errors.required(&profile, "must be set when AppArmor type is Localhost");
        }
        "Localhost" => {}
        _ if profile.is_set() => errors.invalid(&profile, "can only be set when AppArmor type is Localhost"),
        _ => {}
    }
}

/// validateWindowsSecurityContextOptions
pub(super) fn windows_options(at: &At<'_>, errors: &mut Errors) {
    for field in ["gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName"] {
        let at = at.get(field);
        if at.is_set() && at.str().is_empty() {
            errors.invalid(&at, &format!("{field} cannot be an empty string"));
        }
    }
}
