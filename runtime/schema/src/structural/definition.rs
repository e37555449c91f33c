//! Whether a CustomResourceDefinition may be what a client wants it to be (ValidateCustomResourceDefinition and its
//! update of apiextensions-apiserver/pkg/apis/apiextensions/validation). Paths are those of upstream's internal version, as clients
//! know them: what all versions have in common (schemas, columns, subresources) stands at the top, in spec.validation and its like.
//!
//! Rules take CEL, so the API server checks them, when nothing here is wrong.
use super::{MAX_DEPTH, Patterns, Schema, formats, keywords, metadata, path, prune, structure, values};
use crate::{
    Cause, Doc, Ref,
    table::{BUILTIN, TypeId},
    validate,
};
use crate::{Map, Value, json};
use base64::Engine as _;

const MAX_SELECTABLE: usize = 8;

/// Group, version and name of the approval's annotation.
const APPROVED: &str = "api-approved.kubernetes.io";

pub(crate) fn check(new: &Value, old: Option<&Value>, sub: &str) -> Vec<Cause> {
    let encode = |value: &Value| Doc::encode(value).ok();
    let Some(new) = encode(new) else { return vec![Cause::invalid("spec", &Value::Null, "cannot be stored")] };
    let old = old.and_then(encode);
    let (new, old) = (new.root(), old.as_ref().map(Doc::root));
    let mut checker = Checker { causes: Vec::new(), patterns: Patterns::default(), old };
    if sub.is_empty() {
        if old.is_none() {
            checker.name(new);
        }
        checker.spec(new.get("spec"));
        checker.immutable(new.get("spec"));
        checker.names(new.at("status.acceptedNames"), "status.acceptedNames");
        checker.stored_versions(new);
        checker.approval(new);
        if new.at("spec.preserveUnknownFields").is_true()
            && !old.is_some_and(|old| old.at("spec.preserveUnknownFields").is_true())
        {
            let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
            checker.invalid("spec.preserveUnknownFields", true, detail);
        }
    } else {
        checker.names(new.at("status.acceptedNames"), "status.acceptedNames");
    }
    checker.causes
}

/// The schemas of a definition, each with its path and its version ("" when all versions share it).
pub fn schemas<'a>(spec: Ref<'a>) -> Vec<(String, &'a str, Schema<'a>)> {
    let shared = is_shared(spec, "schema");
    let mut schemas = Vec::new();
    for (at, version) in spec.get("versions").items().enumerate().take(if shared { 1 } else { usize::MAX }) {
        let Some(schema) = Schema::of(version.at("schema.openAPIV3Schema")) else { continue };
        schemas.push(match shared {
            true => ("spec.validation.openAPIV3Schema".to_owned(), "", schema),
            false => (format!("spec.versions[{at}].schema.openAPIV3Schema"), version.get("name").str(), schema),
        });
    }
    schemas
}

/// Whether all versions say the same here.
/// specHasDefaults
fn has_defaults(schema: Ref<'_>, depth: usize) -> bool {
    let inner = |name: &str| schema.get(name).entries().any(|(_, inner)| has_defaults(inner, depth + 1));
    depth < MAX_SCHEMA_DEPTH
        && schema.is_map()
        && (schema.get("default").exists()
            || inner("properties")
            || ["items", "additionalProperties"].iter().any(|name| has_defaults(schema.get(name), depth + 1)))
}

/// Deeper ones are refused anyway.
const MAX_SCHEMA_DEPTH: usize = 64;

fn is_shared(spec: Ref<'_>, part: &str) -> bool {
    let mut versions = spec.get("versions").items().map(|version| version.get(part));
    let Some(first) = versions.next() else { return false };
    versions
        .all(|other| other.is_same(first) || other.is_empty() && first.is_empty() && other.is_map() == first.is_map())
}

struct Checker<'a> {
    causes: Vec<Cause>,
    patterns: Patterns,
    old: Option<Ref<'a>>,
}

impl<'a> Checker<'a> {
    fn invalid(&mut self, at: impl Into<String>, value: impl Into<Value>, detail: &str) {
        self.causes.push(Cause::invalid(at, &value.into(), detail));
    }
    fn required(&mut self, at: impl Into<String>, detail: &str) {
        self.causes.push(Cause::required(at, detail));
    }
    fn forbidden(&mut self, at: impl Into<String>, detail: &str) {
        self.causes.push(Cause::forbidden(at, detail));
    }
    /// One cause for all messages.
    fn joined(&mut self, at: impl Into<String>, value: &str, before: &str, messages: Vec<String>) {
        if !messages.is_empty() {
            self.invalid(at, value, &format!("{before}{}", messages.join(",")));
        }
    }
    fn is_established(&self) -> bool {
        self.old.is_some_and(|old| is_true(old, "Established"))
    }

    fn name(&mut self, new: Ref<'_>) {
        let name = new.at("metadata.name").str();
        let wanted = format!("{}.{}", new.at("spec.names.plural").str(), new.at("spec.group").str());
        if name != wanted && !name.is_empty() {
            self.invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
        }
    }

    fn spec(&mut self, spec: Ref<'_>) {
        let group = spec.get("group").str();
        let wrong = validate::dns1123_subdomain(group);
        match group {
            "" => self.required("spec.group", ""),
            _ if !wrong.is_empty() => self.joined("spec.group", group, "", wrong),
            _ if !group.contains('.') => self.invalid("spec.group", group, "should be a domain with at least one dot"),
            _ => {}
        }
        self.one_of("spec.scope", spec.get("scope"), &["Cluster", "Namespaced"]);
        let mut schemas = spec.get("versions").items().map(|version| version.at("schema.openAPIV3Schema"));
        if spec.get("preserveUnknownFields").is_true() && schemas.any(|schema| has_defaults(schema, 0)) {
            self.invalid("spec.preserveUnknownFields", true, "must be false in order to use defaults in the schema");
        }
        let versions = spec.get("versions");
        let shared = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"]
            .map(|part| is_shared(spec, part));
        let tightens = self.old.is_none_or(|old| {
            old.at("spec.versions").items().all(|version| version.at("schema.openAPIV3Schema").exists())
        });
        for (at, version) in versions.items().enumerate() {
            let needs = tightens || version.get("served").is_true();
            if needs && !version.at("schema.openAPIV3Schema").is_map() {
                let detail = if tightens { "" } else { "because otherwise all fields are pruned" };
                self.required(format!("spec.versions[{at}].schema.openAPIV3Schema"), detail);
            }
        }
        for (at, version) in versions.items().enumerate() {
            let path = format!("spec.versions[{at}]");
            let name = version.get("name").str();
            self.joined(format!("{path}.name"), name, "", validate::dns1035_label(name));
            self.deprecation(version, &path);
            self.version(spec, version, &path, &shared.map(|shared| !shared));
        }
        let names: Vec<&str> = versions.items().map(|version| version.get("name").str()).collect();
        let shown = || Value::Array(versions.items().map(internal_version).collect());
        if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
            self.invalid("spec.versions", shown(), "must contain unique version names");
        }
        if versions.items().filter(|version| version.get("storage").is_true()).count() != 1 {
            self.invalid("spec.versions", shown(), "must have exactly one version marked as storage version");
        }
        // What v1beta1 had as a field is the first of them.
        if let Some(first) = names.first() {
            self.joined("spec.version", first, "", validate::dns1035_label(first));
        }
        let wanted = spec.get("names");
        for name in ["plural", "singular", "kind", "listKind"] {
            if wanted.get(name).is_empty() {
                self.required(format!("spec.names.{name}"), "");
            }
        }
        self.names(wanted, "spec.names");
        if let Some(first) = versions.items().next() {
            self.version(spec, first, "spec", &shared);
        }
        self.conversion(spec.get("conversion"));
    }

    /// The parts of a version that are looked at here: schema, subresources, columns, selectable fields.
    fn version(&mut self, spec: Ref<'_>, version: Ref<'_>, path: &str, parts: &[bool; 4]) {
        let is_top = path == "spec";
        if parts[0]
            && let Some(schema) = Schema::of(version.at("schema.openAPIV3Schema"))
        {
            let has_status = |version: Ref<'_>| version.at("subresources.status").is_map();
            let status = if is_top { spec.get("versions").items().any(has_status) } else { has_status(version) };
            let at = format!("{path}.{}", if is_top { "validation" } else { "schema" });
            self.schema(schema, &at, status);
        }
        if parts[1] {
            self.scale(version.at("subresources.scale"), &format!("{path}.subresources"));
        }
        if parts[2] {
            for (at, column) in version.get("additionalPrinterColumns").items().enumerate() {
                self.column(column, &format!("{path}.additionalPrinterColumns[{at}]"));
            }
        }
        if parts[3] {
            self.selectable(version, &format!("{path}.selectableFields"));
        }
    }

    fn one_of(&mut self, at: &str, given: Ref<'_>, accepted: &[&str]) {
        match given.str() {
            "" => self.required(at, ""),
            text if accepted.contains(&text) => {}
            text => self.causes.push(Cause::not_supported(at, &text.into(), accepted)),
        }
    }

    fn deprecation(&mut self, version: Ref<'_>, path: &str) {
        let at = format!("{path}.deprecationWarning");
        let Some(text) = version.get("deprecationWarning").as_str() else { return };
        if !version.get("deprecated").is_true() {
            return self.invalid(at, text, "can only be set for deprecated versions");
        }
        if text.len() > 256 {
            self.invalid(&*at, text, "must be <= 256 characters long");
        }
        if text.is_empty() {
            self.invalid(&*at, text, "must not be an empty string");
        }
        if let Some((place, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            let detail =
                format!("must only contain printable UTF-8 characters; non-printable character found at index {place}");
            self.invalid(at, text, &detail);
        }
    }

    fn names(&mut self, names: Ref<'_>, path: &str) {
        for name in ["plural", "singular"] {
            let text = names.get(name).str();
            if !text.is_empty() {
                self.joined(format!("{path}.{name}"), text, "", validate::dns1035_label(text));
            }
        }
        for name in ["kind", "listKind"] {
            let text = names.get(name).str();
            if !text.is_empty() {
                let before = "may have mixed case, but should otherwise match: ";
                self.joined(format!("{path}.{name}"), text, before, validate::dns1035_label(&text.to_lowercase()));
            }
        }
        let (kind, list) = (names.get("kind").str(), names.get("listKind").str());
        for part in ["shortNames", "categories"] {
            for (at, text) in names.get(part).items().map(Ref::str).enumerate() {
                self.joined(format!("{path}.{part}[{at}]"), text, "", validate::dns1035_label(text));
            }
            if part == "shortNames" && !kind.is_empty() && kind == list {
                self.invalid(format!("{path}.listKind"), list, "kind and listKind may not be the same");
            }
        }
    }

    fn schema(&mut self, schema: Schema<'_>, path: &str, has_status: bool) {
        let at = format!("{path}.openAPIV3Schema");
        if has_status {
            self.root_with_status(schema, &at);
        }
        if schema.is_nullable() {
            self.forbidden(format!("{at}.nullable"), "nullable cannot be true at the root");
        }
        let violations = structure::violations(schema, &at);
        if violations.is_empty() {
            let mut defaults = Defaults { patterns: &self.patterns, causes: &mut self.causes };
            defaults.walk(schema, &at, Surroundings { root: schema, steps: &[], in_meta: false }, 0);
        } else {
            self.causes.extend(violations);
        }
        let tolerated = self.tolerated();
        keywords::check(schema, &at, tolerated, &mut self.causes);
    }

    fn tolerated(&self) -> keywords::Tolerated {
        let mut tolerated = keywords::Tolerated::default();
        for (_, _, schema) in self.old.map(|old| schemas(old.get("spec"))).unwrap_or_default() {
            let of = keywords::tolerated(schema);
            tolerated.types |= of.types;
            tolerated.sets |= of.sets;
            tolerated.map_keys |= of.map_keys;
        }
        tolerated
    }

    /// The schema of the status is taken out as properties["status"], so little may be said around it.
    fn root_with_status(&mut self, schema: Schema<'_>, at: &str) {
        const ALLOWED: [&str; 22] = [
            "description",
            "type",
            "format",
            "title",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "multipleOf",
            "required",
            "items",
            "properties",
            "externalDocs",
            "example",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ];
        let name = schema.type_name();
        if !name.is_empty() && name != "object" {
            let detail =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            return self.invalid(format!("{at}.type"), name, detail);
        }
        let set = |place: Ref<'_>| (place.is_map() || !place.is_empty()) && place.as_bool() != Some(false);
        if schema.place().entries().any(|(keyword, place)| set(place) && !ALLOWED.contains(&keyword)) {
            let names: Vec<String> = ALLOWED.iter().map(|name| go_field(name)).collect();
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            self.invalid(at, schema.place().to_value(), &detail);
        }
    }

    fn scale(&mut self, scale: Ref<'_>, path: &str) {
        if !scale.is_map() {
            return;
        }
        for (name, prefix, detail) in [
            ("specReplicasPath", ".spec.", "should be a json path under .spec"),
            ("statusReplicasPath", ".status.", "should be a json path under .status"),
        ] {
            let (text, at) = (scale.get(name).str(), format!("{path}.scale.{name}"));
            if text.is_empty() {
                self.required(at, "");
            } else if path::check_simple(text, &at, &mut self.causes) && !text.starts_with(prefix) {
                self.invalid(at, text, detail);
            }
        }
        let (text, at) = (scale.get("labelSelectorPath").str(), format!("{path}.scale.labelSelectorPath"));
        if !text.is_empty()
            && path::check_simple(text, &at, &mut self.causes)
            && !text.starts_with(".spec.")
            && !text.starts_with(".status.")
        {
            self.invalid(at, text, "should be a json path under either .spec or .status");
        }
    }

    fn column(&mut self, column: Ref<'_>, path: &str) {
        const TYPES: &str = "boolean,date,integer,number,string";
        const FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
        let text = |name: &str| column.get(name).str();
        if text("name").is_empty() {
            self.required(format!("{path}.name"), "");
        }
        let (is_type, types) = (TYPES.split(',').any(|name| name == text("type")), format!("must be one of {TYPES}"));
        match text("type") {
            "" => self.required(format!("{path}.type"), &types),
            _ if is_type => {}
            other => self.invalid(format!("{path}.type"), other, &types),
        }
        let format = text("format");
        if !format.is_empty() && !FORMATS.split(',').any(|name| name == format) {
            self.invalid(format!("{path}.format"), format, &format!("must be one of {FORMATS}"));
        }
        let at = format!("{path}.JSONPath");
        match text("jsonPath") {
            "" => self.required(at, ""),
            json_path => drop(path::check_simple(json_path, &at, &mut self.causes)),
        }
    }

    fn selectable(&mut self, version: Ref<'_>, path: &str) {
        let fields = version.get("selectableFields");
        if fields.is_empty() {
            return;
        }
        let Some(schema) = Schema::of(version.at("schema.openAPIV3Schema")) else {
            return self.invalid(path, "", "may only be set when validations.schema is included");
        };
        let mut seen: Vec<String> = Vec::new();
        for (at, field) in fields.items().enumerate() {
            let (at, text) = (format!("{path}[{at}].jsonPath"), field.get("jsonPath").str());
            if text.is_empty() {
                self.required(at, "");
                continue;
            }
            let (found, place) = match path::follow(text, schema, false) {
                Ok(found) => found,
                Err(error) => {
                    self.invalid(at, text, &format!("is an invalid path: {error}"));
                    continue;
                }
            };
            if found == "metadata" || found.starts_with("metadata.") {
                self.invalid(&*at, text, "must not point to fields in metadata");
            }
            if !matches!(place.map_or("", Schema::type_name), "string" | "boolean" | "integer") {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                self.invalid(&*at, text, detail);
            }
            match seen.contains(&found) {
                true => self.causes.push(Cause::duplicate(at, &text.into())),
                false => seen.push(found),
            }
        }
        let unchanged = self.old.is_some_and(|old| {
            let mut versions = old.at("spec.versions").items();
            versions.any(|old| {
                old.get("name").str() == version.get("name").str() && old.get("selectableFields").is_same(fields)
            })
        });
        if seen.len() > MAX_SELECTABLE && !unchanged {
            self.causes.push(Cause::too_many(path, seen.len(), MAX_SELECTABLE));
        }
    }

    fn conversion(&mut self, conversion: Ref<'_>) {
        if !conversion.is_map() {
            return;
        }
        self.one_of("spec.conversion.strategy", conversion.get("strategy"), &["None", "Webhook"]);
        let (config, versions) =
            (conversion.at("webhook.clientConfig"), conversion.at("webhook.conversionReviewVersions"));
        let at = "spec.conversion.webhookClientConfig";
        if conversion.get("strategy").str() != "Webhook" {
            let detail = "should not be set when strategy is not set to Webhook";
            if config.is_map() {
                self.forbidden(at, detail);
            }
            if !versions.is_empty() {
                self.forbidden("spec.conversion.conversionReviewVersions", detail);
            }
            return;
        }
        if !config.is_map() {
            self.required(at, "required when strategy is set to Webhook");
        } else {
            let (url, service) = (config.get("url"), config.get("service"));
            match (url.as_str(), service.is_map()) {
                (Some(url), false) => self.url(url, &format!("{at}.url")),
                (None, true) => self.service(service, &format!("{at}.service")),
                _ => self.required(at, "exactly one of url or service is required"),
            }
            let bundle = config.get("caBundle").str();
            let was_bad = self.old.is_some_and(|old| {
                let old = old.at("spec.conversion.webhook.clientConfig.caBundle").str();
                !old.is_empty() && bundle_error(old).is_some()
            });
            if let Some(error) =
                bundle_error(bundle).filter(|_| !bundle.is_empty() && self.is_established() && !was_bad)
            {
                self.invalid(format!("{at}.caBundle"), bundle, &error);
            }
        }
        self.review_versions(versions);
    }

    fn review_versions(&mut self, versions: Ref<'_>) {
        const KNOWN: [&str; 2] = ["v1", "v1beta1"];
        let at = "spec.conversion.conversionReviewVersions";
        if versions.is_empty() {
            return self.required(at, "");
        }
        let names: Vec<&str> = versions.items().map(Ref::str).collect();
        for (place, name) in names.iter().enumerate() {
            let at = format!("{at}[{place}]");
            if names[..place].contains(name) {
                self.invalid(at, *name, "duplicate version");
                continue;
            }
            for message in validate::dns1035_label(name) {
                self.invalid(&*at, *name, &message);
            }
        }
        let knows = |names: Ref<'_>| names.is_empty() || names.items().any(|name| KNOWN.contains(&name.str()));
        let tolerated = self.old.is_some_and(|old| !knows(old.at("spec.conversion.webhook.conversionReviewVersions")));
        if !knows(versions) && !tolerated {
            self.invalid(at, versions.to_value(), "must include at least one of v1, v1beta1");
        }
    }

    /// webhook.ValidateWebhookURL
    fn url(&mut self, url: &str, at: &str) {
        const FORM: &str = "; desired format: https://host[/path]";
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if scheme != "https" {
            self.invalid(at, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
        }
        if host.is_empty() || scheme.is_empty() {
            self.invalid(at, "", &format!("host must be specified{FORM}"));
        }
        if let Some(user) = user {
            self.invalid(at, user, "user information is not permitted in the URL");
        }
        let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        if !fragment.is_empty() {
            self.invalid(at, fragment, "fragments are not permitted in the URL");
        }
        if let Some((_, query)) = before.split_once('?').filter(|(_, query)| !query.is_empty()) {
            self.invalid(at, query, "query parameters are not permitted in the URL");
        }
    }

    /// webhook.ValidateWebhookService
    fn service(&mut self, service: Ref<'_>, at: &str) {
        for name in ["name", "namespace"] {
            if service.get(name).is_empty() {
                self.required(format!("{at}.{name}"), "");
            }
        }
        let port = service.get("port").as_i64().unwrap_or(443);
        if !(1..=65535).contains(&port) {
            let detail = "port is not valid: must be between 1 and 65535, inclusive";
            self.invalid(format!("{at}.port"), port, detail);
        }
        let path = service.get("path").str();
        let at = format!("{at}.path");
        match path {
            "" | "/" => return,
            "//" => return self.invalid(at, path, "segment[0] may not be empty"),
            _ if !path.starts_with('/') => self.invalid(&*at, path, "must start with a '/'"),
            _ => {}
        }
        let inner = path.get(1..).unwrap_or("");
        for (place, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
            if step.is_empty() {
                self.invalid(&*at, path, &format!("segment[{place}] may not be empty"));
                continue;
            }
            for message in validate::dns1123_subdomain(step) {
                self.invalid(&*at, path, &format!("segment[{place}]: {message}"));
            }
        }
    }

    fn immutable(&mut self, spec: Ref<'_>) {
        let Some(old) = self.old.map(|old| old.get("spec")) else { return };
        let established = self.is_established();
        for (path, always) in [("scope", false), ("names.kind", false), ("group", true), ("names.plural", true)] {
            let (now, before) = (spec.at(path).str(), old.at(path).str());
            if now != before && (always || established) {
                self.invalid(format!("spec.{path}"), now, "field is immutable");
            }
        }
    }

    fn stored_versions(&mut self, new: Ref<'_>) {
        let at = "status.storedVersions";
        let stored = new.get("status").get("storedVersions");
        if stored.is_empty() {
            return self.invalid(at, Value::Null, "must have at least one stored version");
        }
        let versions = new.at("spec.versions");
        let has = |name: &str| stored.items().any(|stored| stored.str() == name);
        for version in versions.items().filter(|version| version.get("storage").is_true()) {
            let name = version.get("name").str();
            if !has(name) {
                self.invalid(at, stored.to_value(), &format!("must have the storage version {name}"));
            }
        }
        for (place, name) in stored.items().map(Ref::str).enumerate() {
            if !versions.items().any(|version| version.get("name").str() == name) {
                let detail = format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
                );
                self.invalid(format!("{at}[{place}]"), name, &detail);
            }
        }
    }

    fn approval(&mut self, new: Ref<'_>) {
        if !is_protected(new.at("spec.group").str()) {
            return;
        }
        let (state, reason) = approval(new);
        if self.old.is_some_and(|old| approval(old).0 == state) {
            return;
        }
        let at = format!("metadata.annotations[{APPROVED}]");
        match state {
            "MissingAnnotation" => self.required(at, &reason),
            "InvalidAnnotation" => {
                let text = new.at("metadata.annotations").get(APPROVED).str();
                self.invalid(at, text, &reason);
            }
            _ => {}
        }
    }
}

/// Whether a condition of a definition is true.
pub fn is_true(definition: Ref<'_>, condition: &str) -> bool {
    let mut conditions = definition.at("status.conditions").items();
    conditions.any(|found| found.get("type").str() == condition && found.get("status").str() == "True")
}

/// Groups that need an approval (apihelpers.IsProtectedCommunityGroup).
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|name| group.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Reason and message of the condition KubernetesAPIApprovalPolicyConformant.
pub fn approval(definition: Ref<'_>) -> (&'static str, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let text = definition.at("metadata.annotations").get(APPROVED).str();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split(['/', '?', '#']).next().unwrap_or("").is_empty()
    });
    match text {
        "" => ("MissingAnnotation", format!("protected groups must have approval annotation \"{APPROVED}\", {SEE}")),
        _ if text.starts_with("unapproved") => ("UnapprovedAnnotation", format!("not approved: {text:?}")),
        _ if is_url => ("ApprovedAnnotation", format!("approved in {text}")),
        _ => {
            let or = "with either a URL or a reason starting with \"unapproved\"";
            ("InvalidAnnotation", format!("protected groups must have approval annotation \"{APPROVED}\" {or}, {SEE}"))
        }
    }
}

/// What is wrong with a base64 of PEM certificates.
pub fn bundle_error(base64: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let blocks = text.matches("-----BEGIN CERTIFICATE-----").count();
    let whole = blocks > 0 && blocks == text.matches("-----END CERTIFICATE-----").count();
    (!whole).then(|| "unable to load root certificates: unable to parse bytes as PEM block".into())
}

/// "x-kubernetes-validations" as upstream's struct calls it: "XValidations".
fn go_field(keyword: &str) -> String {
    let name = keyword.strip_prefix("x-kubernetes-").map_or(keyword.to_owned(), |rest| format!("x-{rest}"));
    name.split('-').map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A version as upstream prints its internal struct; what is long is left out.
fn internal_version(version: Ref<'_>) -> Value {
    json!({"Name": version.get("name").str(), "Served": version.get("served").is_true(),
        "Storage": version.get("storage").is_true(), "Deprecated": version.get("deprecated").is_true(),
        "DeprecationWarning": version.get("deprecationWarning").to_value(), "Schema": null, "Subresources": null,
        "AdditionalPrinterColumns": null, "SelectableFields": null})
}

/// What is around a default: the object it belongs to, and the way to it from there.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    root: Schema<'a>,
    steps: &'a [Step<'a>],
    in_meta: bool,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Element,
}

/// Defaults are values like any other (defaulting/validation.go).
struct Defaults<'c> {
    patterns: &'c Patterns,
    causes: &'c mut Vec<Cause>,
}

impl Defaults<'_> {
    fn walk(&mut self, schema: Schema<'_>, path: &str, around: Surroundings<'_>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let is_object = schema.is_embedded() || depth == 0;
        let around = if is_object { Surroundings { root: schema, steps: &[], in_meta: false } } else { around };
        if schema.default().exists() {
            self.default(schema, &format!("{path}.default"), around);
        }
        let inner = |step| [around.steps, &[step]].concat();
        if let Some(items) = schema.items() {
            let steps = inner(Step::Element);
            self.walk(items, &format!("{path}.items"), Surroundings { steps: &steps, ..around }, depth + 1);
        }
        for (name, property) in schema.properties() {
            let steps = inner(Step::Name(name));
            let in_meta = around.in_meta || is_object && prune::is_meta(name);
            let around = Surroundings { root: around.root, steps: &steps, in_meta };
            self.walk(property, &format!("{path}.properties[{name}]"), around, depth + 1);
        }
    }

    fn default(&mut self, schema: Schema<'_>, at: &str, around: Surroundings<'_>) {
        let default = schema.default().to_value();
        let before = self.causes.len();
        if around.in_meta {
            let mut object = default.clone();
            for step in around.steps.iter().rev() {
                object = match step {
                    Step::Name(name) => json!({ (*name): object }),
                    Step::Element => json!([object]),
                };
            }
            let mut found = Vec::new();
            if let Some(map) = object.as_object_mut() {
                map.entry("kind").or_insert_with(|| "Validation".into());
                map.entry("apiVersion").or_insert_with(|| "validation/v1".into());
                if let Err(error) = metadata::clean(map, "", &mut Vec::new()) {
                    found.push(error);
                } else {
                    let mut causes = Vec::new();
                    metadata::embedded(map, "", &mut causes);
                    found.extend(causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)));
                }
            }
            if !found.is_empty() {
                let detail = format!("must result in valid metadata: {}", found.join(", "));
                self.causes.push(Cause::invalid(at, &default, &detail));
            }
        } else {
            let mut pruned = default.clone();
            prune::prune(&mut pruned, Some(schema), schema.is_embedded(), "", &mut Vec::new(), 0);
            if pruned != default {
                self.causes.push(Cause::invalid(at, &default, "must not have unknown fields"));
            }
            let mut coerced = default.clone();
            match metadata::coerce(&mut coerced, schema, at, false, &mut Vec::new()) {
                Err(cause) => return self.causes.push(cause),
                Ok(()) => metadata::check(schema, &default, at, self.causes),
            }
        }
        if self.causes.len() == before {
            values::check(self.patterns, schema, &default, None, at, self.causes);
        }
    }
}

/// Schemas stand in fields that take anything (items, additionalProperties), where the usual cleaning does not look.
pub(crate) fn normalize(definition: &mut Value) {
    let Some(id) = BUILTIN.type_by_definition(SCHEMA) else { return };
    let versions = definition.get_mut("spec").and_then(|spec| spec.get_mut("versions")).and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        if let Some(Value::Object(schema)) = version.get_mut("schema").and_then(|s| s.get_mut("openAPIV3Schema")) {
            normalize_schema(schema, id, 0);
        }
    }
}

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

fn normalize_schema(schema: &mut Map, id: TypeId, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for keyword in ["items", "additionalProperties", "additionalItems"] {
        if let Some(Value::Object(inner)) = schema.get_mut(keyword) {
            // What has the wrong type is told of by those who look at the schema.
            if crate::prune::clean_type(BUILTIN, id, inner).is_ok() {
                normalize_schema(inner, id, depth + 1);
            }
        }
    }
    for keyword in ["properties", "patternProperties", "definitions"] {
        for inner in schema.get_mut(keyword).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            inner.as_object_mut().into_iter().for_each(|inner| normalize_schema(inner, id, depth + 1));
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for inner in schema.get_mut(keyword).and_then(Value::as_array_mut).into_iter().flatten() {
            inner.as_object_mut().into_iter().for_each(|inner| normalize_schema(inner, id, depth + 1));
        }
    }
    if let Some(Value::Object(inner)) = schema.get_mut("not") {
        normalize_schema(inner, id, depth + 1);
    }
}

/// Warnings about formats that nobody checks, as far as `old` does not have them (customresourcedefinition/strategy.go).
pub fn format_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let all = |definition: &Value| {
        let mut found: Vec<String> = Vec::new();
        if let Ok(doc) = Doc::encode(definition) {
            for (_, _, schema) in schemas(doc.root().get("spec")) {
                keywords::visit(schema, 0, &mut |schema| {
                    let format = schema.place().get("format").str();
                    if !format.is_empty() && !formats::is_known(schema.type_name(), format) {
                        found.push(format.to_owned());
                    }
                });
            }
        }
        found
    };
    let known = old.map(all).unwrap_or_default();
    let fresh = all(new).into_iter().filter(|format| !known.contains(format));
    fresh.map(|format| format!("unrecognized format {format:?}")).collect()
}
