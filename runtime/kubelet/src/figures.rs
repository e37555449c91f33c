//! What a kubelet shows at /metrics and below, made when somebody asks: of itself, of what the node and pods use
//! (kubelet/pkg/metrics/collectors/resource_metrics.go), and by cAdvisor's names what dashboards are made of. Nothing is
//! kept for it but a few counts.
use crate::{Kubelet, labels, node::meminfo, probes::RESULTS, state::lock};
use jiff::Timestamp;
use mote_api::{
    metrics::{Text, write_process},
    pods::Figures,
};
use mote_cri::v1::{self, container_state, sandbox_state};
use mote_schema::{Status, Value};
use std::collections::BTreeMap;

/// Which of a figure's scopes it is there for.
const NODE: u8 = 1;
const POD: u8 = 2;
const CONTAINER: u8 = 4;
const INTERFACE: u8 = 8;

/// Its end, kind, the scopes, where it is in their stats, how many make one of its unit.
type Figure = (&'static str, &'static str, u8, [&'static str; 2], f64);

/// Of those of cAdvisor (docs/storage/prometheus.md there) what the runtime knows.
const CONTAINERS: &[Figure] = &[
    ("cpu_usage_seconds_total", "counter", NODE | POD | CONTAINER, ["cpu", "usageCoreNanoSeconds"], 1e9),
    ("memory_working_set_bytes", "gauge", NODE | POD | CONTAINER, ["memory", "workingSetBytes"], 1.0),
    ("memory_usage_bytes", "gauge", NODE | POD | CONTAINER, ["memory", "usageBytes"], 1.0),
    ("memory_rss", "gauge", NODE | POD | CONTAINER, ["memory", "rssBytes"], 1.0),
    ("fs_usage_bytes", "gauge", CONTAINER, ["rootfs", "usedBytes"], 1.0),
    ("fs_limit_bytes", "gauge", CONTAINER, ["rootfs", "capacityBytes"], 1.0),
    ("fs_inodes_free", "gauge", CONTAINER, ["rootfs", "inodesFree"], 1.0),
    ("fs_inodes_total", "gauge", CONTAINER, ["rootfs", "inodes"], 1.0),
    ("network_receive_bytes_total", "counter", INTERFACE, ["", "rxBytes"], 1.0),
    ("network_receive_errors_total", "counter", INTERFACE, ["", "rxErrors"], 1.0),
    ("network_transmit_bytes_total", "counter", INTERFACE, ["", "txBytes"], 1.0),
    ("network_transmit_errors_total", "counter", INTERFACE, ["", "txErrors"], 1.0),
];

/// Those that are STABLE too, at /metrics/resource by the scope's name.
const RESOURCES: &[Figure] = CONTAINERS.split_at(2).0;

/// Of the file system that a claim is on.
const VOLUMES: [(&str, &str); 6] = [
    ("available_bytes", "availableBytes"),
    ("capacity_bytes", "capacityBytes"),
    ("inodes", "inodes"),
    ("inodes_free", "inodesFree"),
    ("inodes_used", "inodesUsed"),
    ("used_bytes", "usedBytes"),
];

/// One of what is measured.
struct Row<'a> {
    scope: u8,
    labels: String,
    stats: &'a Value,
}

impl Kubelet {
    pub(crate) async fn figures(&self, of: Figures) -> Result<String, Status> {
        let mut text = Text::default();
        match of {
            Figures::Kubelet => self.own_figures(&mut text).await?,
            Figures::Probes => self.probes(&mut text),
            Figures::Resources => {
                let summary = self.summary(false).await;
                let failed = summary.is_err();
                if let Ok(summary) = summary {
                    resources(&mut text, &summary);
                }
                text.family("resource_scrape_error", "gauge", "1 if what containers use could not be read.");
                text.sample("", "", failed.into());
            }
            Figures::Containers => self.containers(&mut text).await?,
        }
        Ok(text.finish())
    }

    async fn own_figures(&self, text: &mut Text) -> Result<(), Status> {
        text.family("kubelet_node_name", "gauge", "The node's name; always 1.");
        text.sample("", &format!("node={:?}", self.config.node_name), 1.0);
        let failed = |error: mote_cri::Error| Status::internal(error.to_string());
        let sandboxes = self.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.map_err(failed)?;
        let ready = sandboxes.items.iter().filter(|sandbox| sandbox.state == sandbox_state::READY).count();
        text.family("kubelet_running_pods", "gauge", "Pods that have a sandbox that is ready.");
        text.sample("", "", ready as f64);
        let containers = self.all_containers().await?;
        text.family("kubelet_running_containers", "gauge", "Containers there are, by state.");
        for (name, state) in [
            ("created", container_state::CREATED),
            ("exited", container_state::EXITED),
            ("running", container_state::RUNNING),
            ("unknown", container_state::UNKNOWN),
        ] {
            let count = containers.iter().filter(|container| container.state == state).count();
            if count > 0 {
                text.sample("", &format!("container_state={name:?}"), count as f64);
            }
        }
        self.counts.write(text);
        self.claims(text).await;
        write_process(text);
        Ok(())
    }

    /// What claims have of the disk they are on.
    async fn claims(&self, text: &mut Text) {
        let disks = self.disks().await;
        let of = |stats: &Value| {
            let claim = &stats["pvcRef"];
            let labels =
                format!("namespace={:?},persistentvolumeclaim={:?}", word(&claim["namespace"]), word(&claim["name"]));
            claim.is_object().then_some(labels)
        };
        // Pods may share a claim.
        let claims = disks.values().flat_map(|disk| &disk.volumes).filter_map(|stats| Some((of(stats)?, stats)));
        let claims: BTreeMap<String, &Value> = claims.collect();
        for (end, field) in VOLUMES.iter().filter(|_| !claims.is_empty()) {
            text.family(&["kubelet_volume_stats_", end].concat(), "gauge", "Of the file system that a claim is on.");
            for (labels, stats) in &claims {
                text.sample("", labels, stats[*field].as_f64().unwrap_or(0.0));
            }
        }
    }

    /// Of the containers that run.
    fn probes(&self, text: &mut Text) {
        text.family("prober_probe_total", "counter", "Attempts of a container's probes, by result.");
        for worker in lock(&self.workers).values() {
            let memory = lock(&worker.memory);
            let Some(pod) = memory.pod.as_ref() else { continue };
            for (container, type_, results) in memory.probe_results() {
                for (result, count) in RESULTS.iter().zip(results).filter(|(_, count)| *count > 0) {
                    let labels = format!(
                        "container={container:?},namespace={:?},pod={:?},pod_uid={:?},probe_type={:?},result={result:?}",
                        pod.namespace,
                        pod.name,
                        pod.uid,
                        type_.name()
                    );
                    text.sample("", &labels, count as f64);
                }
            }
        }
    }

    async fn containers(&self, text: &mut Text) -> Result<(), Status> {
        let summary = self.summary(true).await?;
        let mut running = self.all_containers().await?;
        running.retain(is_running);
        let of = |uid: &Value, name: &Value| {
            let is = |key: &str, value: &Value, container: &v1::Container| {
                container.labels.get(key).map(String::as_str) == value.as_str()
            };
            let found = |c: &&v1::Container| is(labels::POD_UID, uid, c) && is(labels::CONTAINER_NAME, name, c);
            running.iter().find(found)
        };
        let rows = rows(&summary, |pod, container| {
            if pod.is_null() {
                return "id=\"/\"".to_owned();
            }
            let container = container.unwrap_or(&Value::Null);
            let known = of(&pod["podRef"]["uid"], &container["name"]);
            let image = known.and_then(|c| c.image.as_ref()).map_or("", |image| image.image.as_str());
            let id = known.map_or("", |c| c.id.as_str());
            let pod = &pod["podRef"];
            format!(
                "container={:?},id={id:?},image={image:?},name={id:?},namespace={:?},pod={:?}",
                word(&container["name"]),
                word(&pod["namespace"]),
                word(&pod["name"])
            )
        });
        for figure in CONTAINERS {
            write(text, figure, &["container"], &rows);
        }
        starts(text, &rows);
        for (name, value) in [
            ("machine_cpu_cores", self.machine.cpus as f64),
            ("machine_memory_bytes", meminfo("MemTotal").unwrap_or(0) as f64),
        ] {
            text.family(name, "gauge", "What the machine has.");
            text.sample("", "", value);
        }
        Ok(())
    }

    async fn all_containers(&self) -> Result<Vec<v1::Container>, Status> {
        let answer = self.runtime.list_containers(v1::ListContainersRequest::default()).await;
        Ok(answer.map_err(|error| Status::internal(error.to_string()))?.containers)
    }

    /// As the API has pods, with no more of them than the runtime knows (container.Pod.ToAPIPod).
    pub(crate) async fn running_pods(&self) -> Result<Vec<Value>, Status> {
        let mut pods: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
        for container in self.all_containers().await?.into_iter().filter(is_running) {
            let label = |name| container.labels.get(name).cloned().unwrap_or_default();
            let key = [labels::POD_NAMESPACE, labels::POD_NAME, labels::POD_UID].map(label);
            let image = container.image.as_ref().map_or("", |image| image.image.as_str());
            let shown = mote_schema::json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}});
            pods.entry(key).or_default().push(shown);
        }
        let shown = pods.into_iter().map(|([namespace, name, uid], containers)| {
            mote_schema::json!({"metadata": {"name": name, "namespace": namespace, "uid": uid},
                "spec": {"containers": containers}, "status": {}})
        });
        Ok(shown.collect())
    }
}

fn is_running(container: &v1::Container) -> bool {
    container.state == container_state::RUNNING
}

fn resources(text: &mut Text, summary: &Value) {
    let rows = rows(summary, |pod, container| {
        if pod.is_null() {
            return String::new();
        }
        let container = container.map(|it| format!("container={:?},", word(&it["name"]))).unwrap_or_default();
        let pod = &pod["podRef"];
        format!("{container}namespace={:?},pod={:?}", word(&pod["namespace"]), word(&pod["name"]))
    });
    for figure in RESOURCES {
        write(text, figure, &["node", "pod", "container"], &rows);
    }
    starts(text, &rows);
}

fn starts(text: &mut Text, rows: &[Row<'_>]) {
    text.family("container_start_time_seconds", "gauge", "When the container started, since 1970.");
    for row in rows.iter().filter(|row| row.scope == CONTAINER) {
        if let Some(at) = moment(&row.stats["startTime"]) {
            text.sample("", &row.labels, at.as_duration().as_secs_f64());
        }
    }
}

fn moment(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The node, its pods and their containers.
fn rows<'a>(summary: &'a Value, labels: impl Fn(&Value, Option<&Value>) -> String) -> Vec<Row<'a>> {
    let mut rows = vec![Row { scope: NODE, labels: labels(&Value::Null, None), stats: &summary["node"] }];
    for pod in summary["pods"].as_array().into_iter().flatten() {
        for container in pod["containers"].as_array().into_iter().flatten() {
            rows.push(Row { scope: CONTAINER, labels: labels(pod, Some(container)), stats: container });
        }
        let own = labels(pod, None);
        // The first stands by itself, whether it is among the others or not.
        let (network, first) = (&pod["network"], word(&pod["network"]["name"]));
        let others = network["interfaces"].as_array().into_iter().flatten();
        let others = others.filter(|other| word(&other["name"]) != first);
        for interface in others.chain((!first.is_empty()).then_some(network)) {
            let labels = format!("{own},interface={:?}", word(&interface["name"]));
            rows.push(Row { scope: INTERFACE, labels, stats: interface });
        }
        rows.push(Row { scope: POD, labels: own, stats: pod });
    }
    rows
}

/// A family for each of `names`, or all in one where there is one.
fn write(text: &mut Text, figure: &Figure, names: &[&str], rows: &[Row<'_>]) {
    let (end, kind, scopes, [part, field], unit) = figure;
    for name in names {
        let scope = match *name {
            _ if names.len() == 1 => *scopes,
            "node" => NODE,
            "pod" => POD,
            _ => CONTAINER,
        };
        text.family(&[name, "_", end].concat(), kind, "What is used of it, as the runtime and the kernel say.");
        for row in rows.iter().filter(|row| row.scope & scope & scopes != 0) {
            let stats = if part.is_empty() { row.stats } else { &row.stats[*part] };
            let Some(value) = stats[*field].as_f64() else { continue };
            let at = moment(&stats["time"]).map(|time| time.as_millisecond());
            text.sample_at(&row.labels, value / unit, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn what_is_used_by_whom() {
        let cpu = json!({"time": "1970-01-01T00:00:01Z", "usageCoreNanoSeconds": 1_500_000_000});
        let pod = json!({"podRef": {"name": "p", "namespace": "n", "uid": "u"}, "cpu": cpu,
            "containers": [{"name": "c", "startTime": "1970-01-01T00:00:02.5Z", "memory": {"workingSetBytes": 7}}]});
        let mut text = Text::default();
        resources(&mut text, &json!({"node": {"cpu": cpu}, "pods": [pod]}));
        let text = text.finish();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "node_cpu_usage_seconds_total 1.5 1000",
                "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1.5 1000",
                "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 7",
                "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 2.5",
            ]
        );
    }
}
