//! Impersonation: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*` headers, each part allowed by RBAC's
//! `impersonate` verb (apiserver/pkg/endpoints/filters/impersonation/impersonation.go).
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, service_account};
use crate::{
    http::User,
    rbac::{Attributes, Authorizer},
};
use http::{HeaderMap, HeaderName};
use mote_schema::Status;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user whose name the request is done in: `user` when no such header is there. Takes the headers out.
pub fn apply(user: Arc<User>, headers: &mut HeaderMap, authorizer: &Authorizer) -> Result<Arc<User>, Status> {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    if names.is_empty() {
        return Ok(user);
    }
    let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(String::from).collect()
    };
    let name = all(headers, USER).into_iter().next().unwrap_or_default();
    let groups = all(headers, GROUP);
    let uid = all(headers, UID).into_iter().next().unwrap_or_default();
    let mut extra: Vec<(String, Vec<String>)> = Vec::new();
    for header in &names {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.push((key, all(headers, header.as_str())));
        }
    }
    for header in names {
        headers.remove(header);
    }
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(user);
        }
        let mut asked: Vec<String> = groups.iter().map(|g| format!("Group {g:?}")).collect();
        asked.extend(extra.iter().flat_map(|(key, values)| values.iter().map(move |v| format!("extra {key}={v:?}"))));
        asked.extend((!uid.is_empty()).then(|| format!("UID {uid:?}")));
        return Err(Status::bad_request(format!("requested [{}] without impersonating a user", asked.join(" "))));
    }
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb: "impersonate",
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            path: "",
            is_resource: true,
        };
        authorizer.authorize(&user, &attributes)
    };
    let mut new = User { name: name.clone(), uid, groups: groups.clone(), ..User::default() };
    match service_account::split_user_name(&name) {
        Some((namespace, account)) => {
            may("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                new.groups = service_account::groups(namespace);
            }
        }
        None => may("", "users", "", "", &name)?,
    }
    for group in &groups {
        may("", "groups", "", "", group)?;
    }
    const AUTHENTICATION: &str = "authentication.k8s.io";
    for (key, values) in extra {
        for value in &values {
            may(AUTHENTICATION, "userextras", &key, "", value)?;
        }
        new.extra.entry(key).or_default().extend(values);
    }
    if !new.uid.is_empty() {
        may(AUTHENTICATION, "uids", "", "", &new.uid)?;
    }
    if name == ANONYMOUS {
        if !new.in_group(UNAUTHENTICATED) {
            new.groups.push(UNAUTHENTICATED.into());
        }
    } else if !new.in_group(AUTHENTICATED) && !new.in_group(UNAUTHENTICATED) {
        new.groups.push(AUTHENTICATED.into());
    }
    Ok(Arc::new(new))
}
