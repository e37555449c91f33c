//! One driver under every controller, the scheduler, the kubelet and the service proxy: the change feed wakes
//! keyed queues, deadlines sit in one timer heap, and nothing ticks.
//!
//! Guarantees: every object that exists at start is offered to `wake` once as `Change { old: None, new: Some }`;
//! afterwards every change is offered in revision order (a feed that fell behind continues with the difference
//! of two roots, so nothing is missed, though steps may merge). One key is never reconciled twice at a time; a
//! key woken while it runs, runs again after. An error is retried with a back-off from 5 ms to 1000 s (upstream's
//! item exponential limiter); `Next::After` runs the key again then, unless woken before.
use crate::{Change, Client};
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a queue holds: an object's namespace ("" when cluster-scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// When to run the key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Done,
    After(Duration),
}

#[derive(Debug)]
pub enum Error {
    /// What the API answered. A conflict is retried quietly.
    Api(mote_schema::Status),
    Other(String),
}

impl From<mote_schema::Status> for Error {
    fn from(status: mote_schema::Status) -> Error {
        Error::Api(status)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Api(status) => write!(f, "{status}"),
            Error::Other(text) => f.write_str(text),
        }
    }
}

/// A keyed queue; cloning shares it. A key that waits is held once.
#[derive(Clone)]
pub struct Queue {}

impl Queue {
    pub fn add(&self, _key: Key) {
        unimplemented!()
    }
    /// The earliest of several deadlines for one key wins.
    pub fn add_after(&self, _key: Key, _delay: Duration) {
        unimplemented!()
    }
}

pub trait Reconciler: Send + Sync + 'static {
    /// For logs and metrics: "deployment".
    fn name(&self) -> &'static str;
    /// (group, version, plural) of the kinds whose changes `wake` wants to see.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)];
    /// Which keys a change concerns. Must not block.
    fn wake(&self, change: &Change, queue: &Queue);
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>>;
    /// How many keys may be reconciled at once.
    fn workers(&self) -> usize {
        1
    }
}

/// Starts `reconciler` on the client's executor; returns its queue, so that its owner can wake keys from elsewhere
/// (a container event, a timer of its own).
pub fn start(_client: &Client, _reconciler: Arc<dyn Reconciler>) -> Queue {
    unimplemented!()
}
