//! ServiceCIDR and IPAddress (pkg/apis/networking/validation).
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::{Cause, status::go_quote, validate as format};

const MAX_CIDRS: usize = 2;

pub(super) fn service_cidr(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let cidrs = new.at("spec.cidrs");
    let Some(old) = old else { return list(&cidrs, errors) };
    let before = old.at("spec.cidrs");
    let changed = before.items().zip(cidrs.items()).filter(|(old, new)| old.value != new.value);
    match (before.len(), cidrs.len()) {
        (old, new) if old == new => changed.for_each(|(_, at)| errors.invalid(&at, "field is immutable")),
        // A second address family may come later.
        (1, 2) => {
            changed.for_each(|(_, at)| errors.invalid(&at, "field is immutable"));
            list(&cidrs, errors);
        }
        _ => errors.invalid(&cidrs, "field is immutable"),
    }
}

fn list(cidrs: &At<'_>, errors: &mut Errors) {
    if cidrs.is_empty() {
        return errors.required(cidrs, "at least one CIDR required");
    }
    if cidrs.len() > MAX_CIDRS {
        // The whole spec, under its Go field's name.
        let shown: Vec<String> = cidrs.items().map(|at| go_quote(at.str())).collect();
        let message = format!("Invalid value: {{\"CIDRs\":[{}]}}: may only hold up to 2 values", shown.join(","));
        return errors.0.push(Cause { reason: "FieldValueInvalid", message, field: cidrs.path.clone() });
    }
    for at in cidrs.items() {
        errors.each(&at, format::cidr(at.str()));
    }
    let family = |at: At<'_>| at.str().split_once('/').map(|(address, _)| address.contains(':'));
    let families: Vec<Option<bool>> = cidrs.items().map(family).collect();
    if families.len() == MAX_CIDRS && families[0].is_some() && families[0] == families[1] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(cidrs, detail);
    }
}

pub(super) fn ip_address(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let parent = new.at("spec.parentRef");
    if let Some(old) = old {
        if parent.is_set() {
            rules(&parent, "resource! name!", errors);
        } else {
            errors.required(&parent, "");
        }
        if parent.value != old.at("spec.parentRef").value {
            // Shown as the Go struct it is upstream.
            let fields = ["Group", "Resource", "Namespace", "Name"];
            let shown = fields.map(|name| format!("\"{name}\":{}", go_quote(parent.get(&name.to_lowercase()).str())));
            let shown = if parent.is_set() { format!("{{{}}}", shown.join(",")) } else { "null".into() };
            let message = format!("Invalid value: {shown}: field is immutable");
            errors.0.push(Cause { reason: "FieldValueInvalid", message, field: parent.path.clone() });
        }
        return;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, json};

    fn check(rule: fn(&At<'_>, Option<&At<'_>>, &mut Errors), old: Value, new: Value, expected: &[&str]) {
        let mut errors = Errors::default();
        let old = Some(&old).filter(|old| !old.is_null()).map(At::root);
        rule(&At::root(&json!({"spec": new})), old.as_ref(), &mut errors);
        let got: Vec<String> = errors.0.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(got, expected, "{new}");
    }

    #[test]
    fn service_cidrs() {
        let cidrs = |list: &[&str]| json!({"cidrs": list});
        let stored = |list: &[&str]| json!({"spec": cidrs(list)});
        let new = |list: &[&str], expected: &[&str]| check(service_cidr, Value::Null, cidrs(list), expected);
        new(&["10.0.0.0/24", "fd00::/112"], &[]);
        new(&[], &["spec.cidrs: Required value: at least one CIDR required"]);
        new(
            &["10.0.0.1/24", "x"],
            &[
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length",
                "spec.cidrs[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        let both = "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        new(&["10.0.0.0/24", "10.1.0.0/24"], &[both]);
        new(
            &["a/1", "b/1", "c/1"],
            &["spec.cidrs: Invalid value: {\"CIDRs\":[\"a/1\",\"b/1\",\"c/1\"]}: may only hold up to 2 values"],
        );
        let update =
            |old: &[&str], new: &[&str], expected: &[&str]| check(service_cidr, stored(old), cidrs(new), expected);
        update(&["10.0.0.0/24"], &["10.0.0.0/24", "fd00::/112"], &[]);
        update(
            &["10.0.0.0/24"],
            &["10.1.0.0/24"],
            &["spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"],
        );
        update(
            &["10.0.0.0/24", "fd00::/112"],
            &["10.0.0.0/24"],
            &["spec.cidrs: Invalid value: [\"10.0.0.0/24\"]: field is immutable"],
        );
    }

    #[test]
    fn ip_addresses() {
        let parent =
            |resource: &str, name: &str| json!({"parentRef": {"resource": resource, "name": name, "namespace": "n"}});
        check(ip_address, Value::Null, parent("services", "s"), &[]);
        check(ip_address, Value::Null, json!({}), &["spec.parentRef: Required value"]);
        check(
            ip_address,
            Value::Null,
            parent("", "a/b"),
            &[
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
        check(
            ip_address,
            json!({"spec": parent("services", "s")}),
            parent("services", "t"),
            &[
                "spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"n\",\"Name\":\"t\"}: field is immutable",
            ],
        );
    }
}
