"""Layer 1: the gate allows one SELECT on the published tables and refuses every other statement.

It checks the syntax tree of DuckDB's own parser, so that what is checked is what would run. Every kind of node must be
listed here, every table must be published, and every function must be listed in `functions`.
"""

import difflib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import duckdb
import orjson

from music_assets.service.sandbox import functions

CATALOG = "music_db"
NO_LOCATION = 2**63
"""Locations from this value on mean that the node has no position in the text."""

EXPRESSIONS = functions.words(
    """
    BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA OPERATOR PARAMETER
    POSITIONAL_REFERENCE STAR SUBQUERY TYPE WINDOW
    """
)
NODES = functions.words(
    """
    SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE
    BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST EMPTY PIVOT SHOW_REF
    LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER DISTINCT_MODIFIER
    ORDER_DEFAULT ASCENDING DESCENDING
    """
)
PLAIN_NAME = re.compile(r"[\w ]+")
EXPLAIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(explain)\b", re.IGNORECASE | re.DOTALL | re.ASCII)
CATALOG_VIEWS = (
    "SELECT schema_name, view_name FROM duckdb_views() WHERE internal AND schema_name <> 'information_schema'"
)
"""The views of the catalog that can be read without naming their schema."""
MAX_ARRAY_ELEMENTS = 100_000
"""Elements in a value of an array type; of nested arrays the product. DuckDB allocates room for all of them."""
_LOWER_CASE = str.maketrans(ascii_uppercase, ascii_lowercase)


class GateError(Exception):
    """The statement is refused: `kind` is the kind of problem, `location` the offset in bytes in the SQL."""

    def __init__(self, kind: str, detail: str, location: int | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.location = location


@dataclass(frozen=True)
class Allowed:
    """A statement that may run: the tables it reads, and whether its result depends on more than these."""

    volatile: bool
    tables: frozenset[str]


class Gate:
    """Checks statements against the tables of one snapshot."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> None:
        self._connection = connection
        self._tables = {fold(table) for table in tables}
        self._reserved = {fold(name) for _, name in connection.execute(CATALOG_VIEWS).fetchall()}

    def check(self, sql: str) -> Allowed:
        """Return what the caller must know about an allowed statement.

        Raises GateError of kind `syntax`, `not-allowed` or `unknown-table`.
        """
        if "\0" in sql:
            raise GateError("syntax", "The SQL contains a NUL character.", len(sql[: sql.index("\0")].encode()))
        kind = self._only_statement(sql)
        select = self._explained_select(sql) if kind == "EXPLAIN" else sql
        if kind not in ("SELECT", "EXPLAIN"):
            raise GateError("not-allowed", f"Only SELECT is allowed, not {kind}.")
        checker = _TreeChecker(self._tables, self._reserved)
        try:
            checker.visit(self._tree(select), frozenset())
        except RecursionError:
            raise GateError("not-allowed", "The SQL is nested too deeply.") from None
        return Allowed(checker.volatile, frozenset(checker.read))

    def _explained_select(self, sql: str) -> str:
        """Return the SELECT after EXPLAIN, with blanks in front so that its positions in the text stay the same."""
        word = EXPLAIN.match(sql)
        if word is None:
            raise GateError("not-allowed", "EXPLAIN must be the first word.")
        select = sql[: word.start(1)] + " " * len(word[1]) + sql[word.end(1) :]
        try:
            plain = self._only_statement(select) == "SELECT"
        except GateError:
            plain = False
        if not plain:
            raise GateError("not-allowed", "EXPLAIN is allowed for a SELECT and without options.")
        return select

    def _only_statement(self, sql: str) -> str:
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error as error:
            raise _syntax(error) from None
        if len(statements) != 1:
            raise GateError("not-allowed", f"Send exactly one statement, not {len(statements)}.")
        return statements[0].type.name

    def _tree(self, select: str) -> Any:
        try:
            ((serialized,),) = self._connection.execute(
                "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)", [select]
            ).fetchall()
            tree = orjson.loads(serialized)
        except duckdb.Error as error:
            raise _syntax(error) from None
        except orjson.JSONDecodeError:
            # orjson refuses deep nesting, but also any text if memory is short. Only the first is a fault of the SQL.
            tree = json.loads(serialized)
        if tree["error"] or len(tree["statements"]) != 1:
            raise GateError("not-allowed", "Only a plain SELECT is allowed.")
        return tree["statements"][0]


class _TreeChecker:
    """Checks one syntax tree. `ctes` are the names that WITH defines in the scope of a node."""

    def __init__(self, tables: Collection[str], reserved: Collection[str]) -> None:
        self._tables = tables
        self._reserved = reserved
        self.volatile = False
        self.read: set[str] = set()

    def visit(self, node: Any, ctes: frozenset[str]) -> None:
        if isinstance(node, list):
            for child in node:
                self.visit(child, ctes)
        elif isinstance(node, dict):
            self._check_kind(node)
            ctes = self._with_clause(node, ctes)
            self._check(node, ctes)
            for key, child in node.items():
                if key == "function" and node.get("type") == "TABLE_FUNCTION":
                    self.visit(child.get("arguments", []), ctes)
                elif key != "cte_map":
                    self.visit(child, ctes)

    def _with_clause(self, node: dict[str, Any], ctes: frozenset[str]) -> frozenset[str]:
        for entry in (node.get("cte_map") or {}).get("map", ()):
            name = entry["key"]
            if not PLAIN_NAME.fullmatch(name):
                raise GateError(
                    "not-allowed", f"The name {name!r} in WITH may only contain letters, digits, _ and blanks."
                )
            # Where DuckDB does not find a CTE of this name in scope, it would read the view of the catalog.
            if fold(name) in self._reserved:
                raise GateError("not-allowed", f"The name {name!r} in WITH is the name of a view of DuckDB's catalog.")
            recursive = entry["value"].get("query_node", {}).get("type") == "RECURSIVE_CTE_NODE"
            self.visit(entry["value"], ctes | {fold(name)} if recursive else ctes)
            ctes |= {fold(name)}
        return ctes

    def _check_kind(self, node: dict[str, Any]) -> None:
        if "class" in node:
            allowed = node["class"] in EXPRESSIONS
        else:
            kind = node.get("type")
            allowed = not isinstance(kind, str) or kind in NODES
        if not allowed:
            kind = str(node.get("type")).removesuffix("_NODE").replace("_", " ")
            raise GateError("not-allowed", f"{kind} is not allowed in a query.", _location(node))

    def _check(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        kind = node.get("class") or node.get("type")
        if node.get("sample"):
            self.volatile = True
        if kind == "BASE_TABLE":
            self._check_table(node, ctes)
        elif kind == "TABLE_FUNCTION":
            self._check_function(node["function"], functions.TABLE, _location(node))
        elif kind == "FUNCTION":
            self._check_function(node, functions.SCALAR | functions.AGGREGATE | functions.OPERATORS)
        elif kind == "WINDOW":
            self._check_function(node, functions.WINDOW | functions.AGGREGATE)
        elif kind == "COLUMN_REF":
            self._check_column(node)
        elif kind == "COLLATE":
            self._check_words(node, str(node.get("collation")).split("."), functions.COLLATIONS, "collation")
        elif kind == "TYPE":
            self._check_type(node)
        elif kind == "SHOW_REF":
            self._check_show(node, ctes)

    def _check_table(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        path = [fold(part) for part in node["qualified_name"]["path"]]
        name = node["table_name"]
        if node.get("at_clause"):
            raise GateError("not-allowed", "AT is not allowed: a query reads one snapshot.", _location(node))
        if len(path) == 1 and path[0] in ctes:
            return
        if path[-1] not in self._tables or path[:-1] not in ([], [CATALOG], ["main"], [CATALOG, "main"]):
            raise GateError("unknown-table", f"There is no table {name!r}.{self._hint(name)}", _location(node))
        self.read.add(path[-1])

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(fold(name)[:200], self._tables, n=1)
        return f" Did you mean {close[0]!r}?" if close else " GET /tables lists the tables."

    def _check_function(self, node: dict[str, Any], allowed: frozenset[str], location: int | None = None) -> None:
        names = {fold(str(node.get("function_name"))), fold(node["qualified_name"]["path"][-1])}
        if not names <= allowed:
            name = node.get("function_name")
            raise GateError("not-allowed", f"The function {name!r} is not allowed.", location or _location(node))
        if names & functions.AGGREGATE_BY_NAME:
            self._check_aggregate_by_name(node)
        self.volatile |= not names.isdisjoint(functions.VOLATILE)

    def _check_aggregate_by_name(self, node: dict[str, Any]) -> None:
        """Check the second argument, the name of the aggregate function as text. It may also be called as a method."""
        arguments = [argument.get("expression", argument) for argument in node.get("arguments", [])]
        literal = arguments[1].get("literal", {}) if len(arguments) > 1 else {}
        name = fold(literal.get("text", ""))
        if literal.get("kind") != "STRING" or name not in functions.AGGREGATE:
            raise GateError(
                "not-allowed",
                f"The second argument of {node.get('function_name')!r} must be the name of an allowed aggregate "
                "function, as text.",
                _location(node),
            )
        self.volatile |= name in functions.VOLATILE

    def _check_column(self, node: dict[str, Any]) -> None:
        if len(node["column_names"]) != 1:
            return
        name = fold(node["column_names"][0])
        if name in functions.HIDDEN_VALUES:
            raise GateError("not-allowed", f"{name!r} is not allowed.", _location(node))
        self.volatile |= name in functions.VALUES

    def _check_type(self, node: dict[str, Any]) -> None:
        words = [str(node.get("type_name")), *(node.get("qualified_name") or {}).get("path", [])]
        self._check_words(node, words, functions.TYPES, "type")
        if _elements(node) > MAX_ARRAY_ELEMENTS:
            detail = f"An array type may have at most {MAX_ARRAY_ELEMENTS} elements."
            raise GateError("not-allowed", detail, _location(node))

    def _check_words(self, node: dict[str, Any], words: list[str], allowed: frozenset[str], what: str) -> None:
        for word in words:
            if fold(word).replace(" ", "_") not in allowed:
                raise GateError("not-allowed", f"The {what} {word!r} is not allowed.", _location(node))

    def _check_show(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        kind = node.get("show_type")
        name = str(node.get("table_name", ""))
        listing = kind == "SHOW_SPECIAL" and name == '"tables"'
        table = kind == "SHOW" and fold(name) in self._tables
        query = kind in ("DESCRIBE", "SUMMARY") and "query" in node
        if not (listing or table or query):
            raise GateError(
                "not-allowed", "SHOW, DESCRIBE and SUMMARIZE are allowed for a published table or a SELECT."
            )


def fold(name: str) -> str:
    """Return a name in lower case as DuckDB compares names: only ASCII letters have one."""
    return name.translate(_LOWER_CASE)


def _elements(kind: dict[str, Any]) -> int:
    """Return the number of elements in a value of a type: of arrays the product, of other nested types the sum."""
    children = [child for child in kind.get("children", ()) if child.get("class") == "TYPE"]
    inside = sum(map(_elements, children)) or 1
    if fold(str(kind.get("type_name"))) != "array":
        return inside
    sizes = [child.get("literal", {}).get("text", "") for child in kind["children"]]
    return inside * max((int(size) for size in sizes if size.isascii() and size.isdigit()), default=1)


def _location(node: dict[str, Any]) -> int | None:
    location = node.get("query_location", NO_LOCATION)
    return location if location < NO_LOCATION else None


def _syntax(error: duckdb.Error) -> GateError:
    message, location = parse_error(error)
    return GateError("syntax", message, location)


def parse_error(error: duckdb.Error) -> tuple[str, int | None]:
    """Return message and location (in bytes) of an error from a connection with `errors_as_json`."""
    text = str(error)
    start = text.find("{")
    try:
        content = orjson.loads(text[start:]) if start >= 0 else {}
    except orjson.JSONDecodeError:
        content = {}
    if not isinstance(content, dict) or "exception_message" not in content:
        return text.partition(": ")[2] or text, None
    position = content.get("position")
    return content["exception_message"], int(position) if position is not None else None
