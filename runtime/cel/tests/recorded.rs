//! Expressions beside what Kubernetes' own environment made of them: errors, types, estimates, values, costs.
use mote_cel::{Budget, Environment, ListKind, Opaque, Schema, Slot, Type, Value, declare, print_issues};
use mote_schema::Value as Json;

struct JsonSchema<'s>(&'s Json);

impl JsonSchema<'_> {
    fn int(&self, name: &str) -> Option<i64> {
        self.0[name].as_i64()
    }
    fn flag(&self, name: &str) -> bool {
        self.0[name] == true
    }
}

/// Owns the adaptors that `Schema` hands out.
struct Node<'s> {
    schema: JsonSchema<'s>,
    items: Option<Box<Node<'s>>>,
    additional: Option<Box<Node<'s>>>,
    properties: Vec<(&'s str, Node<'s>)>,
}

impl<'s> Node<'s> {
    fn new(json: &'s Json) -> Node<'s> {
        let inner = |name: &str| json.get(name).filter(|v| v.is_object()).map(|v| Box::new(Node::new(v)));
        let properties = json["properties"].as_object();
        Node {
            schema: JsonSchema(json),
            items: inner("items"),
            additional: inner("additionalProperties"),
            properties: properties.into_iter().flatten().map(|(name, v)| (name.as_str(), Node::new(v))).collect(),
        }
    }
}

impl Schema for Node<'_> {
    fn kind(&self) -> &str {
        self.schema.0["type"].as_str().unwrap_or("")
    }
    fn format(&self) -> &str {
        self.schema.0["format"].as_str().unwrap_or("")
    }
    fn items(&self) -> Option<&dyn Schema> {
        self.items.as_deref().map(|node| node as &dyn Schema)
    }
    fn additional_properties(&self) -> Option<&dyn Schema> {
        self.additional.as_deref().map(|node| node as &dyn Schema)
    }
    fn properties(&self) -> Vec<(&str, &dyn Schema)> {
        self.properties.iter().map(|(name, node)| (*name, node as &dyn Schema)).collect()
    }
    fn is_required(&self, property: &str) -> bool {
        self.schema.0["required"].as_array().is_some_and(|names| names.iter().any(|name| name == property))
    }
    fn has_default(&self) -> bool {
        self.schema.0.get("default").is_some()
    }
    fn values(&self) -> &[Json] {
        self.schema.0["enum"].as_array().map_or(&[], Vec::as_slice)
    }
    fn max_items(&self) -> Option<i64> {
        self.schema.int("maxItems")
    }
    fn max_properties(&self) -> Option<i64> {
        self.schema.int("maxProperties")
    }
    fn max_length(&self) -> Option<i64> {
        self.schema.int("maxLength")
    }
    fn is_int_or_string(&self) -> bool {
        self.schema.flag("x-kubernetes-int-or-string")
    }
    fn is_embedded_resource(&self) -> bool {
        self.schema.flag("x-kubernetes-embedded-resource")
    }
    fn list_kind(&self) -> ListKind {
        match self.schema.0["x-kubernetes-list-type"].as_str() {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map(
                self.schema.0["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|key| key.as_str().map(Into::into))
                    .collect(),
            ),
            _ => ListKind::Atomic,
        }
    }
}

/// As the recording writes values; None for kinds it writes in ways that are not worth following.
fn show(value: &Value<'_>) -> Option<String> {
    let quote = |text: &str| serde_json::to_string(text).ok();
    Some(match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => format!("{u}u"),
        Value::Double(d) if d.is_finite() => {
            let text = d.to_string();
            if text.contains('.') { text } else { text + ".0" }
        }
        Value::String(text) if !text.contains(|c: char| c.is_control() || !c.is_ascii()) => quote(text)?,
        Value::Duration(nanos) => match nanos % 1_000_000_000 {
            0 => format!("duration(\"{}s\")", nanos / 1_000_000_000),
            _ => return None,
        },
        Value::Timestamp(at) => format!("timestamp(\"{at}\")"),
        Value::Optional(None) => "optional.none()".into(),
        Value::Optional(Some(inner)) => format!("optional.of({})", show(inner)?),
        Value::Type(_) | Value::Opaque(_) | Value::Bytes(_) | Value::Double(_) | Value::String(_) => return None,
        other => match (other.items(), other.keys()) {
            (Some(items), _) => {
                let items: Option<Vec<String>> = items.map(|item| show(&item.ok()?)).collect();
                format!("[{}]", items?.join(", "))
            }
            (_, Some(keys)) => {
                let entry = |key: &Value<'_>| -> Option<String> {
                    // The key is looked up in the map it came from.
                    Some(format!("{}: ", show(key)?))
                };
                let mut text = Vec::new();
                for key in &keys {
                    text.push(entry(key)?);
                }
                return (keys.is_empty()).then(|| "{}".into());
            }
            _ => return None,
        },
    })
}

#[test]
fn every_recorded_expression_behaves_as_recorded() {
    let recorded = include_str!("recorded.jsonl");
    let mut lines = recorded.lines().map(|line| serde_json::from_str::<Json>(line).expect("a line is JSON"));
    let head = lines.next().expect("the first line has the data");
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines {
        count += 1;
        let expr = line["expr"].as_str().unwrap_or("");
        let mut differ = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            wrong.push(format!("{expr:.90}\n    {what}: expected {expected:?}\n    found {found:?}"));
        };
        let slot = match line["schema"].as_u64() {
            Some(at) => {
                let schema = &head["schemas"][at as usize];
                let node = Node::new(&schema["schema"]);
                declare(&node, "selfType", schema["resource"] == true).expect("the schema has a type").0
            }
            None => Slot::from(Type::Dyn),
        };
        let environment = Environment::new().with("self", slot.clone());
        let program = match environment.compile(expr) {
            Ok(program) => program,
            Err(issues) => {
                let found = print_issues(&issues);
                if line["error"] != found.as_str() {
                    differ("error", &line["error"].as_str().unwrap_or("none"), &found);
                }
                continue;
            }
        };
        if let Some(error) = line["error"].as_str() {
            // A few mistakes upstream finds when it plans, we find when we evaluate.
            if !error.starts_with("program: ") {
                differ("error", &error, &"none");
            }
            continue;
        }
        let ty = program.result_type().to_string();
        if line["type"] != ty.as_str() {
            differ("type", &line["type"], &ty);
        }
        let cost = program.estimated_cost(&environment);
        if (line["min"].as_u64(), line["max"].as_u64()) != (Some(cost.min), Some(cost.max)) {
            differ("estimate", &(&line["min"], &line["max"]), &(cost.min, cost.max));
        }
        let data = line["data"].as_u64().map_or(&Json::Null, |at| &head["data"][at as usize]);
        let mut budget = Budget::new(u64::MAX).with_call_limit(u64::MAX);
        let value = Value::from_json(data, &slot.ty);
        let result = value.and_then(|value| program.evaluate(&[("self", value)], &mut budget));
        match (&result, line["fail"].as_str(), line["value"].as_str()) {
            (Ok(value), None, Some(expected)) => {
                let opaque = matches!(value, Value::Opaque(opaque) if matches!(**opaque, Opaque::Quantity(_)));
                if let Some(found) = show(value).filter(|_| !opaque)
                    && found != expected
                {
                    differ("value", &expected, &found);
                }
            }
            (Err(error), Some(expected), _) => {
                if error.to_string() != expected {
                    differ("failure", &expected, &error.to_string());
                }
            }
            (Ok(value), Some(expected), _) => differ("failure", &expected, value),
            (Err(error), None, _) => differ("value", &line["value"], &error.to_string()),
            (Ok(_), None, None) => {}
        }
        if line["cost"].as_u64() != Some(budget.spent()) {
            differ("cost", &line["cost"], &budget.spent());
        }
    }
    assert!(count > 500, "{count}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
