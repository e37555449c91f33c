//! Several etcd servers as one: calls go to one of them for as long as it answers, then to the next. Where etcd asks for users,
//! each call carries a token, which is had for a name and a password and again when etcd no longer takes it.
use super::{Login, messages::*};
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
    login: Option<Login>,
    /// How many tokens there were; held while the next one is asked for.
    tokens: async_lock::Mutex<u64>,
}

impl Client {
    pub fn new(servers: Vec<Box<dyn Dial>>, login: Option<Login>, executor: &Arc<Executor<'static>>) -> Client {
        // A member that has lost its leader says so at once, as upstream asks for (clientv3.WithRequireLeader).
        let mut headers = HeaderMap::new();
        headers.insert("hasleader", HeaderValue::from_static("true"));
        let channels = servers.into_iter().map(|server| Channel::far(server, executor.clone(), headers.clone()));
        Client {
            channels: channels.collect(),
            current: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
            login,
            tokens: async_lock::Mutex::new(0),
        }
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
        let mut stale = 0;
        loop {
            let (at, channel) = self.server(method, Instant::now() + patience).await?;
            let token = self.token((at, channel), stale).await?;
            match channel.call(method, Some(CALL), request).await {
                // Refused before anything was done. A new token is tried once.
                Err(failure) if stale == 0 && token > 0 && is_stale(failure.message()) => stale = token,
                answer => {
                    return answer.map_err(|failure| {
                        if is_servers_own(&failure) {
                            self.turn_from(at);
                        }
                        explained(failure)
                    });
                }
            }
        }
    }

    /// The number of the token that goes with every call, which is a newer one than `stale`; 0: nobody has to log in.
    async fn token(&self, (at, channel): (usize, &Channel), stale: u64) -> Result<u64, Error> {
        let Some(login) = &self.login else { return Ok(0) };
        let mut count = self.tokens.lock().await;
        if *count > stale {
            return Ok(*count);
        }
        let password = (login.password)().await.map_err(|message| Error::Remote { message, undone: true })?;
        // etcd refuses to be asked for a token with one that it does not take.
        self.set_token(None);
        let request = AuthenticateRequest { name: login.name.clone(), password };
        let answer: Result<AuthenticateResponse, Failure> = channel.call(AUTHENTICATE, Some(CALL), &request).await;
        match answer {
            Ok(answer) => {
                let unfit = |_| Error::Remote { message: "etcd's token fits into no header".into(), undone: true };
                let mut token = HeaderValue::try_from(answer.token).map_err(unfit)?;
                token.set_sensitive(true);
                self.set_token(Some(token));
            }
            // It is so until somebody enables it, as for clientv3.
            Err(failure) if failure.message() == "etcdserver: authentication is not enabled" => {}
            Err(failure) => {
                if is_servers_own(&failure) {
                    self.turn_from(at);
                }
                let message = ["as user ", &login.name, ": ", failure.message()].concat();
                return Err(Error::Remote { message, undone: true });
            }
        }
        *count += 1;
        Ok(*count)
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

    fn set_token(&self, token: Option<HeaderValue>) {
        self.channels.iter().for_each(|channel| channel.set_header("token", token.clone()));
    }

    /// A stream, and its first message.
    pub async fn stream<Q: Message, A: Message + Default>(
        &self,
        method: Method,
        request: &Q,
    ) -> Result<(Stream<'_, A>, A), Error> {
        let (at, channel) = self.server(method, Instant::now() + CALL).await?;
        // A stream that etcd does not take ends with words that differ between its versions: streams begin seldom, each with a
        // token of its own.
        let known = *self.tokens.lock().await;
        self.token((at, channel), known).await?;
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

/// What etcd says to a token that it has forgotten, one from before its users were changed, and none at all
/// (clientv3's `shouldRefreshToken`).
fn is_stale(message: &str) -> bool {
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old", "etcdserver: user name is empty"]
        .contains(&message)
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
    let undone = matches!(
        failure,
        Failure::Grpc { code: Code::INVALID_ARGUMENT | Code::PERMISSION_DENIED | Code::UNAUTHENTICATED, .. }
    ) || message == "etcdserver: no leader"
        || message == "etcdserver: too many requests";
    Error::Remote { message, undone }
}
