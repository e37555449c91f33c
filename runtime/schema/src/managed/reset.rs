//! What the strategy of an endpoint puts back, and what nobody therefore owns through it (GetResetFields of
//! pkg/registry/*/*/strategy.go). The rule: an object's own endpoint leaves the status alone, /status leaves the spec alone.
use super::{
    element::Element,
    set::{Node, Set},
};
use crate::Kind;

pub enum Filter {
    All,
    /// These and what is below them are not owned.
    Exclude(Set),
    /// Only what is below these is; "*" is any element.
    Include(&'static [&'static [&'static str]]),
}

type Paths = &'static [&'static [&'static str]];

/// (kind, subresource, paths) where the rule does not hold.
const EXCLUDED: [(&str, &str, Paths); 13] = [
    ("APIService", "status", METADATA_AND_SPEC),
    ("CertificateSigningRequest", "", &[&["spec"], &["status"]]),
    ("CertificateSigningRequest", "approval", &[&["spec"], &["status", "certificate"]]),
    ("CertificateSigningRequest", "status", &[&["spec"], &["status", "conditions"]]),
    ("Deployment", "status", &[&["metadata", "labels"], &["spec"]]),
    ("FlowSchema", "status", METADATA_AND_SPEC),
    ("Namespace", "finalize", &[&["status"]]),
    ("Pod", "status", &[&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"], &["spec"]]),
    ("PriorityLevelConfiguration", "status", METADATA_AND_SPEC),
    ("ResourceClaim", "status", METADATA_AND_SPEC),
    ("ServiceCIDR", "status", METADATA_AND_SPEC),
    ("ValidatingAdmissionPolicy", "status", METADATA_AND_SPEC),
    ("VolumeAttachment", "status", METADATA_AND_SPEC),
];

const METADATA_AND_SPEC: Paths = &[&["metadata"], &["spec"]];

const RESIZE: Paths = &[
    &["spec", "containers", "*", "resizePolicy"],
    &["spec", "containers", "*", "resources"],
    &["spec", "initContainers", "*", "resizePolicy"],
    &["spec", "initContainers", "*", "resources"],
];

impl Filter {
    pub fn of(kind: &Kind, sub: &str) -> Filter {
        let listed = EXCLUDED.iter().find(|(name, part, _)| *name == kind.kind && *part == sub);
        match (sub, listed) {
            _ if kind.is_custom() && sub == "status" => Filter::Exclude(Set::of(METADATA_AND_SPEC)),
            (_, Some((_, _, paths))) if !kind.is_custom() => Filter::Exclude(Set::of(paths)),
            ("ephemeralcontainers", _) => Filter::Include(&[&["spec", "ephemeralContainers"]]),
            ("resize", _) => Filter::Include(RESIZE),
            ("", _) if kind.has_status => Filter::Exclude(Set::of(&[&["status"]])),
            ("status", _) => Filter::Exclude(Set::of(&[&["spec"]])),
            _ => Filter::All,
        }
    }

    pub(super) fn apply(&self, set: &mut Set) {
        match self {
            Filter::All => {}
            Filter::Exclude(excluded) => *set = set.recursive_difference(excluded),
            Filter::Include(paths) => *set = include(set, paths),
        }
    }
}

/// A member on the way to what is included stays too.
fn include(set: &Set, paths: &[&[&str]]) -> Set {
    if paths.iter().any(|path| path.is_empty()) {
        return set.clone();
    }
    set.retain(&|node| {
        let fits = |step: &str| step == "*" || matches!(&node.element, Element::Field(name) if **name == *step);
        let below: Vec<&[&str]> = paths.iter().filter(|path| fits(path[0])).map(|path| &path[1..]).collect();
        if below.is_empty() {
            return None;
        }
        let children = include(&node.children, &below);
        (node.member || !children.is_empty()).then(|| Node {
            element: node.element.clone(),
            member: node.member,
            children,
        })
    })
}
