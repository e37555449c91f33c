//! Nobody grants what they do not have: the check on writes of roles and bindings
//! (kubernetes/pkg/registry/rbac/{escalation_check.go,validation/rule.go}). Called by admission.
use super::{Attributes, Authorizer, GROUP, Rule, rule};
use crate::{auth, http::User};
use mote_schema::Order as _;
use mote_schema::Status;
use mote_schema::Value;

/// May `user` write this object of a kind of the RBAC group? `old` is None for a create. A write that changes only
/// what the garbage collector needs (finalizers, ownerReferences) is always fine.
pub fn check_write(
    authorizer: &Authorizer,
    user: &User,
    plural: &str,
    namespace: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let untouched = |old: &Value| {
        ["rules", "aggregationRule", "roleRef", "subjects"].iter().all(|field| old.get(field) == new.get(field))
            && ["labels", "annotations"].iter().all(|field| old["metadata"].get(field) == new["metadata"].get(field))
    };
    if user.in_group(auth::MASTERS) || old.is_some_and(untouched) {
        return Ok(());
    }
    match plural {
        "roles" | "clusterroles" => check_role(authorizer, user, plural, namespace, old, new),
        _ => check_binding(authorizer, user, plural, namespace, new),
    }
}

fn check_role(
    authorizer: &Authorizer,
    user: &User,
    plural: &str,
    namespace: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let name = text(&new["metadata"]["name"]);
    let explicit = Attributes {
        verb: "escalate",
        group: GROUP,
        version: "*",
        resource: plural,
        namespace,
        // A create names nothing in its path.
        name: if old.is_some() { name } else { "" },
        is_resource: true,
        ..Attributes::default()
    };
    if authorizer.allows(user, &explicit) {
        return Ok(());
    }
    let forbidden = |detail: &str| Status::forbidden(GROUP, plural, name, detail);
    let rules = new["rules"].as_array().into_iter().flatten();
    let rules: Vec<Rule> = rules.filter_map(|rule| rule.decode().ok()).collect();
    covered(authorizer, user, namespace, &rules).map_err(|detail| forbidden(&detail))?;
    let aggregates = |role: &Value| {
        role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).is_some_and(|s| !s.is_empty())
    };
    if plural == "clusterroles" && (aggregates(new) || old.is_some_and(aggregates)) {
        let star = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() },
            Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() },
        ];
        covered(authorizer, user, namespace, &everything)
            .map_err(|_| forbidden("must have cluster-admin privileges to use the aggregationRule"))?;
    }
    Ok(())
}

fn check_binding(
    authorizer: &Authorizer,
    user: &User,
    plural: &str,
    namespace: &str,
    new: &Value,
) -> Result<(), Status> {
    let name = text(&new["metadata"]["name"]);
    let reference = &new["roleRef"];
    let (kind, role) = (text(&reference["kind"]), text(&reference["name"]));
    let explicit = Attributes {
        verb: "bind",
        group: text(&reference["apiGroup"]),
        version: "*",
        resource: if kind == "Role" { "roles" } else { "clusterroles" },
        namespace,
        name: role,
        is_resource: true,
        ..Attributes::default()
    };
    if matches!(kind, "Role" | "ClusterRole") && authorizer.allows(user, &explicit) {
        return Ok(());
    }
    let rules = authorizer.rules_of(kind, namespace, role)?;
    covered(authorizer, user, namespace, &rules).map_err(|detail| Status::forbidden(GROUP, plural, name, &detail))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Does the user have all of these? The error lists what is missing.
fn covered(authorizer: &Authorizer, user: &User, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let (owned, errors) = authorizer.rules_for(user, namespace);
    let missing = rule::missing(&owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = rule::compact(missing).iter().map(Rule::compact).collect();
    lines.order();
    lines.dedup();
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let mut text = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        lines.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::tests::authorizer;
    use mote_schema::json;

    fn write(user: &str, groups: &[&str], plural: &str, old: Option<&Value>, new: &Value) -> Result<(), String> {
        let namespace = if plural.starts_with("cluster") { "" } else { "dev" };
        check_write(&authorizer(), &User::new(user, groups), plural, namespace, old, new)
            .map_err(|s| format!("{} {}", s.code, s.message))
    }

    #[test]
    fn roles() {
        let role = |rules: Value| json!({"metadata": {"name": "r", "namespace": "dev"}, "rules": rules});
        let scale = role(json!([{"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments/scale"]}]));
        let all = role(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        assert_eq!(write("ann", &[], "roles", None, &scale), Ok(()));
        assert_eq!(write("root", &["system:masters"], "roles", None, &all), Ok(()));
        assert_eq!(
            write("bob", &["g", "h"], "roles", None, &scale).unwrap_err(),
            "403 roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"bob\" (groups=[\"g\" \"h\"]) is attempting to \
             grant RBAC permissions not currently held:\n\
             {APIGroups:[\"apps\"], Resources:[\"deployments/scale\"], Verbs:[\"get\"]}"
        );
        let mut finalized = all.clone();
        finalized["metadata"]["finalizers"] = json!([]);
        assert_eq!(write("bob", &[], "roles", Some(&all), &finalized), Ok(()));
    }

    #[test]
    fn bindings() {
        let bind = |user: &str, kind: &str, role: &str| {
            let binding =
                json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}});
            write(user, &[], "rolebindings", None, &binding)
        };
        assert_eq!(bind("ann", "Role", "writer"), Ok(()));
        assert!(bind("bob", "Role", "writer").unwrap_err().starts_with("403 "));
        assert_eq!(
            bind("bob", "ClusterRole", "gone").unwrap_err(),
            "404 clusterroles.rbac.authorization.k8s.io \"gone\" not found"
        );
    }

    #[test]
    fn aggregation_needs_everything() {
        let role = json!({"metadata": {"name": "c"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        let error = write("ann", &[], "clusterroles", None, &role).unwrap_err();
        assert!(error.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{error}");
    }
}
