//! DNS messages as bytes (RFC 1035, EDNS: RFC 6891): questions in, answers out, and the little that must be known of
//! other servers' answers to pass them on (where their times to live are). No record type is ever refused: what is
//! only passed on is never taken apart.
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const HEADER_LEN: usize = 12;
/// A whole name in wire form, its closing zero included.
const NAME_LIMIT_BYTES: usize = 255;
/// What fits without EDNS.
pub const PLAIN_UDP_LIMIT_BYTES: usize = 512;
/// What we send over UDP at most, and ask others to (the DNS community's common value; below any sane path's MTU).
pub const UDP_LIMIT_BYTES: usize = 1232;
pub const TCP_LIMIT_BYTES: usize = 65535;

pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}
pub const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NameError = 3,
    NotImplemented = 4,
    Refused = 5,
    /// Extended: the upper bits go into the OPT record.
    BadVersion = 16,
}

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const FLAG_CHECKING_DISABLED: u16 = 0x0010;

/// A domain name in wire form, uncompressed, as its asker spelled it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// From dotted text; None when a label or the whole is too long or a label is empty.
    pub fn from_text(text: &str) -> Option<Name> {
        Name::from_labels(text.trim_end_matches('.').split('.').filter(|_| !text.is_empty()))
    }

    pub fn from_labels<'a>(labels: impl Iterator<Item = &'a str>) -> Option<Name> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            if label.is_empty() || label.len() > 63 {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        (wire.len() <= NAME_LIMIT_BYTES).then_some(Name(wire))
    }

    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    pub fn lower(&self) -> Name {
        Name(self.0.to_ascii_lowercase())
    }

    /// Labels from the left. Names are made of checked labels only, so the walk cannot leave the bytes.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first()?;
            let label = tail.get(..usize::from(*len)).filter(|label| !label.is_empty())?;
            rest = &tail[label.len()..];
            Some(label)
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(f, "{}.", String::from_utf8_lossy(label))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub udp_limit: u16,
    pub version: u8,
    pub wants_dnssec: bool,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    flags: u16,
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// Why a message is no question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Not even worth an error: too short, or an answer itself.
    Silent,
    /// To be told, in these bytes.
    Say(Vec<u8>),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..at + 2)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..at + 4)?.first_chunk()?))
}

/// A name at `at`, compressed or not, and where the message goes on after it.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let (mut wire, mut end) = (Vec::new(), None);
    loop {
        let len = *bytes.get(at)?;
        match len {
            0 => {
                wire.push(0);
                return (wire.len() <= NAME_LIMIT_BYTES).then_some((Name(wire), end.unwrap_or(at + 1)));
            }
            1..=63 => {
                wire.extend_from_slice(bytes.get(at..=at + usize::from(len))?);
                at += usize::from(len) + 1;
                if wire.len() > NAME_LIMIT_BYTES {
                    return None;
                }
            }
            0xc0.. => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                end = end.or(Some(at + 2));
                // Only backwards: a pointer that could form a loop is damage.
                if target >= at {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += usize::from(len) + 1,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// A record's fixed part.
struct Record {
    kind: u16,
    class: u16,
    ttl_at: usize,
    ttl: u32,
    data: (usize, usize),
}

fn read_record(bytes: &[u8], at: usize) -> Option<Record> {
    let at = skip_name(bytes, at)?;
    let start = at + 10;
    let end = start + usize::from(u16_at(bytes, at + 8)?);
    bytes.get(start..end)?;
    Some(Record {
        kind: u16_at(bytes, at)?,
        class: u16_at(bytes, at + 2)?,
        ttl_at: at + 4,
        ttl: u32_at(bytes, at + 4)?,
        data: (start, end),
    })
}

impl Query {
    pub fn parse(bytes: &[u8]) -> Result<Query, Reject> {
        let (Some(id), Some(flags)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else { return Err(Reject::Silent) };
        if bytes.len() < HEADER_LEN || flags & FLAG_RESPONSE != 0 {
            return Err(Reject::Silent);
        }
        let say = |code: Code| {
            let flags = FLAG_RESPONSE | flags & (0x7800 | FLAG_RECURSION_DESIRED) | code as u16;
            let mut reply = [id.to_be_bytes(), flags.to_be_bytes()].concat();
            reply.resize(HEADER_LEN, 0);
            Reject::Say(reply)
        };
        if flags & 0x7800 != 0 {
            return Err(say(Code::NotImplemented));
        }
        Query::read(bytes, id, flags).ok_or_else(|| say(Code::FormatError))
    }

    fn read(bytes: &[u8], id: u16, flags: u16) -> Option<Query> {
        let count = |at| u16_at(bytes, at);
        if (count(4)?, count(6)?, count(8)?) != (1, 0, 0) {
            return None;
        }
        let (name, at) = read_name(bytes, HEADER_LEN)?;
        let (kind, class) = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
        let (mut at, mut edns) = (at + 4, None);
        for _ in 0..count(10)? {
            let record = read_record(bytes, at)?;
            if record.kind == kind::OPT {
                if edns.is_some() {
                    return None;
                }
                edns = Some(Edns {
                    udp_limit: record.class,
                    version: (record.ttl >> 16) as u8,
                    wants_dnssec: record.ttl & 0x8000 != 0,
                });
            }
            at = record.data.1;
        }
        Some(Query { id, flags, name, kind, class, edns })
    }

    #[cfg(test)]
    pub fn new(id: u16, name: Name, kind: u16) -> Query {
        let edns = Some(Edns { udp_limit: UDP_LIMIT_BYTES as u16, version: 0, wants_dnssec: false });
        Query { id, flags: FLAG_RECURSION_DESIRED, name, kind, class: CLASS_IN, edns }
    }

    /// The same question about another name.
    pub fn about(&self, name: &Name) -> Query {
        Query { name: name.clone(), ..self.clone() }
    }

    /// How long an answer over UDP may be.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(PLAIN_UDP_LIMIT_BYTES, |edns| {
            usize::from(edns.udp_limit).clamp(PLAIN_UDP_LIMIT_BYTES, UDP_LIMIT_BYTES)
        })
    }

    pub fn checking_disabled(&self) -> bool {
        self.flags & FLAG_CHECKING_DISABLED != 0
    }

    /// The same question for another server.
    pub fn to_bytes(&self, id: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let flags = self.flags & FLAG_CHECKING_DISABLED | FLAG_RECURSION_DESIRED;
        for word in [id, flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend(word.to_be_bytes());
        }
        self.put_question(&mut out);
        if let Some(edns) = self.edns {
            put_opt(&mut out, 0, edns.wants_dnssec);
        }
        out
    }

    fn put_question(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.wire());
        out.extend(self.kind.to_be_bytes());
        out.extend(self.class.to_be_bytes());
    }
}

fn put_opt(out: &mut Vec<u8>, code: u16, wants_dnssec: bool) {
    out.push(0);
    out.extend(kind::OPT.to_be_bytes());
    out.extend((UDP_LIMIT_BYTES as u16).to_be_bytes());
    out.extend([(code >> 4) as u8, 0, if wants_dnssec { 0x80 } else { 0 }, 0]);
    out.extend([0, 0]);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(Name),
    Ptr(Name),
    Ns(Name),
    Txt(&'static str),
    Srv { priority: u16, weight: u16, port: u16, target: Name },
    Soa { server: Name, mailbox: Name, serial: u32, refresh: u32, retry: u32, expire: u32, minimum: u32 },
}

impl Data {
    pub fn address(ip: IpAddr) -> Data {
        match ip {
            IpAddr::V4(ip) => Data::A(ip),
            IpAddr::V6(ip) => Data::Aaaa(ip),
        }
    }

    pub fn kind(&self) -> u16 {
        match self {
            Data::A(_) => kind::A,
            Data::Aaaa(_) => kind::AAAA,
            Data::Cname(_) => kind::CNAME,
            Data::Ptr(_) => kind::PTR,
            Data::Ns(_) => kind::NS,
            Data::Txt(_) => kind::TXT,
            Data::Srv { .. } => kind::SRV,
            Data::Soa { .. } => kind::SOA,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// An answer being written. Sections must be filled in order. What does not fit is left out, and marked so unless
/// it was additional.
pub struct Reply {
    out: Vec<u8>,
    limit: usize,
    edns: Option<Edns>,
    code: Code,
    full: bool,
    /// Where a name's end part (lower case) stands already.
    seen: HashMap<Vec<u8>, u16>,
}

impl Reply {
    pub fn new(query: &Query, code: Code, authoritative: bool, limit: usize) -> Reply {
        let mut flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | query.flags & FLAG_RECURSION_DESIRED;
        flags |= code as u16 & 0xf;
        if authoritative {
            flags |= FLAG_AUTHORITATIVE;
        }
        let mut out = Vec::with_capacity(256);
        for word in [query.id, flags, 1, 0, 0, 0] {
            out.extend(word.to_be_bytes());
        }
        let mut reply = Reply {
            out,
            limit: if query.edns.is_some() { limit - 11 } else { limit },
            edns: query.edns,
            code,
            full: false,
            seen: HashMap::new(),
        };
        reply.put_name(&query.name, true);
        reply.out.extend(query.kind.to_be_bytes());
        reply.out.extend(query.class.to_be_bytes());
        reply
    }

    pub fn push(&mut self, section: Section, name: &Name, ttl: u32, data: &Data) {
        if self.full {
            return;
        }
        let start = self.out.len();
        self.put_name(name, true);
        self.out.extend(data.kind().to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend([0, 0]);
        self.put_data(data);
        let length = (self.out.len() - length_at - 2) as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        if self.out.len() > self.limit {
            self.out.truncate(start);
            self.full = true;
            if section != Section::Additional {
                self.out[2] |= (FLAG_TRUNCATED >> 8) as u8;
            }
            return;
        }
        self.count(section);
    }

    fn count(&mut self, section: Section) {
        let at = section as usize;
        let count = u16::from_be_bytes([self.out[at], self.out[at + 1]]).saturating_add(1);
        self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn put_data(&mut self, data: &Data) {
        match data {
            Data::A(ip) => self.out.extend(ip.octets()),
            Data::Aaaa(ip) => self.out.extend(ip.octets()),
            Data::Cname(name) | Data::Ptr(name) | Data::Ns(name) => self.put_name(name, true),
            Data::Txt(text) => {
                self.out.push(text.len() as u8);
                self.out.extend_from_slice(text.as_bytes());
            }
            Data::Srv { priority, weight, port, target } => {
                for word in [priority, weight, port] {
                    self.out.extend(word.to_be_bytes());
                }
                // RFC 2782: not compressed.
                self.put_name(target, false);
            }
            Data::Soa { server, mailbox, serial, refresh, retry, expire, minimum } => {
                self.put_name(server, true);
                self.put_name(mailbox, true);
                for word in [serial, refresh, retry, expire, minimum] {
                    self.out.extend(word.to_be_bytes());
                }
            }
        }
    }

    fn put_name(&mut self, name: &Name, compress: bool) {
        let (wire, lower) = (name.wire(), name.wire().to_ascii_lowercase());
        let mut at = 0;
        while at < wire.len() && wire[at] != 0 {
            if compress && let Some(seen) = self.seen.get(&lower[at..]) {
                self.out.extend((seen | 0xc000).to_be_bytes());
                return;
            }
            if let Some(here) = u16::try_from(self.out.len()).ok().filter(|here| *here < 0x4000) {
                self.seen.entry(lower[at..].to_vec()).or_insert(here);
            }
            let end = at + usize::from(wire[at]) + 1;
            self.out.extend_from_slice(&wire[at..end]);
            at = end;
        }
        self.out.push(0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        if let Some(edns) = self.edns {
            put_opt(&mut self.out, self.code as u16, edns.wants_dnssec);
            self.count(Section::Additional);
        }
        self.out
    }
}

/// What is known of another server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub code: u8,
    pub truncated: bool,
    /// Where the times to live stand.
    pub ttls_at: Vec<u16>,
    /// Seconds this may be kept (RFC 2308 for what is not there).
    pub ttl: u32,
}

/// Whether `bytes` answers the question that was asked as `id`, and what is to be known of it. None is not ours.
pub fn read_answer(bytes: &[u8], id: u16, asked: &Query) -> Option<Passed> {
    let flags = u16_at(bytes, 2)?;
    if u16_at(bytes, 0)? != id || flags & FLAG_RESPONSE == 0 || u16_at(bytes, 4)? != 1 {
        return None;
    }
    let (name, at) = read_name(bytes, HEADER_LEN)?;
    if name.lower() != asked.name.lower() || u16_at(bytes, at)? != asked.kind || u16_at(bytes, at + 2)? != asked.class {
        return None;
    }
    let (answers, authorities, additionals) = (u16_at(bytes, 6)?, u16_at(bytes, 8)?, u16_at(bytes, 10)?);
    let (mut at, mut ttls_at, mut least, mut negative) = (at + 4, Vec::new(), u32::MAX, None);
    let all = u32::from(answers) + u32::from(authorities) + u32::from(additionals);
    for index in 0..all {
        let record = read_record(bytes, at)?;
        at = record.data.1;
        if record.kind == kind::OPT {
            continue;
        }
        if record.kind == kind::SOA && index >= answers.into() {
            negative = u32_at(bytes, record.data.1.checked_sub(4)?).map(|minimum| minimum.min(record.ttl));
        }
        least = least.min(record.ttl);
        ttls_at.extend(u16::try_from(record.ttl_at).ok());
    }
    let ttl = match (answers, negative) {
        (0, Some(negative)) => negative.min(least),
        // An answer without records and without a reason is not to be kept.
        (0, None) => 0,
        _ => least,
    };
    Some(Passed { code: (flags & 0xf) as u8, truncated: flags & FLAG_TRUNCATED != 0, ttls_at, ttl })
}

/// The addresses and names of an answer's answer section, to be said again after a CNAME of our own.
pub fn answers_of(bytes: &[u8]) -> Vec<(Name, u32, Data)> {
    let mut records = Vec::new();
    let Some((_, at)) = read_name(bytes, HEADER_LEN) else { return records };
    let mut at = at + 4;
    for _ in 0..u16_at(bytes, 6).unwrap_or(0) {
        let (Some((name, _)), Some(record)) = (read_name(bytes, at), read_record(bytes, at)) else { break };
        let (start, end) = record.data;
        let octets = &bytes[start..end];
        let data = match record.kind {
            kind::A => octets.first_chunk::<4>().map(|b| Data::A((*b).into())),
            kind::AAAA => octets.first_chunk::<16>().map(|b| Data::Aaaa((*b).into())),
            kind::CNAME => read_name(bytes, start).map(|(name, _)| Data::Cname(name)),
            _ => None,
        };
        records.extend(data.map(|data| (name, record.ttl, data)));
        at = end;
    }
    records
}

/// Another server's answer as this asker is to have it: with its id and spelling, aged, and cut if it is too long.
pub fn pass_on(answer: &[u8], known: &Passed, age_seconds: u32, query: &Query, limit: usize) -> Vec<u8> {
    let mut out = answer.to_vec();
    out[..2].copy_from_slice(&query.id.to_be_bytes());
    let name = query.name.wire();
    if let Some(spelled) = out.get_mut(HEADER_LEN..HEADER_LEN + name.len()) {
        spelled.copy_from_slice(name);
    }
    for at in &known.ttls_at {
        let at = usize::from(*at);
        if let Some(ttl) = u32_at(&out, at) {
            out[at..at + 4].copy_from_slice(&ttl.saturating_sub(age_seconds).to_be_bytes());
        }
    }
    if out.len() > limit {
        out.truncate(HEADER_LEN + name.len() + 4);
        out[2] |= (FLAG_TRUNCATED >> 8) as u8;
        out[6..12].fill(0);
        if let Some(edns) = query.edns {
            put_opt(&mut out, 0, edns.wants_dnssec);
            out[11] = 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    fn answered(query: &Query, records: &[(&str, u32, Data)], limit: usize) -> Vec<u8> {
        let mut reply = Reply::new(query, Code::NoError, true, limit);
        for (owner, ttl, data) in records {
            reply.push(Section::Answer, &name(owner), *ttl, data);
        }
        reply.finish()
    }

    #[test]
    fn questions_read_back() {
        let query = Query::new(7, name("Web.Default.svc.cluster.local"), kind::AAAA);
        assert_eq!(Query::parse(&query.to_bytes(7)).unwrap(), query);
        assert_eq!(query.name.to_string(), "Web.Default.svc.cluster.local.");
        assert_eq!((query.udp_limit(), Name::from_text("").unwrap().wire()), (1232, &[0u8][..]));
    }

    #[test]
    fn damaged_questions_are_refused_and_never_panic() {
        let whole = Query::new(7, name("web.default.svc.cluster.local"), kind::A).to_bytes(7);
        for cut in 0..whole.len() {
            let got = Query::parse(&whole[..cut]);
            assert_eq!(matches!(got, Err(Reject::Silent)), cut < HEADER_LEN, "{cut}: {got:?}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = Query::parse(&bytes);
                let _ = read_answer(&bytes, 7, &Query::new(7, name("x"), kind::A));
                let _ = answers_of(&bytes);
            }
        }
        let code = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            match Query::parse(&bytes) {
                Err(Reject::Say(reply)) => Some(reply[3] & 0xf),
                _ => None,
            }
        };
        assert_eq!(code(&|b| b[2] |= 0x10), Some(Code::NotImplemented as u8));
        assert_eq!(code(&|b| b[5] = 2), Some(Code::FormatError as u8), "two questions");
        assert_eq!(code(&|b| b[12] = 0xc0), Some(Code::FormatError as u8), "a pointer forwards");
        assert_eq!(code(&|b| b[2] |= 0x80), None, "an answer");
        assert!(Name::from_text(&"a".repeat(64)).is_none() && Name::from_text(&"a.".repeat(128)).is_none());
    }

    #[test]
    fn answers_compress_age_and_are_cut() {
        let query = Query::new(9, name("a.example"), kind::A);
        let record = |n: u8| ("a.example", 60, Data::A([10, 0, 0, n].into()));
        let bytes = answered(&query, &[record(1), record(2)], 1232);
        // header, question, two records of a pointer each, OPT
        assert_eq!(bytes.len(), 12 + 15 + 2 * 16 + 11);
        let known = read_answer(&bytes, 9, &query).unwrap();
        assert_eq!((known.code, known.truncated, known.ttl, known.ttls_at.len()), (0, false, 60, 2));
        assert!(read_answer(&bytes, 8, &query).is_none(), "another id");
        assert!(read_answer(&bytes, 9, &Query::new(9, name("b.example"), kind::A)).is_none(), "another name");

        let other = Query { id: 77, ..Query::new(0, name("A.eXample"), kind::A) };
        let passed = pass_on(&bytes, &known, 25, &other, 1232);
        assert_eq!(read_answer(&passed, 77, &query).unwrap().ttl, 35);
        assert_eq!(Query::parse(&other.to_bytes(1)).unwrap().name.to_string(), "A.eXample.");
        let cut = pass_on(&bytes, &known, 0, &other, 50);
        let known = read_answer(&cut, 77, &query).unwrap();
        assert!(known.truncated && known.ttls_at.is_empty());

        let many: Vec<_> = (0..100).map(record).collect();
        let bytes = answered(&query, &many, 512);
        assert!(bytes.len() <= 512 && read_answer(&bytes, 9, &query).unwrap().truncated);
        assert_eq!(answers_of(&answered(&query, &many, TCP_LIMIT_BYTES)).len(), 100);
    }
}
