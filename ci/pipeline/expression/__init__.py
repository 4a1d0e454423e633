"""Expressions of `evaluate`: the expr language over the build's variables, which are text. Pure.

    source -> lexer -> parser -> Expression -> evaluator (functions)

Source of the rules: the language definition of expr-lang; docs/reference/expressions.md has them for our
users. Nothing an expression does has an effect, and what it may take is bounded: length, nesting, steps, size
of values.
"""

from ci.pipeline.expression.errors import BadExpression
from ci.pipeline.expression.expression import Expression, parse

__all__ = ["BadExpression", "Expression", "parse"]
