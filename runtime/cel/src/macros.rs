//! Calls that are no functions: `has`, the loops, and what works on an optional's value. Each becomes plain nodes
//! (cel-go's parser/macro.go, ext/comprehensions.go, ext/lists.go, cel/library.go), so that checking, evaluating and
//! counting cost know only those.
use crate::ast::{ACCU, Ast, Expr, Fold, Id, Literal};

type Expanded = Result<Id, (u32, String)>;

/// None: no macro of that name and number of arguments.
pub fn expand(ast: &mut Ast, function: &str, target: Option<Id>, args: &[Id], at: u32) -> Option<Expanded> {
    let mut make = Make { ast, at };
    let Some(target) = target else {
        return match (function, args) {
            ("has", [field]) => Some(make.has(*field)),
            _ => None,
        };
    };
    if let ("bind", [var, value, result]) = (function, args)
        && make.ast.bindings
        && matches!(make.ast.get(target), Expr::Ident(name) if &**name == "cel")
    {
        // ext.Bindings
        let name = make.var(*var, "cel.bind() variable names must be simple identifiers");
        return Some(name.map(|name| make.bind(&name, *value, *result)));
    }
    Some(match (function, args) {
        ("all", [var, test]) => make.quantify(Quantifier::All, target, *var, None, *test),
        ("exists", [var, test]) => make.quantify(Quantifier::Exists, target, *var, None, *test),
        ("exists_one", [var, test]) => make.quantify(Quantifier::One, target, *var, None, *test),
        ("all", [var, var2, test]) => make.quantify(Quantifier::All, target, *var, Some(*var2), *test),
        ("exists", [var, var2, test]) => make.quantify(Quantifier::Exists, target, *var, Some(*var2), *test),
        ("exists_one" | "existsOne", [var, var2, test]) => {
            make.quantify(Quantifier::One, target, *var, Some(*var2), *test)
        }
        ("map", [var, transform]) => make.map(target, *var, None, *transform),
        ("map", [var, test, transform]) => make.map(target, *var, Some(*test), *transform),
        ("filter", [var, test]) => make.map(target, *var, Some(*test), *var),
        ("transformList" | "transformMap" | "transformMapEntry", [var, var2, transform]) => {
            make.transform(function, target, [*var, *var2], None, *transform)
        }
        ("transformList" | "transformMap" | "transformMapEntry", [var, var2, test, transform]) => {
            make.transform(function, target, [*var, *var2], Some(*test), *transform)
        }
        ("optMap" | "optFlatMap", [var, transform]) => make.optional(function, target, *var, *transform),
        ("sortBy", [var, key]) => make.sort_by(target, *var, *key),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Quantifier {
    All,
    Exists,
    One,
}

/// Of the one or two variables of a loop.
type Names = (Box<str>, Option<Box<str>>);

struct Make<'a> {
    ast: &'a mut Ast,
    at: u32,
}

impl Make<'_> {
    fn literal(&mut self, literal: Literal) -> Id {
        self.ast.add(Expr::Literal(literal), self.at)
    }
    fn name(&mut self, name: &str) -> Id {
        self.ast.add(Expr::Ident(name.into()), self.at)
    }
    fn accu(&mut self) -> Id {
        self.name(ACCU)
    }
    fn list(&mut self, items: &[Id]) -> Id {
        self.ast.add(Expr::List(items.iter().map(|item| (*item, false)).collect()), self.at)
    }
    fn call(&mut self, function: &str, args: &[Id]) -> Id {
        self.ast.add(Expr::Call { function: function.into(), target: None, args: args.into() }, self.at)
    }
    fn method(&mut self, function: &str, target: Id, args: &[Id]) -> Id {
        self.ast.add(Expr::Call { function: function.into(), target: Some(target), args: args.into() }, self.at)
    }

    fn error<T>(&self, at: Id, message: &str) -> Result<T, (u32, String)> {
        Err((self.ast.at(at), message.to_owned()))
    }

    fn var(&self, id: Id, otherwise: &str) -> Result<Box<str>, (u32, String)> {
        match self.ast.get(id) {
            Expr::Ident(name) if &**name == ACCU || &**name == "__result__" => {
                self.error(id, "iteration variable overwrites accumulator variable")
            }
            Expr::Ident(name) => Ok(name.clone()),
            _ => self.error(id, otherwise),
        }
    }

    fn vars(&self, var: Id, var2: Option<Id>) -> Result<Names, (u32, String)> {
        let first = self.var(var, "argument must be a simple name")?;
        let Some(var2) = var2 else { return Ok((first, None)) };
        let second = self.var(var2, "argument must be a simple name")?;
        if first == second {
            return self.error(var2, &format!("duplicate variable name: {first}"));
        }
        Ok((first, Some(second)))
    }

    fn has(&mut self, field: Id) -> Expanded {
        match self.ast.get(field) {
            Expr::Select { operand, field, .. } => {
                let test = Expr::Select { operand: *operand, field: field.clone(), test: true };
                Ok(self.ast.add(test, self.at))
            }
            _ => self.error(field, "invalid argument to has() macro"),
        }
    }

    fn quantify(&mut self, kind: Quantifier, range: Id, var: Id, var2: Option<Id>, test: Id) -> Expanded {
        let (var, var2) = self.vars(var, var2)?;
        let accu = self.accu();
        let (init, condition, step, result) = match kind {
            Quantifier::All => {
                let condition = self.call("@not_strictly_false", &[accu]);
                (self.literal(Literal::Bool(true)), condition, self.call("_&&_", &[accu, test]), accu)
            }
            Quantifier::Exists => {
                let not = self.call("!_", &[accu]);
                let condition = self.call("@not_strictly_false", &[not]);
                (self.literal(Literal::Bool(false)), condition, self.call("_||_", &[accu, test]), accu)
            }
            Quantifier::One => {
                let one = self.literal(Literal::Int(1));
                let more = self.call("_+_", &[accu, one]);
                let step = self.call("_?_:_", &[test, more, accu]);
                let zero = self.literal(Literal::Int(0));
                (zero, self.literal(Literal::Bool(true)), step, self.call("_==_", &[accu, one]))
            }
        };
        Ok(self.fold(Fold { range, var, var2, accu: ACCU.into(), init, condition, step, result }))
    }

    fn fold(&mut self, fold: Fold) -> Id {
        self.ast.add(Expr::Fold(fold.into()), self.at)
    }

    /// Gathers what `step` makes of the accumulator, for all elements or for those that pass a test.
    fn gather(&mut self, range: Id, vars: (Box<str>, Option<Box<str>>), init: Id, test: Option<Id>, step: Id) -> Id {
        let accu = self.accu();
        let step = test.map_or(step, |test| self.call("_?_:_", &[test, step, accu]));
        let condition = self.literal(Literal::Bool(true));
        let (var, var2) = vars;
        self.fold(Fold { range, var, var2, accu: ACCU.into(), init, condition, step, result: accu })
    }

    fn map(&mut self, range: Id, var: Id, test: Option<Id>, transform: Id) -> Expanded {
        let name = self.var(var, "argument is not an identifier")?;
        let (accu, item) = (self.accu(), self.list(&[transform]));
        let step = self.call("_+_", &[accu, item]);
        let init = self.list(&[]);
        Ok(self.gather(range, (name, None), init, test, step))
    }

    fn transform(
        &mut self,
        function: &str,
        range: Id,
        [var, var2]: [Id; 2],
        test: Option<Id>,
        transform: Id,
    ) -> Expanded {
        let vars = self.vars(var, Some(var2))?;
        let accu = self.accu();
        let (init, step) = match function {
            "transformList" => {
                let item = self.list(&[transform]);
                (self.list(&[]), self.call("_+_", &[accu, item]))
            }
            _ => {
                let init = self.ast.add(Expr::Map([].into()), self.at);
                let key = self.name(&vars.0);
                let args = if function == "transformMap" { vec![accu, key, transform] } else { vec![accu, transform] };
                (init, self.call("cel.@mapInsert", &args))
            }
        };
        Ok(self.gather(range, vars, init, test, step))
    }

    fn bind(&mut self, name: &str, value: Id, result: Id) -> Id {
        let range = self.list(&[]);
        let condition = self.literal(Literal::Bool(false));
        let step = self.name(name);
        self.fold(Fold {
            range,
            var: "#unused".into(),
            var2: None,
            accu: name.into(),
            init: value,
            condition,
            step,
            result,
        })
    }

    fn optional(&mut self, function: &str, target: Id, var: Id, transform: Id) -> Expanded {
        let Expr::Ident(name) = self.ast.get(var).clone() else {
            return self.error(var, &format!("{function}() variable name must be a simple identifier"));
        };
        let test = self.method("hasValue", target, &[]);
        let copy = self.ast.copy(target);
        let value = self.method("value", copy, &[]);
        let mut result = self.bind(&name, value, transform);
        if function == "optMap" {
            result = self.method_of("optional", "of", &[result]);
        }
        let none = self.method_of("optional", "none", &[]);
        Ok(self.call("_?_:_", &[test, result, none]))
    }

    /// A function with a dotted name.
    fn method_of(&mut self, prefix: &str, name: &str, args: &[Id]) -> Id {
        self.call(&format!("{prefix}.{name}"), args)
    }

    fn sort_by(&mut self, target: Id, var: Id, key: Id) -> Expanded {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(self.ast.get(target), Expr::Literal(_) | Expr::Map(_) | Expr::Object { .. }) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return self.error(target, message);
        }
        let input = self.name(INPUT);
        let keys = self.map(input, var, None, key)?;
        let input = self.name(INPUT);
        let sorted = self.method("@sortByAssociatedKeys", input, &[keys]);
        Ok(self.bind(INPUT, target, sorted))
    }
}
