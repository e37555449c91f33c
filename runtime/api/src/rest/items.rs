//! A list as bytes, made while they are sent: one root of the store read in pieces, so that a LIST costs no memory for its length.
//! Tables and YAML are made whole.
use super::{
    lengths::Lengths,
    media::{self, Encoding, Form, Shape},
};
use crate::{
    Object, feed,
    http::{Body, Response, accept::Indent},
    print,
    server::Api,
};
use bytes::Bytes;
use mote_schema::{
    Kind, Status,
    doc::write_string,
    protobuf::{self, ListMeta},
};
use mote_schema::{Value, json};
use mote_store::Entry;
use std::{io::Write as _, ops::Range, sync::Arc};

/// Answers longer than this are sent in chunks of about this size: with what HTTP puts around it three records of TLS (16 KiB each),
/// sent by one system call.
const CHUNK_BYTES: usize = 48 * 1024 - 64;
/// Room for a chunk and what its last item has too much. From 64 KiB on it would be mapped, and each page of it faulted in.
const CHUNK_ROOM: usize = 60 * 1024;
/// Items that are made to be counted before others get the thread.
const COUNTED: usize = 64;

pub(crate) struct List {
    pub kind: Arc<Kind>,
    pub items: Items,
    pub meta: ListMeta,
}

pub(crate) enum Items {
    Stored(Vec<Entry>),
    Read(Vec<Object>),
}

impl List {
    fn len(&self) -> usize {
        match &self.items {
            Items::Stored(entries) => entries.len(),
            Items::Read(objects) => objects.len(),
        }
    }

    fn object(&self, at: usize) -> Option<Object> {
        match &self.items {
            Items::Stored(entries) => entries.get(at).map(|entry| feed::object(&self.kind, entry)),
            Items::Read(objects) => objects.get(at).cloned(),
        }
    }

    /// apiVersion and kind of the list.
    fn name(&self, form: Form) -> (String, String) {
        if form.shape == Shape::MetadataList {
            return (form.meta_version().into(), "PartialObjectMetadataList".into());
        }
        let kind = match &*self.kind.list_kind {
            "" => format!("{}List", self.kind.kind),
            name => name.into(),
        };
        (self.kind.api_version(), kind)
    }

    /// Appends items until there is a chunk of them or none is left; where the next one is.
    fn write_items(&self, items: Range<usize>, form: Form, out: &mut Vec<u8>) -> usize {
        let end = out.len() + CHUNK_BYTES;
        let (mut at, mut last_bytes) = (items.start, 0);
        while at < items.end && out.len() + last_bytes < end {
            let Some(object) = self.object(at) else { break };
            last_bytes = out.len();
            match (form.encoding, form.shape) {
                (Encoding::Protobuf, shape) => protobuf::write_item(&object, shape == Shape::MetadataList, out),
                (_, shape) => {
                    if at > 0 {
                        out.push(b',');
                    }
                    match shape {
                        Shape::MetadataList => print::write_metadata(&object, form.meta_version(), out),
                        // Items of a custom kind's list say their kind, as upstream's unstructured ones do.
                        _ => object.write_json(self.kind.custom.is_some(), out),
                    }
                }
            }
            last_bytes = out.len() - last_bytes;
            at += 1;
        }
        at
    }

    /// How long the items from `from` on are as protobuf. They are made to be counted where that is not known from another time.
    async fn packed_len(&self, from: usize, form: Form, lengths: &Lengths) -> usize {
        let entries = match &self.items {
            // What a custom kind's objects are made to, another program may decide.
            Items::Stored(entries) if !self.kind.is_custom() => entries.get(from..).unwrap_or_default(),
            _ => &[],
        };
        let place = (self.kind.root, form.shape == Shape::MetadataList);
        let known = lengths.of(place, entries);
        let (mut all, mut counted, mut item) = (Vec::with_capacity(self.len() - from), 0, Vec::new());
        for at in from..self.len() {
            if let Some(len) = known.get(at - from).copied().flatten() {
                all.push(len);
                continue;
            }
            item.clear();
            self.write_items(at..at + 1, form, &mut item);
            all.push(item.len());
            counted += 1;
            if counted % COUNTED == 0 {
                // Others wait for the thread.
                futures_lite::future::yield_now().await;
            }
        }
        if counted > 0 {
            lengths.keep(place, entries, &all);
        }
        all.iter().sum()
    }

    fn write_json_head(&self, form: Form, out: &mut Vec<u8>) {
        let (version, kind) = self.name(form);
        for (key, text) in [(r#"{"kind":"#, kind), (r#","apiVersion":"#, version)] {
            out.extend_from_slice(key.as_bytes());
            write_string(&text, out);
        }
        // Writing into a Vec does not fail.
        let _ = match self.meta.revision {
            // Of what is not stored.
            0 => out.write_all(br#","metadata":{"#),
            revision => write!(out, r#","metadata":{{"resourceVersion":"{revision}""#),
        };
        // Of custom kinds it is always there.
        if !self.meta.next.is_empty() || self.kind.is_custom() {
            out.extend_from_slice(br#","continue":"#);
            write_string(&self.meta.next, out);
        }
        if let Some(remaining) = self.meta.remaining {
            let _ = write!(out, r#","remainingItemCount":{remaining}"#);
        }
        out.extend_from_slice(br#"},"items":["#);
    }
}

/// The list in the form asked for.
pub(crate) async fn respond(api: &Api, list: List, form: Form) -> Result<Response, Status> {
    match (form.shape, form.encoding) {
        (Shape::Metadata, _) => Err(media::no_such_shape(&list.kind, true)),
        (Shape::Table, _) => media::written(200, table(&list, form), form),
        (_, Encoding::Protobuf) => Ok(packed(list, form, &api.lengths).await),
        (_, Encoding::Yaml) => {
            let mut out = Vec::new();
            list.write_json_head(form, &mut out);
            let mut at = 0;
            while at < list.len() {
                at = list.write_items(at..usize::MAX, form, &mut out);
            }
            out.extend_from_slice(b"]}");
            media::written(200, out, form)
        }
        (_, Encoding::Json) => {
            let mut text = Text { list, form, at: Some(0), indent: form.pretty.then(Indent::default) };
            let first = text.next().unwrap_or_default();
            let is_whole = text.at.is_none();
            let body =
                if is_whole { Body::Full(first) } else { Body::Chunks(Box::new([first].into_iter().chain(text))) };
            Ok(Response::new(200, form.encoding.media_type(), body))
        }
    }
}

fn table(list: &List, form: Form) -> Vec<u8> {
    let objects: Vec<Object> = (0..list.len()).filter_map(|at| list.object(at)).collect();
    let mut metadata = match list.meta.revision {
        0 => json!({}),
        revision => json!({"resourceVersion": revision.to_string()}),
    };
    if !list.meta.next.is_empty() {
        metadata["continue"] = Value::from(list.meta.next.as_str());
    }
    if let Some(remaining) = list.meta.remaining {
        metadata["remainingItemCount"] = Value::from(remaining);
    }
    let options = print::Options { include: form.include, metadata, beta: form.beta, ..Default::default() };
    let mut out = Vec::new();
    print::write_table(&list.kind, &objects, &options, &mut out);
    out
}

/// The pieces of a list as JSON.
struct Text {
    list: List,
    form: Form,
    /// The next item; None when the end is written.
    at: Option<usize>,
    indent: Option<Indent>,
}

impl Iterator for Text {
    type Item = Bytes;
    fn next(&mut self) -> Option<Bytes> {
        let at = self.at?;
        let mut out = Vec::with_capacity(CHUNK_ROOM);
        if at == 0 {
            self.list.write_json_head(self.form, &mut out);
        }
        let next = self.list.write_items(at..usize::MAX, self.form, &mut out);
        let is_end = next >= self.list.len();
        self.at = (!is_end).then_some(next);
        if is_end {
            out.extend_from_slice(if self.indent.is_some() { b"]}" } else { b"]}\n" });
            out.shrink_to_fit();
        }
        if let Some(indent) = &mut self.indent {
            let text = std::mem::take(&mut out);
            indent.write(&text, &mut out);
        }
        Some(out.into())
    }
}

/// The head says how long all is, so what lies behind the first chunk is measured before it is made.
async fn packed(list: List, form: Form, lengths: &Lengths) -> Response {
    let mut first = Vec::with_capacity(CHUNK_ROOM);
    let mut at = list.write_items(0..usize::MAX, form, &mut first);
    let total = first.len() + list.packed_len(at, form, lengths).await;
    let (version, kind) = list.name(form);
    let mut head = Vec::with_capacity(256);
    protobuf::write_list_head(&version, &kind, &list.meta, total, &mut head);
    let mut end = Vec::new();
    protobuf::write_list_end(&mut end);
    let media = form.encoding.media_type();
    if at >= list.len() {
        head.extend_from_slice(&first);
        head.extend_from_slice(&end);
        return Response::new(200, media, Body::Full(head.into()));
    }
    let rest = std::iter::from_fn(move || {
        if at >= list.len() {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_ROOM);
        at = list.write_items(at..usize::MAX, form, &mut out);
        Some(Bytes::from(out))
    });
    let chunks = [head, first].into_iter().map(Bytes::from).chain(rest).chain([Bytes::from(end)]);
    Response::new(200, media, Body::Chunks(Box::new(chunks)))
}
