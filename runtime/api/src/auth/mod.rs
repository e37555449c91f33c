//! Who asks: client certificates, service-account and bootstrap tokens, a front proxy's headers, or nobody in particular
//! (anonymous); and in whose name (impersonation). What somebody may do is `rbac`'s. Invariant: a credential that is shown and wrong is refused,
//! never taken for anonymous.
pub mod bootstrap_token;
pub mod front_proxy;
pub mod impersonate;
pub mod jwt;
pub(crate) mod reviews;
pub mod secret_token;
pub mod service_account;
pub mod trust;
pub mod x509;

use crate::{Object, clock, http::User};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use front_proxy::Peer;
use http::{HeaderMap, HeaderValue, header};
use mote_schema::{Value, json};
use ring::digest;
use service_account::Claims;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
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

pub type NoteUse = Box<dyn Fn(Object) + Send + Sync>;

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
    /// Notes on a Secret that its token is used today; set once, before the first request.
    pub note_use: OnceLock<NoteUse>,
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
        let audiences = vec![issuer.into()];
        let (checked, note_use) = (Mutex::default(), OnceLock::new());
        Authenticator { keys, issuer: issuer.into(), audiences, lookup, checked, note_use }
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

    /// `peer` is what the connection's certificate says. Takes all headers that authenticate out.
    pub fn authenticate(&self, peer: &Peer, headers: &mut HeaderMap) -> Result<Arc<User>, String> {
        let proxied = (*peer == Peer::FrontProxy).then(|| front_proxy::user(headers)).flatten();
        front_proxy::clear(headers);
        let found = self.by_credentials(peer, headers)?;
        match (proxied, found, peer) {
            (Some(mut user), ..) => {
                if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
                    user.groups.push(AUTHENTICATED.into());
                }
                Ok(Arc::new(user))
            }
            (None, Some(user), _) => Ok(user),
            (None, None, Peer::FrontProxy | Peer::Stranger) => Err("the certificate names no user".into()),
            (None, None, _) => Ok(Arc::new(User::new(ANONYMOUS, &[UNAUTHENTICATED]))),
        }
    }

    /// Certificate before token. None when none is shown.
    fn by_credentials(&self, peer: &Peer, headers: &mut HeaderMap) -> Result<Option<Arc<User>>, String> {
        let authorization = headers.remove(header::AUTHORIZATION);
        let from_websocket = websocket_token(headers)?;
        if let Peer::User(user, _) = peer {
            return Ok(Some(user.clone()));
        }
        let from_header = match &authorization {
            None => None,
            Some(value) => {
                let text = value.to_str().map_err(|_| "the Authorization header is not text")?.trim();
                let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
                // Other schemes are nobody's, as upstream: the request goes on as anonymous.
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
            }
        };
        let Some(token) = from_header.or(from_websocket) else { return Ok(None) };
        let mut user = self.token(&token, &self.audiences)?.user;
        user.groups.push(AUTHENTICATED.into());
        Ok(Some(Arc::new(user)))
    }

    /// Checks a bearer token against the audiences wanted: signature, times, and the live objects it is bound to.
    /// The groups do not include system:authenticated.
    pub fn token(&self, token: &str, wanted: &[String]) -> Result<Verified, String> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err("invalid bearer token".into());
        }
        if bootstrap_token::parts(token).is_some() {
            let user = bootstrap_token::user(token, &self.lookup).ok_or("invalid bearer token")?;
            // Such a token names no audience: it is good for this server's own.
            let audiences: Vec<String> = self.audiences.iter().filter(|own| wanted.contains(own)).cloned().collect();
            return if audiences.is_empty() {
                Err("invalid bearer token".into())
            } else {
                Ok(Verified { user, audiences })
            };
        }
        let claims = self.signed_claims(token)?;
        let is_kept = claims.iss == secret_token::ISSUER;
        if claims.iss != self.issuer && !is_kept {
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
        let user = if is_kept {
            let (user, unnoted) = secret_token::user(token, &self.lookup)?;
            if let (Some(secret), Some(note)) = (unnoted, self.note_use.get()) {
                note(secret);
            }
            user
        } else {
            service_account::validate(&claims, clock::now_seconds(), &*self.lookup)?
        };
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

/// Browsers cannot set headers on a WebSocket: they send the token as one of the subprotocols
/// (apiserver/pkg/authentication/request/websocket/protocol.go). Takes it out of the list.
fn websocket_token(headers: &mut HeaderMap) -> Result<Option<String>, String> {
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let given = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let given: Vec<String> = given.flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
    let (tokens, others): (Vec<String>, Vec<String>) = given.into_iter().partition(|name| name.starts_with(PREFIX));
    let Some(token) = tokens.first().and_then(|token| token.strip_prefix(PREFIX)) else { return Ok(None) };
    if tokens.len() > 1 {
        return Err("multiple base64.bearer.authorization tokens specified".into());
    }
    if others.is_empty() {
        return Err("missing additional subprotocol".into());
    }
    let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.ok_or("invalid base64.bearer.authorization token encoding")?;
    let others = HeaderValue::from_str(&others.join(", ")).map_err(|error| error.to_string())?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    Ok(Some(token))
}

/// Go's %q of a string slice.
fn go_strings(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_browsers() {
        let check = |given: &str, token: Result<Option<&str>, ()>, left: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, given.parse().unwrap());
            let got = websocket_token(&mut headers);
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(drop), token, "{given}");
            assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], left, "{given}");
        };
        let token = format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode("a.b.c"));
        check("v4.channel.k8s.io", Ok(None), "v4.channel.k8s.io");
        check(&format!("{token}, v4.channel.k8s.io"), Ok(Some("a.b.c")), "v4.channel.k8s.io");
        check(&token, Err(()), &token);
        check(&format!("{token},{token},x"), Err(()), &format!("{token},{token},x"));
    }

    #[test]
    fn credentials() {
        let authenticator =
            Authenticator::new(Arc::new(jwt::tests::keys()), "https://issuer", Arc::new(|_, _, _| None));
        let check = |authorization: &str, want: Result<&str, ()>| {
            let mut headers = HeaderMap::new();
            if !authorization.is_empty() {
                headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
            }
            let got = authenticator.authenticate(&Peer::Nobody, &mut headers);
            assert_eq!(got.as_ref().map(|user| user.name.as_str()).map_err(drop), want, "{authorization}");
            assert!(headers.is_empty());
        };
        check("", Ok(ANONYMOUS));
        check("Basic eDp5", Ok(ANONYMOUS));
        check("Bearer ", Err(()));
        check("bearer rubbish", Err(()));
        let other = jwt::tests::keys().sign(&Claims { iss: "https://issuer".into(), ..Claims::default() }).unwrap();
        check(&format!("Bearer {other}"), Err(()));
        let foreign = authenticator.keys().sign(&Claims { iss: "https://else".into(), ..Claims::default() }).unwrap();
        check(&format!("Bearer {foreign}"), Err(()));
        let mut headers = HeaderMap::new();
        let user = Arc::new(User::new("ann", &[]));
        assert_eq!(authenticator.authenticate(&Peer::User(user.clone(), 0), &mut headers), Ok(user));
        // Only a front proxy's word counts, and it must name somebody.
        headers.insert("x-remote-user", "bob".parse().unwrap());
        let name = |peer: Peer, headers: &HeaderMap| {
            let got = authenticator.authenticate(&peer, &mut headers.clone());
            got.map(|user| format!("{} {:?}", user.name, user.groups)).map_err(drop)
        };
        assert_eq!(name(Peer::FrontProxy, &headers).unwrap(), r#"bob ["system:authenticated"]"#);
        assert_eq!(name(Peer::Nobody, &headers).unwrap(), r#"system:anonymous ["system:unauthenticated"]"#);
        assert!(name(Peer::Stranger, &headers).is_err());
        assert!(name(Peer::FrontProxy, &HeaderMap::new()).is_err());
    }
}
