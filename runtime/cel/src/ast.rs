//! An expression as nodes in one list, each named by its place. Macros are already expanded: what is left of `all`,
//! `map` and the like is a `Fold`. A node may be used in two places (`filter` yields the variable it tests).

pub type Id = u32;

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

#[derive(Debug, Clone)]
pub enum Expr {
    Literal(Literal),
    Ident(Box<str>),
    Select {
        operand: Id,
        field: Box<str>,
        /// `has(operand.field)`
        test: bool,
    },
    Call {
        function: Box<str>,
        target: Option<Id>,
        args: Box<[Id]>,
    },
    /// Elements, each with whether it was written `[?x]`.
    List(Box<[(Id, bool)]>),
    Map(Box<[(Id, Id, bool)]>),
    Object {
        name: Box<str>,
        fields: Box<[(Box<str>, Id, bool)]>,
    },
    Fold(Box<Fold>),
}

#[derive(Debug, Clone)]
pub struct Fold {
    pub range: Id,
    pub var: Box<str>,
    pub var2: Option<Box<str>>,
    pub accu: Box<str>,
    pub init: Id,
    pub condition: Id,
    pub step: Id,
    pub result: Id,
}

impl Fold {
    /// `cel.bind` and its like: a name for a value, no loop.
    pub fn is_bind(&self, ast: &Ast) -> bool {
        matches!(ast.get(self.range), Expr::List(items) if items.is_empty())
            && matches!(ast.get(self.condition), Expr::Literal(Literal::Bool(false)))
            && &*self.accu != ACCU
    }
}

/// The variable in which macros gather their result; cannot be written in source.
pub const ACCU: &str = "@result";

#[derive(Debug, Default)]
pub struct Ast {
    /// `cel.bind` is a macro.
    pub bindings: bool,
    nodes: Vec<Node>,
    pub root: Id,
    /// A node nested too deeply was left out.
    pub is_too_deep: bool,
}

#[derive(Debug)]
struct Node {
    expr: Expr,
    at: u32,
    /// Of the tree below.
    depth: u32,
}

/// What all walks over the nodes, which recurse, are bounded by.
const MAX_TREE_DEPTH: u32 = 250;

const NOTHING: Expr = Expr::Literal(Literal::Null);

impl Ast {
    /// `at`: the character the node is known by.
    pub fn add(&mut self, expr: Expr, at: u32) -> Id {
        let below = children(&expr).into_iter().filter_map(|id| self.nodes.get(id as usize));
        let depth = below.map(|node| node.depth + 1).max().unwrap_or(0);
        self.nodes.push(if depth < MAX_TREE_DEPTH {
            Node { expr, at, depth }
        } else {
            self.is_too_deep = true;
            Node { expr: NOTHING, at, depth: 0 }
        });
        self.nodes.len() as Id - 1
    }
    pub fn get(&self, id: Id) -> &Expr {
        self.nodes.get(id as usize).map_or(&NOTHING, |node| &node.expr)
    }
    pub fn set(&mut self, id: Id, expr: Expr) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.expr = expr;
        }
    }
    pub fn at(&self, id: Id) -> u32 {
        self.nodes.get(id as usize).map_or(0, |node| node.at)
    }
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// `a.b.c` as one name.
    pub fn qualified_name(&self, id: Id) -> Option<String> {
        match self.get(id) {
            Expr::Ident(name) => Some(name.to_string()),
            Expr::Select { operand, field, test: false } => Some(self.qualified_name(*operand)? + "." + field),
            _ => None,
        }
    }

    /// The nodes right below one.
    pub fn children(&self, id: Id) -> Vec<Id> {
        children(self.get(id))
    }

    /// A copy of a sub-tree, for macros that evaluate a part twice.
    pub fn copy(&mut self, id: Id) -> Id {
        let (mut expr, at) = (self.get(id).clone(), self.at(id));
        match &mut expr {
            Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select { operand, .. } => *operand = self.copy(*operand),
            Expr::Call { target, args, .. } => {
                *target = target.map(|target| self.copy(target));
                args.iter_mut().for_each(|arg| *arg = self.copy(*arg));
            }
            Expr::List(items) => items.iter_mut().for_each(|(item, _)| *item = self.copy(*item)),
            Expr::Map(entries) => entries.iter_mut().for_each(|(key, value, _)| {
                *key = self.copy(*key);
                *value = self.copy(*value);
            }),
            Expr::Object { fields, .. } => fields.iter_mut().for_each(|(_, value, _)| *value = self.copy(*value)),
            Expr::Fold(fold) => {
                for part in [&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result] {
                    *part = self.copy(*part);
                }
            }
        }
        self.add(expr, at)
    }
}

fn children(expr: &Expr) -> Vec<Id> {
    match expr {
        Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select { operand, .. } => vec![*operand],
        Expr::Call { target, args, .. } => target.iter().chain(args.iter()).copied().collect(),
        Expr::List(items) => items.iter().map(|(item, _)| *item).collect(),
        Expr::Map(entries) => entries.iter().flat_map(|(key, value, _)| [*key, *value]).collect(),
        Expr::Object { fields, .. } => fields.iter().map(|(_, value, _)| *value).collect(),
        Expr::Fold(fold) => vec![fold.range, fold.init, fold.condition, fold.step, fold.result],
    }
}
