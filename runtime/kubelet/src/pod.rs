//! A pod as the kubelet sees it: its object, with spec and status decoded once per reconcile, and the questions
//! that many parts ask of it. No I/O.
use crate::spec::{Container, Field as _, PodSpec, PodStatus};
use jiff::Timestamp;
use mote_schema::Gather as _;
use mote_schema::Object;
use std::collections::BTreeMap;

pub struct Pod {
    pub object: Object,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// metadata.deletionTimestamp
    pub deletion: Option<Timestamp>,
    pub deletion_grace_seconds: Option<i64>,
    pub spec: PodSpec,
    /// As last stored.
    pub status: PodStatus,
    /// spec.ephemeralContainers as containers, with the container whose namespaces they join.
    pub ephemeral: Vec<(Container, Option<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    Main,
    Ephemeral,
}

impl Role {
    /// As upstream's metrics have it.
    pub fn metric_label(self) -> &'static str {
        match self {
            Role::Init => "init_container",
            Role::Main => "container",
            Role::Ephemeral => "ephemeral_container",
        }
    }
    /// Path of the container in events' involvedObject.
    pub fn field_path(self, name: &str) -> String {
        let list = match self {
            Role::Init => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{name}}}")
    }
}

impl Pod {
    pub fn decode(object: &Object) -> Pod {
        let meta = object.meta();
        let map = |name| meta.get(name).entries().map(|(k, v)| (k.to_owned(), v.str().to_owned())).gather();
        let (spec, status) = (object.root().get("spec"), object.root().get("status"));
        let ephemeral = spec.get("ephemeralContainers").items().filter_map(|container| {
            let target = container.get("targetContainerName").as_str().filter(|name| !name.is_empty());
            Some((Container::read(container)?, target.map(str::to_owned)))
        });
        Pod {
            namespace: object.namespace().into(),
            name: object.name().into(),
            uid: object.uid().into(),
            generation: meta.get("generation").as_i64(),
            labels: map("labels"),
            annotations: map("annotations"),
            deletion: meta.get("deletionTimestamp").as_str().and_then(|t| t.parse().ok()),
            deletion_grace_seconds: meta.get("deletionGracePeriodSeconds").as_i64(),
            ephemeral: ephemeral.collect(),
            status: PodStatus::read(status).unwrap_or_default(),
            object: object.clone(),
            spec: PodSpec::read(spec).unwrap_or_default(),
        }
    }

    /// `name_namespace(uid)`: how upstream's messages name a pod.
    pub fn described(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }

    pub fn is_host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    pub fn init_containers(&self) -> &[Container] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// Every container in the order in which it may start.
    pub fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        let init = self.init_containers().iter().map(|c| (Role::Init, c));
        let main = self.spec.containers.iter().map(|c| (Role::Main, c));
        let ephemeral = self.ephemeral.iter().map(|(c, _)| (Role::Ephemeral, c));
        init.chain(main).chain(ephemeral)
    }

    /// Those that the pod is made of.
    pub fn own_containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        self.containers().filter(|(role, _)| *role != Role::Ephemeral)
    }

    /// A container's rules may ask for all to begin again.
    pub fn may_restart_all(&self) -> bool {
        self.own_containers().any(|(_, c)| c.restart_policy_rules.iter().flatten().any(|rule| rule.action == ALL))
    }

    pub fn find(&self, name: &str) -> Option<(Role, &Container)> {
        self.containers().find(|(_, c)| c.name == name)
    }

    pub fn restart_policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or("Always")
    }
}

/// An init container that runs beside the others for the pod's life (a sidecar).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that ended with `exit_code` is started again (podutil.ContainerShouldRestart upstream).
pub fn restarts_after(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    let by = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    };
    let Some(policy) = &container.restart_policy else { return by(pod.restart_policy()) };
    matches!(rule(container, exit_code), Some("Restart" | ALL)) || by(policy)
}

/// The action of a restart rule that concerns the whole pod.
pub const ALL: &str = "RestartAllContainers";

/// What the container's rules say of an exit code: the first that fits.
pub fn rule(container: &Container, exit_code: i32) -> Option<&str> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let fits = rules.find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|c| *c == exit_code);
        (codes.operator == "In") == listed
    });
    fits.map(|rule| rule.action.as_str())
}
