//! Whether a request is a webhook's or a policy's business: rules, selectors, match policy
//! (apiserver/pkg/admission/plugin/webhook/{generic,predicates}, plugin/policy/matching). matchConditions come after this and
//! are their owner's.
use super::super::{Attributes, ObjectKind, Operation};
use mote_schema::{Kind, Ref, Status, Value, selector::LabelSelector};
use std::sync::Arc;

/// One webhook's `rules`, `matchPolicy` and selectors, or a policy's `matchConstraints` or binding's `matchResources`.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// None: every resource (policies only).
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    is_equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

/// An error is told when it matters, not before.
type Selector = Result<LabelSelector, String>;

#[derive(Debug, Default)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource, each of which may be "*".
    resources: Vec<(String, String)>,
    /// "*", "Cluster", "Namespaced"
    scope: String,
    /// Empty: all.
    names: Vec<String>,
}

/// As what a request matched: itself, or another version of the same objects.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    /// Of the resource.
    pub kind: Arc<Kind>,
    /// Of the object that is sent: the resource's, or its subresource's.
    pub object: ObjectKind<'static>,
}

/// Configuration of admission is not subject to it, or nobody could repair a broken one.
pub(crate) fn is_exempt(attributes: &Attributes<'_, '_>) -> bool {
    const KINDS: [&str; 6] = [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ];
    attributes.object.group == "admissionregistration.k8s.io" && KINDS.contains(&&*attributes.object.kind)
}

impl Matcher {
    /// A webhook, or what a policy says it is about.
    pub fn new(source: Ref<'_>) -> Matcher {
        let is_hook = !source.get("clientConfig").is_empty();
        let rules: Vec<Rule> =
            source.get(if is_hook { "rules" } else { "resourceRules" }).items().map(Rule::new).collect();
        let selector = |field: &str| {
            let everything = LabelSelector { requirements: Vec::new() };
            LabelSelector::from_ref(source.get(field)).map(|found| found.unwrap_or(everything))
        };
        Matcher {
            rules: Some(rules).filter(|rules| is_hook || !rules.is_empty()),
            excluded: source.get("excludeResourceRules").items().map(Rule::new).collect(),
            is_equivalent: source.get("matchPolicy").str() != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// `new` is the object of the request, null for a DELETE. An error: the request would be matched, were it not for
    /// a selector that cannot be asked.
    pub fn matches(&self, attributes: &Attributes<'_, '_>, new: &Value) -> Result<Option<Matched>, Status> {
        let of_namespace = self.of_namespace(attributes, new);
        if matches!(of_namespace, Ok(false)) {
            return Ok(None);
        }
        let of_object = match &self.objects {
            Ok(selector) => Ok(selector.is_empty() || selects(selector, new) || selects(selector, attributes.old)),
            Err(error) => Err(Status::internal(error)),
        };
        if matches!(of_object, Ok(false)) || self.find(&self.excluded, attributes, new).is_some() {
            return Ok(None);
        }
        let found = match &self.rules {
            None => Some(Matched::own(attributes)),
            Some(rules) => self.find(rules, attributes, new),
        };
        let Some(found) = found else { return Ok(None) };
        of_namespace?;
        of_object?;
        Ok(Some(found))
    }

    fn of_namespace(&self, attributes: &Attributes<'_, '_>, new: &Value) -> Result<bool, Status> {
        let is_namespace = attributes.is("", "namespaces");
        let name = if is_namespace { attributes.name(new) } else { attributes.target.namespace };
        if name.is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(Status::internal)?;
        if selector.is_empty() {
            return Ok(true);
        }
        // A namespace that is being written brings its labels itself.
        if is_namespace
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(selects(selector, new));
        }
        let found = attributes.api.lookup("", "v1", "namespaces", "", name);
        let found = found.ok_or_else(|| Status::not_found("", "namespaces", name))?;
        Ok(selector.matches(found.meta().get("labels")))
    }

    fn find(&self, rules: &[Rule], attributes: &Attributes<'_, '_>, new: &Value) -> Option<Matched> {
        let asked = attributes.target.asked;
        if rules.iter().any(|rule| rule.matches(asked, attributes, new)) {
            return Some(Matched::own(attributes));
        }
        if !self.is_equivalent || rules.is_empty() {
            return None;
        }
        let catalog = attributes.api.catalog();
        let subresource = attributes.subresource;
        let equivalents: Vec<&Arc<Kind>> = catalog
            .kinds
            .iter()
            .filter(|kind| {
                kind.prefix == asked.prefix
                    && !kind.virtual_kind
                    && (kind.group != asked.group || kind.version != asked.version)
                    && (subresource.is_empty() || kind.subresource(subresource).is_some())
            })
            .collect();
        // Earlier rules come first, whatever version they name.
        let mut pairs = rules.iter().flat_map(|rule| equivalents.iter().map(move |kind| (rule, *kind)));
        let (_, kind) = pairs.find(|(rule, kind)| rule.matches(kind, attributes, new))?;
        Some(Matched { kind: kind.clone(), object: object_of(kind, subresource) })
    }
}

impl Matched {
    /// The request as it came.
    pub fn own(attributes: &Attributes<'_, '_>) -> Matched {
        let asked = attributes.target.asked;
        let object = match attributes.target.kind.kind == attributes.object.kind {
            true => object_of(asked, ""),
            false => {
                let ObjectKind { group, version, kind } = attributes.object.clone();
                let owned = |text: std::borrow::Cow<'_, str>| text.into_owned().into();
                ObjectKind { group: owned(group), version: owned(version), kind: owned(kind) }
            }
        };
        Matched { kind: asked.clone(), object }
    }
}

fn object_of(kind: &Kind, subresource: &str) -> ObjectKind<'static> {
    match kind.subresource(subresource) {
        Some(sub) => ObjectKind { group: sub.group.clone(), version: sub.version.clone(), kind: sub.kind.clone() },
        None => ObjectKind { group: kind.group.clone(), version: kind.version.clone(), kind: kind.kind.clone() },
    }
}

/// What has no metadata (PodExecOptions) is never selected.
fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let Some(metadata) = object.get("metadata") else { return false };
    selector.matches_with(|label| metadata["labels"][label].as_str())
}

impl Rule {
    fn new(source: Ref<'_>) -> Rule {
        let texts = |field: &str| source.get(field).items().map(|item| item.str().to_owned()).collect();
        let resources = source.get("resources").items().map(|item| {
            let (resource, sub) = item.str().split_once('/').unwrap_or((item.str(), ""));
            (resource.to_owned(), sub.to_owned())
        });
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: resources.collect(),
            scope: source.get("scope").str().to_owned(),
            names: texts("resourceNames"),
        }
    }

    /// `kind` stands for the resource that was asked for.
    fn matches(&self, kind: &Kind, attributes: &Attributes<'_, '_>, new: &Value) -> bool {
        let is_namespaced = !attributes.target.namespace.is_empty() && !attributes.is("", "namespaces");
        let in_scope = match self.scope.as_str() {
            "" | "*" => true,
            "Namespaced" => is_namespaced,
            "Cluster" => !is_namespaced,
            _ => false,
        };
        let any = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let is = |pattern: &str, wanted: &str| pattern == "*" || pattern == wanted;
        in_scope
            && any(&self.operations, attributes.operation.name())
            && any(&self.groups, &kind.group)
            && any(&self.versions, &kind.version)
            && self
                .resources
                .iter()
                .any(|(resource, sub)| is(resource, &kind.plural) && is(sub, attributes.subresource))
            && (self.names.is_empty() || {
                let name = match attributes.target.name {
                    "" => new["metadata"]["name"].as_str().unwrap_or(""),
                    name => name,
                };
                self.names.iter().any(|wanted| wanted == name)
            })
    }
}

#[cfg(test)]
mod tests;
