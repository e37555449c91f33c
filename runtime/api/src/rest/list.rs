//! GET: one object, or a list that is one root of the store read in chunks.
use super::{
    media::{self, Form, JSON, Shape},
    options::{ListOptions, Match},
};
use crate::{
    Object, feed,
    http::{Request, Response},
    server::Api,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_lite::stream;
use mote_schema::{Cause, Kind, Status};
use mote_store::{Entry, Error, Snapshot};
use serde_json::{Value, json};
use std::{io, sync::Arc};

/// Answers longer than this are sent in chunks of about this size, so a LIST costs no memory for its length.
const CHUNK_BYTES: usize = 64 * 1024;

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub(crate) async fn get(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    let form = media::negotiate(request.header(http::header::ACCEPT))?;
    let options = ListOptions::parse(&request.query, kind, "")?;
    fresh_enough(api, options.revision)?;
    let object = api.current(kind, &request.info.namespace, &request.info.name).await?;
    media::respond(200, &object, form)
}

/// Refuses a resourceVersion that the store has not reached.
pub(crate) fn fresh_enough(api: &Api, asked: Option<u64>) -> Result<(), Status> {
    let current = api.store.revision();
    match asked {
        Some(asked) if asked > current => Err(too_large(asked, current)),
        _ => Ok(()),
    }
}

/// storage.NewTooLargeResourceVersionError
pub(crate) fn too_large(asked: u64, current: u64) -> Status {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut status = Status::new(504, "Timeout", message);
    status.causes = vec![Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    status.retry_after_seconds = Some(1);
    status
}

/// Where a continued list goes on: {"v", "rv", "start"} as upstream encodes it (apiserver/pkg/storage/continue.go).
/// A revision of -1 takes the newest state, consistent or not.
fn continue_token(revision: i64, last: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{last}\u{0}")});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parse_token(text: &str) -> Result<(i64, String), Status> {
    let refuse = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| refuse(&error.to_string()))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
    if token["v"] != "meta.k8s.io/v1" {
        return Err(refuse(&format!("server does not recognize this encoded version {}", token["v"])));
    }
    let start = token["start"].as_str().unwrap_or("");
    let revision = token["rv"].as_i64().unwrap_or(0);
    match start.strip_suffix('\u{0}') {
        Some(last) if !last.is_empty() && !last.contains("..") && revision != 0 => Ok((revision, last.to_owned())),
        _ => Err(refuse("encoded start key or revision is missing")),
    }
}

struct Page {
    objects: Vec<Entry>,
    revision: u64,
    next: Option<String>,
    remaining: Option<usize>,
}

pub(crate) async fn list(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    let form = media::negotiate(request.header(http::header::ACCEPT))?;
    let options = ListOptions::parse(&request.query, kind, &request.info.name)?;
    let prefix = api.list_prefix(kind, &request.info.namespace);
    let page = page(api, kind, &prefix, &options)?;
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = Value::from(next.as_str());
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = Value::from(remaining);
    }
    let objects = crate::custom::convert::entries(api, kind, page.objects).await?;
    encode(kind, objects, metadata, form, request)
}

fn page(api: &Api, kind: &Arc<Kind>, prefix: &str, options: &ListOptions) -> Result<Page, Status> {
    api.check_readable(prefix)?;
    let (snapshot, after) = state(api, prefix, options)?;
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut objects: Vec<Entry> = Vec::new();
    let mut more = false;
    let mut remaining = 0usize;
    for entry in snapshot.range(prefix, after.as_deref()) {
        if objects.len() < limit {
            if options.filter.is_empty() || options.filter.matches(&feed::object(kind, &entry)) {
                objects.push(entry);
            }
        } else if options.filter.is_empty() {
            (more, remaining) = (true, remaining + 1);
        } else if options.filter.matches(&feed::object(kind, &entry)) {
            more = true;
            break;
        }
    }
    let revision = i64::try_from(snapshot.revision()).unwrap_or(i64::MAX);
    let token = |entry: &Entry| continue_token(revision, entry.key.strip_prefix(prefix).unwrap_or(""));
    Ok(Page {
        next: objects.last().filter(|_| more).map(token),
        remaining: (more && options.filter.is_empty()).then_some(remaining),
        revision: snapshot.revision(),
        objects,
    })
}

/// Which root is listed, and after which key.
fn state(api: &Api, prefix: &str, options: &ListOptions) -> Result<(Snapshot, Option<String>), Status> {
    if !options.continue_token.is_empty() {
        let (revision, last) = parse_token(&options.continue_token)?;
        let after = Some(format!("{prefix}{last}"));
        let Ok(revision) = u64::try_from(revision) else { return Ok((api.store.snapshot(), after)) };
        return match api.store.snapshot_at(revision) {
            Ok(snapshot) => Ok((snapshot, after)),
            Err(_) => {
                let mut status = Status::new(410, "Expired", TOO_OLD);
                status.continue_token = Some(continue_token(-1, &last));
                Err(status)
            }
        };
    }
    match (options.revision, options.revision_match) {
        (Some(revision), matching)
            if matching == Match::Exact || matching == Match::Unset && options.limit > 0 && revision > 0 =>
        {
            match api.store.snapshot_at(revision) {
                Ok(snapshot) => Ok((snapshot, None)),
                Err(Error::Future { current, .. }) => Err(too_large(revision, current)),
                Err(_) => Err(Status::expired("The resourceVersion for the provided list is too old.")),
            }
        }
        (revision, _) => {
            fresh_enough(api, revision)?;
            Ok((api.store.snapshot(), None))
        }
    }
}

fn encode(
    kind: &Arc<Kind>,
    entries: Vec<Entry>,
    metadata: Value,
    form: Form,
    request: &Request,
) -> Result<Response, Status> {
    match form.shape {
        Shape::Table => {
            let objects: Vec<Object> = entries.iter().map(|entry| feed::object(kind, entry)).collect();
            let options = crate::print::Options {
                include: crate::print::Include::parse(request.query.get("includeObject").unwrap_or(""))?,
                metadata,
                ..Default::default()
            };
            let mut out = Vec::new();
            crate::print::write_table(kind, &objects, &options, &mut out);
            Ok(Response::json(200, out))
        }
        Shape::Object if form.yaml => {
            let items: Vec<Value> = entries.iter().map(|entry| feed::object(kind, entry).to_value()).collect();
            let list = json!({"kind": kind.list_kind.to_string(), "apiVersion": kind.api_version(), "metadata": metadata, "items": items});
            media::document(200, &list, form)
        }
        shape => Ok(stream_json(kind.clone(), entries, metadata, shape)),
    }
}

/// `{"kind":…,"apiVersion":…,"metadata":…,"items":[…]}`, encoded as it is sent.
fn stream_json(kind: Arc<Kind>, entries: Vec<Entry>, metadata: Value, shape: Shape) -> Response {
    let (list_kind, version) = match shape {
        Shape::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        _ => (kind.list_kind.to_string(), kind.api_version()),
    };
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        Value::from(list_kind),
        Value::from(version)
    );
    let mut writer = Writer { kind, entries, at: 0, shape, out: head.into_bytes() };
    if writer.fill() {
        return Response::json(200, writer.out);
    }
    let chunks = stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let chunk = Bytes::from(std::mem::take(&mut writer.out));
        // The last chunk is in `out` when filling is done.
        let rest = if writer.at > writer.entries.len() {
            None
        } else {
            writer.fill();
            Some(writer)
        };
        Some((Ok::<Bytes, io::Error>(chunk), rest))
    });
    Response::stream(200, JSON, Box::pin(chunks))
}

struct Writer {
    kind: Arc<Kind>,
    entries: Vec<Entry>,
    /// The next entry to write; past the end once the closing brackets are written.
    at: usize,
    shape: Shape,
    out: Vec<u8>,
}

impl Writer {
    /// Writes until a chunk is full; true when the list is complete.
    fn fill(&mut self) -> bool {
        while let Some(entry) = self.entries.get(self.at) {
            if self.out.len() >= CHUNK_BYTES {
                return false;
            }
            if self.at > 0 {
                self.out.push(b',');
            }
            let object = feed::object(&self.kind, entry);
            match self.shape {
                Shape::Metadata => media::write_metadata(&object, &mut self.out),
                _ => object.write_json(false, &mut self.out),
            }
            self.at += 1;
        }
        self.out.extend_from_slice(b"]}");
        self.at = self.entries.len() + 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_whole_and_rubbish_is_refused() {
        for (revision, last) in [(7, "default/web"), (-1, "a")] {
            let (r, l) = parse_token(&continue_token(revision, last)).expect("own token");
            assert_eq!((r, l.as_str()), (revision, last));
        }
        for bad in ["", "???", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"] {
            assert_eq!(parse_token(bad).map_err(|status| status.code), Err(400), "{bad:?}");
        }
    }
}
