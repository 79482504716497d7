"""When a member is ended by the process that owns it."""

from __future__ import annotations

from rmi_msg.hazelcast.expulsion import Expulsion

THREE = ("h:1", "h:2", "h:3")


class Own:
    """Member h:1."""

    address = "h:1"

    def __init__(self) -> None:
        self.pid = 100
        self.killed: list[int] = []

    def kill(self) -> None:
        self.killed.append(self.pid)
        self.pid = 0


def test_a_member_that_most_went_on_without_is_killed_once() -> None:
    own = Own()
    expulsion = Expulsion(own, 3)
    expulsion.on_members(THREE)
    expulsion.on_members(THREE[1:])
    expulsion.on_members(THREE[1:])
    assert own.killed == [100]


def test_one_that_has_not_joined_yet_is_waited_for() -> None:
    own = Own()
    expulsion = Expulsion(own, 3)
    expulsion.on_members(THREE[1:])
    expulsion.on_members(THREE)
    own.pid = 200  # it ended, and was started again
    expulsion.on_members(THREE[1:])
    assert own.killed == []
    expulsion.on_members(THREE)
    expulsion.on_members(THREE[1:])
    assert own.killed == [200]


def test_a_few_others_or_none_at_all_are_no_reason() -> None:
    own = Own()
    expulsion = Expulsion(own, 3)
    expulsion.on_members(THREE)
    expulsion.on_members(("h:2",))
    expulsion.on_members(())
    assert own.killed == []


def test_of_two_members_neither_ends_the_other() -> None:
    own = Own()
    expulsion = Expulsion(own, 2)
    expulsion.on_members(THREE[:2])
    expulsion.on_members(("h:2",))
    assert own.killed == []
