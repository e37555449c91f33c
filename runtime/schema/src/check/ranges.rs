//! ServiceCIDR and IPAddress (pkg/apis/networking/validation).
use super::at::{At, Errors};
use crate::validate as format;

const MAX_CIDRS: usize = 2;

pub(super) fn service_cidr(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let cidrs = new.at("spec.cidrs");
    let Some(old) = old else { return list(new, &cidrs, errors) };
    let before = old.at("spec.cidrs");
    let changed = before.items().zip(cidrs.items()).filter(|(old, new)| old.value != new.value);
    match (before.len(), cidrs.len()) {
        (old, new) if old == new => changed.for_each(|(_, at)| errors.invalid(&at, "field is immutable")),
        // A second address family may come later.
        (1, 2) => {
            changed.for_each(|(_, at)| errors.invalid(&at, "field is immutable"));
            list(new, &cidrs, errors);
        }
        _ => errors.invalid(&cidrs, "field is immutable"),
    }
}

fn list(new: &At<'_>, cidrs: &At<'_>, errors: &mut Errors) {
    if cidrs.len() == 0 {
        return errors.required(cidrs, "at least one CIDR required");
    }
    if cidrs.len() > MAX_CIDRS {
        return errors.invalid_value(&cidrs.path, new.peek("spec"), "may only hold up to 2 values");
    }
    for at in cidrs.items() {
        errors.each(&at, format::cidr(at.str()));
    }
    let family = |at: At<'_>| at.str().contains(':');
    let families: Vec<bool> = cidrs.items().map(family).collect();
    if families.len() == MAX_CIDRS && families[0] == families[1] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(cidrs, detail);
    }
}

pub(super) fn ip_address(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let parent = new.at("spec.parentRef");
    if let Some(old) = old {
        return errors.immutable(&parent, &old.at("spec.parentRef"));
    }
    if !parent.is_set() {
        return errors.required(&parent, "");
    }
    let group = parent.get("group");
    if !group.str().is_empty() {
        errors.each(&group, format::dns1123_subdomain(group.str()));
    }
    for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
        let at = parent.get(field);
        match at.str() {
            "" if required => errors.required(&at, ""),
            "" => {}
            text => errors.each(&at, format::path_segment_name(text)),
        }
    }
}
