//! Entries for the fuzz targets (`fuzz/`) to what is private here: compiled only for them (`--cfg fuzzing`).
use crate::{auth::jwt::Keys, http::accept::clauses, rest, stream, websocket};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{rand::SystemRandom, signature};

pub fn accept(text: &str) {
    for clause in clauses(text) {
        for (name, value) in clause.parameters() {
            clause.takes(&format!("{name}/{value}"));
        }
        clause.takes("application/json");
    }
}

pub fn continue_token(text: &str) {
    drop(rest::list::parse_token(text));
}

/// The head of a container runtime's answer to an upgrade.
pub fn upgrade_answer(head: &[u8]) {
    drop(stream::parse(head));
}

/// Frames of a WebSocket client, to the end of `bytes`.
pub fn websocket(bytes: &[u8]) {
    let mut reader = futures_lite::io::Cursor::new(bytes);
    while futures_lite::future::block_on(websocket::read_frame(&mut reader, 1 << 20)).is_ok() {}
}

pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Fresh ones.
pub fn token_keys() -> Result<Keys, String> {
    let der =
        signature::EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    Keys::from_pem(&pem("PRIVATE KEY", der.map_err(|e| e.to_string())?.as_ref()), &[])
}
