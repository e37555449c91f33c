//! The FlowSchemas and PriorityLevelConfigurations of every cluster, with upstream's values
//! (apiserver/pkg/apis/flowcontrol/bootstrap/default.go), and what keeps them: the mandatory ones stay as they are here, the
//! suggested ones unless somebody said otherwise with `apf.kubernetes.io/autoupdate-spec: "false"`. And the condition
//! Dangling of FlowSchemas. Nothing is written when nothing is lacking.
use super::{Flow, GROUP};
use crate::{
    Change, Client, Object, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Catalog, Doc};
use mote_schema::{Value, json};
use std::sync::Arc;

const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

/// Name, shares, percent lendable, and queues, hand and length where requests may wait.
type LevelRow = (&'static str, u32, u32, Option<(u32, u32, u32)>);
const LEVEL_TABLE: [LevelRow; 8] = [
    ("exempt", 0, 0, None),
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

/// The first so many of both tables are mandatory.
const MANDATORY: usize = 2;

/// Name, level, precedence, distinguisher, subjects (`g:` group, `u:` user, `s:` all accounts of a namespace), and rules
/// (`*`: everything; else `verbs groups resources`, with `!` when not at the cluster scope; or `verbs paths`).
type SchemaRow = (&'static str, &'static str, u32, &'static str, &'static [&'static str], &'static [&'static str]);
const SCHEMA_TABLE: [SchemaRow; 11] = [
    ("exempt", "exempt", 1, "", &["g:system:masters"], &["*"]),
    ("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, &["*"]),
    ("probes", "exempt", 2, "", EVERYBODY, &["get /healthz,/readyz,/livez"]),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &["u:system:kube-controller-manager", "u:system:kube-scheduler", "s:kube-system"],
        &["get,create,update coordination.k8s.io leases!"],
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        &["g:system:nodes"],
        &["* core nodes,nodes/status", "* coordination.k8s.io leases!"],
    ),
    ("system-nodes", "system", 500, "ByUser", &["g:system:nodes"], &["*"]),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", &["u:system:kube-controller-manager"], &["*"]),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &["u:system:kube-scheduler"], &["*"]),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &["s:kube-system"], &["*"]),
    ("service-accounts", "workload-low", 9000, "ByUser", &["g:system:serviceaccounts"], &["*"]),
    ("global-default", "global-default", 9900, "ByUser", EVERYBODY, &["*"]),
];

const EVERYBODY: &[&str] = &["g:system:unauthenticated", "g:system:authenticated"];

fn level_spec(at: usize) -> Value {
    let (_, shares, lendable, queuing) = LEVEL_TABLE[at];
    if at == 0 {
        return json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": shares, "lendablePercent": lendable}});
    }
    let response = match queuing {
        None => json!({"type": "Reject"}),
        Some((queues, hand, length)) => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
        }
    };
    json!({"type": "Limited",
        "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}})
}

fn schema_spec(at: usize) -> Value {
    let (_, level, precedence, by, subjects, rules) = SCHEMA_TABLE[at];
    let subjects = subjects.iter().filter_map(|subject| {
        let (kind, name) = subject.split_once(':')?;
        Some(match kind {
            "g" => json!({"kind": "Group", "group": {"name": name}}),
            "u" => json!({"kind": "User", "user": {"name": name}}),
            _ => json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": name}}),
        })
    });
    let mut rule = json!({"subjects": subjects.collect::<Vec<_>>()});
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for text in rules {
        let list = |words: &str| words.split(',').map(str::to_owned).collect::<Vec<_>>();
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            ["*"] => {
                resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}));
                paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
            }
            [verbs, urls] => paths.push(json!({"verbs": list(verbs), "nonResourceURLs": list(urls)})),
            [verbs, group, names] => {
                let group = if *group == "core" { "" } else { group };
                let mut one = json!({"verbs": list(verbs), "apiGroups": [group], "resources": list(names.trim_end_matches('!')), "namespaces": ["*"]});
                if !names.ends_with('!') {
                    one["clusterScope"] = true.into();
                }
                resources.push(one);
            }
            _ => {}
        }
    }
    for (field, list) in [("resourceRules", resources), ("nonResourceRules", paths)] {
        if !list.is_empty() {
            rule[field] = Value::Array(list.into());
        }
    }
    let mut spec =
        json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    spec
}

/// Every object there should be: plural, place in its table, name.
fn wanted() -> impl Iterator<Item = (&'static str, usize, &'static str)> {
    let levels = LEVEL_TABLE.iter().enumerate().map(|(at, level)| (LEVELS, at, level.0));
    levels.chain(SCHEMA_TABLE.iter().enumerate().map(|(at, schema)| (SCHEMAS, at, schema.0)))
}

fn spec_of(plural: &str, at: usize) -> Value {
    if plural == LEVELS { level_spec(at) } else { schema_spec(at) }
}

fn object(plural: &'static str, at: usize, name: &str) -> Option<(Object, &'static str)> {
    let kind = Catalog::builtin().by_resource(GROUP, "v1", plural)?.clone();
    let value = json!({"metadata": {"name": name}, "spec": spec_of(plural, at)});
    Some((Object { kind, doc: Doc::encode(&value).ok()?, revision: 0 }, plural))
}

/// What counts even where it was not stored yet.
pub fn mandatory() -> Vec<(Object, &'static str)> {
    wanted().filter(|(_, at, _)| *at < MANDATORY).filter_map(|(plural, at, name)| object(plural, at, name)).collect()
}

/// Keeps the objects, the condition, and what the front knows of them. One key stands for all.
pub struct Maintenance {
    client: Client,
    flow: Arc<Flow>,
}

impl Maintenance {
    pub fn new(client: Client, flow: Arc<Flow>) -> Maintenance {
        Maintenance { client, flow }
    }

    async fn ensure(&self, plural: &'static str, at: usize, name: &str) -> Result<(), Error> {
        let Some(kind) = self.client.kind(GROUP, "v1", plural) else { return Ok(()) };
        let spec = spec_of(plural, at);
        let done = match self.client.get(&kind, "", name) {
            Err(status) if status.is_not_found() => {
                let new = json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec});
                self.client.create_value(&kind, "", new).await
            }
            Err(status) => return Err(status.into()),
            Ok(found) => {
                let is_mandatory = at < MANDATORY;
                let annotation = found.meta().get("annotations").get(AUTO_UPDATE);
                // Without the annotation it is kept as long as nobody but the server has written it.
                let first = found.meta().get("generation").as_i64().unwrap_or(1) == 1;
                let keeps = is_mandatory || annotation.as_str().map_or(first, |value| value == "true");
                let mut live = found.root().get("spec").to_value();
                if plural == LEVELS && at == 0 {
                    // How many shares the exempt level lends may be chosen.
                    live["exempt"] = spec["exempt"].clone();
                }
                let marked = annotation.exists() || !is_mandatory;
                if !keeps || says(&live, &spec) && marked {
                    return Ok(());
                }
                let mut new = found.to_value();
                if !says(&live, &spec) {
                    new["spec"] = spec;
                }
                new["metadata"]["annotations"][AUTO_UPDATE] = "true".into();
                self.client.update_value(&kind, Sub::Main, new).await
            }
        };
        settled(done.map(drop))
    }

    /// FlowSchemas tell whether their level exists.
    async fn tell_dangling(&self) -> Result<(), Error> {
        let (Some(schemas), Some(levels)) =
            (self.client.kind(GROUP, "v1", SCHEMAS), self.client.kind(GROUP, "v1", LEVELS))
        else {
            return Ok(());
        };
        for schema in self.client.list(&schemas, None)? {
            let level = schema.root().at("spec.priorityLevelConfiguration.name").str();
            let exists = self.client.get(&levels, "", level).is_ok();
            let (status, reason, text) =
                if exists { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
            let told =
                schema.root().at("status.conditions").items().any(|condition| {
                    condition.get("type").str() == "Dangling" && condition.get("status").str() == status
                });
            if told {
                continue;
            }
            let but = if exists { "and" } else { "but" };
            let message = format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {but} {text}"
            );
            let mut new = schema.to_value();
            let condition = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": crate::clock::timestamp()});
            let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.retain(|condition| condition["type"] != "Dangling");
            conditions.push(condition);
            new["status"]["conditions"] = Value::Array(conditions.into());
            settled(self.client.update_value(&schemas, Sub::Status, new).await.map(drop))?;
        }
        Ok(())
    }
}

/// Does `live` say all that `wanted` says? Defaults may stand beside it.
fn says(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| says(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| says(live, wanted))
        }
        _ => live == wanted,
    }
}

/// Somebody else was quicker: that write wakes this again.
fn settled(done: Result<(), mote_schema::Status>) -> Result<(), Error> {
    match done {
        Err(status) if !status.is_already_exists() && !status.is_not_found() => Err(status.into()),
        _ => Ok(()),
    }
}

impl Reconciler for Maintenance {
    fn name(&self) -> &'static str {
        "priority-and-fairness"
    }
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[(GROUP, "v1", SCHEMAS), (GROUP, "v1", LEVELS)]
    }
    fn wake(&self, _change: &Change, queue: &Queue) {
        self.flow.invalidate();
        queue.add(Key::new("", "all"));
    }
    fn reconcile<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            for (plural, at, name) in wanted() {
                self.ensure(plural, at, name).await?;
            }
            self.tell_dangling().await?;
            Ok(Next::Done)
        })
    }
}

#[cfg(test)]
pub(crate) fn all_for_tests() -> (Vec<Object>, Vec<Object>) {
    let (mut schemas, mut levels) = (Vec::new(), Vec::new());
    for (plural, at, name) in wanted() {
        let (object, _) = object(plural, at, name).unwrap();
        if plural == SCHEMAS { schemas.push(object) } else { levels.push(object) }
    }
    (schemas, levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_make_what_upstream_makes() {
        let of = |name: &str| SCHEMA_TABLE.iter().position(|schema| schema.0 == name).unwrap();
        assert_eq!(
            schema_spec(of("system-leader-election"))["rules"][0]["resourceRules"],
            json!([{"verbs": ["get", "create", "update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}])
        );
        assert_eq!(
            schema_spec(of("system-node-high"))["rules"][0]["resourceRules"][0],
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"], "clusterScope": true})
        );
        assert!(says(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": 1}})));
        assert!(!says(&json!({"a": [1, 2]}), &json!({"a": [1]})));
    }

    #[test]
    fn mandatory_objects_are_the_first() {
        let names: Vec<String> =
            mandatory().iter().map(|(object, plural)| format!("{plural}/{}", object.name())).collect();
        assert_eq!(
            names,
            [
                "prioritylevelconfigurations/exempt",
                "prioritylevelconfigurations/catch-all",
                "flowschemas/exempt",
                "flowschemas/catch-all"
            ]
        );
    }
}
