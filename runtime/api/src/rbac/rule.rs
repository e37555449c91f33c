//! One policy rule: does it allow a request, and do rules cover others. Pure; the matching is upstream's
//! (kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go, component-helpers/auth/rbac/validation/policy_comparator.go).
use super::Attributes;
use crate::Ref;
use serde::{Deserialize, Serialize};

/// `rbac.authorization.k8s.io/v1 PolicyRule`, where rules are compared or made. Requests are matched against the
/// stored bytes instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

/// Does a stored rule allow what is asked?
pub fn allows(rule: Ref<'_>, asked: &Attributes<'_>) -> bool {
    if !any(rule.get("verbs"), |verb| verb == "*" || verb == asked.verb) {
        return false;
    }
    if !asked.is_resource {
        return any(rule.get("nonResourceURLs"), |url| url_covers(url, asked.path));
    }
    any(rule.get("apiGroups"), |group| group == "*" || group == asked.group)
        && any(rule.get("resources"), |resource| resource_allows(resource, asked.resource, asked.subresource))
        && {
            let mut names = rule.get("resourceNames").items().peekable();
            names.peek().is_none() || names.any(|name| name.as_str() == Some(asked.name))
        }
}

fn any(list: Ref<'_>, matches: impl Fn(&str) -> bool) -> bool {
    list.items().any(|item| item.as_str().is_some_and(&matches))
}

/// `rule` is "*", "pods", "pods/log" or "*/scale".
fn resource_allows(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.split_once('/').is_some_and(|(r, s)| s == subresource && (r == "*" || r == resource))
}

fn url_covers(owner: &str, path: &str) -> bool {
    owner == path || owner.ends_with('*') && path.starts_with(owner.trim_end_matches('*'))
}

impl Rule {
    /// Rules with one verb, one resource (or path) and at most one name each, which together say the same.
    fn breakdown(&self) -> Vec<Rule> {
        let one = |s: &String| vec![s.clone()];
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part =
                        Rule { api_groups: one(group), resources: one(resource), verbs: one(verb), ..Rule::default() };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    let named = |name| Rule { resource_names: one(name), ..part.clone() };
                    parts.extend(self.resource_names.iter().map(named));
                }
            }
        }
        for url in &self.non_resource_urls {
            let of = |verb| Rule { non_resource_urls: one(url), verbs: one(verb), ..Rule::default() };
            parts.extend(self.verbs.iter().map(of));
        }
        parts
    }

    /// `part` has at most one of each.
    fn covers(&self, part: &Rule) -> bool {
        let has = |set: &[String], one: &str| set.iter().any(|s| s == one);
        let all = |set: &[String], wanted: &[String]| wanted.iter().all(|w| has(set, w));
        let resource = |wanted: &String| {
            has(&self.resources, wanted)
                || wanted.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
        };
        (has(&self.verbs, "*") || all(&self.verbs, &part.verbs))
            && (has(&self.api_groups, "*") || all(&self.api_groups, &part.api_groups))
            && (has(&self.resources, "*") || part.resources.iter().all(resource))
            && (self.resource_names.is_empty()
                || !part.resource_names.is_empty() && all(&self.resource_names, &part.resource_names))
            && part.non_resource_urls.iter().all(|url| self.non_resource_urls.iter().any(|own| url_covers(own, url)))
    }

    /// As upstream prints it in escalation errors: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
    pub fn compact(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| {
            let list: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
            format!("{name}:[{}]", list.join(" "))
        })
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// What of `wanted` the `owned` rules do not allow, in atoms.
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::breakdown);
    parts.filter(|part| !owned.iter().any(|rule| rule.covers(part))).collect()
}

/// Joins rules that differ in their verbs only (kubernetes/pkg/registry/rbac/validation/policy_compact.go).
pub fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for rule in rules {
        let is_simple = rule.api_groups.len() == 1 && rule.resources.len() == 1 && rule.resource_names.len() <= 1;
        let same = |other: &&mut Rule| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
        };
        match joined.iter_mut().find(same).filter(|_| is_simple) {
            Some(other) => other.verbs.extend(rule.verbs),
            None => joined.push(rule),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;

    fn list(text: &str) -> Vec<String> {
        text.split(',').filter(|s| !s.is_empty()).map(|s| if s == "core" { "" } else { s }.into()).collect()
    }
    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            ..Rule::default()
        }
    }

    fn check(rule: &Rule, verb: &str, group: &str, resource: &str, name: &str, want: bool) {
        let doc = Doc::encode(&rule).unwrap();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = Attributes { verb, group, resource, subresource, name, is_resource: true, ..Attributes::default() };
        assert_eq!(allows(doc.root(), &asked), want, "{rule:?} {asked:?}");
    }

    #[test]
    fn resources() {
        let all = rule("*", "*", "*", "");
        check(&all, "get", "apps", "deployments/scale", "x", true);
        let pods = rule("get,list", "core", "pods", "");
        check(&pods, "get", "", "pods", "x", true);
        check(&pods, "get", "", "pods/log", "x", false);
        check(&pods, "watch", "", "pods", "", false);
        check(&pods, "get", "apps", "pods", "x", false);
        let scale = rule("get", "*", "*/scale", "");
        check(&scale, "get", "apps", "deployments/scale", "x", true);
        check(&scale, "get", "apps", "deployments", "x", false);
        let one = rule("get", "core", "secrets", "a,b");
        check(&one, "get", "", "secrets", "a", true);
        check(&one, "get", "", "secrets", "c", false);
        check(&one, "get", "", "secrets", "", false);
    }

    #[test]
    fn paths() {
        let rule = Rule { verbs: list("get"), non_resource_urls: list("/healthz,/api/*"), ..Rule::default() };
        let doc = Doc::encode(&rule).unwrap();
        for (path, want) in [("/healthz", true), ("/healthz/x", false), ("/api/v1", true), ("/apis", false)] {
            let asked = Attributes { verb: "get", path, ..Attributes::default() };
            assert_eq!(allows(doc.root(), &asked), want, "{path}");
        }
    }

    #[test]
    fn covering() {
        let owned = [rule("get,list", "core", "pods", ""), rule("*", "apps", "*/scale", "")];
        assert!(missing(&owned, &[rule("get", "core", "pods", "x")]).is_empty());
        assert!(missing(&owned, &[rule("update", "apps", "deployments/scale", "")]).is_empty());
        assert_eq!(missing(&owned, &[rule("get,watch", "core", "pods", "")]), [rule("watch", "core", "pods", "")]);
        let named = [rule("get", "core", "pods", "a")];
        assert_eq!(missing(&named, &[rule("get", "core", "pods", "")]).len(), 1);
        let left = compact(missing(&[], &[rule("list,get", "core", "pods,secrets", "")]));
        let texts: Vec<String> = left.iter().map(Rule::compact).collect();
        assert_eq!(
            texts,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "get"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["list" "get"]}"#
            ]
        );
    }
}
