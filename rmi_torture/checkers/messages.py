"""Messages: each acknowledged one is kept once, read by all who come later, consumed once."""

from __future__ import annotations

from collections import Counter
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
        was posted), ``stale`` (a later read lacked it, although it is there in the end),
        ``disordered`` (a read has it before or after another than the last read has),
        ``unexpected`` (nobody posted it, or whoever did was told that it certainly failed).
    """
    verdict = Verdict("messages").expect(
        "lost", "duplicated", "altered", "stale", "disordered", "unexpected"
    )
    _check_final(operations, final, verdict)
    _check_refused(operations, {text for _, text in final}, verdict)
    places = {id_: place for place, (id_, _) in enumerate(final)}
    _check_reads(operations, places.keys(), verdict)
    _check_order(operations, places, verdict)
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


def _check_reads(operations: Sequence[Operation], kept: Set[str], verdict: Verdict) -> None:
    """A read sees every message that was acknowledged before it began."""
    reads = [op for op in operations if op.f == "read" and op.outcome == OK]
    posts = [op for op in operations if op.f == "post" and op.outcome == OK]
    posts.sort(key=lambda operation: operation.ended_ns)
    for read in reads:
        verdict.checked += 1
        seen = set(read.got["ids"])
        for post in posts:
            if post.ended_ns >= read.began_ns:
                break
            if post.got["id"] not in seen and post.got["id"] in kept:
                verdict.blame(
                    "stale", f"read {read.index} lacks message {post.got['id']}", read.index
                )


def check_queue(operations: Sequence[Operation], consumed: Mapping[str, Iterable[str]]) -> Verdict:
    """Check that every acknowledged message was consumed by exactly one service, once.

    Args:
        operations: the history's, with ``post`` as in :func:`check_messages`.
        consumed: messages service to the ids it consumed, as it tells them after the run.

    Returns:
        A verdict; its errors are ``lost`` (acknowledged, never consumed), ``doubled`` (consumed
        twice, by one service or by two) and ``unexpected`` (no post could have made it).
    """
    verdict = Verdict("queue").expect("lost", "doubled", "unexpected")
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
    return verdict
