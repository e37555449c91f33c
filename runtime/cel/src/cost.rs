//! What an evaluation may cost, known when compiling (cel-go's checker/cost.go under apiserver/pkg/cel/library/cost.go). What a
//! call did cost is `charge`'s.
use crate::{
    ast::{ACCU, Expr, Fold, Id, Literal},
    environment::{Environment, Program},
    ops::Overload,
    types::{Slot, Type},
};
use std::collections::HashMap;

/// Traversing a text, by character; and matching a text against a pattern, by character of the pattern.
pub(crate) const TEXT: f64 = 0.1;
pub(crate) const PATTERN: f64 = 0.25;
const LIST: CostRange = CostRange::fixed(10);
const ONE: CostRange = CostRange::fixed(1);
/// Two authorization checks an expression are meant to be possible.
pub(crate) const AUTHORIZATION: u64 = 350_000;
/// apiserver/pkg/cel/limits.go
const MAX_FORMAT_SIZE: u64 = 64;
const MAX_NAME_FORMAT_REGEX_SIZE: f64 = 128.0;

/// From the least to the most; also of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostRange {
    pub min: u64,
    pub max: u64,
}

const UNKNOWN: CostRange = CostRange { min: 0, max: u64::MAX };

impl CostRange {
    const fn new(min: u64, max: u64) -> CostRange {
        CostRange { min, max }
    }
    const fn fixed(cost: u64) -> CostRange {
        CostRange { min: cost, max: cost }
    }
    fn plus(self, other: CostRange) -> CostRange {
        CostRange::new(self.min.saturating_add(other.min), self.max.saturating_add(other.max))
    }
    fn times(self, other: CostRange) -> CostRange {
        CostRange::new(self.min.saturating_mul(other.min), self.max.saturating_mul(other.max))
    }
    fn by(self, factor: f64) -> CostRange {
        // A cast to an integer saturates.
        let scale = |n: u64| (n as f64 * factor).ceil() as u64;
        CostRange::new(scale(self.min), scale(self.max))
    }
    fn or(self, other: CostRange) -> CostRange {
        CostRange::new(self.min.min(other.min), self.max.max(other.max))
    }
}

pub fn estimate(program: &Program, environment: &Environment) -> CostRange {
    let mut coster = Coster {
        program,
        environment,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    coster.cost(program.ast.root)
}

/// The size that the environment's slots declare, by the path from a variable.
fn max_elements(environment: &Environment, path: &[&str]) -> Option<u64> {
    let (first, rest) = path.split_first()?;
    // A path into a literal starts with no variable; upstream reads it from the root, and estimates depend on it.
    let mut slot: Slot = environment.variable(first).or_else(|| environment.first())?.clone();
    for name in rest {
        slot = match (&slot.ty, *name) {
            (Type::List(list), "@items" | "@values") => list.item.clone(),
            (Type::Map(map), "@items" | "@values") => map.value.clone(),
            (Type::Map(map), "@keys") => map.key.clone(),
            (Type::Object(object), name) => object.field(name)?.slot,
            _ => return None,
        };
    }
    (slot.max_elements < crate::UNBOUNDED).then_some(slot.max_elements)
}

type Path<'p> = Vec<&'p str>;

/// Sizes of a container's keys (or indexes) and values.
#[derive(Clone, Copy)]
struct Entries {
    is_list: bool,
    key: CostRange,
    value: CostRange,
}

impl Entries {
    fn or(self, other: Entries) -> Entries {
        Entries { is_list: self.is_list, key: self.key.or(other.key), value: self.value.or(other.value) }
    }
}

struct Local<'p> {
    name: &'p str,
    path: Path<'p>,
    size: Option<CostRange>,
    entries: Option<Entries>,
}

struct Coster<'p> {
    program: &'p Program,
    environment: &'p Environment,
    paths: HashMap<Id, Path<'p>>,
    sizes: HashMap<Id, CostRange>,
    entries: HashMap<Id, Entries>,
    locals: Vec<Local<'p>>,
}

/// The result's cost, and its size when it has one.
type Call = (CostRange, Option<CostRange>);

impl<'p> Coster<'p> {
    fn expr(&self, id: Id) -> &'p Expr {
        self.program.ast.get(id)
    }
    fn ty(&self, id: Id) -> &'p Type {
        self.program.checked.ty(id)
    }
    fn local(&self, name: &str) -> Option<&Local<'p>> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn cost(&mut self, id: Id) -> CostRange {
        match self.expr(id) {
            Expr::Literal(_) => CostRange::fixed(0),
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![&**name], |local| local.path.clone());
                self.paths.insert(id, path);
                ONE
            }
            Expr::Select { operand, test: true, .. } => self.cost(*operand),
            Expr::Select { operand, field, .. } => {
                let mut sum = self.cost(*operand);
                if matches!(self.ty(*operand), Type::Map(_) | Type::Object(_) | Type::Opaque(_)) {
                    sum = sum.plus(ONE);
                }
                let mut path = self.path(*operand);
                path.push(field);
                self.paths.insert(id, path);
                sum
            }
            Expr::Call { function, target, args } => self.call(id, function, *target, args),
            Expr::List(items) => {
                let mut sum = LIST;
                let mut value = CostRange::new(if items.is_empty() { 0 } else { u64::MAX }, 0);
                for (item, _) in items.iter() {
                    sum = sum.plus(self.cost(*item));
                    value = value.or(self.size_or_unknown(*item));
                }
                self.entries.insert(id, Entries { is_list: true, key: ONE, value });
                sum
            }
            Expr::Map(entries) => {
                let mut sum = CostRange::fixed(30);
                let empty = CostRange::new(if entries.is_empty() { 0 } else { u64::MAX }, 0);
                let (mut keys, mut values) = (empty, empty);
                for (key, value, _) in entries.iter() {
                    sum = sum.plus(self.cost(*key)).plus(self.cost(*value));
                    keys = keys.or(self.size_or_unknown(*key));
                    values = values.or(self.size_or_unknown(*value));
                }
                self.entries.insert(id, Entries { is_list: false, key: keys, value: values });
                sum
            }
            Expr::Object { fields, .. } => {
                let mut sum = CostRange::fixed(40);
                for (_, value, _) in fields.iter() {
                    sum = sum.plus(self.cost(*value));
                }
                sum
            }
            Expr::Fold(fold) if fold.is_bind(&self.program.ast) => {
                let sum = self.cost(fold.range).plus(self.cost(fold.init));
                self.push(fold);
                let sum = sum.plus(self.cost(fold.result));
                self.locals.pop();
                let (size, entries) = (self.size(fold.result), self.entry_sizes(fold.result));
                self.remember(id, size, entries);
                sum
            }
            Expr::Fold(fold) => self.fold(id, fold),
        }
    }

    fn remember(&mut self, id: Id, size: Option<CostRange>, entries: Option<Entries>) {
        if let Some(size) = size {
            self.sizes.insert(id, size);
        }
        if let Some(entries) = entries {
            self.entries.insert(id, entries);
        }
    }

    /// The accumulator comes into scope.
    fn push(&mut self, fold: &'p Fold) {
        let (path, size, entries) = (self.path(fold.init), self.size(fold.init), self.entry_sizes(fold.init));
        self.locals.push(Local { name: &fold.accu, path, size, entries });
    }

    fn fold(&mut self, id: Id, fold: &'p Fold) -> CostRange {
        let mut sum = self.cost(fold.range).plus(self.cost(fold.init));
        self.push(fold);
        let entries = self.entry_sizes(fold.range);
        let is_list = entries.map_or(matches!(self.ty(fold.range), Type::List(_)), |entries| entries.is_list);
        let path = self.path(fold.range);
        let mut var = |name: &'p str, step: &'static str, size: Option<CostRange>| {
            let mut path = path.clone();
            path.push(step);
            self.locals.push(Local { name, path, size, entries: None });
        };
        let (key, value) = (entries.map(|entries| entries.key), entries.map(|entries| entries.value));
        match &fold.var2 {
            Some(var2) => {
                var(&fold.var, if is_list { "@indices" } else { "@keys" }, key);
                var(var2, if is_list { "@items" } else { "@values" }, value);
            }
            None if is_list => var(&fold.var, "@items", value),
            None => var(&fold.var, "@keys", key),
        }
        let each = self.cost(fold.condition).plus(self.cost(fold.step));
        self.locals.truncate(self.locals.len() - if fold.var2.is_some() { 2 } else { 1 });
        sum = sum.plus(self.cost(fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(fold.range);
        match self.expr(fold.init) {
            Expr::Literal(_) => {
                let size = self.size(fold.init);
                self.remember(id, size, None);
            }
            Expr::List(_) | Expr::Map(_) => {
                let entries = self.entry_sizes(fold.step);
                self.remember(id, Some(count), entries);
            }
            _ => {}
        }
        sum.plus(count.times(each))
    }

    fn path(&self, id: Id) -> Path<'p> {
        if let Expr::Ident(name) = self.expr(id)
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&id).cloned().unwrap_or_default()
    }

    /// As a function's argument sees it: accumulators have no path.
    fn argument_size(&mut self, id: Id) -> CostRange {
        self.size(id).unwrap_or(UNKNOWN)
    }

    fn size_or_unknown(&mut self, id: Id) -> CostRange {
        self.size(id).unwrap_or(UNKNOWN)
    }

    fn size(&mut self, id: Id) -> Option<CostRange> {
        if let Some(size) = self.sizes.get(&id) {
            return Some(*size);
        }
        let written = match self.expr(id) {
            Expr::Literal(Literal::String(text)) => Some(text.chars().count()),
            Expr::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Expr::Literal(_) => Some(1),
            Expr::List(items) => Some(items.len()),
            Expr::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(written) = written {
            return Some(CostRange::fixed(written as u64));
        }
        let path = self.path(id);
        if !path.is_empty()
            && let Some(max) = max_elements(self.environment, &path)
        {
            let size = CostRange::new(0, max);
            self.sizes.insert(id, size);
            return Some(size);
        }
        if self.ty(id).is_scalar() {
            return Some(ONE);
        }
        match self.expr(id) {
            Expr::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn entry_sizes(&self, id: Id) -> Option<Entries> {
        self.entries.get(&id).copied().or_else(|| match self.expr(id) {
            Expr::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        })
    }

    fn call(&mut self, id: Id, function: &'p str, target: Option<Id>, args: &'p [Id]) -> CostRange {
        if function == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(*arg).plus(ONE);
            let (size, entries) = (self.size(*arg), self.entry_sizes(*arg));
            self.remember(id, size, entries);
            return cost;
        }
        let costs: Vec<CostRange> = args.iter().map(|arg| self.cost(*arg)).collect();
        let target_cost = target.map_or(CostRange::fixed(0), |target| self.cost(target));
        let Some(callee) = self.program.checked.call(id) else { return CostRange::fixed(0) };
        let mut cost = CostRange::new(u64::MAX, 0);
        let mut size: Option<CostRange> = None;
        for overload in callee.overloads() {
            let (overload_cost, overload_size) = self.overload(id, function, overload, target, args, &costs);
            cost = cost.or(overload_cost);
            size = match (size, overload_size) {
                (Some(a), Some(b)) => Some(a.or(b)),
                (a, b) => a.or(b),
            };
            if function == "_[_]"
                && let [container, _] = args
            {
                let step = match overload.args.first() {
                    Some(Type::List(_)) => Some("@items"),
                    Some(Type::Map(_)) => Some("@values"),
                    _ => None,
                };
                if let Some(step) = step {
                    size = self.entry_sizes(*container).map(|entries| entries.value);
                    let mut path = self.path(*container);
                    path.push(step);
                    self.paths.insert(id, path);
                }
            }
            if size.is_none() {
                size = self.size(id);
            }
        }
        self.remember(id, size, None);
        target_cost.plus(cost)
    }

    /// One of the functions the call may mean.
    fn overload(
        &mut self,
        id: Id,
        function: &str,
        overload: &Overload,
        target: Option<Id>,
        args: &[Id],
        costs: &[CostRange],
    ) -> Call {
        let arguments = costs.iter().fold(CostRange::fixed(0), |sum, cost| sum.plus(*cost));
        if let Some((cost, size)) = self.library(function, overload, target, args) {
            return (cost.plus(arguments), size);
        }
        let size = |coster: &mut Self, at: usize| args.get(at).map_or(UNKNOWN, |arg| coster.size_or_unknown(*arg));
        let cost = match (function, overload.args.first()) {
            ("format", _) => target.map_or(UNKNOWN, |target| self.size_or_unknown(target)).by(TEXT),
            ("bytes", Some(Type::String)) => {
                let text = size(self, 0);
                let result = CostRange::new(text.min, text.max.saturating_mul(4));
                return (text.by(TEXT).plus(arguments), Some(result));
            }
            ("string", Some(Type::Bytes)) => {
                let bytes = size(self, 0);
                return (bytes.by(TEXT).plus(arguments), Some(CostRange::new(bytes.min / 4, bytes.max)));
            }
            ("strings.quote", _) => {
                let text = size(self, 0);
                let result = CostRange::new(text.min.saturating_add(2), text.max.saturating_mul(2).saturating_add(2));
                return (text.by(TEXT).plus(arguments), Some(result));
            }
            ("startsWith" | "endsWith", _) => size(self, 0).by(TEXT),
            ("@in", _) if matches!(overload.args.get(1), Some(Type::List(_))) => size(self, 1),
            ("matches", _) if overload.is_method => {
                let text = target.map_or(UNKNOWN, |target| self.size_or_unknown(target));
                text.plus(ONE).by(TEXT).times(size(self, 0).by(PATTERN))
            }
            ("contains", _) => {
                let text = target.map_or(UNKNOWN, |target| self.size_or_unknown(target));
                text.by(TEXT).times(size(self, 0).by(TEXT))
            }
            ("_&&_" | "_||_", _) => {
                let (Some(left), Some(right)) = (costs.first(), costs.get(1)) else { return (arguments, None) };
                return (CostRange::new(left.min, left.plus(*right).max), None);
            }
            ("_?:_" | "_?_:_", _) => {
                let [_, yes, no] = args else { return (arguments, None) };
                let result = self.size_or_unknown(*yes).or(self.size_or_unknown(*no));
                if let (Some(a), Some(b)) = (self.entry_sizes(*yes), self.entry_sizes(*no)) {
                    self.entries.insert(id, a.or(b));
                }
                let cost = match costs {
                    [test, yes, no] => test.plus(yes.or(*no)),
                    _ => arguments,
                };
                return (cost, Some(result));
            }
            ("_+_", Some(first @ (Type::String | Type::Bytes | Type::List(_)))) => {
                let result = size(self, 0).plus(size(self, 1));
                if let [a, b] = args
                    && let (Some(a), Some(b)) = (self.entry_sizes(*a), self.entry_sizes(*b))
                {
                    self.entries.insert(id, a.or(b));
                }
                let cost = if matches!(first, Type::List(_)) { ONE } else { result.by(TEXT) };
                return (cost.plus(arguments), Some(result));
            }
            ("_==_" | "_!=_", _) | ("_<_" | "_<=_" | "_>_" | "_>=_", Some(Type::String | Type::Bytes)) => {
                let most = size(self, 0).max.min(size(self, 1).max);
                CostRange::new(most.min(1), most).by(TEXT)
            }
            _ => ONE,
        };
        (cost.plus(arguments), None)
    }

    /// Kubernetes' libraries, and cel-go's lists; None for the standard functions.
    fn library(&mut self, function: &str, overload: &Overload, target: Option<Id>, args: &[Id]) -> Option<Call> {
        let arg = args.first().copied();
        let second = args.get(1).copied();
        let plain = |cost: CostRange| Some((cost, None));
        let allocating = |factor: f64, size: CostRange| Some((size.by(factor).plus(ONE).plus(LIST), Some(size)));
        Some(match function {
            "check" if target.is_some() => (CostRange::fixed(AUTHORIZATION), None),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => (ONE, None),
            "fieldSelector" | "labelSelector" => {
                let size = self.argument_size(arg?);
                (LIST.plus(size.by(TEXT)).plus(size.by(0.5).by(50.0)), None)
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let target = target?;
                let size = self.argument_size(target);
                let Type::List(list) = self.ty(target) else { return plain(size.by(TEXT)) };
                let mut each = ONE;
                if matches!(list.item.ty, Type::String | Type::Bytes) {
                    let mut path = self.path(target);
                    path.push("@items");
                    let item = match self.is_rooted(&path) {
                        true => max_elements(self.environment, &path).map_or(UNKNOWN, |max| CostRange::new(0, max)),
                        false => UNKNOWN,
                    };
                    each = each.plus(item.by(TEXT));
                }
                (size.times(each), None)
            }
            "url" | "jsonpatch.escapeKey" => {
                let size = self.argument_size(arg?);
                (size.by(TEXT), Some(size))
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.argument_size(target?);
                (size.by(TEXT), Some(size))
            }
            "replace" => {
                let size = self.argument_size(target?);
                let (old, new) = (self.argument_size(arg?), self.argument_size(second?));
                (size.by(2.0 * TEXT), Some(replaced(size, old, new)))
            }
            "split" => {
                let size = self.argument_size(target?);
                let limit = match second.map(|limit| self.expr(limit)) {
                    Some(Expr::Literal(Literal::Int(limit))) => *limit as u64,
                    _ => size.max,
                };
                (size.by(2.0 * TEXT), Some(CostRange::new(0, limit)))
            }
            "join" => {
                let target = target?;
                let count = self.argument_size(target);
                let mut path = self.path(target);
                path.push("@items");
                let item = match self.is_rooted(&path) {
                    true => max_elements(self.environment, &path).map_or(UNKNOWN, |max| CostRange::new(0, max)),
                    false => UNKNOWN,
                };
                let mut size =
                    if matches!(self.ty(target), Type::List(_)) { count.times(item) } else { CostRange::fixed(0) };
                if let Some(separator) = arg {
                    let gaps = CostRange::new(count.min.saturating_sub(1), count.max.saturating_sub(1));
                    size = size.plus(self.argument_size(separator).times(gaps));
                }
                (size.by(TEXT), Some(size))
            }
            "find" | "findAll" => {
                let size = self.argument_size(target?);
                let pattern = self.argument_size(arg?).by(PATTERN);
                (size.plus(ONE).by(TEXT).times(pattern), Some(CostRange::new(0, size.max)))
            }
            "ip" if target.is_some() => return plain(ONE),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                (self.argument_size(arg?).by(TEXT), None)
            }
            "ip.isCanonical" => (self.argument_size(arg?).by(2.0 * TEXT), None),
            "containsIP" | "containsCIDR" => {
                let bytes = CostRange::new(4, 16);
                let mut cost = bytes.plus(bytes).by(TEXT);
                if function == "containsCIDR" {
                    cost = cost.plus(bytes.by(TEXT)).plus(ONE);
                }
                if matches!(overload.args.get(1), Some(Type::String)) {
                    cost = cost.plus(self.argument_size(arg?).by(TEXT));
                }
                (cost, None)
            }
            "validate" => (self.argument_size(arg?).by(TEXT).by(MAX_NAME_FORMAT_REGEX_SIZE * PATTERN), None),
            "slice" => {
                let size = self.estimated_size(target?);
                let (start, end) = (self.int(arg?).unwrap_or(0), self.int(second?).unwrap_or(size.max));
                return allocating(1.0, CostRange::fixed(end.wrapping_sub(start)));
            }
            "lists.range" => {
                let end = self.int(arg?).unwrap_or(u64::MAX);
                return allocating(1.0, CostRange::fixed(end));
            }
            "reverse" => {
                let size = self.estimated_size(target?);
                return allocating(1.0, size);
            }
            "flatten" => {
                let size = self.estimated_size(target?);
                let depth = arg.map_or(1, |depth| self.int(depth).unwrap_or(u64::MAX));
                return allocating(depth as f64, size);
            }
            "distinct" | "sort" | "@sortByAssociatedKeys" => {
                let of = if function == "@sortByAssociatedKeys" { arg? } else { target? };
                let size = self.estimated_size(of);
                let keys = overload.args.get(usize::from(function.starts_with('@')));
                let text = matches!(keys, Some(Type::List(list)) if matches!(list.item.ty, Type::String | Type::Bytes));
                return allocating(if text { 2.0 + TEXT } else { 2.0 }, size.times(size));
            }
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let (a, b) = (self.estimated_size(arg?), self.estimated_size(second?));
                let factor = if function == "sets.equivalent" { 2.0 } else { 1.0 };
                (a.times(b).by(factor).plus(ONE), None)
            }
            "_==_" => {
                let (left, right) = (self.ty(arg?), self.ty(second?));
                let Type::Opaque(name) = left else { return None };
                if !left.same(right) {
                    return None;
                }
                match *name {
                    "kubernetes.NamedFormat" => (CostRange::new(1, MAX_FORMAT_SIZE).by(TEXT), None),
                    "kubernetes.URL" => {
                        let most = self.size(second?).map_or(1, |size| size.max);
                        (CostRange::new(1, most).by(TEXT), None)
                    }
                    _ => (ONE, None),
                }
            }
            _ => return None,
        })
    }

    fn is_rooted(&self, path: &Path<'p>) -> bool {
        path.first().is_some_and(|first| *first != ACCU)
    }

    /// cel-go's own libraries ask only for sizes that are known from the expression, or from the hints.
    fn estimated_size(&mut self, id: Id) -> CostRange {
        self.size(id).unwrap_or(UNKNOWN)
    }

    fn int(&self, id: Id) -> Option<u64> {
        match self.expr(id) {
            Expr::Literal(Literal::Int(int)) => Some(u64::try_from(*int).unwrap_or(0)),
            _ => None,
        }
    }
}

/// The length of a text in which something was replaced.
fn replaced(size: CostRange, old: CostRange, new: CostRange) -> CostRange {
    let (mut count, mut kept) = (CostRange::fixed(0), CostRange::fixed(0));
    if old.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if new.max <= old.min {
        kept.max = size.max;
    } else {
        count.max = (size.max as f64 / old.min as f64).ceil() as u64;
    }
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if old.max <= new.min {
        kept.min = size.min;
    } else {
        count.min = (size.min as f64 / old.max as f64).ceil() as u64;
    }
    count.times(new).plus(kept)
}
