//! Answers: an object, a list of objects, a watch frame, each in its envelope.
use super::MAGIC;
use crate::Value;
use crate::{
    Doc, Kind, Object,
    doc::DocError,
    table::{BUILTIN, TypeId},
};
use mote_doc::protobuf::{Encoder, Revision};
use std::sync::OnceLock;

/// What a list says of itself (`metav1.ListMeta`).
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: u64,
    /// The token of the next page; "" for none.
    pub next: String,
    pub remaining: Option<i64>,
}

/// An object as a client sees it: in its envelope, with its resourceVersion. Appends, as all here.
pub fn write_object(object: &Object, out: &mut Vec<u8>) {
    let revision = object.revision.to_string();
    enclose(&object.kind.api_version(), &object.kind.kind, object.doc.bytes().len(), out, &mut |encoder| {
        encoder.object(object.kind.root, object.root(), below(object, &revision));
    });
}

/// An object's PartialObjectMetadata, of any kind; `api_version` is that of meta.k8s.io asked for.
pub fn write_metadata(object: &Object, api_version: &str, out: &mut Vec<u8>) {
    let revision = object.revision.to_string();
    enclose(api_version, "PartialObjectMetadata", object.doc.bytes().len() / 2, out, &mut |encoder| {
        metadata(object, &revision, encoder);
    });
}

/// A document that is no stored object (a Status, a review), of a kind that the catalog or its parts have.
pub fn write_value(kind: &Kind, value: &Value, out: &mut Vec<u8>) -> Result<(), DocError> {
    let doc = Doc::encode(value)?;
    enclose(&kind.api_version(), &kind.kind, doc.bytes().len(), out, &mut |encoder| {
        encoder.object(kind.root, doc.root(), Revision::None);
    });
    Ok(())
}

/// All before the items of a list, which take `items_len` bytes.
pub fn write_list_head(api_version: &str, kind: &str, meta: &ListMeta, items_len: usize, out: &mut Vec<u8>) {
    let mut head = Vec::with_capacity(64);
    let mut encoder = Encoder::new(BUILTIN, &mut head);
    let open = encoder.open(1, 64);
    // What is not stored has none.
    encoder.bytes(2, if meta.revision == 0 { String::new() } else { meta.revision.to_string() }.as_bytes());
    encoder.bytes(3, meta.next.as_bytes());
    if let Some(remaining) = meta.remaining {
        encoder.number(4, remaining);
    }
    encoder.close(open);
    drop(encoder);
    let mut encoder = begin(api_version, kind, out);
    encoder.length(2, head.len() + items_len);
    encoder.out.slice(&head);
}

/// One item: the object without an envelope, or its metadata alone.
pub fn write_item(object: &Object, only_metadata: bool, out: &mut Vec<u8>) {
    let revision = object.revision.to_string();
    let mut encoder = Encoder::new(BUILTIN, out);
    let open = encoder.open(2, object.doc.bytes().len() + 16);
    if only_metadata {
        metadata(object, &revision, &mut encoder);
    } else {
        encoder.object(object.kind.root, object.root(), below(object, &revision));
    }
    encoder.close(open);
}

/// All behind the items.
pub fn write_list_end(out: &mut Vec<u8>) {
    // contentEncoding and contentType, which upstream writes empty.
    out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
}

/// A frame of a watch: four bytes of length, and a `metav1.WatchEvent` without an envelope around the object that `write`
/// appends, which has one (apimachinery's LengthDelimitedFramer and RawSerializer). `len` is about the object's length.
pub fn write_event(kind: &str, len: usize, out: &mut Vec<u8>, write: &mut dyn FnMut(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut encoder = Encoder::new(BUILTIN, out);
    encoder.bytes(1, kind.as_bytes());
    let extension = encoder.open(2, len + 4);
    let raw = encoder.open(1, len);
    encoder.out.append(write);
    encoder.close(raw);
    encoder.close(extension);
    drop(encoder);
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn below<'a>(object: &Object, revision: &'a str) -> Revision<'a> {
    // An object that was never stored has none.
    if object.revision == 0 { Revision::None } else { Revision::Below(revision) }
}

fn metadata<'a>(object: &'a Object, revision: &'a str, encoder: &mut Encoder<'a, '_>) {
    let open = encoder.open(1, object.doc.bytes().len() / 2);
    encoder.object(object_meta(), object.meta(), Revision::Here(revision));
    encoder.close(open);
}

/// The type of every object's metadata, custom kinds' too.
fn object_meta() -> TypeId {
    static META: OnceLock<TypeId> = OnceLock::new();
    *META.get_or_init(|| meta_type("ObjectMeta"))
}

fn meta_type(name: &str) -> TypeId {
    BUILTIN.type_by_definition(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")).unwrap_or(0)
}

fn begin<'o>(api_version: &str, kind: &str, out: &'o mut Vec<u8>) -> Encoder<'static, 'o> {
    out.extend_from_slice(MAGIC);
    let mut encoder = Encoder::new(BUILTIN, out);
    let open = encoder.open(1, api_version.len() + kind.len() + 4);
    encoder.bytes(1, api_version.as_bytes());
    encoder.bytes(2, kind.as_bytes());
    encoder.close(open);
    encoder
}

fn enclose<'a>(
    api_version: &str,
    kind: &str,
    len: usize,
    out: &mut Vec<u8>,
    write: &mut dyn FnMut(&mut Encoder<'a, '_>),
) {
    let mut encoder = begin(api_version, kind, out);
    let open = encoder.open(2, len);
    write(&mut encoder);
    encoder.close(open);
    drop(encoder);
    write_list_end(out);
}

/// A `metav1.Status` as JSON has it.
pub fn write_status(status: &Value, out: &mut Vec<u8>) {
    static STATUS: OnceLock<TypeId> = OnceLock::new();
    let id = *STATUS.get_or_init(|| meta_type("Status"));
    // A Status is far below every limit of a Doc.
    let Ok(doc) = Doc::encode(status) else { return };
    enclose("v1", "Status", doc.bytes().len(), out, &mut |encoder| encoder.object(id, doc.root(), Revision::None));
}
