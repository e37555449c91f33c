//! What a million updates of a thousand objects leave on disk, cost in bytes, and how long the longest of them waits:
//! `cargo run --release --example churn [DIR] [UPDATES] [CLIENTS] [durable|lazy]`.
use async_executor::LocalExecutor;
use futures_lite::future::block_on;
use mote_store::{Class, Options, Store, Transaction, Write};
use std::{
    cell::RefCell,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

const OBJECTS: u64 = 1000;
const VALUE_BYTES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let updates: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let clients: u64 = arguments.next().map_or(Ok(16), |text| text.parse())?;
    let class = if arguments.next().as_deref() == Some("lazy") { Class::Lazy } else { Class::Durable };
    let dir = parent.join(format!("mote-store-churn-{}", std::process::id()));
    let options = Options {
        dir: Some(dir.clone()),
        cache_bytes: 1 << 20,
        watch_events: 1000,
        watch_bytes: 1 << 20,
        history: Duration::from_secs(300),
        lazy_delay: Duration::from_millis(500),
    };
    let store = Store::open(options.clone())?;
    let (start, waits) = (Instant::now(), RefCell::new(Vec::new()));
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (store, waits) = (&store, &waits);
            executor.spawn(async move {
                for i in 0..updates / clients {
                    let key = format!("pods/{}", (i * 7919 + client * 104_729) % OBJECTS);
                    let mut value = vec![7; VALUE_BYTES];
                    value[..8].copy_from_slice(&i.to_le_bytes());
                    let writes = vec![Write::Put(key.into(), value.into())];
                    let begun = Instant::now();
                    store.commit(Transaction { class, preconditions: Vec::new(), writes }).await?;
                    waits.borrow_mut().push(begun.elapsed().as_micros() as u32);
                    if class == Class::Lazy {
                        futures_lite::future::yield_now().await;
                    }
                }
                Ok::<(), mote_store::Error>(())
            })
        })
        .collect();
    block_on(executor.run(async {
        for task in tasks {
            task.await?;
        }
        Ok::<(), mote_store::Error>(())
    }))?;
    drop(executor);
    let seconds = start.elapsed().as_secs_f64();
    let stats = store.stats();
    let mut waits = waits.into_inner();
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    println!(
        "{:.0} updates a second; waits in ms: median {:.1}, p99 {:.1}, p99.9 {:.1}, longest {:.1}",
        waits.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!(
        "{} bytes written an update, {:.2} flushes, {} rounds, longest slice {:.1} ms",
        stats.written_bytes / waits.len() as u64,
        stats.syncs as f64 / waits.len() as f64,
        stats.rounds,
        stats.longest_slice.as_secs_f64() * 1000.0
    );
    println!(
        "live {} kB, database {} kB, journal {} kB",
        stats.live_bytes / 1000,
        stats.file_bytes / 1000,
        stats.journal_bytes / 1000
    );
    store.close()?;
    let begun = Instant::now();
    drop(store);
    let store = Store::open(options)?;
    println!(
        "opened in {:.1} ms; database {} kB",
        begun.elapsed().as_secs_f64() * 1000.0,
        store.stats().file_bytes / 1000
    );
    drop(store);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
