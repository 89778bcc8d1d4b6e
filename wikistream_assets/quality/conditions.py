"""The grammar of conditions that come from outside the code, such as the ``--where`` of ``wikistream gate reject``.

A condition is parsed, every node of its tree is looked up in a list of what is allowed, and the SQL that an engine executes is
written from the tree. The author's own text never reaches the engine: two parsers that read it differently cannot disagree about
what was checked.

Allowed are

* the columns of the table, by their bare names,
* strings, numbers, ``TRUE``, ``FALSE``, ``NULL``, ``DATE '..'`` and ``TIMESTAMP '..'``,
* ``= == <> != < <= > >= <=>``, ``AND OR NOT``, ``IS [NOT] NULL | TRUE | FALSE``, ``[NOT] IN (..)``, ``[NOT] BETWEEN``,
  ``[NOT] LIKE .. [ESCAPE '.']``, ``[NOT] RLIKE '..'``, ``+ - * / %`` and parentheses,
* ``abs``, ``coalesce``, ``length``, ``lower``, ``substring`` (or ``substr``), ``trim`` and ``upper``,
* ``cast`` and ``try_cast`` to boolean, int, bigint, double, decimal, string, date or timestamp.

Strings are written as in Spark SQL: in single or double quotes, with a backslash before what is to be taken literally.
"""

import difflib
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from itertools import pairwise
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.expressions import DType
from sqlglot.tokenizer_core import Token, TokenType

from wikistream_assets.exceptions import ConditionError

MAX_LENGTH: Final = 20_000
"""Characters of a condition: some five hundred event ids in a list."""
MAX_DEPTH: Final = 16
"""How deeply its terms may be nested. A row of ANDs or ORs counts as one level."""

_DIALECT: Final = "spark"

_BINARY: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "<=>",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
}
_CHAINS: Final[dict[type[exp.Expr], str]] = {exp.And: " AND ", exp.Or: " OR "}
_FUNCTIONS: Final[dict[type[exp.Expr], tuple[str, ...]]] = {
    exp.Abs: ("this",),
    exp.Coalesce: ("this", "expressions"),
    exp.Length: ("this",),
    exp.Lower: ("this",),
    exp.Substring: ("this", "start", "length"),
    exp.Trim: ("this",),
    exp.Upper: ("this",),
}
"""Each function's arguments, in the order in which they are written."""
_CALLED: Final = frozenset({*(kind.key for kind in _FUNCTIONS), "substr", "cast", "try_cast"})
"""Names of functions that may be called. The parser knows more names for the same ones; these are documented."""
_TYPES: Final = {
    DType.BOOLEAN: "BOOLEAN",
    DType.INT: "INT",
    DType.BIGINT: "BIGINT",
    DType.DOUBLE: "DOUBLE",
    DType.DECIMAL: "DECIMAL",
    DType.TEXT: "STRING",
    DType.DATE: "DATE",
    DType.TIMESTAMP: "TIMESTAMP",
    DType.TIMESTAMPTZ: "TIMESTAMP",
}
_MOMENTS: Final[dict[str, type[date]]] = {"DATE": date, "TIMESTAMP": datetime}
_SETTLED: Final[dict[type[exp.Expr], tuple[str, ...]]] = {exp.Div: ("typed", "safe"), exp.TryCast: ("safe",)}
"""Arguments that the parser sets by itself and that this module writes, or that say nothing in this dialect."""
_NAMES: Final[dict[type[exp.Expr], str]] = {
    exp.Bracket: "[..]",
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.Case: "CASE",
    exp.DPipe: "||",
    exp.Dot: "a field of a value",
    exp.Exists: "a subquery",
    exp.HexString: "a hexadecimal literal",
    exp.IntDiv: "DIV",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
    exp.Parameter: "a parameter",
    exp.Placeholder: "a parameter",
    exp.Star: "*",
    exp.Subquery: "a subquery",
    exp.Tuple: "a list of values outside of IN",
}
"""What a person calls a node whose class says something else."""
_NUMBER: Final = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_ESCAPED: Final = re.compile(r"[\\'\x00-\x1f\x7f]")


def checked(condition: str, columns: Collection[str]) -> str:
    """The condition in SQL that says the same and holds nothing but what the grammar allows.

    Args:
        condition: as a person wrote it.
        columns: names of the table's columns; case does not matter.

    Raises:
        ConditionError: it is empty, too long, too deeply nested, does not parse, or holds something else; one line that names it.
    """
    _refuse_by_text(condition)
    try:
        _refuse_by_tokens(sqlglot.tokenize(condition, dialect=_DIALECT))
        tree = sqlglot.parse_one(condition, dialect=_DIALECT, into=exp.Condition)
    except RecursionError:  # far beyond MAX_DEPTH
        raise _too_deep() from None
    except SqlglotError as error:
        raise ConditionError(f"it does not parse: {_first_line(error)}") from None
    return _Writer({name.lower(): name for name in columns}).text(tree, 0)


def _refuse_by_text(condition: str) -> None:
    if not condition.strip():
        raise ConditionError("it is empty")
    if len(condition) > MAX_LENGTH:
        raise ConditionError(f"it has {len(condition):,} characters, at most {MAX_LENGTH:,} are allowed; split it")
    try:
        condition.encode()
    except UnicodeEncodeError:
        raise ConditionError("it is not valid UTF-8 text") from None


def _refuse_by_tokens(tokens: list[Token]) -> None:
    """Refuse what leaves no trace in the tree, or a misleading one."""
    kinds = [token.token_type for token in tokens]
    if not tokens or TokenType.HINT in kinds or any(token.comments for token in tokens):
        raise ConditionError("comments are not allowed")
    if TokenType.SEMICOLON in kinds:
        raise ConditionError("';' is not allowed: a condition is one expression")
    if TokenType.ARROW in kinds or TokenType.DARROW in kinds:  # the parser would log what it thinks of the path
        raise ConditionError("'->' is not allowed")
    for name, following in pairwise(tokens):
        called = name.token_type is TokenType.VAR and following.token_type is TokenType.L_PAREN
        if called and name.text.lower() not in _CALLED:
            raise ConditionError(f"the function {name.text} is not allowed, only {', '.join(sorted(_CALLED))}")
    if (TokenType.STRING, TokenType.STRING) in pairwise(kinds):
        raise ConditionError(r"two strings stand side by side: write a quote within a string as \'")


class _Writer:
    """Writes a tree as SQL; refuses each node that it has no rule for."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._rules: dict[type[exp.Expr], Callable[[exp.Expr, int], str]] = {
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.RawString: self._literal,
            exp.Boolean: lambda node, _: "TRUE" if node.this else "FALSE",
            exp.Null: lambda *_: "NULL",
            exp.Paren: lambda node, depth: self.text(node.this, depth),
            exp.Not: lambda node, depth: f"(NOT {self.text(node.this, depth)})",
            exp.Neg: lambda node, depth: f"(-{self.text(node.this, depth)})",
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: self._between,
            exp.Like: self._like,
            exp.Escape: self._escape,
            exp.RegexpLike: self._rlike,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_CHAINS, self._chain),
            **dict.fromkeys(_FUNCTIONS, self._function),
        }

    def text(self, node: exp.Expr, depth: int) -> str:
        """The SQL of ``node``, in parentheses wherever another operator could bind to a part of it."""
        if depth >= MAX_DEPTH:
            raise _too_deep()
        rule = self._rules.get(type(node))
        if rule is None:
            raise ConditionError(f"{_name(node)} is not allowed; docs/RUNBOOK.md lists what is")
        return rule(node, depth + 1)

    def _column(self, node: exp.Expr, _: int) -> str:
        if not isinstance(node.this, exp.Identifier) or node.args.get("table"):
            raise ConditionError(
                f"{reprlib.repr(node.name)} has a dot before it: columns are named alone, and their fields not at all"
            )
        name = self._columns.get(node.name.lower())
        if name is None:
            close = difflib.get_close_matches(node.name.lower(), self._columns, n=1)
            raise ConditionError(
                f"there is no column {reprlib.repr(node.name)}" + (f"; did you mean {close[0]}?" if close else "")
            )
        return f"`{name}`"

    def _literal(self, node: exp.Expr, _: int) -> str:
        if isinstance(node, exp.RawString) or node.is_string:
            return _quoted(node.name)
        if not _NUMBER.fullmatch(node.name):
            raise ConditionError(f"{reprlib.repr(node.name)} is not a number that is allowed")
        return str(node.name)

    def _binary(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "expression")
        return f"({self.text(node.this, depth)} {_BINARY[type(node)]} {self.text(node.expression, depth)})"

    def _chain(self, node: exp.Expr, depth: int) -> str:
        terms = (self.text(term, depth) for term in node.flatten(unnest=False))
        return f"({_CHAINS[type(node)].join(terms)})"

    def _is(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "expression")
        if not isinstance(node.expression, exp.Null | exp.Boolean):
            raise ConditionError("IS takes NULL, TRUE or FALSE")
        return f"({self.text(node.this, depth)} IS {self.text(node.expression, depth)})"

    def _in(self, node: exp.Expr, depth: int) -> str:
        if node.args.get("query"):
            raise ConditionError("a subquery is not allowed")
        _only(node, "this", "expressions")
        if not node.expressions:
            raise ConditionError("IN needs a list of values in parentheses")
        values = ", ".join(self.text(value, depth) for value in node.expressions)
        return f"({self.text(node.this, depth)} IN ({values}))"

    def _between(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "low", "high")
        bounds = " AND ".join(self.text(node.args[name], depth) for name in ("low", "high"))
        return f"({self.text(node.this, depth)} BETWEEN {bounds})"

    def _like(self, node: exp.Expr, depth: int, escape: str = "") -> str:
        _only(node, "this", "expression", "negate")
        like = "NOT LIKE" if node.args.get("negate") else "LIKE"
        return f"({self.text(node.this, depth)} {like} {self.text(node.expression, depth)}{escape})"

    def _escape(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "expression")
        sign = node.expression
        if type(node.this) is not exp.Like or not sign.is_string or len(sign.name) != 1:
            raise ConditionError("ESCAPE takes one character, after LIKE")
        return self._like(node.this, depth, f" ESCAPE {_quoted(sign.name)}")

    def _rlike(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "expression", "negate")
        if not isinstance(node.expression, exp.Literal | exp.RawString):
            raise ConditionError("RLIKE takes its pattern as a string")
        rlike = "NOT RLIKE" if node.args.get("negate") else "RLIKE"
        return f"({self.text(node.this, depth)} {rlike} {self.text(node.expression, depth)})"

    def _function(self, node: exp.Expr, depth: int) -> str:
        _only(node, *_FUNCTIONS[type(node)])
        found = (node.args.get(name) for name in _FUNCTIONS[type(node)])
        arguments = [each for value in found for each in (value if isinstance(value, list) else [value]) if each]
        return f"{node.key.upper()}({', '.join(self.text(argument, depth) for argument in arguments)})"

    def _cast(self, node: exp.Expr, depth: int) -> str:
        _only(node, "this", "to")
        kind = _type(node.args["to"])
        # The parser tells DATE '..' from CAST('..' AS DATE) by the class.
        if type(node) is exp.Cast and node.this.is_string and kind in _MOMENTS:
            return _moment(kind, node.this.name)
        cast = "TRY_CAST" if node.args.get("safe") else "CAST"
        return f"{cast}({self.text(node.this, depth)} AS {kind})"


def _only(node: exp.Expr, *allowed: str) -> None:
    """Refuse a node that carries more than the arguments that are written."""
    for name, value in node.args.items():
        if value and name not in (*allowed, *_SETTLED.get(type(node), ())):
            raise ConditionError(f"{_name(node)} with {name.rstrip('_').upper()} is not allowed")


def _type(node: exp.Expr) -> str:
    kind = _TYPES.get(node.this)
    parameters = [parameter.name for parameter in node.expressions]
    if kind is None or (parameters and kind != "DECIMAL") or not all(text.isdecimal() for text in parameters):
        raise ConditionError(f"the type {node.sql(dialect=_DIALECT)[:30]} is not allowed")
    return f"{kind}({', '.join(parameters)})" if parameters else kind


def _moment(kind: str, text: str) -> str:
    try:
        moment = _MOMENTS[kind].fromisoformat(text.strip())
    except ValueError:
        raise ConditionError(
            f"{reprlib.repr(text)} is no {kind}: write it as in 2026-03-01 or 2026-03-01 10:00:00Z"
        ) from None
    return f"{kind} {_quoted(str(moment))}"


def _quoted(value: str) -> str:
    return "'" + _ESCAPED.sub(lambda found: _escape_of(found[0]), value) + "'"


def _escape_of(sign: str) -> str:
    return f"\\{sign}" if sign in "\\'" else f"\\u{ord(sign):04x}"


def _name(node: exp.Expr) -> str:
    if known := _NAMES.get(type(node)):
        return known
    if isinstance(node, exp.Anonymous):
        return f"the function {reprlib.repr(node.name)}"
    return (
        f"the function {node.meta.get('name') or node.sql_name()}" if isinstance(node, exp.Func) else node.key.upper()
    )


def _too_deep() -> ConditionError:
    return ConditionError(f"it is nested too deeply, at most {MAX_DEPTH} levels are allowed")


def _first_line(error: SqlglotError) -> str:
    found = getattr(error, "errors", None)
    if found:
        what = "something is missing" if "Required keyword" in found[0]["description"] else found[0]["description"]
        return f"{what} (line {found[0]['line']}, column {found[0]['col']})"
    return str(error).splitlines()[0]
