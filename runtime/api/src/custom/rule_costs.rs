//! Rules when a definition is made: whether they compile, whether they may look at old values where they stand, and what they
//! cost at most (apiextensions-apiserver/pkg/apis/apiextensions/validation: validation.go and cel_validation.go).
use super::rules::{self, declared, environment, item_slot, property_slot, value_slot};
use mote_cel::{Slot, Type};
use mote_schema::{
    Cause, Doc, Ref,
    structural::{Additional, Schema, schemas},
    table::ListType,
};
use mote_schema::{Value, json};

/// Of one expression, and of all in a definition's schema.
const EXPRESSION_LIMIT: u64 = 10_000_000;
const TOTAL_LIMIT: u64 = 100_000_000;
const MAX_DEPTH: usize = 128;

/// Mistakes in the rules of a definition that is otherwise right. Schemas that did not change are not looked at again.
pub(crate) fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let encode = |value: &Value| Doc::encode(&value["spec"]).ok();
    let Some(new) = encode(new) else { return Vec::new() };
    let old = old.and_then(encode);
    let known: Vec<Schema<'_>> = old.iter().flat_map(|old| schemas(old.root())).map(|(_, _, schema)| schema).collect();
    let mut causes = Vec::new();
    for (path, _, schema) in schemas(new.root()) {
        if known.iter().any(|known| known.place().is_same(schema.place())) {
            continue;
        }
        let mut costs = Costs { causes: &mut causes, total: 0, dearest: Vec::new() };
        let place = Place { cardinality: Some(1), slot: None, no_old: None, is_root: true, depth: 0 };
        costs.schema(schema, &path, &place);
        costs.sum_up(&path);
        if causes.is_empty() {
            defaults(schema, &path, true, 0, &mut causes);
        }
    }
    causes
}

struct Costs<'c> {
    causes: &'c mut Vec<Cause>,
    total: u64,
    /// Rules that cost a hundredth of the limit or more.
    dearest: Vec<(String, u64)>,
}

struct Place {
    /// How often values may be here at most; None: as often as they fit into a request.
    cardinality: Option<u64>,
    /// The type, when a rule above has asked for it.
    slot: Option<Slot>,
    /// The list above whose elements have no old values.
    no_old: Option<String>,
    is_root: bool,
    depth: usize,
}

impl Costs<'_> {
    fn schema(&mut self, schema: Schema<'_>, path: &str, place: &Place) {
        if place.depth > MAX_DEPTH {
            return;
        }
        let mut declared_here = None;
        let slot = match &place.slot {
            Some(slot) => Some(slot.clone()),
            None if schema.has_rules() => {
                declared_here = declared(schema, place.is_root);
                declared_here.as_ref().map(|(slot, _)| slot.clone())
            }
            None => None,
        };
        let most = match schema.type_name() {
            "object" if !matches!(schema.additional(), Additional::Unset) => limit(schema, "maxProperties"),
            "array" => limit(schema, "maxItems"),
            _ => Some(1),
        };
        let cardinality = place.cardinality.and_then(|count| Some(count.saturating_mul(most?)));
        let below = |slot: Option<Slot>, schema: Schema<'_>, no_old: Option<String>| Place {
            cardinality,
            slot,
            no_old,
            is_root: schema.is_embedded(),
            depth: place.depth + 1,
        };
        if let Additional::Of(of) = schema.additional() {
            let slot = slot.as_ref().and_then(value_slot);
            self.schema(of, &format!("{path}.additionalProperties"), &below(slot, of, place.no_old.clone()));
        }
        for (name, property) in schema.properties() {
            let slot = slot.as_ref().and_then(|slot| property_slot(slot, name));
            let below = below(slot, property, place.no_old.clone());
            self.schema(property, &format!("{path}.properties[{name}]"), &below);
        }
        if let Some(items) = schema.items() {
            let no_old = match schema.list_type() {
                Some(ListType::Map) => place.no_old.clone(),
                _ => place.no_old.clone().or_else(|| Some(path.to_owned())),
            };
            let slot = slot.as_ref().and_then(item_slot);
            self.schema(items, &format!("{path}.items"), &below(slot, items, no_old));
        }
        if !schema.has_rules() {
            return;
        }
        let Some(slot) = slot else {
            let detail = "internal error: failed to retrieve type information for x-kubernetes-validations";
            let field = format!("{path}.x-kubernetes-validations");
            return self.causes.push(Cause {
                reason: "InternalError",
                message: format!("Internal error: {detail}"),
                field,
            });
        };
        let count = place.cardinality.or_else(|| {
            let found = declared_here.or_else(|| declared(schema, place.is_root));
            found.map(|(_, count)| count)
        });
        for (at, rule) in schema.rules().enumerate() {
            let at = format!("{path}.x-kubernetes-validations[{at}]");
            self.rule(rule, &slot, &at, count.unwrap_or(u64::MAX), place.no_old.as_deref());
        }
    }

    fn rule(&mut self, rule: Ref<'_>, slot: &Slot, path: &str, count: u64, no_old: Option<&str>) {
        let text = |name: &str| rule.get(name).str();
        if text("rule").trim().is_empty() {
            return;
        }
        let environment = environment(slot, rule.get("optionalOldSelf").is_true());
        let at = format!("{path}.rule");
        let program = match environment.compile(text("rule")) {
            Err(issues) => {
                let detail = format!("compilation failed: {}", mote_cel::print_issues(&issues));
                return self.causes.push(Cause::invalid(at, &shown(rule), &detail));
            }
            Ok(program) if !program.result_type().same(&Type::Bool) => {
                let detail = "cel expression must evaluate to a bool";
                return self.causes.push(Cause::invalid(at, &shown(rule), detail));
            }
            Ok(program) => program,
        };
        let cost = program.estimated_cost(&environment).max.saturating_mul(count);
        self.cost(at.clone(), cost, "estimated rule cost");
        let uses_old = program.uses("oldSelf");
        if !text("messageExpression").is_empty() {
            let at = format!("{path}.messageExpression");
            match environment.compile(text("messageExpression")) {
                Err(issues) => {
                    let detail = format!("messageExpression compilation failed: {}", mote_cel::print_issues(&issues));
                    self.causes.push(Cause::invalid(at, &shown(rule), &detail));
                }
                Ok(program) if !program.result_type().same(&Type::String) => {
                    let detail = "messageExpression must evaluate to a string";
                    self.causes.push(Cause::invalid(at, &shown(rule), detail));
                }
                Ok(program) => {
                    self.cost(at, program.estimated_cost(&environment).max, "estimated messageExpression cost");
                }
            }
        }
        let optional = rule.get("optionalOldSelf");
        match (uses_old, no_old) {
            (true, Some(list)) => {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                self.causes.push(Cause::invalid(at, &text("rule").into(), &detail));
            }
            (false, _) if optional.as_bool().is_some() => {
                let detail = "may not be set if oldSelf is not used in rule";
                self.causes.push(Cause::invalid(format!("{path}.optionalOldSelf"), &optional.to_value(), detail));
            }
            _ => {}
        }
    }

    fn cost(&mut self, at: String, cost: u64, what: &str) {
        if cost > EXPRESSION_LIMIT {
            self.causes.push(Cause::forbidden(&*at, &exceeds(what, cost, EXPRESSION_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_LIMIT / 100 {
            self.dearest.push((at, cost));
        }
    }

    fn sum_up(&mut self, path: &str) {
        if self.total <= TOTAL_LIMIT {
            return;
        }
        let mut dearest = std::mem::take(&mut self.dearest);
        mote_schema::Order::order_by_key(&mut *dearest, |(_, cost)| u64::MAX - *cost);
        for (at, _) in dearest.into_iter().take(4) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.causes.push(Cause::forbidden(at, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.causes.push(Cause::forbidden(path, &exceeds(what, self.total, TOTAL_LIMIT)));
    }
}

fn limit(schema: Schema<'_>, keyword: &str) -> Option<u64> {
    schema.place().get(keyword).as_i64().map(|most| u64::try_from(most).unwrap_or(0))
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as upstream prints its internal struct.
fn shown(rule: Ref<'_>) -> Value {
    let text = |name: &str| rule.get(name).str();
    json!({"Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
        "Reason": rule.get("reason").to_value(), "FieldPath": text("fieldPath"),
        "OptionalOldSelf": rule.get("optionalOldSelf").to_value()})
}

/// Defaults keep the rules, too.
fn defaults(schema: Schema<'_>, path: &str, is_root: bool, depth: usize, causes: &mut Vec<Cause>) {
    if depth > MAX_DEPTH {
        return;
    }
    if schema.default().exists()
        && let Some(node) = rules::compile(schema, is_root)
    {
        let (default, at) = (schema.default().to_value(), format!("{path}.default"));
        let before = causes.len();
        rules::ask(&node, schema, &default, Some(&default), &at, causes);
        if causes.len() == before {
            rules::ask(&node, schema, &default, None, &at, causes);
        }
    }
    if let Some(items) = schema.items() {
        defaults(items, &format!("{path}.items"), items.is_embedded(), depth + 1, causes);
    }
    for (name, property) in schema.properties() {
        let at = format!("{path}.properties[{name}]");
        defaults(property, &at, property.is_embedded(), depth + 1, causes);
    }
}
