"""Functions of coordinates from text: arithmetic and a few functions, nothing that could do anything else."""

import ast
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

NAMES = ("x", "y", "z")
CONSTANTS = {"pi": math.pi, "e": math.e}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in ("sin", "cos", "tan", "exp", "log", "sqrt", "abs", "sinh", "cosh", "tanh", "sign", "minimum", "maximum")
}
OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
LONGEST = 2_000


def function_of_points(text: str | float, dimension: int, name: str) -> Callable[[Array], Array]:
    """A function of points ``(n, d)`` that returns ``(n,)``.

    Parameters
    ----------
    text : str or float
        An expression of x, y, z, as many as there are coordinates; t is another name of the last.
    dimension : int
        d.
    name : str
        What it is, for messages.

    Raises
    ------
    ValueError
        If it is no such expression.

    Examples
    --------
    >>> wave = function_of_points("sin(pi * x) * t**2", 2, "rhs")
    >>> wave(np.array([[0.5, 3.0]]))
    array([9.])
    """
    names = [*NAMES[:dimension], "t"]
    tree = parse(text, names, name)

    def value(points: Array) -> Array:
        columns = [points[:, axis] for axis in (*range(dimension), -1)]
        found = evaluate(tree, dict(zip(names, columns, strict=True)))
        return np.broadcast_to(np.asarray(found, float), (len(points),)).copy()

    return value


def function_of(text: str | float, variable: str, name: str) -> Callable[[Array], Array]:
    """A function of one array, elementwise.

    Parameters
    ----------
    text : str or float
        An expression of the variable.
    variable : str
        Its name.
    name : str
        What it is, for messages.
    """
    tree = parse(text, [variable], name)
    return lambda u: np.broadcast_to(np.asarray(evaluate(tree, {variable: u}), float), np.shape(u)).copy()


def number(text: str | float, name: str) -> float:
    """A number, or an expression without variables.

    Parameters
    ----------
    text : str or float
    name : str
        What it is, for messages.
    """
    return float(evaluate(parse(text, [], name), {}))


def parse(text: str | float, names: Sequence[str], name: str) -> ast.expr:
    """The tree of an expression, with nothing in it but what is allowed.

    Parameters
    ----------
    text : str or float
    names : sequence of str
        Variables that it may have.
    name : str
        What it is, for messages.
    """
    try:
        if len(str(text)) > LONGEST:
            raise SyntaxError(f"it is longer than {LONGEST} characters")
        tree = ast.parse(str(text), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name} must be an expression, got {str(text)[:80]!r}: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
        elif isinstance(node, ast.Name):
            fine = node.id in names or node.id in CONSTANTS or node.id in FUNCTIONS
        elif isinstance(node, ast.Constant):
            fine = type(node.value) in (int, float)
        elif isinstance(node, (ast.BinOp, ast.UnaryOp)):
            fine = type(node.op) in OPERATIONS
        else:
            fine = isinstance(node, (ast.operator, ast.unaryop, ast.expr_context))
        if not fine:
            raise ValueError(
                f"{name}={str(text)[:80]!r} holds {ast.unparse(node)!r}: an expression has numbers, + - * / **, "
                f"{', '.join([*names, *CONSTANTS])}, and the functions {', '.join(FUNCTIONS)}"
            )
    return tree


def evaluate(node: ast.expr, values: dict[str, Any]) -> Any:
    """The value of a tree that `parse` has let through.

    Parameters
    ----------
    node : ast.expr
    values : dict
        Of its variables.
    """
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id] if node.id in values else CONSTANTS[node.id]
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](evaluate(node.left, values), evaluate(node.right, values))
    if isinstance(node, ast.UnaryOp):
        return OPERATIONS[type(node.op)](evaluate(node.operand, values))
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return FUNCTIONS[node.func.id](*(evaluate(argument, values) for argument in node.args))
