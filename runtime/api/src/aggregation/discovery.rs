//! What remote servers serve, beside ours: their part of aggregated discovery is fetched when they become available and
//! with every probe, and laid into our documents when somebody asks. Clients see the groups by their priority
//! (kube-aggregator's handler_apis.go, handler_discovery.go, controllers/openapiv3).
use super::{Remote, Route, local, proxy};
use crate::{http::User, outbound, server::Api};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::FutureExt;
use http::header;
use http_body_util::Full;
use mote_schema::Order as _;
use mote_schema::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Of one server's discovery.
const MAX_BYTES: usize = 2 << 20;
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

pub(super) struct Answer {
    pub status: u16,
    /// "https://10.42.0.7:443"
    pub origin: String,
    body: Vec<u8>,
}

/// GETs as the aggregator itself. The error is upstream's of a failed check.
pub(super) async fn fetch(api: &Api, route: &Route, path: &str, accept: &str) -> Result<Answer, String> {
    let endpoint = route.endpoint(api)?;
    let host = match &endpoint.place {
        outbound::Place::Address(address) => address.to_string(),
        outbound::Place::Name(name, port) => format!("{name}:{port}"),
    };
    let origin = format!("https://{host}");
    let user = User::new("system:kube-aggregator", &["system:masters"]);
    let mut request = http::Request::get(path).header(header::HOST, &host).header(header::ACCEPT, accept);
    if let Some(headers) = request.headers_mut() {
        headers.extend(proxy::identity(&user).into_iter().map(|(name, value)| (Some(name), value)));
    }
    let request = request.body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
    let exchange = async {
        let (response, kept) = api.outbound.send(&endpoint, request).await?;
        let status = response.status().as_u16();
        let body = outbound::read(response.into_body(), MAX_BYTES).await?;
        drop(kept);
        Ok(Answer { status, origin: origin.clone(), body })
    };
    let late = async {
        Timer::after(TIMEOUT).await;
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
    };
    let failed =
        |error: String| format!("failing or missing response from {origin}{path}: Get \"{origin}{path}\": {error}");
    exchange.or(late).await.map_err(failed)
}

async fn json(api: &Api, route: &Route, path: &str, accept: &str) -> Option<Value> {
    let answer = fetch(api, route, path, accept).await.ok().filter(|answer| answer.status == 200)?;
    mote_schema::prune::parse_json(&answer.body).ok().map(|(value, _)| value)
}

/// Fetches what an available server serves under this APIService.
pub(super) async fn refresh(api: &Api, route: &Route) {
    let known = api.aggregation.remote().get(&route.name).cloned();
    let Some(Remote { group, version, .. }) = known else { return };
    let mut found = json(api, route, "/apis", AGGREGATED).await.and_then(|list| {
        let items = list["items"].as_array()?.iter();
        let item = items.into_iter().find(|item| item["metadata"]["name"].as_str().unwrap_or("") == group)?;
        item["versions"].as_array()?.iter().find(|found| found["version"] == *version).cloned()
    });
    if found.is_none() {
        let path = format!("/apis/{group}/{version}");
        let list = json(api, route, &path, "application/json").await;
        found =
            list.map(|list| json!({"version": version, "resources": aggregated(&list["resources"], &group, &version)}));
    }
    let index = json(api, route, "/openapi/v3", "application/json").await;
    let own = format!("apis/{group}/{version}");
    let openapi = index.and_then(|index| index["paths"][&own]["serverRelativeURL"].as_str().map(str::to_owned));
    let swagger = json(api, route, "/openapi/v2", "application/json").await.map(|whole| part(whole, &group, &version));
    api.aggregation.change(|remote| {
        let Some(entry) = remote.get_mut(&route.name) else { return };
        entry.is_stale = found.is_none();
        entry.fetched = Some(Instant::now());
        if let Some(found) = found {
            entry.found = Some(Arc::new(found));
        }
        entry.openapi = openapi;
        entry.swagger = swagger.map(Into::into);
    });
}

/// Of an OpenAPI v2 document the paths of one version, and all definitions, as JSON.
fn part(mut whole: Value, group: &str, version: &str) -> Vec<u8> {
    let own = format!("/apis/{group}/{version}");
    if let Some(paths) = whole["paths"].as_object_mut() {
        paths.retain(|path, _| path.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    }
    let part = json!({"paths": whole["paths"].take(), "definitions": whole["definitions"].take()});
    part.to_string().into_bytes()
}

/// A version's resources in the form of aggregated discovery (ConvertGroupVersionIntoToDiscovery).
fn aggregated(list: &Value, group: &str, version: &str) -> Value {
    let kind = |resource: &Value| {
        let or =
            |field: &str, own: &str| resource[field].as_str().filter(|text| !text.is_empty()).unwrap_or(own).to_owned();
        json!({"group": or("group", group), "version": or("version", version), "kind": resource["kind"]})
    };
    let mut resources: Vec<Value> = Vec::new();
    for resource in list.as_array().into_iter().flatten() {
        let name = resource["name"].as_str().unwrap_or("");
        let copy = |into: &mut Value, fields: &[&str]| {
            for field in fields.iter().filter(|field| !resource[**field].is_null()) {
                into[*field] = resource[*field].clone();
            }
        };
        let Some((parent, sub)) = name.split_once('/') else {
            let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
            let mut entry = json!({"resource": name, "responseKind": kind(resource), "scope": scope,
                "singularResource": resource["singularName"], "verbs": resource["verbs"]});
            copy(&mut entry, &["shortNames", "categories"]);
            resources.push(entry);
            continue;
        };
        let entry = json!({"subresource": sub, "responseKind": kind(resource), "verbs": resource["verbs"]});
        if let Some(parent) = resources.iter_mut().find(|known| known["resource"] == parent) {
            match parent["subresources"].as_array_mut() {
                Some(subresources) => subresources.push(entry),
                None => parent["subresources"] = json!([entry]),
            }
        }
    }
    resources.into()
}

/// Lays the remote groups into a document of ours; `found` is that document with its media type, None where we have none.
pub(crate) fn merge<'m>(api: &Api, path: &str, found: Option<(&'m str, Vec<u8>)>) -> Option<(&'m str, Vec<u8>)> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut remote: Vec<Remote> = api.aggregation.remote().values().cloned().collect();
    // As the client is to see them.
    remote.order_by(|a, b| {
        let of = |r: &Remote| (-r.group_priority, r.group.clone(), -r.version_priority, r.version.clone());
        of(a).cmp(&of(b))
    });
    let change: Box<dyn Fn(&mut Value)> = match parts.as_slice() {
        [] => Box::new(|value| {
            let Some(paths) = value["paths"].as_array_mut() else { return };
            for Remote { group, version, .. } in &remote {
                for path in [format!("/apis/{group}"), format!("/apis/{group}/{version}")] {
                    if !paths.iter().any(|known| *known == path) {
                        paths.push(path.into());
                    }
                }
            }
            paths.order_by(|a, b| a.as_str().cmp(&b.as_str()));
        }),
        ["apis"] => Box::new(|value| {
            let (list, name): (_, fn(&Value) -> &Value) = match value["kind"] == "APIGroupList" {
                true => ("groups", |group| &group["name"]),
                false => ("items", |group| &group["metadata"]["name"]),
            };
            let Some(groups) = value[list].as_array_mut() else { return };
            for one in &remote {
                let entry = if list == "items" { one.aggregated() } else { one.legacy() };
                match groups.iter_mut().find(|group| *name(group) == one.group) {
                    Some(group) => add_version(group, entry),
                    None => {
                        let mut group = match list {
                            "items" => json!({"metadata": {"name": one.group}}),
                            _ => one.group(),
                        };
                        group["versions"] = json!([entry]);
                        let at = groups.iter().position(|group| one.goes_before(name(group).as_str().unwrap_or("")));
                        groups.insert(at.unwrap_or(groups.len()), group);
                    }
                }
            }
        }),
        ["apis", group] if remote.iter().any(|one| one.group == *group) => Box::new(|value| {
            for one in remote.iter().filter(|one| one.group == *group) {
                if !value.is_object() {
                    *value = one.group();
                    value["kind"] = "APIGroup".into();
                    value["apiVersion"] = "v1".into();
                }
                add_version(value, one.legacy());
            }
        }),
        ["openapi", "v3"] => Box::new(|value| {
            for Remote { group, version, openapi, .. } in &remote {
                if let Some(url) = openapi {
                    value["paths"][format!("apis/{group}/{version}")] = json!({"serverRelativeURL": url});
                }
            }
        }),
        ["openapi", "v2"] => Box::new(|value| {
            for bytes in remote.iter().filter_map(|one| one.swagger.as_deref()) {
                let Ok(mut part) = serde_json::from_slice::<Value>(bytes) else { continue };
                for field in ["paths", "definitions"] {
                    let (Some(ours), Value::Object(theirs)) = (value[field].as_object_mut(), part[field].take()) else {
                        continue;
                    };
                    // What has our name is ours.
                    for (name, it) in theirs {
                        ours.entry(name).or_insert(it);
                    }
                }
            }
        }),
        _ => return found,
    };
    let (media, mut value) = match found {
        // Other encodings of a document pass as they are.
        Some((media, bytes)) => match serde_json::from_slice(&bytes) {
            Ok(value) => (media, value),
            Err(_) => return Some((media, bytes)),
        },
        None => ("application/json", Value::Null),
    };
    change(&mut value);
    Some((media, value.to_string().into_bytes()))
}

fn add_version(group: &mut Value, version: Value) {
    match group["versions"].as_array_mut() {
        Some(versions) if versions.iter().any(|known| known["version"] == version["version"]) => {}
        Some(versions) => versions.push(version),
        None => group["versions"] = json!([version]),
    }
}

impl Remote {
    /// As an `apidiscovery.k8s.io` version.
    fn aggregated(&self) -> Value {
        let mut version = match &self.found {
            Some(found) => (**found).clone(),
            None => Value::Object(Map::from_iter([("version".to_owned(), self.version.as_str().into())])),
        };
        version["freshness"] = if self.is_stale { "Stale" } else { "Current" }.into();
        version
    }

    fn legacy(&self) -> Value {
        json!({"groupVersion": format!("{}/{}", self.group, self.version), "version": self.version})
    }

    fn group(&self) -> Value {
        json!({"name": self.group, "versions": [], "preferredVersion": self.legacy()})
    }

    /// Groups of CustomResourceDefinitions have a low priority, built-in ones a high one.
    fn goes_before(&self, group: &str) -> bool {
        let priority = local::group_priority(group).unwrap_or(local::CUSTOM_PRIORITIES.0);
        // Our own registry of groups comes first whatever anybody says.
        group != super::GROUP && (-self.group_priority, self.group.as_str()) < (-priority, group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_put_into_the_newer_form() {
        let list = json!([
            {"name": "nodes", "singularName": "node", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"], "shortNames": ["pm"]},
            {"name": "pods/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]);
        let found = aggregated(&list, "metrics.k8s.io", "v1beta1");
        let kind = json!({"group": "metrics.k8s.io", "version": "v1beta1", "kind": "NodeMetrics"});
        assert_eq!(
            found[0],
            json!({"resource": "nodes", "responseKind": kind, "scope": "Cluster", "singularResource": "node", "verbs": ["get", "list"]})
        );
        assert_eq!(found[1]["shortNames"], json!(["pm"]));
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        assert_eq!(
            found[1]["subresources"],
            json!([{"subresource": "scale", "responseKind": scale, "verbs": ["get"]}])
        );
    }
}
