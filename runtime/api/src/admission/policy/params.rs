//! The params of a binding (policy/generic/policy_dispatcher.go, CollectParams).
use super::definitions::{Binding, Policy};
use crate::server::Api;
use mote_schema::{Kind, Value, selector::LabelSelector};
use std::sync::Arc;

/// The kind of a policy's params; None when it has none. The error is one of the policy's configuration.
pub(super) fn kind(api: &Api, policy: &Policy) -> Result<Option<Arc<Kind>>, String> {
    let wanted = policy.object.root().at("spec.paramKind");
    if wanted.is_empty() {
        return Ok(None);
    }
    let (api_version, kind) = (wanted.get("apiVersion").str(), wanted.get("kind").str());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match api.catalog().by_kind(group, version, kind).filter(|kind| !kind.virtual_kind) {
        Some(found) => Ok(Some(found.clone())),
        None => Err(format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")),
    }
}

/// A policy is evaluated once for each; None is a policy without params. Errors are configuration errors of the binding.
pub(super) fn collect(
    api: &Api,
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let Some(found) = kind(api, policy)? else { return Ok(vec![None]) };
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
        api.lookup(&found.group, &found.version, &found.plural, place, name)
            .map(|object| Some(object.to_value()))
            .into_iter()
            .collect()
    } else {
        let selector = LabelSelector::from_ref(reference.get("selector"))?;
        let Some(selector) = selector else { return Err("one of name or selector must be provided".into()) };
        let all = api.list_all(&found.group, &found.version, &found.plural);
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
