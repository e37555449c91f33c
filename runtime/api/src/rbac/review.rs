//! The review kinds of authorization.k8s.io and SelfSubjectReview: a question in, its answer out
//! (kubernetes/pkg/registry/authorization). Nothing is stored.
use super::{Attributes, Authorizer, Decision, Rule, selector};
use crate::http::User;
use mote_schema::{Cause, Status};
use mote_schema::{Value, json};
use serde::Deserialize;
use std::collections::BTreeMap;

const AUTHORIZATION: &str = "authorization.k8s.io";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    namespace: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

/// Answers a create of `kind`; `namespace` is the path's. None for a kind that is not a review of this group.
pub fn review(
    authorizer: &Authorizer,
    user: &User,
    kind: &str,
    namespace: &str,
    mut object: Value,
) -> Option<Result<Value, Status>> {
    let spec = object.get("spec").cloned().unwrap_or(Value::Null);
    let spec: Spec = if spec.is_null() {
        Spec::default()
    } else {
        match spec.decode::<Spec>() {
            Ok(spec) => spec,
            Err(error) => return Some(Err(Status::bad_request(error.to_string()))),
        }
    };
    let status = match kind {
        "SubjectAccessReview" => validate(&object, &spec, true).map(|()| {
            let subject = subject(&spec);
            access(authorizer, &subject, &spec, &object)
        }),
        "SelfSubjectAccessReview" => validate(&object, &spec, false).map(|()| access(authorizer, user, &spec, &object)),
        "LocalSubjectAccessReview" => local(&object, &spec, namespace).map(|()| {
            let subject = subject(&spec);
            access(authorizer, &subject, &spec, &object)
        }),
        "SelfSubjectRulesReview" => {
            object["spec"] = json!({});
            rules(authorizer, user, &spec.namespace)
        }
        "SelfSubjectReview" => {
            object["metadata"] = json!({"creationTimestamp": crate::clock::timestamp()});
            Ok(json!({"userInfo": user_info(user)}))
        }
        _ => return None,
    };
    Some(status.map(|status| {
        object["status"] = status;
        object
    }))
}

fn subject(spec: &Spec) -> User {
    User { name: spec.user.clone(), uid: spec.uid.clone(), groups: spec.groups.clone(), extra: spec.extra.clone() }
}

fn access(authorizer: &Authorizer, user: &User, spec: &Spec, object: &Value) -> Value {
    let (fields, error) = selector::read(&object["spec"]["resourceAttributes"]);
    let asked = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(r), _) => Attributes {
            verb: &r.verb,
            group: &r.group,
            version: if r.version.is_empty() { "*" } else { &r.version },
            resource: &r.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
            name: &r.name,
            path: "",
            fields: &fields,
            is_resource: true,
        },
        (None, Some(n)) => Attributes { verb: &n.verb, path: &n.path, ..Attributes::default() },
        (None, None) => Attributes::default(),
    };
    let Decision { allowed, reason } = authorizer.decide(user, &asked);
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    if !error.is_empty() {
        status["evaluationError"] = error.into();
    }
    status
}

/// kubernetes/pkg/apis/authorization/validation.
fn validate(object: &Value, spec: &Spec, names_subject: bool) -> Result<(), Status> {
    let causes = causes(object, spec, names_subject, "must be empty");
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(AUTHORIZATION, "", "", causes)) }
}

fn causes(object: &Value, spec: &Spec, names_subject: bool, metadata: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let given = |field: &str| object["spec"].get(field).cloned().unwrap_or(Value::Null);
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => causes.push(Cause::invalid(
            "spec.nonResourceAttributes",
            &given("nonResourceAttributes"),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if names_subject && spec.user.is_empty() && spec.groups.is_empty() {
        let empty = Value::from("");
        causes.push(Cause::invalid("spec.user", &empty, "at least one of user or group must be specified"));
    }
    causes.extend(selector::causes(&object["spec"]["resourceAttributes"]));
    let is_local = metadata != "must be empty";
    let filled = object["metadata"].as_object().is_some_and(|fields| {
        fields
            .iter()
            .any(|(name, value)| !value.is_null() && name != "managedFields" && !(is_local && name == "namespace"))
    });
    if filled {
        causes.push(Cause::invalid("metadata", &object["metadata"], metadata));
    }
    causes
}

fn local(object: &Value, spec: &Spec, namespace: &str) -> Result<(), Status> {
    let mut causes = causes(object, spec, true, "must be empty except for namespace");
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(namespace);
    if let Some(asked) = spec.resource_attributes.as_ref().map(|r| &r.namespace).filter(|n| *n != own) {
        let asked = Value::String(asked.clone().into());
        causes.push(Cause::invalid("spec.resourceAttributes.namespace", &asked, "must match metadata.namespace"));
    }
    if spec.non_resource_attributes.is_some() {
        let given = &object["spec"]["nonResourceAttributes"];
        causes.push(Cause::invalid("spec.nonResourceAttributes", given, "disallowed on this kind of request"));
    }
    if !causes.is_empty() {
        return Err(Status::invalid(AUTHORIZATION, "", "", causes));
    }
    if own != namespace {
        let message = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Status::bad_request(message));
    }
    Ok(())
}

fn rules(authorizer: &Authorizer, user: &User, namespace: &str) -> Result<Value, Status> {
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, mut errors) = authorizer.rules_for(user, namespace);
    let untold = authorizer.untold(user);
    if !untold.is_empty() {
        errors = if errors.is_empty() { untold.into() } else { format!("[{untold}, {errors}]") };
    }
    let (mut resource, mut non_resource) = (Vec::new(), Vec::new());
    for Rule { api_groups, non_resource_urls, resource_names, resources, verbs } in rules {
        if !resources.is_empty() {
            let mut rule = json!({"verbs": verbs, "apiGroups": api_groups, "resources": resources});
            if !resource_names.is_empty() {
                rule["resourceNames"] = json!(resource_names);
            }
            resource.push(rule);
        }
        if !non_resource_urls.is_empty() {
            non_resource.push(json!({"verbs": verbs, "nonResourceURLs": non_resource_urls}));
        }
    }
    let mut status =
        json!({"resourceRules": resource, "nonResourceRules": non_resource, "incomplete": !untold.is_empty()});
    if !errors.is_empty() {
        status["evaluationError"] = errors.into();
    }
    Ok(status)
}

/// `authentication.k8s.io/v1 UserInfo`
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::tests::authorizer;

    fn ask(kind: &str, namespace: &str, object: Value) -> Result<Value, String> {
        let user = User::new("bob", &["system:authenticated"]);
        let answer = review(&authorizer(), &user, kind, namespace, object).unwrap();
        answer.map(|object| object["status"].clone()).map_err(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn access_reviews() {
        let pods = json!({"namespace": "dev", "verb": "get", "resource": "pods"});
        let asked = json!({"spec": {"resourceAttributes": pods}});
        let status = ask("SelfSubjectAccessReview", "", asked).unwrap();
        assert_eq!(status["allowed"], true);
        assert!(status["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"));

        let asked = json!({"spec": {"user": "nobody", "nonResourceAttributes": {"path": "/healthz", "verb": "get"}}});
        assert_eq!(ask("SubjectAccessReview", "", asked).unwrap(), json!({"allowed": false}));

        let asked = json!({"spec": {"groups": ["system:authenticated"], "resourceAttributes": pods}});
        assert_eq!(ask("LocalSubjectAccessReview", "dev", asked.clone()).unwrap()["allowed"], true);
        assert_eq!(
            ask("LocalSubjectAccessReview", "ops", asked).unwrap_err(),
            "422 .authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: \"dev\": \
             must match metadata.namespace"
        );
        assert_eq!(
            ask("SubjectAccessReview", "", json!({"spec": {}})).unwrap_err(),
            "422 .authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of \
             nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least \
             one of user or group must be specified]"
        );
    }

    #[test]
    fn rules_reviews() {
        let status = ask("SelfSubjectRulesReview", "", json!({"spec": {"namespace": "dev"}})).unwrap();
        assert_eq!(
            status["resourceRules"],
            json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])
        );
        assert_eq!(status["nonResourceRules"], json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]));
        assert_eq!(ask("SelfSubjectRulesReview", "", json!({})).unwrap_err(), "400 no namespace on request");
    }

    #[test]
    fn self_review() {
        let status = ask("SelfSubjectReview", "", json!({})).unwrap();
        assert_eq!(status, json!({"userInfo": {"username": "bob", "groups": ["system:authenticated"]}}));
    }

    #[test]
    fn other_kinds_are_not_answered() {
        assert!(review(&authorizer(), &User::default(), "Pod", "", json!({})).is_none());
    }
}
