"""The name table: leases, the newest wins, bounds, and the same answers as Pyro5's name server."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from Pyro5.errors import NamingError, PyroError
from Pyro5.nameserver import NameServer as StockNameServer

from rmi_runtime import errors
from rmi_runtime.registry.nametable import NameLimits, NameTable, Registration
from tests.support import Clock

A = "PYRO:a@127.0.0.1:1001"
B = "PYRO:b@127.0.0.1:1002"
C = "PYRO:c@127.0.0.1:1003"


@pytest.fixture
def table(clock: Clock) -> NameTable:
    return NameTable(clock)


def test_registered_names_live_for_ever(table: NameTable, clock: Clock) -> None:
    table.register("x", A, ["t"])
    clock.now_s += 1e9
    assert table.get("x") == Registration(A, frozenset({"t"}))


def test_announced_names_die_with_their_lease(table: NameTable, clock: Clock) -> None:
    table.announce("x", A, 2.0)
    clock.now_s += 1.99
    assert table.get("x").uri == A
    clock.now_s += 0.02
    with pytest.raises(NamingError, match="unknown name: x"):
        table.get("x")
    assert len(table) == 0
    assert table.entries() == {}


def test_each_name_dies_with_its_own_lease_whatever_the_others_have(
    table: NameTable, clock: Clock
) -> None:
    for name, lease_s in ("x", 2.0), ("y", 3.0), ("z", 60.0):
        table.announce(name, A, lease_s)
    clock.now_s += 2.5
    assert set(table.entries()) == {"y", "z"}
    clock.now_s += 1.0
    assert set(table.entries()) == {"z"}


@pytest.mark.parametrize(
    "look_up",
    [
        len,
        lambda table: table.entries(prefix="x"),
        lambda table: table.entries(regex="x"),
        lambda table: table.search(all_of=["t"]),
        lambda table: table.search(any_of=["t"]),
    ],
)
def test_no_look_up_tells_of_the_dead(table: NameTable, clock: Clock, look_up: Any) -> None:
    table.announce("x", A, 2.0, ["t"])
    assert look_up(table)
    clock.now_s += 2.1
    assert not look_up(table)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda table: table.entries(prefix=["x"]), "prefix must be a str, not list"),
        (lambda table: table.entries(prefix=7), "prefix must be a str, not int"),
        (lambda table: table.search(all_of=7), "metadata must be a collection of strings"),
        (lambda table: table.search(any_of=[["t"]]), "metadata must be a collection of strings"),
        (lambda table: table.search(all_of={"t": 1, 2: 3}), "metadata must be a collection"),
        (lambda table: table.set_metadata("x", 7), "metadata must be a collection of strings"),
    ],
)
def test_what_is_of_the_wrong_type_is_told(table: NameTable, ask: Any, said: str) -> None:
    table.register("x", A, metadata=(tag for tag in ["t"]))
    with pytest.raises(TypeError, match=said):
        ask(table)
    assert table.search(all_of=["t"])


def test_renewed_names_stay(table: NameTable, clock: Clock) -> None:
    for _ in range(10):
        table.announce("x", A, 2.0)
        clock.now_s += 1.9
    assert table.get("x").uri == A


def test_the_newest_announcement_wins_and_the_older_one_cannot_take_it_back(
    table: NameTable, clock: Clock
) -> None:
    table.announce("x", A, 2.0)
    table.announce("x", B, 2.0)
    with pytest.raises(errors.Conflict, match="taken over by"):
        table.announce("x", A, 2.0)
    assert table.get("x").uri == B
    table.announce("x", C, 2.0)
    for old in (A, B):
        with pytest.raises(errors.Conflict):
            table.announce("x", old, 2.0)


def test_the_older_one_has_the_name_again_once_the_newer_one_is_dead(
    table: NameTable, clock: Clock
) -> None:
    table.announce("x", A, 2.0)
    table.announce("x", B, 2.0)
    clock.now_s += 2.0
    table.announce("x", A, 2.0)
    assert table.get("x").uri == A


def test_a_late_farewell_does_not_remove_the_successor(table: NameTable) -> None:
    table.announce("x", A, 2.0)
    table.announce("x", B, 2.0)
    assert not table.leave("x", A)
    assert table.get("x").uri == B
    assert table.leave("x", B)
    assert not table.leave("x", B)
    table.announce("x", A, 2.0)
    assert table.leave("x")


def test_an_announcement_replaces_a_registration_and_the_other_way_round(
    table: NameTable, clock: Clock
) -> None:
    table.register("x", A)
    table.announce("x", B, 2.0)
    table.register("x", C)
    clock.now_s += 10
    assert table.get("x") == Registration(C)


def test_tags_of_a_renewal_replace_the_old_ones(table: NameTable) -> None:
    table.announce("x", A, 2.0, ["rmi"])
    table.announce("x", A, 2.0, ["rmi", "rmi.draining"])
    assert table.get("x").metadata == {"rmi", "rmi.draining"}


@pytest.mark.parametrize("lease_s", [0, 0.1, 61, -1, float("nan"), float("inf")])
def test_leases_out_of_bounds_are_refused(table: NameTable, lease_s: float) -> None:
    with pytest.raises(errors.InvalidRequest):
        table.announce("x", A, lease_s)
    assert len(table) == 0


def test_an_enormous_lease_is_refused_in_few_words(table: NameTable) -> None:
    for lease_s in (10**4000, 10**5000):
        with pytest.raises(errors.InvalidRequest) as refused:
            table.announce("x", A, lease_s)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("lease_s", ["2", None, True, [2]])
def test_leases_that_are_no_numbers_are_refused(table: NameTable, lease_s: Any) -> None:
    with pytest.raises(TypeError):
        table.announce("x", A, lease_s)


@pytest.mark.parametrize("name", ["", "n" * 201, "a\nb", "a\x1b[2J"])
def test_names_are_bounded_and_printable(table: NameTable, name: str) -> None:
    with pytest.raises(NamingError, match="printable"):
        table.register(name, A)


def test_as_many_and_as_long_tags_as_the_bounds_say_are_taken(clock: Clock) -> None:
    table = NameTable(clock, NameLimits(tags_max=3, tag_length_max=5))
    table.register("x", A, ["1", "2", "12345"])
    assert table.get("x").metadata == frozenset({"1", "2", "12345"})


def test_uris_tags_and_the_number_of_names_are_bounded(clock: Clock) -> None:
    table = NameTable(clock, NameLimits(names_max=2, tags_max=3, tag_length_max=5))
    with pytest.raises(NamingError, match="URI"):
        table.register("x", "PYRO:a@" + "h" * 600 + ":1")
    with pytest.raises(NamingError, match="URI"):
        table.register("x", "PYRO:a\x1b[2J@127.0.0.1:1")
    with pytest.raises(PyroError, match="invalid uri"):
        table.register("x", "not a uri")
    for tags in (["1", "2", "3", "4"], ["123456"], ["a\n"]):
        with pytest.raises(NamingError, match="tags"):
            table.register("x", A, tags)
    table.register("x", A)
    table.announce("y", A, 2.0)
    with pytest.raises(NamingError, match="full"):
        table.register("z", A)
    table.register("x", B)
    clock.now_s += 2
    table.register("z", A)


@pytest.mark.parametrize("tags", ["tag", [1], 5, [None]])
def test_tags_that_are_no_strings_are_refused(table: NameTable, tags: Any) -> None:
    with pytest.raises(TypeError):
        table.register("x", A, tags)


@pytest.mark.parametrize("pattern", [r"(?=x)", r"(a)\1", "(", "a{1001}", "x" * 201, "\ud800"])
def test_patterns_that_could_take_long_or_are_wrong_are_refused(
    table: NameTable, pattern: str
) -> None:
    with pytest.raises(NamingError, match="invalid regex"):
        table.entries(regex=pattern)


def test_an_explosive_pattern_is_matched_in_linear_time(table: NameTable) -> None:
    # Python's own re needs longer than the age of the universe for this one.
    table.register("a" * 100 + "!", A)
    assert table.entries(regex="(a+)+$") == {}


def test_the_name_servers_own_name_is_pinned(table: NameTable) -> None:
    table.pin("PYRO:Pyro.NameServer@127.0.0.1:9090", ["class:Pyro5.nameserver.NameServer"])
    for change in (
        lambda: table.register("Pyro.NameServer", A),
        lambda: table.announce("Pyro.NameServer", A, 2.0),
        lambda: table.set_metadata("Pyro.NameServer", []),
    ):
        with pytest.raises(NamingError, match="own name"):
            change()
    assert table.remove("Pyro.NameServer") == 0
    assert table.remove(prefix="Pyro") == 0
    assert table.remove(regex=".*") == 0
    assert not table.leave("Pyro.NameServer")
    assert table.get("Pyro.NameServer").uri.endswith(":9090")
    assert table.take_changes() == {}


def test_changes_are_told_once_and_renewals_are_none(table: NameTable, clock: Clock) -> None:
    table.register("x", A)
    table.announce("y", B, 2.0, ["t"])
    assert table.take_changes() == {
        "x": Registration(A),
        "y": Registration(B, frozenset({"t"}), 2.0),
    }
    table.announce("y", B, 2.0, ["t"])
    assert table.take_changes() == {}
    table.set_metadata("x", ["other"])
    assert table.take_changes() == {"x": Registration(A, frozenset({"other"}))}
    clock.now_s += 3
    assert table.take_changes() == {"y": None}
    table.remove("x")
    assert table.take_changes() == {"x": None}


def test_after_a_restart_leases_begin_anew(table: NameTable, clock: Clock) -> None:
    table.restore({"x": Registration(A), "y": Registration(B, frozenset({"t"}), 2.0)})
    assert table.take_changes() == {}
    clock.now_s += 1.9
    assert set(table.entries()) == {"x", "y"}
    clock.now_s += 0.2
    assert set(table.entries()) == {"x"}


TAGS = st.sets(st.sampled_from(["red", "green", "blue"]))
NAMES = st.sampled_from(["a", "ab", "abc", "b.1", "b.2", "é"])
URIS = st.sampled_from([A, B, C])


class SameAsStock(RuleBasedStateMachine):
    """Without leases, the table answers whatever Pyro5's own name server answers."""

    def __init__(self) -> None:
        super().__init__()
        self.ours = NameTable(lambda: 0.0)
        self.stock = StockNameServer()

    @rule(name=NAMES, uri=URIS, tags=TAGS, safe=st.booleans())
    def register(self, name: str, uri: str, tags: set[str], safe: bool) -> None:
        self.both(
            lambda: self.ours.register(name, uri, tags, safe=safe),
            lambda: self.stock.register(name, uri, safe, tags),
        )

    @rule(name=NAMES, tags=TAGS)
    def set_metadata(self, name: str, tags: set[str]) -> None:
        self.both(
            lambda: self.ours.set_metadata(name, tags),
            lambda: self.stock.set_metadata(name, tags),
        )

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        assert self.ours.remove(name) == self.stock.remove(name)

    @rule(prefix=st.sampled_from(["a", "ab", "b.", "x"]))
    def remove_prefix(self, prefix: str) -> None:
        assert self.ours.remove(prefix=prefix) == self.stock.remove(prefix=prefix)

    @rule(regex=st.sampled_from(["a.$", "b", ".*c", r"\w\.1"]))
    def remove_regex(self, regex: str) -> None:
        assert self.ours.remove(regex=regex) == self.stock.remove(regex=regex)

    @rule(name=NAMES)
    def lookup(self, name: str) -> None:
        self.both(
            lambda: (self.ours.get(name).uri, self.ours.get(name).metadata),
            lambda: (str(self.stock.lookup(name, True)[0]), self.stock.lookup(name, True)[1]),
        )

    @rule(tags=TAGS)
    def search(self, tags: set[str]) -> None:
        assert plain(self.ours.search(all_of=tags)) == self.stock.yplookup(meta_all=tags)
        assert plain(self.ours.search(any_of=tags)) == self.stock.yplookup(meta_any=tags)

    @rule(prefix=st.sampled_from(["a", "b.", "é", ""]), regex=st.sampled_from(["a.$", ".*c", ""]))
    def list_some(self, prefix: str, regex: str) -> None:
        self.both(
            lambda: plain(self.ours.entries(prefix, regex)),
            lambda: self.stock.list(prefix, regex, return_metadata=True),
        )

    @invariant()
    def same_content(self) -> None:
        assert len(self.ours) == self.stock.count()
        assert plain(self.ours.entries()) == self.stock.list(return_metadata=True)

    def both(self, ours: Any, stock: Any) -> None:
        results = []
        for call in (ours, stock):
            try:
                results.append(call())
            except (NamingError, ValueError) as error:
                results.append((type(error), str(error)))
        assert results[0] == results[1]


def plain(registrations: dict[str, Registration]) -> dict[str, tuple[str, frozenset[str]]]:
    return {name: (r.uri, r.metadata) for name, r in registrations.items()}


TestSameAsStock = SameAsStock.TestCase
TestSameAsStock.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["announce", "leave", "wait"]),
        NAMES,
        URIS,
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_name_is_there_exactly_while_its_last_accepted_lease_runs(
    steps: list[tuple[str, str, str, float]],
) -> None:
    clock = Clock()
    table = NameTable(clock)
    model: dict[str, tuple[str, float]] = {}
    stored: dict[str, Registration | None] = {}
    for what, name, uri, span_s in steps:
        if what == "wait":
            clock.now_s += span_s
        elif what == "leave":
            left = table.leave(name, uri)
            alive = name in model and model[name][1] > clock.now_s
            assert left == (alive and model[name][0] == uri)
            if left:
                del model[name]
        else:
            try:
                table.announce(name, uri, span_s)
            except errors.Conflict:
                # Only a name that another URI holds, and is alive, is refused.
                assert model[name][0] != uri
                assert model[name][1] > clock.now_s
            else:
                model[name] = (uri, clock.now_s + span_s)
        alive_now = {n: u for n, (u, until) in model.items() if until > clock.now_s}
        assert {n: r.uri for n, r in table.entries().items()} == alive_now
        stored.update(table.take_changes())
        assert {n: r.uri for n, r in stored.items() if r is not None} == alive_now


def test_patterns_match_from_the_start_as_stock_ones_do(table: NameTable) -> None:
    for name in ("bank.data", "bank.business.1", "msg.bank"):
        table.register(name, A)
    pattern = r"bank\.(data|business)"
    expected = {name for name in table.entries() if re.match(pattern, name)}
    assert set(table.entries(regex=pattern)) == expected == {"bank.data", "bank.business.1"}
