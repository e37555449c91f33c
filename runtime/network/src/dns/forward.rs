//! Asking other servers: one exchange for however many askers have the same question, the next server when one is
//! silent, TCP when an answer was cut. Source ports are the kernel's choice and ids are random, so that nobody can
//! guess an answer into the cache.
use super::cache::{Answer, Cache, Question};
use super::resolv::Resolv;
use super::wire::{Passed, Query, TCP_LIMIT_BYTES, UDP_LIMIT_BYTES, read_answer};
use async_io::{Async, Timer};
use async_lock::OnceCell;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// For one server to answer; clients usually wait five seconds for us.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often all servers are gone through.
const ROUNDS: usize = 2;
/// Questions under way; further ones are refused.
const EXCHANGES_LIMIT: usize = 256;

type Outcome = Option<Arc<Answer>>;
type Exchange = Arc<OnceCell<Outcome>>;

pub struct Forwarder {
    resolv: Resolv,
    state: Mutex<State>,
}

struct State {
    cache: Cache,
    exchanges: HashMap<Question, Exchange>,
}

impl Forwarder {
    pub fn new(resolv: Resolv, cache_limit_bytes: usize) -> Forwarder {
        let state = State { cache: Cache::new(cache_limit_bytes), exchanges: HashMap::new() };
        Forwarder { resolv, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// None: nobody answers, or too many questions are under way.
    pub async fn ask(&self, query: &Query) -> Outcome {
        let question = Question::of(query);
        let exchange = {
            let mut state = self.state();
            if let Some(kept) = state.cache.get(&question, Instant::now()) {
                return kept;
            }
            let under_way = state.exchanges.len();
            match state.exchanges.get(&question) {
                Some(exchange) => exchange.clone(),
                None if under_way >= EXCHANGES_LIMIT => return None,
                None => {
                    let exchange = Exchange::default();
                    state.exchanges.insert(question.clone(), exchange.clone());
                    exchange
                }
            }
        };
        // The first to come does it, the others wait for the same outcome.
        let asked = async {
            let outcome = self.go_round(query).await;
            self.state().cache.put(question.clone(), outcome.clone(), Instant::now());
            outcome
        };
        let outcome = exchange.get_or_init(|| asked).await.clone();
        let mut state = self.state();
        if state.exchanges.get(&question).is_some_and(|current| Arc::ptr_eq(current, &exchange)) {
            state.exchanges.remove(&question);
        }
        outcome
    }

    async fn go_round(&self, query: &Query) -> Outcome {
        let servers = self.resolv.servers();
        let mut failure = None;
        for server in (0..ROUNDS).flat_map(|_| servers.iter()) {
            match within(SERVER_TIMEOUT, ask_server(*server, query)).await {
                // A server's own trouble (failure, refusal): perhaps the next one is better off.
                Ok(answer) if matches!(answer.known.code, 2 | 5) => failure = Some(Arc::new(answer)),
                Ok(answer) => return Some(Arc::new(answer)),
                Err(error) => tracing::debug!(%server, name = %query.name, %error, "asking a name server"),
            }
        }
        failure
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(late).await
}

fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

async fn ask_server(server: SocketAddr, query: &Query) -> io::Result<Answer> {
    let (bytes, known) = ask_udp(server, query).await?;
    let (bytes, known) = if known.truncated { ask_tcp(server, query).await? } else { (bytes, known) };
    Ok(Answer { bytes, known, since: Instant::now() })
}

async fn ask_udp(server: SocketAddr, query: &Query) -> io::Result<(Vec<u8>, Passed)> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Async::<UdpSocket>::bind((any, 0))?;
    socket.get_ref().connect(server)?;
    let id = random_id();
    socket.send(&query.to_bytes(id)).await?;
    let mut buffer = [0; UDP_LIMIT_BYTES * 2];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // Anything else is somebody's guess, or late.
        if let Some(known) = buffer.get(..len).and_then(|bytes| read_answer(bytes, id, query)) {
            return Ok((buffer[..len].to_vec(), known));
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &Query) -> io::Result<(Vec<u8>, Passed)> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let id = random_id();
    let question = query.to_bytes(id);
    stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat()).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len)).min(TCP_LIMIT_BYTES)];
    stream.read_exact(&mut bytes).await?;
    match read_answer(&bytes, id, query) {
        Some(known) => Ok((bytes, known)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "not the answer to the question")),
    }
}
