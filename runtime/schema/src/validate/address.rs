//! IP addresses and CIDR values (apimachinery/pkg/util/validation/ip.go).
use super::list;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as upstream reads it in old fields: IPv4 octets may have zeros in front.
fn sloppy_ip(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        return value.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255)? as u8;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Whether anybody would take it for an address.
pub(crate) fn is_ip(value: &str) -> bool {
    sloppy_ip(value).is_some()
}

pub(crate) fn is_cidr(value: &str) -> bool {
    split_cidr(value).is_some()
}

fn decimal(text: &str, max: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|value| *value <= max)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address in a field that was always checked loosely; since 1.36 without odd zeros and mappings.
pub fn ip_legacy(value: &str) -> Vec<String> {
    let Some(address) = sloppy_ip(value) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()];
    };
    list([
        value.parse::<IpAddr>().is_err().then(|| "must not have leading 0s".into()),
        is_mapped(address).then(|| "must not be an IPv4-mapped IPv6 address".into()),
    ])
}

/// An address in the one way it should be written.
pub fn ip(value: &str) -> Vec<String> {
    let errors = ip_legacy(value);
    match value.parse::<IpAddr>() {
        Ok(address) if errors.is_empty() => canonical(value, &address.to_string()),
        _ => errors,
    }
}

fn canonical(value: &str, canonical: &str) -> Vec<String> {
    list([(value != canonical).then(|| format!("must be in canonical form (\"{canonical}\")"))])
}

/// The address, the prefix length, and the address without the bits behind it.
fn split_cidr(value: &str) -> Option<(IpAddr, u32, IpAddr)> {
    let (address, len) = value.split_once('/')?;
    let address = sloppy_ip(address)?;
    let (len, masked) = match address {
        IpAddr::V4(v4) => {
            let len = decimal(len, 32)?;
            (len, (u32::from(v4) & u32::MAX.checked_shl(32 - len).unwrap_or(0)).to_be_bytes().into())
        }
        IpAddr::V6(v6) => {
            let len = decimal(len, 128)?;
            (len, (u128::from(v6) & u128::MAX.checked_shl(128 - len).unwrap_or(0)).to_be_bytes().into())
        }
    };
    Some((address, len, masked))
}

/// "10.9.8.0/24", in a field that was always checked loosely.
pub fn cidr_legacy(value: &str) -> Vec<String> {
    let Some((address, len, masked)) = split_cidr(value) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()];
    };
    let strict = value.split_once('/').is_some_and(|(a, l)| a.parse::<IpAddr>().is_ok() && l == len.to_string());
    list([if !strict {
        Some("must not have leading 0s in IP or prefix length".into())
    } else if is_mapped(address) {
        Some("must not have an IPv4-mapped IPv6 address".into())
    } else {
        (address != masked).then(|| "must not have bits set beyond the prefix length".into())
    }])
}

/// "10.9.8.0/24" in the one way it should be written.
pub fn cidr(value: &str) -> Vec<String> {
    let errors = cidr_legacy(value);
    match split_cidr(value) {
        Some((_, len, masked)) if errors.is_empty() => canonical(value, &format!("{masked}/{len}")),
        _ => errors,
    }
}

/// What is odd about an address that `ip_legacy` lets pass in an old object (GetWarningsForIP).
pub fn ip_warning(value: &str) -> Option<String> {
    let address = sloppy_ip(value)?;
    let plain = plain(address);
    if value.parse::<IpAddr>().is_err() || is_mapped(address) {
        return Some(format!("non-standard IP address {value:?} is invalid: use \"{plain}\""));
    }
    (address.is_ipv6() && plain != value)
        .then(|| format!("IPv6 address {value:?} should be in RFC 5952 canonical format (\"{plain}\")"))
}

/// Go prints a mapped address as the IPv4 one it stands for.
fn plain(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// GetWarningsForCIDR
pub fn cidr_warnings(value: &str) -> Vec<String> {
    let Some((address, len, masked)) = split_cidr(value) else { return Vec::new() };
    let net = format!("{}/{len}", plain(masked));
    let mut found = Vec::new();
    if address != masked {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let single = format!("{}/{bits}", plain(address));
        found.push(format!("CIDR value {value:?} is ambiguous in this context (should be \"{net}\" or \"{single}\"?)"));
    }
    let strict = value.split_once('/').is_some_and(|(a, l)| a.parse::<IpAddr>().is_ok() && l == len.to_string());
    if !strict || is_mapped(address) {
        found.push(format!("non-standard CIDR value {value:?} is invalid: use \"{net}\""));
    }
    let canonical = format!("{address}/{len}");
    if found.is_empty() && address.is_ipv6() && canonical != value {
        found.push(format!("IPv6 CIDR value {value:?} should be in RFC 5952 canonical format (\"{canonical}\")"));
    }
    found
}
