//! The API server: HTTP and TLS in front, one generic path for every kind behind, the store below.
//!
//! A request's way: `http` (connection, authentication, authorization) -> `rest` (which verb of which kind) ->
//! `registry` (decode, `admission`, validate, commit) -> the store. In-process callers enter at `client`.

mod admission;
mod aggregation;
pub mod audit;
pub mod auth;
mod background;
mod behavior;
pub mod bootstrap;
pub mod certs;
pub mod client;
mod clock;
mod custom;
mod deadline; // of requests, connections, watches and queues
pub mod dial;
pub mod discovery;
pub mod driver;
pub mod encryption;
mod error;
mod events;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod health;
pub mod http;
#[cfg(feature = "etcd")]
mod layout;
pub mod metrics;
pub mod names;
pub mod openapi;
pub mod outbound;
pub mod pods;
pub mod print;
pub mod quota;
pub mod rbac;
mod registry;
mod rest;
pub mod server;
pub mod start;
mod stream;
pub mod tls;
pub mod tokens;
mod translate;
mod wear;
mod websocket;

pub use admission::policy::policy_warnings;
pub use background::unblock;
pub use behavior::addresses;
pub use client::{Change, Client, DeleteOptions, Gate, Patch, Sub};
pub use error::Error;
pub use http::KUBERNETES_VERSION;
#[cfg(feature = "etcd")]
pub use layout::EtcdLayout;
pub use mote_schema::{Catalog, Doc, Kind, Object, Ref, Status};
pub use rest::Rest;
pub use server::{Api, Settings, Volatile};
pub use start::{Config, Running, start};
