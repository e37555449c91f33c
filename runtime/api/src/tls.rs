//! TLS of the listener: versions 1.2 and 1.3, client certificates when a client has one, and a serving certificate
//! that can be replaced while connections are open.
use crate::{
    certs::{Certificates, pem_der},
    clock,
    error::Error,
};
use async_io::Timer;
use event_listener::Event;
use futures_lite::FutureExt;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// The server's certificate of the moment, and when the next is due.
#[derive(Debug)]
pub struct Serving {
    key: RwLock<Arc<CertifiedKey>>,
    /// Seconds since 1970.
    renew_at: AtomicI64,
    due: Event,
}

impl Serving {
    pub(crate) fn new(certificate: &str, key: &str, renew_at: i64) -> Result<Serving, Error> {
        let broken =
            |message: &str| Error::Certificate { doing: "reading the serving certificate", message: message.into() };
        let certificate = pem_der(certificate).ok_or_else(|| broken("not PEM"))?;
        let key = pem_der(key).ok_or_else(|| broken("its key is not PEM"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = ring::sign::any_ecdsa_type(&key).map_err(Error::certificate("reading the serving key"))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
        certified.keys_match().map_err(Error::certificate("reading the serving certificate"))?;
        Ok(Serving { key: RwLock::new(Arc::new(certified)), renew_at: AtomicI64::new(renew_at), due: Event::new() })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.key.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(crate) fn replace(&self, new: &Serving) {
        *self.key.write().unwrap_or_else(|e| e.into_inner()) = new.current();
        self.retry_at(new.renew_at.load(Ordering::Acquire));
    }

    pub(crate) fn retry_at(&self, seconds: i64) {
        self.renew_at.store(seconds, Ordering::Release);
    }

    pub(crate) fn seconds_left(&self) -> u64 {
        u64::try_from(self.renew_at.load(Ordering::Acquire) - clock::now_seconds()).unwrap_or(0)
    }

    /// Is it due? Then whoever renews it wakes.
    pub(crate) fn ask(&self) {
        if self.seconds_left() == 0 {
            self.due.notify(1);
        }
    }

    /// Resolves when the certificate is to be renewed.
    pub(crate) async fn until_due(&self) {
        loop {
            let asked = self.due.listen();
            let left = self.seconds_left();
            if left == 0 {
                return;
            }
            let timer = async {
                Timer::after(Duration::from_secs(left)).await;
            };
            asked.or(timer).await;
        }
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.ask();
        Some(self.current())
    }
}

/// See `clock`.
#[derive(Debug)]
pub(crate) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(clock::now()))
    }
}

/// For the API server's listener: `certificates` serves, and the client certificates of its two authorities are believed
/// (`auth::front_proxy` tells them apart).
/// A client whose certificate is not is refused in the handshake.
pub fn server_config(certificates: &Certificates) -> Result<Arc<ServerConfig>, Error> {
    const DOING: &str = "setting up TLS";
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in [certificates.authority(), certificates.front_proxy_authority()] {
        let authority = pem_der(&authority)
            .ok_or_else(|| Error::Certificate { doing: DOING, message: "the authority is not PEM".into() })?;
        roots.add(CertificateDer::from(authority)).map_err(Error::certificate(DOING))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(Error::certificate(DOING))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .map_err(Error::certificate(DOING))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates.serving().clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions kept for resumption would hold client certificates in memory; a P-256 handshake is cheap.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
