//! The selectors in an access review: `spec.resourceAttributes.{fieldSelector,labelSelector}`, given as text or as
//! requirements (kubernetes/pkg/registry/authorization/util/helpers.go, pkg/apis/authorization/validation). No authorizer here
//! looks at labels; what cannot be read is left out and said, which only ever asks for more.
use mote_schema::{Cause, Value, selector};

const IN: [&str; 2] = ["In", "NotIn"];
const EXISTS: [&str; 2] = ["Exists", "DoesNotExist"];

/// What is wrong with the form of both.
pub fn causes(attributes: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, has_labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let selector = &attributes[name];
        if selector.is_null() {
            continue;
        }
        let path = format!("spec.resourceAttributes.{name}");
        let (raw, requirements) = parts(selector);
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                let raw = Value::from(raw);
                let field = format!("{path}.rawSelector");
                causes.push(Cause::invalid(field, &raw, "may not specified at the same time as requirements"));
            }
            (true, true) => {
                let detail = format!("when {path} is specified, requirements or rawSelector is required");
                causes.push(Cause::required(format!("{path}.requirements"), &detail));
            }
            _ => {}
        }
        for (at, requirement) in requirements.iter().enumerate() {
            let path = format!("{path}.requirements[{at}]");
            let (key, operator, values) = requirement_of(requirement);
            if key.is_empty() && !has_labels {
                causes.push(Cause::required(format!("{path}.key"), "must be specified"));
            }
            // After what is said of the values.
            let wrong = if has_labels { mote_schema::validate::qualified_name(key) } else { Vec::new() };
            let named = Value::from(key);
            let field = format!("{path}.values");
            if IN.contains(&operator) && values.is_empty() {
                causes.push(Cause::required(field, "must be specified when `operator` is 'In' or 'NotIn'"));
            } else if EXISTS.contains(&operator) && !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(field, detail));
            }
            for error in wrong {
                causes.push(Cause::invalid(format!("{path}.key"), &named, &error));
            }
        }
    }
    causes
}

fn parts(selector: &Value) -> (&str, &[Value]) {
    let requirements = selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
    (selector["rawSelector"].as_str().unwrap_or(""), requirements)
}

fn requirement_of(requirement: &Value) -> (&str, &str, Vec<&str>) {
    let values = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    (requirement["key"].as_str().unwrap_or(""), requirement["operator"].as_str().unwrap_or(""), values)
}

/// The field selector as text, and what to say of both.
pub fn read(attributes: &Value) -> (String, String) {
    let mut errors = Vec::new();
    let mut ignored = |name: &str, some: bool| {
        let partially = if some { "partially " } else { "" };
        errors.push(format!("spec.resourceAttributes.{name} {partially}ignored due to parse error"));
    };
    let (raw, requirements) = parts(&attributes["fieldSelector"]);
    let mut fields = raw.to_owned();
    if !raw.is_empty() && selector::FieldSelector::parse(raw).is_err() {
        fields.clear();
        ignored("fieldSelector", false);
    }
    let mut terms = Vec::new();
    for requirement in requirements {
        let (key, operator, values) = requirement_of(requirement);
        match (operator, values.as_slice()) {
            ("In", [one]) => terms.push(format!("{key}={one}")),
            ("NotIn", [one]) => terms.push(format!("{key}!={one}")),
            _ => {}
        }
    }
    if terms.len() < requirements.len() {
        ignored("fieldSelector", !terms.is_empty());
    }
    if !terms.is_empty() {
        fields = terms.join(",");
    }
    let (raw, requirements) = parts(&attributes["labelSelector"]);
    let known = |requirement: &&Value| {
        let (_, operator, _) = requirement_of(requirement);
        IN.contains(&operator) || EXISTS.contains(&operator)
    };
    let good = requirements.iter().filter(known).count();
    let unread = !raw.is_empty() && selector::LabelSelector::parse(raw).is_err();
    if unread || good < requirements.len() {
        ignored("labelSelector", good > 0);
    }
    (fields, errors.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn selectors() {
        let check = |attributes: Value, fields: &str, error: &str| {
            assert_eq!(read(&attributes), (fields.to_owned(), error.to_owned()), "{attributes}");
        };
        check(json!({}), "", "");
        check(json!({"fieldSelector": {"rawSelector": "spec.nodeName=n1"}}), "spec.nodeName=n1", "");
        let one = |operator: &str, values: Value| json!({"key": "a", "operator": operator, "values": values});
        check(
            json!({"fieldSelector": {"requirements": [one("In", json!(["x"])), one("NotIn", json!(["y"]))]}}),
            "a=x,a!=y",
            "",
        );
        check(
            json!({"fieldSelector": {"requirements": [one("In", json!(["x"])), one("Exists", json!([]))]},
                "labelSelector": {"requirements": [one("Odd", json!([]))]}}),
            "a=x",
            "spec.resourceAttributes.fieldSelector partially ignored due to parse error; \
             spec.resourceAttributes.labelSelector ignored due to parse error",
        );
        let causes = causes(
            &json!({"fieldSelector": {}, "labelSelector": {"rawSelector": "a", "requirements": [one("In", json!([]))]}}),
        );
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.resourceAttributes.fieldSelector.requirements",
                "spec.resourceAttributes.labelSelector.rawSelector",
                "spec.resourceAttributes.labelSelector.requirements[0].values"
            ]
        );
    }
}
