//! Durable puts: what one costs beside an fdatasync of the same size, and what sixteen clients get beside one and beside etcd.
use crate::{median, options, part_of, row};
use async_executor::{Executor, LocalExecutor};
use async_io::Async;
use futures_lite::future::block_on;
use mote_grpc::{Channel, Dial, Dialled, Method, Socket};
use mote_store::{Blocks, Class, Directory, Part, Storage, Store, Transaction, Write};
use mote_tests::{etcd::Etcd, server::scratch};
use std::{
    cell::RefCell,
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Each of those that are compared has its turn so often, for so long; what is printed is the median turn.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);
const CLIENTS: usize = 16;
const VALUE_BYTES: usize = 2000;
/// What a lone put appends to the journal.
const BLOCK_BYTES: usize = 4096;
/// As an SD card's or an eMMC's.
const CARD_FLUSH: Duration = Duration::from_millis(3);

/// A second, and the median wait of one of them in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    rate: f64,
    wait: f64,
}

pub fn puts() {
    let dir = scratch();
    let mut etcd = Etcd::start();
    let remote = Remote::new(etcd.port);
    let store = Store::open(options(dir.join("store"))).expect("a store");
    let mut turns: [Vec<Turn>; 5] = Default::default();
    for turn in 0..TURNS {
        turns[0].push(flushes(&dir.join("judge")));
        turns[1].push(store_turn(&store, 1, turn));
        turns[2].push(store_turn(&store, CLIENTS, turn));
        turns[3].push(remote.turn(1, turn));
        turns[4].push(remote.turn(CLIENTS, turn));
    }
    let longest = store.stats().longest_slice.as_secs_f64() * 1000.0;
    store.close().expect("it closes");
    etcd.stop();
    let rate = |at: usize| median(turns[at].iter().map(|turn| turn.rate).collect());
    let wait = |at: usize| median(turns[at].iter().map(|turn| turn.wait).collect());
    row("fdatasync of 4 kB, median", wait(0), "ms", "");
    row("durable put of 2 kB, one client, median", wait(1), "ms", "");
    row("  to the fdatasync", wait(1) / wait(0), "x", "<= 1.3");
    row("  etcd", wait(3), "ms", "");
    row("durable puts, one client", rate(1), "/s", "");
    row("  etcd", rate(3), "/s", "");
    row("durable puts, 16 clients", rate(2), "/s", "");
    row("  to one client", rate(2) / rate(1), "x", ">= 8");
    row("  etcd", rate(4), "/s", "");
    row("  ours to etcd's", rate(2) / rate(4), "x", ">= 2");
    row("longest that a flush stood behind the database", longest, "ms", "<= 50");
    let slow = Arc::new(Slow(Directory::new(&dir.join("slow")).expect("a directory")));
    let store = Store::open_in(options(dir.join("slow")), slow).expect("a store");
    let turns: Vec<_> = (0..3).map(|turn| [1, CLIENTS].map(|clients| store_turn(&store, clients, turn).rate)).collect();
    let [one, many] = [0, 1].map(|at| median(turns.iter().map(|turn| turn[at]).collect()));
    row("on a disk whose flush takes 3 ms more, one client", one, "/s", "");
    row("  16 clients to one", many / one, "x", ">= 8");
    row(
        "  longest that a flush stood behind the database",
        store.stats().longest_slice.as_secs_f64() * 1000.0,
        "ms",
        "<= 50",
    );
    drop(store);
    let _ = std::fs::remove_dir_all(dir);
}

/// Of a block at a time, round about in a file that is there already, as the journal is.
fn flushes(path: &Path) -> Turn {
    let file = File::create(path).expect("a file");
    let block = vec![7; BLOCK_BYTES];
    (0..64).for_each(|at| file.write_all_at(&block, at * BLOCK_BYTES as u64).expect("it is written"));
    file.sync_all().expect("it is flushed");
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < TURN {
        let begun = Instant::now();
        file.write_all_at(&block, (waits.len() % 64 * BLOCK_BYTES) as u64).expect("it is written");
        file.sync_data().expect("it is flushed");
        waits.push(begun.elapsed());
    }
    told(waits, start)
}

fn told(waits: Vec<Duration>, start: Instant) -> Turn {
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    let mut waits: Vec<f64> = waits.iter().map(|wait| wait.as_secs_f64() * 1000.0).collect();
    waits.sort_by(f64::total_cmp);
    Turn { rate, wait: part_of(&waits, 0.5) }
}

/// Each client puts one new key after the other.
fn by_clients(clients: usize, turn: usize, put: &dyn AsyncPut) -> Turn {
    let (start, waits, executor) = (Instant::now(), RefCell::new(Vec::new()), LocalExecutor::new());
    let waits = &waits;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            executor.spawn(async move {
                for n in 0.. {
                    let begun = Instant::now();
                    if begun - start >= TURN {
                        break;
                    }
                    put.put(format!("pods/{turn}-{clients}-{client}/{n}")).await;
                    waits.borrow_mut().push(begun.elapsed());
                }
            })
        })
        .collect();
    async_io::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
    drop(executor);
    told(waits.take(), start)
}

type Put<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Who takes puts.
trait AsyncPut {
    fn put(&self, key: String) -> Put<'_>;
}

impl AsyncPut for Store {
    fn put(&self, key: String) -> Put<'_> {
        let writes = vec![Write::Put(key.into(), vec![7; VALUE_BYTES].into())];
        let commit = self.commit(Transaction { class: Class::Durable, preconditions: Vec::new(), writes });
        Box::pin(async move { commit.await.map(drop).expect("it is committed") })
    }
}

fn store_turn(store: &Store, clients: usize, turn: usize) -> Turn {
    by_clients(clients, turn, store)
}

/// etcd, by its own protocol over one connection, as kube-apiserver has it.
struct Remote {
    channel: Channel,
}

/// etcd's `PutRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

struct Address(SocketAddr);

impl Dial for Address {
    fn dial(&self) -> Dialled<'_> {
        Box::pin(async move {
            let stream = Async::<TcpStream>::connect(self.0).await.map_err(|error| error.to_string())?;
            stream.get_ref().set_nodelay(true).map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}

impl Remote {
    fn new(port: u16) -> Remote {
        let executor = Arc::new(Executor::new());
        let runs = executor.clone();
        // For as long as this program runs.
        thread::spawn(move || block_on(runs.run(std::future::pending::<()>())));
        Remote { channel: Channel::new(Box::new(Address(([127, 0, 0, 1], port).into())), executor) }
    }

    fn turn(&self, clients: usize, turn: usize) -> Turn {
        by_clients(clients, turn, self)
    }
}

impl AsyncPut for Remote {
    fn put(&self, key: String) -> Put<'_> {
        const PUT: Method = Method { doing: "Put", path: "/etcdserverpb.KV/Put" };
        Box::pin(async move {
            let request = PutRequest { key: key.into_bytes(), value: vec![7; VALUE_BYTES] };
            let answer: Result<PutResponse, _> = self.channel.call(PUT, None, &request).await;
            answer.expect("etcd takes it");
        })
    }
}

/// A directory whose flushes take longer.
struct Slow(Directory);
struct SlowBlocks(Box<dyn Blocks>);

impl Blocks for SlowBlocks {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        thread::sleep(CARD_FLUSH);
        self.0.sync()
    }
}

impl Storage for Slow {
    fn open(&self, part: Part, writable: bool) -> io::Result<Box<dyn Blocks>> {
        Ok(Box::new(SlowBlocks(self.0.open(part, writable)?)))
    }
    fn create(&self, part: Part) -> io::Result<Box<dyn Blocks>> {
        Ok(Box::new(SlowBlocks(self.0.create(part)?)))
    }
    fn publish(&self, part: Part) -> io::Result<()> {
        self.0.publish(part)
    }
    fn keep(&self, part: Part) -> io::Result<()> {
        self.0.keep(part)
    }
    fn set_aside(&self, part: Part) -> io::Result<()> {
        self.0.set_aside(part)
    }
    fn forget(&self, part: Part) {
        self.0.forget(part);
    }
    fn hold_back(&self, bytes: u64) -> io::Result<()> {
        self.0.hold_back(bytes)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn taken_bytes(&self, part: Part) -> io::Result<u64> {
        self.0.taken_bytes(part)
    }
}
