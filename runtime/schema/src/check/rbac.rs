//! Roles and bindings (pkg/apis/rbac/validation).
use super::{
    at::{At, Errors},
    meta,
};
use crate::validate as format;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(new: &At<'_>, namespaced: bool, errors: &mut Errors) {
    for rule in new.get("rules").items() {
        if rule.get("verbs").is_empty() {
            errors.required(&rule.get("verbs"), "verbs must contain at least one value");
        }
        let (urls, groups, resources) = (rule.get("nonResourceURLs"), rule.get("apiGroups"), rule.get("resources"));
        if !urls.is_empty() {
            if namespaced {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            if !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty() {
                errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if groups.is_empty() {
            errors.required(&groups, "resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            errors.required(&resources, "resource rules must supply at least one resource");
        }
    }
    let aggregation = new.get("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.get("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for selector in selectors.items() {
            let before = errors.0.len();
            meta::label_selector(&selector, errors);
            // Then it cannot be made a selector either.
            if errors.0.len() > before {
                errors.0.push(crate::Cause::invalid(&*selector.path, &crate::Value::Null, "invalid label selector."));
            }
        }
    }
}

pub(super) fn binding(new: &At<'_>, old: Option<&At<'_>>, namespaced: bool, errors: &mut Errors) {
    let role = new.get("roleRef");
    if role.get("apiGroup").str() != GROUP {
        errors.unsupported(&role.get("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.get("kind").str()) {
        errors.unsupported(&role.get("kind"), kinds);
    }
    let name = role.get("name");
    match name.str() {
        "" => errors.required(&name, ""),
        text => errors.each(&name, format::path_segment_name(text)),
    }
    for subject in new.get("subjects").items() {
        let (kind, name, group) = (subject.get("kind"), subject.get("name"), subject.get("apiGroup"));
        if name.str().is_empty() {
            errors.required(&name, "");
        }
        match kind.str() {
            "ServiceAccount" => {
                if !name.str().is_empty() {
                    errors.each(&name, format::dns1123_subdomain(name.str()));
                }
                if !group.str().is_empty() {
                    errors.unsupported(&group, &[""]);
                }
                if !namespaced && subject.get("namespace").str().is_empty() {
                    errors.required(&subject.get("namespace"), "");
                }
            }
            "User" | "Group" if group.str() != GROUP => errors.unsupported(&group, &[GROUP]),
            "User" | "Group" => {}
            _ => errors.unsupported(&kind, &["ServiceAccount", "User", "Group"]),
        }
    }
    if old.is_some_and(|o| o.peek("roleRef") != role.value) {
        errors.invalid(&role, "cannot change roleRef");
    }
}
