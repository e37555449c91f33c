//! Selectors of devices, in DeviceClasses and ResourceClaims: compiled when they are written, and what they may cost at most
//! (dynamic-resource-allocation/cel/compile.go, pkg/apis/resource/validation). Selectors that were there before are not
//! asked again. An attribute is of any type; nothing here evaluates one.
use mote_cel::{Environment, Fields, Slot, Type, print_issues};
use mote_schema::{Cause, Kind, Value};
use std::sync::OnceLock;

const MAX_EXPRESSION_BYTES: usize = 10 * 1024;
const COST_LIMIT: u64 = 1_000_000;
const MAX_DOMAIN: u64 = 63;
const MAX_DRIVER: u64 = 63;
const MAX_ID: u64 = 32;
const MAX_ATTRIBUTE: u64 = 64;
/// Attributes, or capacities, of a device.
const MAX_MEMBERS: u64 = 32;

/// Nothing for other kinds.
pub(crate) fn causes(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if kind.group != "resource.k8s.io" {
        return causes;
    }
    let changed = |place: &dyn Fn(&Value) -> Option<&Value>| old.is_none_or(|old| place(old) != place(new));
    if &*kind.kind == "DeviceClass" && changed(&|object| object["spec"].get("selectors")) {
        selectors(&new["spec"]["selectors"], "spec.selectors", &mut causes);
    }
    let (spec, path) = match &*kind.kind {
        "ResourceClaim" => (&new["spec"], "spec"),
        "ResourceClaimTemplate" => (&new["spec"]["spec"], "spec.spec"),
        _ => return causes,
    };
    if changed(&|object| object.get("spec")) {
        for (at, request) in items(&spec["devices"]["requests"]) {
            let path = format!("{path}.devices.requests[{at}]");
            selectors(&request["exactly"]["selectors"], &format!("{path}.exactly.selectors"), &mut causes);
            for (at, sub) in items(&request["firstAvailable"]) {
                selectors(&sub["selectors"], &format!("{path}.firstAvailable[{at}].selectors"), &mut causes);
            }
        }
    }
    causes
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn selectors(list: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (at, selector) in items(list) {
        // What is absent or too long is refused as such.
        let Some(text) = selector["cel"]["expression"].as_str().filter(|text| text.len() <= MAX_EXPRESSION_BYTES)
        else {
            continue;
        };
        let path = format!("{path}[{at}].cel.expression");
        match compile(text) {
            Ok(cost) if cost <= COST_LIMIT => {}
            Ok(_) => causes.push(Cause::forbidden(path, "too complex, exceeds cost limit")),
            Err(detail) => causes.push(Cause::invalid(path, &text.into(), &detail)),
        }
    }
}

/// What it may cost.
fn compile(text: &str) -> Result<u64, String> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(environment);
    let program =
        environment.compile(text).map_err(|issues| format!("compilation failed: {}", print_issues(&issues)))?;
    match program.result_type() {
        Type::Bool | Type::Dyn => Ok(program.estimated_cost(environment).max),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

fn environment() -> Environment {
    let by_name = |value: Slot| {
        let of_domain = Slot::new(Type::map(Slot::new(Type::String, MAX_ID), value), MAX_MEMBERS);
        Slot::new(Type::map(Slot::new(Type::String, MAX_DOMAIN), of_domain), MAX_MEMBERS)
    };
    let fields = [
        ("driver", Slot::new(Type::String, MAX_DRIVER)),
        ("allowMultipleAllocations", Slot::new(Type::Bool, 1)),
        ("attributes", by_name(Slot::new(Type::Dyn, MAX_ATTRIBUTE))),
        ("capacity", by_name(Type::Opaque("kubernetes.Quantity").into())),
    ];
    let device = Fields::new("kubernetes.DRADevice", fields.map(|(name, slot)| (name.to_owned(), slot)));
    Environment::new().with("device", Type::object(device)).with_bindings()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, json};

    fn found(kind: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
        let catalog = Catalog::builtin();
        let kind = catalog.by_kind("resource.k8s.io", "v1", kind).unwrap();
        causes(kind, new, old).into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn class(text: &str) -> Value {
        json!({"spec": {"selectors": [{"cel": {"expression": text}}]}})
    }

    #[test]
    fn what_a_selector_may_say() {
        for text in [
            "device.driver == 'x.io'",
            "device.attributes['x.io'].model == 'a' && device.attributes['x.io'].cores > 3",
            "device.attributes['x.io'].healthy",
            "device.capacity['x.io'].memory.compareTo(quantity('1Gi')) >= 0",
            "device.attributes['x.io'].version.isGreaterThan(semver('1.0.0'))",
            "'x.io' in device.attributes && !device.allowMultipleAllocations",
            "cel.bind(x, device.attributes['x.io'], x.a == 1 && x.b == 'c')",
            "device.attributes['x.io'].?a.orValue(1) == 1",
        ] {
            assert_eq!(found("DeviceClass", &class(text), None), Vec::<String>::new(), "{text}");
        }
        let at = "spec.selectors[0].cel.expression: ";
        for (text, wanted) in [
            (
                "nosuch",
                "Invalid value: \"nosuch\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nosuch' (in container '')",
            ),
            ("1", "Invalid value: \"1\": must evaluate to bool or the unknown type, not int"),
            (
                "device.attributes.map(x, device.attributes.map(y, device.attributes.map(z, x + y + z))).size() > 0 && \
                 device.attributes.all(x, device.attributes.all(y, device.attributes.all(z, device.attributes.all(u, x + y + z != u))))",
                "Forbidden: too complex, exceeds cost limit",
            ),
        ] {
            // The place of a mistake is shown on lines of its own, which the recorded answers do not have.
            let found = found("DeviceClass", &class(text), None);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].lines().next(), Some(&*format!("{at}{wanted}")), "{text}");
        }
        assert!(found("DeviceClass", &class("nosuch"), Some(&class("nosuch"))).is_empty());
    }

    #[test]
    fn where_selectors_are() {
        let bad = json!([{"cel": {"expression": "1"}}]);
        let spec = json!({"devices": {"requests": [
            {"name": "a", "exactly": {"selectors": bad}},
            {"name": "b", "firstAvailable": [{"name": "c"}, {"name": "d", "selectors": bad}]},
        ]}});
        let paths = |kind: &str, object: Value| -> Vec<String> {
            found(kind, &object, None).iter().filter_map(|text| Some(text.split_once(": ")?.0.to_owned())).collect()
        };
        let below = ["requests[0].exactly.selectors[0]", "requests[1].firstAvailable[1].selectors[0]"];
        let at = |spec: &str| below.map(|below| format!("{spec}.devices.{below}.cel.expression")).to_vec();
        assert_eq!(paths("ResourceClaim", json!({"spec": spec})), at("spec"));
        assert_eq!(paths("ResourceClaimTemplate", json!({"spec": {"spec": spec}})), at("spec.spec"));
    }
}
