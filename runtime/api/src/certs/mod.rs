//! The certificates and keys of a cluster: made at the first start, renewed before they expire, kept in files under
//! `DIR/certs`, and the administrator's `DIR/kubeconfig`. All keys are P-256.
//!
//! Boards have no clock battery: certificates are valid from 2020, times come from `clock`, and what is due is seen
//! at a handshake too, not only by a timer, so that a clock that jumps is no trouble. A renewed authority keeps its
//! key and name: what it signed before stays valid.
mod files;
pub mod request;
#[cfg(test)]
mod tests;

use crate::{auth::jwt, clock, error::Error, tls::Serving};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use event_listener::{Event, EventListener};
use files::{Files, write_new};
use mote_schema::Gather as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
pub use request::Request;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

const DAY_SECONDS: i64 = 24 * 3600;
const AUTHORITY_DAYS: i64 = 10 * 365;
const LEAF_DAYS: i64 = 365;
/// A leaf is renewed when a third of its life is left, an authority in its last two years, so that what it
/// signs never outlives it.
const LEAF_RENEW_DAYS: i64 = LEAF_DAYS / 3;
const AUTHORITY_RENEW_DAYS: i64 = 2 * 365;
/// After a renewal that failed (a full disk).
const RETRY_SECONDS: i64 = 3600;

/// As whom the API server calls aggregated ones; `requestheader-allowed-names` names it.
const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// What the certificates are for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; certificates go into `certs` in it.
    pub dir: PathBuf,
    /// "cluster.local"
    pub cluster_domain: String,
    /// The node's name and more names the server has.
    pub names: Vec<String>,
    /// The node's, the advertised and the Service's addresses, and more the server has.
    pub addresses: Vec<IpAddr>,
    /// Where the kubeconfig points to: "https://127.0.0.1:6443".
    pub server: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

struct Authority {
    certificate: String,
    name: String,
    key: KeyPair,
}

/// A client certificate of this server's own, and when it is made anew.
type Kept = Mutex<Option<(i64, Arc<Issued>)>>;

pub struct Certificates {
    options: Options,
    /// Signs the server's and clients' certificates.
    cluster: Mutex<Authority>,
    /// Signs the client certificate with which the API server calls aggregated API servers.
    front_proxy: Mutex<Authority>,
    front_proxy_client: Kept,
    /// As whom the API server calls kubelets outside of this process.
    kubelet_client: Kept,
    tokens: Arc<jwt::Keys>,
    serving: Arc<Serving>,
    renewed: Event,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads what is there, makes what is missing, renews what is due, and writes the kubeconfig. Blocks on files.
    pub fn open(options: Options) -> Result<Certificates, Error> {
        let dir = options.dir.join("certs");
        let mut files = Files::read(dir)?;
        let cluster = Authority::open(&mut files, "ca", "mote-ca")?;
        let front_proxy = Authority::open(&mut files, "front-proxy-ca", "mote-front-proxy-ca")?;
        let tokens = Arc::new(token_keys(&mut files)?);
        let serving = serving(&mut files, &options, &cluster)?;
        files.write()?;
        write_kubeconfig(&options, &cluster)?;
        Ok(Certificates {
            options,
            cluster: Mutex::new(cluster),
            front_proxy: Mutex::new(front_proxy),
            front_proxy_client: Mutex::default(),
            kubelet_client: Mutex::default(),
            tokens,
            serving: Arc::new(serving),
            renewed: Event::new(),
        })
    }

    /// PEM of the authority that clients trust and whose client certificates are believed.
    pub fn authority(&self) -> String {
        with(&self.cluster, |authority| authority.certificate.clone())
    }
    pub fn front_proxy_authority(&self) -> String {
        with(&self.front_proxy, |authority| authority.certificate.clone())
    }
    /// Resolves when the certificates were renewed; to be made before they are looked at.
    pub fn renewed(&self) -> EventListener {
        self.renewed.listen()
    }

    /// The certificate that a request asks for, as PEM, signed by the cluster's authority.
    pub fn sign(&self, request: &Request, usages: &[&str], expiration_seconds: Option<i64>) -> Result<String, String> {
        with(&self.cluster, |authority| request::sign(authority, request, usages, expiration_seconds))
    }

    /// Of service-account tokens.
    pub fn token_keys(&self) -> Arc<jwt::Keys> {
        self.tokens.clone()
    }
    pub fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// What this server shows to aggregated API servers.
    pub fn front_proxy_client(&self) -> Option<Arc<Issued>> {
        Self::own_client(&self.front_proxy_client, &self.front_proxy, FRONT_PROXY_CLIENT)
    }
    /// What this server shows to kubelets.
    pub fn kubelet_client(&self) -> Option<Arc<Issued>> {
        Self::own_client(&self.kubelet_client, &self.cluster, crate::rest::kubelet::CLIENT)
    }
    /// Made when it is first needed, kept in memory, and made anew when a third of its life is left.
    fn own_client(kept: &Kept, authority: &Mutex<Authority>, name: &str) -> Option<Arc<Issued>> {
        let mut kept = kept.lock().unwrap_or_else(|e| e.into_inner());
        let now = clock::now_seconds();
        if let Some((renew_at, issued)) = &*kept
            && now < *renew_at
        {
            return Some(issued.clone());
        }
        let params = client_params(name, &[]);
        let issued = with(authority, |authority| authority.issue(params));
        let issued = Arc::new(issued.inspect_err(|error| tracing::warn!(%error, name, "no client certificate")).ok()?);
        *kept = Some((due(LEAF_DAYS), issued.clone()));
        Some(issued)
    }

    /// A client certificate for user `name` in `groups`.
    pub fn issue_client(&self, name: &str, groups: &[&str]) -> Result<Issued, Error> {
        with(&self.cluster, |authority| authority.issue(client_params(name, groups)))
    }
    /// A kubeconfig for a component that runs outside of this process.
    pub fn kubeconfig(&self, name: &str, groups: &[&str]) -> Result<String, Error> {
        let issued = self.issue_client(name, groups)?;
        Ok(kubeconfig(&self.options.server, &self.authority(), name, &issued))
    }

    /// Renews certificates when they are due; runs as long as the server does. Waits for the earlier of a timer and
    /// a handshake that finds the certificate due, which is how a jump of the clock is noticed.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            self.serving.until_due().await;
            let own = self.clone();
            let renewed = crate::unblock(move || Certificates::open(own.options.clone())).await;
            match renewed {
                Ok(renewed) => {
                    for (mine, new) in [(&self.cluster, renewed.cluster), (&self.front_proxy, renewed.front_proxy)] {
                        let new = new.into_inner().unwrap_or_else(|e| e.into_inner());
                        *mine.lock().unwrap_or_else(|e| e.into_inner()) = new;
                    }
                    self.serving.replace(&renewed.serving);
                    self.renewed.notify(usize::MAX);
                    tracing::info!("certificates renewed");
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates could not be renewed");
                    self.serving.retry_at(clock::now_seconds() + RETRY_SECONDS);
                }
            }
        }
    }
}

fn with<R>(authority: &Mutex<Authority>, use_it: impl FnOnce(&Authority) -> R) -> R {
    use_it(&authority.lock().unwrap_or_else(|e| e.into_inner()))
}

impl Authority {
    fn open(files: &mut Files, file: &str, name: &str) -> Result<Authority, Error> {
        let (certificate, key) = (format!("{file}.crt"), format!("{file}.key"));
        let found = files.text(&key).and_then(|pem| KeyPair::from_pem(&pem).ok());
        let days_left = files.text(&certificate).and_then(|pem| Known::read(&pem)).map(|known| known.days_left);
        match (found, days_left) {
            (Some(pair), Some(days)) if days > AUTHORITY_RENEW_DAYS => {
                let certificate = files.text(&certificate).unwrap_or_default();
                Ok(Authority { certificate, name: name.into(), key: pair })
            }
            // The key is what matters: the certificate can be made again for it.
            (Some(pair), _) => {
                let authority = Authority::make(name, pair)?;
                files.put(&certificate, &authority.certificate, 0o644);
                Ok(authority)
            }
            (None, days) => {
                if days.is_some() || files.text(&key).is_some() {
                    tracing::error!(
                        key,
                        "the authority's key is damaged: a new one is made, clients need the new kubeconfig"
                    );
                    files.put_aside(&key);
                    files.put_aside(&certificate);
                }
                let pair = KeyPair::generate().map_err(Error::certificate("making an authority's key"))?;
                let authority = Authority::make(name, pair)?;
                files.put(&key, &authority.key.serialize_pem(), 0o600);
                files.put(&certificate, &authority.certificate, 0o644);
                Ok(authority)
            }
        }
    }

    fn make(name: &str, key: KeyPair) -> Result<Authority, Error> {
        let mut params = params(name, &[], AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::certificate("making an authority's certificate"))?;
        Ok(Authority { certificate: certificate.pem(), name: name.into(), key })
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, Error> {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(Error::certificate("making a key"))?;
        // An issuer needs the name and key only, and its key may not be moved out of here.
        let mut own = self::params(&self.name, &[], AUTHORITY_DAYS);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::from_params(&own, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(Error::certificate("signing a certificate"))?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Valid from 2020 until `days` from now.
fn params(name: &str, groups: &[&str], days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    for group in groups {
        subject.push(DnType::OrganizationName, *group);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = date_time_ymd(2020, 1, 1);
    let end = jiff::Timestamp::from_second(clock::now_seconds() + days * DAY_SECONDS).unwrap_or(jiff::Timestamp::MAX);
    let end = end.to_zoned(jiff::tz::TimeZone::UTC).date();
    params.not_after = date_time_ymd(end.year().into(), end.month().unsigned_abs(), end.day().unsigned_abs());
    params
}

fn client_params(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = params(name, groups, LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn serving_params(
    name: &str,
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
) -> Result<CertificateParams, Error> {
    let mut params = params(name, &[], LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        let name = name.try_into().map_err(Error::certificate("a name for the serving certificate"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
    Ok(params)
}

/// What a certificate in a file says.
struct Known {
    days_left: i64,
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Known {
    fn read(pem: &str) -> Option<Known> {
        let der = pem_der(pem)?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let seconds_left = certificate.validity().not_after.timestamp() - clock::now_seconds();
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => drop(names.insert((*name).to_owned())),
                    GeneralName::IPAddress(bytes) => addresses.extend(ip(bytes)),
                    _ => {}
                }
            }
        }
        Some(Known { days_left: seconds_left / DAY_SECONDS, names, addresses })
    }
}

/// When a certificate ends, in seconds since 1970.
pub fn certificate_end_seconds(pem: &str) -> Option<i64> {
    let der = pem_der(pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
    }
}

/// The first block of a PEM text.
pub(crate) fn pem_der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

fn token_keys(files: &mut Files) -> Result<jwt::Keys, Error> {
    let mut fail = String::new();
    if let Some(pem) = files.text("sa.key") {
        match jwt::Keys::from_pem(&pem, &[]) {
            Ok(keys) => return Ok(keys),
            Err(error) => fail = error,
        }
    }
    if !fail.is_empty() {
        tracing::error!(error = fail, "sa.key is damaged: a new one is made, tokens have to be issued again");
        files.put_aside("sa.key");
    }
    let pair = KeyPair::generate().map_err(Error::certificate("making the key of service-account tokens"))?;
    let pem = pair.serialize_pem();
    files.put("sa.key", &pem, 0o600);
    files.put("sa.pub", &pair.public_key_pem(), 0o644);
    jwt::Keys::from_pem(&pem, &[]).map_err(Error::certificate("reading the key of service-account tokens"))
}

/// The server's own certificate: kept while it has the names wanted, enough time left and the authority's signature.
fn serving(files: &mut Files, options: &Options, authority: &Authority) -> Result<Serving, Error> {
    let domain = &options.cluster_domain;
    let mut names: BTreeSet<String> = options.names.iter().filter(|name| !name.is_empty()).cloned().gather();
    names.extend(["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from));
    names.insert(format!("kubernetes.default.svc.{domain}"));
    let mut addresses: BTreeSet<IpAddr> = options.addresses.iter().copied().filter(|a| !a.is_unspecified()).gather();
    addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    if let (Some(certificate), Some(key)) = (files.text("apiserver.crt"), files.text("apiserver.key"))
        && let Some(known) = Known::read(&certificate)
        && known.days_left > LEAF_RENEW_DAYS
        && known.names == names
        && known.addresses == addresses
        && signed_by(&certificate, authority)
        && let Ok(serving) = Serving::new(&certificate, &key, due(known.days_left))
    {
        return Ok(serving);
    }
    let issued = authority.issue(serving_params("kube-apiserver", names, addresses)?)?;
    files.put("apiserver.crt", &issued.certificate, 0o644);
    files.put("apiserver.key", &issued.key, 0o600);
    Serving::new(&issued.certificate, &issued.key, due(LEAF_DAYS))
}

fn due(days_left: i64) -> i64 {
    clock::now_seconds() + (days_left - LEAF_RENEW_DAYS) * DAY_SECONDS
}

/// By the key identifier; the signature itself is the client's to check.
fn signed_by(certificate: &str, authority: &Authority) -> bool {
    let of = |pem: &str, wanted: &dyn Fn(&X509Certificate<'_>) -> Option<Vec<u8>>| {
        let der = pem_der(pem)?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        wanted(&certificate)
    };
    use x509_parser::extensions::ParsedExtension::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
    let find = |certificate: &X509Certificate<'_>| {
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        })
    };
    let own = |certificate: &X509Certificate<'_>| {
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let by = of(certificate, &find);
    by.is_some() && by == of(&authority.certificate, &own)
}

const ADMIN: &str = "kubernetes-admin";

/// The administrator's, kept while it works.
fn write_kubeconfig(options: &Options, authority: &Authority) -> Result<(), Error> {
    let path = options.dir.join("kubeconfig");
    let is_good = |text: &str| {
        let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        let certificate = value("client-certificate-data").and_then(|data| STANDARD.decode(data).ok());
        let certificate = certificate.and_then(|pem| String::from_utf8(pem).ok()).unwrap_or_default();
        value("- server").or_else(|| value("server")) == Some(&options.server)
            && value("certificate-authority-data") == Some(&STANDARD.encode(&authority.certificate))
            && signed_by(&certificate, authority)
            && Known::read(&certificate).is_some_and(|known| known.days_left > LEAF_RENEW_DAYS)
    };
    if fs::read_to_string(&path).is_ok_and(|text| is_good(&text)) {
        return Ok(());
    }
    let issued = authority.issue(client_params(ADMIN, &["system:masters"]))?;
    let text = kubeconfig(&options.server, &authority.certificate, ADMIN, &issued);
    // Not flushed: one that a power cut spoils is written again at the next start.
    let fresh = options.dir.join("kubeconfig.new");
    write_new(&fresh, text.as_bytes(), 0o600)
        .and_then(|_| fs::rename(&fresh, &path))
        .map_err(Error::file("writing", path))
}

fn kubeconfig(server: &str, authority: &str, user: &str, issued: &Issued) -> String {
    let (authority, certificate, key) =
        (STANDARD.encode(authority), STANDARD.encode(&issued.certificate), STANDARD.encode(&issued.key));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: mote
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {user:?}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: mote
  context:
    cluster: mote
    user: {user:?}
current-context: mote
"
    )
}
