"""Messages: each acknowledged one is kept once, read by all who come later, consumed once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise

from rmi_torture.checkers.verdict import Verdict
from rmi_torture.history import FAIL, OK, Operation


def check_messages(operations: Sequence[Operation], final: Sequence[tuple[str, str]]) -> Verdict:
    """Check the set of messages.

    Args:
        operations: the history's: ``post`` (asked ``text`` and perhaps ``key``, got ``id``) and
            ``read`` of everything (got ``ids``).
        final: (id, text) of all messages, in the order in which they were read after the run.

    Returns:
        A verdict; its errors are ``lost`` (acknowledged, not there in the end), ``duplicated``
        (an id, or a key, is there twice, in the end or in a read), ``altered`` (another text than
        was posted), ``stale`` (a read lacked what was acknowledged, or read by another, before it
        began, although it is there in the end), ``disordered`` (a read has it before or after
        another than the last read has), ``vanished`` (a read had it, and it is not there in the
        end), ``skipped`` (a read passed its place without it: who pages on never gets it),
        ``unexpected`` (nobody posted it, or whoever did was told that it certainly failed).
    """
    verdict = Verdict("messages").expect(
        *("lost", "duplicated", "altered", "stale", "disordered", "vanished", "skipped"),
        "unexpected",
    )
    _check_final(operations, final, verdict)
    _check_refused(operations, {text for _, text in final}, verdict)
    places = {id_: place for place, (id_, _) in enumerate(final)}
    _check_reads(operations, places.keys(), verdict)
    _check_order(operations, places, verdict)
    _check_prefixes(operations, places, verdict)
    return verdict


def _check_final(
    operations: Sequence[Operation], final: Sequence[tuple[str, str]], verdict: Verdict
) -> None:
    kept = dict(final)
    for id_, count in Counter(id_ for id_, _ in final).items():
        if count > 1:
            verdict.blame("duplicated", f"message {id_} is there {count} times")
    posted: set[str] = set()
    id_of_key: dict[str, str] = {}
    acknowledged: dict[str, str] = {}
    for operation in operations:
        if operation.f != "post":
            continue
        text = str(operation.asked["text"])
        posted.add(text)
        if operation.outcome != OK:
            continue
        verdict.checked += 1
        id_, at = str(operation.got["id"]), operation.index
        acknowledged[id_] = text
        key = operation.asked.get("key")
        if key is not None and id_of_key.setdefault(str(key), id_) != id_:
            verdict.blame(
                "duplicated", f"key {key} has two messages: {id_of_key[str(key)]}, {id_}", at
            )
        if id_ not in kept:
            verdict.blame(
                "lost", f"message {id_} ({text!r}) was acknowledged, and is not there", at
            )
        elif kept[id_] != text:
            verdict.blame("altered", f"message {id_} was {text!r} and is {kept[id_]!r}", at)
    for id_, text in kept.items():
        if text not in posted:
            verdict.blame("unexpected", f"message {id_} ({text!r}) was posted by nobody")
    _check_texts(final, acknowledged, verdict)


def _check_texts(
    final: Sequence[tuple[str, str]], acknowledged: Mapping[str, str], verdict: Verdict
) -> None:
    """One post under two ids: each text is posted once, so it may be there once."""
    answered = Counter(acknowledged.values())
    for text, count in Counter(text for _, text in final).items():
        if count > max(1, answered[text]):
            verdict.blame("duplicated", f"the text {text!r} is there {count} times")


def _check_refused(operations: Sequence[Operation], kept: Set[str], verdict: Verdict) -> None:
    """What certainly failed, each time it was tried, is not there."""
    posts = [operation for operation in operations if operation.f == "post"]
    perhaps = {str(post.asked["text"]) for post in posts if post.outcome != FAIL}
    for post in posts:
        text = str(post.asked["text"])
        if text in kept and text not in perhaps:
            verdict.blame(
                "unexpected",
                f"the text {text!r} was refused ({post.code}), and is there",
                post.index,
            )


def _check_order(
    operations: Sequence[Operation], places: Mapping[str, int], verdict: Verdict
) -> None:
    """Every read has each message once, and all in the order of the last one."""
    for read in operations:
        if read.f != "read" or read.outcome != OK:
            continue
        ids: list[str] = read.got["ids"]
        if len(set(ids)) < len(ids):
            (id_, count), *_ = Counter(ids).most_common(1)
            sentence = f"read {read.index} has message {id_} {count} times"
            verdict.blame("duplicated", sentence, read.index)
        known = [id_ for id_ in ids if id_ in places]
        for one, other in pairwise(known):
            if places[one] > places[other]:
                verdict.blame(
                    "disordered",
                    f"read {read.index} has message {one} before {other}, the last read after it",
                    read.index,
                )


def _check_prefixes(
    operations: Sequence[Operation], places: Mapping[str, int], verdict: Verdict
) -> None:
    """The log only grows at its end: each read has what the last one begins with."""
    order = list(places)
    vanished: set[str] = set()
    for read in operations:
        if read.f != "read" or read.outcome != OK:
            continue
        seen = set(read.got["ids"])
        for id_ in sorted(seen - places.keys() - vanished):
            verdict.blame(
                "vanished", f"read {read.index} has message {id_}; it is not there", read.index
            )
        vanished |= seen - places.keys()
        passed = 1 + max((places[id_] for id_ in seen if id_ in places), default=-1)
        for id_ in order[:passed]:
            if id_ not in seen:
                verdict.blame(
                    "skipped",
                    f"read {read.index} has what comes after message {id_}, and not this one",
                    read.index,
                )


def _check_reads(operations: Sequence[Operation], kept: Set[str], verdict: Verdict) -> None:
    """A read sees every message that was acknowledged, or read, before it began."""
    told = [op for op in operations if op.f in ("post", "read") and op.outcome == OK]
    reads = sorted((op for op in told if op.f == "read"), key=lambda op: op.began_ns)
    told.sort(key=lambda op: op.ended_ns)
    known: set[str] = set()
    place = 0
    for read in reads:
        verdict.checked += 1
        while place < len(told) and told[place].ended_ns < read.began_ns:
            got = told[place].got
            known.update(got["ids"] if told[place].f == "read" else [got["id"]])
            place += 1
        for id_ in sorted((known & kept) - set(read.got["ids"])):
            verdict.blame("stale", f"read {read.index} lacks message {id_}", read.index)


def check_queue(operations: Sequence[Operation], consumed: Mapping[str, Iterable[str]]) -> Verdict:
    """Check that every acknowledged message was consumed by exactly one service, once.

    Args:
        operations: the history's: ``post`` as in :func:`check_messages`, and ``consumed``, a read
            of all that was consumed (got ``ids``).
        consumed: messages service to the ids it consumed, as it tells them after the run.

    Returns:
        A verdict; its errors are ``lost`` (acknowledged, never consumed), ``doubled`` (consumed
        twice, by one service or by two, in the end or in a read), ``unexpected`` (no post could
        have made it), ``vanished`` (a read had it as consumed, and it is not in the end) and
        ``stale`` (a read lacked what an earlier one had).
    """
    verdict = Verdict("queue").expect("lost", "doubled", "unexpected", "vanished", "stale")
    times: Counter[str] = Counter()
    for ids in consumed.values():
        times.update(ids)
    posts = [operation for operation in operations if operation.f == "post"]
    places = {str(op.got["id"]): op.index for op in posts if op.outcome == OK}
    acknowledged = places.keys()
    for id_, count in times.items():
        if count > 1:
            verdict.blame("doubled", f"message {id_} was consumed {count} times", places.get(id_))
    unknown = sum(operation.outcome == "info" for operation in posts)
    for id_ in sorted(acknowledged):
        verdict.checked += 1
        if id_ not in times:
            sentence = f"message {id_} was acknowledged, and consumed by nobody"
            verdict.blame("lost", sentence, places[id_])
    strangers = times.keys() - acknowledged
    if len(strangers) > unknown:
        verdict.blame(
            "unexpected",
            f"{len(strangers)} messages were consumed that nobody posted; at most {unknown} posts "
            "have an unknown end",
        )
    _check_consumed_reads(operations, times.keys(), verdict)
    return verdict


def _check_consumed_reads(
    operations: Sequence[Operation], final: Set[str], verdict: Verdict
) -> None:
    """What was consumed stays consumed: later reads have it, and so has the last one."""
    reads = [op for op in operations if op.f == "consumed" and op.outcome == OK]
    known: set[str] = set()
    vanished: set[str] = set()
    ended = deque(sorted(reads, key=lambda read: read.ended_ns))
    for read in sorted(reads, key=lambda read: read.began_ns):
        verdict.checked += 1
        while ended[0].ended_ns < read.began_ns:
            known.update(ended.popleft().got["ids"])
        times: Counter[str] = Counter(read.got["ids"])
        for id_, count in times.items():
            if count > 1:
                sentence = f"read {read.index} has message {id_} as consumed {count} times"
                verdict.blame("doubled", sentence, read.index)
        for id_ in sorted((known & final) - times.keys()):
            verdict.blame("stale", f"read {read.index} lacks message {id_}", read.index)
        for id_ in sorted(times.keys() - final - vanished):
            sentence = f"read {read.index} has message {id_} as consumed; it is not"
            verdict.blame("vanished", sentence, read.index)
        vanished |= times.keys() - final
