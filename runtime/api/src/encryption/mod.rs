//! Encryption at rest: which entries of the store are sealed on disk and with which key. The keys come from a file of
//! upstream's form (`config`), which is watched for changes (`reload`). In memory values are what they were written as.
//!
//! What is written is always an AEAD, with the entry's key as associated data, so that a value moved to another name does
//! not open: AES-256-GCM or AES-128-GCM for keys of `aescbc` and `aesgcm`, ChaCha20-Poly1305 for those of `secretbox`.
//! The disk is Mote's alone; a key file written for kube-apiserver works, and what CBC lacks is not brought along.
//!
//! A sealed value is `k8s:enc:ALGORITHM:v1:KEYNAME:`, 16 bytes of seed, 12 of nonce, the ciphertext and its tag. Each
//! value has a key of its own, derived from the named key and the seed (HKDF-SHA256), so that the number of values one
//! key may seal has no bound that a device would reach.
mod config;
mod reload;

pub use config::Keys;
pub(crate) use reload::keep_fresh;

use crate::metrics::Text;
use config::{Algorithm, Key};
use mote_store::{Cipher, Opened};
use ring::{
    aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom as _, SystemRandom},
};
use std::{
    path::PathBuf,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// In front of every sealed value; no Doc starts so.
const PREFIX: &[u8] = b"k8s:enc:";
const SEED_BYTES: usize = 16;
const MAX_NAME_BYTES: usize = 256;

/// The cipher between the store and its disk.
pub struct Keyring {
    /// None: nothing is encrypted; what was encrypted cannot be read.
    file: Option<PathBuf>,
    keys: RwLock<Arc<Keys>>,
    random: SystemRandom,
    /// That went well, and that did not.
    reloads: [AtomicU64; 2],
}

impl Keyring {
    /// Reads the key file, if there is one.
    pub fn open(file: Option<PathBuf>) -> Result<Keyring, String> {
        let keys = match &file {
            Some(path) => Keys::read(path)?,
            None => Keys::default(),
        };
        let keys = RwLock::new(Arc::new(keys));
        Ok(Keyring { file, keys, random: SystemRandom::new(), reloads: Default::default() })
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn write_metrics(&self, text: &mut Text) {
        let name = "apiserver_encryption_config_controller_automatic_reloads_total";
        text.family(name, "counter", "Times the encryption configuration was read anew.");
        for (status, count) in ["success", "failure"].into_iter().zip(&self.reloads) {
            text.sample("", &format!("status={status:?}"), count.load(Ordering::Relaxed) as f64);
        }
    }

    /// Reads the file again. The old keys, when they differ from the new ones.
    fn reload(&self) -> Result<Option<Arc<Keys>>, String> {
        let Some(file) = &self.file else { return Ok(None) };
        let read = Keys::read(file);
        self.reloads[usize::from(read.is_err())].fetch_add(1, Ordering::Relaxed);
        let new = Arc::new(read?);
        let mut keys = self.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *keys == new {
            return Ok(None);
        }
        Ok(Some(std::mem::replace(&mut keys, new)))
    }
}

impl Cipher for Keyring {
    fn seal(&self, key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let keys = self.keys();
        let Some(with) = keys.writes(key) else { return Ok(None) };
        let (mut seed, mut nonce) = ([0; SEED_BYTES], [0; NONCE_LEN]);
        let fill = |bytes: &mut [u8]| self.random.fill(bytes).map_err(|_| "no random numbers".to_owned());
        fill(&mut seed)?;
        fill(&mut nonce)?;
        let mut sealed = Vec::with_capacity(value.len() + 128);
        sealed.extend_from_slice(PREFIX);
        for part in [with.algorithm.name(), ":v1:", &with.name, ":"] {
            sealed.extend_from_slice(part.as_bytes());
        }
        sealed.extend_from_slice(&seed);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(value);
        let aead = derived(with, &seed).ok_or("the key cannot be used")?;
        let tag = aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut sealed[start..])
            .map_err(|_| "the value is too large".to_owned())?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(Some(sealed))
    }

    fn open(&self, key: &str, stored: &[u8]) -> Result<Opened, String> {
        let keys = self.keys();
        let wanted = keys.writes(key);
        let Some(rest) = stored.strip_prefix(PREFIX) else {
            return Ok(Opened { value: None, stale: wanted.is_some() });
        };
        let (algorithm, name, rest) = header(rest).ok_or("it is sealed in a way that this version does not know")?;
        let candidate = keys.reads(key).find(|known| known.algorithm.name() == algorithm && known.name == name);
        let with = candidate.ok_or_else(|| {
            format!(
                "no matching key was found: it is encrypted with the {algorithm} key {name:?}, which the encryption \
                     configuration does not have for this resource"
            )
        })?;
        let damaged = || {
            format!(
                "it does not open with the {algorithm} key {name:?}: the key is another one of that name, or \
                                  the value is damaged"
            )
        };
        let (seed, rest) = rest.split_at_checked(SEED_BYTES).ok_or_else(damaged)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let aead = derived(with, seed).ok_or("the key cannot be used")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut value = sealed.to_vec();
        let length = aead.open_in_place(nonce, Aad::from(key), &mut value).map_err(|_| damaged())?.len();
        value.truncate(length);
        let current = wanted.is_some_and(|wanted| wanted == with);
        Ok(Opened { value: Some(value), stale: !current })
    }
}

/// Algorithm and name of the key, and what follows.
fn header(rest: &[u8]) -> Option<(&str, &str, &[u8])> {
    let mut parts = rest.splitn(4, |byte| *byte == b':');
    let mut text =
        || parts.next().filter(|part| part.len() <= MAX_NAME_BYTES).and_then(|p| std::str::from_utf8(p).ok());
    let (algorithm, version, name) = (text()?, text()?, text()?);
    (version == "v1").then_some((algorithm, name, parts.next()?))
}

/// The one value's own key.
fn derived(key: &Key, seed: &[u8]) -> Option<LessSafeKey> {
    let algorithm = match key.algorithm {
        Algorithm::AesGcm if key.secret.len() == 16 => &ring::aead::AES_128_GCM,
        Algorithm::AesGcm => &ring::aead::AES_256_GCM,
        Algorithm::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
    };
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, seed);
    let expanded = salt.extract(&key.secret);
    let expanded = expanded.expand(&[b"mote encryption at rest"], algorithm).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(text: &str) -> Keyring {
        let keyring = Keyring::open(None).unwrap();
        *keyring.keys.write().unwrap() = Arc::new(Keys::parse(text.as_bytes()).unwrap());
        keyring
    }

    fn file(providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{{resources: [secrets], providers: [{providers}]}}]"
        )
    }

    const ONE: &str = "{aescbc: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}}";
    const TWO: &str = "{secretbox: {keys: [{name: two, secret: YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=}]}}";
    const SHORT: &str = "{aesgcm: {keys: [{name: short, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}";

    #[test]
    fn values_come_back_and_keys_turn() {
        let plain = b"\x01the value";
        let one = keyring(&file(&format!("{ONE}, {{identity: {{}}}}")));
        let sealed = one.seal("secrets/a/b", plain).unwrap().unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:one:"));
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_ne!(sealed, one.seal("secrets/a/b", plain).unwrap().unwrap());
        let value = Some(plain.to_vec());
        assert_eq!(one.open("secrets/a/b", &sealed), Ok(Opened { value: value.clone(), stale: false }));
        assert_eq!(one.open("secrets/a/b", plain), Ok(Opened { value: None, stale: true }));
        assert_eq!(one.seal("pods/a/b", plain), Ok(None));
        assert_eq!(one.open("pods/a/b", plain), Ok(Opened { value: None, stale: false }));

        for turned in [format!("{TWO}, {ONE}"), format!("{SHORT}, {ONE}"), format!("{{identity: {{}}}}, {ONE}")] {
            let turned = keyring(&file(&turned));
            assert_eq!(turned.open("secrets/a/b", &sealed), Ok(Opened { value: value.clone(), stale: true }));
            if let Some(again) = turned.seal("secrets/a/b", plain).unwrap() {
                assert_eq!(turned.open("secrets/a/b", &again), Ok(Opened { value: value.clone(), stale: false }));
            }
        }
    }

    #[test]
    fn what_does_not_open_is_explained() {
        let one = keyring(&file(ONE));
        let sealed = one.seal("secrets/a/b", b"\x01value").unwrap().unwrap();
        let error = keyring(&file(TWO)).open("secrets/a/b", &sealed).unwrap_err();
        assert!(error.starts_with("no matching key was found: it is encrypted with the aesgcm key \"one\""), "{error}");
        assert!(Keyring::open(None).unwrap().open("secrets/a/b", &sealed).is_err());
        // Under another name, cut short, or with any bit turned it is refused.
        assert!(one.open("secrets/a/c", &sealed).is_err());
        for length in PREFIX.len()..sealed.len() {
            assert!(one.open("secrets/a/b", &sealed[..length]).is_err(), "{length}");
        }
        for at in PREFIX.len()..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(one.open("secrets/a/b", &damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn on_disk_it_is_sealed_and_nothing_unreadable_is_lost() {
        use mote_store::{Class, Error, Options, Precondition, Store, Transaction, Write};
        let dir = std::env::temp_dir().join(format!("mote-encryption-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let open = |keyring: Keyring| {
            let options = Options {
                dir: Some(dir.clone()),
                cache_bytes: 1 << 16,
                watch_events: 10,
                watch_bytes: 1 << 16,
                history: Default::default(),
                lazy_delay: Default::default(),
            };
            let keyring = Arc::new(keyring);
            (Store::open_sealed(options, Some(keyring.clone())).unwrap(), keyring)
        };
        let put = |store: &Store, key: &str, value: &str| {
            let writes = vec![Write::Put(key.into(), value.as_bytes().into())];
            let preconditions = Vec::<(_, Precondition)>::new();
            futures_lite::future::block_on(store.commit(Transaction { class: Class::Durable, preconditions, writes }))
        };
        let value = |store: &Store, key: &str| store.snapshot().get(key).map(|entry| entry.value.to_vec());
        let (store, _) = open(Keyring::open(None).unwrap());
        put(&store, "secrets/a/old", "\x01first words").unwrap();
        drop(store);

        let (store, _) = open(keyring(&file(ONE)));
        assert!(store.is_stale("secrets/a/old"));
        put(&store, "secrets/a/old", "\x01first words").unwrap();
        assert!(!store.is_stale("secrets/a/old"));
        put(&store, "secrets/a/new", "\x01other words").unwrap();
        put(&store, "pods/a/new", "\x01plain").unwrap();
        store.close().unwrap();
        drop(store);
        let bytes = std::fs::read(dir.join("store.redb")).unwrap();
        let holds = |text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
        assert!(holds(b"k8s:enc:aesgcm:v1:one:") && holds(b"\x01plain") && !holds(b"other words"));

        let (store, lost) = open(keyring(&file(TWO)));
        assert_eq!(value(&store, "pods/a/new").unwrap(), b"\x01plain");
        assert_eq!(value(&store, "secrets/a/new"), None);
        let why = store.unreadable("secrets/").unwrap().to_string();
        assert!(why.starts_with("unable to read \"secrets/a/new\" from the disk: no matching key was found"), "{why}");
        assert!(matches!(put(&store, "secrets/a/new", "\x01third"), Err(Error::Unreadable(_))));
        *lost.keys.write().unwrap() = Arc::new(Keys::parse(file(&format!("{TWO}, {ONE}")).as_bytes()).unwrap());
        let read = futures_lite::future::block_on(store.resealed(|_| false)).unwrap();
        assert_eq!((read, store.unreadable("")), (2, None));
        assert_eq!(value(&store, "secrets/a/new").unwrap(), b"\x01other words");
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
