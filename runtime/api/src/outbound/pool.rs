//! Connections between two uses. A few are kept for a minute and a half, as Go's transport does; one task looks after
//! them while there are any, and nothing runs when there are none.
use super::connect::{Endpoint, Stream, connect, explain};
use async_executor::Executor;
use async_io::Timer;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use smol_hyper::rt::FuturesIo;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Go's DefaultTransport.IdleConnTimeout.
const IDLE: Duration = Duration::from_secs(90);
/// Kept in all, and to one endpoint (Go's MaxIdleConnsPerHost is 2; webhooks are called side by side).
const MAX_KEPT: usize = 16;
const MAX_KEPT_PER_ENDPOINT: usize = 4;

type Sender = SendRequest<Full<Bytes>>;

pub(crate) struct Outbound {
    executor: Arc<Executor<'static>>,
    kept: Mutex<Vec<Idle>>,
}

struct Idle {
    endpoint: Endpoint,
    sender: Sender,
    until: Instant,
}

/// Holds a connection until its answer is read; dropped, it gives the connection back if it can serve again.
pub(crate) struct Kept(Option<(Arc<Outbound>, Endpoint, Sender)>);

impl Drop for Kept {
    fn drop(&mut self) {
        let Some((outbound, endpoint, mut sender)) = self.0.take() else { return };
        if sender.is_closed() {
            return;
        }
        let executor = outbound.executor.clone();
        // An answer that was not read to its end closes the connection, and this ends.
        crate::background::spawn(&executor, async move {
            if sender.ready().await.is_ok() {
                outbound.keep(endpoint, sender);
            }
        });
    }
}

impl Outbound {
    pub fn new(executor: Arc<Executor<'static>>) -> Arc<Outbound> {
        Arc::new(Outbound { executor, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self, endpoint: &Endpoint) -> Option<Sender> {
        let mut kept = self.kept();
        kept.retain(|idle| !idle.sender.is_closed());
        let at = kept.iter().rposition(|idle| idle.endpoint == *endpoint)?;
        Some(kept.swap_remove(at).sender)
    }

    fn keep(self: &Arc<Self>, endpoint: Endpoint, sender: Sender) {
        let mut kept = self.kept();
        kept.retain(|idle| !idle.sender.is_closed());
        let to_it = kept.iter().filter(|idle| idle.endpoint == endpoint).count();
        if kept.len() >= MAX_KEPT || to_it >= MAX_KEPT_PER_ENDPOINT {
            return;
        }
        let is_first = kept.is_empty();
        kept.push(Idle { endpoint, sender, until: Instant::now() + IDLE });
        drop(kept);
        if is_first {
            crate::background::spawn(&self.executor, tend(self.clone()));
        }
    }

    /// Over a connection of before or a new one. Errors say what Go's transport would.
    pub async fn send(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        mut request: http::Request<Full<Bytes>>,
    ) -> Result<(http::Response<Incoming>, Kept), String> {
        if let Some(mut sender) = self.take(endpoint) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Kept(Some((self.clone(), endpoint.clone(), sender))))),
                // Closed in the meantime, and nothing of the request has left.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(explain(error.error())),
                },
            }
        }
        let mut sender = self.open(connect(endpoint).await?).await?;
        let response = sender.send_request(request).await.map_err(|error| explain(&error))?;
        Ok((response, Kept(Some((self.clone(), endpoint.clone(), sender)))))
    }

    async fn open(&self, stream: Box<dyn Stream>) -> Result<Sender, String> {
        let (sender, connection) = http1::handshake(FuturesIo::new(stream)).await.map_err(|error| explain(&error))?;
        crate::background::spawn(&self.executor, async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an outgoing connection");
            }
        });
        Ok(sender)
    }
}

/// Closes what nobody asked for in time; ends with the last one.
async fn tend(outbound: Arc<Outbound>) {
    loop {
        let next = {
            let mut kept = outbound.kept();
            let now = Instant::now();
            kept.retain(|idle| !idle.sender.is_closed() && idle.until > now);
            kept.iter().map(|idle| idle.until).min()
        };
        match next {
            Some(at) => drop(Timer::at(at).await),
            None => return,
        }
    }
}
