"""What a request says, read strictly: bodies, tokens, keys and query parameters.

Every function here either returns a checked value or raises what the caller is to be told:
400 for what cannot be read or has parts nobody knows, 422 for what is missing, of the wrong type or
out of range, 415 for another media type, 401 for no token.
"""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import falcon.asgi
import msgspec

from rmi_runtime import errors
from rmi_runtime.http.answers import JSON_MEDIA_TYPE
from rmi_runtime.http.direct import HeadersByName
from rmi_runtime.http.problems import HttpProblem, invalid, malformed

FORM_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
TOKEN_CHARS_MAX: Final = 512
KEY_CHARS_MAX: Final = 200
IDEMPOTENCY_KEY_PATTERN: Final = "^[ -~]+$"
"""Regular expression of what :func:`idempotency_key` takes, for schemas."""

QUERY_FIELDS_MAX: Final = 32
INT64_MAX: Final = 2**63 - 1

_DIGITS = re.compile(r"[0-9]{1,19}")
_ESCAPES = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")
_UNKNOWN = "Object contains unknown field `"
_MISSING = "Object missing required field `"

_encode = msgspec.json.Encoder().encode

Body = TypeVar("Body")


class JsonBody(Generic[Body]):
    """Reads JSON bodies of one shape.

    Args:
        shape: what a body must be; structs in it should forbid unknown fields, and omit defaults
            (then the check for repeated names costs least).
        tags: the values that a field which tells structs apart may have, to name them to whoever
            sends another.
    """

    def __init__(self, shape: Any, tags: Sequence[str] = ()) -> None:
        self._shape = shape
        self._tags = tags
        self._decode = msgspec.json.Decoder(shape).decode
        self._quotes = _quotes_of(shape)

    def read(self, headers: HeadersByName, body: bytes) -> Body:
        """Return the body of a request, decoded.

        Raises:
            HttpProblem: 415, 400 or 422, as said at the top of the module.
        """
        check_media_type(headers, JSON_MEDIA_TYPE)
        return self.parse(body)

    def parse(self, body: bytes) -> Body:
        """Return *body* decoded.

        Raises:
            HttpProblem: 400 or 422.
        """
        try:
            decoded: Body = self._decode(body)
            # Of two equal names the decoder takes the last, another reader on the way may take the
            # first. Names that come twice bring quotes that the decoded value does not have.
            quotes = self._quotes or _encode(decoded).count(b'"')
            if b"\\" in body or body.count(b'"') != quotes:
                json.loads(body, object_pairs_hook=_refuse_repeated)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._explained(body, error) from None
        return decoded

    def _explained(self, body: bytes, error: Exception) -> HttpProblem:
        unreadable = _unreadable(body)
        if unreadable is None:
            # Of two types, the second fits no place any more; it may well be one of those expected.
            repetition = _repetition(body) if self._tags else None
            return repetition or _explained_shape(str(error), self._tags)
        if b"NaN" in body or b"Infinity" in body:
            return self._not_a_number(body) or unreadable
        return unreadable

    def _not_a_number(self, body: bytes) -> HttpProblem | None:
        """Return what is wrong if NaN and the infinities were JSON; they are numbers to many."""
        try:
            value = json.loads(body.decode(), parse_int=lambda digits: int(digits[:30]))
            msgspec.convert(value, self._shape)
        except msgspec.ValidationError as error:
            return _explained_shape(str(error), self._tags)
        except (ValueError, RecursionError):
            return None
        return None


def _quotes_of(shape: Any) -> int:
    """Return how many quotes the JSON of *shape* has, apart from escaped ones.

    Returns:
        0 if that is not one number for all: where something can be left out, or is neither an
        integer nor a string.
    """
    info = msgspec.inspect.type_info(shape)
    if not isinstance(info, msgspec.inspect.StructType) or info.tag_field or info.array_like:
        return 0
    quotes = 0
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.IntType) and field.required:
            quotes += 2
        elif isinstance(field.type, msgspec.inspect.StrType) and field.required:
            quotes += 4
        else:
            return 0
    return quotes


def _unreadable(body: bytes) -> HttpProblem | None:
    """Return why *body* is not JSON, or None if it is; the decoder stops at the first mistake."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except UnicodeDecodeError:
        return malformed("the body is not UTF-8 text")
    except msgspec.ValidationError:
        return None  # a number beyond all bounds, but a number
    except msgspec.DecodeError as error:
        if _has_lone_surrogate(body):  # it is said to be truncated, which it is not
            return malformed("the body has a lone surrogate, which is no character")
        return malformed(f"the body is not JSON: {error}")
    except RecursionError:
        return malformed("the body is nested too deeply")
    return None


def _has_lone_surrogate(body: bytes) -> bool:
    """Say whether that alone is wrong with *body*."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _repetition(body: bytes) -> HttpProblem | None:
    """Return the problem of a name that is given twice, if there is one."""
    try:
        json.loads(body, object_pairs_hook=_refuse_repeated)
    except HttpProblem as problem:
        return problem
    except (ValueError, RecursionError):  # such as a number that is too long for it
        return None
    return None


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise malformed(f"{_shown(name)} is given twice in one object", field=_shown(name))
        seen.add(name)


def _explained_shape(message: str, tags: Sequence[str]) -> HttpProblem:
    """Return the problem for a message of msgspec's ValidationError.

    It may have a name or value of the caller's in it, of any length and with anything in it. So it
    is not searched with patterns: the place is at its end.
    """
    what, mark, place = message.rpartition(" - at `$")
    if not mark or (what.startswith(_UNKNOWN) and not what.endswith("`", len(_UNKNOWN))):
        what, place = message, ""  # the mark, if there is one, is in the name
    path = place.removeprefix(".").removesuffix("`")
    for beginning in (_UNKNOWN, _MISSING):
        if what.startswith(beginning):
            name = what.removeprefix(beginning).removesuffix("`")
            before = f"{path}." if path else ""
            field = _shown(before + name)
            if beginning == _MISSING:
                return invalid(field, "is missing")
            said = _shown(before + _said(name))
            return malformed(f"{said}: nobody knows this field", field=field)
    untagged = bool(tags) and what.startswith("Invalid value ")
    what = _shown(what, 200) + (f"; expected one of {', '.join(tags)}" if untagged else "")
    return invalid(path, what[0].lower() + what[1:].replace("`", ""))


def _shown(name: str, chars_max: int = 80) -> str:
    """Return a caller's own word, short enough to be said back."""
    return name if len(name) <= chars_max else f"{name[:chars_max]}…"


def _said(name: str) -> str:
    """Return a caller's own word for a sentence, in which an empty one would not be seen."""
    return _shown(name) or "''"


def _quoted(word: str) -> str:
    """Return the same in quotes, with escapes for what is not ASCII."""
    return ascii(word) if len(word) <= 80 else f"{word[:80]!a}…"


def check_media_type(headers: HeadersByName, wanted: str) -> None:
    """Refuse a body of another media type.

    Args:
        headers: of the request.
        wanted: the media type, without parameters.

    Raises:
        HttpProblem: 415; also for a character set other than UTF-8, or a content coding.
    """
    if b"content-encoding" in headers:
        _check_coding(headers[b"content-encoding"].decode("latin-1"))
    given = headers.get(b"content-type", b"").decode("latin-1")
    if given == wanted:
        return
    main, *parameters = (part.strip().lower() for part in given.split(";"))
    named = [parameter.partition("=") for parameter in parameters]
    charsets = {value.strip('" ') for name, _, value in named if name.strip() == "charset"}
    if main == wanted and charsets <= {"utf-8", "utf8"}:
        return
    shown = f"not {_quoted(given)}" if given else "and none was given"
    raise HttpProblem(
        415,
        "unsupported_media_type",
        f"the body must be {wanted} in UTF-8, {shown}; say so in Content-Type",
        headers={"Accept": wanted},
    )


def _check_coding(coding: str) -> None:
    if coding.strip().lower() not in ("", "identity"):
        raise HttpProblem(
            415,
            "unsupported_content_encoding",
            f"the body must be sent as it is, not in {_quoted(coding)}; leave Content-Encoding out",
            headers={"Accept-Encoding": "identity"},
        )


def bearer_token(headers: HeadersByName) -> str:
    """Return the token of ``Authorization: Bearer <token>``.

    Raises:
        Unauthenticated: there is none.
        Forbidden: it is longer than any that was ever given out.
    """
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    token = token.strip()
    if not token or scheme.lower() != "bearer":
        raise errors.Unauthenticated(
            "say who is asking with the header Authorization: Bearer TOKEN"
        )
    if len(token) > TOKEN_CHARS_MAX:
        raise errors.Forbidden("Forbidden")
    return token


def idempotency_key(headers: HeadersByName) -> str | None:
    """Return the value of ``Idempotency-Key``, or None if there is none.

    Raises:
        HttpProblem: 422; it is not 1 to 200 printable ASCII characters.
    """
    given = headers.get(b"idempotency-key")
    if given is None:
        return None
    if 0 < len(given) <= KEY_CHARS_MAX and given.isascii():
        key = given.decode()
        if key.isprintable():
            return key
    raise invalid("Idempotency-Key", f"must be 1 to {KEY_CHARS_MAX} printable ASCII characters")


def form_fields(body: bytes) -> Mapping[str, str]:
    """Return the fields of a form body (``application/x-www-form-urlencoded``).

    Raises:
        HttpProblem: 400; it is not UTF-8, or a field comes twice.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        raise malformed("the form is not UTF-8 text") from None
    return _fields(body)


def query_fields(req: falcon.asgi.Request) -> Mapping[str, str]:
    """Return the query parameters.

    Raises:
        HttpProblem: 400; they are not UTF-8, too many, or one comes twice.
    """
    return _fields(req.query_string.encode()) if req.query_string else {}


def _fields(text: bytes) -> Mapping[str, str]:
    # The standard library reads the same, but takes half a second for a megabyte of percent signs,
    # in which nobody else is answered.
    if text.count(b"&") >= QUERY_FIELDS_MAX:
        raise malformed(f"more than {QUERY_FIELDS_MAX} parameters")
    fields = {}
    for part in filter(None, text.split(b"&")):
        name, _, value = map(_unescaped, part.replace(b"+", b" ").partition(b"="))
        if name in fields:
            raise malformed(f"{_said(name)} is given twice; give it once", field=_shown(name))
        fields[name] = value
    return fields


def _unescaped(text: bytes) -> str:
    """Return *text* with its percent-encoding read; what only looks like it stays as it is."""
    try:
        return _ESCAPES.sub(_unescaped_run, text).decode()
    except UnicodeDecodeError:
        raise malformed("percent-encoded characters are not UTF-8") from None


def _unescaped_run(run: re.Match[bytes]) -> bytes:
    return unhexlify(run[0].replace(b"%", b""))


def whole_number(
    fields: Mapping[str, str], name: str, *, default: int, low: int = 0, high: int = INT64_MAX
) -> int:
    """Return the parameter *name* as an integer.

    Args:
        fields: the parameters.
        name: of the one wanted.
        default: what it is if not given.
        low, high: its bounds.

    Raises:
        HttpProblem: 422; it is not an integer, or out of bounds.
    """
    text = fields.get(name)
    if text is None:
        return default
    if _DIGITS.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise invalid(name, f"must be an integer from {low} to {high}")
