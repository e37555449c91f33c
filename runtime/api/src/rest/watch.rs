//! WATCH: frames of one prefix's events, as JSON lines, until the client, the deadline or the ring ends it.
//! A watch holds no queue: it reads the store's ring when the client takes a frame.
use super::{
    list::too_large,
    media::{self, Form, JSON, Shape},
    options::{Filter, ListOptions},
};
use crate::{
    Object,
    custom::convert,
    feed,
    http::{Request, Response},
    registry::random,
    server::Api,
};
use bytes::Bytes;
use futures_lite::{FutureExt as _, stream};
use mote_schema::{Kind, Status};
use mote_store::{Entry, Error, Event, Snapshot, Watcher};
use serde_json::{Value, json};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// kube-apiserver's --min-request-timeout: a watch without a timeout ends after this to twice this.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// How often a client that allows bookmarks gets one (the watch cache's period).
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Initial objects taken from the store at a time.
const BATCH: usize = 100;
/// Initial events are encoded in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;

struct Watch {
    api: Arc<Api>,
    kind: Arc<Kind>,
    filter: Filter,
    form: Form,
    include: crate::print::Include,
    /// What exists at the start, still to be sent as ADDED.
    initial: Option<Initial>,
    watcher: Watcher,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    columns_sent: bool,
    over: bool,
}

struct Initial {
    snapshot: Snapshot,
    prefix: String,
    after: Option<String>,
    /// The client asked for the mark that ends them (watch list).
    mark_end: bool,
}

pub(crate) fn watch(api: &Arc<Api>, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    let form = media::negotiate(request.header(http::header::ACCEPT))?;
    let options = ListOptions::parse(&request.query, kind, &request.info.name)?;
    let prefix = api.list_prefix(kind, &request.info.namespace);
    let include = crate::print::Include::parse(request.query.get("includeObject").unwrap_or(""))?;
    let now = Instant::now();
    let seconds = options
        .timeout_seconds
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(|| MIN_TIMEOUT_SECONDS + u64::from(u16::from_le_bytes(random())) % MIN_TIMEOUT_SECONDS);
    let deadline = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now + Duration::from_secs(3600));
    let wants_initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => matches!(options.revision, None | Some(0)),
    };
    let current = api.store.revision();
    if let Some(asked) = options.revision.filter(|asked| *asked > current) {
        return Ok(ended(too_large(asked, current)));
    }
    let (initial, from) = if wants_initial {
        api.check_readable(&prefix)?;
        let snapshot = api.store.snapshot();
        let from = snapshot.revision();
        let mark_end = options.send_initial_events == Some(true) && options.bookmarks;
        (Some(Initial { snapshot, prefix: prefix.clone(), after: None, mark_end }), from)
    } else {
        (None, options.revision.filter(|revision| *revision > 0).unwrap_or(current))
    };
    let watcher = match api.store.watch(&prefix, from) {
        Ok(watcher) => watcher,
        Err(Error::Compacted { asked, oldest }) => return Ok(ended(too_old(asked, oldest))),
        Err(error) => return Err(crate::registry::storage_error(error)),
    };
    let watch = Watch {
        api: api.clone(),
        kind: kind.clone(),
        filter: options.filter,
        form,
        include,
        initial,
        watcher,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_PERIOD,
        deadline,
        columns_sent: false,
        over: false,
    };
    let frames = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<Bytes, io::Error>(chunk), watch))
    });
    Ok(Response::stream(200, JSON, Box::pin(frames)))
}

fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// As upstream's cacher: the refusal is the watch's only event.
fn ended(status: Status) -> Response {
    Response::json(200, frame("ERROR", status.to_value().to_string().as_bytes()))
}

fn frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 32);
    open_frame(kind, &mut out);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out
}

fn open_frame(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

enum Woken {
    Events(Result<Vec<Event>, Error>),
    /// The kind is no longer served as it was.
    Gone,
    Timer,
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if self.over {
            return None;
        }
        if self.initial.is_some() {
            if let Err(status) = self.write_initial(&mut out).await {
                self.over = true;
                out = frame("ERROR", status.to_value().to_string().as_bytes());
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
        while out.is_empty() {
            let until = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            let events = async { Woken::Events(self.watcher.next().await) };
            let timer = async {
                async_io::Timer::at(until).await;
                Woken::Timer
            };
            let gone = async {
                crate::custom::gone(&self.api, &self.kind).await;
                Woken::Gone
            };
            match events.or(gone).or(timer).await {
                Woken::Gone => return None,
                Woken::Events(Ok(events)) => match convert::events(&self.api, &self.kind, events).await {
                    Ok(events) => events.iter().for_each(|event| self.write_event(event, &mut out)),
                    Err(status) => {
                        self.over = true;
                        out = frame("ERROR", status.to_value().to_string().as_bytes());
                    }
                },
                Woken::Events(Err(error)) => {
                    self.over = true;
                    let status = match error {
                        Error::Compacted { asked, oldest } => too_old(asked, oldest),
                        Error::Closed => return None,
                        other => crate::registry::storage_error(other),
                    };
                    out = frame("ERROR", status.to_value().to_string().as_bytes());
                }
                Woken::Timer => {
                    let now = Instant::now();
                    self.over = now >= self.deadline;
                    self.next_bookmark = now + BOOKMARK_PERIOD;
                    if self.bookmarks {
                        self.write_bookmark(self.watcher.progress(), false, &mut out);
                    } else if self.over {
                        return None;
                    }
                }
            }
        }
        Some(out.into())
    }

    async fn write_initial(&mut self, out: &mut Vec<u8>) -> Result<(), Status> {
        let Some(mut initial) = self.initial.take() else { return Ok(()) };
        let mut last = None;
        let mut rest = initial.snapshot.range(&initial.prefix, initial.after.as_deref());
        // Those that another program converts go there a batch at a time.
        let mut batch = Vec::new().into_iter();
        loop {
            let entry = match batch.next() {
                Some(entry) => entry,
                None => {
                    let next: Vec<Entry> = rest.by_ref().take(BATCH).collect();
                    batch = convert::entries(&self.api, &self.kind, next).await?.into_iter();
                    let Some(entry) = batch.next() else { break };
                    entry
                }
            };
            let object = feed::object(&self.kind, &entry);
            if self.filter.matches(&object) {
                write_frame(self.form, self.include, &mut self.columns_sent, "ADDED", &object, out);
            }
            if out.len() >= CHUNK_BYTES {
                last = Some(entry.key.to_string());
                break;
            }
        }
        drop(rest);
        if last.is_some() {
            initial.after = last;
            self.initial = Some(initial);
        } else if initial.mark_end {
            self.write_bookmark(initial.snapshot.revision(), true, out);
        }
        Ok(())
    }

    /// What the event is to this watch: an object may enter or leave its selection without being made or deleted.
    fn write_event(&mut self, event: &Event, out: &mut Vec<u8>) {
        let object = |entry: &Entry| feed::object(&self.kind, entry);
        let new = event.new.as_ref().map(object).filter(|object| self.filter.matches(object));
        let old = event.old.as_ref().map(object).filter(|object| self.filter.matches(object));
        let (kind, mut object) = match (old, new) {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            // A deleted object is shown as it last was; one that left the selection, as it last was inside it.
            (Some(old), None) => ("DELETED", old),
            (None, None) => return,
        };
        object.revision = event.revision;
        write_frame(self.form, self.include, &mut self.columns_sent, kind, &object, out);
    }

    fn write_bookmark(&self, revision: u64, ends_initial: bool, out: &mut Vec<u8>) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = match self.form.shape {
            Shape::Object => (self.kind.kind.to_string(), self.kind.api_version()),
            Shape::Metadata => ("PartialObjectMetadata".into(), "meta.k8s.io/v1".into()),
            Shape::Table => ("Table".into(), "meta.k8s.io/v1".into()),
        };
        let mut object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        if self.form.shape == Shape::Table {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        out.extend_from_slice(&frame("BOOKMARK", object.to_string().as_bytes()));
    }
}

fn write_frame(
    form: Form,
    include: crate::print::Include,
    columns_sent: &mut bool,
    kind: &str,
    object: &Object,
    out: &mut Vec<u8>,
) {
    open_frame(kind, out);
    match form.shape {
        Shape::Object => object.write_json(true, out),
        Shape::Metadata => media::write_metadata(object, out),
        Shape::Table => {
            let metadata = json!({"resourceVersion": object.revision.to_string()});
            let options = crate::print::Options { include, metadata, omit_columns: *columns_sent };
            crate::print::write_table(&object.kind, std::slice::from_ref(object), &options, out);
            *columns_sent = true;
        }
    }
    out.extend_from_slice(b"}\n");
}
