//! Addresses, address ranges and URLs: Kubernetes' ip, cidr and urls libraries.
use super::{Context, Function, Outcome, wrong};
use crate::{
    Error,
    opaque::{Opaque, Url},
    value::{Key, Text, Value},
};
use mote_schema::Order as _;
use std::{net::IpAddr, rc::Rc};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "ip", signatures: "s:I .C:I", run: ip },
    Function { name: "isIP", signatures: "s:b", run: |_, args| valid(args, |text| parse_ip(text).is_ok()) },
    Function { name: "ip.isCanonical", signatures: "s:b", run: is_canonical },
    Function {
        name: "family",
        signatures: ".I:i",
        run: |_, args| of_ip(args, |ip| int(if ip.is_ipv4() { 4 } else { 6 })),
    },
    Function {
        name: "isUnspecified",
        signatures: ".I:b",
        run: |_, args| of_ip(args, |ip| Value::Bool(ip.is_unspecified())),
    },
    Function { name: "isLoopback", signatures: ".I:b", run: |_, args| of_ip(args, |ip| Value::Bool(ip.is_loopback())) },
    Function { name: "isLinkLocalMulticast", signatures: ".I:b", run: |_, args| of_ip(args, link_local_multicast) },
    Function { name: "isLinkLocalUnicast", signatures: ".I:b", run: |_, args| of_ip(args, link_local_unicast) },
    Function { name: "isGlobalUnicast", signatures: ".I:b", run: |_, args| of_ip(args, global_unicast) },
    Function { name: "cidr", signatures: "s:C", run: cidr },
    Function { name: "isCIDR", signatures: "s:b", run: |_, args| valid(args, |text| parse_cidr(text).is_ok()) },
    Function { name: "containsIP", signatures: ".Cs:b .CI:b", run: contains_ip },
    Function { name: "containsCIDR", signatures: ".Cs:b .CC:b", run: contains_cidr },
    Function { name: "prefixLength", signatures: ".C:i", run: prefix_length },
    Function { name: "masked", signatures: ".C:C", run: masked },
    Function { name: "url", signatures: "s:U", run: url },
    Function { name: "isURL", signatures: "s:b", run: |_, args| valid(args, |text| parse_url(text).is_ok()) },
    Function { name: "getScheme", signatures: ".U:s", run: |_, args| of_url(args, |url| text(&url.scheme)) },
    Function { name: "getHost", signatures: ".U:s", run: |_, args| of_url(args, |url| text(&url.host)) },
    Function { name: "getHostname", signatures: ".U:s", run: |_, args| of_url(args, |url| text(host_and_port(url).0)) },
    Function { name: "getPort", signatures: ".U:s", run: |_, args| of_url(args, |url| text(host_and_port(url).1)) },
    Function {
        name: "getEscapedPath",
        signatures: ".U:s",
        run: |_, args| of_url(args, |url| text(&escape_path(&url.path))),
    },
    Function { name: "getQuery", signatures: ".U:MsLs", run: |_, args| of_url(args, query) },
];

fn int<'a>(number: i64) -> Value<'a> {
    Value::Int(number)
}
fn text<'a>(text: &str) -> Value<'a> {
    Value::string(text)
}

fn valid<'a>(args: &[Value<'a>], test: fn(&str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(test(text))),
        _ => wrong(),
    }
}

fn opaque<'v, 'a>(value: Option<&'v Value<'a>>) -> Option<&'v Opaque<'a>> {
    match value {
        Some(Value::Opaque(opaque)) => Some(opaque),
        _ => None,
    }
}

fn of_ip<'a>(args: &[Value<'a>], part: fn(&IpAddr) -> Value<'a>) -> Outcome<'a> {
    match opaque(args.first()) {
        Some(Opaque::Ip(ip)) => Ok(part(ip)),
        _ => wrong(),
    }
}

fn of_url<'a>(args: &[Value<'a>], part: fn(&Url) -> Value<'a>) -> Outcome<'a> {
    match opaque(args.first()) {
        Some(Opaque::Url(url)) => Ok(part(url)),
        _ => wrong(),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    let Ok(ip) = text.split('%').next().unwrap_or("").parse::<IpAddr>() else {
        return Err(Error::new(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )));
    };
    if text.contains('%') {
        return Err(Error::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    if is_mapped(&ip) {
        return Err(Error::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(ip)
}

fn is_mapped(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    if let Some(Opaque::Cidr(ip, _)) = opaque(args.first()) {
        return Ok(Value::opaque(Opaque::Ip(*ip)));
    }
    let [Value::String(text)] = args else { return wrong() };
    Ok(Value::opaque(Opaque::Ip(parse_ip(text)?)))
}

fn is_canonical<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    Ok(Value::Bool(parse_ip(text)?.to_string() == **text))
}

fn link_local_multicast<'a>(ip: &IpAddr) -> Value<'a> {
    Value::Bool(match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    })
}

fn link_local_unicast<'a>(ip: &IpAddr) -> Value<'a> {
    Value::Bool(match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    })
}

/// Private addresses count, as Go counts them.
fn global_unicast<'a>(ip: &IpAddr) -> Value<'a> {
    let link_local = matches!(link_local_unicast(ip), Value::Bool(true));
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    Value::Bool(!(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local || broadcast))
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), Error> {
    let wrong = || {
        Error::new(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): no '/'"
        ))
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(wrong)?;
    let ip: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let digits = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let length = bits.parse::<u8>().ok().filter(|length| digits && *length <= most).ok_or_else(wrong)?;
    if is_mapped(&ip) {
        return Err(Error::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok((ip, length))
}

fn cidr<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    let (ip, length) = parse_cidr(text)
        .map_err(|error| Error::new(format!("network address parse error during conversion from string: {error}")))?;
    Ok(Value::opaque(Opaque::Cidr(ip, length)))
}

/// The address without what is behind the prefix.
fn mask(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

fn contains_ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(Opaque::Cidr(net, length)) = opaque(args.first()) else { return wrong() };
    let ip = match args.get(1) {
        Some(Value::String(text)) => parse_ip(text).map_err(|_| Error::no_overload())?,
        other => match opaque(other) {
            Some(Opaque::Ip(ip)) => *ip,
            _ => return wrong(),
        },
    };
    Ok(Value::Bool(ip.is_ipv4() == net.is_ipv4() && mask(*net, *length) == mask(ip, *length)))
}

fn contains_cidr<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(Opaque::Cidr(net, length)) = opaque(args.first()) else { return wrong() };
    let (other, other_length) = match args.get(1) {
        Some(Value::String(text)) => parse_cidr(text).map_err(|_| Error::no_overload())?,
        other => match opaque(other) {
            Some(Opaque::Cidr(ip, length)) => (*ip, *length),
            _ => return wrong(),
        },
    };
    let inside = other.is_ipv4() == net.is_ipv4() && mask(*net, *length) == mask(other, *length);
    Ok(Value::Bool(inside && *length <= other_length))
}

fn prefix_length<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args.first()) {
        Some(Opaque::Cidr(_, length)) => Ok(Value::Int((*length).into())),
        _ => wrong(),
    }
}

fn masked<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args.first()) {
        Some(Opaque::Cidr(ip, length)) => Ok(Value::opaque(Opaque::Cidr(mask(*ip, *length), *length))),
        _ => wrong(),
    }
}

fn url<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    let url = parse_url(text).map_err(|why| {
        Error::new(format!("URL parse error during conversion from string: parse {:?}: {why}", &**text))
    })?;
    Ok(Value::opaque(Opaque::Url(url)))
}

/// An absolute URL, or an absolute path, as Go's `ParseRequestURI` takes them.
fn parse_url(text: &str) -> Result<Url, &'static str> {
    const INVALID: &str = "invalid URI for request";
    if text.is_empty() {
        return Err("empty url");
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL");
    }
    let mut rest = text.split('#').next().unwrap_or("");
    let mut scheme = String::new();
    if let Some(colon) = rest.find(':')
        && rest.starts_with(|c: char| c.is_ascii_alphabetic())
        && rest[..colon].bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        scheme = rest[..colon].to_ascii_lowercase();
        rest = &rest[colon + 1..];
    } else if rest.starts_with(':') {
        return Err("missing protocol scheme");
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    rest = before;
    if !rest.starts_with('/') {
        // Go keeps "mailto:x" as opaque: it has neither host nor path.
        let url =
            Url { text: text.into(), scheme: scheme.into(), host: "".into(), path: "".into(), query: query.into() };
        return if url.scheme.is_empty() { Err(INVALID) } else { Ok(url) };
    }
    let mut host = "";
    if (!scheme.is_empty() || !rest.starts_with("///"))
        && let Some(authority) = rest.strip_prefix("//")
    {
        let end = authority.find('/').unwrap_or(authority.len());
        host = authority[..end].rsplit('@').next().unwrap_or("");
        rest = &authority[end..];
        if host.contains(|c: char| " <>\"".contains(c)) {
            return Err("invalid character in host name");
        }
        let port = if host.starts_with('[') { host.rsplit_once("]:") } else { host.split_once(':') };
        if port.is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit())) {
            return Err("invalid port after host");
        }
    }
    let mut escapes = rest.split('%');
    escapes.next();
    if escapes.any(|part| part.len() < 2 || !part.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err("invalid URL escape");
    }
    Ok(Url { text: text.into(), scheme: scheme.into(), host: host.into(), path: rest.into(), query: query.into() })
}

fn host_and_port(url: &Url) -> (&str, &str) {
    if let Some(inner) = url.host.strip_prefix('[')
        && let Some((address, rest)) = inner.split_once(']')
    {
        return (address, rest.strip_prefix(':').unwrap_or(""));
    }
    url.host.rsplit_once(':').unwrap_or((&url.host, ""))
}

fn escape_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&b) {
            escaped.push(b.into());
        } else {
            escaped.push_str(&format!("%{b:02X}"));
        }
    }
    escaped
}

fn query<'a>(url: &Url) -> Value<'a> {
    let mut entries: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (unescape(key), unescape(value)) else { continue };
        let value = Value::string(value);
        match entries.iter_mut().find(|(name, _)| *name == key) {
            Some((_, values)) => values.push(value),
            None => entries.push((key, vec![value])),
        }
    }
    entries.order_by(|a, b| a.0.cmp(&b.0));
    let key = |name: String| Key::String(Text::Shared(name.into()));
    Value::Map(Rc::new(entries.into_iter().map(|(name, values)| (key(name), Value::list(values))).collect()))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What is wrong with a URI, for the format of that name.
pub fn complaint_of_uri(text: &str) -> Option<String> {
    parse_url(text).err().map(|why| format!("parse {text:?}: {why}"))
}
