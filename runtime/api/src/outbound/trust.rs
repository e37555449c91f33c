//! Trusted certificates: those of a PEM text, and those of this machine. The machine's are read when a connection needs
//! them and not kept: a hundred authorities are a quarter of a megabyte.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_rustls::rustls::pki_types::CertificateDer;

/// Where distributions keep them (Go's crypto/x509/root_linux.go).
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A bundle is not larger; what is, is cut.
const MAX_CERTIFICATES: usize = 1024;

/// Every certificate of a PEM text; what is not one is passed over.
pub(super) fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1).take(MAX_CERTIFICATES);
    let decoded = blocks.filter_map(|block| {
        let (body, _) = block.split_once("-----END CERTIFICATE-----")?;
        STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
    });
    decoded.map(CertificateDer::from).collect()
}

pub(super) async fn system() -> Vec<CertificateDer<'static>> {
    crate::unblock(|| {
        let text = FILES.iter().find_map(|file| std::fs::read_to_string(file).ok());
        certificates(&text.unwrap_or_default())
    })
    .await
}
