"""Who may consume what: the queue as one value, and every change of it. Plain code.

The order of arrival is the queue; this value says how far it was handed out. All ids before
``head`` were claimed, all behind it wait. A claim is a range of the order. Its holder marks it as
consumed, which settles whose it was; enters it into the order of consumption; and then it is done,
and forgotten here. If the mark does not come in time, the claim loses its holder, and the next who
asks gets it. If it was marked and nothing follows, anybody may do the rest.

The value is one entry of a Hazelcast map, changed only by compare and set, so a claim is made by
one step that either happened or did not. A Hazelcast queue would hand an item out by destroying it:
if the answer is lost, or whoever polled it dies, the item is gone, and only a second record of all
that was ever offered could tell. Here that record, the order, is the queue itself.
"""

from __future__ import annotations

import msgspec

from rmi_msg.hazelcast.blocks import START, Place


class Mark(msgspec.Struct, frozen=True):
    """That the holder of a claim has consumed it.

    Attributes:
        at: when, as it is told (ISO 8601, UTC).
        since: a block of the order of consumption before which the claim cannot be.
    """

    at: str
    since: int


class Turn(msgspec.Struct, frozen=True):
    """A claim.

    Attributes:
        token: a random number, its name; a claim that changes hands gets a new one.
        by: Pyro name of the holder; None: it is offered again.
        first: where the range begins.
        end: the place behind its last id.
        lease_s: how long the holder may take, in seconds.
        mark: set when the holder has consumed it; then it stays the holder's.
    """

    token: int
    by: str | None
    first: Place
    end: Place
    lease_s: float
    mark: Mark | None = None


class Turns(msgspec.Struct, frozen=True):
    """The state of the queue.

    Attributes:
        head: all before this place was claimed.
        turns: the claims that are not done, in no order.
    """

    head: Place = START
    turns: tuple[Turn, ...] = ()

    @property
    def offered(self) -> Turn | None:
        """The claim without a holder that begins first, if there is one."""
        return min(
            (turn for turn in self.turns if turn.by is None),
            key=lambda turn: turn.first,
            default=None,
        )

    def find(self, token: int) -> Turn | None:
        """Return the claim *token*, or None if it is done."""
        return next((turn for turn in self.turns if turn.token == token), None)

    def has(self, token: int) -> bool:
        """Say whether the claim *token* is not done."""
        return self.find(token) is not None

    def take(self, turn: Turn) -> Turns:
        """Return the state after *turn*, which begins where :attr:`offered` or the head is."""
        offered = self.offered
        if offered is None:
            return Turns(turn.end, (*self.turns, turn))
        rest = Turn(offered.token, None, turn.end, offered.end, offered.lease_s)
        left = () if turn.end >= offered.end else (rest,)
        return Turns(self.head, (*self._without(offered.token), turn, *left))

    def cut(self, token: int, end: Place, rest_token: int) -> Turns:
        """Return the state after claim *token* was cut off at *end*, and the rest offered.

        The same, if that was done before, or the claim has lost its holder.
        """
        turn = self.find(token)
        if turn is None or turn.by is None or turn.end <= end:
            return self
        kept = Turn(token, turn.by, turn.first, end, turn.lease_s)
        rest = Turn(rest_token, None, end, turn.end, turn.lease_s)
        return Turns(self.head, (*self._without(token), kept, rest))

    def marked(self, token: int, mark: Mark) -> Turns:
        """Return the state after the holder of claim *token* has consumed it."""
        return Turns(
            self.head,
            tuple(
                msgspec.structs.replace(turn, mark=mark) if turn.token == token else turn
                for turn in self.turns
            ),
        )

    def drop(self, token: int) -> Turns:
        """Return the state after claim *token* was done."""
        return Turns(self.head, self._without(token))

    def offer(self, tokens: set[int]) -> Turns:
        """Return the state after claims lost their holders; those that are marked do not."""
        return Turns(
            self.head,
            tuple(
                Turn(turn.token, None, turn.first, turn.end, turn.lease_s)
                if turn.token in tokens and turn.mark is None
                else turn
                for turn in self.turns
            ),
        )

    def _without(self, token: int) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if turn.token != token)


class Watch:
    """Tells which claims have run out, by one process's own clock.

    Machines do not share a clock, so a claim's time is counted from when it was first seen here.
    """

    def __init__(self) -> None:
        self._seen_s: dict[int, float] = {}

    def run_out(self, turns: Turns, now_s: float) -> set[int]:
        """Return the tokens of the claims that were seen with a holder for longer than they may.

        Those that are marked are among them: somebody has to do the rest.

        Args:
            turns: the state now.
            now_s: a monotonic clock.
        """
        held = {turn.token: turn.lease_s for turn in turns.turns if turn.by is not None}
        self._seen_s = {token: self._seen_s.get(token, now_s) for token in held}
        return {token for token, lease_s in held.items() if now_s - self._seen_s[token] >= lease_s}


def pack(turns: Turns) -> str:
    """Return *turns* as the JSON text that is stored."""
    return msgspec.json.encode(turns).decode()


def unpack(text: str) -> Turns:
    """Return the state that *text* is.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return msgspec.json.decode(text, type=Turns)
