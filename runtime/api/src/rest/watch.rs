//! WATCH: frames of one prefix's events, as JSON lines, length-delimited protobuf or WebSocket messages, until the client, the
//! deadline or the ring ends it. A watch holds no queue: it reads the store's ring when the client takes a frame.
use super::{
    frames::Frames,
    list::too_large,
    media::{self, Encoding},
    options::{Filter, ListOptions},
};
use crate::{
    custom::convert,
    deadline::Deadline,
    feed,
    http::{Request, Response, accept::JSON},
    registry::random,
    server::Api,
    websocket,
};
use bytes::Bytes;
use futures_lite::{FutureExt as _, stream};
use mote_schema::{Kind, Status};
use mote_store::{Entry, Error, Event, Snapshot, Watcher};
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
/// A bookmark comes this long before the deadline, so that the client goes on from there (cache_watcher.go, nextBookmarkTime).
const BOOKMARK_AHEAD: Duration = Duration::from_secs(2);
/// Initial events are encoded in chunks of about this size.
const CHUNK_BYTES: usize = 48 * 1024;

const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const JSON_STREAM: &str = "application/json;stream=watch";

struct Watch {
    api: Arc<Api>,
    kind: Arc<Kind>,
    filter: Filter,
    frames: Frames,
    /// What exists at the start, still to be sent as ADDED.
    initial: Option<Initial>,
    watcher: Watcher,
    /// The client has seen everything up to here.
    seen: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    over: bool,
}

struct Initial {
    snapshot: Snapshot,
    prefix: String,
    after: Option<String>,
    /// The mark that ends them is sent too (watch list).
    mark_end: bool,
}

pub(crate) fn watch(api: &Arc<Api>, kind: &Arc<Kind>, mut request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    if form.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(&[JSON_STREAM, PROTOBUF_STREAM]));
    }
    let options = ListOptions::parse(&request.query, kind, &request.info.name)?;
    let media = if form.encoding == Encoding::Protobuf { PROTOBUF_STREAM } else { JSON };
    let frames = Frames::new(form, websocket::is_asked(&request));
    let frames = begin(api, kind, &request, options, frames)?;
    if websocket::is_asked(&request) {
        return websocket::answer(&api.executor, &mut request, &[], frames);
    }
    Ok(Response::stream(200, media, frames))
}

type Chunks = crate::http::BoxStream<io::Result<Bytes>>;

fn begin(
    api: &Arc<Api>,
    kind: &Arc<Kind>,
    request: &Request,
    options: ListOptions,
    frames: Frames,
) -> Result<Chunks, Status> {
    let prefix = api.list_prefix(kind, &request.info.namespace);
    let now = Instant::now();
    let seconds = options
        .timeout_seconds
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(|| MIN_TIMEOUT_SECONDS + u64::from(u16::from_le_bytes(random())) % MIN_TIMEOUT_SECONDS);
    let deadline = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now + Duration::from_secs(3600));
    // Who asks for no revision wants what exists, as a watch list (SetListOptionsDefaults).
    let wants_initial = options.send_initial_events.unwrap_or(matches!(options.revision, None | Some(0)));
    let current = api.store.revision();
    let asked = options.revision.unwrap_or(0);
    let (initial, from) = if wants_initial {
        if asked > current {
            return Ok(ended(too_large(asked, current), frames));
        }
        api.check_readable(&prefix)?;
        let snapshot = api.store.snapshot();
        let from = snapshot.revision();
        let mark_end = options.bookmarks;
        (Some(Initial { snapshot, prefix: prefix.clone(), after: None, mark_end }), from)
    } else {
        // One that is still to come is waited for.
        (None, if asked == 0 { current } else { asked.min(current) })
    };
    let watcher = match api.store.watch(&prefix, from) {
        Ok(watcher) => watcher,
        Err(Error::Compacted { asked, oldest }) => return Ok(ended(too_old(asked, oldest), frames)),
        Err(error) => return Err(crate::registry::storage_error(error)),
    };
    let mut watch = Watch {
        api: api.clone(),
        kind: kind.clone(),
        filter: options.filter,
        frames,
        initial,
        watcher,
        seen: from.max(asked),
        bookmarks: options.bookmarks,
        next_bookmark: now,
        deadline,
        over: false,
    };
    watch.plan_bookmark(now);
    Ok(Box::pin(stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<Bytes, io::Error>(chunk), watch))
    })))
}

fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// As upstream's cacher: the refusal is the watch's only event.
fn ended(status: Status, mut frames: Frames) -> Chunks {
    let mut out = Vec::new();
    frames.error(&status, &mut out);
    Box::pin(stream::once(Ok(out.into())))
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
                self.frames.error(&status, &mut out);
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
        while out.is_empty() {
            let until = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            let events = async { Woken::Events(self.watcher.next().await) };
            let timer = async {
                Deadline::at(until).await;
                Woken::Timer
            };
            let gone = async {
                crate::custom::gone(&self.api, &self.kind).await;
                Woken::Gone
            };
            match events.or(gone).or(timer).await {
                Woken::Gone => return None,
                Woken::Events(Ok(events)) => match convert::events(&self.api, &self.kind, events).await {
                    Ok(events) => {
                        let frames: Vec<Bytes> = events.iter().filter_map(|event| self.frame(event)).collect();
                        match frames.as_slice() {
                            // As it is shared with other watches.
                            [frame] => return Some(frame.clone()),
                            frames => frames.iter().for_each(|frame| out.extend_from_slice(frame)),
                        }
                    }
                    Err(status) => {
                        self.over = true;
                        self.frames.error(&status, &mut out);
                    }
                },
                Woken::Events(Err(error)) => {
                    self.over = true;
                    let status = match error {
                        Error::Compacted { asked, oldest } => too_old(asked, oldest),
                        Error::Closed => return None,
                        other => crate::registry::storage_error(other),
                    };
                    self.frames.error(&status, &mut out);
                }
                Woken::Timer => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return None;
                    }
                    self.plan_bookmark(now);
                    let reached = self.watcher.progress();
                    // Not one older than what the client asked for.
                    if reached >= self.seen {
                        self.seen = reached;
                        self.frames.bookmark(&self.kind, reached, false, &mut out);
                    }
                }
            }
        }
        Some(out.into())
    }

    /// Every minute, and once shortly before the deadline.
    fn plan_bookmark(&mut self, now: Instant) {
        let last = self.deadline.checked_sub(BOOKMARK_AHEAD).filter(|last| *last > now);
        let next = now + BOOKMARK_PERIOD;
        self.next_bookmark = last.map_or(next, |last| last.min(next));
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
                self.frames.object("ADDED", &object, out);
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
            self.frames.bookmark(&self.kind, initial.snapshot.revision(), true, out);
        }
        Ok(())
    }

    /// What the event is to this watch: an object may enter or leave its selection without being made or deleted.
    fn frame(&mut self, event: &Event) -> Option<Bytes> {
        if event.revision <= self.seen {
            return None;
        }
        let is_selected = |entry: &&Entry| self.filter.matches(&feed::object(&self.kind, entry));
        let new = event.new.as_ref().filter(is_selected);
        let old = event.old.as_ref().filter(is_selected);
        let (kind, entry) = match (old, new) {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            // A deleted object is shown as it last was; one that left the selection, as it last was inside it.
            (Some(old), None) => ("DELETED", old),
            (None, None) => return None,
        };
        let mut object = feed::object(&self.kind, entry);
        object.revision = event.revision;
        Some(self.frames.shared(&self.api.frames, kind, &entry.key, &object))
    }
}
