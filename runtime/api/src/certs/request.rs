//! Certificate signing requests (PKCS #10): what one asks for, whether it fits its signer
//! (kubernetes/pkg/apis/certificates/helpers.go, pkg/controller/certificates/signer), and the certificate it gets
//! (authority/policies.go). The certificate is written here in DER, since the subject and key of a request, whatever
//! their kind, go into it byte by byte.
use super::{Authority, DAY_SECONDS, LEAF_DAYS, pem_der};
use crate::clock;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::Order as _;
use rcgen::SigningKey as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

const BACKDATE_SECONDS: i64 = 5 * 60;
/// Certificates that live shorter are not shortened by the backdating.
const SHORT_SECONDS: i64 = 8 * 3600;
const MIN_SECONDS: i64 = 10 * 60;

/// A request as far as signers care.
#[derive(Debug)]
pub struct Request {
    der: Vec<u8>,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

impl Request {
    /// The errors are what upstream's helpers say, as far as they say something of their own.
    pub fn parse(pem: &str) -> Result<Request, String> {
        const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
        let begins =
            pem.split_once("-----BEGIN ").is_some_and(|(_, rest)| rest.starts_with("CERTIFICATE REQUEST-----"));
        let der = pem_der(pem).filter(|_| begins).ok_or(NOT_PEM)?;
        let mut request = Request {
            common_name: String::new(),
            organizations: Vec::new(),
            dns_names: Vec::new(),
            addresses: 0,
            emails: 0,
            uris: 0,
            der: Vec::new(),
        };
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| "the request cannot be read")?;
        let subject = &parsed.certification_request_info.subject;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
        request.common_name = subject.iter_common_name().last().and_then(text).unwrap_or_default();
        request.organizations = subject.iter_organization().filter_map(text).collect();
        for name in names(&parsed) {
            match name {
                GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(_) => request.addresses += 1,
                GeneralName::RFC822Name(_) => request.emails += 1,
                GeneralName::URI(_) => request.uris += 1,
                _ => {}
            }
        }
        request.der = der;
        Ok(request)
    }

    /// Does it ask what this signer signs? None for a signer that is not one of ours.
    pub fn check(&self, signer: &str, usages: &[&str]) -> Option<Result<(), String>> {
        match signer {
            API_CLIENT => Some(client_usages(usages)),
            KUBELET_CLIENT => Some(self.check_kubelet_client(usages)),
            KUBELET_SERVING => Some(self.check_kubelet_serving(usages)),
            LEGACY_UNKNOWN => Some(Ok(())),
            _ => None,
        }
    }

    pub fn check_kubelet_client(&self, usages: &[&str]) -> Result<(), String> {
        must(self.organizations == ["system:nodes"], "subject organization is not system:nodes")?;
        must(self.dns_names.is_empty(), "DNS subjectAltNames are not allowed")?;
        must(self.emails == 0, "Email subjectAltNames are not allowed")?;
        must(self.addresses == 0, "IP subjectAltNames are not allowed")?;
        must(self.uris == 0, "URI subjectAltNames are not allowed")?;
        must(self.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:")?;
        must_be(usages, "client auth")
    }

    fn check_kubelet_serving(&self, usages: &[&str]) -> Result<(), String> {
        must(self.organizations == ["system:nodes"], "subject organization is not system:nodes")?;
        let named = !self.dns_names.is_empty() || self.addresses > 0;
        must(named, "DNS or IP subjectAltName is required")?;
        must(self.emails == 0, "Email subjectAltNames are not allowed")?;
        must(self.uris == 0, "URI subjectAltNames are not allowed")?;
        must_be(usages, "server auth")?;
        must(self.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:")
    }
}

fn names<'a>(request: &'a X509CertificationRequest<'a>) -> Vec<&'a GeneralName<'a>> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let alternatives = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    alternatives.flatten().collect()
}

fn must(holds: bool, error: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(error.to_owned()) }
}

/// Digital signature and `purpose`, with key encipherment or (for keys that are not RSA) without.
fn must_be(usages: &[&str], purpose: &str) -> Result<(), String> {
    let all = [purpose, "digital signature", "key encipherment"];
    let good = usages.iter().all(|usage| all.contains(usage)) && all[..2].iter().all(|usage| usages.contains(usage));
    let mut shown = all;
    shown.order();
    must(good, &format!("usages did not match [{}]", shown.join(" ")))
}

fn client_usages(usages: &[&str]) -> Result<(), String> {
    for usage in usages {
        if !matches!(*usage, "digital signature" | "key encipherment" | "client auth") {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    must(usages.contains(&"client auth"), "missing required usage for client certificate: client auth")
}

/// Bits of KeyUsage (RFC 5280, 4.2.1.3) by the API's names.
const KEY_USAGES: [(&str, u32); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Object identifiers of extended key usages, in the order in which Go writes them.
const EXTENDED: [(&[&str], &[u8]); 12] = [
    (&["any"], &[0x55, 0x1d, 0x25, 0x00]),
    (&["server auth"], &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    (&["client auth"], &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    (&["code signing"], &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    (&["email protection", "s/mime"], &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    (&["ipsec end system"], &[0x2b, 6, 1, 5, 5, 7, 3, 5]),
    (&["ipsec tunnel"], &[0x2b, 6, 1, 5, 5, 7, 3, 6]),
    (&["ipsec user"], &[0x2b, 6, 1, 5, 5, 7, 3, 7]),
    (&["timestamping"], &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    (&["ocsp signing"], &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
    (&["microsoft sgc"], &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
    (&["netscape sgc"], &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1]),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
/// ecdsa-with-SHA256 (RFC 5758).
const ECDSA_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            out.push(0x80 | (bytes.len() - first) as u8);
            out.extend_from_slice(&bytes[first..]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An extension of 2.5.29.`id`.
fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut content = tlv(OBJECT_ID, &[0x55, 0x1d, id]);
    if critical {
        content.extend_from_slice(&[0x01, 0x01, 0xff]);
    }
    content.extend(tlv(OCTETS, value));
    tlv(SEQUENCE, &content)
}

/// UTCTime up to 2049, GeneralizedTime after it (RFC 5280, 4.1.2.5).
fn time(seconds: i64) -> Vec<u8> {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
    if year < 2050 {
        tlv(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(0x18, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

fn usage_extensions(usages: &[&str]) -> Result<Vec<Vec<u8>>, String> {
    let (mut bits, mut unknown) = (0u16, Vec::new());
    for usage in usages {
        match KEY_USAGES.iter().find(|(name, _)| name == usage) {
            Some((_, bit)) => bits |= 0x8000 >> bit,
            None if EXTENDED.iter().any(|(names, _)| names.contains(usage)) => {}
            None => unknown.push(format!("{usage:?}")),
        }
    }
    if !unknown.is_empty() {
        return Err(format!("unrecognized usage values: [{}]", unknown.join(" ")));
    }
    let mut extensions = Vec::new();
    if bits != 0 {
        let bytes = bits.to_be_bytes();
        let bytes = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
        let unused = bytes.last().map_or(0, |last| last.trailing_zeros() as u8);
        extensions.push(extension(15, true, &tlv(BITS, &[&[unused], bytes].concat())));
    }
    let named = |names: &[&str]| usages.iter().any(|usage| names.contains(usage));
    let ids: Vec<u8> =
        EXTENDED.iter().filter(|(names, _)| named(names)).flat_map(|(_, id)| tlv(OBJECT_ID, id)).collect();
    if !ids.is_empty() {
        extensions.push(extension(37, false, &tlv(SEQUENCE, &ids)));
    }
    Ok(extensions)
}

/// How long a certificate lives that was asked for with `spec.expirationSeconds`.
fn lifetime(asked: Option<i64>) -> i64 {
    let longest = LEAF_DAYS * DAY_SECONDS;
    asked.map_or(longest, |seconds| if seconds > longest { longest } else { seconds.max(MIN_SECONDS) })
}

/// The certificate, as PEM. The request's own signature is checked: its sender has the key.
pub(super) fn sign(
    authority: &Authority,
    request: &Request,
    usages: &[&str],
    expiration_seconds: Option<i64>,
) -> Result<String, String> {
    let (_, parsed) = X509CertificationRequest::from_der(&request.der).map_err(|error| error.to_string())?;
    parsed.verify_signature().map_err(|error| format!("unable to verify certificate request signature: {error}"))?;
    let own = pem_der(&authority.certificate).ok_or("the authority's certificate cannot be read")?;
    let (_, own) = X509Certificate::from_der(&own).map_err(|error| error.to_string())?;
    let now = clock::now_seconds();
    let lifetime = lifetime(expiration_seconds);
    let end = now + if lifetime < SHORT_SECONDS { lifetime } else { lifetime - BACKDATE_SECONDS };
    let end = end.min(own.validity().not_after.timestamp());

    let mut extensions = usage_extensions(usages)?;
    extensions.push(extension(19, true, &tlv(SEQUENCE, &[])));
    let key_id = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if let Some(id) = key_id {
        extensions.push(extension(35, false, &tlv(SEQUENCE, &tlv(0x80, id))));
    }
    let info = &parsed.certification_request_info;
    let alternatives: Vec<u8> = names(&parsed)
        .into_iter()
        .flat_map(|name| match name {
            GeneralName::RFC822Name(email) => tlv(0x81, email.as_bytes()),
            GeneralName::DNSName(name) => tlv(0x82, name.as_bytes()),
            GeneralName::URI(uri) => tlv(0x86, uri.as_bytes()),
            GeneralName::IPAddress(ip) => tlv(0x87, ip),
            _ => Vec::new(),
        })
        .collect();
    if !alternatives.is_empty() {
        let critical = info.subject.iter().next().is_none();
        extensions.push(extension(17, critical, &tlv(SEQUENCE, &alternatives)));
    }

    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| "no random numbers")?;
    // Positive, and never shortened.
    serial[0] = serial[0] & 0x7f | 0x40;
    let algorithm = tlv(SEQUENCE, &tlv(OBJECT_ID, &ECDSA_SHA256));
    let body = [
        tlv(0xa0, &[0x02, 0x01, 0x02]),
        tlv(0x02, &serial),
        algorithm.clone(),
        own.subject().as_raw().to_vec(),
        tlv(SEQUENCE, &[time(now - BACKDATE_SECONDS), time(end)].concat()),
        info.subject.as_raw().to_vec(),
        info.subject_pki.raw.to_vec(),
        tlv(0xa3, &tlv(SEQUENCE, &extensions.concat())),
    ];
    let body = tlv(SEQUENCE, &body.concat());
    let signature = authority.key.sign(&body).map_err(|error| format!("failed to sign certificate: {error}"))?;
    let signature = tlv(BITS, &[&[0], signature.as_slice()].concat());
    Ok(pem(&tlv(SEQUENCE, &[body, algorithm, signature].concat())))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn request(name: &str, organizations: &[&str], names: &[SanType]) -> Request {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.subject_alt_names = names.to_vec();
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        Request::parse(&pem).unwrap()
    }

    #[test]
    fn requests_fit_their_signers() {
        let dns = SanType::DnsName("n1".try_into().unwrap());
        let node = request("system:node:n1", &["system:nodes"], &[]);
        let serving = request("system:node:n1", &["system:nodes"], std::slice::from_ref(&dns));
        let (client, server) =
            (["digital signature", "client auth"], ["server auth", "digital signature", "key encipherment"]);
        let check = |request: &Request, signer: &str, usages: &[&str], want: &str| {
            let got = request.check(signer, usages).unwrap();
            assert_eq!(got.err().as_deref().unwrap_or(""), want, "{signer}");
        };
        check(&node, KUBELET_CLIENT, &client, "");
        check(&serving, KUBELET_CLIENT, &client, "DNS subjectAltNames are not allowed");
        check(&node, KUBELET_CLIENT, &server, "usages did not match [client auth digital signature key encipherment]");
        check(
            &request("n1", &["system:nodes"], &[]),
            KUBELET_CLIENT,
            &client,
            "subject common name does not begin with system:node:",
        );
        check(
            &request("system:node:n1", &["a"], &[]),
            KUBELET_CLIENT,
            &client,
            "subject organization is not system:nodes",
        );
        check(&serving, KUBELET_SERVING, &server, "");
        check(&node, KUBELET_SERVING, &server, "DNS or IP subjectAltName is required");
        check(&node, API_CLIENT, &client, "");
        check(&node, API_CLIENT, &["digital signature"], "missing required usage for client certificate: client auth");
        check(&node, API_CLIENT, &server, "invalid usage for client certificate: server auth");
        check(&node, LEGACY_UNKNOWN, &[], "");
        assert!(node.check("example.com/mine", &[]).is_none());
        assert_eq!(
            Request::parse("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").unwrap_err(),
            "PEM block type must be CERTIFICATE REQUEST"
        );
    }

    #[test]
    fn a_signed_certificate_is_what_was_asked_for() {
        let authority = Authority::make("test-ca", KeyPair::generate().unwrap()).unwrap();
        let names = [SanType::DnsName("a.b".try_into().unwrap()), SanType::IpAddress([10, 0, 0, 1].into())];
        let asked = request("ann", &["devs"], &names);
        let pem =
            sign(&authority, &asked, &["digital signature", "key encipherment", "client auth"], Some(3600)).unwrap();
        let der = pem_der(&pem).unwrap();
        let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let own = pem_der(&authority.certificate).unwrap();
        let (_, own) = X509Certificate::from_der(&own).unwrap();
        certificate.verify_signature(Some(own.public_key())).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=ann, O=devs");
        assert_eq!(certificate.issuer().to_string(), own.subject().to_string());
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(!certificate.is_ca());
        let alternatives = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(alternatives.len(), 2);
        let validity = certificate.validity();
        let lasts = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(lasts, 3600 + BACKDATE_SECONDS);
        assert_eq!(sign(&authority, &asked, &["magic"], None).unwrap_err(), "unrecognized usage values: [\"magic\"]");
    }

    #[test]
    fn lives_are_bounded() {
        for (asked, want) in [
            (None, LEAF_DAYS * DAY_SECONDS),
            (Some(1), 600),
            (Some(3600), 3600),
            (Some(i64::MAX), LEAF_DAYS * DAY_SECONDS),
        ] {
            assert_eq!(lifetime(asked), want);
        }
    }
}
