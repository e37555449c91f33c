//! CRI v1 over gRPC on a unix socket: what the kubelet says to CRI-O or containerd.
//!
//! `Runtime` has one async method per call, all rows of one table. Nothing here knows of Kubernetes objects.
mod health;
mod runtime;
pub mod v1;

pub use health::{Serving, check_health};
pub use mote_grpc::{Code, Error, Streaming};
pub use runtime::Runtime;
