"""Mutants of a module: copies of its source with one small fault each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMMUTATIVE = {"min", "max", "np.minimum", "np.maximum"}
# What says how a thing looks, and not what it is: sizes, colours and fonts of pictures.
LOOKS = {"draw"}


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        line: of the source.
        text: the source of the smallest statement or expression that shows the fault, as it is without it.
        change: what the fault makes of it.
        source: the whole module with the fault.
    """

    line: int
    text: str
    change: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines. Docstrings, annotations, messages and decorators stay."""
    tree = ast.parse(source)
    found: dict[str, Mutant] = {}
    for statement, owner, field, index, new in _changes(tree):
        before = ast.unparse(statement).splitlines()[0]
        values = getattr(owner, field)
        old = values if index is None else values[index]
        _put(owner, field, index, new)
        changed = ast.unparse(tree)
        after = _first_difference(statement, new, before)
        _put(owner, field, index, old)
        found.setdefault(changed, Mutant(getattr(statement, "lineno", 0), before, after, changed))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _first_difference(statement: ast.AST, new: Any, before: str) -> str:
    lines = [] if isinstance(new, ast.Pass) else ast.unparse(statement).splitlines()
    after = lines[0] if lines else "(nothing)"
    return after if after != before else f"{before} … {ast.unparse(new) if isinstance(new, ast.AST) else new}"


def _put(owner: Any, field: str, index: int | None, value: Any) -> None:
    if index is None:
        setattr(owner, field, value)
    else:
        getattr(owner, field)[index] = value


Change = tuple[ast.AST, ast.AST, str, int | None, Any]  # the statement; owner, field and index of what changes; to what


def _changes(tree: ast.Module) -> Iterator[Change]:
    for index, statement in enumerate(tree.body):
        yield from _of_statement(statement, tree, "body", index)


def _of_statement(node: ast.AST, owner: ast.AST, field: str, index: int) -> Iterator[Change]:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert)) or _is_text(node) or _is_alias(node):
        return
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        if node.name in LOOKS or any("Protocol" in ast.unparse(base) for base in getattr(node, "bases", [])):
            return
        if isinstance(node, ast.FunctionDef):
            for kind in ("defaults", "kw_defaults"):
                for place, default in enumerate(getattr(node.args, kind)):
                    yield from _of_expression(default, node, node.args, kind, place)
        for place, inner in enumerate(node.body):
            yield from _of_statement(inner, node, "body", place)
        return
    if _can_go(node):
        yield node, owner, field, index, ast.Pass()
    if isinstance(node, ast.Raise):
        return
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield node, node, "value", None, ast.Constant(None)
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield node, node, "op", None, OPERATORS[type(node.op)]()
    if isinstance(node, (ast.If, ast.While)):
        yield from _negated(node.test, node, node, "test")
    for name, value in ast.iter_fields(node):
        if name == "annotation":
            continue
        for place, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, ast.stmt):
                assert place is not None
                yield from _of_statement(part, node, name, place)
            elif isinstance(part, (ast.expr, ast.withitem)):
                yield from _of_expression(part, node, node, name, place)
            elif isinstance(part, ast.ExceptHandler):
                for inner, handled in enumerate(part.body):
                    yield from _of_statement(handled, part, "body", inner)


def _of_expression(node: Any, statement: ast.AST, owner: Any, field: str, index: int | None) -> Iterator[Change]:
    if node is None or isinstance(node, ast.JoinedStr):
        return
    for new in _replacements(node):
        yield statement, owner, field, index, new
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield statement, node, "op", None, OPERATORS[type(node.op)]()
    if isinstance(node, ast.BoolOp):
        yield statement, node, "op", None, ast.Or() if isinstance(node.op, ast.And) else ast.And()
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield statement, node, "ops", place, other()
    if isinstance(node, ast.IfExp):
        yield from _negated(node.test, statement, node, "test")
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield statement, node, bound, None, None
    for name, value in ast.iter_fields(node):
        for place, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, ast.keyword) and part.arg == "strict":
                continue
            if isinstance(part, (ast.expr, ast.keyword, ast.comprehension)):
                yield from _of_expression(part, statement, node, name, place)


def _replacements(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            others = dict.fromkeys([node.value + 1, node.value - 1, 0])
            yield from (ast.Constant(other) for other in others if other != node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    if isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func) not in COMMUTATIVE:
        first, second, *others = node.args
        if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            yield ast.Call(node.func, [second, first, *others], node.keywords)


def _negated(test: ast.expr, statement: ast.AST, owner: ast.AST, field: str) -> Iterator[Change]:
    if not isinstance(test, (ast.Compare, ast.UnaryOp)):  # which have mutants of their own
        yield statement, owner, field, None, ast.UnaryOp(ast.Not(), test)


def _can_go(node: ast.AST) -> bool:
    """Whether a statement can be left out and names stay bound."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    return isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue)) or (
        isinstance(node, ast.If) and not node.orelse
    )


def _is_text(node: ast.AST) -> bool:
    """A docstring, an ellipsis, or something for the log."""
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True
    call = node.value
    return isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("logger.", "logging."))


def _is_alias(node: ast.AST) -> bool:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation) == "TypeAlias"
    return isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("logging.", "tuple[", "NDArray["))
