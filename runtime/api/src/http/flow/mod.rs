//! Priority and fairness: every request is classified by the FlowSchemas and takes a seat of the priority level it belongs
//! to, waits for one in a fair queue, or is refused (apiserver/pkg/util/flowcontrol). `schema` classifies, `level` holds
//! seats and queues, `bootstrap` keeps the objects that every cluster has.
//!
//! Simpler than upstream in three ways. A request takes one seat, whatever it costs. A watch holds its seat until its answer
//! starts. Seats are borrowed at the moment they are needed, instead of being shifted between levels every ten seconds: a
//! level that is full takes from what others may lend and do not use, which needs no timer. A request that finds a seat
//! costs two reference counts and two locks, and no memory.
mod bootstrap;
mod level;
mod schema;

pub use bootstrap::Maintenance;
pub(super) use level::Ticket;

use super::request::{RequestInfo, User};
use crate::{Object, metrics::Text};
use http::HeaderValue;
use level::{Level, Limits};
use mote_schema::Order as _;
use schema::Schema;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const CATCH_ALL: &str = "catch-all";

/// FlowSchemas and PriorityLevelConfigurations.
type Load = Box<dyn Fn() -> (Vec<Object>, Vec<Object>) + Send + Sync>;

/// Shared by all requests.
pub struct Flow {
    load: Load,
    generation: AtomicU64,
    total: AtomicUsize,
    rules: RwLock<(u64, Arc<Rules>)>,
}

/// What the objects say, made when somebody asks after a change.
#[derive(Default)]
struct Rules {
    /// In the order in which they are asked.
    schemas: Vec<Schema>,
    levels: Arc<Vec<Arc<Level>>>,
}

/// What a request was taken for; both headers are in its answer.
pub(super) struct Class {
    pub schema_uid: HeaderValue,
    pub level_uid: HeaderValue,
}

/// The level has no seat and no place to wait, or the wait was too long.
pub(super) struct Refused;

impl Flow {
    /// `load` is called at the first request and after each `invalidate`.
    pub fn new(load: impl Fn() -> (Vec<Object>, Vec<Object>) + Send + Sync + 'static) -> Flow {
        Flow {
            load: Box::new(load),
            generation: AtomicU64::new(1),
            total: AtomicUsize::new(usize::MAX),
            rules: RwLock::default(),
        }
    }

    /// Seats of all levels together.
    pub(super) fn set_total(&self, seats: usize) {
        self.total.store(seats, Ordering::Release);
        self.invalidate();
    }

    /// An object changed. Cheap.
    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn rules(&self) -> Arc<Rules> {
        let generation = self.generation.load(Ordering::Acquire);
        let known = self.rules.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if known.0 == generation {
            return known.1.clone();
        }
        let old = known.1.clone();
        drop(known);
        let rules = Arc::new(self.make(&old));
        *self.rules.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = (generation, rules.clone());
        rules
    }

    /// A level that stays keeps its seats and queues.
    fn make(&self, old: &Rules) -> Rules {
        let (mut schemas, mut levels) = (self.load)();
        for (object, of) in bootstrap::mandatory() {
            let list = if of == "flowschemas" { &mut schemas } else { &mut levels };
            if !list.iter().any(|known| known.name() == object.name()) {
                list.push(object);
            }
        }
        levels.order_by(|a, b| a.name().cmp(b.name()));
        let shares: u64 = levels.iter().map(Limits::shares).sum();
        let total = self.total.load(Ordering::Acquire);
        let levels: Vec<Arc<Level>> = levels
            .iter()
            .map(|object| {
                let limits = Limits::read(object, total, shares);
                let known = old.levels.iter().find(|level| *level.name == *object.name());
                let level = known.cloned().unwrap_or_else(|| Arc::new(Level::new(object.name())));
                level.set(limits, object.uid());
                level
            })
            .collect();
        let position = |name: &str| levels.iter().position(|level| *level.name == *name);
        // One that refers to no level is left out, as upstream leaves out dangling ones.
        let mut schemas: Vec<Schema> = schemas
            .iter()
            .filter_map(|object| Some(Schema::read(object, position(Schema::level_of(object))?)))
            .collect();
        schemas.order_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Rules { schemas, levels: Arc::new(levels) }
    }

    /// Waits for a seat. `limit` bounds the wait.
    pub(super) async fn admit(
        &self,
        user: &User,
        info: &RequestInfo,
        limit: Duration,
    ) -> (Option<Class>, Result<Option<Ticket>, Refused>) {
        let rules = self.rules();
        let catch_all = || rules.schemas.iter().find(|schema| *schema.name == *CATCH_ALL);
        let found = rules.schemas.iter().find(|schema| schema.matches(user, info)).or_else(catch_all);
        let Some((schema, level)) = found.and_then(|schema| Some((schema, rules.levels.get(schema.level)?))) else {
            return (None, Ok(None));
        };
        let class = Class { schema_uid: schema.uid.clone(), level_uid: level.uid() };
        let flow = || {
            let mut hasher = DefaultHasher::new();
            (&*schema.name, schema.distinguisher(user, info)).hash(&mut hasher);
            hasher.finish()
        };
        let seat = Level::take(level, &rules.levels, flow, limit).await;
        (Some(class), seat.map(Some))
    }

    pub fn write_metrics(&self, text: &mut Text) {
        let rules = self.rules();
        type Figure = fn(&Level) -> u64;
        let figures: [(&str, &str, &str, Figure); 7] = [
            ("nominal_limit_seats", "gauge", "Seats of a level.", Level::nominal),
            ("request_concurrency_limit", "gauge", "Seats of a level.", Level::nominal),
            ("current_limit_seats", "gauge", "Seats of a level.", Level::nominal),
            ("current_executing_requests", "gauge", "Requests that have a seat.", Level::executing),
            ("current_executing_seats", "gauge", "Seats taken.", Level::executing),
            ("current_inqueue_requests", "gauge", "Requests that wait for a seat.", Level::waiting),
            ("dispatched_requests_total", "counter", "Requests that got a seat.", Level::dispatched),
        ];
        for (name, kind, help, figure) in figures {
            text.family(&format!("apiserver_flowcontrol_{name}"), kind, help);
            for level in rules.levels.iter() {
                text.sample("", &format!("priority_level={:?}", level.name), figure(level) as f64);
            }
        }
        text.family("apiserver_flowcontrol_rejected_requests_total", "counter", "Requests that were refused a seat.");
        for level in rules.levels.iter() {
            for (reason, count) in level.rejected() {
                text.sample("", &format!("priority_level={:?},reason={reason:?}", level.name), count as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Doc,
        http::{Query, request_info},
    };
    use mote_schema::Catalog;
    use mote_schema::{Value, json};

    fn object(plural: &str, value: &Value) -> Object {
        let kind = Catalog::builtin().by_resource(GROUP, "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(value).unwrap(), revision: 1 }
    }

    #[track_caller]
    fn check(flow: &Flow, user: &str, groups: &[&str], request: &str, want: &str) {
        let (method, path) = request.split_once(' ').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let info = request_info(&method.parse().unwrap(), path, &Query::parse(query)).unwrap();
        let user = User::new(user, groups);
        let rules = flow.rules();
        let schema = rules.schemas.iter().find(|schema| schema.matches(&user, &info)).unwrap();
        let level = &rules.levels[schema.level];
        let got = format!("{} {} {}", schema.name, level.name, schema.distinguisher(&user, &info));
        assert_eq!(got, want, "{request}");
    }

    /// The suggested objects, as upstream classifies with them.
    #[test]
    fn classification() {
        let flow = Flow::new(bootstrap::all_for_tests);
        flow.set_total(600);
        let (masters, nodes) = (&["system:masters", "system:authenticated"], &["system:nodes", "system:authenticated"]);
        let accounts: &[&str] =
            &["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
        let (sa, other) = ("system:serviceaccount:kube-system:x", "system:serviceaccount:kube-systemic:x");
        for (user, groups, request, want) in [
            ("admin", &masters[..], "GET /api/v1/pods", "exempt exempt "),
            ("", &["system:unauthenticated"][..], "GET /healthz", "probes exempt "),
            ("", &["system:unauthenticated"][..], "GET /healthz/etcd", "probes exempt "),
            ("", &["system:unauthenticated"][..], "GET /version", "global-default global-default "),
            (
                "system:kube-scheduler",
                &["system:authenticated"][..],
                "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x",
                "system-leader-election leader-election system:kube-scheduler",
            ),
            (
                "system:kube-scheduler",
                &["system:authenticated"][..],
                "POST /api/v1/namespaces/x/pods/p/binding",
                "kube-scheduler workload-high x",
            ),
            ("system:node:a", &nodes[..], "PATCH /api/v1/nodes/a/status", "system-node-high node-high system:node:a"),
            ("system:node:a", &nodes[..], "GET /api/v1/nodes/a/proxy", "system-nodes system system:node:a"),
            (
                "system:node:a",
                &nodes[..],
                "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a",
                "system-node-high node-high system:node:a",
            ),
            (sa, accounts, "GET /api/v1/pods", "kube-system-service-accounts workload-high "),
            (
                sa,
                accounts,
                "GET /apis/coordination.k8s.io/v1/namespaces/x/leases/y",
                "system-leader-election leader-election system:serviceaccount:kube-system:x",
            ),
            (
                other,
                accounts,
                "GET /api/v1/pods",
                "service-accounts workload-low system:serviceaccount:kube-systemic:x",
            ),
            ("ann", &["system:authenticated"][..], "GET /api/v1/pods?watch=1", "global-default global-default ann"),
        ] {
            check(&flow, user, groups, request, want);
        }
        let seats: Vec<(String, u64)> =
            flow.rules().levels.iter().map(|level| (level.name.to_string(), level.nominal())).collect();
        let seat = |name: &str| seats.iter().find(|(known, _)| known == name).unwrap().1;
        // ceil(600 * shares / 245), as upstream.
        assert_eq!((seat("catch-all"), seat("workload-low"), seat("system"), seat("exempt")), (13, 245, 74, 0));
    }

    #[test]
    fn precedence_then_name_decides_and_dangling_ones_are_left_out() {
        let schema = |name: &str, precedence: u64, level: &str| {
            object(
                "flowschemas",
                &json!({"metadata": {"name": name, "uid": name}, "spec": {"matchingPrecedence": precedence,
                    "priorityLevelConfiguration": {"name": level},
                    "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
                        "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "pods/log"], "namespaces": ["a"], "clusterScope": false}],
                        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x/*", "/y"]}]}]}}),
            )
        };
        let flow = Flow::new(move || {
            let schemas = vec![schema("b", 50, "exempt"), schema("a", 50, "exempt"), schema("lost", 1, "nowhere")];
            (schemas, Vec::new())
        });
        for (request, want) in [
            ("GET /api/v1/namespaces/a/pods", "a exempt "),
            ("GET /api/v1/namespaces/b/pods", "catch-all catch-all ann"),
            ("GET /api/v1/pods", "catch-all catch-all ann"),
            ("GET /api/v1/namespaces/a/pods/p", "catch-all catch-all ann"),
            ("GET /x/z", "a exempt "),
            ("GET /y", "a exempt "),
            ("GET /y/z", "a exempt "),
            ("GET /yz", "catch-all catch-all ann"),
        ] {
            check(&flow, "ann", &["system:authenticated"], request, want);
        }
    }
}
