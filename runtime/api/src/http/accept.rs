//! What a client wants to get: its Accept header as upstream reads it (goautoneg), and whether JSON is written for people.
use super::request::{Body, Query, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use mote_schema::{Order as _, Status, protobuf};
use std::cmp::Ordering;

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Clauses of one header at most; the rest is not looked at.
const MAX_CLAUSES: usize = 32;

/// One `type/subtype;name=value`.
pub(crate) struct Clause<'a> {
    pub media: &'a str,
    weight: f32,
    parameters: &'a str,
}

impl<'a> Clause<'a> {
    /// The parameters but `q`, in the order they came.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.parameters.split(';').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.trim(), value.trim())).filter(|(name, value)| *name != "q" && !value.is_empty())
    }

    /// Whether the clause means this media type.
    pub fn takes(&self, media: &str) -> bool {
        match self.media.split_once('/') {
            Some(("*", "*")) => true,
            Some((kind, "*")) => media.split('/').next() == Some(kind),
            _ => self.media == "*" || self.media == media,
        }
    }

    fn stars(&self) -> usize {
        self.media.matches('*').count()
    }
}

/// The client's clauses, the one it likes best first.
pub(crate) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = Vec::new();
    for part in accept.split(',').take(MAX_CLAUSES) {
        let (media, parameters) = part.split_once(';').unwrap_or((part, ""));
        let weight = parameters.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| name.trim() == "q");
        let weight = weight.map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
        clauses.push(Clause { media: media.trim(), weight, parameters });
    }
    let order = |a: &Clause<'_>, b: &Clause<'_>| {
        let heavier = b.weight.partial_cmp(&a.weight).unwrap_or(Ordering::Equal);
        heavier.then_with(|| a.stars().cmp(&b.stars()))
    };
    clauses.order_by(order);
    clauses
}

/// Upstream's router looks at a request before its handler does: one of the media types, or any, is named in the header.
pub(crate) fn is_produced(accept: &str) -> bool {
    let mut named = accept.split(',').map(|part| part.split(';').next().unwrap_or("").trim());
    accept.is_empty() || named.any(|media| matches!(media, "*/*" | JSON | YAML | PROTOBUF))
}

/// `?pretty`, else the programs that people look through (negotiation.isPrettyPrint).
pub(crate) fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(asked) = query.get("pretty").filter(|text| !text.is_empty()) {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|program| agent.starts_with(program))
}

/// A refusal in the encoding the client asked for; when it takes none of ours, JSON that a person can read
/// (responsewriters.ErrorNegotiated).
pub(super) fn refusal(status: &Status, accept: &str, pretty: bool) -> (&'static str, Bytes) {
    let value = status.to_value();
    let mut asked = None;
    for clause in clauses(accept) {
        // A refusal is never a Table or metadata.
        if clause.parameters().any(|(name, _)| matches!(name, "as" | "g" | "v")) {
            continue;
        }
        asked = [JSON, YAML, PROTOBUF].into_iter().find(|media| clause.takes(media));
        if asked.is_some() {
            break;
        }
    }
    let mut out = Vec::new();
    match asked {
        Some(PROTOBUF) => protobuf::write_status(&value, &mut out),
        Some(YAML) => out = mote_schema::prune::to_yaml(&value).unwrap_or_default().into_bytes(),
        _ => {
            let text = value.to_string();
            if pretty || asked.is_none() && !accept.is_empty() {
                Indent::default().write(text.as_bytes(), &mut out);
            } else {
                out = text.into_bytes();
                out.push(b'\n');
            }
        }
    }
    (asked.unwrap_or(JSON), out.into())
}

/// Gives a refusal its bytes.
pub(super) fn settle(mut response: Response, accept: &str, pretty: bool) -> Response {
    if let Body::Status(status) = &response.body {
        let (media, bytes) = refusal(status, accept, pretty);
        response.headers.push((header::CONTENT_TYPE, HeaderValue::from_static(media)));
        response.body = Body::Full(bytes);
    }
    response
}

/// Compact JSON to JSON with a line a value, two spaces a level, as Go's MarshalIndent; in pieces of any size.
#[derive(Default)]
pub(crate) struct Indent {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// A list or object was opened and nothing is in it yet.
    opened: bool,
}

impl Indent {
    pub fn write(&mut self, json: &[u8], out: &mut Vec<u8>) {
        out.reserve(json.len() * 2);
        for &byte in json {
            if self.in_string {
                out.push(byte);
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            // An empty list or object stays on its line.
            if closes != self.opened {
                self.line(out);
            }
            self.opened = false;
            out.push(byte);
            match byte {
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(out),
                b':' => out.push(b' '),
                b'"' => self.in_string = true,
                _ => {}
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        for _ in 0..self.depth {
            out.extend_from_slice(b"  ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Value, json};

    #[test]
    fn clauses_in_the_clients_order() {
        let order = |accept| clauses(accept).iter().map(|clause| clause.media).collect::<Vec<_>>().join(" ");
        for (accept, want) in [
            ("a/b", "a/b"),
            ("a/b;q=0.5, c/d", "c/d a/b"),
            ("*/*, a/*, a/b", "a/b a/* */*"),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                "application/vnd.kubernetes.protobuf application/json",
            ),
        ] {
            assert_eq!(order(accept), want, "{accept}");
        }
        let clauses = clauses("application/json; as=Table ;v=v1;q=0.9;g=meta.k8s.io;x");
        let parameters: Vec<_> = clauses[0].parameters().collect();
        assert_eq!(parameters, [("as", "Table"), ("v", "v1"), ("g", "meta.k8s.io")]);
    }

    #[test]
    fn json_for_people() {
        let value = json!({"a": {}, "b": [], "c": [1, {"d": "x\"{,\\", "e": null}], "f": [[]]});
        let text = value.to_string();
        for size in [1, 3, text.len()] {
            let (mut indent, mut out) = (Indent::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                indent.write(piece, &mut out);
            }
            assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn who_reads_pretty() {
        let pretty = |query: &str, agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            is_pretty(&headers, &Query::parse(query))
        };
        assert!(pretty("", "curl/8.0") && pretty("pretty=1", "kubectl/v1.36") && pretty("pretty=true", ""));
        assert!(!pretty("pretty=0", "curl/8.0") && !pretty("pretty=yes", "") && !pretty("", "kubectl"));
    }

    #[test]
    fn refusals_are_negotiated() {
        let status = Status::not_found("", "pods", "x");
        let sent = |accept| refusal(&status, accept, false);
        let compact = status.to_value().to_string() + "\n";
        for accept in ["", "*/*", "application/json", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"] {
            assert_eq!(sent(accept), (JSON, Bytes::from(compact.clone())), "{accept}");
        }
        let (media, bytes) = sent("application/vnd.kubernetes.protobuf,application/json");
        let envelope = protobuf::envelope(&bytes).unwrap();
        assert_eq!((media, envelope.api_version.as_str(), envelope.kind.as_str()), (PROTOBUF, "v1", "Status"));
        let (media, bytes) = sent("text/html");
        assert_eq!((media, serde_json::from_slice::<Value>(&bytes).unwrap()), (JSON, status.to_value()));
        assert!(bytes.starts_with(b"{\n  \""));
        assert_eq!(sent("application/yaml").0, YAML);
    }
}
