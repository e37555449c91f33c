//! The params of a binding (policy/generic/policy_dispatcher.go, CollectParams).
use super::definitions::{Binding, Policy};
use crate::server::Api;
use mote_schema::selector::LabelSelector;
use serde_json::Value;

/// A policy is evaluated once for each; None is a policy without params. Errors are configuration errors.
pub(super) fn collect(
    api: &Api,
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let wanted = policy.object.root().at("spec.paramKind");
    if wanted.is_empty() {
        return Ok(vec![None]);
    }
    let (api_version, kind) = (wanted.get("apiVersion").str(), wanted.get("kind").str());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let catalog = api.catalog();
    let found = catalog.by_kind(group, version, kind).filter(|kind| !kind.virtual_kind);
    let Some(found) = found else {
        return Err(format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"));
    };
    let reference = binding.object.root().at("spec.paramRef");
    if reference.is_empty() {
        return Ok(vec![None]);
    }
    let mut place = reference.get("namespace").str();
    if found.namespaced {
        if place.is_empty() {
            place = namespace;
        }
        if place.is_empty() {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
    } else if !place.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
    }
    let name = reference.get("name").str();
    let params: Vec<Option<Value>> = if !name.is_empty() {
        api.lookup(group, version, &found.plural, place, name)
            .map(|object| Some(object.to_value()))
            .into_iter()
            .collect()
    } else {
        let selector = LabelSelector::from_ref(reference.get("selector"))?;
        let Some(selector) = selector else { return Err("one of name or selector must be provided".into()) };
        let all = api.list_all(group, version, &found.plural);
        let inside = all.iter().filter(|object| !found.namespaced || object.namespace() == place);
        inside
            .filter(|object| selector.matches(object.meta().get("labels")))
            .map(|object| Some(object.to_value()))
            .collect()
    };
    if params.is_empty() && reference.get("parameterNotFoundAction").str() == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(params)
}
