//! Metadata and label selectors: apimachinery/pkg/api/validation/objectmeta.go, apis/meta/v1/validation, and the rule each kind
//! has for its name.
use super::at::{At, Errors};
use crate::Order as _;
use crate::{Kind, Value, validate};

/// All keys and values of annotations together.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// What a name must be.
#[derive(Clone, Copy)]
enum NameRule {
    Subdomain,
    Label,
    /// Only one segment of a URL.
    Segment,
    /// An IP address in its canonical form.
    Address,
    Any,
}

fn name_rule(kind: &Kind) -> NameRule {
    match (&*kind.group, &*kind.kind) {
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => NameRule::Label,
        ("rbac.authorization.k8s.io", _)
        | ("apiregistration.k8s.io", "APIService")
        | ("policy", "PodDisruptionBudget") => NameRule::Segment,
        // A driver's name may be in any case, which its own rule says.
        ("certificates.k8s.io", "CertificateSigningRequest") | ("storage.k8s.io", "CSIDriver") => NameRule::Any,
        ("networking.k8s.io", "IPAddress") => NameRule::Address,
        _ => NameRule::Subdomain,
    }
}

fn check_name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    match rule {
        NameRule::Any => Vec::new(),
        NameRule::Address => validate::ip(name),
        NameRule::Segment if prefix => validate::path_segment_prefix(name),
        NameRule::Segment => validate::path_segment_name(name),
        NameRule::Subdomain if prefix => validate::dns1123_subdomain(&validate::mask_trailing_dash(name)),
        NameRule::Subdomain => validate::dns1123_subdomain(name),
        NameRule::Label if prefix => validate::dns1123_label(&validate::mask_trailing_dash(name)),
        NameRule::Label => validate::dns1123_label(name),
    }
}

pub(super) fn create(kind: &Kind, meta: &At<'_>, errors: &mut Errors) {
    let rule = name_rule(kind);
    let (name, prefix) = (meta.get("name"), meta.get("generateName"));
    if !prefix.str().is_empty() {
        errors.each(&prefix, check_name(rule, prefix.str(), true));
    }
    if name.str().is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        errors.each(&name, check_name(rule, name.str(), false));
        extra_name_rules(kind, &name, errors);
    }
    let namespace = meta.get("namespace");
    match (kind.namespaced, namespace.str()) {
        (true, "") => errors.required(&namespace, ""),
        (true, text) => errors.each(&namespace, validate::dns1123_label(text)),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    rest(meta, errors);
}

/// What a namespace is depends on who holds the object, and it may have no name yet.
pub(super) fn embedded(meta: &At<'_>, errors: &mut Errors) {
    for (field, prefix) in [("generateName", true), ("name", false)] {
        let name = meta.get(field);
        if !name.str().is_empty() {
            errors.each(&name, check_name(NameRule::Segment, name.str(), prefix));
        }
    }
    let namespace = meta.get("namespace");
    if !namespace.str().is_empty() {
        errors.each(&namespace, validate::dns1123_label(namespace.str()));
    }
    rest(meta, errors);
}

fn rest(meta: &At<'_>, errors: &mut Errors) {
    errors.non_negative(&meta.get("generation"));
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owner_references(&meta.get("ownerReferences"), errors);
    finalizers(&meta.get("finalizers"), errors);
}

fn extra_name_rules(kind: &Kind, name: &At<'_>, errors: &mut Errors) {
    match (&*kind.group, &*kind.kind) {
        // Eleven bytes are for the Job's own suffix.
        ("batch", "CronJob") if name.str().len() > 52 => errors.invalid(name, "must be no more than 52 characters"),
        ("scheduling.k8s.io", "PriorityClass")
            if name.str().starts_with("system-")
                && !matches!(name.str(), "system-node-critical" | "system-cluster-critical") =>
        {
            errors.forbidden(
                name,
                &format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a \
                     known system priority class",
                    name.str()
                ),
            );
        }
        _ => {}
    }
}

/// What the strategies of kinds say again of metadata that is replaced, and which; the others say `U`. A letter is a function of
/// upstream: `U` core's ValidateObjectMetaUpdate, `V` its ValidateObjectMeta, small ones apimachinery's, that know no finalizers.
const SAID_AGAIN: [(&str, &str); 7] = [
    (
        "UV",
        "CSIStorageCapacity ClusterRole ClusterRoleBinding ConfigMap ControllerRevision DeviceClass Endpoints IPAddress IngressClass \
         ResourceClaimTemplate Role RoleBinding Secret ServiceAccount StorageClass VolumeAttributesClass Ingress Job Namespace Node \
         PersistentVolumeClaim Pod ResourceClaim CertificateSigningRequest",
    ),
    ("V", "CSINode EndpointSlice LimitRange FlowSchema PriorityLevelConfiguration VolumeAttachment"),
    (
        "v",
        "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy \
         ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
    ),
    ("VV", "PersistentVolume"),
    ("uv", "RuntimeClass APIService"),
    ("u", "Lease CustomResourceDefinition"),
    ("", "PodDisruptionBudget"),
];

fn said_again(kind: &Kind, sub: &str) -> &'static str {
    if kind.is_custom() {
        return "u";
    }
    let found = SAID_AGAIN.iter().find(|(_, kinds)| kinds.split(' ').any(|name| name == &*kind.kind));
    match (found.map_or("U", |(letters, _)| letters), &*kind.kind) {
        (_, "CronJob") if sub == "status" => "",
        (letters @ ("" | "u" | "uv"), _) | (letters, "CertificateSigningRequest") => letters,
        (letters, _) if sub.is_empty() => letters,
        _ => "U",
    }
}

/// registry/rest/update.go, validateCommonFields, and what the kind's own strategy says of the same.
pub(super) fn replaced(kind: &Kind, sub: &str, new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let known = |errors: &mut Errors| new.get("finalizers").items().for_each(|name| known_finalizer(&name, errors));
    let mut found = Errors::default();
    rest(new, &mut found);
    update(new, old, &mut found);
    let common = found.0.len();
    known(&mut found);
    if found.0.is_empty() {
        return;
    }
    errors.0.extend(found.0.into_iter().take(common));
    for letter in said_again(kind, sub).bytes() {
        match letter | 0x20 {
            b'u' => update(new, old, errors),
            _ => rest(new, errors),
        }
        if letter.is_ascii_uppercase() {
            known(errors);
        }
    }
}

fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    if old.get("deletionTimestamp").is_set() {
        let known = old.get("finalizers");
        let mut fresh: Vec<&str> =
            new.get("finalizers").items().map(|f| f.str()).filter(|f| !known.items().any(|k| k.str() == *f)).collect();
        if !fresh.is_empty() {
            fresh.order();
            let list = fresh.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            errors.forbidden(
                &new.get("finalizers"),
                &format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"),
            );
        }
    }
    if new.get("generation").int().unwrap_or(0) < old.get("generation").int().unwrap_or(0) {
        errors.invalid(&new.get("generation"), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        errors.immutable(&new.get(field), &old.get(field));
    }
    labels(&new.get("labels"), errors);
    annotations(&new.get("annotations"), errors);
    owner_references(&new.get("ownerReferences"), errors);
}

/// ValidateLabels
pub(super) fn labels(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.members() {
        for message in validate::qualified_name(key) {
            errors.invalid_value(&at.path, &Value::from(key), &message);
        }
        for message in validate::label_value(value.as_str().unwrap_or("")) {
            errors.invalid_value(&at.path, value, &message);
        }
    }
}

/// ValidateAnnotations
pub(super) fn annotations(at: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in at.members() {
        size += key.len() + value.as_str().unwrap_or("").len();
        for message in validate::qualified_name(&key.to_lowercase()) {
            errors.invalid_value(&at.path, &Value::from(key), &message);
        }
    }
    if size > ANNOTATIONS_BYTES {
        errors.too_long(at, ANNOTATIONS_BYTES);
    }
}

fn owner_references(at: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for reference in at.items() {
        // Upstream leaves the index out of these paths.
        let field = |name: &str| reference.get(name).moved(format!("{}.{name}", at.path));
        let version = reference.get("apiVersion").str().rsplit('/').next().unwrap_or("");
        if version.is_empty() || reference.get("apiVersion").str().matches('/').count() > 1 {
            errors.invalid(&field("apiVersion"), "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if field(name).str().is_empty() {
                errors.invalid(&field(name), "must not be empty");
            }
        }
        let kind = reference.get("kind");
        if reference.get("apiVersion").str() == "v1" && kind.str() == "Event" {
            errors.invalid(&reference.moved(&*at.path), "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.get("controller").is_true() {
            let name = format!("{}/{}", kind.str(), reference.get("name").str());
            match &controller {
                Some(first) => errors.invalid(at, &format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                )),
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(at: &At<'_>, errors: &mut Errors) {
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in at.items() {
        errors.each(&finalizer.moved(&*at.path), validate::qualified_name(finalizer.str()));
        orphan |= finalizer.str() == "orphan";
        foreground |= finalizer.str() == "foregroundDeletion";
    }
    if orphan && foreground {
        errors.invalid(at, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// validateKubeFinalizerName
pub(super) fn known_finalizer(at: &At<'_>, errors: &mut Errors) {
    if !at.str().contains('/') && !matches!(at.str(), "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid(at, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// ValidateLabelSelector
pub(super) fn label_selector(at: &At<'_>, errors: &mut Errors) {
    labels(&at.get("matchLabels"), errors);
    for requirement in at.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        let key = requirement.get("key");
        errors.each(&key, validate::qualified_name(key.str()));
        for value in values.items() {
            errors.each(&value, validate::label_value(value.str()));
        }
    }
}

/// Whether a selector that is valid selects these labels. One without requirements selects all, an absent one nothing.
pub(super) fn selects(selector: &At<'_>, labels: &At<'_>) -> bool {
    if !selector.is_set() {
        return false;
    }
    let all = selector.get("matchLabels").members().all(|(k, v)| labels.peek(k) == v);
    all && selector.get("matchExpressions").items().all(|requirement| {
        let found = labels.value.get(requirement.get("key").str());
        let among = || found.is_some_and(|v| requirement.get("values").items().any(|o| o.value == v));
        match requirement.get("operator").str() {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    })
}
