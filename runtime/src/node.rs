//! The life of a node: what is started in which order, what is told to whom, and how it stops.
//!
//! Order: the data directory's lock, the store, the API server with its certificates; then the parts that are its
//! clients. A part that cannot start is logged and shows in /readyz; the API serves on. Only a node whose API
//! cannot serve ends, with the reason.
use crate::{
    backup::{self, Life},
    config::{Component, Config},
    data_dir::{self, DataDir},
    logging, machine, manifests,
    notify::notify,
    parts::{self, Place},
    preflight,
    signals::Termination,
    status::Source,
};
use async_executor::Executor;
use async_io::{Timer, block_on};
use futures_lite::{FutureExt, future};
use mote_api::{Running, certs, encryption::Keyring, http};
use mote_boards::Limits;
use mote_store::Store;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// From SIGTERM until connections are cut; the promise is two seconds to the end of the process.
const STOP_LIMIT: Duration = Duration::from_millis(1200);

/// What sysexits.h calls EX_CONFIG, as for mistakes in the configuration: the unit does not start it again.
const EXIT_REFUSED: u8 = 78;

#[derive(Debug)]
enum Error {
    DataDir(data_dir::Error),
    Backup(backup::Error),
    Encryption(String),
    Store(mote_store::Error),
    Api(mote_api::Error),
    Signals(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::DataDir(error) => write!(f, "{error}"),
            Error::Backup(error) => write!(f, "{error}"),
            Error::Encryption(error) => write!(f, "apiServer.encryptionConfig: {error}"),
            Error::Store(error) => write!(f, "opening the store: {error}"),
            Error::Api(error) => write!(f, "starting the API server: {error}"),
            Error::Signals(error) => write!(f, "taking over SIGTERM and SIGINT: {error}"),
        }
    }
}

pub fn run(config: Config, data_dir: &Path) -> ExitCode {
    logging::start(config.log_level);
    machine::tame_allocator();
    machine::raise_descriptor_limit();
    match live(config, data_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one line that must be seen, whatever the log level.
            eprintln!("mote: {error}");
            match error {
                // Starting again would not help: somebody has to decide.
                Error::Backup(backup::Error::Refused(_)) => ExitCode::from(EXIT_REFUSED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn live(config: Config, data_dir: &Path) -> Result<(), Error> {
    let started = Instant::now();
    // Before any thread, which the store starts first.
    let termination = Termination::block().map_err(Error::Signals)?;
    let data_dir = DataDir::open(data_dir).map_err(Error::DataDir)?;
    let board = machine::board(&config);
    let place = Place::new(config, board, data_dir.path.clone());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        board = board.name,
        model = machine::model(),
        node = place.node_name,
        address = %place.node_ip,
        data_dir = %place.data_dir.display(),
        "starting"
    );
    let mut policy = place.config.backups.clone();
    if place.config.etcd.is_used() {
        // What is on this disk is not the data.
        (policy.keep, policy.every_hours, policy.scrub_mb_per_day) = (0, 0, 0);
    }
    preflight::at_start(&place.config, board, &place.data_dir);
    let mut life = Life::begin(data_dir.path.clone(), &policy).map_err(Error::Backup)?;
    let keyring = place.config.encryption_config.as_str();
    let keyring = Keyring::open((!keyring.is_empty()).then(|| keyring.into())).map_err(Error::Encryption)?;
    let keyring = Arc::new(keyring);
    let options = store_options(&data_dir, &board.limits);
    let executor = Arc::new(Executor::new());
    let mut store = open_store(options.clone(), &place, &keyring, &executor);
    if let Err(why) = &store
        && life.rescue(why)
    {
        store = open_store(options, &place, &keyring, &executor);
    }
    let store = Arc::new(store.map_err(Error::Store)?);
    store.set_budget(board.limits.flash_mb_a_day * 1_000_000);
    for key in store.damaged() {
        tracing::error!(key, "damaged on disk and left out");
    }
    life.opened(&store, &*keyring);

    for _ in 1..place.config.threads.unwrap_or(board.limits.threads as usize) {
        let executor = executor.clone();
        // They end with the process.
        thread::spawn(move || block_on(executor.run(future::pending::<()>())));
    }
    let node = Node { store: store.clone(), keyring, executor: executor.clone(), place, life };
    let outcome = block_on(executor.run(serve(node, termination, started)));
    if let Err(error) = store.close() {
        tracing::warn!(%error, "closing the store");
    }
    outcome
}

/// On this machine's disk, or on etcd where others share it.
fn open_store(
    options: mote_store::Options,
    place: &Place,
    keyring: &Arc<Keyring>,
    executor: &Arc<Executor<'static>>,
) -> Result<Store, mote_store::Error> {
    #[cfg(feature = "etcd")]
    if place.config.etcd.is_used() {
        let etcd = mote_store::Etcd {
            servers: place.config.etcd.servers(),
            login: place.config.etcd.login(),
            prefix: place.config.etcd.key_prefix(),
            layout: Arc::new(mote_api::EtcdLayout::new(place.config.volatile.event_ttl)),
            executor: executor.clone(),
        };
        return block_on(executor.run(Store::open_etcd(options, etcd, Some(keyring.clone()))));
    }
    let _ = (place, executor);
    Store::open_sealed(options, Some(keyring.clone()))
}

/// All that is there before the API server.
struct Node {
    store: Arc<Store>,
    keyring: Arc<Keyring>,
    executor: Arc<Executor<'static>>,
    place: Place,
    life: Life,
}

async fn serve(node: Node, termination: Termination, started: Instant) -> Result<(), Error> {
    let Node { store, keyring, executor, place, life } = node;
    let config = mote_api::Config { keyring: Some(keyring), ..api_config(&place) };
    let running = mote_api::start(store.clone(), executor.clone(), config).await.map_err(Error::Api)?;
    tracing::info!(port = place.config.api_port, ms = elapsed_ms(started), "the API server serves");
    let parts = parts::start(&running, &place).await;
    manifests::start(&running.client(), &place.config.manifests);
    if running.health.passes("readyz") {
        tracing::info!(ms = elapsed_ms(started), "ready");
    } else {
        tracing::warn!("not ready: see /readyz?verbose");
    }
    notify("READY=1");
    let source = Source::new(&running, store.clone(), &place, started);
    let status = move || source.json().to_string();
    let (answers, data_dir) = (life.answers(store.clone(), status), place.data_dir.clone());
    let listening = executor.spawn(async move {
        if let Err(error) = backup::listen(&data_dir, answers).await {
            tracing::warn!(%error, "listening for commands");
        }
    });
    let life = executor.spawn(life.go_on(store, running.health.clone()));

    if let Err(error) = termination.wait().await {
        tracing::error!(%error, "waiting for signals");
    }
    notify("STOPPING=1");
    tracing::info!("stopping; containers keep running");
    drop((listening, life));
    parts.stop();
    stop_serving(&running).await;
    Ok(())
}

async fn stop_serving(running: &Running) {
    let limit = async {
        Timer::after(STOP_LIMIT).await;
    };
    running.server.stop().or(limit).await;
}

fn elapsed_ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

fn store_options(data_dir: &DataDir, limits: &Limits) -> mote_store::Options {
    mote_store::Options {
        dir: Some(data_dir.path.clone()),
        cache_bytes: limits.store_cache_kb as usize * 1024,
        watch_events: limits.watch_events as usize,
        watch_bytes: limits.watch_kb as usize * 1024,
        history: Duration::from_secs(limits.history_seconds),
        lazy_delay: Duration::from_millis(limits.lazy_delay_ms),
    }
}

fn api_config(place: &Place) -> mote_api::Config {
    let Place { config, node_name, node_ip, .. } = place;
    let limits = &place.board.limits;
    let service = config.service_network;
    let mut names = vec![node_name.clone(), format!("api.{}", config.base_domain)];
    let mut addresses: Vec<IpAddr> = vec![
        Ipv4Addr::LOCALHOST.into(),
        (*node_ip).into(),
        place.advertise_address().into(),
        place.gateway().into(),
        service.nth(1).into(),
    ];
    for name in &config.subject_alt_names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    mote_api::Config {
        certificates: certs::Options {
            dir: place.data_dir.clone(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            names,
            addresses,
            server: format!("https://127.0.0.1:{}", config.api_port),
        },
        http: http::Config {
            port: config.api_port,
            max_connections: limits.connections as usize,
            max_requests_inflight: limits.requests_in_flight as usize,
            max_mutating_requests_inflight: limits.requests_in_flight.div_ceil(2) as usize,
            // A client-go program holds some ten watches on one connection.
            max_watches: limits.connections as usize * 8,
            max_unsent_bytes: limits.unread_kb as usize * 1024,
            give_memory_back: machine::give_memory_back,
            ..http::Config::default()
        },
        settings: mote_api::Settings {
            service_cidr: (service.address, service.prefix),
            node_port_range: config.node_port_range.clone(),
            advertise_address: place.advertise_address(),
            port: config.api_port,
            serves_dns: place.runs(Component::Network) && place.runs(Component::Dns),
            max_events: limits.events as usize,
            volatile: config.volatile,
        },
        audit: config.audit.config(&place.data_dir),
        keyring: None,
    }
}

impl Place {
    /// Where pods reach the API server through the `kubernetes` Service.
    fn advertise_address(&self) -> Ipv4Addr {
        self.config.advertise_address.unwrap_or(self.node_ip)
    }

    /// Whether this process has the part.
    pub fn runs(&self, component: Component) -> bool {
        self.config.runs(component)
    }
}
