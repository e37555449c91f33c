//! Several etcd servers as one: calls go to one of them for as long as it answers, then to the next.
use crate::Error;
use async_executor::Executor;
use async_io::Timer;
use futures_lite::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use mote_grpc::{Channel, Code, Dial, Error as Failure, Method, Streaming};
use prost::Message;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long one call may take; etcd gives up a write by itself after 7 s (its request timeout, at the default election time).
pub const CALL: Duration = Duration::from_secs(10);
/// Between two rounds in which no server could be reached.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) struct Client {
    channels: Vec<Channel>,
    /// The one that is asked, counted on.
    current: AtomicUsize,
    /// Nobody answered lately: who asks now is told so at once.
    is_away: AtomicBool,
}

impl Client {
    pub fn new(servers: Vec<Box<dyn Dial>>, executor: &Arc<Executor<'static>>) -> Client {
        // A member that has lost its leader says so at once, as upstream asks for (clientv3.WithRequireLeader).
        let mut headers = HeaderMap::new();
        headers.insert("hasleader", HeaderValue::from_static("true"));
        let channels = servers.into_iter().map(|server| Channel::far(server, executor.clone(), headers.clone()));
        Client { channels: channels.collect(), current: AtomicUsize::new(0), is_away: AtomicBool::new(false) }
    }

    /// What the one who watches has found.
    pub fn found_away(&self, away: bool) {
        self.is_away.store(away, Ordering::Relaxed);
    }

    /// `failed` is not asked next.
    fn turn_from(&self, failed: usize) {
        let _ = self.current.compare_exchange(failed, failed.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A server with a live connection: nothing is asked before there is one, so what fails here was not done.
    async fn server(&self, method: Method, until: Instant) -> Result<(usize, &Channel), Error> {
        loop {
            let mut why = None;
            for _ in &self.channels {
                let at = self.current.load(Ordering::Relaxed);
                let Some(channel) = self.channels.get(at % self.channels.len()) else { break };
                match channel.connect(method.doing).await {
                    Ok(()) => return Ok((at, channel)),
                    Err(error) => {
                        self.turn_from(at);
                        why = Some(error);
                    }
                }
            }
            if Instant::now() + PAUSE >= until {
                let message = why.map_or("no endpoint".to_owned(), |error| error.message().to_owned());
                return Err(Error::Remote { message, undone: true });
            }
            Timer::after(PAUSE).await;
        }
    }

    /// Asked once: what becomes of a question without an answer is not known.
    pub async fn once<Q: Message, A: Message + Default>(&self, method: Method, request: &Q) -> Result<A, Error> {
        let patience = if self.is_away.load(Ordering::Relaxed) { Duration::ZERO } else { CALL };
        let (at, channel) = self.server(method, Instant::now() + patience).await?;
        let answer = channel.call(method, Some(CALL), request).await;
        answer.map_err(|failure| {
            if is_servers_own(&failure) {
                self.turn_from(at);
            }
            explained(failure)
        })
    }

    /// What changes nothing is asked of each server in turn.
    pub async fn read<Q: Message, A: Message + Default>(&self, method: Method, request: &Q) -> Result<A, Error> {
        let mut tries = self.channels.len();
        loop {
            let answer = self.once(method, request).await;
            match answer {
                Err(Error::Remote { .. }) if tries > 1 => tries -= 1,
                answer => return answer,
            }
        }
    }

    /// A stream, and its first message.
    pub async fn stream<Q: Message, A: Message + Default>(
        &self,
        method: Method,
        request: &Q,
    ) -> Result<(Stream<'_, A>, A), Error> {
        let (at, channel) = self.server(method, Instant::now() + CALL).await?;
        let begin = async {
            let mut stream: Streaming<A> = channel.stream(method, request).await?;
            let first = stream.next().await?;
            Ok(first.map(|first| (stream, first)))
        };
        let late = async {
            Timer::after(CALL).await;
            Err(Failure::Deadline { doing: method.doing, after: CALL })
        };
        match begin.or(late).await {
            Ok(Some((stream, first))) => Ok((Stream { client: self, at, stream }, first)),
            Ok(None) => {
                self.turn_from(at);
                Err(ended())
            }
            Err(failure) => {
                self.turn_from(at);
                Err(explained(failure))
            }
        }
    }
}

/// A stream that has begun. When it breaks the next one is asked of another server.
pub(super) struct Stream<'c, A> {
    client: &'c Client,
    at: usize,
    stream: Streaming<A>,
}

impl<A: Message + Default> Stream<'_, A> {
    pub async fn next(&mut self) -> Result<A, Error> {
        let why = match self.stream.next().await {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => ended(),
            Err(failure) => explained(failure),
        };
        self.client.turn_from(self.at);
        Err(why)
    }
}

fn ended() -> Error {
    Error::Remote { message: "the server ended the stream".into(), undone: false }
}

/// Another server may do better.
fn is_servers_own(failure: &Failure) -> bool {
    matches!(failure.code(), Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED)
}

fn explained(failure: Failure) -> Error {
    // api/v3rpc/rpctypes/error.go: the alarm that is raised when the quota of the database is used up.
    if failure.message().contains("database space exceeded") {
        return Error::Full;
    }
    let message = match &failure {
        Failure::Deadline { .. } => "etcdserver: request timed out".to_owned(),
        failure => failure.message().to_owned(),
    };
    // Refused before anything was tried.
    let undone = matches!(failure, Failure::Grpc { code: Code::INVALID_ARGUMENT, .. })
        || message == "etcdserver: no leader"
        || message == "etcdserver: too many requests";
    Error::Remote { message, undone }
}
