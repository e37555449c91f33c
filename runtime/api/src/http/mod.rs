//! The HTTP front: connections, limits and timeouts, authentication and authorization; everything before a handler
//! sees a `Request`. A connection runs in `server`, a request in `front`; the few paths that are no resources and
//! answered here are in `paths`.
pub(crate) mod accept;
mod body;
pub mod flow;
mod front;
mod info;
mod kubelet;
mod listen;
mod paths;
pub mod request;
mod server;
mod strangers; // who makes room
#[cfg(test)]
mod tests;

pub use front::{Front, MAX_BODY_BYTES};
pub use info::{parse as request_info, parse_duration};
pub(crate) use kubelet::Door;
pub use paths::{GIT_VERSION, KUBERNETES_VERSION, version};
pub use request::{Body, BoxStream, Handler, Query, Request, RequestInfo, Response, User};
pub use server::{Config, Server, Stop, serve};
