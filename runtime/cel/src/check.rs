//! Types of all nodes, and which functions the calls mean: cel-go's checker/checker.go.
use crate::{
    Issue,
    ast::{Ast, Expr, Fold, Id, Literal},
    environment::Environment,
    ops::{self, Overload},
    regex::Regex,
    time,
    types::{Bindings, Type, most_general, substitute},
};
use mote_schema::Order as _;

/// What a checked call may mean.
#[derive(Debug, Clone)]
pub struct Callee {
    /// In `ops::all()`.
    pub function: u16,
    /// Of the function; more than one when an argument's type is only known when evaluating.
    pub overloads: Box<[u8]>,
}

impl Callee {
    pub fn overloads(&self) -> impl Iterator<Item = &'static Overload> + '_ {
        let all = ops::all().get(usize::from(self.function)).map_or(&[][..], |function| &function.overloads[..]);
        self.overloads.iter().filter_map(|at| all.get(usize::from(*at)))
    }
}

#[derive(Debug, Default)]
pub struct Checked {
    /// By node.
    pub types: Vec<Type>,
    /// By node.
    pub calls: Vec<Option<Callee>>,
}

impl Checked {
    pub fn ty(&self, id: Id) -> &Type {
        self.types.get(id as usize).unwrap_or(&Type::Dyn)
    }
    pub fn call(&self, id: Id) -> Option<&Callee> {
        self.calls.get(id as usize)?.as_ref()
    }
}

/// Names that turn out to be qualified are put together in the nodes.
pub fn check(source: &str, ast: &mut Ast, environment: &Environment) -> Result<Checked, Vec<Issue>> {
    let nodes = ast.len();
    let mut checker = Checker {
        source,
        ast,
        environment,
        scopes: Vec::new(),
        bindings: Bindings::default(),
        types: vec![Type::Dyn; nodes],
        calls: vec![None; nodes],
        issues: Vec::new(),
    };
    let root = checker.ast.root;
    checker.check(root);
    let Checker { bindings, types, calls, mut issues, ast, .. } = checker;
    let types = types.iter().map(|ty| bindings.resolve(ty, true)).collect();
    let checked = Checked { types, calls };
    if issues.is_empty() {
        literals(&Literals { source, ast, checked: &checked }, ast.root, false, &mut issues);
    }
    if issues.is_empty() {
        return Ok(checked);
    }
    issues.order_by_key(|issue| (issue.line, issue.column));
    issues.dedup();
    Err(issues)
}

struct Checker<'c> {
    source: &'c str,
    ast: &'c mut Ast,
    environment: &'c Environment,
    scopes: Vec<(Box<str>, Type)>,
    bindings: Bindings,
    types: Vec<Type>,
    calls: Vec<Option<Callee>>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn complain(&mut self, id: Id, message: String) {
        self.issues.push(Issue::new(self.source, self.ast.at(id), message));
    }
    fn set(&mut self, id: Id, ty: Type) {
        if let Some(slot) = self.types.get_mut(id as usize) {
            *slot = ty;
        }
    }
    fn get(&self, id: Id) -> Type {
        self.types.get(id as usize).cloned().unwrap_or(Type::Dyn)
    }
    fn undeclared(&mut self, id: Id, name: &str) {
        self.complain(id, format!("undeclared reference to '{name}' (in container '')"));
        self.set(id, Type::Error);
    }
    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.complain(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let local = self.scopes.iter().rev().find(|(known, _)| **known == *name).map(|(_, ty)| ty.clone());
        local.or_else(|| self.environment.lookup(name))
    }

    fn check(&mut self, id: Id) {
        match self.ast.get(id).clone() {
            Expr::Literal(literal) => self.set(
                id,
                match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::String(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                },
            ),
            Expr::Ident(name) => match self.lookup(&name) {
                Some(ty) => self.set(id, ty),
                None => self.undeclared(id, name.strip_prefix('.').unwrap_or(&name)),
            },
            Expr::Select { operand, field, test } => self.check_select(id, operand, &field, test),
            Expr::Call { function, target, args } => self.check_call(id, &function, target, &args),
            Expr::List(items) => {
                let mut item_type = None;
                for (item, optional) in items.iter() {
                    self.check(*item);
                    let ty = self.element(*item, *optional);
                    item_type = Some(self.join(item_type, ty));
                }
                let item_type = item_type.unwrap_or_else(|| self.bindings.fresh());
                self.set(id, Type::list(item_type));
            }
            Expr::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value, optional) in entries.iter() {
                    self.check(*key);
                    let ty = self.get(*key);
                    keys = Some(self.join(keys, ty));
                    self.check(*value);
                    let ty = self.element(*value, *optional);
                    values = Some(self.join(values, ty));
                }
                let key = keys.unwrap_or_else(|| self.bindings.fresh());
                let value = values.unwrap_or_else(|| self.bindings.fresh());
                self.set(id, Type::map(key, value));
            }
            Expr::Object { name, fields } => self.check_object(id, &name, &fields),
            Expr::Fold(fold) => self.check_fold(id, &fold),
        }
    }

    /// The type of an element, which may be written `?x`.
    fn element(&mut self, id: Id, optional: bool) -> Type {
        let ty = self.get(id);
        if !optional {
            return ty;
        }
        match ty.unwrap_optional() {
            (inner, true) => inner.clone(),
            (Type::Dyn, false) => ty,
            (other, false) => {
                self.mismatch(id, &Type::optional(other.clone()), other);
                ty
            }
        }
    }

    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        if self.bindings.assignable(&before, &now) {
            return most_general(&before, &now).clone();
        }
        Type::Dyn
    }

    fn check_select(&mut self, id: Id, operand: Id, field: &str, test: bool) {
        if !test
            && let Some(name) = self.ast.qualified_name(id)
            && let Some(ty) = self.lookup(&name)
        {
            self.ast.set(id, Expr::Ident(name.into()));
            self.set(id, ty);
            return;
        }
        let ty = self.select_type(id, operand, field, false);
        let ty = if test { Type::Bool } else { self.bindings.resolve(&ty, false) };
        self.set(id, ty);
    }

    fn select_type(&mut self, id: Id, operand: Id, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.bindings.resolve(&self.get(operand), false);
        let (target, was_optional) = operand_type.unwrap_optional();
        let result = match target {
            Type::Map(map) => map.value.ty.clone(),
            Type::Object(object) => match object.field(field) {
                Some(field) => field.slot.ty,
                None => {
                    self.complain(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.bindings.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.complain(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    fn check_call(&mut self, id: Id, function: &str, target: Option<Id>, args: &[Id]) {
        if function == "_?._" {
            let [operand, field] = args else { return };
            let Expr::Literal(Literal::String(name)) = self.ast.get(*field).clone() else { return };
            self.set(*field, Type::String);
            let ty = self.select_type(id, *operand, &name, true);
            let ty = self.bindings.resolve(&ty, false);
            self.set(id, ty);
            let callee = ops::find(function).map(|at| Callee { function: at as u16, overloads: [0].into() });
            self.record(id, callee);
            return;
        }
        for arg in args {
            self.check(*arg);
        }
        if let Some(target) = target {
            if let Some(prefix) = self.ast.qualified_name(target)
                && let Some(found) = self.find(&format!("{}.{function}", prefix.trim_start_matches('.')))
            {
                let name = ops::all().get(found).map_or("", |function| function.name);
                self.ast.set(id, Expr::Call { function: name.into(), target: None, args: args.into() });
                self.resolve(id, found, None, args);
                return;
            }
            self.check(target);
        }
        match self.find(function.trim_start_matches('.')) {
            Some(found) => self.resolve(id, found, target, args),
            None => self.undeclared(id, function),
        }
    }

    /// Functions that only some environments have are left out of the others.
    fn find(&self, name: &str) -> Option<usize> {
        ops::find(name).filter(|_| name != "jsonpatch.escapeKey" || self.environment.has_mutations())
    }

    fn record(&mut self, id: Id, callee: Option<Callee>) {
        if let Some(slot) = self.calls.get_mut(id as usize) {
            *slot = callee;
        }
    }

    fn resolve(&mut self, id: Id, found: usize, target: Option<Id>, args: &[Id]) {
        let Some(function) = ops::all().get(found) else { return };
        let arg_types: Vec<Type> = target.iter().chain(args).map(|arg| self.get(*arg)).collect();
        if matches!(function.name, "_&&_" | "_||_") {
            let mut result = Type::Bool;
            for (arg, ty) in args.iter().zip(&arg_types) {
                if !self.bindings.assignable(ty, &Type::Bool) {
                    let ty = self.bindings.resolve(ty, true);
                    self.mismatch(*arg, &Type::Bool, &ty);
                    result = Type::Error;
                }
            }
            self.set(id, result);
            self.record(id, Some(Callee { function: found as u16, overloads: [0].into() }));
            return;
        }
        let mut matched = Vec::new();
        let mut result: Option<Type> = None;
        for (at, overload) in function.overloads.iter().enumerate() {
            if overload.is_method != target.is_some() {
                continue;
            }
            let fresh: Vec<Type> = (0..overload.params).map(|_| self.bindings.fresh()).collect();
            let params: Vec<Type> = overload.args.iter().map(|arg| instantiate(arg, &fresh)).collect();
            if !self.bindings.all_assignable(&arg_types, &params) {
                continue;
            }
            matched.push(at as u8);
            let ty = self.bindings.resolve(&instantiate(&overload.result, &fresh), false);
            result = Some(match result {
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if !before.same(&ty) => Type::Dyn,
                _ => ty,
            });
        }
        match result {
            Some(ty) => {
                self.set(id, ty);
                self.record(id, Some(Callee { function: found as u16, overloads: matched.into() }));
            }
            None => {
                let types: Vec<String> =
                    arg_types.iter().map(|ty| self.bindings.resolve(ty, true).to_string()).collect();
                let applied = match (target, types.split_first()) {
                    (Some(_), Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", types.join(", ")),
                };
                self.complain(id, format!("found no matching overload for '{}' applied to '{applied}'", function.name));
                self.set(id, Type::Error);
            }
        }
    }

    fn check_object(&mut self, id: Id, name: &str, fields: &[(Box<str>, Id, bool)]) {
        let name = name.strip_prefix('.').unwrap_or(name);
        let object = match self.environment.constructible(name) {
            Some(object) => object,
            None => {
                match ops::named_type(name) {
                    Some(_) => self.complain(id, format!("'{name}' is not a message type")),
                    None => self.undeclared(id, name),
                }
                for (_, value, _) in fields {
                    self.check(*value);
                }
                self.set(id, Type::Error);
                return;
            }
        };
        self.set(id, Type::Object(object.clone()));
        for (field, value, optional) in fields {
            self.check(*value);
            let found = self.element(*value, *optional);
            match object.field(field) {
                None => self.complain(*value, format!("undefined field '{field}'")),
                Some(declared) if !self.bindings.assignable(&declared.slot.ty, &found) => {
                    let found = self.bindings.resolve(&found, true);
                    let expected = declared.slot.ty;
                    self.complain(
                        *value,
                        format!("expected type of field '{field}' is '{expected}' but provided type is '{found}'"),
                    );
                }
                Some(_) => {}
            }
        }
    }

    fn check_fold(&mut self, id: Id, fold: &Fold) {
        self.check(fold.range);
        self.check(fold.init);
        let range = self.bindings.resolve(&self.get(fold.range), false);
        let accu = self.get(fold.init);
        let depth = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let two = fold.var2.is_some();
        let (first, second) = match &range {
            Type::List(list) if two => (Type::Int, list.item.ty.clone()),
            Type::List(list) => (list.item.ty.clone(), Type::Dyn),
            Type::Map(map) => (map.key.ty.clone(), map.value.ty.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.bindings.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.complain(
                    fold.range,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.scopes.push((var2.clone(), second));
        }
        self.check(fold.condition);
        self.expect(fold.condition, &Type::Bool);
        self.check(fold.step);
        self.expect(fold.step, &accu);
        self.scopes.truncate(depth + 1);
        self.check(fold.result);
        self.scopes.truncate(depth);
        let ty = self.bindings.resolve(&self.get(fold.result), false);
        self.set(id, ty);
    }

    fn expect(&mut self, id: Id, ty: &Type) {
        let found = self.get(id);
        if !self.bindings.assignable(ty, &found) {
            let (expected, found) = (self.bindings.resolve(ty, true), self.bindings.resolve(&found, true));
            self.mismatch(id, &expected, &found);
        }
    }
}

/// A signature's type with this call's own variables.
fn instantiate(ty: &Type, fresh: &[Type]) -> Type {
    let param = |number: u32| fresh.get(number as usize).cloned().unwrap_or(Type::Dyn);
    substitute(ty, &param, &|inner| instantiate(inner, fresh))
}

struct Literals<'c> {
    source: &'c str,
    ast: &'c Ast,
    checked: &'c Checked,
}

/// What is known to be wrong with literals before anything is evaluated: cel-go's cel/validator.go. Lists inside the
/// arguments of `format` may mix types.
fn literals(context: &Literals<'_>, id: Id, in_format: bool, issues: &mut Vec<Issue>) {
    let Literals { source, ast, checked } = context;
    match ast.get(id) {
        Expr::Call { function, target, args } => {
            let valid = match (&**function, args.first().map(|arg| ast.get(*arg))) {
                ("duration", Some(Expr::Literal(Literal::String(text)))) => time::parse_duration(text).is_some(),
                ("duration", Some(Expr::Literal(Literal::Int(_)))) => false,
                ("timestamp", Some(Expr::Literal(Literal::String(text)))) => time::parse_time(text).is_some(),
                ("matches", Some(Expr::Literal(Literal::String(text)))) => Regex::new(text).is_ok(),
                _ => true,
            };
            if let (false, Some(arg)) = (valid, args.first()) {
                issues.push(Issue::new(source, ast.at(*arg), format!("invalid {function} argument")));
            }
            if let ("format", Some(target), [list]) = (&**function, target, &**args)
                && let Expr::Literal(Literal::String(text)) = ast.get(*target)
                && let Expr::List(items) = ast.get(*list)
            {
                let types: Vec<&Type> = items.iter().map(|(item, _)| checked.ty(*item)).collect();
                if let Err((place, message)) = ops::check_format(text, &types) {
                    let at = place.and_then(|place| items.get(place)).map_or(id, |(item, _)| *item);
                    issues.push(Issue::new(source, ast.at(at), message));
                }
            }
        }
        Expr::List(items) if !in_format => {
            let plain = |(item, optional): &(Id, bool)| (*item, inner(checked.ty(*item), *optional));
            homogeneous(context, items.iter().map(plain), issues);
        }
        Expr::Map(entries) if !in_format => {
            homogeneous(context, entries.iter().map(|(key, _, _)| (*key, checked.ty(*key))), issues);
            let value = |(_, value, optional): &(Id, Id, bool)| (*value, inner(checked.ty(*value), *optional));
            homogeneous(context, entries.iter().map(value), issues);
        }
        _ => {}
    }
    let in_format = in_format || matches!(ast.get(id), Expr::Call { function, .. } if &**function == "format");
    for child in ast.children(id) {
        literals(context, child, in_format, issues);
    }
}

fn inner(ty: &Type, optional: bool) -> &Type {
    if optional { ty.unwrap_optional().0 } else { ty }
}

fn homogeneous<'t>(context: &Literals<'_>, types: impl Iterator<Item = (Id, &'t Type)>, issues: &mut Vec<Issue>) {
    let mut first: Option<&Type> = None;
    for (id, ty) in types {
        match first {
            None => first = Some(ty),
            Some(first) if !first.same(ty) => {
                let message = format!("expected type '{first}' but found '{ty}'");
                issues.push(Issue::new(context.source, context.ast.at(id), message));
                return;
            }
            Some(_) => {}
        }
    }
}
