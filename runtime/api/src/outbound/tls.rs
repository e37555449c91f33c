//! Verified TLS as a client. Two things are Go's and not webpki's: a certificate that is itself among the trusted
//! ones is accepted although it is an authority's (`openssl req -x509` makes such), and the texts of failures.
use super::{
    connect::{Stream, Tls, Trust},
    trust,
};
use crate::{certs::pem_der, clock, tls::Clock};
use futures_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            Resumption, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_name,
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
        server::ParsedCertificate,
    },
};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug)]
struct Verifier {
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// DER of what is trusted.
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn is_trusted_itself(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let is_known = self.trusted.iter().any(|known| known == certificate);
        let valid = X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let validity = certificate.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        });
        let names = || ParsedCertificate::try_from(certificate).is_ok_and(|it| verify_server_name(&it, name).is_ok());
        is_known && valid && names()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let verified = match &self.chains {
            Some(chains) => chains.verify_server_cert(certificate, chain, name, stapled, now),
            None => unknown(),
        };
        match verified {
            Err(_) if self.is_trusted_itself(certificate, name, now) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        futures_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        futures_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

async fn config(tls: &Tls, protocol: &[u8]) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous();
    let builder = match &tls.trust {
        Trust::Anyone => builder.with_custom_certificate_verifier(crate::dial::accept_any(provider)),
        Trust::System => builder.with_custom_certificate_verifier(verifier(provider, trust::system().await)?),
        Trust::Bundle(pem) => builder.with_custom_certificate_verifier(verifier(provider, trust::certificates(pem))?),
    };
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let broken = || "the client certificate is not PEM".to_owned();
            let chain = trust::certificates(&identity.certificate);
            let key = private_key(&identity.key).ok_or_else(broken)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    // Connections are kept instead.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn verifier(provider: Arc<CryptoProvider>, trusted: Vec<CertificateDer<'static>>) -> Result<Arc<Verifier>, String> {
    let mut roots = RootCertStore::empty();
    // What cannot be an anchor is passed over, as Go's AppendCertsFromPEM does.
    roots.add_parsable_certificates(trusted.iter().cloned());
    let chains = match roots.is_empty() {
        true => None,
        false => {
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Some(built.map_err(|error| error.to_string())?)
        }
    };
    Ok(Arc::new(Verifier { chains, trusted, provider }))
}

/// What other programs make: PKCS #8, or what its kind of key was written as before.
fn private_key(pem: &str) -> Option<PrivateKeyDer<'static>> {
    let at = |label: &str| pem.find(&["-----BEGIN ", label].concat()).and_then(|at| pem_der(&pem[at..]));
    let elliptic = || at("EC PRIVATE KEY").map(|der| PrivateKeyDer::Sec1(der.into()));
    let rsa = || at("RSA PRIVATE KEY").map(|der| PrivateKeyDer::Pkcs1(der.into()));
    at("PRIVATE KEY").map(|der| PrivateKeyDer::Pkcs8(der.into())).or_else(elliptic).or_else(rsa)
}

pub(super) async fn connect(
    stream: Box<dyn Stream>,
    tls: &Tls,
    protocol: &[u8],
) -> Result<TlsStream<Box<dyn Stream>>, String> {
    let name = ServerName::try_from(tls.server_name.clone()).map_err(|error| error.to_string())?;
    let config = Arc::new(config(tls, protocol).await?);
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| explain(&error, &tls.server_name))
}

fn explain(error: &std::io::Error, name: &str) -> String {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "EOF".into(),
            std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
            _ => error.to_string(),
        };
    };
    let why = match inner {
        Error::InvalidCertificate(why) => why,
        Error::InvalidMessage(_) => return "http: server gave HTTP response to HTTPS client".into(),
        other => return format!("tls: {other}"),
    };
    let why = match why {
        // The other one: it is an authority's itself, and not one that is trusted.
        CertificateError::UnknownIssuer | CertificateError::Other(_) => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let now = clock::timestamp();
            format!("certificate has expired or is not yet valid: current time {now} is after its end")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let now = clock::timestamp();
            format!("certificate has expired or is not yet valid: current time {now} is before its start")
        }
        CertificateError::NotValidForName => {
            format!("certificate is not valid for any names, but wanted to match {name}")
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("certificate is not valid for any names, but wanted to match {name}")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // `DnsName("a")`
            let bare = |text: &String| text.split('"').nth(1).unwrap_or(text).to_owned();
            let names: Vec<String> = presented.iter().map(bare).collect();
            format!("certificate is valid for {}, not {name}", names.join(", "))
        }
        other => format!("{other:?}"),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}
