//! `mote status`: what a node is and how it fares, from the running one over its control socket, or of a stopped one from its
//! data directory. Never writes. The JSON is the interface; the text is made of it.
use crate::backup::{self, Asked, Error, Kept, Policy, Version, slot};
use mote_api::{Client, health::Health};
use mote_store::Store;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

/// Damaged keys that are named.
const SHOWN_DAMAGE: usize = 100;

/// What a running node knows.
pub struct Source {
    pub store: Arc<Store>,
    pub client: Client,
    pub health: Arc<Health>,
    pub started: Instant,
    pub board: &'static str,
    pub flash_mb_a_day: u64,
    pub node_name: String,
    pub data_dir: PathBuf,
    pub policy: Policy,
}

impl Source {
    pub fn new(
        running: &mote_api::Running,
        store: Arc<Store>,
        place: &crate::parts::Place,
        started: Instant,
    ) -> Source {
        Source {
            store,
            client: running.client(),
            health: running.health.clone(),
            started,
            board: place.board.name,
            flash_mb_a_day: place.board.limits.flash_mb_a_day,
            node_name: place.node_name.clone(),
            data_dir: place.data_dir.clone(),
            policy: place.config.backups.clone(),
        }
    }

    pub fn json(&self) -> Value {
        let node = self.client.kind("", "v1", "nodes");
        let node = node.and_then(|kind| self.client.get(&kind, "", &self.node_name).ok());
        let conditions: Vec<Value> = node.iter().flat_map(|node| conditions(node.root())).collect();
        let mut status = describe(&self.store, &self.data_dir, &self.policy);
        status["running"] = json!(true);
        status["board"] = json!(self.board);
        status["uptimeSeconds"] = json!(self.started.elapsed().as_secs());
        status["ready"] = json!(self.health.passes("readyz"));
        status["node"] = json!({"name": self.node_name, "conditions": conditions});
        status["flash"]["budgetBytesPerDay"] = json!(self.flash_mb_a_day * 1_000_000);
        status
    }
}

fn conditions(node: mote_schema::Ref<'_>) -> Vec<Value> {
    let one = |condition: mote_schema::Ref<'_>| {
        let text = |field: &str| condition.get(field).str().to_owned();
        json!({"type": text("type"), "status": text("status"), "reason": text("reason"), "message": text("message")})
    };
    node.get("status").get("conditions").items().map(one).collect()
}

/// What can be said of a store and what is around it, whether its node runs or not.
fn describe(store: &Store, data_dir: &Path, policy: &Policy) -> Value {
    let stats = store.stats();
    let damage = store.damage();
    let backups = Kept::new(policy, data_dir).list();
    let backups: Vec<Value> = backups
        .iter()
        .map(|kept| {
            json!({
                "path": kept.path.display().to_string(), "slot": kept.slot, "version": kept.version,
                "bootID": kept.boot_id, "revision": kept.revision, "bytes": kept.bytes,
            })
        })
        .collect();
    let written_by = Version::read(data_dir).map(|version| version.to_json());
    let amplification = match stats.committed_bytes {
        0 => Value::Null,
        committed => json!((stats.written_bytes as f64 / committed as f64 * 100.0).round() / 100.0),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kubernetesVersion": mote_api::KUBERNETES_VERSION,
        "running": false,
        "dataDir": data_dir.display().to_string(),
        "slot": slot::current(&policy.slot_file),
        "writtenBy": written_by,
        "store": {
            "revision": stats.revision, "entries": stats.entries, "liveBytes": stats.live_bytes,
            "databaseBytes": stats.file_bytes, "journalBytes": stats.journal_bytes,
            "trouble": store.trouble().map(|error| error.to_string()),
            "damaged": damage.len(), "damagedKeys": damage.get(..SHOWN_DAMAGE).unwrap_or(&damage),
        },
        "flash": {
            "writtenBytes": stats.written_bytes, "writtenLastDayBytes": stats.last_day_bytes,
            "projectedBytesPerYear": stats.bytes_a_year, "overBudget": stats.over_budget,
            "flushes": stats.flushes, "syncs": stats.syncs, "writeAmplification": amplification,
        },
        "backups": backups,
    })
}

/// Exit code 0, whatever the status is.
pub fn print(data_dir: &Path, as_json: bool) -> ExitCode {
    let status = match find(data_dir) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("mote: {error}");
            return ExitCode::FAILURE;
        }
    };
    let text = if as_json { format!("{status:#}\n") } else { text(&status) };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn find(data_dir: &Path) -> Result<Value, Error> {
    if let Some(asked) = backup::ask(data_dir, "status")? {
        return read(asked);
    }
    if !data_dir.is_dir() {
        return Err(Error::Refused(format!("{}: there is no such directory", data_dir.display())));
    }
    let store = backup::open(data_dir)?;
    Ok(describe(&store, data_dir, &Policy::default()))
}

fn read(mut asked: Asked) -> Result<Value, Error> {
    let mut text = String::new();
    let reading = |error| Error::Io { doing: "reading from the running node".to_owned(), error };
    asked.read_to_string(&mut text).map_err(reading)?;
    serde_json::from_str(&text).map_err(|error| Error::Refused(error.to_string()))
}

fn text(status: &Value) -> String {
    let mut out = String::new();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let size = |value: &Value| bytes(number(value));
    let mut line = |name: &str, what: String| writeln!(out, "{name:<12}{what}").unwrap_or(());
    line("mote", format!("{} (Kubernetes {})", word(&status["version"]), word(&status["kubernetesVersion"])));
    let running = status["running"] == true;
    line(
        "node",
        match running {
            true => format!(
                "{} on {}, up {}; the API is {}",
                word(&status["node"]["name"]),
                word(&status["board"]),
                duration(number(&status["uptimeSeconds"])),
                if status["ready"] == true { "ready" } else { "not ready" }
            ),
            false => "stopped".to_owned(),
        },
    );
    for condition in status["node"]["conditions"].as_array().into_iter().flatten() {
        let (name, value) = (word(&condition["type"]), word(&condition["status"]));
        line("", format!("{name:<16}{value:<8}{}: {}", word(&condition["reason"]), word(&condition["message"])));
    }
    let (store, flash) = (&status["store"], &status["flash"]);
    line(
        "store",
        format!(
            "{} entries, {} live, revision {}; on disk {} and a journal of {}",
            number(&store["entries"]),
            size(&store["liveBytes"]),
            number(&store["revision"]),
            size(&store["databaseBytes"]),
            size(&store["journalBytes"])
        ),
    );
    if let Some(trouble) = store["trouble"].as_str() {
        line("", format!("in trouble: {trouble}"));
    }
    line(
        "damage",
        match number(&store["damaged"]) {
            0 => "none".to_owned(),
            count => format!("{count} keys or places; `mote store verify` checks all"),
        },
    );
    for key in store["damagedKeys"].as_array().into_iter().flatten() {
        line("", word(key));
    }
    if running {
        line(
            "flash",
            format!(
                "{} in the last day, {:.3} TB in a year like this, budget {}{}",
                size(&flash["writtenLastDayBytes"]),
                number(&flash["projectedBytesPerYear"]) as f64 / 1e12,
                match number(&flash["budgetBytesPerDay"]) {
                    0 => "none".to_owned(),
                    budget => format!("{} a day", bytes(budget)),
                },
                if flash["overBudget"] == true { ": exceeded" } else { "" }
            ),
        );
        let amplification = flash["writeAmplification"].as_f64();
        line(
            "",
            format!(
                "{} flushes, {} syncs, write amplification {}",
                number(&flash["flushes"]),
                number(&flash["syncs"]),
                amplification.map_or_else(|| "unknown".to_owned(), |times| format!("{times:.1}"))
            ),
        );
    }
    line("slot", word(&status["slot"]));
    let backups = status["backups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if backups.is_empty() {
        line("backups", "none".to_owned());
    }
    for (place, kept) in backups.iter().enumerate() {
        let name = if place == 0 { "backups" } else { "" };
        line(
            name,
            format!(
                "{} of mote {}, revision {}, {}: {}",
                word(&kept["slot"]),
                word(&kept["version"]),
                number(&kept["revision"]),
                size(&kept["bytes"]),
                word(&kept["path"])
            ),
        );
    }
    out
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_said_in_lines() {
        let status = json!({
            "version": "0.1.0", "kubernetesVersion": "v1.36.0", "running": true, "board": "rpi4-2gb", "ready": true,
            "uptimeSeconds": 7300, "slot": "slot-A",
            "node": {"name": "n", "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "posting"}]},
            "store": {"revision": 7, "entries": 2, "liveBytes": 20_000, "databaseBytes": 1, "journalBytes": 2,
                "trouble": null, "damaged": 1, "damagedKeys": ["pods/a/b"]},
            "flash": {"writtenLastDayBytes": 5_000_000, "projectedBytesPerYear": 2_000_000_000u64, "overBudget": true,
                "budgetBytesPerDay": 1_400_000_000u64, "flushes": 3, "syncs": 4, "writeAmplification": 2.5},
            "backups": [],
        });
        let text = text(&status);
        for expected in [
            "n on rpi4-2gb, up 2 h; the API is ready",
            "Ready           True    KubeletReady: posting",
            "2 entries, 20 kB live, revision 7",
            "damage      1 keys",
            "pods/a/b",
            "5000 kB in the last day, 0.002 TB in a year like this, budget 1400 MB a day: exceeded",
            "write amplification 2.5",
            "backups     none",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(super::text(&json!({"running": false})).contains("node        stopped"));
    }
}
