"""`pushforward families`: the architectures there are, and the arguments of one.

All of it is read off the registry: what a family is and when to take it (`About`), and the fields
of its configuration as pydantic's JSON schema has them.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.cli.plain_errors import plain_errors

if TYPE_CHECKING:
    from rich.console import Console

    from models.families.about import Example
    from models.registry import Family

Name = Annotated[
    str | None,
    typer.Argument(help="Family whose arguments are shown; left out, all are listed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

Schema = Mapping[str, Any]

# Where output is not a terminal, a family is one line, and tables of arguments are wide.
_WIDTH_OF_LIST = 1000
_WIDTH_OF_ARGUMENTS = 180
_REFERENCE = "#/$defs/"
_COST = (
    "encode (log_prob, score) and decode (sample): passes of each network; D: the number of "
    "features; evaluations: as many as a row needs, told by `evaluations`."
)


def families(name: Name = None, *, json: Json = False) -> None:
    """List the families of flows and when to take which, or the arguments of one."""
    with plain_errors():
        from models.registry import FAMILIES, find_family

        if name is None:
            facts = {"families": [_summary(key, family) for key, family in FAMILIES.items()]}
            show = _show_list
        else:
            facts = describe(name, find_family(name))
            show = _show_family
        if json:
            import orjson

            typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        else:
            show(facts)


def describe(name: str, family: "Family") -> dict[str, Any]:
    """All that is known of a family, as JSON can hold it.

    Returns:
        `arguments`, and `parts`: the arguments of those arguments that are objects, one entry a
        kind. `schema` is the same as a JSON schema.
    """
    schema = family.config.model_json_schema()
    example = family.about.example
    return {
        **_summary(name, family),
        "description": schema["description"],
        "arguments": _arguments(schema, schema),
        "parts": _parts(schema),
        "examples": {"train": _train(name, example), "build": _build(name, example)},
        "schema": schema,
    }


def _summary(name: str, family: "Family") -> dict[str, Any]:
    about = family.about
    return {
        "name": name,
        "what": about.what,
        "data": about.data,
        "when": about.when,
        "cost": asdict(about.cost),
    }


def _train(name: str, example: "Example") -> str:
    """A command that trains a family."""
    words = ["pushforward", "train", "--data", example.data, "--family", name]
    for argument, value in example.arguments.items():
        words += ["--set", f"{argument}={_text(value)}"]
    for option, word in example.options.items():
        words += [f"--{option.replace('_', '-')}", word]
    return shlex.join([*words, "--out", f"my-{name.replace('_', '-')}"])


def _build(name: str, example: "Example") -> str:
    """Python that builds the same flow, without what training takes from the data."""
    config = {"event_shape": list(example.event_shape), **example.arguments}
    return f'import pushforward\n\nflow = pushforward.build("{name}", {config})'


def _arguments(part: Schema, schema: Schema) -> list[dict[str, Any]]:
    """The arguments of a part of a schema; its kind, which is fixed, is none."""
    found = []
    for name, info in part.get("properties", {}).items():
        if "const" in info:
            continue
        is_required = name in part.get("required", ())
        argument = {"name": name, "type": _type(info, schema), "required": is_required}
        if not is_required:
            argument["default"] = _shorten(info["default"], info, schema)
        found.append({**argument, "meaning": info.get("description", "")})
    return found


def _parts(schema: Schema) -> list[dict[str, Any]]:
    """The arguments of arguments, in the order in which they are met."""
    users: dict[str, list[str]] = {}
    waiting: list[Schema] = [schema]
    while waiting:
        for argument, info in waiting.pop(0).get("properties", {}).items():
            for reference in _references(info):
                if reference not in users:
                    users[reference] = []
                    waiting.append(schema["$defs"][reference])
                if argument not in users[reference]:
                    users[reference].append(argument)
    parts = []
    for reference, arguments_of in users.items():
        part = schema["$defs"][reference]
        parts.append(
            {
                "of": arguments_of,
                "kind": _kind(part),
                "meaning": part["description"].partition("\n\n")[0],
                "arguments": _arguments(part, schema),
            }
        )
    return parts


def _references(info: Any) -> Iterator[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(info, list):
        for item in info:
            yield from _references(item)
    elif isinstance(info, dict):
        if "$ref" in info:
            yield info["$ref"].removeprefix(_REFERENCE)
        for key in ("anyOf", "oneOf", "items"):
            yield from _references(info.get(key))


def _kind(part: Schema) -> str | None:
    kind: str | None = part["properties"].get("kind", {}).get("const")
    return kind


def _type(info: Schema, schema: Schema) -> str:
    """What a value may be, with its bounds, in words."""
    if "anyOf" in info:
        return " or ".join(_type(option, schema) for option in info["anyOf"])
    if "$ref" in info or "oneOf" in info:
        kinds = [_kind(schema["$defs"][reference]) for reference in _references(info)]
        return " | ".join(f'{{"kind": "{kind}"}}' if kind else "object" for kind in kinds)
    if "enum" in info:
        return " | ".join(map(str, info["enum"]))
    match info["type"]:
        case "array":
            return _list_type(info, schema)
        case "boolean":
            return "true | false"
        case "integer" | "number":
            return f"{info['type']}{_bounds(info)}"
        case other:
            return str(other)


def _list_type(info: Schema, schema: Schema) -> str:
    if "prefixItems" in info:
        return f"[{', '.join(_type(item, schema) for item in info['prefixItems'])}]"
    least, most = info.get("minItems"), info.get("maxItems")
    length = f" of {least or 0} to {most}" if most else f" of {least} or more" if least else ""
    return f"list{length}: {_type(info['items'], schema)}"


def _bounds(info: Schema) -> str:
    if info["type"] == "integer" and "maximum" in info:
        least = info.get("minimum", info.get("exclusiveMinimum", -1) + 1)
        return f" {least} to {info['maximum']}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    stated = [f"{sign} {info[key]}" for key, sign in signs.items() if key in info]
    return f" {', '.join(stated)}" if stated else ""


def _shorten(default: Any, info: Schema, schema: Schema) -> Any:
    """A default, without what is the default of its own parts."""
    if not isinstance(default, dict):
        return default
    parts = [schema["$defs"][reference] for reference in _references(info)]
    (part,) = (part for part in parts if _kind(part) == default.get("kind"))
    own = part["properties"]
    return {
        name: value
        for name, value in default.items()
        if name == "kind" or value != own[name].get("default")
    }


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else dumps(value, separators=(",", ":"))


def _console(width_of_logs: int) -> "Console":
    from rich.console import Console

    # What is in brackets is ours, not rich's markup.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = width_of_logs
    return console


def _show_list(facts: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("family", style="bold", no_wrap=True)
    for heading in ("what it is", "of what", "take it when", "encode", "decode"):
        table.add_column(heading, overflow="fold")
    for family in facts["families"]:
        texts = [family[key] for key in ("name", "what", "data", "when")]
        table.add_row(*texts, *family["cost"].values())
    console = _console(_WIDTH_OF_LIST)
    console.print(table)
    console.print(f"\n{_COST}")
    console.print("\nArguments of one: pushforward families NAME")


def _show_family(facts: Mapping[str, Any]) -> None:
    console = _console(_WIDTH_OF_ARGUMENTS)
    console.print(f"{facts['name']}: {facts['what']}; for {facts['data']}")
    console.print(f"Take it when {facts['when']}.")
    cost = facts["cost"]
    console.print(f"encode: {cost['encode']}; decode: {cost['decode']}. {_COST}\n")
    console.print(facts["description"])
    console.print("\nArguments, for --set NAME=VALUE or a JSON file for --config:")
    _show_arguments(console, facts["arguments"])
    for part in facts["parts"]:
        kind = f' = {{"kind": "{part["kind"]}"}}' if part["kind"] else ""
        console.print(f"\n{', '.join(part['of'])}{kind}: {part['meaning']}")
        _show_arguments(console, part["arguments"])
    # These are copied: nothing may break their lines.
    console.print("\nTo train one:", f"\n{facts['examples']['train']}", soft_wrap=True)
    console.print("\nTo build one in Python:", f"\n{facts['examples']['build']}", soft_wrap=True)


def _show_arguments(console: "Console", arguments: list[dict[str, Any]]) -> None:
    from rich.table import Table

    if not arguments:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("argument", style="bold", no_wrap=True)
    for heading in ("value", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for argument in arguments:
        default = "required" if argument["required"] else _text(argument["default"])
        table.add_row(argument["name"], argument["type"], default, argument["meaning"])
    console.print(table)
