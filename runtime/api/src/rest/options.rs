//! ListOptions, DeleteOptions and the write options, from query and body, validated as upstream validates them.
use crate::{
    DeleteOptions, behavior,
    http::{Query, Request},
    registry::{FieldValidation, Options},
    server::Api,
};
use mote_schema::Value;
use mote_schema::{
    Cause, Kind, Object, Status,
    selector::{FieldSelector, LabelSelector},
};

/// Which objects of a kind a LIST, WATCH or DELETE of many means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    label: LabelSelector,
    field: FieldSelector,
}

impl Filter {
    pub(crate) fn parse(query: &Query, kind: &Kind, name: &str) -> Result<Filter, Status> {
        let label = LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(Status::bad_request)?;
        let mut field = FieldSelector::parse(query.get("fieldSelector").unwrap_or("")).map_err(Status::bad_request)?;
        for (path, _, _) in &mut field.terms {
            if !behavior::supports_field(kind, path) {
                return Err(Status::bad_request(behavior::unsupported_field(kind, path)));
            }
            match path.as_str() {
                "name" => *path = "metadata.name".into(),
                "source" => *path = "source.component|reportingComponent".into(),
                "status.successful" => *path = "status.succeeded".into(),
                _ => {}
            }
        }
        if !name.is_empty() {
            field.terms.push(("metadata.name".into(), name.into(), false));
        }
        Ok(Filter { label, field })
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.label.requirements.is_empty() || self.label.matches(object.meta().get("labels")))
            && (self.field.terms.is_empty() || self.field.matches(object.root()))
    }

    /// Everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.label.requirements.is_empty() && self.field.terms.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Unset,
    Exact,
    NotOlderThan,
}

/// apimachinery/pkg/apis/meta/internalversion/validation
#[derive(Debug)]
pub(crate) struct ListOptions {
    pub filter: Filter,
    pub limit: usize,
    pub continue_token: String,
    /// `None`: unset.
    pub revision: Option<u64>,
    pub revision_match: Match,
    pub send_initial_events: Option<bool>,
    pub bookmarks: bool,
    pub timeout_seconds: Option<u64>,
}

/// `resourceVersion`; None when it is unset. The error is the store's (APIObjectVersioner.ParseResourceVersion).
pub(crate) fn parse_revision(query: &Query) -> Result<Option<u64>, String> {
    let Some(text) = query.get("resourceVersion").filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(revision) if !text.starts_with('+') => Ok(Some(revision)),
        other => {
            let is_large = other.is_err_and(|e| *e.kind() == std::num::IntErrorKind::PosOverflow);
            let why = if is_large && !text.starts_with('+') { "value out of range" } else { "invalid syntax" };
            let detail = format!("strconv.ParseUint: parsing {text:?}: {why}");
            let cause = Cause::invalid("resourceVersion", &Value::from(text), &detail);
            Err(format!("{}: {}", cause.field, cause.message))
        }
    }
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, kind: &Kind, name: &str) -> Result<ListOptions, Status> {
        let watch = query.bool("watch");
        let (timeout_seconds, limit) = (number(query, "timeoutSeconds")?, number(query, "limit")?);
        let filter = Filter::parse(query, kind, name)?;
        let revision_text = query.get("resourceVersion").unwrap_or("");
        let send_initial_events = query.has("sendInitialEvents").then(|| query.bool("sendInitialEvents"));
        let matching = query.get("resourceVersionMatch").unwrap_or("");
        let continue_token = query.get("continue").unwrap_or("").to_owned();
        let causes =
            Combination { watch, revision_text, matching, send_initial_events, continued: !continue_token.is_empty() };
        let causes = causes.check();
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        let revision = match parse_revision(query) {
            Ok(revision) => revision,
            // As for GET: no API error upstream.
            Err(message) if watch => return Err(Status::new(500, "", message)),
            // The token says what is wrong with itself, or that it stands alone.
            Err(_) if !continue_token.is_empty() => Some(u64::MAX),
            Err(message) => return Err(Status::bad_request(format!("invalid resource version: {message}"))),
        };
        Ok(ListOptions {
            filter,
            limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token,
            revision,
            revision_match: match matching {
                "Exact" => Match::Exact,
                "NotOlderThan" => Match::NotOlderThan,
                _ => Match::Unset,
            },
            send_initial_events,
            bookmarks: query.bool("allowWatchBookmarks"),
            timeout_seconds: timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()),
        })
    }
}

/// Options that forbid each other.
struct Combination<'a> {
    watch: bool,
    revision_text: &'a str,
    matching: &'a str,
    send_initial_events: Option<bool>,
    continued: bool,
}

impl Combination<'_> {
    /// ValidateListOptions of apimachinery/pkg/apis/meta/internalversion/validation, in its order.
    fn check(&self) -> Vec<Cause> {
        const MATCH: &str = "resourceVersionMatch";
        let mut causes = Vec::new();
        let mut forbid = |is_wrong: bool, field: &str, detail: &str| {
            if is_wrong {
                causes.push(Cause::forbidden(field, detail));
            }
        };
        let given = !self.matching.is_empty();
        let not_older = self.matching == "NotOlderThan";
        let continued = "resourceVersionMatch is forbidden when continue is provided";
        if self.watch {
            let asked = self.send_initial_events.is_some();
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            forbid(asked && !not_older, MATCH, detail);
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            forbid(given && !asked, MATCH, detail);
            if given && !not_older {
                causes.push(Cause::not_supported(MATCH, &Value::from(self.matching), &["NotOlderThan"]));
            }
            // A watch from no revision is one that begins with a list, which sets both (SetListOptionsDefaults).
            let begins = !given && !asked && matches!(self.revision_text, "" | "0");
            if (given || begins) && self.continued {
                causes.push(Cause::forbidden(MATCH, continued));
            }
            return causes;
        }
        let unset = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        forbid(given && self.revision_text.is_empty(), MATCH, unset);
        forbid(given && self.continued, MATCH, continued);
        if given && !not_older && self.matching != "Exact" {
            let supported = ["Exact", "NotOlderThan", ""];
            causes.push(Cause::not_supported(MATCH, &Value::from(self.matching), &supported));
        }
        if self.matching == "Exact" && self.revision_text == "0" {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(MATCH, detail));
        }
        if self.send_initial_events.is_some() {
            causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        causes
    }
}

/// fieldManager, dryRun and fieldValidation; `what` names the options object in errors ("CreateOptions").
pub(crate) fn write_options(query: &Query, what: &str) -> Result<Options, Status> {
    checked_options(query, what, Vec::new())
}

/// A patch's; the second is `force`. `applies`: it is a configuration to apply.
pub(crate) fn patch_options(query: &Query, applies: bool) -> Result<(Options, bool), Status> {
    let mut causes = Vec::new();
    if applies && query.get("fieldManager").unwrap_or("").is_empty() {
        causes.push(Cause::required("fieldManager", "is required for apply patch"));
    }
    if !applies && query.has("force") {
        causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
    }
    Ok((checked_options(query, "PatchOptions", causes)?, query.bool("force")))
}

/// apimachinery/pkg/apis/meta/v1/validation
fn checked_options(query: &Query, what: &str, mut causes: Vec<Cause>) -> Result<Options, Status> {
    let mut options = Options::default();
    let manager = query.get("fieldManager").unwrap_or("");
    options.names_manager = !manager.is_empty();
    if manager.len() > MAX_MANAGER_BYTES {
        causes.push(Cause::too_long("fieldManager", MAX_MANAGER_BYTES));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_print(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        causes.push(Cause::invalid("fieldManager", &Value::from(manager), &detail));
    }
    options.dry_run = asks_dry_run(query, &mut causes);
    let validation = query.get("fieldValidation").unwrap_or("");
    match validation.parse::<FieldValidation>() {
        Ok(validation) => options.validation = validation,
        Err(()) => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            causes.push(Cause::not_supported("fieldValidation", &Value::from(validation), &supported));
        }
    }
    if causes.is_empty() { Ok(options) } else { Err(Status::invalid("meta.k8s.io", what, "", causes)) }
}

fn asks_dry_run(query: &Query, causes: &mut Vec<Cause>) -> bool {
    for value in query.get_all("dryRun").filter(|value| *value != "All") {
        causes.push(Cause::not_supported("dryRun", &Value::from(vec![value]), &["All"]));
    }
    query.has("dryRun")
}

/// A number of the query; what is there without a value is none.
fn number(query: &Query, field: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(field) else { return Ok(None) };
    text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

const MAX_MANAGER_BYTES: usize = 128;

/// unicode.IsPrint
fn is_print(c: char) -> bool {
    c == ' ' || matches!(c, '"' | '\'' | '\\') || !c.is_whitespace() && c.escape_debug().len() == 1
}

/// Who a request's fields belong to: `fieldManager`, else the client's name (endpoints/handlers/create.go, prefixFromUserAgent).
pub(crate) fn manager(request: &Request) -> &str {
    match request.query.get("fieldManager").unwrap_or("") {
        "" => {}
        named => return named,
    }
    let agent = request.header(http::header::USER_AGENT);
    let name = agent.split('/').next().unwrap_or("");
    let mut end = name.len().min(MAX_MANAGER_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].trim_matches('\t')
}

/// The revision that a precondition names; what is no number is none that an object has.
pub(crate) fn precondition(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}

/// A DELETE's options: the body, else the query, never both (endpoints/handlers/delete.go).
pub(crate) fn delete_request(api: &Api, request: &Request) -> Result<(DeleteOptions, Options), Status> {
    if request.body.is_empty() {
        let query = &request.query;
        let mut causes = Vec::new();
        let write = Options { dry_run: asks_dry_run(query, &mut causes), ..Options::default() };
        let text = |field: &str| query.get(field).filter(|value| !value.is_empty());
        let mut options = DeleteOptions {
            grace_period_seconds: number(query, "gracePeriodSeconds")?,
            propagation: query.get("propagationPolicy").map(str::to_owned),
            uid: text("uid").map(str::to_owned),
            resource_version: text("resourceVersion").map(precondition),
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", causes));
        }
        if query.has("orphanDependents") {
            options = options.orphaning(query.bool("orphanDependents"))?;
        }
        return Ok((options.checked()?, write));
    }
    let (mut body, _) = super::media::parse(api, request, "DeleteOptions")?;
    if let Some(name) = body["kind"].as_str().filter(|name| !matches!(*name, "" | "DeleteOptions")) {
        let version = body["apiVersion"].as_str().unwrap_or("v1");
        return Err(Status::bad_request(format!(
            "no kind {name:?} is registered for version {version:?} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\""
        )));
    }
    if let Some(kind) = api.catalog().by_kind("", "v1", "DeleteOptions") {
        mote_schema::prune::clean(kind, &mut body).map_err(Status::bad_request)?;
    }
    let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|item| item == "All"));
    if body["dryRun"].as_array().is_some_and(|list| list.iter().any(|item| item != "All")) {
        let cause = Cause::not_supported("dryRun", &body["dryRun"], &["All"]);
        return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
    }
    Ok((DeleteOptions::from_body(&body)?, Options { dry_run, ..Options::default() }))
}

/// The `dryRun` of an Eviction's deleteOptions, which must not be another than the request's (eviction.go, propagateDryRun).
pub(crate) fn check_dry_run(listed: &Value, options: &mut Options) -> Result<(), Status> {
    let Some(listed) = listed.as_array().filter(|listed| !listed.is_empty()) else { return Ok(()) };
    if options.dry_run && (listed.len() > 1 || listed[0] != "All") {
        let words: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
        let text = format!("Non-matching dry-run options in request and content: [All] and [{}]", words.join(" "));
        return Err(Status::new(500, "", text));
    }
    options.dry_run = true;
    Ok(())
}
