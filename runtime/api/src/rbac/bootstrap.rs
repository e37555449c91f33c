//! The roles and bindings every cluster starts with (`bootstrap.txt`): created when missing, completed when lacking,
//! left alone when somebody said so with the annotation `rbac.authorization.kubernetes.io/autoupdate: "false"`
//! (component-helpers/auth/rbac/reconciliation). And the aggregation of ClusterRoles, upstream's
//! clusterrole-aggregation-controller. Nothing is written when nothing is lacking.
use super::{Authorizer, GROUP, Rule, index, rule};
use crate::{
    Change, Client, Object, Patch, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use mote_schema::{Kind, Status, selector::LabelSelector};
use mote_schema::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

const TABLE: &str = include_str!("bootstrap.txt");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
const RBAC_KINDS: [(&str, &str, &str); 4] = [
    (GROUP, "v1", "clusterroles"),
    (GROUP, "v1", "clusterrolebindings"),
    (GROUP, "v1", "roles"),
    (GROUP, "v1", "rolebindings"),
];

/// One object of the table.
#[derive(Debug, PartialEq)]
struct Entry {
    plural: &'static str,
    namespace: String,
    name: String,
    labels: Vec<String>,
    /// The label whose roles it gathers.
    from: Option<String>,
    rules: Vec<Rule>,
    role: String,
    subjects: Vec<Value>,
}

impl Entry {
    fn new(plural: &'static str, namespace: &str, name: &str) -> Entry {
        Entry {
            plural,
            namespace: namespace.into(),
            name: name.into(),
            labels: Vec::new(),
            from: None,
            rules: Vec::new(),
            role: String::new(),
            subjects: Vec::new(),
        }
    }

    fn is_binding(&self) -> bool {
        !self.role.is_empty()
    }

    fn metadata(&self) -> Value {
        let mut labels = Map::new();
        labels.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
        for label in &self.labels {
            labels.insert(format!("{AGGREGATE}{label}").into(), "true".into());
        }
        let mut metadata = json!({"name": self.name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}});
        if !self.namespace.is_empty() {
            metadata["namespace"] = json!(self.namespace);
        }
        metadata
    }

    fn role_ref(&self) -> Value {
        let kind = if self.plural == "rolebindings" { "Role" } else { "ClusterRole" };
        json!({"apiGroup": GROUP, "kind": kind, "name": self.role})
    }

    fn aggregation_rule(&self) -> Option<Value> {
        let label = format!("{AGGREGATE}{}", self.from.as_ref()?);
        Some(json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}))
    }

    fn object(&self) -> Value {
        let mut object = json!({"metadata": self.metadata()});
        if self.is_binding() {
            object["roleRef"] = self.role_ref();
            if !self.subjects.is_empty() {
                object["subjects"] = json!(self.subjects);
            }
        } else {
            object["rules"] = Value::encode(&self.rules).unwrap_or_default();
            if let Some(rule) = self.aggregation_rule() {
                object["aggregationRule"] = rule;
            }
        }
        object
    }
}

/// The whole table; aggregated roles come with what they gather from it.
fn table() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bindings: Vec<Entry> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        if line.starts_with(' ') {
            if let Some(entry) = entries.last_mut() {
                entry.rules.push(table_rule(words));
            }
            continue;
        }
        let (what, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (namespace, local) = name.split_once('/').unwrap_or(("", name));
        match what {
            "clusterrole" => {
                let mut entry = Entry::new("clusterroles", "", name);
                for word in words {
                    match word.split_once('=') {
                        Some(("from", label)) => entry.from = Some(label.into()),
                        Some((_, label)) => entry.labels.push(label.into()),
                        None => {}
                    }
                }
                entries.push(entry);
            }
            "controller" => {
                let role = format!("system:controller:{name}");
                let mut binding = Entry::new("clusterrolebindings", "", &role);
                binding.subjects.extend(subject(&format!("sa:kube-system/{name}")));
                binding.role.clone_from(&role);
                bindings.push(binding);
                entries.push(Entry::new("clusterroles", "", &role));
            }
            "role" => entries.push(Entry::new("roles", namespace, local)),
            "clusterbinding" | "binding" => {
                let plural = if what == "binding" { "rolebindings" } else { "clusterrolebindings" };
                let mut binding = Entry::new(plural, namespace, local);
                binding.role = words.next().unwrap_or("").into();
                binding.subjects = words.filter_map(subject).collect();
                bindings.push(binding);
            }
            _ => {}
        }
    }
    // Twice, since "edit" gathers "view" and "admin" gathers both; then each is what the controller would make of it.
    for _ in 0..3 {
        for at in 0..entries.len() {
            if let Some(label) = entries[at].from.clone() {
                entries[at].rules = gather(&entries, at, &label);
            }
        }
    }
    entries.append(&mut bindings);
    entries
}

/// The rules that the table gives a ClusterRole.
pub fn rules_of(name: &str) -> Vec<Rule> {
    table().into_iter().find(|entry| entry.name == name).map(|entry| entry.rules).unwrap_or_default()
}

fn gather(entries: &[Entry], own: usize, label: &str) -> Vec<Rule> {
    let mut roles: Vec<&Entry> = entries
        .iter()
        .enumerate()
        .filter(|(at, entry)| *at != own && entry.labels.iter().any(|l| l == label))
        .map(|(_, entry)| entry)
        .collect();
    roles.order_by(|a, b| a.name.cmp(&b.name));
    union(roles.iter().flat_map(|role| role.rules.iter().cloned()))
}

fn union(rules: impl Iterator<Item = Rule>) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    for rule in rules {
        if !all.contains(&rule) {
            all.push(rule);
        }
    }
    all
}

fn table_rule<'a>(mut words: impl Iterator<Item = &'a str>) -> Rule {
    let mut list = || -> Vec<String> {
        words.next().unwrap_or("").split(',').filter(|w| !w.is_empty()).map(String::from).collect()
    };
    let (verbs, groups, objects, names) = (list(), list(), list(), list());
    let mut rule = Rule { resource_names: names, ..Rule::default() };
    for verb in verbs {
        match verb.as_str() {
            "read" => rule.verbs.extend(["get", "list", "watch"].map(String::from)),
            "write" => {
                rule.verbs.extend(["create", "delete", "deletecollection", "patch", "update"].map(String::from));
            }
            _ => rule.verbs.push(verb),
        }
    }
    rule.verbs.order();
    if groups == ["url"] {
        rule.non_resource_urls = objects;
    } else {
        rule.api_groups = groups.into_iter().map(|g| if g == "core" { String::new() } else { g }).collect();
        rule.resources = objects;
    }
    rule
}

fn subject(word: &str) -> Option<Value> {
    let (kind, name) = word.split_once(':')?;
    match kind {
        "user" => Some(json!({"apiGroup": GROUP, "kind": "User", "name": name})),
        "group" => Some(json!({"apiGroup": GROUP, "kind": "Group", "name": name})),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            Some(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
    }
}

/// What has to be done for one entry.
#[derive(Debug, PartialEq)]
enum Action {
    Create(Value),
    Update(Value),
    /// A roleRef cannot be changed.
    Recreate(Value),
}

/// None when the live object has all that is expected of it, or is protected.
fn action(expected: &Entry, existing: Option<&Object>) -> Option<Action> {
    let Some(existing) = existing else { return Some(Action::Create(expected.object())) };
    if existing.meta().get("annotations").get(AUTO_UPDATE).str() == "false" {
        return None;
    }
    let root = existing.root();
    if expected.is_binding() && root.get("roleRef").to_value() != expected.role_ref() {
        return Some(Action::Recreate(expected.object()));
    }
    let mut changes: Vec<(&str, Value)> = Vec::new();
    let metadata = expected.metadata();
    for field in ["labels", "annotations"] {
        let found = existing.meta().get(field);
        let wanted = metadata[field].as_object().into_iter().flatten();
        // What is there wins, as upstream merges.
        for (key, value) in wanted.filter(|(key, _)| !found.get(key).exists()) {
            changes.push((field, json!({ (key.as_str()): value })));
        }
    }
    let mut object: Option<Value> = None;
    if expected.is_binding() {
        let found: Vec<Value> = root.get("subjects").items().map(|s| s.to_value()).collect();
        let missing = expected.subjects.iter().filter(|s| !found.contains(s));
        let all: Vec<Value> = found.iter().chain(missing).cloned().collect();
        if all.len() > found.len() {
            object.get_or_insert_with(|| existing.to_value())["subjects"] = Value::Array(all.into());
        }
    } else {
        let selectors = root.at("aggregationRule.clusterRoleSelectors").to_value();
        let wanted = expected.aggregation_rule();
        match &wanted {
            Some(rule) => {
                let has = rule["clusterRoleSelectors"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .all(|selector| selectors.as_array().is_some_and(|found| found.contains(selector)));
                if !has {
                    object.get_or_insert_with(|| existing.to_value())["aggregationRule"] = rule.clone();
                }
            }
            None => {
                if root.get("aggregationRule").exists() {
                    let object = object.get_or_insert_with(|| existing.to_value());
                    object["aggregationRule"] = Value::Null;
                }
                let mut rules = index::rules(existing);
                let missing = rule::missing(&rules, &expected.rules);
                if !missing.is_empty() {
                    rules.extend(missing);
                    object.get_or_insert_with(|| existing.to_value())["rules"] =
                        Value::encode(&rules).unwrap_or_default();
                }
            }
        }
    }
    if !changes.is_empty() {
        let object = object.get_or_insert_with(|| existing.to_value());
        for (field, pair) in changes {
            if object["metadata"][field].is_null() {
                object["metadata"][field] = json!({});
            }
            if let (Some(target), Value::Object(pair)) = (object["metadata"][field].as_object_mut(), pair) {
                target.extend(pair);
            }
        }
    }
    object.map(Action::Update)
}

/// A kind and its objects by namespace and name.
type Live = (Arc<Kind>, BTreeMap<(String, String), Object>);

/// Brings the cluster's roles and bindings up to the table. `client` acts for a member of system:masters. Writes run
/// side by side, so that they share flushes. Returns how many objects were written.
pub async fn ensure_policy(client: &Client) -> Result<usize, Status> {
    let mut live: BTreeMap<&str, Live> = BTreeMap::new();
    for (group, version, plural) in RBAC_KINDS {
        let kind = client
            .kind(group, version, plural)
            .ok_or_else(|| Status::internal(format!("{plural}.{group} is not served")))?;
        let objects = client.list(&kind, None)?;
        let objects = objects.into_iter().map(|o| ((o.namespace().to_owned(), o.name().to_owned()), o)).gather();
        live.insert(plural, (kind, objects));
    }
    let mut work = Vec::new();
    for entry in table() {
        let Some((kind, objects)) = live.get(entry.plural) else { continue };
        let key = (entry.namespace.clone(), entry.name.clone());
        if let Some(action) = action(&entry, objects.get(&key)) {
            work.push((kind.clone(), entry, action));
        }
    }
    if work.is_empty() {
        return Ok(0);
    }
    for namespace in ["kube-system", "kube-public"] {
        if work.iter().any(|(_, entry, _)| entry.namespace == namespace) {
            ensure_namespace(client, namespace).await?;
        }
    }
    let tasks: Vec<_> = work
        .into_iter()
        .map(|(kind, entry, action)| {
            let client = client.clone();
            client.executor().clone().spawn(async move { perform(&client, &kind, &entry, action).await })
        })
        .collect();
    let written = tasks.len();
    let mut failed = None;
    for task in tasks {
        if let Err(status) = task.await {
            tracing::warn!(%status, "cannot bring a bootstrap role up to date");
            failed = Some(status);
        }
    }
    failed.map_or(Ok(written), Err)
}

async fn perform(client: &Client, kind: &Arc<Kind>, entry: &Entry, action: Action) -> Result<(), Status> {
    let done = match action {
        Action::Create(object) => client.create_value(kind, &entry.namespace, object).await,
        Action::Update(object) => client.update_value(kind, Sub::Main, object).await,
        Action::Recreate(object) => {
            match client.delete(kind, &entry.namespace, &entry.name, Default::default()).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => client.create_value(kind, &entry.namespace, object).await,
            }
        }
    };
    match done {
        // Somebody else was quicker; the next start looks again.
        Err(status) if status.is_already_exists() || status.is_conflict() => Ok(()),
        done => done.map(|_| ()),
    }
}

async fn ensure_namespace(client: &Client, name: &str) -> Result<(), Status> {
    let Some(kind) = client.kind("", "v1", "namespaces") else { return Ok(()) };
    if client.get(&kind, "", name).is_ok() {
        return Ok(());
    }
    match client.create_value(&kind, "", json!({"metadata": {"name": name}})).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// Keeps the authorizer's index and the rules of aggregated ClusterRoles up to date. One key stands for all of them.
pub struct Aggregation {
    client: Client,
    authorizer: Arc<Authorizer>,
}

impl Aggregation {
    pub fn new(client: Client, authorizer: Arc<Authorizer>) -> Aggregation {
        Aggregation { client, authorizer }
    }
}

impl Reconciler for Aggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &RBAC_KINDS
    }
    fn wake(&self, change: &Change, queue: &Queue) {
        self.authorizer.invalidate();
        if change.kind.plural == "clusterroles" {
            queue.add(Key::new("", "all"));
        }
    }
    fn reconcile<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Some(kind) = self.client.kind(GROUP, "v1", "clusterroles") else { return Ok(Next::Done) };
            let roles = self.client.list(&kind, None)?;
            for role in roles.iter().filter(|role| role.root().get("aggregationRule").exists()) {
                let rules = aggregated(role, &roles).map_err(Error::Other)?;
                if rules != index::rules(role) {
                    let patch = Patch::Merge(json!({"rules": Value::encode(&rules).unwrap_or_default()}));
                    self.client.patch(&kind, "", role.name(), Sub::Main, patch).await?;
                }
            }
            Ok(Next::Done)
        })
    }
}

/// The rules of the roles that an aggregated role selects, in the order of their names.
fn aggregated(role: &Object, roles: &[Object]) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for selector in role.root().at("aggregationRule.clusterRoleSelectors").items() {
        let Some(selector) = LabelSelector::from_ref(selector)? else { continue };
        let mut selected: Vec<&Object> = roles
            .iter()
            .filter(|other| other.name() != role.name() && selector.matches(other.meta().get("labels")))
            .collect();
        selected.order_by(|a, b| a.name().cmp(b.name()));
        rules.extend(selected.into_iter().flat_map(index::rules));
    }
    Ok(union(rules.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::tests::object;

    fn find<'a>(table: &'a [Entry], plural: &str, name: &str) -> &'a Entry {
        table.iter().find(|e| e.plural == plural && e.name == name).unwrap()
    }

    #[test]
    fn the_table_is_whole() {
        let table = table();
        for (plural, count) in [("clusterroles", 0), ("clusterrolebindings", 0), ("roles", 7), ("rolebindings", 7)] {
            let found = table.iter().filter(|e| e.plural == plural).count();
            assert!(found >= count.max(1), "{plural}: {found}");
        }
        for entry in &table {
            assert!(!entry.name.is_empty(), "{entry:?}");
            assert!(entry.is_binding() || !entry.rules.is_empty(), "{entry:?} has no rules");
            for rule in &entry.rules {
                let is_path = !rule.non_resource_urls.is_empty() && rule.resources.is_empty();
                let is_resource = !rule.api_groups.is_empty() && !rule.resources.is_empty();
                assert!(!rule.verbs.is_empty() && is_path != is_resource, "{entry:?}");
            }
            if entry.is_binding() {
                let roles = if entry.plural == "rolebindings" { "roles" } else { "clusterroles" };
                assert!(
                    table.iter().any(|r| r.plural == roles && r.name == entry.role && r.namespace == entry.namespace),
                    "{entry:?}"
                );
            }
        }
        let public = find(&table, "clusterrolebindings", "system:public-info-viewer");
        assert_eq!(public.subjects.len(), 2);
        let kcm = find(&table, "clusterroles", "system:controller:replicaset-controller");
        assert!(kcm.rules.iter().any(|r| r.resources == ["pods"] && r.verbs.contains(&"create".into())));
    }

    #[test]
    fn aggregated_roles_are_complete_from_the_start() {
        let table = table();
        let objects: Vec<Object> =
            table.iter().filter(|e| e.plural == "clusterroles").map(|e| object(e.plural, &e.object())).collect();
        for name in ["admin", "edit", "view"] {
            let role = objects.iter().find(|o| o.name() == name).unwrap();
            let rules = index::rules(role);
            assert!(!rules.is_empty());
            assert_eq!(aggregated(role, &objects).unwrap(), rules, "{name}");
        }
    }

    #[test]
    fn nothing_to_do_for_what_is_there() {
        for entry in table() {
            assert_eq!(action(&entry, Some(&object(entry.plural, &entry.object()))), None, "{}", entry.name);
        }
    }

    #[test]
    fn what_lacks_is_added() {
        let table = table();
        let dns = find(&table, "clusterroles", "system:kube-dns");
        assert!(matches!(action(dns, None), Some(Action::Create(_))));

        let mut lacking = dns.object();
        lacking["rules"] = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["endpoints", "services"]},
            {"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}]);
        lacking["metadata"]["labels"] = json!({"own": "1"});
        let Some(Action::Update(updated)) = action(dns, Some(&object("clusterroles", &lacking))) else { panic!() };
        assert_eq!(updated["rules"].as_array().unwrap().len(), 4, "{updated}");
        assert_eq!(updated["metadata"]["labels"], json!({"own": "1", "kubernetes.io/bootstrapping": "rbac-defaults"}));

        lacking["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(action(dns, Some(&object("clusterroles", &lacking))), None);

        let binding = find(&table, "clusterrolebindings", "system:kube-dns");
        let mut other = binding.object();
        other["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": "me"}]);
        let Some(Action::Update(updated)) = action(binding, Some(&object("clusterrolebindings", &other))) else {
            panic!()
        };
        assert_eq!(updated["subjects"].as_array().unwrap().len(), 2);
        other["roleRef"]["name"] = "view".into();
        assert!(matches!(action(binding, Some(&object("clusterrolebindings", &other))), Some(Action::Recreate(_))));
    }
}
