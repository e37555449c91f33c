//! What a watch sends of one event: a JSON line, a length-delimited protobuf message, or either as a WebSocket message. Watches of the
//! same kind and form send the same bytes, which are written once.
use super::media::{self, Encoding, Form, Shape};
use crate::{Object, print, websocket};
use bytes::Bytes;
use mote_schema::{Doc, Kind, Status, json, protobuf};
use mote_store::Key;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// The last frames written, of all watches: one for each form that clients take at the same time.
#[derive(Default)]
pub(crate) struct Shared(Mutex<VecDeque<(What, Bytes)>>);

const SHARED: usize = 4;
/// Larger ones are not kept for others.
const MAX_SHARED_BYTES: usize = 16 * 1024;

/// What a frame is made of.
struct What {
    event: &'static str,
    key: Key,
    revision: u64,
    kind: Arc<Kind>,
    form: Form,
}

impl PartialEq for What {
    fn eq(&self, other: &What) -> bool {
        self.revision == other.revision
            && self.form == other.form
            && Arc::ptr_eq(&self.kind, &other.kind)
            && Arc::ptr_eq(&self.key, &other.key)
            && self.event == other.event
    }
}

/// How frames are written.
pub(super) struct Frames {
    form: Form,
    /// Each is a WebSocket message.
    websocket: bool,
    columns_sent: bool,
}

impl Frames {
    pub fn new(form: Form, websocket: bool) -> Frames {
        Frames { form, websocket, columns_sent: false }
    }

    /// The frame of an event, which other watches may have written already.
    pub fn shared(&mut self, written: &Shared, event: &'static str, key: &Key, object: &Object) -> Bytes {
        let mut out = Vec::new();
        if self.websocket || self.form.shape == Shape::Table {
            self.object(event, object, &mut out);
            return out.into();
        }
        let what =
            What { event, key: key.clone(), revision: object.revision, kind: object.kind.clone(), form: self.form };
        let mut written = written.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = written.iter().find(|(other, _)| *other == what) {
            return frame.clone();
        }
        out.reserve(object.doc.bytes().len() * 2);
        self.object(event, object, &mut out);
        out.shrink_to_fit();
        let frame = Bytes::from(out);
        if frame.len() <= MAX_SHARED_BYTES {
            if written.len() == SHARED {
                written.pop_front();
            }
            written.push_back((what, frame.clone()));
        }
        frame
    }

    /// Appends one event around what `write` appends; `len` is about its length.
    fn event(&self, kind: &str, len: usize, out: &mut Vec<u8>, write: &mut dyn FnMut(&mut Vec<u8>)) {
        let start = out.len();
        if self.form.encoding == Encoding::Protobuf {
            protobuf::write_event(kind, len, out, write);
            if self.websocket {
                // A message has a length of its own.
                out.drain(start..start + 4);
                websocket::enclose(websocket::BINARY, start, out);
            }
            return;
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        write(out);
        out.extend_from_slice(b"}\n");
        if self.websocket {
            websocket::enclose(websocket::TEXT, start, out);
        }
    }

    pub fn object(&mut self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        let form = self.form;
        if form.shape != Shape::Table {
            return self.event(kind, object.doc.bytes().len() * 2, out, &mut |out| media::write(object, form, out));
        }
        let options = print::Options {
            include: form.include,
            metadata: json!({"resourceVersion": object.revision.to_string()}),
            omit_columns: self.columns_sent,
            beta: form.beta,
        };
        self.columns_sent = true;
        let objects = std::slice::from_ref(object);
        self.event(kind, 0, out, &mut |out| print::write_table(&object.kind, objects, &options, out));
    }

    pub fn error(&mut self, status: &Status, out: &mut Vec<u8>) {
        let value = status.to_value();
        self.event("ERROR", 256, out, &mut |out| match self.form.encoding {
            Encoding::Protobuf => protobuf::write_status(&value, out),
            _ => out.extend_from_slice(value.to_string().as_bytes()),
        });
    }

    /// An object of the kind with nothing but a revision, in the shape asked for.
    pub fn bookmark(&mut self, kind: &Arc<Kind>, revision: u64, ends_initial: bool, out: &mut Vec<u8>) {
        let mut object = json!({"metadata": {}});
        if ends_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        // Whatever Go always writes of the kind is there too.
        if mote_schema::prune::clean(kind, &mut object).is_err() {
            return;
        }
        let Ok(doc) = Doc::encode(&object) else { return };
        self.object("BOOKMARK", &Object { kind: kind.clone(), doc, revision }, out);
    }
}
