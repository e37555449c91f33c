//! ListOptions, DeleteOptions and the write options, from query and body, validated as upstream validates them.
use crate::{
    DeleteOptions, behavior,
    http::{Query, Request},
    registry::{FieldValidation, Options},
    server::Api,
};
use mote_schema::{
    Cause, Kind, Object, Status,
    selector::{FieldSelector, LabelSelector},
};
use serde_json::Value;

fn invalid(what: &str, cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", what, "", vec![cause])
}

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
                return Err(Status::bad_request(format!("field label not supported: {path}")));
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

impl ListOptions {
    pub(crate) fn parse(query: &Query, kind: &Kind, name: &str) -> Result<ListOptions, Status> {
        let filter = Filter::parse(query, kind, name)?;
        let revision = match query.get("resourceVersion").unwrap_or("") {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_| {
                let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                let cause = Cause::invalid("resourceVersion", &Value::from(text), &detail);
                Status::invalid(&kind.group, &kind.kind, "", vec![cause])
            })?),
        };
        let send_initial_events = query.has("sendInitialEvents").then(|| query.bool("sendInitialEvents"));
        let watch = query.bool("watch");
        let revision_match = match query.get("resourceVersionMatch").unwrap_or("") {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            other => {
                let supported = ["Exact", "NotOlderThan", ""];
                let cause = Cause::not_supported("resourceVersionMatch", &Value::from(other), &supported);
                return Err(invalid("ListOptions", cause));
            }
        };
        let forbid = |field: &str, detail: &str| Err(invalid("ListOptions", Cause::forbidden(field, detail)));
        if send_initial_events.is_some() {
            if !watch {
                return forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if revision_match != Match::NotOlderThan {
                return forbid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
        } else if watch && revision_match != Match::Unset {
            return forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        } else if revision_match != Match::Unset && revision.is_none() {
            return forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        } else if revision_match == Match::Exact && revision == Some(0) {
            return forbid(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        let continue_token = query.get("continue").unwrap_or("").to_owned();
        if revision_match != Match::Unset && !continue_token.is_empty() {
            return forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
        }
        if !continue_token.is_empty() && revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let number = |field: &str| -> Result<Option<u64>, Status> {
            match query.get(field) {
                None | Some("") => Ok(None),
                Some(text) => text
                    .parse()
                    .map(Some)
                    .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
            }
        };
        Ok(ListOptions {
            filter,
            limit: number("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token,
            revision,
            revision_match,
            send_initial_events,
            bookmarks: query.bool("allowWatchBookmarks"),
            timeout_seconds: number("timeoutSeconds")?,
        })
    }
}

/// dryRun and fieldValidation; `what` names the options object in errors ("CreateOptions").
pub(crate) fn write_options(query: &Query, what: &str) -> Result<Options, Status> {
    let mut options = Options::default();
    for value in query.get_all("dryRun").filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(invalid(what, Cause::not_supported("dryRun", &Value::from(value), &["All"])));
        }
        options.dry_run = true;
    }
    let validation = query.get("fieldValidation").unwrap_or("");
    options.validation = validation.parse::<FieldValidation>().map_err(|()| {
        let supported = ["", "Ignore", "Strict", "Warn"];
        invalid(what, Cause::not_supported("fieldValidation", &Value::from(validation), &supported))
    })?;
    Ok(options)
}

/// A DELETE's options: the body, else the query. The second value is dry-run.
pub(crate) fn delete_request(api: &Api, request: &Request) -> Result<(DeleteOptions, bool), Status> {
    let from_query = write_options(&request.query, "DeleteOptions")?.dry_run;
    if request.body.is_empty() {
        let text = |field: &str| request.query.get(field).filter(|value| !value.is_empty());
        let seconds = match text("gracePeriodSeconds") {
            None => None,
            Some(text) => Some(
                text.parse::<i64>()
                    .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
            ),
        };
        let options = DeleteOptions {
            grace_period_seconds: seconds,
            propagation: text("propagationPolicy").map(str::to_owned),
            ..DeleteOptions::default()
        };
        return Ok((options.checked()?, from_query));
    }
    let (body, _) = super::media::parse(api, request)?;
    let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|item| item == "All"));
    Ok((DeleteOptions::from_body(&body)?, from_query || dry_run))
}

/// `dryRun: ["All"]` in the deleteOptions of an Eviction, or at the top of another body.
pub(crate) fn check_dry_run(body: &Value, options: &mut Options) {
    let asks = |value: &Value| value["dryRun"].as_array().is_some_and(|list| list.iter().any(|item| item == "All"));
    options.dry_run |= asks(body) || asks(&body["deleteOptions"]);
}
