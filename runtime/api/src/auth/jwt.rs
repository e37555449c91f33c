//! Signed tokens (RFC 7515, RFC 7518: ES256) and the key that signs them. What the claims mean is in
//! `service_account`.
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use mote_schema::{Value, json};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// An uncompressed point on P-256: 0x04, x, y.
const POINT_BYTES: usize = 65;
/// DER in front of such a point in a SubjectPublicKeyInfo (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The signing key and the public keys whose tokens are believed (the signing key's is the first).
pub struct Keys {
    signing: EcdsaKeyPair,
    random: SystemRandom,
    public: Vec<PublicKey>,
}

struct PublicKey {
    id: String,
    point: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
}

impl Keys {
    /// From a PKCS #8 PEM private key and the PEMs of older public keys.
    pub fn from_pem(private: &str, older: &[&str]) -> Result<Keys, String> {
        let der = pem_der(private)?;
        let random = SystemRandom::new();
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
            .map_err(|e| format!("not a P-256 private key in PKCS #8: {e}"))?;
        let mut public = vec![PublicKey::new(signing.public_key().as_ref())?];
        for pem in older {
            let der = pem_der(pem)?;
            let point = der.strip_prefix(&SPKI_PREFIX).ok_or("not a P-256 public key")?;
            public.push(PublicKey::new(point)?);
        }
        Ok(Keys { signing, random, public })
    }

    /// A compact JWS of the claims.
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, String> {
        let payload = serde_json::to_vec(claims).map_err(|e| e.to_string())?;
        self.sign_bytes(&payload)
    }

    fn sign_bytes(&self, payload: &[u8]) -> Result<String, String> {
        let id = self.public.first().map_or("", |key| key.id.as_str());
        let header = serde_json::to_vec(&Header { alg: "ES256", kid: id }).map_err(|e| e.to_string())?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature =
            self.signing.sign(&self.random, token.as_bytes()).map_err(|_| "signing the token failed".to_owned())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// The claims, if one of the keys signed them.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T, String> {
        serde_json::from_slice(&self.verify_bytes(token)?).map_err(|e| format!("invalid bearer token: {e}"))
    }

    fn verify_bytes(&self, token: &str) -> Result<Vec<u8>, String> {
        let invalid = || "invalid bearer token".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
        let (header, payload) = signed.split_once('.').ok_or_else(invalid)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid());
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Value = serde_json::from_slice(&header).map_err(|_| invalid())?;
        if header["alg"] != "ES256" {
            return Err(format!("invalid bearer token: unexpected signature algorithm {}", header["alg"]));
        }
        let id = header["kid"].as_str().unwrap_or("");
        let mut known = self.public.iter().filter(|key| id.is_empty() || key.id == id).peekable();
        if known.peek().is_none() {
            return Err("invalid signature, no keys found".into());
        }
        let signed_by = |key: &PublicKey| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point).verify(signed.as_bytes(), &signature).is_ok()
        };
        if known.any(signed_by) {
            Ok(payload)
        } else {
            Err("invalid bearer token: the signature does not match".into())
        }
    }

    /// RFC 7517
    pub fn key_set(&self) -> Value {
        let keys = self.public.iter().map(|key| {
            let (x, y) = key.point[1..].split_at(32);
            json!({
                "use": "sig",
                "kty": "EC",
                "kid": key.id,
                "crv": "P-256",
                "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x),
                "y": URL_SAFE_NO_PAD.encode(y),
            })
        });
        json!({"keys": keys.collect::<Vec<_>>()})
    }
}

impl PublicKey {
    /// The id is the hash of the key's DER, as upstream's keyIDFromPublicKey.
    fn new(point: &[u8]) -> Result<PublicKey, String> {
        if point.len() != POINT_BYTES {
            return Err("not a P-256 public key".into());
        }
        let der: Vec<u8> = SPKI_PREFIX.iter().chain(point).copied().collect();
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &der));
        Ok(PublicKey { id, point: point.into() })
    }
}

/// What is between the first BEGIN and END lines.
fn pem_der(pem: &str) -> Result<Vec<u8>, String> {
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .map(str::trim)
        .collect();
    STANDARD.decode(body).map_err(|e| format!("not PEM: {e}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn keys() -> Keys {
        Keys::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem(), &[]).unwrap()
    }

    #[test]
    fn signed_and_verified() {
        let keys = keys();
        let token = keys.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(keys.verify::<Value>(&token).unwrap(), json!({"sub": "x"}));
        let set = keys.key_set();
        assert_eq!(set["keys"][0]["kid"], keys.public[0].id.as_str());
        assert_eq!(set["keys"][0]["x"].as_str().unwrap().len(), 43);
    }

    #[test]
    fn refused() {
        let keys = keys();
        let token = keys.sign(&json!({"sub": "x"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"y"}"#);
        for bad in [
            String::new(),
            "x".into(),
            "..".into(),
            format!("{}.{}.", none, parts[1]),
            format!("{}.{}.{}", parts[0], forged, parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}A"),
            self::tests::keys().sign(&json!({"sub": "x"})).unwrap(),
        ] {
            assert!(keys.verify::<Value>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn older_keys_are_believed() {
        let old = rcgen::KeyPair::generate().unwrap();
        let token = Keys::from_pem(&old.serialize_pem(), &[]).unwrap().sign(&json!({})).unwrap();
        let new = rcgen::KeyPair::generate().unwrap();
        let keys = Keys::from_pem(&new.serialize_pem(), &[&old.public_key_pem()]).unwrap();
        assert!(keys.verify::<Value>(&token).is_ok());
    }
}
