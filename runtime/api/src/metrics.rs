//! Counters, gauges and histograms, and their Prometheus text. Names are upstream's where upstream has the thing
//! (apiserver/pkg/endpoints/metrics/metrics.go). Nothing is sampled: values are kept as they change or read when asked.
//! Invariant: the number of series is bounded, whatever clients ask for.
use crate::http::RequestInfo;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Series that are kept; requests beyond it are counted without their resource.
const MAX_SERIES: usize = 1024;
/// Upper bounds in seconds of request durations, as upstream's.
const BUCKETS: [f64; 22] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    60.0,
];
/// Upper bounds in seconds of what is left of clients' certificates (authentication/request/x509).
const CERTIFICATE_SECONDS: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    43200.0,
    86400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// What is counted of one request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub scope: &'static str,
    pub long_running: bool,
    pub anonymous: bool,
    pub code: u16,
    pub seconds: f64,
}

impl Request {
    /// Takes the labels from what the request is about.
    pub fn of(&mut self, info: &RequestInfo) {
        self.long_running = info.is_long_running();
        self.verb = match info.verb.as_str() {
            known @ ("get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection") => {
                known.to_ascii_uppercase()
            }
            "post" | "put" | "head" => info.verb.to_ascii_uppercase(),
            "proxy" => "CONNECT".into(),
            _ => "other".into(),
        };
        // Upstream's names for creating and updating are the methods.
        match self.verb.as_str() {
            "CREATE" => self.verb = "POST".into(),
            "UPDATE" => self.verb = "PUT".into(),
            _ => {}
        }
        if !info.is_resource {
            // Paths are a client's words: only the first part of the few that are served.
            let first = info.path.trim_start_matches('/').split('/').next().unwrap_or("");
            let served = ["livez", "readyz", "healthz", "metrics", "version", "openapi", "api", "apis", "openid"];
            self.subresource = served.iter().find(|p| **p == first).map(|p| format!("/{p}")).unwrap_or_default();
            return;
        }
        self.group.clone_from(&info.group);
        self.version.clone_from(&info.version);
        self.resource.clone_from(&info.resource);
        self.subresource.clone_from(&info.subresource);
        self.scope = if !info.name.is_empty() {
            "resource"
        } else if !info.namespace.is_empty() {
            "namespace"
        } else {
            "cluster"
        };
    }

    /// All but the first, which depend on the metric.
    fn labels(&self) -> String {
        format!(
            "group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    sum: f64,
}

/// What the labels of finished requests begin with.
const FINISHED: &str = "component=\"apiserver\",dry_run=\"\",";

/// A watch or the like, while it is held.
pub type LongRunning = Arc<()>;

type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<String, Series>>,
    /// Each is held by the requests it counts, and by this.
    long_running: Mutex<BTreeMap<String, Arc<()>>>,
    mutating: AtomicUsize,
    reading: AtomicUsize,
    /// Those that went well, and those that did not.
    authentications: [AtomicUsize; 2],
    authorizations: [AtomicUsize; 2],
    /// The last is for those above all bounds.
    certificates: [AtomicUsize; CERTIFICATE_SECONDS.len() + 1],
    certificate_seconds: AtomicUsize,
    sources: Mutex<Vec<Source>>,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Called when somebody reads the metrics, to write what another part of the node knows.
    pub fn source(&self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        if let Ok(mut sources) = self.sources.lock() {
            sources.push(Box::new(source));
        }
    }

    pub fn request(&self, request: &Request) {
        let Ok(mut requests) = self.requests.lock() else { return };
        let mut labels = request.labels();
        // A name that is no resource must not leave a series behind.
        if request.code == 404 || requests.len() >= MAX_SERIES && !requests.contains_key(&labels) {
            labels = Request { verb: request.verb.clone(), ..Request::default() }.labels();
        }
        let series = requests.entry(labels).or_default();
        *series.codes.entry(request.code).or_default() += 1;
        if !request.long_running {
            series.sum += request.seconds;
            if let Some(at) = BUCKETS.iter().position(|bound| request.seconds <= *bound) {
                series.buckets[at] += 1;
            }
        }
    }

    /// Counts one of those that go on after they are answered.
    pub fn long_running(&self, request: &Request) -> Option<LongRunning> {
        if !request.long_running || request.code >= 400 {
            return None;
        }
        let mut long_running = self.long_running.lock().ok()?;
        let labels = request.labels();
        let is_known = long_running.len() < MAX_SERIES || long_running.contains_key(&labels);
        is_known.then(|| long_running.entry(labels).or_default().clone())
    }

    pub fn inflight(&self, mutating: usize, reading: usize) {
        self.mutating.store(mutating, Ordering::Relaxed);
        self.reading.store(reading, Ordering::Relaxed);
    }

    pub fn authenticated(&self, success: bool) {
        self.authentications[usize::from(!success)].fetch_add(1, Ordering::Relaxed);
    }

    /// A request by a certificate that is good for so long.
    pub fn certificate(&self, seconds_left: i64) {
        let at = CERTIFICATE_SECONDS.iter().position(|bound| seconds_left as f64 <= *bound);
        self.certificates[at.unwrap_or(CERTIFICATE_SECONDS.len())].fetch_add(1, Ordering::Relaxed);
        self.certificate_seconds.fetch_add(usize::try_from(seconds_left).unwrap_or(0), Ordering::Relaxed);
    }

    pub fn authorized(&self, allowed: bool) {
        self.authorizations[usize::from(!allowed)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn text(&self) -> String {
        let mut text = Text::default();
        self.write_requests(&mut text);
        text.family("apiserver_current_inflight_requests", "gauge", "Requests running now, by kind.");
        for (kind, value) in [("mutating", &self.mutating), ("readOnly", &self.reading)] {
            text.sample("", &format!("request_kind={kind:?}"), value.load(Ordering::Relaxed) as f64);
        }
        text.family("apiserver_longrunning_requests", "gauge", "Watches and the like that go on now.");
        if let Ok(long_running) = self.long_running.lock() {
            for (labels, held) in long_running.iter() {
                let labels = format!("component=\"apiserver\",{labels}");
                text.sample("", &labels, (Arc::strong_count(held) - 1) as f64);
            }
        }
        for (name, help, results, counts) in [
            (
                "authentication_attempts",
                "Requests by whether their sender is known.",
                ["success", "failure"],
                &self.authentications,
            ),
            (
                "authorization_attempts_total",
                "Requests by whether they are allowed.",
                ["allowed", "no-opinion"],
                &self.authorizations,
            ),
        ] {
            text.family(name, "counter", help);
            for (result, count) in results.into_iter().zip(counts) {
                text.sample("", &format!("result={result:?}"), count.load(Ordering::Relaxed) as f64);
            }
        }
        text.family(
            "apiserver_client_certificate_expiration_seconds",
            "histogram",
            "What was left of the certificate that a request came with.",
        );
        let counts = self.certificates.each_ref().map(|count| count.load(Ordering::Relaxed) as u64);
        let sum = self.certificate_seconds.load(Ordering::Relaxed) as f64;
        text.histogram("", &CERTIFICATE_SECONDS, &counts, counts.iter().sum(), sum);
        write_process(&mut text);
        if let Ok(sources) = self.sources.lock() {
            for source in sources.iter() {
                source(&mut text);
            }
        }
        text.finish()
    }

    fn write_requests(&self, text: &mut Text) {
        let Ok(requests) = self.requests.lock() else { return };
        text.family("apiserver_request_total", "counter", "Requests answered, by what they asked and the status code.");
        for (labels, series) in requests.iter() {
            for (code, count) in &series.codes {
                text.sample("", &format!("code=\"{code}\",{FINISHED}{labels}"), *count as f64);
            }
        }
        // The second is what upstream's rules for alerts are made of; it leaves out what webhooks take, which is not told apart.
        for name in ["apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"] {
            text.family(name, "histogram", "Time from a request's headers to its answer.");
            for (labels, series) in requests.iter().filter(|(_, series)| series.sum != 0.0) {
                let total: u64 = series.codes.values().sum();
                text.histogram(&format!("{FINISHED}{labels}"), &BUCKETS, &series.buckets, total, series.sum);
            }
        }
    }
}

/// The text exposition format being written.
#[derive(Default)]
pub struct Text {
    out: String,
    name: String,
}

impl Text {
    pub fn finish(self) -> String {
        self.out
    }
    /// Starts a metric; `kind` is counter, gauge or histogram.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = name.into();
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or(());
    }
    /// One value of the family; `labels` as `a="b",c="d"` or "".
    pub fn sample(&mut self, suffix: &str, labels: &str, value: f64) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        writeln!(self.out, "{}{suffix}{open}{labels}{close} {value}", self.name).unwrap_or(());
    }
    /// The family's buckets for these labels; `counts` say how many were above the bound before and not above this one.
    pub fn histogram(&mut self, labels: &str, bounds: &[f64], counts: &[u64], total: u64, sum: f64) {
        let mut below = 0;
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in bounds.iter().zip(counts) {
            below += count;
            self.sample("_bucket", &format!("{labels}{comma}le=\"{bound}\""), below as f64);
        }
        self.sample("_bucket", &format!("{labels}{comma}le=\"+Inf\""), total as f64);
        self.sample("_sum", labels, sum);
        self.sample("_count", labels, total as f64);
    }
    /// One that was true at that moment.
    pub fn sample_at(&mut self, labels: &str, value: f64, at_ms: Option<i64>) {
        self.sample("", labels, value);
        if let Some(at_ms) = at_ms {
            self.out.pop();
            writeln!(self.out, " {at_ms}").unwrap_or(());
        }
    }
}

/// What program this is, and what the kernel knows of its process (proc(5)).
pub fn write_process(text: &mut Text) {
    text.family("kubernetes_build_info", "gauge", "The release whose API is served.");
    let version = crate::http::GIT_VERSION;
    text.sample("", &format!("git_version={version:?},major=\"1\",minor=\"36\",platform=\"linux\""), 1.0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name, which may hold spaces: state is field 3.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let boot: f64 = std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()))
        .unwrap_or(0.0);
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count());
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "User and system time.", (field(14) + field(15)) / ticks),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", field(24) * page),
        ("process_virtual_memory_bytes", "gauge", "Address space.", field(23)),
        ("process_start_time_seconds", "gauge", "Start, since 1970.", boot + field(22) / ticks),
        ("process_open_fds", "gauge", "Open descriptors.", descriptors as f64),
        ("process_threads", "gauge", "Threads.", field(20)),
    ] {
        text.family(name, kind, help);
        text.sample("", "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Query, request_info};

    fn request(method: &str, path: &str, code: u16, seconds: f64) -> Request {
        let info = request_info(&method.parse().unwrap(), path, &Query::default()).unwrap();
        let mut request = Request::default();
        request.of(&info);
        Request { code, seconds, ..request }
    }

    #[test]
    fn requests_are_counted() {
        let metrics = Metrics::new();
        metrics.request(&request("GET", "/api/v1/namespaces/x/pods", 200, 0.03));
        metrics.request(&request("GET", "/api/v1/namespaces/x/pods", 200, 0.001));
        metrics.request(&request("POST", "/apis/apps/v1/namespaces/x/deployments", 409, 0.2));
        let text = metrics.text();
        let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"namespace\",\
                      subresource=\"\",verb=\"LIST\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{labels}}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 2"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 2"),
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0".into(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("code=\"409\"") && text.contains("verb=\"POST\""));
        assert!(text.lines().any(|l| l.strip_prefix("process_resident_memory_bytes ").is_some_and(|v| v != "0")));
    }

    #[test]
    fn certificates_are_counted_by_what_is_left_of_them() {
        let metrics = Metrics::new();
        [-5, 1800, 90_000, 90_000_000].into_iter().for_each(|left| metrics.certificate(left));
        let text = metrics.text();
        let name = "apiserver_client_certificate_expiration_seconds";
        for (what, count) in
            [("le=\"0\"", 1), ("le=\"1800\"", 2), ("le=\"86400\"", 2), ("le=\"172800\"", 3), ("le=\"+Inf\"", 4)]
        {
            let line = format!("{name}_bucket{{{what}}} {count}");
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn watches_count_while_they_are_held() {
        let metrics = Metrics::new();
        let watch = Request { code: 200, ..request("GET", "/api/v1/watch/namespaces/x/pods", 200, 0.0) };
        let held = [metrics.long_running(&watch), metrics.long_running(&watch)];
        assert!(metrics.long_running(&Request { code: 410, ..watch.clone() }).is_none());
        let now = |metrics: &Metrics| {
            let text = metrics.text();
            let line = text.lines().find(|line| line.starts_with("apiserver_longrunning_requests{")).unwrap();
            assert!(line.contains("resource=\"pods\"") && line.contains("verb=\"WATCH\""), "{line}");
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        assert_eq!(now(&metrics), "2");
        drop(held);
        assert_eq!(now(&metrics), "0");
    }

    #[test]
    fn unknown_names_make_no_series() {
        let metrics = Metrics::new();
        for n in 0..5000 {
            metrics.request(&request("GET", &format!("/api/v1/thing{n}"), 404, 0.0));
            metrics.request(&request("GET", &format!("/api/v1/other{n}"), 403, 0.0));
        }
        assert!(metrics.requests.lock().unwrap().len() <= MAX_SERIES + 1);
    }
}
