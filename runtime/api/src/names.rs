//! Host names to addresses: /etc/hosts, then the servers of /etc/resolv.conf over UDP (RFC 1035). The C library's
//! resolver loads its parts at run time, which a static binary cannot count on, and weighs 0.1 MB. No cache: those
//! who call keep their connections. What does not fit one datagram is used as far as it came.
use async_io::{Async, Timer};
use futures_lite::FutureExt as _;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

const PORT: u16 = 53;
const TIMEOUT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Of resolv.conf, as the C library.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 6;
const MAX_DATAGRAM_BYTES: usize = 1232;
const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
const NO_SUCH_NAME: u8 = 3;

/// Empty when nobody knows the name.
pub async fn lookup(name: &str) -> Vec<IpAddr> {
    let read = |path: &'static str| crate::unblock(move || std::fs::read_to_string(path).unwrap_or_default());
    let found = in_hosts(&read("/etc/hosts").await, name);
    if !found.is_empty() {
        return found;
    }
    let resolv_conf = read("/etc/resolv.conf").await;
    let (servers, searches) = configuration(&resolv_conf);
    for name in candidates(name, &searches) {
        let mut found = ask(&servers, &name, A).await;
        if found.is_empty() {
            found = ask(&servers, &name, AAAA).await;
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or(""));
    let lines = lines.filter_map(|line| line.trim().split_once(char::is_whitespace));
    let named = lines.filter(|(_, names)| names.split_whitespace().any(|known| known.eq_ignore_ascii_case(name)));
    named.filter_map(|(ip, _)| ip.parse().ok()).collect()
}

/// Name servers and search domains.
fn configuration(text: &str) -> (Vec<IpAddr>, Vec<&str>) {
    let (mut servers, mut searches) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok())),
            Some("search" | "domain") => searches = words.take(MAX_SEARCHES).collect(),
            _ => {}
        }
    }
    servers.truncate(MAX_SERVERS);
    (servers, searches)
}

/// A name with a dot is tried as it is first, one without in the search domains first (ndots 1).
fn candidates(name: &str, searches: &[&str]) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut all: Vec<String> = searches.iter().map(|domain| format!("{name}.{}", domain.trim_matches('.'))).collect();
    all.insert(if name.contains('.') { 0 } else { all.len() }, name.to_owned());
    all
}

async fn ask(servers: &[IpAddr], name: &str, kind: u16) -> Vec<IpAddr> {
    let id = u16::from_ne_bytes(crate::registry::random());
    let Some(query) = query(id, name, kind) else { return Vec::new() };
    for _ in 0..ROUNDS {
        for server in servers {
            let late = async {
                Timer::after(TIMEOUT).await;
                Err(io::Error::from(io::ErrorKind::TimedOut))
            };
            // A server that does not answer, or not to this, leaves it to the next.
            if let Ok(found) = exchange(SocketAddr::new(*server, PORT), &query, kind).or(late).await {
                return found;
            }
        }
    }
    Vec::new()
}

async fn exchange(server: SocketAddr, query: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
    let any: SocketAddr =
        if server.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let socket = Async::<UdpSocket>::bind(any)?;
    socket.get_ref().connect(server)?;
    socket.send(query).await?;
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        // Somebody else's guess.
        if answer.get(..2) != query.get(..2) || answer.get(2).is_none_or(|flags| flags & 0x80 == 0) {
            continue;
        }
        return match answer.get(3).map(|flags| flags & 0x0f) {
            Some(0) => Ok(addresses(answer, kind).unwrap_or_default()),
            Some(NO_SUCH_NAME) => Ok(Vec::new()),
            _ => Err(io::Error::other("the name server cannot answer")),
        };
    }
}

/// None: no name of the DNS.
fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 18);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 || name.len() > 253 {
            return None;
        }
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend(INTERNET.to_be_bytes());
    Some(out)
}

/// Those of the wanted type, whatever aliases lead to them: a recursive server follows them itself.
fn addresses(answer: &[u8], kind: u16) -> Option<Vec<IpAddr>> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = after_name(answer, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = after_name(answer, at)?;
        let (type_, length) = (number(at)?, usize::from(number(at + 8)?));
        let Some(data) = answer.get(at + 10..at + 10 + length) else { break };
        if type_ == kind {
            found.extend(<[u8; 4]>::try_from(data).ok().map(IpAddr::from));
            found.extend(<[u8; 16]>::try_from(data).ok().map(IpAddr::from));
        }
        at += 10 + length;
    }
    Some(found)
}

fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends a name.
            head if head & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let hosts = "127.0.0.1 localhost # me\n\n  10.0.0.5\tdb Db.Example.org\nrubbish\n::1 localhost\nx y";
        for (name, want) in [
            ("localhost", &["127.0.0.1", "::1"][..]),
            ("DB", &["10.0.0.5"]),
            ("db.example.org", &["10.0.0.5"]),
            ("me", &[]),
            ("y", &[]),
        ] {
            let found: Vec<String> = in_hosts(hosts, name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn search_domains() {
        let (servers, searches) =
            configuration("# x\nnameserver 10.0.0.1\nnameserver bad\nnameserver fe80::1\nsearch a.b c.\noptions x");
        assert_eq!(servers.len(), 2);
        for (name, want) in
            [("h", &["h.a.b", "h.c", "h"][..]), ("h.x", &["h.x", "h.x.a.b", "h.x.c"]), ("h.x.", &["h.x"])]
        {
            assert_eq!(candidates(name, &searches), want, "{name}");
        }
    }

    #[test]
    fn questions_and_answers() {
        let asked = query(7, "a.bc", A).unwrap();
        assert_eq!(asked, b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01");
        for bad in ["", "a..b", &"x".repeat(64), &["abcdefgh"; 40].join(".")] {
            assert_eq!(query(7, bad, A), None, "{bad}");
        }
        // An alias by pointer, then its address.
        let mut answer = asked.clone();
        (answer[2], answer[7]) = (0x81, 2);
        answer.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01z\xc0\x0c");
        answer.extend(b"\xc0\x16\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x05");
        assert_eq!(addresses(&answer, A), Some(vec![IpAddr::from([10, 0, 0, 5])]));
        assert_eq!(addresses(&answer, AAAA), Some(vec![]));
        // Cut anywhere it is less, never a panic.
        for end in 0..answer.len() {
            assert!(addresses(&answer[..end], A).unwrap_or_default().is_empty());
        }
    }
}
