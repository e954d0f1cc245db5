"""The readable documentation: the OpenAPI document turned into what the page at /docs shows. Pure."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

Document = Mapping[str, Any]  # Any: a JSON document


class Field(NamedTuple):
    name: str
    kind: str
    text: str
    required: bool


class Operation(NamedTuple):
    id: str
    method: str
    path: str
    summary: str
    fields_are: str
    fields: list[Field]
    curl: str
    answer: str
    problems: list[str]


class Group(NamedTuple):
    name: str
    operations: list[Operation]


class Schema(NamedTuple):
    name: str
    text: str
    fields: list[Field]


class ProblemCode(NamedTuple):
    code: str
    status: int
    title: str
    example: str


class Reference(NamedTuple):
    summary: str
    description: str
    version: str
    groups: list[Group]
    schemas: list[Schema]
    problems: list[ProblemCode]


def make_reference(document: Document, site: str, more_problems: Mapping[str, tuple[int, str]]) -> Reference:
    """Turn the document of a node at the address *site* into its reference.

    *more_problems* are codes of other interfaces, whose problems point to the same page.
    """
    operations = list(_operations(document, site))
    groups = [
        Group(tag["name"], [operation for name, operation in operations if name == tag["name"]])
        for tag in document["tags"]
    ]
    info = document["info"]
    problems = _problems(document)
    known = {problem.code for problem in problems}
    problems += [
        ProblemCode(code, status, title, "")
        for code, (status, title) in more_problems.items()
        if code not in known
    ]
    problems.sort(key=lambda problem: (problem.status, problem.code))
    return Reference(
        info["summary"], info["description"], info["version"], groups, _schemas(document), problems
    )


def _operations(document: Document, site: str) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody")
            yield (
                operation["tags"][0],
                Operation(
                    id=operation["operationId"],
                    method=method.upper(),
                    path=path,
                    summary=operation["summary"],
                    fields_are="Member of the body" if body else "Parameter",
                    fields=_body_fields(document, body) if body else _parameters(operation),
                    curl=_curl(operation, site + path),
                    answer=_pretty(_json_of(operation["responses"]["200"])["example"]),
                    problems=sorted({problem["code"] for problem in _examples(operation)}),
                ),
            )


def _parameters(operation: Document) -> list[Field]:
    return [
        Field(row["name"], kind_of(row["schema"]), row["description"], row["required"])
        for row in operation.get("parameters", ())
    ]


def _body_fields(document: Document, body: Document) -> list[Field]:
    return _members(_resolve(document, _json_of(body)["schema"]))


def _curl(operation: Document, address: str) -> str:
    """Write the question with the examples of what is required, such that a shell runs it as it stands."""
    body = operation.get("requestBody")
    key = KEY_HEADER if operation["security"] else ""
    if body:
        content = json.dumps(_json_of(body)["example"], separators=(",", ":"))
        kind = _quoted("Content-Type: application/json")
        return f"curl {key}{_quoted(address)} \\\n  -H {kind} \\\n  -d {_quoted(content)}"
    required = {row["name"]: row["example"] for row in operation.get("parameters", ()) if row["required"]}
    query = urlencode(required, safe=",")
    return f"curl {key}{_quoted(f'{address}?{query}' if query else address)}"


def _quoted(text: str) -> str:
    quoted = shlex.quote(text)
    return quoted if quoted.startswith("'") else f"'{quoted}'"


def _schemas(document: Document) -> list[Schema]:
    return [
        Schema(name, schema.get("description", ""), _members(schema))
        for name, schema in document["components"]["schemas"].items()
    ]


def _members(schema: Document) -> list[Field]:
    required = schema.get("required", ())
    return [
        Field(name, kind_of(part), part.get("description", ""), name in required)
        for name, part in schema["properties"].items()
    ]


def kind_of(schema: Document) -> str:
    """Say in words what values a schema admits."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(part) for part in schema["anyOf"])
    if "enum" in schema and len(schema["enum"]) <= 5:
        return ", ".join(str(value) for value in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(_KINDS.get(str(kind), str(kind)) for kind in kinds)
    if "array" in kinds:
        words += f" of {kind_of(schema['items'])}"
    if schema.get("format") == "date-time":
        words = "time, RFC 3339"
    if "maximum" in schema:
        words += f", {schema['minimum']:,} to {schema['maximum']:,}"
    return words


KEY_HEADER = '-H "X-API-Key: $TRINITY_KEY" '  # double quotes: the shell puts the key in
_KINDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


def _problems(document: Document) -> list[ProblemCode]:
    found = {
        problem["code"]: ProblemCode(problem["code"], problem["status"], problem["title"], _pretty(problem))
        for methods in document["paths"].values()
        for operation in methods.values()
        for problem in _examples(operation)
    }
    return list(found.values())


def _examples(operation: Document) -> Iterator[Document]:
    for response in operation["responses"].values():
        content = response.get("content", {}).get("application/problem+json", {})
        for example in content.get("examples", {}).values():
            yield example["value"]


def _json_of(part: Document) -> Document:
    content: Document = part["content"]["application/json"]
    return content


def _resolve(document: Document, schema: Document) -> Document:
    if "$ref" not in schema:
        return schema
    found: Document = document["components"]["schemas"][kind_of(schema)]
    return found


def _pretty(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
