//! What is known of the container runtime: up or down and why, its name, whether its network is ready. Everything
//! that depends on it reads here; `watch` writes.
use crate::state::lock;
use event_listener::{Event, EventListener};
use mote_cri::v1;
use mote_schema::{Value, json};
use std::sync::Mutex;

#[derive(Clone, Debug, Default, PartialEq)]
struct Inner {
    up: bool,
    /// It has been up since the start.
    seen: bool,
    name: String,
    version: String,
    runtime_error: Option<String>,
    network_error: Option<String>,
    /// By the name that a RuntimeClass has for them; older runtimes tell of none.
    handlers: Vec<v1::RuntimeHandler>,
    features: Option<v1::RuntimeFeatures>,
}

#[derive(Default)]
pub struct Health {
    inner: Mutex<Inner>,
    changed: Event,
}

impl Health {
    pub fn is_up(&self) -> bool {
        lock(&self.inner).up
    }
    /// Scheme of container ids: "containerd", "cri-o".
    pub fn runtime_name(&self) -> String {
        lock(&self.inner).name.clone()
    }
    /// "containerd://1.7.24", or "" before the runtime has said.
    pub fn runtime_version(&self) -> String {
        let inner = lock(&self.inner);
        if inner.name.is_empty() { String::new() } else { format!("{}://{}", inner.name, inner.version) }
    }
    pub fn network_error(&self) -> Option<String> {
        lock(&self.inner).network_error.clone()
    }
    /// Why the node is not ready; None when it is. Texts: upstream's runtimeState.
    pub fn not_ready(&self) -> Option<String> {
        let inner = lock(&self.inner);
        let down = match (inner.up, inner.seen) {
            (true, _) => None,
            (false, true) => Some("container runtime is down".to_owned()),
            (false, false) => Some("container runtime status check may not have completed yet".to_owned()),
        };
        let errors: Vec<String> =
            [down, inner.runtime_error.clone(), inner.network_error.clone()].into_iter().flatten().collect();
        match errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }
    /// Something else that the node reports has changed.
    pub fn wake(&self) {
        self.changed.notify(usize::MAX);
    }

    pub fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    /// Something else that the node says of itself has changed.
    pub fn tell(&self) {
        self.changed.notify(usize::MAX);
    }

    pub fn has_user_namespaces(&self, handler: &str) -> bool {
        let inner = lock(&self.inner);
        let found = inner.handlers.iter().find(|known| known.name == handler);
        found.and_then(|known| known.features.as_ref()).is_some_and(|features| features.user_namespaces)
    }
    /// What the runtime says it can do, as a node's status has it.
    pub fn abilities(&self) -> [(&'static str, Option<Value>); 2] {
        let inner = lock(&self.inner);
        let handlers = inner.handlers.iter().map(|handler| {
            let features = handler.features.clone().unwrap_or_default();
            json!({"name": handler.name, "features": {"userNamespaces": features.user_namespaces,
                "recursiveReadOnlyMounts": features.recursive_read_only_mounts}})
        });
        let handlers: Value = handlers.collect();
        let features = inner.features.as_ref();
        let features = features.map(|it| json!({"supplementalGroupsPolicy": it.supplemental_groups_policy}));
        [("runtimeHandlers", (!inner.handlers.is_empty()).then_some(handlers)), ("features", features)]
    }

    pub fn set_up(&self, version: &v1::VersionResponse, answer: v1::StatusResponse) {
        let status = answer.status.unwrap_or_default();
        let condition = |name: &str| status.conditions.iter().find(|c| c.r#type == name);
        let failing = |name: &str, what: &str| {
            let c = condition(name).filter(|c| !c.status)?;
            Some(format!("{what} not ready: {name}={} reason:{} message:{}", c.status, c.reason, c.message))
        };
        self.replace(Inner {
            up: true,
            seen: true,
            name: version.runtime_name.clone(),
            version: version.runtime_version.clone(),
            runtime_error: failing("RuntimeReady", "container runtime"),
            network_error: failing("NetworkReady", "container runtime network"),
            handlers: answer.runtime_handlers,
            features: answer.features,
        });
    }

    pub fn set_down(&self) {
        let inner = lock(&self.inner).clone();
        self.replace(Inner { up: false, runtime_error: None, network_error: None, ..inner });
    }

    fn replace(&self, new: Inner) {
        let mut inner = lock(&self.inner);
        if *inner != new {
            *inner = new;
            drop(inner);
            self.changed.notify(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let health = Health::default();
        assert_eq!(health.not_ready().as_deref(), Some("container runtime status check may not have completed yet"));
        let condition = |name: &str, status| v1::RuntimeCondition {
            r#type: name.into(),
            status,
            reason: "R".into(),
            message: "m".into(),
        };
        let status = |network| {
            let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
            v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() }
        };
        let version = v1::VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "1.7".into(),
            ..Default::default()
        };
        health.set_up(&version, status(false));
        let want = "container runtime network not ready: NetworkReady=false reason:R message:m";
        assert_eq!(health.not_ready().as_deref(), Some(want));
        let features = v1::RuntimeHandlerFeatures { user_namespaces: true, ..Default::default() };
        let handler = v1::RuntimeHandler { name: "crun".into(), features: Some(features) };
        health.set_up(&version, v1::StatusResponse { runtime_handlers: vec![handler], ..status(true) });
        assert!(health.has_user_namespaces("crun") && !health.has_user_namespaces(""));
        assert_eq!((health.not_ready(), health.runtime_version().as_str()), (None, "containerd://1.7"));
        health.set_down();
        assert_eq!(health.not_ready().as_deref(), Some("container runtime is down"));
        assert_eq!(health.runtime_name(), "containerd");
    }
}
