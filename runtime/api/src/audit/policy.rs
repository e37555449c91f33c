//! Which requests are written and how much of them: `audit.k8s.io/v1` Policy, matched as upstream's
//! apiserver/pkg/audit/policy/checker.go does, and MicroShift's ready-made profiles.
use crate::http::{RequestInfo, User};
use mote_schema::Value;

/// How much of a request is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub const NAMES: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
    const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    pub fn name(self) -> &'static str {
        Level::NAMES[self as usize]
    }
}

/// A moment in a request's life at which an Event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub const NAMES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

    pub fn name(self) -> &'static str {
        Stage::NAMES[self as usize]
    }
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    pub fn has(self, stage: Stage) -> bool {
        self.0 & stage.bit() != 0
    }
}

/// MicroShift's `apiServer.auditLog.profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Default,
    WriteRequestBodies,
    AllRequestBodies,
    None,
}

impl Profile {
    pub const ALL: [(&str, Profile); 4] = [
        ("Default", Profile::Default),
        ("WriteRequestBodies", Profile::WriteRequestBodies),
        ("AllRequestBodies", Profile::AllRequestBodies),
        ("None", Profile::None),
    ];
}

/// Common to the profiles: no managed fields, no RequestReceived, and silence about discovery, health and metrics, which
/// clients read all the time.
const BASE: &str = r#"
omitManagedFields: true
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: ["system:authenticated", "system:unauthenticated"]
  nonResourceURLs: ["/api*", "/openapi/*", "/version", "/healthz*", "/readyz*", "/livez*", "/metrics"]
"#;

/// Bodies that hold secrets are never written, in any profile. ConfigMaps, too, hold what people put there.
const SENSITIVE: &str = r#"
- level: Metadata
  resources:
  - resources: ["secrets", "configmaps", "serviceaccounts/token"]
  - group: "authentication.k8s.io"
    resources: ["tokenreviews", "tokenrequests"]
  - group: "route.openshift.io"
    resources: ["routes", "routes/status"]
"#;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Stages,
    omit_managed_fields: bool,
}

/// What the policy says of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Stages,
    pub omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Rule {
    verdict: Verdict,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

impl Policy {
    pub fn profile(profile: Profile) -> Policy {
        let rest = match profile {
            Profile::None => return Policy::default(),
            Profile::Default => "- level: Metadata\n".to_owned(),
            Profile::WriteRequestBodies => format!(
                "{SENSITIVE}- level: RequestResponse\n  verbs: [update, patch, create, delete, deletecollection]\n- level: Metadata\n"
            ),
            Profile::AllRequestBodies => format!("{SENSITIVE}- level: RequestResponse\n"),
        };
        Policy::read(format!("{BASE}{}", rest.trim_start_matches('\n')).as_bytes()).unwrap_or_default()
    }

    /// From a Policy as YAML or JSON; says everything that is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Policy, String> {
        let (value, mut wrong) = mote_schema::prune::parse_yaml(text)?;
        for (field, wanted) in [("apiVersion", "audit.k8s.io/v1"), ("kind", "Policy")] {
            if value[field] != wanted {
                wrong.push(format!("{field}: expected {wanted}, found {}", value[field]));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        Policy::from_value(&value)
    }

    fn read(text: &[u8]) -> Result<Policy, String> {
        Policy::from_value(&mote_schema::prune::parse_yaml(text)?.0)
    }

    fn from_value(value: &Value) -> Result<Policy, String> {
        let mut wrong = Vec::new();
        let omit_stages = stages(&value["omitStages"], "omitStages", &mut wrong);
        let omit_managed_fields = value["omitManagedFields"].as_bool().unwrap_or(false);
        let mut rules = Vec::new();
        for (at, rule) in list(&value["rules"]).iter().enumerate() {
            let path = format!("rules[{at}]");
            let own = stages(&rule["omitStages"], &format!("{path}.omitStages"), &mut wrong);
            let level = rule["level"].as_str().unwrap_or("");
            let level = Level::ALL.into_iter().find(|known| known.name() == level).unwrap_or_else(|| {
                wrong.push(format!("{path}.level: expected one of {}, found {level:?}", Level::NAMES.join(", ")));
                Level::None
            });
            let verdict = Verdict {
                level,
                omit_stages: Stages(omit_stages.0 | own.0),
                omit_managed_fields: rule["omitManagedFields"].as_bool().unwrap_or(omit_managed_fields),
            };
            let resources = list(&rule["resources"]).iter().map(|given| Resources {
                group: given["group"].as_str().unwrap_or("").into(),
                resources: strings(&given["resources"]),
                names: strings(&given["resourceNames"]),
            });
            let rule = Rule {
                verdict,
                users: strings(&rule["users"]),
                groups: strings(&rule["userGroups"]),
                verbs: strings(&rule["verbs"]),
                resources: resources.collect(),
                namespaces: strings(&rule["namespaces"]),
                paths: strings(&rule["nonResourceURLs"]),
            };
            rule.complain(&path, &mut wrong);
            rules.push(rule);
        }
        if wrong.is_empty() { Ok(Policy { rules, omit_stages, omit_managed_fields }) } else { Err(wrong.join("; ")) }
    }

    /// No request is written.
    pub fn is_silent(&self) -> bool {
        self.rules.iter().all(|rule| rule.verdict.level == Level::None)
    }

    /// The first rule that matches decides; without one nothing is written. `user` is None when nobody authenticated.
    pub fn verdict(&self, user: Option<&User>, info: &RequestInfo) -> Verdict {
        self.rules.iter().find(|rule| rule.matches(user, info)).map(|rule| rule.verdict).unwrap_or(Verdict {
            level: Level::None,
            omit_stages: self.omit_stages,
            omit_managed_fields: self.omit_managed_fields,
        })
    }
}

impl Rule {
    fn matches(&self, user: Option<&User>, info: &RequestInfo) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == value);
        if !self.users.is_empty() && !user.is_some_and(|user| has(&self.users, &user.name))
            || !self.groups.is_empty() && !user.is_some_and(|user| user.groups.iter().any(|g| has(&self.groups, g)))
            || !self.verbs.is_empty() && !has(&self.verbs, &info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.match_(info)));
        }
        self.paths.is_empty() || !info.is_resource && self.paths.iter().any(|spec| path_matches(&info.path, spec))
    }

    /// apiserver/pkg/apis/audit/validation.
    fn complain(&self, path: &str, wrong: &mut Vec<String>) {
        let by_resource = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.paths.is_empty() && by_resource {
            wrong.push(format!(
                "{path}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
            ));
        }
        for spec in &self.paths {
            let star = spec.find('*');
            if spec != "*" && (!spec.starts_with('/') || star.is_some_and(|at| at + 1 < spec.len())) {
                wrong.push(format!("{path}.nonResourceURLs: {spec:?} is no path with at most a '*' at its end"));
            }
        }
        for resources in &self.resources {
            if resources.resources.is_empty() && !resources.names.is_empty() {
                wrong.push(format!("{path}.resources: resourceNames need resources"));
            }
        }
    }
}

impl Resources {
    fn match_(&self, info: &RequestInfo) -> bool {
        if self.group != info.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let (resource, sub) = (info.resource.as_str(), info.subresource.as_str());
        let named = self.names.is_empty() || self.names.contains(&info.name);
        named
            && self.resources.iter().any(|spec| {
                let (left, right) = spec.split_once('/').unwrap_or((spec, ""));
                spec == "*"
                    || left == resource && right == sub
                    || left == "*" && !sub.is_empty() && right == sub
                    || right == "*" && left == resource
            })
    }
}

/// `*`, an exact path, or a path's beginning with `*` after it.
fn path_matches(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*'))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn stages(value: &Value, path: &str, wrong: &mut Vec<String>) -> Stages {
    let mut stages = Stages::default();
    for name in strings(value) {
        match Stage::NAMES.iter().position(|known| *known == name) {
            Some(at) => stages.0 |= 1 << at,
            None => wrong.push(format!("{path}: expected one of {}, found {name:?}", Stage::NAMES.join(", "))),
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Query, request_info};

    fn policy(rules: &str) -> Policy {
        Policy::parse(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}").as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(policy: &Policy, user: &str, request: &str, want: Level) {
        let (method, path) = request.split_once(' ').unwrap();
        let info = request_info(&method.parse().unwrap(), path, &Query::default()).unwrap();
        let user = (!user.is_empty()).then(|| User::new(user, &["system:authenticated"]));
        assert_eq!(policy.verdict(user.as_ref(), &info).level, want, "{request}");
    }

    #[test]
    fn rules_match_as_upstream() {
        let policy = policy(
            r#"
- {level: None, users: [quiet]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/healthz*", "/version"]}
- {level: Metadata, resources: [{resources: [secrets, "pods/log"]}, {group: apps, resources: ["*/scale", "deployments/*"]}]}
- {level: RequestResponse, verbs: [delete], namespaces: [prod]}
- {level: Request, resources: [{group: "*", resources: ["*"], resourceNames: [one]}]}
- {level: Metadata, resources: [{group: batch}]}
"#,
        );
        for (user, request, want) in [
            ("quiet", "GET /api/v1/namespaces/x/secrets/s", Level::None),
            ("ann", "GET /healthz/ping", Level::None),
            ("", "GET /healthz", Level::None),
            ("ann", "GET /api/v1/namespaces/x/secrets/s", Level::Metadata),
            ("ann", "GET /api/v1/namespaces/x/secrets/s/sub", Level::None),
            ("ann", "GET /api/v1/namespaces/x/pods/p/log", Level::Metadata),
            ("ann", "GET /api/v1/namespaces/x/pods/p", Level::None),
            ("ann", "GET /apis/apps/v1/namespaces/x/replicasets/r/scale", Level::Metadata),
            ("ann", "GET /apis/apps/v1/namespaces/x/deployments/d", Level::Metadata),
            ("ann", "GET /apis/apps/v1/namespaces/x/deployments/d/status", Level::Metadata),
            ("ann", "DELETE /api/v1/namespaces/prod/pods/p", Level::RequestResponse),
            ("ann", "DELETE /api/v1/namespaces/test/pods/p", Level::None),
            ("ann", "PUT /api/v1/namespaces/test/pods/one", Level::Request),
            ("ann", "GET /apis/batch/v1/jobs", Level::Metadata),
            ("ann", "GET /other", Level::None),
        ] {
            check(&policy, user, request, want);
        }
    }

    #[test]
    fn profiles() {
        use Level::*;
        for (profile, get, write, secret) in [
            (Profile::Default, Metadata, Metadata, Metadata),
            (Profile::WriteRequestBodies, Metadata, RequestResponse, Metadata),
            (Profile::AllRequestBodies, RequestResponse, RequestResponse, Metadata),
            (Profile::None, None, None, None),
        ] {
            let policy = Policy::profile(profile);
            assert_eq!(policy.is_silent(), profile == Profile::None);
            check(&policy, "ann", "GET /api/v1/pods", get);
            check(&policy, "ann", "POST /api/v1/namespaces/x/pods", write);
            check(&policy, "ann", "POST /api/v1/namespaces/x/serviceaccounts/s/token", secret);
            check(&policy, "ann", "PUT /api/v1/namespaces/x/configmaps/c", secret);
            for path in ["/readyz", "/livez/ping", "/apis", "/api/v1", "/openapi/v3", "/metrics"] {
                check(&policy, "ann", &format!("GET {path}"), None);
            }
        }
    }

    #[test]
    fn stages_and_managed_fields() {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                    - {level: Metadata, omitStages: [Panic], verbs: [get]}\n- {level: Request, omitManagedFields: false}\n";
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let of = |verb: &str| {
            let info = RequestInfo { verb: verb.into(), ..RequestInfo::default() };
            let verdict = policy.verdict(None::<&User>, &info);
            let omitted = Stage::NAMES.iter().enumerate().filter(|(at, _)| verdict.omit_stages.0 & 1 << at != 0);
            (omitted.map(|(_, name)| *name).collect::<Vec<_>>(), verdict.omit_managed_fields)
        };
        assert_eq!(of("get"), (vec!["RequestReceived", "Panic"], true));
        assert_eq!(of("list"), (vec!["RequestReceived"], false));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, want: &str| assert_eq!(Policy::parse(text.as_bytes()).unwrap_err(), want);
        check("kind: Policy\n", "apiVersion: expected audit.k8s.io/v1, found null");
        check(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All, omitStages: [End]}]\n",
            "rules[0].omitStages: expected one of RequestReceived, ResponseStarted, ResponseComplete, Panic, found \"End\"; \
             rules[0].level: expected one of None, Metadata, Request, RequestResponse, found \"All\"",
        );
        check(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [a, '/*/b'], namespaces: [x]}]\n",
            "rules[0].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs; \
             rules[0].nonResourceURLs: \"a\" is no path with at most a '*' at its end; \
             rules[0].nonResourceURLs: \"/*/b\" is no path with at most a '*' at its end",
        );
    }
}
