//! What configMap, secret, downwardAPI and projected volumes hold. Texts of errors: upstream's pkg/volume/{configmap,
//! secret,downwardapi,projected}. Reads from memory; the one thing that has to be asked for is a token.
use super::{
    token::{self, Token},
    writer::{File, Files},
};
use crate::spec::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume};
use crate::{env::fields, pod::Pod};
use mote_schema::{Object, Ref, Status, selector::LabelSelector};

/// Where the parts come from; the tests have a source of their own.
pub struct Sources<'a> {
    pub get: &'a (dyn Fn(&str, &str) -> Result<Object, Status> + Sync),
    /// ClusterTrustBundles.
    pub bundles: &'a (dyn Fn() -> Vec<Object> + Sync),
    pub allocatable: &'a [(String, String)],
}

/// A service account token that a volume holds, and where.
pub struct Wanted<'a> {
    pub volume: &'a str,
    pub projection: &'a ServiceAccountTokenProjection,
}

const DEFAULT_MODE: i32 = 0o644;

/// None for a volume of another kind. `tokens` are those of `wanted`.
pub fn files(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources<'_>,
    tokens: &[(String, Result<Token, String>)],
) -> Option<Result<Files, String>> {
    let mut files = Files::new();
    let done = if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        keys(sources, "configmaps", &source.name, &source.items, mode, source.optional, &mut files)
    } else if let Some(source) = &volume.secret {
        let (name, mode) = (source.secret_name.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE));
        keys(sources, "secrets", name.unwrap_or_default(), &source.items, mode, source.optional, &mut files)
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(pod, sources, source.items.as_deref().unwrap_or_default(), mode, &mut files)
    } else if let Some(source) = &volume.projected {
        projected(pod, &volume.name, source, sources, tokens, &mut files)
    } else {
        return None;
    };
    Some(done.map(|()| files))
}

/// Every token the pod's volumes hold.
pub fn wanted(pod: &Pod) -> impl Iterator<Item = Wanted<'_>> {
    let volumes = pod.spec.volumes.iter().flatten();
    volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
        tokens.map(|projection| Wanted { volume: &volume.name, projection })
    })
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: mode as u32, owner: None }
}

fn keys(
    sources: &Sources<'_>,
    plural: &str,
    name: &str,
    items: &Option<Vec<KeyToPath>>,
    default_mode: i32,
    optional: Option<bool>,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let object = match (sources.get)(plural, name) {
        Ok(object) => Some(object),
        Err(status) if status.is_not_found() && optional => None,
        Err(status) => return Err(status.message),
    };
    let root = object.as_ref().map_or(Ref::absent(), Object::root);
    let is_secret = plural == "secrets";
    let bytes = |value: Ref<'_>| crate::base64_decode(value.str()).unwrap_or_default();
    let plain = |value: Ref<'_>| if is_secret { bytes(value) } else { value.str().as_bytes().to_vec() };
    let Some(items) = items.as_ref().filter(|items| !items.is_empty()) else {
        for (key, value) in root.get("data").entries() {
            files.insert(key.into(), file(plain(value), default_mode));
        }
        for (key, value) in root.get("binaryData").entries().filter(|_| !is_secret) {
            files.insert(key.into(), file(bytes(value), default_mode));
        }
        return Ok(());
    };
    for item in items {
        let (text, binary) = (root.get("data").get(&item.key), root.get("binaryData").get(&item.key));
        let data = if text.exists() {
            plain(text)
        } else if binary.exists() && !is_secret {
            bytes(binary)
        } else if optional {
            continue;
        } else if is_secret {
            return Err(format!("references non-existent secret key: {}", item.key));
        } else {
            return Err(format!("configmap references non-existent config key: {}", item.key));
        };
        files.insert(item.path.clone(), file(data, item.mode.unwrap_or(default_mode)));
    }
    Ok(())
}

fn downward(
    pod: &Pod,
    sources: &Sources<'_>,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    let mut errors = Vec::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => fields::metadata(pod, &selector.field_path),
            (_, Some(selector)) => fields::resource(pod, None, sources.allocatable, selector),
            _ => Ok(String::new()),
        };
        match text {
            Ok(text) => drop(files.insert(item.path.clone(), file(text.into(), item.mode.unwrap_or(default_mode)))),
            Err(e) => errors.push(e),
        }
    }
    together(errors)
}

fn projected(
    pod: &Pod,
    name: &str,
    volume: &ProjectedVolumeSource,
    sources: &Sources<'_>,
    tokens: &[(String, Result<Token, String>)],
    files: &mut Files,
) -> Result<(), String> {
    let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
    // What proves an identity is only for the pod's own user or group.
    let (owner, group) = (fs_user(pod), pod.spec.security_context.as_ref().and_then(|context| context.fs_group));
    let own = |data: Vec<u8>| {
        let mode = if owner.is_some() || group.is_some() { 0o600 } else { mode };
        File { data, mode: mode as u32, owner }
    };
    let mut errors = Vec::new();
    for source in volume.sources.iter().flatten() {
        let part = if let Some(secret) = &source.secret {
            keys(sources, "secrets", &secret.name, &secret.items, mode, secret.optional, files)
        } else if let Some(map) = &source.config_map {
            keys(sources, "configmaps", &map.name, &map.items, mode, map.optional, files)
        } else if let Some(downward_api) = &source.downward_api {
            downward(pod, sources, downward_api.items.as_deref().unwrap_or_default(), mode, files)
        } else if let Some(projection) = &source.service_account_token {
            let id = token::id(name, &projection.path);
            match tokens.iter().find(|(known, _)| *known == id) {
                Some((_, Ok(token))) => {
                    drop(files.insert(projection.path.clone(), own(token.text.clone().into())));
                    Ok(())
                }
                Some((_, Err(e))) => Err(e.clone()),
                None => Err("failed to fetch token: it was not asked for".into()),
            }
        } else if let Some(bundle) = &source.cluster_trust_bundle {
            let selector = bundle.label_selector.clone().map_or(Ok(None), |selector| selector.0);
            let optional = bundle.optional == Some(true);
            selector
                .and_then(|selector| {
                    let by = (bundle.name.as_deref(), bundle.signer_name.as_deref(), selector.as_ref());
                    trust_anchors((sources.bundles)(), by, optional)
                })
                .map(|anchors| drop(files.insert(bundle.path.clone(), own(anchors))))
        } else if source.pod_certificate.is_some() {
            Err("pod certificates are not supported by this node".into())
        } else {
            Ok(())
        };
        errors.extend(part.err());
    }
    together(errors)
}

/// The certificates of one bundle, or of all of a signer that the selector takes; each once.
fn trust_anchors(
    bundles: Vec<Object>,
    (name, signer, selector): (Option<&str>, Option<&str>, Option<&LabelSelector>),
    optional: bool,
) -> Result<Vec<u8>, String> {
    let chosen = bundles.iter().filter(|bundle| match (name, signer) {
        (Some(name), _) => bundle.name() == name,
        // Without a selector there is nothing that it could match.
        (_, Some(signer)) => {
            bundle.root().at("spec.signerName").str() == signer
                && selector.is_some_and(|selector| selector.matches(bundle.meta().get("labels")))
        }
        _ => false,
    });
    let mut blocks = std::collections::BTreeSet::new();
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    for bundle in chosen {
        let text = bundle.root().at("spec.trustBundle").str();
        blocks.extend(text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{}\n", block.trim_end())));
    }
    match (blocks.is_empty() && !optional, name, signer) {
        (false, ..) => Ok(blocks.into_iter().collect::<String>().into_bytes()),
        (true, Some(name), _) => Err(format!("clustertrustbundle \"{name}\" not found")),
        (true, _, Some(signer)) => {
            Err(format!("combination of signerName ({signer}) and labelSelector matched zero ClusterTrustBundles"))
        }
        (true, ..) => Err("ClusterTrustBundle projection requires either name or signerName to be set".into()),
    }
}

/// The user all containers run as, if it is one (volumeutil.FsUserFrom upstream).
fn fs_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = pod
        .containers()
        .map(|(_, container)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    if users.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

/// Go's aggregate of errors.
fn together(mut errors: Vec<String>) -> Result<(), String> {
    errors.dedup();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use mote_schema::Doc;
    use mote_schema::{Value, json};

    /// What the volume holds: path to "mode text".
    fn check(volume: Value, spec: Value, expected: Result<Value, &str>) {
        let mut spec = spec;
        spec["volumes"] = json!([volume]);
        spec["containers"] = json!([{"name": "a", "resources": {"limits": {"cpu": "2"}}}]);
        let mut pod = fixture::pod(spec);
        pod.labels = [("app".to_owned(), "x".to_owned())].into();
        let object = |value: Value| Object { doc: Doc::encode(&value).unwrap(), ..pod.object.clone() };
        let get = |plural: &str, name: &str| match (plural, name) {
            ("configmaps", "c") => Ok(object(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Aw=="}}))),
            ("secrets", "s") => Ok(object(json!({"data": {"k": "aGk="}}))),
            _ => Err(Status::not_found("", plural.trim_end_matches('s'), name)),
        };
        let bundle = |name: &str, text: &str| {
            object(json!({"metadata": {"name": name, "labels": {"l": "1"}},
                "spec": {"signerName": "x/y", "trustBundle": text}}))
        };
        let (one, two) = ("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "junk");
        let bundles = || vec![bundle("one", one), bundle("two", &format!("{two}{one}"))];
        let token = Token { text: "t".into(), issued_s: 0, ttl_s: 3607 };
        let tokens = [(token::id("v", "token"), Ok(token))];
        let sources = Sources { get: &get, bundles: &bundles, allocatable: &[] };
        let volume = &pod.spec.volumes.as_ref().unwrap()[0];
        let made = files(&pod, volume, &sources, &tokens).unwrap().map(|files| {
            let line = |file: File| format!("{:o} {}", file.mode, String::from_utf8(file.data).unwrap());
            files.into_iter().map(|(path, file)| (path, Value::from(line(file)))).collect()
        });
        assert_eq!(made, expected.map_err(str::to_owned));
    }

    #[test]
    fn config_maps_and_secrets() {
        let none = || json!({});
        check(
            json!({"name": "v", "configMap": {"name": "c"}}),
            none(),
            Ok(json!({"a": "644 1", "b": "644 2", "c": "644 \u{3}"})),
        );
        let items = json!([{"key": "a", "path": "x/y", "mode": 0o400}]);
        check(
            json!({"name": "v", "configMap": {"name": "c", "items": items, "defaultMode": 0o600}}),
            none(),
            Ok(json!({"x/y": "400 1"})),
        );
        let items = json!([{"key": "q", "path": "q"}]);
        check(
            json!({"name": "v", "configMap": {"name": "c", "items": items}}),
            none(),
            Err("configmap references non-existent config key: q"),
        );
        check(
            json!({"name": "v", "secret": {"secretName": "s", "items": items}}),
            none(),
            Err("references non-existent secret key: q"),
        );
        check(
            json!({"name": "v", "secret": {"secretName": "s", "items": items, "optional": true}}),
            none(),
            Ok(none()),
        );
        check(json!({"name": "v", "secret": {"secretName": "s"}}), none(), Ok(json!({"k": "644 hi"})));
        check(json!({"name": "v", "secret": {"secretName": "n"}}), none(), Err("secret \"n\" not found"));
        check(json!({"name": "v", "configMap": {"name": "n", "optional": true}}), none(), Ok(none()));
    }

    #[test]
    fn projections_come_together() {
        let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "mode": 0o444, "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu"}}]);
        let sources = json!([{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "c", "items":
            [{"key": "a", "path": "ca.crt"}]}}, {"downwardAPI": {"items": items}}]);
        let volume = || json!({"name": "v", "projected": {"sources": sources, "defaultMode": 0o644}});
        let rest = json!({"token": "644 t", "ca.crt": "644 1", "labels": "644 app=\"x\"", "cpu": "444 2"});
        check(volume(), json!({}), Ok(rest.clone()));
        let mut own = rest;
        own["token"] = json!("600 t");
        check(volume(), json!({"securityContext": {"fsGroup": 7}}), Ok(own.clone()));
        check(volume(), json!({"securityContext": {"runAsUser": 7}}), Ok(own));
        let sources = json!([{"secret": {"name": "n"}}, {"configMap": {"name": "n"}}]);
        check(
            json!({"name": "v", "projected": {"sources": sources}}),
            json!({}),
            Err("[secret \"n\" not found, configmap \"n\" not found]"),
        );
    }

    #[test]
    fn trust_bundles() {
        let pem = "644 -----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n";
        let volume = |bundle: Value| json!({"name": "v", "projected": {"sources": [{"clusterTrustBundle": bundle}]}});
        check(volume(json!({"name": "two", "path": "p"})), json!({}), Ok(json!({"p": pem})));
        check(
            volume(json!({"signerName": "x/y", "labelSelector": {"matchLabels": {"l": "1"}}, "path": "p"})),
            json!({}),
            Ok(json!({"p": pem})),
        );
        check(volume(json!({"name": "n", "path": "p", "optional": true})), json!({}), Ok(json!({"p": "644 "})));
        check(volume(json!({"name": "n", "path": "p"})), json!({}), Err("clustertrustbundle \"n\" not found"));
    }
}
