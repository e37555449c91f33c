//! Cluster DNS: UDP and TCP on port 53 of the DNS Service address, which is an address of this host's.
//!
//! `wire` is the format, `answer` the pure part, `view` what it is answered from; `forward` asks others, with
//! `resolv` saying whom and `cache` keeping what they said. Here are the sockets and their bounds. A question about
//! the cluster is answered in place; only one for others gets a task of its own.

mod answer;
mod cache;
mod forward;
mod resolv;
mod view;
pub(crate) mod wire;

use crate::slices::Slices;
use crate::{Config, Error};
use answer::{Outcome, Zone, answer, refuse, write_followed};
use async_io::{Async, Timer};
use forward::Forwarder;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use mote_api::Client;
use resolv::Resolv;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use view::Cluster;
use wire::{Code, Query, Reject, TCP_LIMIT_BYTES, answers_of, pass_on};

const PORT: u16 = 53;
/// Questions that wait for others; a further one is refused at once.
const WAITING_LIMIT: usize = 512;
/// TCP connections; a further one waits to be accepted.
const CONNECTIONS_LIMIT: usize = 64;
const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Datagrams answered before others have their turn on the thread.
const TURN: usize = 32;

struct Resolver {
    zone: Zone,
    cluster: Cluster,
    forwarder: Forwarder,
    waiting: AtomicUsize,
    connections: AtomicUsize,
}

/// The running server; dropping its tasks ends it.
pub struct Server {
    tasks: Mutex<Vec<async_executor::Task<()>>>,
}

/// Counts one in, and out again when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(counter: &'a AtomicUsize, limit: usize) -> Option<Place<'a>> {
        let taken = counter.fetch_add(1, Ordering::Relaxed);
        let place = Place(counter);
        (taken < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    pub fn start(client: &Client, config: &Config, slices: Arc<Slices>) -> Result<Server, Error> {
        let address = IpAddr::from(config.dns_ip);
        let fail = |error| Error::Dns { address, error };
        let own = vec![address, config.pod_network().gateway()];
        let resolver = Arc::new(Resolver {
            zone: Zone {
                domain: config.dns_domain.trim_end_matches('.').to_ascii_lowercase(),
                dns_ip: config.dns_ip,
                own: vec![config.cluster_cidr, config.service_cidr],
            },
            cluster: Cluster::new(client, slices)?,
            forwarder: Forwarder::new(Resolv::new(config.resolv_conf.clone(), own), config.dns_cache_limit_bytes),
            waiting: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let udp = Arc::new(Async::<UdpSocket>::bind((address, PORT)).map_err(fail)?);
        let tcp = Async::<TcpListener>::bind((address, PORT)).map_err(fail)?;
        let executor = client.executor();
        let tasks = vec![
            executor.spawn(serve_udp(client.clone(), udp, resolver.clone())),
            executor.spawn(serve_tcp(client.clone(), tcp, resolver)),
        ];
        Ok(Server { tasks: Mutex::new(tasks) })
    }

    pub fn stop(&self) {
        self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }
}

/// What is to be done with a message.
enum Step {
    Ignore,
    Say(Vec<u8>),
    /// Others must be asked: the question, and the name to ask for if that is another.
    Wait(Query, Option<wire::Name>),
}

impl Resolver {
    fn step(&self, message: &[u8], tcp: bool) -> Step {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Reject::Silent) => return Step::Ignore,
            Err(Reject::Say(bytes)) => return Step::Say(bytes),
        };
        match answer(&query, &self.zone, &self.cluster, limit(&query, tcp)) {
            Outcome::Reply(bytes) => Step::Say(bytes),
            Outcome::Forward => Step::Wait(query, None),
            Outcome::Follow(target) => Step::Wait(query, Some(target)),
        }
    }

    async fn wait(&self, query: &Query, target: Option<wire::Name>, tcp: bool) -> Vec<u8> {
        let limit = limit(query, tcp);
        let asked = match &target {
            Some(name) => query.about(name),
            None => query.clone(),
        };
        let place = Place::take(&self.waiting, WAITING_LIMIT);
        let answer = if place.is_some() { self.forwarder.ask(&asked).await } else { None };
        match (answer, target) {
            (Some(answer), None) => {
                pass_on(&answer.bytes, &answer.known, answer.age_seconds(Instant::now()), query, limit)
            }
            (Some(answer), Some(target)) => write_followed(query, &target, &answers_of(&answer.bytes), limit),
            (None, _) => match refuse(query, Code::ServerFailure, limit) {
                Outcome::Reply(bytes) => bytes,
                _ => Vec::new(),
            },
        }
    }
}

fn limit(query: &Query, tcp: bool) -> usize {
    if tcp { TCP_LIMIT_BYTES } else { query.udp_limit() }
}

async fn serve_udp(client: Client, socket: Arc<Async<UdpSocket>>, resolver: Arc<Resolver>) {
    let mut buffer = [0; 4096];
    loop {
        for _ in 0..TURN {
            let (len, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An ICMP error for an earlier answer, for instance.
                Err(error) => {
                    tracing::debug!(%error, "receiving a question");
                    Timer::after(Duration::from_millis(10)).await;
                    continue;
                }
            };
            match resolver.step(&buffer[..len], false) {
                Step::Ignore => {}
                Step::Say(bytes) => send(&socket, &bytes, peer).await,
                Step::Wait(query, target) => {
                    let (socket, resolver) = (socket.clone(), resolver.clone());
                    client.spawn(async move {
                        let bytes = resolver.wait(&query, target, false).await;
                        send(&socket, &bytes, peer).await;
                    });
                }
            }
        }
        future::yield_now().await;
    }
}

async fn send(socket: &Async<UdpSocket>, bytes: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, peer).await {
        tracing::debug!(%peer, %error, "sending an answer");
    }
}

async fn serve_tcp(client: Client, listener: Async<TcpListener>, resolver: Arc<Resolver>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection");
                Timer::after(Duration::from_millis(100)).await;
                continue;
            }
        };
        let resolver = resolver.clone();
        client.spawn(async move {
            if let Some(_place) = Place::take(&resolver.connections, CONNECTIONS_LIMIT) {
                // The other side going away is the usual end.
                let _ = converse(stream, &resolver).await;
            }
        });
    }
}

async fn converse(mut stream: Async<TcpStream>, resolver: &Resolver) -> io::Result<()> {
    loop {
        let Some(message) = timely(read_message(&mut stream)).await? else { return Ok(()) };
        let bytes = match resolver.step(&message, true) {
            Step::Ignore => return Ok(()),
            Step::Say(bytes) => bytes,
            Step::Wait(query, target) => resolver.wait(&query, target, true).await,
        };
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let framed = [&len.to_be_bytes()[..], &bytes[..usize::from(len)]].concat();
        timely(stream.write_all(&framed)).await?;
    }
}

/// None: the other side has said all.
async fn read_message(stream: &mut Async<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    if stream.read(&mut len[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut len[1..]).await?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn timely<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(CONNECTION_IDLE_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(late).await
}

#[cfg(test)]
mod tests;
