//! HTTP/1.1: slow, endless and contradictory heads, lengths that lie, connections for nothing.
use super::{Attack, MARK, Random, Target};
use std::{
    io::{self, Read, Write},
    thread,
    time::{Duration, Instant},
};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("slow heads and bodies", slow),
    ("oversized heads", oversized),
    ("broken chunks", chunks),
    ("contradictory lengths", smuggling),
    ("pipelining", pipelining),
    ("upgrades", upgrades),
    ("connection churn", churn),
    ("anonymous floods", anonymous),
    ("watchers that do not read", watchers),
    ("readers of lists that do not read", readers),
    ("huge audited fields", audited),
];

fn slow(target: &Target, random: &mut Random) -> io::Result<()> {
    let start = match random.next(3) {
        0 => "GET /api HTTP/1.1\r\nHost: a\r\nX-A: ".to_owned(),
        1 => "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n".into(),
        _ => "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            .into(),
    };
    let as_admin = random.next(2) == 0;
    let mut streams: Vec<_> = (0..30).map_while(|_| target.stream(as_admin).ok()).collect();
    for stream in &mut streams {
        let _ = stream.write_all(start.as_bytes());
    }
    let end = Instant::now() + super::PATIENCE;
    while Instant::now() < end && !target.is_over() {
        for stream in &mut streams {
            let _ = stream.write_all(b"1");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn oversized(target: &Target, random: &mut Random) -> io::Result<()> {
    let big = "a".repeat(1 << random.next(22));
    let head = match random.next(7) {
        0 => format!("GET /{big} HTTP/1.1\r\nHost: a\r\n\r\n"),
        1 => format!("GET /api?labelSelector={big} HTTP/1.1\r\nHost: a\r\n\r\n"),
        2 => format!("GET /api HTTP/1.1\r\nHost: a\r\nX-A: {big}\r\n\r\n"),
        3 => format!("GET /api HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20_000)),
        4 => format!("{big} /api HTTP/1.1\r\nHost: a\r\n\r\n"),
        5 => format!("GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {MARK}{big}\r\n\r\n"),
        _ => format!("GET /api HTTP/1.1\r\nHost: a\r\nAccept: {}\r\n\r\n", "a/b;c=d,".repeat(8_000)),
    };
    let answer = target.say(random.next(2) == 0, head.as_bytes())?;
    let code = answer.get(9..12).unwrap_or_default();
    assert!(!code.starts_with(b"5"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn chunks(target: &Target, random: &mut Random) -> io::Result<()> {
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let body = match random.next(6) {
        0 => "ffffffffffffffff\r\n{}".to_owned(),
        1 => "-1\r\n{}\r\n0\r\n\r\n".into(),
        2 => format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20)),
        3 => format!("0\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
        4 => "1\r\n{\r\n".repeat(100_000),
        _ => "2\r\n{}0\r\n\r\n".into(),
    };
    target.say(true, format!("{head}{body}").as_bytes())?;
    Ok(())
}

/// Heads that two servers may read as requests of different length: what follows must not be answered as a request of its own,
/// unless there is but one way to read it.
fn smuggling(target: &Target, random: &mut Random) -> io::Result<()> {
    let lengths = [
        "Content-Length: 4\r\nContent-Length: 60",
        "Content-Length: 4, 60",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Content-Length: -1",
        "Content-Length: 99999999999999999999",
        "Content-Length : 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding\u{b}: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: \u{0}y",
        "X: y\rZ: z",
    ];
    let length = random.pick(&lengths);
    let text = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let answer = String::from_utf8_lossy(&target.say(true, text.as_bytes())?).into_owned();
    assert!(!answer.contains("gitVersion"), "{length:?}: {answer}");
    // Both lengths given: chunked counts and the connection ends, or it is refused (RFC 9112, 6.3).
    let both = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /version HTTP/1.1\r\nHost: a\r\n\r\n";
    target.say(true, both.as_bytes())?;
    Ok(())
}

fn pipelining(target: &Target, random: &mut Random) -> io::Result<()> {
    let request = "GET /api/v1/namespaces HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = target.stream(true)?;
    stream.write_all(request.repeat(500).as_bytes())?;
    let mut some = vec![0; random.next(200_000)];
    let _ = stream.read(&mut some);
    Ok(())
}

fn upgrades(target: &Target, random: &mut Random) -> io::Result<()> {
    let path = random.pick(&[
        "/api/v1/namespaces/default/pods/none/exec?command=sh&stdin=true",
        "/api/v1/namespaces/default/pods/none/portforward",
        "/api/v1/namespaces/default/pods/none/attach",
        "/api/v1/namespaces/default/services/none:80/proxy/",
        "/api/v1/nodes/none/proxy/",
        "/api/v1/watch/configmaps",
        "/version",
    ]);
    let protocol = random.pick(&["websocket", "SPDY/3.1", "h2c", "TLS/1.0", "x"]);
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
        random.pick(&["GET", "POST"]),
        random.pick(&["dGhlIHNhbXBsZSBub25jZQ==", "", "x"])
    );
    let noise = random.bytes(10_000);
    let frame = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let mut bytes = head.into_bytes();
    bytes.extend(if random.next(2) == 0 { &noise[..] } else { &frame[..] });
    let mut stream = target.stream(random.next(2) == 0)?;
    let _ = stream.write_all(&bytes);
    let _ = stream.read(&mut [0; 4096]);
    Ok(())
}

fn churn(target: &Target, random: &mut Random) -> io::Result<()> {
    for _ in 0..30 {
        let client = if random.next(2) == 0 { &target.admin } else { &target.anonymous };
        client.try_request("GET", "/version", &[], b"")?;
    }
    Ok(())
}

fn anonymous(target: &Target, random: &mut Random) -> io::Result<()> {
    let token = format!("{MARK}.{}.x", random.next(1_000_000));
    let head = match random.next(3) {
        0 => "GET /version HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        1 => format!("GET /api/v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"),
        _ => "GET /api/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    };
    let mut stream = target.stream(false)?;
    for _ in 0..300 {
        stream.write_all(head.as_bytes())?;
        if stream.read(&mut [0; 8192])? == 0 || target.is_over() {
            break;
        }
    }
    Ok(())
}

fn watchers(target: &Target, random: &mut Random) -> io::Result<()> {
    let path = random.pick(&[
        "/api/v1/configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
        "/api/v1/configmaps?watch=true&resourceVersion=0",
    ]);
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut streams: Vec<_> = (0..40).map_while(|_| target.stream(true).ok()).collect();
    for stream in &mut streams {
        stream.write_all(head.as_bytes())?;
    }
    target.hold();
    Ok(())
}

fn readers(target: &Target, random: &mut Random) -> io::Result<()> {
    let accept = random.pick(&[
        "application/json",
        "application/vnd.kubernetes.protobuf",
        "application/yaml",
        "application/json;as=Table;g=meta.k8s.io;v=v1",
    ]);
    let head = format!("GET /api/v1/configmaps HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
    let mut streams: Vec<_> = (0..20).map_while(|_| target.stream(true).ok()).collect();
    for stream in &mut streams {
        stream.write_all(head.as_bytes())?;
    }
    target.hold();
    Ok(())
}

fn audited(target: &Target, random: &mut Random) -> io::Result<()> {
    let agent = "x".repeat(random.next(30_000));
    let forwarded = "10.0.0.1, ".repeat(random.next(2_000));
    let groups = vec![("Impersonate-Group", agent.get(..1000).unwrap_or("g")); 20];
    let mut headers = vec![("User-Agent", agent.as_str()), ("X-Forwarded-For", forwarded.as_str())];
    headers.extend([("Audit-ID", agent.get(..100).unwrap_or("id")), ("Impersonate-User", "nobody")]);
    headers.extend(groups);
    target.refuse("GET", "/api/v1/secrets", &headers, b"")
}
