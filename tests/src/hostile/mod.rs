//! Clients that mean harm, many at a time, against one server, while honest ones want to be served. What is done is in tables, a
//! file for each layer; here is who does it, for how long, and what must hold: the process lives, honest clients are served,
//! and when it is over nothing is left: memory, descriptors, threads, work.
mod bodies; // documents that are lies
mod http1; // heads, lengths, connections
pub mod http2; // frames
mod tls; // below HTTP

use crate::{
    Server,
    http::{Client, Connection},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// In every credential and Secret that is sent: it must never be read in a log.
pub const MARK: &str = "hostile-mark-5d1c";
/// That many do harm at a time; each may hold hundreds of connections.
const ATTACKERS: usize = 6;
/// An attack that waits, waits no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// What kubectl's users bear.
const LONGEST: Duration = Duration::from_secs(10);
/// What may be left of it, of an hour as of half a minute, beside what the first seconds brought: the changes that watches can begin
/// with, of which the x86_64 profile keeps 8 MB, and 6 MB of allocator's slack and statistics by path.
const GROWTH_KB: u64 = (8 + 6) * 1024;

type Attack = fn(&Target, &mut Random) -> io::Result<()>;

fn attacks() -> Vec<(&'static str, Attack)> {
    [tls::ATTACKS, http1::ATTACKS, http2::ATTACKS, bodies::ATTACKS].concat()
}

/// xorshift.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below.max(1)
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next(256) as u8).collect()
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next(of.len())]
    }
}

/// Whom they attack, and as whom.
pub struct Target {
    pub admin: Client,
    pub anonymous: Client,
    /// What is being done, by attacker, to tell what an honest client had to wait for.
    doing: [AtomicUsize; ATTACKERS],
    stop: AtomicBool,
}

impl Target {
    fn doing(&self) -> Vec<&'static str> {
        let attacks = attacks();
        let name = |at: &AtomicUsize| attacks.get(at.load(Ordering::Relaxed)).map(|(name, _)| *name);
        self.doing.iter().filter_map(name).collect()
    }
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// Until `PATIENCE` is over, or all is.
    fn hold(&self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && !self.is_over() {
            thread::sleep(Duration::from_millis(50));
        }
    }
    fn socket(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&self.admin.address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }
    /// Over TLS, with short patience; the administrator's or nobody's.
    fn stream(&self, as_admin: bool) -> io::Result<crate::http::Stream> {
        let stream = if as_admin { self.admin.connect()? } else { self.anonymous.connect()? };
        stream.sock.set_read_timeout(Some(PATIENCE))?;
        stream.sock.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
    /// Sends it all, and reads what comes back until the server closes or falls silent.
    fn say(&self, as_admin: bool, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.stream(as_admin)?;
        // A server may close before it has read what it does not want.
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
        Ok(answer)
    }
    /// A request whose body may be a lie; any answer is right that is no 5xx but 504.
    fn refuse(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        if self.is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let answer = self.admin.try_request(method, path, headers, body)?;
        let fine = answer.code < 500 || answer.code == 504;
        assert!(fine, "{method} {path} {headers:?}: {} {}", answer.code, answer.text());
        Ok(())
    }
}

/// What the kernel counts of a process.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub pss_kb: u64,
    pub descriptors: usize,
    pub threads: usize,
    cpu_ticks: u64,
}

impl Footprint {
    pub fn of(pid: u32) -> Footprint {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let count = |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, |entries| entries.count());
        let pss = read("smaps_rollup");
        let pss = pss.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok());
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Footprint {
            pss_kb: pss.expect("the process lives"),
            descriptors: count("fd"),
            threads: count("task"),
            cpu_ticks: ticks(11) + ticks(12),
        }
    }
}

/// How long honest requests took, in microseconds, and what failed.
#[derive(Default)]
struct Served {
    micros: Vec<u64>,
    failures: Vec<String>,
    /// Of more than a second: how long, and what was being done then.
    slow: Vec<(Duration, Vec<&'static str>)>,
}

impl Served {
    fn add(&mut self, target: &Target, start: Instant, result: io::Result<u16>) {
        if start.elapsed() > Duration::from_secs(1) {
            self.slow.push((start.elapsed(), target.doing()));
        }
        match result {
            Ok(200 | 201) => self.micros.push(start.elapsed().as_micros() as u64),
            other => self.failures.push(format!("{other:?} after {:?}", start.elapsed())),
        }
    }
    fn report(&mut self, who: &str) {
        self.micros.sort_unstable();
        let at = |of: usize| self.micros.get((self.micros.len() * of / 1000).min(self.micros.len().saturating_sub(1)));
        let ms = |of: usize| at(of).map_or(0.0, |micros| *micros as f64 / 1000.0);
        println!(
            "{who}: {} served, {} failed; median {:.1} ms, 99 % {:.1} ms, longest {:.1} ms",
            self.micros.len(),
            self.failures.len(),
            ms(500),
            ms(990),
            ms(1000)
        );
        self.slow.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
        for (took, doing) in self.slow.iter().take(5) {
            println!("  {:.1} s among {}", took.as_secs_f64(), doing.join(", "));
        }
        assert!(self.failures.is_empty(), "{who}: {:?}", &self.failures[..self.failures.len().min(5)]);
        assert!(ms(1000) < LONGEST.as_secs_f64() * 1000.0, "{who}: not within {LONGEST:?}");
    }
}

/// One connection that is kept: reads and writes.
fn honest_kept(target: &Target) -> Served {
    let mut served = Served::default();
    let mut connection = Connection::open(&target.admin).expect("the first connection");
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0u64.. {
        if target.is_over() {
            break;
        }
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"honest-{number}"}}}}"#);
        for (method, path, body) in [
            ("POST", path.to_owned(), body.as_str()),
            ("GET", format!("{path}/honest-{number}"), ""),
            ("DELETE", format!("{path}/honest-{number}"), ""),
        ] {
            let start = Instant::now();
            served.add(target, start, connection.request(method, &path, body).map(|(code, _)| code));
        }
        thread::sleep(Duration::from_millis(50));
    }
    served
}

/// A connection for each request, as kubectl makes them; one that is not accepted is tried again, once.
fn honest_new(target: &Target) -> Served {
    let mut served = Served::default();
    while !target.is_over() {
        let start = Instant::now();
        let get = || target.admin.try_request("GET", "/api/v1/namespaces/default", &[], b"").map(|answer| answer.code);
        served.add(target, start, get().or_else(|_| get()));
        thread::sleep(Duration::from_millis(200));
    }
    served
}

fn honest_kubectl(server: &Server, target: &Target) -> Served {
    let mut served = Served::default();
    while !target.is_over() {
        let start = Instant::now();
        let output = server.kubectl.run("get namespace default -o name");
        served.add(target, start, if output.success { Ok(200) } else { Err(io::Error::other(output.stderr)) });
        thread::sleep(Duration::from_secs(2));
    }
    served
}

/// An API server and nothing beside it, so that what is left in the end is its own; it writes down all that is asked of it.
pub fn server() -> Server {
    let dir = crate::server::scratch();
    fs::create_dir(dir.join("config.d")).expect("writing");
    let audit = "apiServer: {auditLog: {profile: AllRequestBodies, maxFiles: 2}}\n";
    fs::write(dir.join("config.d/audit.yaml"), audit).expect("writing");
    Server::start_at(dir, "components: {disabled: [kubelet, network, scheduler, controllers]}\n")
}

/// Each attack alone, three times: what it costs the server in processor time and what is left of it.
pub fn each(server: &Server, named: &str) {
    raise_descriptor_limit();
    let target = target(server);
    bodies::prepare(&target);
    for (name, attack) in attacks().into_iter().filter(|(name, _)| name.contains(named)) {
        let before = Footprint::of(server.pid());
        let start = Instant::now();
        for seed in 1..=9u64 {
            let _ = attack(&target, &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        let took = start.elapsed().as_secs_f64();
        let after = Footprint::of(server.pid());
        let cpu = (after.cpu_ticks - before.cpu_ticks) as f64 / 100.0;
        println!(
            "{name:<40}{took:>8.1} s{cpu:>8.2} s of processor{:>8} kB",
            after.pss_kb as i64 - before.pss_kb as i64
        );
    }
}

fn target(server: &Server) -> Target {
    let client = server.client();
    Target { anonymous: client.anonymous(), admin: client, doing: Default::default(), stop: AtomicBool::new(false) }
}

/// The whole of it for so long, on a server with nothing else to do. Panics when something does not hold.
pub fn run(server: &mut Server, seconds: u64) {
    raise_descriptor_limit();
    let target = target(server);
    bodies::prepare(&target);
    // What is allocated once: statistics, tables, the pool of threads.
    round(server, &target, Duration::from_secs((seconds / 4).clamp(5, 60)), false);
    let before = settled(server);
    round(server, &target, Duration::from_secs(seconds), true);
    let after = settled(server);
    println!("before: {before:?}\nafter: {after:?}");
    assert!(after.pss_kb <= before.pss_kb + GROWTH_KB, "memory grew");
    assert!(after.descriptors <= before.descriptors + 2, "descriptors are left");
    assert!(after.threads <= before.threads, "threads are left");
    let log = server.log() + &fs::read_to_string(server.dir.join("data/audit/audit.log")).unwrap_or_default();
    for word in ["panicked", MARK] {
        let line = log.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "in the log");
    }
    assert!(server.log().len() < 4 << 20, "{} bytes of log", server.log().len());
}

fn round(server: &Server, target: &Target, duration: Duration, report: bool) {
    target.stop.store(false, Ordering::Relaxed);
    let attacks = attacks();
    let counts: Vec<[AtomicU64; 2]> = attacks.iter().map(|_| Default::default()).collect();
    let broken: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        let seed = Arc::new(AtomicU64::new(1));
        for doing in &target.doing {
            let (attacks, counts, seed, broken) = (&attacks, &counts, seed.clone(), &broken);
            scope.spawn(move || {
                while !target.is_over() {
                    // Each in turn, so that a short run has all of them.
                    let number = seed.fetch_add(1, Ordering::Relaxed);
                    let at = number as usize % attacks.len();
                    let (name, attack) = attacks[at];
                    doing.store(at, Ordering::Relaxed);
                    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let run = std::panic::AssertUnwindSafe(|| attack(target, &mut random));
                    match std::panic::catch_unwind(run) {
                        Ok(Ok(())) => counts[at][0].fetch_add(1, Ordering::Relaxed),
                        // Being cut off is what they deserve.
                        Ok(Err(_)) => counts[at][1].fetch_add(1, Ordering::Relaxed),
                        Err(_) => {
                            broken.lock().expect("nobody panics with it").push(format!("{name}, number {number}"));
                            break;
                        }
                    };
                }
            });
        }
        let kept = scope.spawn(|| honest_kept(target));
        let new = scope.spawn(|| honest_new(target));
        let kubectl = scope.spawn(|| honest_kubectl(server, target));
        let end = Instant::now() + duration;
        while Instant::now() < end && broken.lock().expect("nobody panics with it").is_empty() {
            thread::sleep(Duration::from_millis(100));
        }
        target.stop.store(true, Ordering::Relaxed);
        let served = [("one connection", kept), ("a connection each", new), ("kubectl", kubectl)];
        for (who, served) in served {
            let mut served = served.join().expect("honest clients do not panic");
            if report {
                served.report(who);
            }
        }
    });
    assert_eq!(*broken.lock().expect("nobody panics with it"), Vec::<String>::new(), "log: {}", server.log());
    if report {
        for ((name, _), [done, cut]) in attacks.iter().zip(&counts) {
            println!("{name}: {} times, {} cut off", done.load(Ordering::Relaxed), cut.load(Ordering::Relaxed));
        }
    }
}

/// When connections are closed, threads of file work have ended, and the processor is left alone.
fn settled(server: &mut Server) -> Footprint {
    crate::eventually("the server is at rest", 60, || {
        let first = Footprint::of(server.pid());
        thread::sleep(Duration::from_secs(3));
        let then = Footprint::of(server.pid());
        // A tick is 10 ms.
        let ticks = then.cpu_ticks - first.cpu_ticks;
        let rests = ticks <= 10 && then.descriptors <= first.descriptors && then.threads <= first.threads;
        let sockets = count_sockets(server.pid());
        if rests && sockets <= 3 { Ok(then) } else { Err(format!("{ticks} ticks, {sockets} sockets, {then:?}")) }
    })
}

fn count_sockets(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let is_socket = |entry: io::Result<fs::DirEntry>| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        link.to_str()?.starts_with("socket:").then_some(())
    };
    entries.filter_map(is_socket).count()
}

fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the struct they are given and nothing else.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(16_384);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
