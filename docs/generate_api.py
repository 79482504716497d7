"""Writes ``docs/runtime-api.md``: the reference of ``rmi_runtime``, from its docstrings.

Run ``python docs/generate_api.py``; a test fails while the page is not up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rmi_runtime
from rmi_runtime import compat, errors

PAGE = Path(__file__).parent / "runtime-api.md"

HEAD = """# Reference of `rmi_runtime`

<!-- Made by: python docs/generate_api.py -->

Everything here is imported from `rmi_runtime` itself, except where it says otherwise. `expose`,
`oneway`, `behavior`, `callback` and `URI` are Pyro5's own. The members of proxies that are not the
remote object's begin with an underscore, because all other names are the remote object's.

"""

# Not described a second time: Pyro5's own, and plain values.
PYRO5 = {"URI", "behavior", "callback", "expose", "oneway"}
GROUPS = {
    "Servers": ("Daemon", "DaemonLimits", "run_service", "ServiceContext"),
    "Clients": ("Proxy", "SyncProxy", "RemoteStream"),
    "Calls": ("current_call", "Call", "Connection", "Identity", "allow", "call_as"),
    "Finding and choosing services": ("NameServers", "Entry", "Announcer", "Endpoints"),
}
# Members of these classes that are for their users; of others, all that begin with a letter.
OFFERED = {
    "Daemon": {
        *("start", "drain", "close", "register", "unregister", "uri_for", "proxyFor", "stats"),
        *("greeting", "annotations"),
        *("requestLoop", "shutdown", "uriFor", "resetMetadataCache", "validateHandshake"),
        *("clientDisconnect", "housekeeping", "objectsById", "locationStr", "natLocationStr"),
    },
    "Proxy": {"_call", "_set", "_batch", "_bind", "_close", "_connected"},
    "SyncProxy": {"_call", "_batch", "_bind", "_close", "_claim_ownership"},
}
DEFAULT_LENGTH_MAX = 50
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
_ITEM = re.compile(r"([*\w., ]+): (.*)$")


def page() -> str:
    """Return the page as Markdown."""
    names = [name for name in rmi_runtime.__all__ if not _is_plain(name)]
    grouped = {name for group in GROUPS.values() for name in group}
    groups = {**GROUPS, "Others": tuple(sorted(set(names) - grouped, key=str.lower))}
    parts = [HEAD]
    for title, members in groups.items():
        parts.append(f"## {title}\n\n")
        parts += [_described(name, getattr(rmi_runtime, name), "###") for name in members]
    parts.append("## In place of Pyro5's daemon: `rmi_runtime.compat`\n\n")
    parts.append(_text(inspect.getdoc(compat) or ""))
    parts += [_described(name, getattr(compat, name), "###") for name in ("Daemon", "serve")]
    parts.append("## Errors: `rmi_runtime.errors`\n\n")
    parts.append(_errors())
    return "".join(parts).rstrip() + "\n"


def _is_plain(name: str) -> bool:
    thing = getattr(rmi_runtime, name)
    return name in PYRO5 or not (inspect.isclass(thing) or inspect.isfunction(thing))


def _described(name: str, thing: Any, heading: str) -> str:
    kind = "class " if inspect.isclass(thing) else ""
    parts = [f"{heading} {name}\n\n```python\n{kind}{name}{_signature(thing)}\n```\n\n"]
    parts.append(_text(inspect.getdoc(thing) or ""))
    if inspect.isclass(thing):
        for member_name, member in _members(name, thing):
            parts.append(_member(name, member_name, member))
    return "".join(parts)


def _members(name: str, cls: type) -> Iterator[tuple[str, Any]]:
    offered = OFFERED.get(name)
    for member_name, member in vars(cls).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not inspect.isfunction(function) or not function.__doc__:
            continue
        if member_name in offered if offered else not member_name.startswith("_"):
            yield member_name, member


def _member(owner: str, name: str, member: Any) -> str:
    if isinstance(member, property):
        title, function = f"{owner.lower()}.{name}", member.fget
    else:
        function = getattr(member, "__func__", member)
        prefix = "await " if inspect.iscoroutinefunction(function) else ""
        title = f"{prefix}{owner.lower()}.{name}{_signature(function, skip_self=True)}"
    text = _text(inspect.getdoc(function) or "")
    return f"#### {owner}.{name}\n\n```python\n{title}\n```\n\n{text}"


def _signature(thing: Any, *, skip_self: bool = False) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = list(signature.parameters.values())
    if skip_self and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    shown: list[str] = []
    starred = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            shown.append("*")
        shown.append(_parameter(parameter))
    result = signature.return_annotation
    arrow = f" -> {_annotation(result)}" if isinstance(result, str) and result != "None" else ""
    line = f"({', '.join(shown)}){arrow}"
    if len(line) <= 90:
        return line
    return "(\n    " + ",\n    ".join(shown) + f",\n){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = parameter.default
        shown = default.__name__ if inspect.isclass(default) else repr(default)
        dull = shown.startswith("<") or len(shown) > DEFAULT_LENGTH_MAX
        text += f" = {'...' if dull else shown}"
    return text


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")


def _text(doc: str) -> str:
    """Turn a docstring into Markdown: sections into lists, reStructuredText marks into code."""
    lines: list[str] = []
    in_section = in_code = False
    section_name = ""
    for line in doc.splitlines():
        section = _SECTION.match(line)
        if section:
            section_name = section[1]
            lines += ["", f"**{section_name}**", ""]
            in_section = True
        elif in_section and line.startswith("    "):
            item = _ITEM.match(line.strip())
            nested = line.startswith("        ")
            plain = item is None or nested or section_name in ("Returns", "Yields")
            indent = "" if section_name in ("Returns", "Yields") else "  "
            lines.append(f"{indent}{line.strip()}" if plain else f"- `{item[1]}`: {item[2]}")
        elif line.endswith("::"):
            lines += [line[:-1], "", "```python"]
            in_code = True
        elif in_code and line and not line.startswith("    "):
            lines += ["```", "", line]
            in_code = False
        else:
            in_section = in_section and not line
            lines.append(line[4:] if in_code else line)
    if in_code:
        lines.append("```")
    text = "\n".join(lines)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r":(?:class|meth|mod|func):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"```python\n\n+", "```python\n", re.sub(r"\n\n+```\n", "\n```\n", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"


def _errors() -> str:
    rows = [
        "| error | code | certainly without effect | HTTP | for stock clients | |",
        "|" + "---|" * 6,
    ]
    for cls in _tree(errors.RmiError):
        if cls.__module__ == errors.__name__:
            doc = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
            doc = re.sub(r"``([^`]+)``", r"`\1`", doc)
            certain = "yes" if cls.definite else "no"
            builtin = cls.builtin.__name__
            rows.append(
                f"| `{cls.__name__}` | `{cls.code}` | {certain} | {cls.http_status} "
                f"| `{builtin}` | {doc} |"
            )
    return "\n".join(rows) + "\n"


def _tree(cls: type[errors.RmiError]) -> Iterator[type[errors.RmiError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
