//! One FlowSchema: does a request belong to it, and to which flow of it (apiserver/pkg/util/flowcontrol/rule.go). Read once
//! from the object; matching allocates nothing.
use crate::{
    Object, Ref,
    http::request::{RequestInfo, User},
};
use http::HeaderValue;

pub struct Schema {
    pub name: Box<str>,
    pub uid: HeaderValue,
    pub precedence: u64,
    /// Place of its level.
    pub level: usize,
    by: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy)]
enum Distinguisher {
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

struct Resources {
    verbs: List,
    groups: List,
    resources: List,
    namespaces: List,
    cluster: bool,
}

struct Paths {
    verbs: List,
    paths: Vec<String>,
}

/// Names, or all when "*" stands there alone.
struct List(Vec<String>);

impl List {
    fn read(list: Ref<'_>) -> List {
        List(strings(list))
    }
    fn has(&self, wanted: impl Fn(&str) -> bool) -> bool {
        matches!(self.0.as_slice(), [one] if one == "*") || self.0.iter().any(|name| wanted(name))
    }
}

fn strings(list: Ref<'_>) -> Vec<String> {
    list.items().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

impl Schema {
    /// The name of the level that an object refers to.
    pub fn level_of(object: &Object) -> &str {
        object.root().at("spec.priorityLevelConfiguration.name").str()
    }

    pub fn read(object: &Object, level: usize) -> Schema {
        let spec = object.root().get("spec");
        let rules = spec.get("rules").items().map(|rule| Rule {
            subjects: rule.get("subjects").items().filter_map(Subject::read).collect(),
            resources: rule.get("resourceRules").items().map(Resources::read).collect(),
            paths: rule
                .get("nonResourceRules")
                .items()
                .map(|paths| Paths {
                    verbs: List::read(paths.get("verbs")),
                    paths: strings(paths.get("nonResourceURLs")),
                })
                .collect(),
        });
        Schema {
            name: object.name().into(),
            uid: HeaderValue::from_str(object.uid()).unwrap_or(HeaderValue::from_static("")),
            precedence: spec.get("matchingPrecedence").as_i64().and_then(|p| u64::try_from(p).ok()).unwrap_or(1000),
            level,
            by: match spec.at("distinguisherMethod.type").str() {
                "ByUser" => Some(Distinguisher::User),
                "ByNamespace" => Some(Distinguisher::Namespace),
                _ => None,
            },
            rules: rules.collect(),
        }
    }

    pub fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.matches(user))
                && if info.is_resource {
                    rule.resources.iter().any(|resources| resources.matches(info))
                } else {
                    rule.paths.iter().any(|paths| paths.matches(info))
                }
        })
    }

    /// Requests with the same are one flow.
    pub fn distinguisher<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.by {
            Some(Distinguisher::User) => &user.name,
            Some(Distinguisher::Namespace) => &info.namespace,
            None => "",
        }
    }
}

impl Subject {
    fn read(subject: Ref<'_>) -> Option<Subject> {
        let name = |field: &str| subject.get(field).get("name").str().to_owned();
        match subject.get("kind").str() {
            "User" => Some(Subject::User(name("user"))),
            "Group" => Some(Subject::Group(name("group"))),
            "ServiceAccount" => {
                let namespace = subject.at("serviceAccount.namespace").str().to_owned();
                Some(Subject::Account(namespace, name("serviceAccount")))
            }
            _ => None,
        }
    }

    fn matches(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(group) => group == "*" || user.in_group(group),
            Subject::Account(namespace, name) => {
                let rest = user.name.strip_prefix("system:serviceaccount:");
                let own = rest.and_then(|rest| rest.strip_prefix(namespace.as_str())?.strip_prefix(':'));
                own.is_some_and(|own| name == "*" || name == own)
            }
        }
    }
}

impl Resources {
    fn read(rule: Ref<'_>) -> Resources {
        Resources {
            verbs: List::read(rule.get("verbs")),
            groups: List::read(rule.get("apiGroups")),
            resources: List::read(rule.get("resources")),
            namespaces: List::read(rule.get("namespaces")),
            cluster: rule.get("clusterScope").as_bool().unwrap_or(false),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let (resource, sub) = (info.resource.as_str(), info.subresource.as_str());
        self.verbs.has(|verb| verb == info.verb)
            && self.resources.has(|name| {
                let (left, right) = name.split_once('/').unwrap_or((name, ""));
                left == resource && right == sub
            })
            && self.groups.has(|group| group == info.group)
            && if info.namespace.is_empty() {
                self.cluster
            } else {
                self.namespaces.has(|namespace| namespace == info.namespace)
            }
    }
}

impl Paths {
    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.has(|verb| verb == info.verb)
            && self.paths.iter().any(|path| {
                let start = path.trim_end_matches('*').trim_end_matches('/');
                path == "*"
                    || *path == info.path
                    || info.path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}
