//! Who asks: client certificates, service-account tokens, or nobody in particular (anonymous); and in whose name
//! (impersonation). What somebody may do is `rbac`'s. Invariant: a credential that is shown and wrong is refused,
//! never taken for anonymous.
pub mod impersonate;
pub mod jwt;
pub(crate) mod reviews;
pub mod service_account;
pub mod x509;

use crate::{Object, clock, http::User};
use http::{HeaderMap, header};
use ring::digest;
use serde_json::{Value, json};
use service_account::Claims;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const AUTHENTICATED: &str = "system:authenticated";
/// May do everything.
pub const MASTERS: &str = "system:masters";
/// The key of `User::extra` that names the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// A live object of the core group by plural, namespace ("" for cluster-scoped kinds) and name.
pub type Lookup = Arc<dyn Fn(&str, &str, &str) -> Option<Object> + Send + Sync>;

/// Tokens whose signature was checked; a token is about 1 kB and checking one costs up to a millisecond on a board.
const CHECKED_TOKENS: usize = 64;
/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

pub struct Authenticator {
    keys: Arc<jwt::Keys>,
    /// `iss` of the tokens; the first is the one issued.
    issuer: String,
    /// What a token for this server may name as audience.
    audiences: Vec<String>,
    lookup: Lookup,
    checked: Mutex<VecDeque<([u8; 32], Arc<Claims>)>>,
}

/// Who a token is for, and which of the wanted audiences it names.
#[derive(Debug)]
pub struct Verified {
    pub user: User,
    pub audiences: Vec<String>,
}

impl Authenticator {
    /// The issuer is also the one audience of this server, as upstream's default.
    pub fn new(keys: Arc<jwt::Keys>, issuer: &str, lookup: Lookup) -> Authenticator {
        Authenticator { keys, issuer: issuer.into(), audiences: vec![issuer.into()], lookup, checked: Mutex::default() }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }
    pub fn keys(&self) -> &jwt::Keys {
        &self.keys
    }
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// `certificate` is the connection's user. Takes the Authorization header out.
    pub fn authenticate(&self, certificate: Option<&Arc<User>>, headers: &mut HeaderMap) -> Result<Arc<User>, String> {
        let authorization = headers.remove(header::AUTHORIZATION);
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let Some(authorization) = authorization else {
            return Ok(Arc::new(User::new(ANONYMOUS, &[UNAUTHENTICATED])));
        };
        let text = authorization.to_str().map_err(|_| "the Authorization header is not text")?.trim();
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            // Other schemes are nobody's, as upstream: the request goes on as anonymous.
            return Ok(Arc::new(User::new(ANONYMOUS, &[UNAUTHENTICATED])));
        }
        let mut user = self.token(token.trim(), &self.audiences)?.user;
        user.groups.push(AUTHENTICATED.into());
        Ok(Arc::new(user))
    }

    /// Checks a bearer token against the audiences wanted: signature, times, and the live objects it is bound to.
    /// The groups do not include system:authenticated.
    pub fn token(&self, token: &str, wanted: &[String]) -> Result<Verified, String> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err("invalid bearer token".into());
        }
        let claims = self.signed_claims(token)?;
        if claims.iss != self.issuer {
            return Err("invalid bearer token".into());
        }
        let named: &[String] = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        let audiences: Vec<String> = named.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_strings(named),
                go_strings(wanted)
            ));
        }
        let user = service_account::validate(&claims, clock::now_seconds(), &*self.lookup)?;
        Ok(Verified { user, audiences })
    }

    fn signed_claims(&self, token: &str) -> Result<Arc<Claims>, String> {
        let mut id = [0; 32];
        id.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Ok(checked) = self.checked.lock()
            && let Some((_, claims)) = checked.iter().find(|(known, _)| *known == id)
        {
            return Ok(claims.clone());
        }
        let claims: Arc<Claims> = Arc::new(self.keys.verify(token)?);
        if let Ok(mut checked) = self.checked.lock() {
            checked.truncate(CHECKED_TOKENS - 1);
            checked.push_front((id, claims.clone()));
        }
        Ok(claims)
    }

    /// `/.well-known/openid-configuration`; `host` is where the client found this server.
    pub fn discovery_document(&self, host: &str) -> Value {
        let host = if host.is_empty() { "kubernetes.default.svc" } else { host };
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{host}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
    /// `/openid/v1/jwks`
    pub fn key_set(&self) -> Value {
        self.keys.key_set()
    }
}

/// Go's %q of a string slice.
fn go_strings(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
