//! Evaluation: a walk over the checked nodes. Costs are taken where cel-go takes them (interpreter/runtimecost.go over
//! what its planner makes of an expression): an attribute such as `a.b[c].d` costs one and one for each step; its index,
//! and a branch of `?:`, cost nothing for being attributes themselves; constants cost nothing.
use crate::{
    Error,
    ast::{ACCU, Ast, Expr, Fold, Id, Literal},
    budget::Budget,
    charge,
    check::Callee,
    environment::{Program, Variables},
    ops,
    regex::Regexes,
    types::Type,
    value::{Built, Key, Text, Value},
};
use std::rc::Rc;

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const OBJECT_COST: u64 = 40;

pub fn evaluate<'a>(
    program: &'a Program,
    variables: &dyn Variables<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Error> {
    let outer = budget.begin();
    let mut evaluator = Evaluator { program, variables, budget, locals: Vec::new(), regexes: Regexes::default() };
    let result = evaluator.eval(program.ast.root);
    budget.end(outer);
    result
}

/// The names an expression reads that it does not bind itself.
pub fn variables_used(ast: &Ast) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    for id in 0..ast.len() as Id {
        if let Expr::Ident(name) = ast.get(id)
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}

/// Which nodes are made of literals alone, as cel-go's planner computes them once.
pub fn constants(ast: &Ast) -> Vec<bool> {
    const CONVERSIONS: [&str; 10] =
        ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];
    let mut constant = vec![false; ast.len()];
    // Children come before their parents.
    for id in 0..ast.len() as Id {
        let is = |id: &Id| constant.get(*id as usize).copied().unwrap_or(false);
        let value = match ast.get(id) {
            Expr::Literal(_) => true,
            Expr::List(items) => items.iter().all(|(item, _)| is(item)),
            Expr::Map(entries) => entries.iter().all(|(key, value, _)| is(key) && is(value)),
            Expr::Call { function, target: None, args } => CONVERSIONS.contains(&&**function) && args.iter().all(is),
            _ => false,
        };
        if let Some(slot) = constant.get_mut(id as usize) {
            *slot = value;
        }
    }
    constant
}

struct Evaluator<'e, 'a> {
    program: &'a Program,
    variables: &'e dyn Variables<'a>,
    budget: &'e mut Budget,
    locals: Vec<(&'a str, Value<'a>)>,
    regexes: Regexes,
}

type Outcome<'a> = Result<Value<'a>, Error>;

impl<'a> Evaluator<'_, 'a> {
    fn expr(&self, id: Id) -> &'a Expr {
        self.program.ast.get(id)
    }

    fn is_attribute(&self, id: Id) -> bool {
        match self.expr(id) {
            Expr::Ident(name) => !self.is_type_name(name),
            Expr::Select { test, .. } => !test,
            Expr::Call { function, .. } => matches!(&**function, "_[_]" | "_[?_]" | "_?._" | "_?_:_"),
            _ => false,
        }
    }

    fn is_type_name(&self, name: &str) -> bool {
        ops::named_type(name).is_some()
            && self.locals.iter().all(|(known, _)| *known != name)
            && self.variables.get(name).is_none()
    }

    fn eval(&mut self, id: Id) -> Outcome<'a> {
        self.budget.enter()?;
        let value = self.node(id);
        self.budget.leave();
        value
    }

    fn node(&mut self, id: Id) -> Outcome<'a> {
        match self.expr(id) {
            Expr::Literal(literal) => Ok(self.literal(literal)),
            Expr::Ident(name) => {
                if self.is_type_name(name) {
                    return Ok(Value::Type(ops::named_type(name).unwrap_or(Type::Dyn)));
                }
                self.budget.charge(1)?;
                self.lookup(name)
            }
            Expr::Select { operand, field, test: true } => self.test(*operand, field),
            Expr::Call { function, .. } if &**function == "_?_:_" => self.resolve(id),
            Expr::Select { .. } => self.attribute(id),
            Expr::Call { function, target, args } => match (&**function, &**args) {
                ("_[_]" | "_[?_]" | "_?._", _) => self.attribute(id),
                ("_&&_", [a, b]) => self.logical(*a, *b, false),
                ("_||_", [a, b]) => self.logical(*a, *b, true),
                ("@not_strictly_false", [arg]) => self.not_strictly_false(*arg),
                ("or" | "orValue", [other]) => self.or(function, *target, *other),
                _ => self.call(id, *target, args),
            },
            Expr::List(items) => self.list(id, items),
            Expr::Map(entries) => self.map(id, entries),
            Expr::Object { name: _, fields } => self.object(id, fields),
            Expr::Fold(fold) => self.fold(fold),
        }
    }

    fn literal(&self, literal: &'a Literal) -> Value<'a> {
        match literal {
            Literal::Null => Value::Null,
            Literal::Bool(b) => Value::Bool(*b),
            Literal::Int(int) => Value::Int(*int),
            Literal::Uint(uint) => Value::Uint(*uint),
            Literal::Double(double) => Value::Double(*double),
            Literal::String(text) => Value::String(Text::Borrowed(text)),
            Literal::Bytes(bytes) => Value::Bytes((**bytes).into()),
        }
    }

    fn lookup(&mut self, name: &'a str) -> Outcome<'a> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match self.variables.get(name) {
            Some(value) => value,
            None => Err(Error::new(format!("no such attribute(s): {name}"))),
        }
    }

    /// An attribute for its own sake: one more than its steps, also when it fails.
    fn attribute(&mut self, id: Id) -> Outcome<'a> {
        let value = self.resolve(id);
        self.budget.charge(u64::from(!self.starts_with_condition(id)))?;
        value
    }

    /// `(c ? a : b).d` is paid for as the branch that is taken, and an optional that was none as far as it went.
    fn starts_with_condition(&self, id: Id) -> bool {
        match self.expr(id) {
            Expr::Select { operand, test: false, .. } => self.starts_with_condition(*operand),
            Expr::Call { function, args, .. } => match (&**function, args.first()) {
                ("_?_:_", _) => true,
                ("_[_]" | "_[?_]" | "_?._", Some(operand)) => self.starts_with_condition(*operand),
                _ => false,
            },
            _ => false,
        }
    }

    fn operand(&mut self, id: Id) -> Outcome<'a> {
        if self.is_attribute(id) { self.resolve(id) } else { self.eval(id) }
    }

    /// The value of an attribute, paying for its steps only.
    fn resolve(&mut self, id: Id) -> Outcome<'a> {
        match self.expr(id) {
            Expr::Ident(name) => self.lookup(name),
            Expr::Select { operand, field, .. } => {
                let operand = self.operand(*operand)?;
                if matches!(operand, Value::Optional(None)) {
                    return Ok(operand);
                }
                self.budget.charge(1)?;
                self.select(&operand, field)
            }
            Expr::Call { function, args, .. } => match (&**function, &**args) {
                ("_?_:_", [test, yes, no]) => match self.eval(*test)? {
                    Value::Bool(true) => self.operand(*yes),
                    Value::Bool(false) => self.operand(*no),
                    _ => Err(Error::no_overload()),
                },
                ("_?._", [operand, field]) => {
                    let operand = self.operand(*operand)?;
                    let Expr::Literal(Literal::String(field)) = self.expr(*field) else {
                        return Err(Error::no_overload());
                    };
                    let found = match self.present(&operand, field)? {
                        Some(found) => Value::some(found),
                        None => return Ok(Value::Optional(None)),
                    };
                    self.budget.charge(1)?;
                    Ok(found)
                }
                ("_[_]", [operand, index]) => {
                    let operand = self.operand(*operand)?;
                    let index = self.operand(*index)?;
                    self.budget.charge(1)?;
                    self.index(&operand, &index)
                }
                ("_[?_]", [operand, index]) => {
                    let operand = self.operand(*operand)?;
                    let index = self.operand(*index)?;
                    let operand = match operand {
                        Value::Optional(None) => return Ok(Value::Optional(None)),
                        Value::Optional(Some(inner)) => (*inner).clone(),
                        other => other,
                    };
                    let found = match self.find(&operand, &index)? {
                        Some(found) => Value::some(found),
                        None => return Ok(Value::Optional(None)),
                    };
                    self.budget.charge(1)?;
                    Ok(found)
                }
                _ => self.node(id),
            },
            _ => self.node(id),
        }
    }

    /// The field if it is there; of an optional, of what it holds.
    fn present(&mut self, operand: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, Error> {
        match operand {
            Value::Optional(None) => Ok(None),
            Value::Optional(Some(inner)) => inner.field(field, self.budget),
            other => other.field(field, self.budget),
        }
    }

    fn select(&mut self, operand: &Value<'a>, field: &str) -> Outcome<'a> {
        if let Value::Optional(_) = operand {
            let found = self.present(operand, field)?;
            return Ok(found.map_or(Value::Optional(None), Value::some));
        }
        match operand.field(field, self.budget)? {
            Some(value) => Ok(value),
            None => Err(Error::new(format!("no such key: {field}"))),
        }
    }

    fn test(&mut self, operand: Id, field: &str) -> Outcome<'a> {
        let operand = self.operand(operand)?;
        self.budget.charge(1)?;
        Ok(Value::Bool(self.present(&operand, field)?.is_some()))
    }

    /// An item or entry; None when there is none such.
    fn find(&mut self, operand: &Value<'a>, index: &Value<'a>) -> Result<Option<Value<'a>>, Error> {
        if operand.list_len().is_some() {
            let at = match index {
                Value::Int(at) => usize::try_from(*at).ok(),
                Value::Uint(at) => usize::try_from(*at).ok(),
                Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
                other => {
                    let message = format!("unsupported index type '{}' in list", other.type_of());
                    return Err(Error::new(message));
                }
            };
            return at.and_then(|at| operand.list_get(at)).transpose();
        }
        match operand.map_get(index) {
            Some(found) => found.transpose(),
            None => match (operand, index) {
                (Value::Json(..) | Value::Object(_) | Value::Lazy(_), Value::String(name)) => {
                    operand.field(name, self.budget)
                }
                _ => Ok(None),
            },
        }
    }

    fn index(&mut self, operand: &Value<'a>, index: &Value<'a>) -> Outcome<'a> {
        if let Value::Optional(inner) = operand {
            let Some(inner) = inner else { return Ok(Value::Optional(None)) };
            return Ok(self.find(inner, index)?.map_or(Value::Optional(None), Value::some));
        }
        match self.find(operand, index)? {
            Some(value) => Ok(value),
            None if operand.list_len().is_some() => {
                Err(Error::new(format!("index out of bounds: {}", ops::show(index))))
            }
            None => Err(Error::new(format!("no such key: {}", ops::show(index)))),
        }
    }

    /// `&&` (or `||`): one side that decides is enough, whatever the other one is.
    fn logical(&mut self, a: Id, b: Id, decides: bool) -> Outcome<'a> {
        let mut failed = None;
        for id in [a, b] {
            match self.eval(id) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Error::no_overload())),
                Err(Error::Budget) => return Err(Error::Budget),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn not_strictly_false(&mut self, arg: Id) -> Outcome<'a> {
        let value = self.eval(arg);
        self.budget.charge(1)?;
        match value {
            Err(Error::Budget) => Err(Error::Budget),
            Ok(Value::Bool(value)) => Ok(Value::Bool(value)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn or(&mut self, function: &str, target: Option<Id>, other: Id) -> Outcome<'a> {
        let Some(target) = target else { return Err(Error::no_overload()) };
        match self.eval(target)? {
            Value::Optional(None) => self.eval(other),
            value @ Value::Optional(_) if function == "or" => Ok(value),
            Value::Optional(Some(value)) => Ok((*value).clone()),
            _ => Err(Error::no_overload()),
        }
    }

    fn call(&mut self, id: Id, target: Option<Id>, args: &'a [Id]) -> Outcome<'a> {
        let Some(callee) = self.program.checked.call(id) else { return Err(Error::no_overload()) };
        let Some(function) = ops::all().get(usize::from(callee.function)) else { return Err(Error::no_overload()) };
        let count = args.len() + usize::from(target.is_some());
        let mut values = Vec::with_capacity(count);
        let mut failed = None;
        for arg in target.iter().chain(args) {
            match self.eval(*arg) {
                Ok(value) => values.push(value),
                // One or two arguments are all looked at, and paid for, before the error counts.
                Err(Error::Failed(message)) if count <= 2 => {
                    failed.get_or_insert(Error::Failed(message));
                    values.push(Value::Null);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            self.budget.charge(charge::actual(function.name, callee, &values, None))?;
            return Err(error);
        }
        let mut context = ops::Context { budget: self.budget, regexes: &mut self.regexes };
        let result = (function.run)(&mut context, &values);
        if matches!(result, Err(Error::Budget)) {
            return result;
        }
        let cost = if self.is_free(id, function.name, callee, args) {
            0
        } else {
            charge::actual(function.name, callee, &values, result.as_ref().ok())
        };
        self.budget.charge(cost)?;
        result
    }

    /// What cel-go computes when planning, or looks up in a set it made then.
    fn is_free(&self, id: Id, name: &str, callee: &Callee, args: &[Id]) -> bool {
        if self.program.is_constant(id) {
            return true;
        }
        let (&[_, list], "@in", 1) = (args, name, callee.overloads.len()) else { return false };
        let Expr::List(items) = self.expr(list) else { return false };
        items.iter().all(|(item, _)| {
            self.program.is_constant(*item)
                && match self.program.checked.ty(*item) {
                    Type::Bool | Type::Int | Type::Uint | Type::Double | Type::String => true,
                    // `dyn(1)`
                    _ => matches!(self.expr(*item), Expr::Call { .. }),
                }
        })
    }

    fn list(&mut self, id: Id, items: &'a [(Id, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(*item)?, optional) {
                (Value::Optional(inner), true) => values.extend(inner.map(|inner| (*inner).clone())),
                (value, _) => values.push(value),
            }
        }
        if !self.program.is_constant(id) {
            self.budget.charge(LIST_COST)?;
        }
        Ok(Value::list(values))
    }

    fn map(&mut self, id: Id, entries: &'a [(Id, Id, bool)]) -> Outcome<'a> {
        let mut map: Vec<(Key<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(*key)?;
            let value = match (self.eval(*value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            let Some(key) = Key::of(&key) else {
                return Err(Error::new(format!("unsupported key type: {}", key.type_of())));
            };
            match map.binary_search_by(|(known, _)| known.cmp(&key)) {
                Ok(at) => map[at].1 = value,
                Err(at) => map.insert(at, (key, value)),
            }
        }
        if !self.program.is_constant(id) {
            self.budget.charge(MAP_COST)?;
        }
        Ok(Value::Map(Rc::new(map)))
    }

    fn object(&mut self, id: Id, fields: &'a [(Box<str>, Id, bool)]) -> Outcome<'a> {
        let Type::Object(ty) = self.program.checked.ty(id) else { return Err(Error::no_overload()) };
        let mut built = Built { ty: ty.clone(), fields: Vec::with_capacity(fields.len()) };
        for (name, value, optional) in fields {
            let value = match (self.eval(*value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            let Some(field) = ty.field(name) else { return Err(Error::new(format!("no such field: {name}"))) };
            built.fields.push((field.property, value));
        }
        self.budget.charge(OBJECT_COST)?;
        Ok(Value::Object(Rc::new(built)))
    }

    fn fold(&mut self, fold: &'a Fold) -> Outcome<'a> {
        let depth = self.locals.len();
        let result = self.fold_in_scope(fold, depth);
        self.locals.truncate(depth);
        result
    }

    fn fold_in_scope(&mut self, fold: &'a Fold, depth: usize) -> Outcome<'a> {
        let range = self.eval(fold.range)?;
        let init = self.eval(fold.init)?;
        self.locals.push((&fold.accu, init));
        let keys = range.keys();
        let Some(length) = range.list_len().or(keys.as_ref().map(Vec::len)) else {
            return Err(Error::no_overload());
        };
        for at in 0..length {
            self.budget.work(1)?;
            let (first, second) = match &keys {
                Some(keys) => {
                    let Some(key) = keys.get(at) else { break };
                    let value = match &fold.var2 {
                        Some(_) => range.map_get(key).flatten().transpose()?,
                        None => None,
                    };
                    (key.clone(), value)
                }
                None => {
                    let Some(item) = range.list_get(at).transpose()? else { break };
                    match &fold.var2 {
                        Some(_) => (Value::Int(at as i64), Some(item)),
                        None => (item, None),
                    }
                }
            };
            self.locals.push((&fold.var, first));
            if let (Some(var2), Some(second)) = (&fold.var2, second) {
                self.locals.push((var2, second));
            }
            match self.eval(fold.condition)? {
                Value::Bool(false) => break,
                Value::Bool(true) => {}
                _ => return Err(Error::no_overload()),
            }
            // An error in a quantifier may still be outweighed by a later element.
            let next = self.step(fold.step, depth);
            self.locals.truncate(depth + 1);
            match next {
                Ok(Some(next)) => self.set_accu(depth, next),
                Ok(None) => {}
                Err(Error::Failed(message)) if self.is_quantifier(fold) => {
                    return self.quantify_after_error(
                        fold,
                        depth,
                        at + 1,
                        &range,
                        keys.as_deref(),
                        Error::Failed(message),
                    );
                }
                Err(Error::Failed(message)) => {
                    self.budget.charge(1)?;
                    return Err(Error::Failed(message));
                }
                Err(error) => return Err(error),
            }
        }
        self.locals.truncate(depth + 1);
        self.eval(fold.result)
    }

    fn set_accu(&mut self, depth: usize, value: Value<'a>) {
        if let Some((_, accu)) = self.locals.get_mut(depth) {
            *accu = value;
        }
    }

    /// One step of a loop. None: the accumulator was changed in place, as it is for the steps that macros make of
    /// `map` and its like; a copy for every element would make them quadratic.
    fn step(&mut self, step: Id, depth: usize) -> Result<Option<Value<'a>>, Error> {
        let is_accu = |evaluator: &Self, id: Id| matches!(evaluator.expr(id), Expr::Ident(name) if &**name == ACCU);
        if let Expr::Call { function, args, .. } = self.expr(step) {
            match (&**function, &**args) {
                ("_?_:_", [test, yes, no]) if is_accu(self, *no) => {
                    return match self.eval(*test)? {
                        Value::Bool(true) => self.step(*yes, depth),
                        Value::Bool(false) => Ok(None),
                        _ => Err(Error::no_overload()),
                    };
                }
                ("_+_", [accu, items]) if is_accu(self, *accu) => {
                    if let Expr::List(items) = self.expr(*items) {
                        self.budget.charge(1)?;
                        let mut values = Vec::with_capacity(items.len());
                        for (item, _) in items {
                            values.push(self.eval(*item)?);
                        }
                        self.budget.charge(if items.iter().all(|(item, _)| self.program.is_constant(*item)) {
                            1
                        } else {
                            LIST_COST + 1
                        })?;
                        if let Some((_, Value::List(list))) = self.locals.get_mut(depth) {
                            Rc::make_mut(list).extend(values);
                            return Ok(None);
                        }
                        return Err(Error::no_overload());
                    }
                }
                ("cel.@mapInsert", [accu, key, value]) if is_accu(self, *accu) => {
                    self.budget.charge(1)?;
                    let (key, value) = (self.eval(*key)?, self.eval(*value)?);
                    self.budget.charge(1)?;
                    return self.insert(depth, vec![(key, value)]);
                }
                ("cel.@mapInsert", [accu, entries]) if is_accu(self, *accu) => {
                    self.budget.charge(1)?;
                    let entries = self.eval(*entries)?;
                    self.budget.charge(1)?;
                    let mut new = Vec::new();
                    for key in entries.keys().ok_or_else(Error::no_overload)? {
                        if let Some(Some(value)) = entries.map_get(&key) {
                            new.push((key, value?));
                        }
                    }
                    return self.insert(depth, new);
                }
                _ => {}
            }
        }
        self.eval(step).map(Some)
    }

    fn insert(&mut self, depth: usize, new: Vec<(Value<'a>, Value<'a>)>) -> Result<Option<Value<'a>>, Error> {
        let mut context = ops::Context { budget: self.budget, regexes: &mut self.regexes };
        let Some((_, Value::Map(map))) = self.locals.get_mut(depth) else { return Err(Error::no_overload()) };
        for (key, value) in new {
            ops::insert(&mut context, map, &key, value)?;
        }
        Ok(None)
    }

    /// `all` or `exists`.
    fn is_quantifier(&self, fold: &Fold) -> bool {
        matches!(self.expr(fold.step), Expr::Call { function, .. } if matches!(&**function, "_&&_" | "_||_"))
    }

    /// The rest of an `all` or `exists` of which an element failed: only one that decides is of use.
    fn quantify_after_error(
        &mut self,
        fold: &'a Fold,
        depth: usize,
        from: usize,
        range: &Value<'a>,
        keys: Option<&[Value<'a>]>,
        error: Error,
    ) -> Outcome<'a> {
        let Expr::Call { function, args, .. } = self.expr(fold.step) else { return Err(error) };
        let [_, test] = &**args else { return Err(error) };
        let decides = &**function == "_||_";
        let length = keys.map_or_else(|| range.list_len().unwrap_or(0), <[Value<'a>]>::len);
        for at in from..length {
            self.budget.work(1)?;
            // The condition and the accumulator are paid for all the same.
            self.budget.charge(if decides { 4 } else { 3 })?;
            let (first, second) = match keys {
                Some(keys) => {
                    let Some(key) = keys.get(at) else { break };
                    (key.clone(), range.map_get(key).flatten().transpose()?)
                }
                None => {
                    let Some(item) = range.list_get(at).transpose()? else { break };
                    if fold.var2.is_some() { (Value::Int(at as i64), Some(item)) } else { (item, None) }
                }
            };
            self.locals.push((&fold.var, first));
            if let (Some(var2), Some(second)) = (&fold.var2, second) {
                self.locals.push((var2, second));
            }
            let found = self.eval(*test);
            self.locals.truncate(depth + 1);
            match found {
                Ok(Value::Bool(value)) if value == decides => {
                    // The result, and the condition that ends the loop.
                    let condition = if decides { 3 } else { 2 };
                    self.budget.charge(if at + 1 < length { 1 + condition } else { 1 })?;
                    return Ok(Value::Bool(decides));
                }
                Err(Error::Budget) => return Err(Error::Budget),
                _ => {}
            }
        }
        self.budget.charge(1)?;
        Err(error)
    }
}
