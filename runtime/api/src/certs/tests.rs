//! What a start writes, keeps and mends.
use super::*;
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    sync::atomic::{AtomicUsize, Ordering},
};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Dir(std::env::temp_dir().join(format!("mote-certs-{}-{number}", std::process::id())))
    }
    fn open(&self, names: &[&str]) -> Certificates {
        Certificates::open(Options {
            dir: self.0.clone(),
            cluster_domain: "cluster.local".into(),
            names: names.iter().map(|name| (*name).into()).collect(),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1)), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            server: "https://127.0.0.1:6443".into(),
        })
        .unwrap()
    }
    fn path(&self, name: &str) -> PathBuf {
        if name == "kubeconfig" { self.0.join(name) } else { self.0.join("certs").join(name) }
    }
    /// Every file's inode and content: a file that was written again has another inode.
    fn files(&self) -> BTreeMap<String, (u64, String)> {
        let names = fs::read_dir(self.0.join("certs")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let names = names.chain(["kubeconfig".into()]);
        names
            .map(|name| {
                let path = self.path(&name);
                (name, (fs::metadata(&path).unwrap().ino(), fs::read_to_string(&path).unwrap()))
            })
            .collect()
    }
    /// Which files a start with these names writes.
    fn changes(&self, names: &[&str]) -> Vec<String> {
        let before = self.files();
        self.open(names);
        let after = self.files();
        after.into_iter().filter(|(name, file)| before.get(name) != Some(file)).map(|(name, _)| name).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn made_once() {
    let dir = Dir::new();
    dir.open(&["board"]);
    let files: Vec<String> = dir.files().into_keys().collect();
    assert_eq!(
        files,
        [
            "apiserver.crt",
            "apiserver.key",
            "ca.crt",
            "ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "kubeconfig",
            "sa.key",
            "sa.pub"
        ]
    );
    for file in files {
        let secret = file.ends_with(".key") || file == "kubeconfig";
        let mode = fs::metadata(dir.path(&file)).unwrap().mode() & 0o777;
        assert_eq!(mode, if secret { 0o600 } else { 0o644 }, "{file}");
    }
    assert_eq!(dir.changes(&["board"]), [""; 0]);
    let known = Known::read(&fs::read_to_string(dir.path("apiserver.crt")).unwrap()).unwrap();
    let has = |name: &str| known.names.contains(name);
    assert!(has("board") && has("localhost") && has("kubernetes.default.svc.cluster.local"));
    let addresses: Vec<String> = known.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["10.43.0.1", "127.0.0.1", "::1"]);
    assert!((LEAF_DAYS - 1..=LEAF_DAYS).contains(&known.days_left));
}

#[test]
fn only_what_is_due_changes() {
    let dir = Dir::new();
    dir.open(&["board"]);
    assert_eq!(dir.changes(&["board", "other.example"]), ["apiserver.crt", "apiserver.key"]);

    // An authority near its end gets a new certificate for the same key, and so does everybody who shows it.
    let old = dir.open(&["board", "other.example"]);
    let issued = old.issue_client("somebody", &[]).unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(dir.path("ca.key")).unwrap()).unwrap();
    let mut short = params("mote-ca", &[], 100);
    short.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(dir.path("ca.crt"), short.self_signed(&key).unwrap().pem()).unwrap();
    assert_eq!(dir.changes(&["board", "other.example"]), ["ca.crt", "kubeconfig"]);
    let renewed = Known::read(&fs::read_to_string(dir.path("ca.crt")).unwrap()).unwrap();
    assert!(renewed.days_left > AUTHORITY_RENEW_DAYS);
    let new = dir.open(&["board", "other.example"]);
    assert!(with(&new.cluster, |authority| signed_by(&issued.certificate, authority)));
}

#[test]
fn damage_is_mended() {
    let dir = Dir::new();
    dir.open(&["board"]);
    fs::write(dir.path("apiserver.crt"), "rubbish").unwrap();
    assert_eq!(dir.changes(&["board"]), ["apiserver.crt", "apiserver.key"]);
    fs::remove_file(dir.path("kubeconfig")).unwrap();
    dir.open(&["board"]);
    assert!(dir.path("kubeconfig").exists());
    fs::write(dir.path("sa.key"), "").unwrap();
    assert_eq!(dir.changes(&["board"]), ["sa.key", "sa.key.damaged", "sa.pub"]);
    fs::write(dir.path("ca.key"), "rubbish").unwrap();
    let changed = dir.changes(&["board"]);
    assert_eq!(
        changed,
        ["apiserver.crt", "apiserver.key", "ca.crt", "ca.crt.damaged", "ca.key", "ca.key.damaged", "kubeconfig"]
    );
    assert_eq!(dir.changes(&["board"]), [""; 0]);
}

#[test]
fn renewal_follows_what_is_due() {
    let dir = Dir::new();
    let certificates = Arc::new(dir.open(&["board"]));
    let executor = async_executor::Executor::new();
    executor.spawn(certificates.clone().keep_fresh()).detach();
    // As when the clock jumps past the end of the certificate.
    fs::remove_file(dir.path("apiserver.crt")).unwrap();
    certificates.serving.retry_at(0);
    futures_lite::future::block_on(executor.run(async {
        while certificates.serving.seconds_left() == 0 {
            certificates.serving.ask();
            futures_lite::future::yield_now().await;
        }
    }));
    assert!(dir.path("apiserver.crt").exists());
}

#[test]
fn clients_are_users() {
    let dir = Dir::new();
    let certificates = dir.open(&[]);
    let issued = certificates.issue_client("system:node:board", &["system:nodes"]).unwrap();
    let user = crate::auth::x509::user(&pem_der(&issued.certificate).unwrap()).unwrap().unwrap();
    assert_eq!(user.name, "system:node:board");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    assert!(user.extra[crate::auth::CREDENTIAL_ID][0].starts_with("X509SHA256="));
    let text = certificates.kubeconfig("x", &[]).unwrap();
    assert!(text.contains("server: https://127.0.0.1:6443\n") && text.contains("current-context: mote"));
}
