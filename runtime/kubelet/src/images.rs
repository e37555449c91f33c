//! Images: names, pull policy, credentials from pull secrets, pulling with back-off, and who the image runs as.
//! Reasons, events and messages: upstream's pkg/kubelet/images/image_manager.go.
use crate::{
    backoff::{Backoff, CONTAINER_INITIAL, CONTAINER_MAX, go_duration},
    events::Recorder,
    pod::Pod,
    security::ImageUser,
    state::lock,
};
use async_lock::Semaphore;
use mote_api::Client;
use mote_cri::{
    Error, Runtime,
    v1::{self, AuthConfig, Image, ImageSpec},
};
use mote_schema::Order as _;
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Pulls that may run at once: a small board's network and card are soon full.
const PARALLEL_PULLS: usize = 3;
const MAX_NAME_CHARS: usize = 255;

/// Why a container cannot start: the waiting state's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
    /// When to try again, if that is known.
    pub again: Option<Duration>,
}

pub fn failure(reason: &'static str, message: impl Into<String>) -> Failure {
    Failure { reason, message: message.into(), again: None }
}

pub struct Puller {
    pulls: Semaphore,
    backoff: Mutex<Backoff>,
    last_error: Mutex<HashMap<String, String>>,
}

impl Default for Puller {
    fn default() -> Puller {
        Puller {
            pulls: Semaphore::new(PARALLEL_PULLS),
            backoff: Mutex::new(Backoff::new(CONTAINER_INITIAL, CONTAINER_MAX)),
            last_error: Mutex::default(),
        }
    }
}

pub struct Wanted<'a> {
    pub runtime: &'a Runtime,
    pub client: &'a Client,
    pub recorder: &'a Recorder<'a>,
    pub pod: &'a Pod,
    /// As it was asked for, and its pull policy.
    pub image: &'a str,
    pub policy: Option<&'a str>,
    pub sandbox: &'a v1::PodSandboxConfig,
}

impl Puller {
    /// The image that the runtime has, pulled if the policy says so.
    pub async fn ensure(&self, wanted: &Wanted<'_>) -> Result<Image, Failure> {
        let Wanted { recorder, image: asked, .. } = wanted;
        let name = match with_default_tag(asked) {
            Ok(name) => name,
            Err(e) => {
                let message = format!("Failed to apply default image tag {asked:?}: {e}");
                recorder.warning("InspectFailed", &message);
                return Err(failure("InvalidImageName", message));
            }
        };
        let policy = wanted.policy.unwrap_or("IfNotPresent");
        if policy != "Always" {
            match status(wanted.runtime, &name).await {
                Ok(Some(image)) => {
                    let message =
                        format!("Container image {asked:?} already present on machine and can be accessed by the pod");
                    recorder.normal("Pulled", &message);
                    return Ok(image);
                }
                Ok(None) if policy == "Never" => {
                    let message = format!("Container image {asked:?} is not present with pull policy of Never");
                    recorder.warning("ErrImageNeverPull", &message);
                    return Err(failure("ErrImageNeverPull", message));
                }
                Ok(None) => {}
                Err(e) => {
                    let message = format!("Failed to inspect image \"\": {e}");
                    recorder.warning("InspectFailed", &message);
                    return Err(failure("ImageInspectError", message));
                }
            }
        }
        self.pull(wanted, asked, &name).await
    }

    async fn pull(&self, wanted: &Wanted<'_>, asked: &str, name: &str) -> Result<Image, Failure> {
        let Wanted { runtime, recorder, pod, .. } = wanted;
        let key = format!("{}_{asked}", pod.uid);
        if let Some(left) = lock(&self.backoff).left(&key, Instant::now()) {
            let mut message = format!("Back-off pulling image {asked:?}");
            recorder.normal("BackOff", &message);
            if let Some(last) = lock(&self.last_error).get(&key) {
                message = format!("{message}: {last}");
            }
            return Err(Failure { reason: "ImagePullBackOff", message, again: Some(left) });
        }
        lock(&self.last_error).remove(&key);
        recorder.normal("Pulling", &format!("Pulling image {asked:?}"));
        let waiting = Instant::now();
        let permit = self.pulls.acquire().await;
        let pulling = Instant::now();
        let mut error = None;
        for auth in credentials(wanted.client, pod, name) {
            let request =
                v1::PullImageRequest { image: Some(spec(name)), auth, sandbox_config: Some(wanted.sandbox.clone()) };
            match runtime.pull_image(request).await {
                Ok(_) => {
                    error = None;
                    break;
                }
                Err(e) => error = Some(e),
            }
        }
        drop(permit);
        let found = match error {
            None => status(runtime, name).await,
            Some(e) => Err(e),
        };
        match found {
            Ok(Some(image)) => {
                let (pulled, waited) = (go_duration(pulling.elapsed()), go_duration(waiting.elapsed()));
                recorder.normal(
                    "Pulled",
                    &format!(
                        "Successfully pulled image {asked:?} in {pulled} ({waited} including waiting). Image size: {} bytes.",
                        image.size
                    ),
                );
                lock(&self.backoff).forget(&key);
                Ok(image)
            }
            Ok(None) => Err(self.failed(recorder, &key, asked, "the runtime does not have the image it pulled")),
            Err(e) => Err(self.failed(recorder, &key, asked, &e.to_string())),
        }
    }

    fn failed(&self, recorder: &Recorder<'_>, key: &str, asked: &str, error: &str) -> Failure {
        recorder.warning("Failed", &format!("Failed to pull image {asked:?}: {error}"));
        let again = lock(&self.backoff).fail(key, Instant::now());
        const PREFIXES: [(&str, &str); 2] = [
            ("RegistryUnavailable", "the registry is unavailable"),
            ("SignatureValidationFailed", "the signature validation failed"),
        ];
        let special = PREFIXES.iter().find_map(|(reason, why)| {
            let rest = error.strip_prefix(reason)?;
            Some((*reason, format!("image pull failed for {asked} because {why}{rest}")))
        });
        let (reason, message) = special.unwrap_or(("ErrImagePull", error.to_owned()));
        lock(&self.last_error).insert(key.into(), format!("{reason}: {message}"));
        Failure { reason, message, again: Some(again) }
    }

    /// Drops what is remembered about a pod that is gone.
    pub fn forget(&self, uid: &str, images: impl Iterator<Item = String>) {
        for image in images {
            let key = format!("{uid}_{image}");
            lock(&self.backoff).forget(&key);
            lock(&self.last_error).remove(&key);
        }
    }
}

fn spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.into(), user_specified_image: name.into(), ..Default::default() }
}

pub async fn status(runtime: &Runtime, name: &str) -> Result<Option<Image>, Error> {
    let request = v1::ImageStatusRequest { image: Some(spec(name)), verbose: false };
    Ok(runtime.image_status(request).await?.image.filter(|i| !i.id.is_empty()))
}

pub fn user(image: &Image) -> ImageUser {
    match (&image.uid, image.username.as_str()) {
        (Some(uid), _) => ImageUser { uid: Some(uid.value), name: String::new() },
        (None, "") => ImageUser { uid: Some(0), name: String::new() },
        (None, name) => ImageUser { uid: None, name: name.into() },
    }
}

/// Adds ":latest" to a name without tag and digest; the error is what upstream's parser says.
pub fn with_default_tag(name: &str) -> Result<String, String> {
    let invalid = |why: &str| Err(format!("couldn't parse image name {name:?}: {why}"));
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let last_slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match rest[last_slash..].find(':') {
        Some(colon) => (&rest[..last_slash + colon], Some(&rest[last_slash + colon + 1..])),
        None => (rest, None),
    };
    if path.is_empty() {
        return invalid("invalid reference format");
    }
    if path.len() > MAX_NAME_CHARS {
        return invalid("repository name must not be more than 255 characters");
    }
    let (host, repository) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, path),
    };
    if host.is_some_and(|h| !h.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c))) {
        return invalid("invalid reference format");
    }
    if repository.chars().any(|c| c.is_ascii_uppercase()) {
        let official = host.is_none() && !repository.contains('/');
        let shown = if official { format!("library/{repository}") } else { repository.into() };
        return invalid(&format!("invalid reference format: repository name ({shown}) must be lowercase"));
    }
    let part_ok = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    let tag_ok = |tag: &str| {
        let mut chars = tag.chars();
        tag.len() <= 128
            && chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let digest_ok = |digest: &str| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    };
    if !repository.split('/').all(part_ok) || !tag.is_none_or(tag_ok) || !digest.is_none_or(digest_ok) {
        return invalid("invalid reference format");
    }
    if tag.is_none() && digest.is_none() { Ok(format!("{name}:latest")) } else { Ok(name.to_owned()) }
}

/// Credentials to try in order: those of the pod's pull secrets that name the image's registry, then none.
fn credentials(client: &Client, pod: &Pod, image: &str) -> Vec<Option<AuthConfig>> {
    let mut found = Vec::new();
    let Some(kind) = client.kind("", "v1", "secrets") else { return vec![None] };
    for name in pod.spec.image_pull_secrets.iter().flatten().map(|r| r.name.as_str()) {
        let Ok(secret) = client.get(&kind, &pod.namespace, name) else { continue };
        let data = secret.root().get("data");
        for key in [".dockerconfigjson", ".dockercfg"] {
            let Some(bytes) = crate::base64_decode(data.get(key).str()) else { continue };
            let Ok(config) = serde_json::from_slice::<mote_schema::Value>(&bytes) else { continue };
            found.extend(matching(config.get("auths").unwrap_or(&config), image).into_iter().map(Some));
        }
    }
    if found.is_empty() {
        found.push(None);
    }
    found
}

/// Longest match first, as upstream's keyring gives them.
fn matching(auths: &mote_schema::Value, image: &str) -> Vec<AuthConfig> {
    let first = image.split('/').next().unwrap_or("");
    let qualified = if image.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        image.to_owned()
    } else if image.contains('/') {
        format!("docker.io/{image}")
    } else {
        format!("docker.io/library/{image}")
    };
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for (server, entry) in auths.as_object().into_iter().flatten() {
        let plain = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let plain = plain.trim_end_matches("/v1").trim_end_matches("/v2");
        let plain = if plain == "index.docker.io" { "docker.io" } else { plain };
        let rest = qualified.strip_prefix(plain);
        if !rest.is_some_and(|r| r.is_empty() || r.starts_with(['/', ':', '@'])) {
            continue;
        }
        let text = |key: &str| entry.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
        let (mut username, mut password) = (text("username"), text("password"));
        if let Some(pair) = crate::base64_decode(&text("auth")).and_then(|b| String::from_utf8(b).ok())
            && let Some((user, pass)) = pair.split_once(':')
        {
            (username, password) = (user.into(), pass.trim_end_matches('\0').into());
        }
        found.push((
            plain.len(),
            AuthConfig { username, password, identity_token: text("identitytoken"), ..Default::default() },
        ));
    }
    found.order_by_key(|(len, _)| std::cmp::Reverse(*len));
    found.into_iter().map(|(_, auth)| auth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn names() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (name, want) in [
            ("nginx", Ok("nginx:latest")),
            ("nginx:1", Ok("nginx:1")),
            ("localhost:5000/a/b", Ok("localhost:5000/a/b:latest")),
            (digest.as_str(), Ok(digest.as_str())),
            ("", Err("invalid reference format")),
            ("a b", Err("invalid reference format")),
            ("a:", Err("invalid reference format")),
            ("Nginx", Err("repository name (library/Nginx) must be lowercase")),
            ("a//b", Err("invalid reference format")),
            ("a@sha256:1", Err("invalid reference format")),
        ] {
            match (with_default_tag(name), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.ends_with(want), "{got}"),
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn registry_credentials() {
        let auths = json!({"reg.io": {"auth": "dTpw"}, "reg.io/team": {"username": "t", "password": "q"},
            "https://index.docker.io/v1/": {"username": "d", "password": "x"}});
        let users = |image| matching(&auths, image).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(users("reg.io/team/app:1"), ["t", "u"]);
        assert_eq!(users("reg.io/other"), ["u"]);
        assert_eq!(users("nginx"), ["d"]);
        assert!(users("elsewhere.io/x").is_empty());
    }
}
