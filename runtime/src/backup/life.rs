//! Backups through the life of a node: what a start does before and after the store is opened, and what goes on while
//! it runs. One timer until the image counts as good, then one a day.
use super::{
    Error, Kept, Part, Policy, Reader, Start, Version, commands::report, control, length, restore, version::reads,
};
use async_io::Timer;
use futures_lite::future::block_on;
use mote_api::health::Health;
use mote_store::{Backup, Cipher, Class, Opened, Precondition, Store, Transaction, Value, Write};
use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Between two looks at a node that is not ready, doubled each time up to an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A start, from the data directory's lock to the running node.
pub struct Life {
    data_dir: PathBuf,
    policy: Policy,
    kept: Kept,
    here: Version,
    found: Option<Version>,
    rolled_back: bool,
    /// The data as the last boot left it, to be written down once there is time.
    last_boot: Option<(Version, Backup)>,
}

impl Life {
    /// Before the store is opened: completes a restore that was cut off, and puts back what this image left when the
    /// data is that of an update that was rolled back.
    pub fn begin(data_dir: PathBuf, policy: &Policy) -> Result<Life, Error> {
        restore::finish(&data_dir)?;
        let here = Version::current(&policy.slot_file);
        let kept = Kept::new(policy, &data_dir);
        let found = Version::read(&data_dir);
        let mut life =
            Life { data_dir, policy: policy.clone(), kept, here, found, rolled_back: false, last_boot: None };
        let (snapshots, told) = (life.kept.list(), life.kept.told());
        match Start::decide(&life.here, life.found.as_ref(), &snapshots, told) {
            Start::Go => {}
            Start::Refuse(why) => return Err(Error::Refused(why)),
            Start::RollBack(to) => {
                tracing::warn!(backup = %to.path.display(), slot = to.slot, "the update was rolled back: so is its data");
                let opened = fs::File::open(&to.path).map_err(Error::io(format!("opening {}", to.path.display())));
                match opened.and_then(|file| restore::restore(&life.data_dir, io::BufReader::new(file), &mut |_| {})) {
                    Ok(_) => {
                        life.found = Version::read(&life.data_dir);
                        life.rolled_back = true;
                    }
                    // Nothing was changed.
                    Err(error) if life.found.as_ref().is_some_and(|found| reads(found.data)) => {
                        tracing::error!(%error, "rolling the data back failed; going on with the data that is there");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if told {
            life.kept.forget_told();
        }
        Ok(life)
    }

    /// The store does not open. True: by policy the newest backup is in its place, and what was there is kept aside.
    pub fn rescue(&mut self, why: &mote_store::Error) -> bool {
        use mote_store::Error as Store;
        if !self.policy.restore || !matches!(why, Store::Damaged { .. } | Store::Storage { .. }) {
            return false;
        }
        tracing::error!(error = %why, "the store does not open; the newest backup takes its place");
        for kept in self.kept.list() {
            let opened = fs::File::open(&kept.path).map_err(Error::io(format!("opening {}", kept.path.display())));
            match opened.and_then(|file| restore::restore(&self.data_dir, io::BufReader::new(file), &mut |_| {})) {
                Ok(_) => {
                    tracing::warn!(backup = %kept.path.display(), "restored");
                    self.found = Version::read(&self.data_dir);
                    self.rolled_back = true;
                    return true;
                }
                Err(error) => tracing::error!(%error, backup = %kept.path.display(), "restoring a backup"),
            }
        }
        false
    }

    /// With the store open and before anybody writes to it.
    pub fn opened(&mut self, store: &Store, cipher: &dyn Cipher) {
        if !store.damaged().is_empty() {
            self.repair(store, cipher);
        }
        let (here, found) = (&self.here, self.found.take());
        let new_boot =
            found.as_ref().filter(|found| found.healthy && found.boot_id != here.boot_id && !self.rolled_back);
        if let Some(found) = new_boot {
            let backup = store.backup();
            if here.same_image(found) {
                self.last_boot = Some((found.clone(), backup));
            } else {
                // Before the new image changes anything.
                self.write_down(found, &backup);
            }
        }
        let mut version = here.clone();
        if let Some(found) = &found {
            version.data = found.data.max(version.data);
            version.healthy = found.healthy && found.same_image(here);
        }
        if found.as_ref() != Some(&version) {
            let written = version.write(&self.data_dir);
            // A disk that cannot be written: the store tells.
            written.unwrap_or_else(|error| tracing::warn!(%error, "noting which version runs"));
        }
        self.here = version;
    }

    fn write_down(&self, version: &Version, backup: &Backup) {
        match self.kept.make(version, backup, &self.data_dir) {
            Ok(Some(path)) => tracing::info!(backup = %path.display(), "a backup was made"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "making a backup"),
        }
    }

    /// What damage took and the newest backup has comes back as it was then. Each key is named.
    fn repair(&self, store: &Store, cipher: &dyn Cipher) {
        let newest = self.kept.list().into_iter().find_map(|kept| {
            let reader = Reader::open(io::BufReader::new(fs::File::open(&kept.path).ok()?)).ok()?;
            reads(reader.manifest.version.data).then_some((kept, reader))
        });
        let Some((kept, reader)) = newest else {
            return tracing::error!("data is damaged, and there is no backup to repair it from");
        };
        let path = kept.path.display();
        if !self.policy.repair {
            return tracing::error!(backup = %path, "data is damaged; `mote restore` puts the newest backup back");
        }
        let (mut lost, mut good) = (Vec::new(), true);
        let read = reader.parts(&mut |part| {
            if let Part::Entries(entries) = part {
                lost.extend(entries.into_iter().filter(|entry| is_lost(store, &entry.key)));
            }
            Ok(())
        });
        if let Err(error) = read {
            return tracing::error!(%error, backup = %path, "repairing damaged data from a backup");
        }
        for entry in lost {
            let value = match cipher.open(&entry.key, &entry.value) {
                Ok(Opened { value, .. }) => value.map_or(entry.value, Value::from),
                Err(error) => {
                    tracing::error!(key = %entry.key, error, "repairing damaged data from a backup");
                    good = false;
                    continue;
                }
            };
            let preconditions = vec![(entry.key.clone(), Precondition::Absent)];
            let writes = vec![Write::Put(entry.key.clone(), value)];
            match block_on(store.commit(Transaction { class: Class::Durable, preconditions, writes })) {
                Ok(_) => tracing::warn!(key = %entry.key, backup = %path, "damaged; it is again what the backup says"),
                Err(error) => {
                    tracing::error!(key = %entry.key, %error, "repairing damaged data from a backup");
                    good = false;
                }
            }
        }
        if good {
            store.forget_damage();
        }
    }

    /// While the node runs.
    pub async fn go_on(mut self, store: Arc<Store>, health: Arc<Health>) {
        let this = Arc::new({
            let last_boot = self.last_boot.take();
            if let Some((version, backup)) = last_boot {
                self = mote_api::unblock(move || {
                    self.write_down(&version, &backup);
                    self
                })
                .await;
            }
            self
        });
        let wait = Duration::from_secs(this.policy.healthy_after_seconds);
        let mut next = wait;
        loop {
            Timer::after(next).await;
            if health.passes("readyz") {
                break;
            }
            next = (next * 2).clamp(Duration::from_secs(1), LONGEST_WAIT);
        }
        let good = Version { healthy: true, ..this.here.clone() };
        mote_api::unblock({
            let (this, good) = (this.clone(), good.clone());
            move || {
                if !this.here.healthy {
                    let written = good.write(&this.data_dir);
                    written.unwrap_or_else(|error| tracing::warn!(%error, "noting that this version is good"));
                }
                let _ = restore::remove(&this.data_dir.join(restore::BEFORE));
            }
        })
        .await;
        let backups = Duration::from_secs(this.policy.every_hours * 3600);
        let scrubs = if this.policy.scrub_mb_per_day == 0 { Duration::ZERO } else { DAY };
        // Until the next of each; zero: never.
        let (mut backup, mut scrub) = (backups, scrubs);
        while let Some(next) = [backup, scrub].into_iter().filter(|left| !left.is_zero()).min() {
            Timer::after(next).await;
            let due = |left: &mut Duration, every| {
                let due = *left == next;
                *left = if due { every } else { left.saturating_sub(next) };
                due
            };
            let (backup, scrub) = (due(&mut backup, backups), due(&mut scrub, scrubs));
            let (this, good, store) = (this.clone(), good.clone(), store.clone());
            mote_api::unblock(move || {
                if backup {
                    this.write_down(&good, &store.backup());
                }
                if scrub {
                    this.scrub(&store);
                }
            })
            .await;
        }
    }

    fn scrub(&self, store: &Store) {
        match store.scrub(self.policy.scrub_mb_per_day << 20) {
            Ok(damaged) => {
                for what in damaged {
                    tracing::error!(what, "rotted on the disk; it is written anew from memory");
                }
            }
            Err(error) => tracing::warn!(%error, "checking what is on the disk"),
        }
    }

    /// What commands ask of the running node.
    pub fn answers(
        &self,
        store: Arc<Store>,
        status: impl Fn() -> String + Send + Sync + 'static,
    ) -> Arc<control::Answer> {
        let (data_dir, version) = (self.data_dir.clone(), self.here.clone());
        Arc::new(move |request, begin, out| match request {
            "backup" | "verify" if store.is_shared() => Err(Error::Refused(
                "the data is in etcd, not on this machine: `etcdctl snapshot save` keeps it (docs/etcd.md)".to_owned(),
            )),
            "backup" => {
                let backup = store.backup();
                begin(length(&backup)).map_err(Error::io("answering"))?;
                let manifest = super::Manifest { version: version.clone(), revision: backup.revision() };
                super::write(out, false, &manifest, &data_dir, &backup, &mut |_| {})
            }
            "verify" => {
                let damaged = store.scrub(u64::MAX)?;
                begin(0)
                    .and_then(|()| out.write_all(report(&store, &damaged).as_bytes()))
                    .map_err(Error::io("answering"))
            }
            "status" => begin(0).and_then(|()| out.write_all(status().as_bytes())).map_err(Error::io("answering")),
            _ => Err(Error::Refused(format!("mote {} does not know {request:?}", version.version))),
        })
    }
}

/// Of a place in words it is not known which keys it held.
fn is_lost(store: &Store, key: &str) -> bool {
    let damaged = store.damaged();
    let named = damaged.iter().any(|damaged| damaged == key || damaged.contains(' '));
    named && store.snapshot().get(key).is_none()
}
