//! Service account tokens in volumes: asked for once, then read back from the volume until most of their time is over,
//! also across restarts of this process. Rules: upstream's pkg/kubelet/token/token_manager.go.
use crate::pod::Pod;
use crate::spec::ServiceAccountTokenProjection;
use mote_api::Client;
use mote_schema::{Value, json};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Unix time.
    pub issued_s: i64,
    /// As the pod asked; the token itself may be good for longer.
    pub ttl_s: i64,
}

const DEFAULT_TTL_S: i64 = 3600;
/// A token is never used for longer.
const MAX_AGE_S: i64 = 24 * 3600;
/// What runs on this clock must not be older than what another clock issued.
const SKEW_S: i64 = 60;

/// Names a token within its pod.
pub fn id(volume: &str, path: &str) -> String {
    format!("{volume}/{path}")
}

impl Token {
    /// What the volume holds already, unless it is no token.
    pub fn read(text: String, projection: &ServiceAccountTokenProjection) -> Option<Token> {
        let issued_s = claims(&text)?["iat"].as_i64()?;
        Some(Token { text, issued_s, ttl_s: ttl(projection) })
    }

    /// How long it may stay. None: a new one is due, also when the clock has gone back behind its issue.
    pub fn fresh_for(&self, now_s: i64) -> Option<Duration> {
        let due = self.issued_s + (self.ttl_s * 4 / 5).min(MAX_AGE_S);
        if now_s + SKEW_S < self.issued_s || now_s >= due {
            return None;
        }
        Some(Duration::from_secs((due - now_s) as u64))
    }
}

fn ttl(projection: &ServiceAccountTokenProjection) -> i64 {
    projection.expiration_seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_TTL_S)
}

/// The middle part of a JWT, unverified: this process wrote it.
fn claims(jwt: &str) -> Option<Value> {
    let middle = jwt.trim().split('.').nth(1)?;
    let mut standard = middle.replace('-', "+").replace('_', "/");
    while standard.len() % 4 != 0 {
        standard.push('=');
    }
    serde_json::from_slice(&crate::base64_decode(&standard)?).ok()
}

pub async fn request(
    client: &Client,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    now_s: i64,
) -> Result<Token, String> {
    let failed = |message: String| format!("failed to fetch token: {message}");
    let kind =
        client.kind("", "v1", "serviceaccounts").ok_or_else(|| failed("service accounts are not served".into()))?;
    let audiences: Vec<&str> = projection.audience.as_deref().filter(|a| !a.is_empty()).into_iter().collect();
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
        "audiences": audiences,
        "expirationSeconds": ttl(projection),
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
    }});
    let account = pod.spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let answer = client.create_sub(&kind, &pod.namespace, account, "token", body).await;
    let answer = answer.map_err(|status| failed(status.message))?;
    let text = answer["status"]["token"].as_str().unwrap_or_default().to_owned();
    if text.is_empty() {
        return Err(failed("the answer holds no token".into()));
    }
    let issued_s = claims(&text).and_then(|claims| claims["iat"].as_i64()).unwrap_or(now_s);
    Ok(Token { text, issued_s, ttl_s: ttl(projection) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_for_most_of_its_time() {
        // {"alg":"x"} . {"iat":1000,"exp":99999,"s":"~~~?"}
        let text = "eyJhbGciOiJ4In0.eyJpYXQiOjEwMDAsImV4cCI6OTk5OTksInMiOiJ-fn4_In0.sig";
        let projection = ServiceAccountTokenProjection { expiration_seconds: Some(3600), ..Default::default() };
        let token = Token::read(text.into(), &projection).unwrap();
        assert_eq!((token.issued_s, token.ttl_s), (1000, 3600));
        for (now, left) in [(1000, Some(2880)), (950, Some(2930)), (900, None), (3879, Some(1)), (3880, None)] {
            assert_eq!(token.fresh_for(now), left.map(Duration::from_secs), "{now}");
        }
        let long = Token { ttl_s: 1_000_000, ..token };
        assert_eq!(long.fresh_for(1000), Some(Duration::from_secs(86_400)));
        assert_eq!(Token::read("rubbish".into(), &projection), None);
    }
}
