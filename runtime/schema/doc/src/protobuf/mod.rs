//! A Doc as protobuf, by the numbers of a table. Reading protobuf and the envelopes around it are with what knows kinds.
mod encode;
mod special;

pub use encode::{Encoder, Open, Revision};
pub use special::{Any, parse_time};
