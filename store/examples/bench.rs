//! Durable commits a second with one client and with sixteen on one thread, beside what the disk itself gives: a write
//! of as many bytes as one of the store's flushes, then fdatasync. `cargo run --release --example bench [DIR] [BYTES]`.
use async_executor::LocalExecutor;
use futures_lite::future::block_on;
use mote_store::{Class, Options, Store, Transaction, Write};
use std::{
    error::Error,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

const RUN: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let value_bytes = arguments.next().map_or(Ok(2000), |text| text.parse())?;
    let dir = parent.join(format!("mote-store-bench-{}", std::process::id()));
    let result = bench(&dir, value_bytes);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn bench(dir: &Path, value_bytes: usize) -> Result<(), Box<dyn Error>> {
    let options = Options {
        dir: Some(dir.into()),
        cache_bytes: 512 * 1024,
        watch_events: 1000,
        watch_bytes: 1 << 20,
        history: Duration::from_secs(300),
        lazy_delay: Duration::from_secs(5),
    };
    let store = Store::open(options)?;
    println!("{:>24} {:>10} {:>10} {:>14} {:>14}", "", "commits/s", "flushes/s", "commits/flush", "bytes/commit");
    let mut single = (0.0, 0);
    for clients in [1, 4, 16] {
        let (before, start) = (store.stats(), Instant::now());
        let executor = LocalExecutor::new();
        let tasks: Vec<_> =
            (0..clients).map(|client| executor.spawn(create_until(&store, client, value_bytes, start + RUN))).collect();
        block_on(executor.run(async {
            for task in tasks {
                task.await?;
            }
            Ok::<(), mote_store::Error>(())
        }))?;
        let (after, seconds) = (store.stats(), start.elapsed().as_secs_f64());
        let commits = (after.durable_commits - before.durable_commits) as f64;
        let flushes = (after.flushes - before.flushes) as f64;
        let bytes = (after.written_bytes - before.written_bytes) as f64;
        let name = format!("store, {clients} clients");
        let (rate, per_flush) = (commits / seconds, commits / flushes);
        println!("{name:>24} {rate:>10.0} {:>10.0} {per_flush:>14.1} {:>14.0}", flushes / seconds, bytes / commits);
        if clients == 1 {
            single = (rate, (bytes / flushes) as usize);
        } else {
            println!("{:>24} {:>10.1}x", "over one client", rate / single.0);
        }
    }
    let raw = raw_flushes(&dir.join("raw"), single.1)?;
    println!("{:>24} {raw:>10.0}   ({} bytes each; one client is {:.2} of it)", "fdatasync", single.1, single.0 / raw);
    store.close()?;
    Ok(())
}

async fn create_until(store: &Store, client: usize, value_bytes: usize, end: Instant) -> Result<(), mote_store::Error> {
    let value: Arc<[u8]> = vec![7; value_bytes].into();
    for i in 0u64.. {
        if Instant::now() >= end {
            break;
        }
        let writes = vec![Write::Put(format!("pods/{client}/{i}").into(), value.clone())];
        store.commit(Transaction { class: Class::Durable, preconditions: Vec::new(), writes }).await?;
    }
    Ok(())
}

fn raw_flushes(path: &Path, bytes: usize) -> std::io::Result<f64> {
    let file = File::create(path)?;
    let (block, start, mut flushes) = (vec![7; bytes], Instant::now(), 0);
    while start.elapsed() < RUN {
        file.write_all_at(&block, (flushes % 64) * bytes as u64)?;
        file.sync_data()?;
        flushes += 1;
    }
    Ok(flushes as f64 / start.elapsed().as_secs_f64())
}
