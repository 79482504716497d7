"""The parser of serpent's text form agrees with Python's own, and stays quick and small."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest
import serpent
from hypothesis import example, given
from hypothesis import strategies as st
from Pyro5.errors import SerializeError

from rmi_runtime.wire.literals import check_elements, loads, plain_call, quote

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    # of complex zeros ours keeps the signs, which literal_eval loses
    | st.complex_numbers(allow_nan=False, allow_infinity=False, min_magnitude=1.0).filter(
        lambda number: bool(number.real and number.imag)
    )
    | st.text(st.characters(), max_size=20)
)
_keys = st.integers() | st.text(max_size=5) | st.booleans() | st.tuples(st.integers(), st.text())
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(_keys, inner, max_size=5)
        | st.sets(_keys, min_size=1, max_size=5)
    ),
    max_leaves=30,
)


def _same(one: Any, other: Any) -> bool:
    return bool(repr(one) == repr(other))  # 1 is not True, 1.0 is not 1, -0.0 is not 0.0


@given(_values, st.booleans())
def test_reads_what_serpent_writes_as_literal_eval_does(value: Any, indent: bool) -> None:
    text = serpent.dumps(value, indent=indent, module_in_classname=True)
    assert _same(loads(text), serpent.loads(text))


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_reads_bytes_literals_as_literal_eval_does(value: bytes) -> None:
    text = serpent.dumps([value], bytes_repr=True)
    assert loads(text) == [value]


@given(st.text() | st.text(alphabet="\\'\"\n\r\0\t\x1a\x7f\u2028\ufeff\ud800xé"))
@example("".join(map(chr, range(0x180))))
@example("\ud800")
def test_reads_what_it_quotes_and_so_does_stock(text: str) -> None:
    quoted = quote(text)
    assert loads(quoted) == text
    assert serpent.loads(quoted) == text


@given(st.text(alphabet="[](){},:'\"\\ bf1.-+ejTrue None\n#x_", max_size=40))
def test_accepts_nothing_that_python_would_refuse_or_read_differently(text: str) -> None:
    try:
        value = loads(text.encode())
    except SerializeError:
        return
    assert _same(value, ast.literal_eval(text.strip()))


@pytest.mark.parametrize(
    "text",
    [
        "", "# only a comment", "1,", "1 2", "[1 2]", "[1,,2]", "[,1]", "[1:2]", "{1:2,3}",
        "{1,2:3}", "{1:}", "{:1}", "(", ")", "[)", "[1", "1]", "[1]]", "a", "a.b", "f()", "a[0]",
        "1+1", "1+2", "--1", "+1", "not 1", "1 if 1 else 2", "lambda: 1", "f'{a}'", "f''", "u''",
        "'a' 'b'", "'''a'''", "'a", "'a\nb'", "'\\q'", "b'\\u1234'", "b'\u00e9'", "0x10", "1_000",
        "007e", "1e", "1.2.3", "nan", "inf", "Ellipsis", "...", "[[1]: 2]", "{[1]: 2}", "{{1}}",
        "{1: 2} {3: 4}", "`1`", "*", "[*a]", "{**a}", "'\\ud8", "1;2", "\x00", "9" * 5000,
    ],
)  # fmt: skip
def test_refuses_what_serpent_never_writes(text: str) -> None:
    with pytest.raises((SerializeError, ValueError)):
        loads(text.encode())


@pytest.mark.parametrize("text", ["9" * 4400, "'\\UFFFFFFFF'", "'\\U00110000'", "b'\\777'", "1+.j"])
def test_what_is_out_of_all_range_is_no_serpent_literal_and_is_told_as_that(text: str) -> None:
    for nested in (text, f"[{text}]", f"{{'token': {text}}}"):
        with pytest.raises(SerializeError, match="out of range"):
            loads(nested.encode())


@pytest.mark.parametrize("text", ["{'token': %s}", "{'token': b%s}", "[%s]", "%s"])
def test_what_cannot_be_read_is_not_said_for_it_may_be_a_secret(text: str) -> None:
    with pytest.raises(SerializeError) as caught:
        loads((text % "hW0x3SECRET").encode())
    assert "SEC" not in str(caught.value)


names = st.text(max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(names, names, st.lists(plain, max_size=4).map(tuple))
@example("thing", "echo", ("hello, \u20ac", -1, 2.5, True, None))
@example("thing", "echo", (10**17, 10**18, -0.0, "it's", "a\\b", 1e300))
def test_a_plain_call_is_read_as_any_other_is(
    object_id: str, method: str, args: tuple[Any, ...]
) -> None:
    text = serpent.dumps((object_id, method, args, {}))
    found = plain_call(text)
    if found is not None:
        assert repr((*found[:2], tuple(found[2]), found[3])) == repr(loads(text))


@given(st.text("()',{} \n#\\1.-aNone", max_size=30))
def test_nothing_is_a_plain_call_that_python_would_read_differently(text: str) -> None:
    call = f"('a','b',{text}"
    found = plain_call(call.encode())
    if found is not None:
        assert repr((*found[:2], tuple(found[2]), found[3])) == repr(ast.literal_eval(call))


def test_the_usual_calls_are_plain_calls() -> None:
    for args in [(), ("hello",), (1, 2, 250, "id-1"), (None, True, -2.5)]:
        assert plain_call(serpent.dumps(("thing", "echo", args, {}))) is not None
    for args in [([1],), ("it's",), ("a\\b",), (b"",)]:
        assert plain_call(serpent.dumps(("thing", "echo", args, {}))) is None
    assert plain_call(serpent.dumps(("thing", "echo", (), {"a": 1}))) is None
    assert plain_call(b"('thing','echo',('no tuple'),{})") is None


def test_nesting_is_bounded() -> None:
    assert loads(b"[" * 200 + b"]" * 200)
    with pytest.raises(SerializeError, match="nested too deeply"):
        loads(b"[" * 201 + b"]" * 201)
    with pytest.raises(SerializeError, match="nested too deeply"):
        loads(b"[" * 1_000_000)


@pytest.mark.parametrize(
    "text",
    [b"[" + b"1," * 2000 + b"]", b"[]," * 2000, b"]" * 4000, b"{" + b"1:1," * 1000 + b"}"],
)
def test_the_number_of_elements_is_bounded(text: bytes) -> None:
    with pytest.raises(SerializeError, match="more than 500 elements"):
        loads(text, 500)


def test_marks_inside_strings_do_not_count_as_elements() -> None:
    text = repr([",:[({" * 2000, "\"'\\," * 2000]).encode()
    assert loads(text, 500) == ast.literal_eval(text.decode())
    check_elements(b'{"a": "' + b"," * 5000 + b'"}', 500)


def test_junk_without_marks_makes_few_tokens() -> None:
    with pytest.raises(SerializeError):
        loads(b"1 " * 1_000_000, 500)
    with pytest.raises(SerializeError):
        loads(b"'a' " * 1_000_000, 500)


@pytest.mark.parametrize("text", ["%s", "1,%s", "[1,%s", "'a',%s", "['\\n',%s"])
@pytest.mark.parametrize("blank", [" ", "\t", "\n"])
def test_blanks_at_the_end_are_read_once(text: str, blank: str) -> None:
    with pytest.raises(SerializeError):  # read from each of them it takes half an hour
        loads((text % (blank * 1_000_000)).encode())


def test_colliding_keys_are_refused() -> None:
    modulus = sys.hash_info.modulus
    keys = ",".join(f"{modulus * i}:0" for i in range(1, 1000))
    with pytest.raises(SerializeError, match="equal hashes"):
        loads(f"{{{keys}}}".encode())
    members = ",".join(f"{modulus * i}" for i in range(1, 1000))
    with pytest.raises(SerializeError, match="equal hashes"):
        loads(f"{{{members}}}".encode())


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        loads(b"'\xff'")
