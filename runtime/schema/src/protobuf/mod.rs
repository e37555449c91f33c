//! Kubernetes' protobuf encoding, by the field numbers of the table: of built-in kinds only, as upstream. `decode` makes a
//! tree of a request, `encode` streams a stored object into an output buffer, `special` holds what both know of the
//! messages that stand for JSON scalars, `answer` puts answers together: objects, lists, metadata, watch frames.
//!
//! An object travels as "k8s", a zero byte, and a `runtime.Unknown`: its apiVersion and kind, and its own encoding
//! (apimachinery/pkg/runtime/serializer/protobuf).
mod answer;
mod decode;

pub use answer::{
    ListMeta, write_event, write_item, write_list_end, write_list_head, write_metadata, write_object, write_status,
    write_value,
};
pub use decode::{Envelope, decode, envelope};

const MAGIC: &[u8] = b"k8s\0";

#[cfg(test)]
mod tests;
