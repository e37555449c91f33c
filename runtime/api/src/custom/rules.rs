//! Rules of schemas, `x-kubernetes-validations`: compiled from a schema when its version is first written to, and asked about
//! every object after all else is right with it (apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go).
//! What a rule may cost at most is found out when a definition is made: `rule_costs`.
use mote_cel::{Budget, Environment, ListKind, Program, RUNTIME_BUDGET, Slot, Type, Value as Cel, declare};
use mote_schema::Value;
use mote_schema::{
    Cause, Kind,
    status::go_quote,
    structural::{Additional, Schema, follow, old_element},
    table::ListType,
};
use std::any::Any;

/// Schemas inside schemas that are followed, as everywhere.
const MAX_DEPTH: usize = 128;
/// Of a message that an expression makes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The rules of one place in a schema, and of all places below.
pub(super) struct Node {
    rules: Vec<Rule>,
    slot: Slot,
    /// Of the schema: "object".
    type_name: Box<str>,
    properties: Vec<(Box<str>, Node)>,
    items: Option<Box<Node>>,
    additional: Option<Box<Node>>,
}

pub(super) struct Rule {
    /// Err: why it cannot be compiled.
    program: Result<Program, String>,
    message_program: Option<Program>,
    message_expression: Box<str>,
    uses_old: bool,
    old_is_optional: bool,
    text: Box<str>,
    message: Box<str>,
    reason: Box<str>,
    field_path: String,
}

/// What a rule can see.
pub(super) fn environment(slot: &Slot, old_is_optional: bool) -> Environment {
    let old = if old_is_optional { Type::optional(slot.ty.clone()).into() } else { slot.clone() };
    Environment::new().with("self", slot.clone()).with("oldSelf", old)
}

/// None when there are no rules at all.
pub(super) fn compile(schema: Schema<'_>, is_root: bool) -> Option<Node> {
    node(schema, None, is_root, 0)
}

/// `slot`: the type of this place, known from above.
fn node(schema: Schema<'_>, slot: Option<Slot>, is_root: bool, depth: usize) -> Option<Node> {
    if depth > MAX_DEPTH || !has_rules(schema, depth) {
        return None;
    }
    let slot = slot.or_else(|| declared(schema, is_root).map(|(slot, _)| slot))?;
    let inner = |schema: Schema<'_>, slot: Option<Slot>| node(schema, slot, schema.is_embedded(), depth + 1);
    let properties = schema.properties().filter_map(|(name, property)| {
        let slot = property_slot(&slot, name);
        Some((name.into(), inner(property, slot)?))
    });
    let properties = properties.collect();
    let items = schema.items().and_then(|items| inner(items, item_slot(&slot))).map(Box::new);
    let additional = match schema.additional() {
        Additional::Of(of) => inner(of, value_slot(&slot)).map(Box::new),
        _ => None,
    };
    let rules = schema.rules().map(|rule| compile_rule(schema, rule, &slot)).collect();
    Some(Node { rules, type_name: schema.type_name().into(), slot, properties, items, additional })
}

fn has_rules(schema: Schema<'_>, depth: usize) -> bool {
    depth <= MAX_DEPTH
        && (schema.has_rules()
            || schema.properties().any(|(_, property)| has_rules(property, depth + 1))
            || schema.items().is_some_and(|items| has_rules(items, depth + 1))
            || matches!(schema.additional(), Additional::Of(of) if has_rules(of, depth + 1)))
}

pub(super) fn property_slot(slot: &Slot, name: &str) -> Option<Slot> {
    match &slot.ty {
        Type::Object(object) => object.property(name).map(|field| field.slot),
        _ => None,
    }
}

pub(super) fn item_slot(slot: &Slot) -> Option<Slot> {
    match &slot.ty {
        Type::List(list) => Some(list.item.clone()),
        _ => None,
    }
}

pub(super) fn value_slot(slot: &Slot) -> Option<Slot> {
    match &slot.ty {
        Type::Map(map) => Some(map.value.clone()),
        _ => None,
    }
}

fn compile_rule(schema: Schema<'_>, rule: mote_schema::Ref<'_>, slot: &Slot) -> Rule {
    let text = |name: &str| rule.get(name).str();
    let old_is_optional = rule.get("optionalOldSelf").is_true();
    let environment = environment(slot, old_is_optional);
    let compile = |code: &str| {
        environment.compile(code).map_err(|issues| format!("compilation failed: {}", mote_cel::print_issues(&issues)))
    };
    let program = compile(text("rule"));
    let message_expression = text("messageExpression");
    let field_path = match text("fieldPath") {
        "" => String::new(),
        path => follow(path, schema, true).map(|(path, _)| path).unwrap_or_default(),
    };
    Rule {
        uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
        message_program: Some(message_expression).filter(|code| !code.is_empty()).and_then(|code| compile(code).ok()),
        message_expression: message_expression.into(),
        program,
        old_is_optional,
        text: text("rule").trim().into(),
        message: text("message").trim().into(),
        reason: text("reason").into(),
        field_path,
    }
}

impl Rule {
    fn shown(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }
}

/// How a value relates to the old object: what did not change is forgiven.
#[derive(Clone, Copy)]
struct Ratchet<'v> {
    /// The value and its old one.
    current: Option<(&'v Value, &'v Value)>,
    /// Those of the nearest place above that has an old one.
    parent: Option<(&'v Value, &'v Value)>,
}

impl<'v> Ratchet<'v> {
    fn forgives(self) -> bool {
        self.current.or(self.parent).is_some_and(|(new, old)| new == old)
    }
    fn below(self, next: Option<(&'v Value, &'v Value)>) -> Ratchet<'v> {
        match self.current {
            None => self,
            current => Ratchet { current: next, parent: current },
        }
    }
}

struct Run<'r> {
    budget: Budget,
    causes: &'r mut Vec<Cause>,
    warnings: &'r mut Vec<String>,
}

/// The budget is gone, or an answer cannot be trusted: no further rules.
struct Stop;

/// Asks all rules of a kind about an object. Nothing is asked about one that is wrong in ways rules must not meet.
pub(crate) fn check(
    kind: &Kind,
    new: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
    warnings: &mut Vec<String>,
) {
    let Some(custom) = &kind.custom else { return };
    let compiled = custom.compiled.rules.get_or_init(|| {
        let rules: Box<dyn Any + Send + Sync> = Box::new(compile(custom.schema(), true));
        rules
    });
    let Some(Some(node)) = compiled.downcast_ref::<Option<Node>>() else { return };
    const BLOCKING: [&str; 5] = [
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    ];
    if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        return causes.push(Cause::invalid("<nil>", &Value::Null, detail));
    }
    let mut run = Run { budget: Budget::new(RUNTIME_BUDGET), causes, warnings };
    let ratchet = Ratchet { current: old.map(|old| (new, old)), parent: None };
    // What stopped it has been told.
    let _: Result<(), Stop> = run.node(node, custom.schema(), new, old, ratchet, "");
}

/// Asks about a value that is nobody's object, and so has nothing to be forgiven.
pub(super) fn ask(
    node: &Node,
    schema: Schema<'_>,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let mut run = Run { budget: Budget::new(RUNTIME_BUDGET), causes, warnings: &mut Vec::new() };
    let _: Result<(), Stop> = run.node(node, schema, value, old, Ratchet { current: None, parent: None }, path);
}

impl Run<'_> {
    fn node(
        &mut self,
        node: &Node,
        schema: Schema<'_>,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &str,
    ) -> Result<(), Stop> {
        if value.is_null() {
            return Ok(());
        }
        self.rules(node, value, old.filter(|old| !old.is_null()), ratchet, path)?;
        match value {
            Value::Array(list) => {
                let (Some(items), Some(schema_of_items)) = (&node.items, schema.items()) else { return Ok(()) };
                let known = old_element(schema, old);
                let before = ratchet.current.map(|(_, old)| old_element(schema, Some(old)));
                for (at, value) in list.iter().enumerate() {
                    let next = before.as_ref().and_then(|known| Some((value, known.get(schema, value)?)));
                    let old = known.get(schema, value);
                    let path = format!("{path}[{at}]");
                    self.node(items, schema_of_items, value, old, ratchet.below(next), &path)?;
                }
            }
            Value::Object(map) => {
                let was = |name: &str| old.and_then(|old| old.get(name));
                let next = |name: &str, value| {
                    let (_, old) = ratchet.current?;
                    Some((value, old.get(name)?))
                };
                if let (Some(additional), Additional::Of(of)) = (&node.additional, schema.additional()) {
                    for (name, value) in map {
                        let path = format!("{path}[{name}]");
                        let ratchet = ratchet.below(next(name, value));
                        self.node(additional, of, value, was(name), ratchet, &path)?;
                    }
                }
                for (name, property) in &node.properties {
                    let (Some(value), Some(schema)) = (map.get(name), schema.property(name)) else { continue };
                    let is_version = path.is_empty() && matches!(&**name, "apiVersion" | "kind");
                    let ratchet = match is_version {
                        true => Ratchet { current: None, parent: None },
                        false => ratchet.below(next(name, value)),
                    };
                    let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    self.node(property, schema, value, was(name), ratchet, &path)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: &str,
    ) -> Result<(), Stop> {
        let field = if path.is_empty() { "<nil>" } else { path };
        let type_name = Value::from(&*node.type_name);
        for rule in &node.rules {
            let program = match &rule.program {
                Ok(program) => program,
                Err(error) => {
                    self.invalid(field, &type_name, &format!("rule compile error: {error}"));
                    continue;
                }
            };
            // A rule about a transition is asked only where there is one.
            if rule.uses_old && old.is_none() && !rule.old_is_optional {
                continue;
            }
            let variables = Both { node, value, old, old_is_optional: rule.old_is_optional };
            let answer = program.evaluate(&variables, &mut self.budget);
            if self.budget.is_exceeded() {
                let detail =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                self.invalid(field, &type_name, detail);
                return Err(Stop);
            }
            match answer {
                Ok(answer) if answer.as_bool() == Some(true) => continue,
                Ok(_) => {}
                Err(error) if error.is_budget() => {
                    let detail = format!(
                        "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.shown()
                    );
                    self.invalid(field, &type_name, &detail);
                    return Err(Stop);
                }
                Err(error) => {
                    let text = error.to_string();
                    let shown = rule.shown();
                    let detail = match text.starts_with("no such overload") {
                        true => format!(
                            "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                        ),
                        false => format!("{text} evaluating rule: {shown}"),
                    };
                    self.invalid(field, &type_name, &detail);
                    continue;
                }
            }
            let at = match (rule.field_path.as_str(), path) {
                ("", _) => field.to_owned(),
                (inner, "") => inner.to_owned(),
                (inner, path) => format!("{path}.{inner}"),
            };
            let forgiven = !rule.uses_old && ratchet.forgives();
            let detail = match self.message(rule, &variables) {
                Ok(Some(message)) => message,
                Ok(None) if rule.message.is_empty() => format!("failed rule: {}", rule.text),
                Ok(None) => rule.message.to_string(),
                Err(why) => {
                    self.tell(Cause::invalid(at, &type_name, &why), forgiven);
                    return Err(Stop);
                }
            };
            let shown = (!matches!(&*node.type_name, "object" | "array")).then_some(value);
            self.tell(cause(&rule.reason, at, shown, &detail), forgiven);
        }
        Ok(())
    }

    fn invalid(&mut self, field: &str, value: &Value, detail: &str) {
        self.causes.push(Cause::invalid(field, value, detail));
    }

    fn tell(&mut self, cause: Cause, forgiven: bool) {
        match forgiven {
            true => self.warnings.push(format!("{}: {}", cause.field, cause.message)),
            false => self.causes.push(cause),
        }
    }

    /// None: the rule's own message is used. Err: nothing more may be evaluated.
    fn message(&mut self, rule: &Rule, variables: &Both<'_>) -> Result<Option<String>, String> {
        let Some(program) = &rule.message_program else { return Ok(None) };
        let answer = program.evaluate(variables, &mut self.budget);
        if self.budget.is_exceeded() {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".into());
        }
        let text = match answer {
            Ok(answer) => answer.as_str().map(|text| text.trim().to_owned()),
            Err(error) if error.is_budget() => {
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                    go_quote(&rule.message_expression)
                ));
            }
            Err(_) => None,
        };
        Ok(text.filter(|text| !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')))
    }
}

/// fieldErrorForReason; lists and objects are not shown.
fn cause(reason: &str, field: String, shown: Option<&Value>, detail: &str) -> Cause {
    let (reason, what) = match reason {
        "FieldValueForbidden" => return Cause::forbidden(field, detail),
        "FieldValueRequired" => return Cause::required(field, detail),
        "FieldValueDuplicate" => ("FieldValueDuplicate", "Duplicate value"),
        _ => ("FieldValueInvalid", "Invalid value"),
    };
    match (shown, reason) {
        (Some(value), "FieldValueDuplicate") => Cause::duplicate(field, value),
        (Some(value), _) => Cause::invalid(field, value, detail),
        (None, "FieldValueDuplicate") => Cause { reason, message: what.into(), field },
        (None, _) => Cause { reason, message: format!("{what}: {detail}"), field },
    }
}

/// `self` and `oldSelf`.
struct Both<'v> {
    node: &'v Node,
    value: &'v Value,
    old: Option<&'v Value>,
    old_is_optional: bool,
}

impl<'v> mote_cel::Variables<'v> for Both<'v> {
    fn get(&self, name: &str) -> Option<Result<Cel<'v>, mote_cel::Error>> {
        let read = |value: &'v Value| Cel::from_json(value, &self.node.slot.ty);
        match (name, self.old) {
            ("self", _) => Some(read(self.value)),
            ("oldSelf", Some(old)) if self.old_is_optional => Some(read(old).map(Cel::some)),
            ("oldSelf", None) if self.old_is_optional => Some(Ok(Cel::Optional(None))),
            ("oldSelf", Some(old)) => Some(read(old)),
            _ => None,
        }
    }
}

/// A schema's type, and how often a value of it fits into a request.
pub(super) fn declared(schema: Schema<'_>, is_root: bool) -> Option<(Slot, u64)> {
    declare(&Declared::of(schema, 0), "self", is_root)
}

/// A schema in the form that CEL reads it.
struct Declared<'a> {
    schema: Schema<'a>,
    items: Option<Box<Declared<'a>>>,
    additional: Option<Box<Declared<'a>>>,
    properties: Vec<(&'a str, Declared<'a>)>,
    values: Vec<Value>,
}

impl<'a> Declared<'a> {
    fn of(schema: Schema<'a>, depth: usize) -> Declared<'a> {
        let inner = |schema| Declared::of(schema, depth + 1);
        let follow = depth < MAX_DEPTH;
        Declared {
            items: schema.items().filter(|_| follow).map(|items| Box::new(inner(items))),
            additional: match schema.additional() {
                Additional::Of(of) if follow => Some(Box::new(inner(of))),
                _ => None,
            },
            properties: schema.properties().filter(|_| follow).map(|(name, p)| (name, inner(p))).collect(),
            values: schema.place().get("enum").items().map(|value| value.to_value()).collect(),
            schema,
        }
    }
    fn number(&self, keyword: &str) -> Option<i64> {
        self.schema.place().get(keyword).as_i64()
    }
}

impl mote_cel::Schema for Declared<'_> {
    fn kind(&self) -> &str {
        self.schema.type_name()
    }
    fn format(&self) -> &str {
        self.schema.place().get("format").str()
    }
    fn items(&self) -> Option<&dyn mote_cel::Schema> {
        self.items.as_deref().map(|items| items as &dyn mote_cel::Schema)
    }
    fn additional_properties(&self) -> Option<&dyn mote_cel::Schema> {
        self.additional.as_deref().map(|of| of as &dyn mote_cel::Schema)
    }
    fn properties(&self) -> Vec<(&str, &dyn mote_cel::Schema)> {
        self.properties.iter().map(|(name, property)| (*name, property as &dyn mote_cel::Schema)).collect()
    }
    fn is_required(&self, property: &str) -> bool {
        self.schema.place().get("required").items().any(|name| name.str() == property)
    }
    fn has_default(&self) -> bool {
        self.schema.default().exists()
    }
    fn values(&self) -> &[Value] {
        &self.values
    }
    fn max_items(&self) -> Option<i64> {
        self.number("maxItems")
    }
    fn max_properties(&self) -> Option<i64> {
        self.number("maxProperties")
    }
    fn max_length(&self) -> Option<i64> {
        self.number("maxLength")
    }
    fn is_int_or_string(&self) -> bool {
        self.schema.is_int_or_string()
    }
    fn is_embedded_resource(&self) -> bool {
        self.schema.is_embedded()
    }
    fn list_kind(&self) -> ListKind {
        match self.schema.list_type() {
            Some(ListType::Map) => ListKind::Map(self.schema.list_keys().map(Into::into).collect()),
            Some(ListType::Set) => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }
}
