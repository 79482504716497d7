"""A parser of serpent's text form that strangers may use: linear in time, no Python grammar.

serpent (Pyro5's default serializer) writes Python literals and reads them back with
``ast.literal_eval``, which runs the whole Python compiler over the text first: 1 MiB of f-strings
keeps that busy for a minute and a half and takes 700 MiB, and 64 KiB of ``1,`` takes 60 ms. Here
only what serpent writes is understood: ``None True False``, numbers, strings, bytes, tuples, lists,
sets and dictionaries. Anything else is refused at the first wrong token, and the number of values
and the depth of nesting are bounded before memory is spent on them. It is some four times as fast.

The format is described at the top of ``serpent.py`` (serpent 1.4x).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from Pyro5.errors import SerializeError

DEPTH_MAX: Final = 200  # as deep as serpent itself writes

# A value and the mark that follows it; whatever is neither becomes one empty token up to the end.
# A value without a mark must be the last of its container: junk makes no more tokens than marks.
# Blanks at the end are an empty token too, or they would be tried again from each one of them.
_PATTERN: Final = r"""
    [ \t\r\n]*+
    (?:
        (
            [\[({]
          | (?: [-+.\w]{1,4400}+ | b?'%s' | b?"%s" | [])}] )
            (?= [ \t\r\n]*+ (?: [],:)}] | \Z ) )
        )
        [ \t\r\n]*+
        ([,:]?)
      | .++
    )
    | [ \t\r\n]++
    """
_FLAGS: Final = re.VERBOSE | re.ASCII | re.DOTALL
_tokens: Final = re.compile(
    _PATTERN % (r"(?:[^'\\\n]++|\\.)*+", r'(?:[^"\\\n]++|\\.)*+'), _FLAGS
).finditer
# The same for text without backslashes and line ends: four times as fast over long strings.
_simple_tokens: Final = re.compile(_PATTERN % ("[^']*+", '[^"]*+'), _FLAGS).finditer
# What most calls look like: names, then a few arguments that are plain strings or short numbers.
_ARGUMENT: Final = r"(?:'[^'\\\n]*+'|-?(?:0|[1-9]\d{0,17}+)(?:\.\d{1,17}+)?+|None|True|False)"
_plain_call: Final = re.compile(
    r"(?:#[^\n]*+\n)?+\('([^'\\\n]*+)','([^'\\\n]*+)',"
    rf"\(((?:{_ARGUMENT},(?:{_ARGUMENT},)*+(?:{_ARGUMENT})?+)?+)\),\{{\}}\)\Z",
    re.ASCII,
).match
_arguments: Final = re.compile(r"'[^']*+'|[^',]++").findall
# The text between strings, in pieces, each with the strings that follow it.
_pieces: Final = re.compile(
    rb"""([^'"]*+)(?:'(?:[^'\\]++|\\.)*+'?|"(?:[^"\\]++|\\.)*+"?|\Z)""", re.DOTALL
).finditer
_simple_pieces: Final = re.compile(rb"""([^'"]*+)(?:'[^']*+'?|"[^"]*+"?|\Z)""").finditer
_number: Final = re.compile(
    r"(?: -?\d+ (?: (\.\d*)? (?:[eE][-+]?\d+)? ([-+][\d.eE+-]+j|j)? ) )\Z", re.VERBOSE | re.ASCII
).match
_escapes: Final = re.compile(
    r"\\(?:([\\'\"abfnrtv\n])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3}))"
    r"|\\[\s\S]"
).sub
_ESCAPED: Final = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\n": "",
}
_TO_BE_ESCAPED: Final = (
    ("\\", "\\\\"),  # first: the others bring their own
    ("'", "\\'"),
    ("\n", "\\n"),
    ("\r", "\\r"),
    ("\0", "\\x00"),
)
_NAMES: Final = {"None": None, "True": True, "False": False}
_CLOSES: Final = {"[": "]", "(": ")", "{": "}"}
_CLOSERS: Final = frozenset("])}")
_QUOTES: Final = frozenset("'\"")
_MARKS: Final = b",:[({])}"
_KEYS_CHECKED_ABOVE: Final = 32
_PLAIN_CALL_BYTES_MAX: Final = 1024


def loads(text: bytes, elements_max: int | None = None) -> Any:
    """Read serpent's text form.

    Args:
        text: UTF-8; the comment line that serpent begins with may be missing.
        elements_max: bound on the number of values in it, or None.

    Returns:
        The value: nested builtins.

    Raises:
        SerializeError: it is not serpent's form, or is too large or too deep.
        UnicodeDecodeError: it is not UTF-8.
    """
    if elements_max is not None and len(text) > elements_max:
        check_elements(text, elements_max)
    literal = text.decode("utf-8")
    if literal.startswith("#"):
        literal = literal.partition("\n")[2]
    try:
        simple = "\\" not in literal and "\n" not in literal
        return _build(_simple_tokens(literal) if simple else _tokens(literal))
    except IndexError:
        raise SerializeError("the text is no serpent literal") from None
    except TypeError as error:  # a list as a key
        raise SerializeError(f"the text is no serpent literal: {error}") from error
    except (ValueError, OverflowError) as error:  # a code point, byte or number that there is not
        raise SerializeError(
            f"the text is no serpent literal: a character or number is out of range ({error})"
        ) from error


def plain_call(text: bytes) -> tuple[str, str, list[Any], dict[str, Any]] | None:
    """Read a call whose arguments are plain strings and short numbers: quicker than :func:`loads`.

    Args:
        text: as :func:`loads` takes it.

    Returns:
        Object id, method, positional and keyword arguments; None if the call is another one.
    """
    found = _plain_call(text.decode("utf-8")) if len(text) <= _PLAIN_CALL_BYTES_MAX else None
    if found is None:
        return None
    object_id, method, arguments = found.groups()
    return object_id, method, [_plain(one) for one in _arguments(arguments)], {}


def _plain(text: str) -> Any:
    if text[0] == "'":
        return text[1:-1]
    if text in _NAMES:
        return _NAMES[text]
    return float(text) if "." in text else int(text)


def quote(text: str) -> bytes:
    """Return *text* as a Python literal in UTF-8.

    ``repr`` looks at every character for whether it can be printed, which takes thirty times as
    long as to look for the few that cannot stand for themselves.
    """
    literal = text
    for plain, escaped in _TO_BE_ESCAPED:
        if plain in literal:
            literal = literal.replace(plain, escaped)
    try:
        return b"'%b'" % literal.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return repr(text).encode("utf-8")


def check_elements(text: bytes, elements_max: int) -> None:
    """Refuse text (serpent's or JSON) that holds more than *elements_max* values.

    It takes a nanosecond a byte if there are few marks, and stops as soon as there are too many.

    Raises:
        SerializeError: it does.
    """
    left = 2 * elements_max  # a value has a mark after it, a container two more
    if _marks(text) <= left:
        return
    bare = b"'" not in text and b'"' not in text
    pieces = _pieces if b"\\" in text else _simple_pieces
    for piece in [text] if bare else map(_unquoted, pieces(text)):
        left -= _marks(piece)
        if left < 0:
            raise SerializeError(
                f"the data has more than {elements_max} elements: send less at once"
            )


def _unquoted(found: re.Match[bytes]) -> bytes:
    return found[1]


def _marks(text: bytes) -> int:
    return len(text) - len(text.translate(None, _MARKS))


def _build(tokens: Iterator[re.Match[str]]) -> Any:
    above: list[tuple[str, list[Any], list[str]]] = []
    opener: str = ""
    values: list[Any] = []
    marks: list[str] = []
    for found in tokens:
        text, mark = found.groups("")
        first = text[0]  # an IndexError is the end of what can be understood
        if first in _QUOTES:
            value: Any = text[1:-1] if "\\" not in text else _unescape(text[1:-1])
        elif text.isdigit() and (first != "0" or text == "0"):
            value = int(text)
        elif first in _CLOSES:
            if mark or len(above) == DEPTH_MAX:
                raise SerializeError("the text is no serpent literal, or is nested too deeply")
            above.append((opener, values, marks))
            opener, values, marks = text, [], []
            continue
        elif first in _CLOSERS:
            if _CLOSES.get(opener) != text:
                raise SerializeError(f"the text is no serpent literal: {text} closes nothing")
            value = _container(opener, values, marks)
            opener, values, marks = above.pop()
        elif text in _NAMES:
            value = _NAMES[text]
        else:
            value = _other(text)
        values.append(value)
        marks.append(mark)
    if above or len(values) != 1 or marks[0]:
        raise SerializeError("the text is no serpent literal: expected exactly one whole value")
    return values[0]


def _container(opener: str, values: list[Any], marks: list[str]) -> Any:
    count = len(values)
    if opener == "{" and (not count or marks[0] == ":"):
        keys = values[::2]
        if (
            count % 2
            or marks[::2].count(":") != len(keys)
            or not _separated(marks[1::2], len(keys))
        ):
            raise SerializeError("the text is no serpent literal: a dictionary is key: value, …")
        check_keys(keys)
        return dict(zip(keys, values[1::2], strict=True))
    if not _separated(marks, count):
        raise SerializeError("the text is no serpent literal: a comma is missing, or too many")
    if opener == "[":
        return values
    if opener == "{":
        check_keys(values)
        return set(values)
    return values[0] if count == 1 and not marks[0] else tuple(values)


def _separated(marks: list[str], count: int) -> bool:
    commas = marks.count(",")
    return commas == count or (commas == count - 1 and not marks[-1])


def check_keys(keys: list[Any]) -> None:
    """Refuse keys chosen to collide: a dictionary of those takes quadratic time to fill.

    Raises:
        SerializeError: many of *keys* have the same hash.
    """
    if len(keys) > _KEYS_CHECKED_ABOVE and len(set(map(hash, keys))) <= len(keys) // 2:
        raise SerializeError("refused: the keys of a dictionary or set have equal hashes")


def _other(text: str) -> Any:
    """Return the value of a number or of a bytes literal."""
    if text[0] == "b":
        if len(text) > 2 and text[1] in "'\"":
            return _unescape(text[2:-1], octets=True).encode("latin-1")
        raise _no_value()
    found = _number(text)
    if found is None:
        raise _no_value()
    if found[2]:
        return complex(text)
    return float(text) if "." in text or "e" in text or "E" in text else int(text)


def _no_value() -> SerializeError:
    # What stands there is not said: it may be a secret that lacks its quotes.
    return SerializeError("the text is no serpent literal: expected a number, a string or bytes")


def _unescape(text: str, *, octets: bool = False) -> str:
    def plain(found: re.Match[str]) -> str:
        short, byte, small, large, octal = found.groups()
        if short:
            return _ESCAPED[short]
        digits = byte or (None if octets else small or large)
        if digits:
            return chr(int(digits, 16))
        if octal:
            return chr(int(octal, 8))
        raise SerializeError(f"the text is no serpent literal: unknown escape {found[0]!r}")

    if octets and not text.isascii():
        raise SerializeError("the text is no serpent literal: bytes are written in ASCII")
    return _escapes(plain, text)
