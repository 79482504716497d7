"""The facade: the one door to the messages, for the gateway and for anyone who speaks Pyro."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, get_args

from rmi_msg.batches import (
    USUAL,
    CallLimits,
    Group,
    Pair,
    all_full,
    no_room,
    parts,
    put_groups,
)
from rmi_msg.checks import (
    PAGE_LIMIT_DEFAULT,
    check_after,
    check_batch,
    check_id,
    check_limit,
    check_text,
)
from rmi_msg.errors import MessageIdReused
from rmi_msg.ids import new_message_id
from rmi_msg.lines import LineLog
from rmi_msg.spread import Spread
from rmi_msg.stores import Word
from rmi_runtime import (
    Coalescer,
    Endpoints,
    Identities,
    ServiceContext,
    Settings,
    current_call,
    errors,
    expose,
    run_service,
)

_OWN_SHARE: Final = 0.9
"""How much of a caller's patience we use up: our answer says more than a timeout would."""

TOKEN_REMEMBERED_S: Final = 0.25
"""How long it is remembered here: the business object that was asked remembers too, and a revoked
token shall be refused within two seconds."""

ASK_BANK_S: Final = 3.0
"""How long a business object may take to say whose token it is."""

_ANY: Final = ""
"""Lane of the messages that come while no logger is known."""


@expose
class FacadeObject:
    """Pyro object ``msg.facade.N``.

    Every message goes to a logger picked at random, and to the next one if that fails: as messages
    carry ids, also when it may have stored them. Messages for the same logger that wait together
    travel together, and in a crowd those that came together do (:mod:`rmi_msg.spread`).

    Who may call: services, clients with a token (of any role: the bank, which makes tokens, is
    asked whose it is), and, as the seed's interface is open, anyone on this machine. A caller from
    elsewhere needs a token or the cluster key. A stranger's calls are
    small: the daemon bounds them (:class:`~rmi_runtime.DaemonLimits`); long texts go through HTTP.

    Args:
        loggers: the services ``msg.logger.*``.
        messages: the services ``msg.messages.*``.
        log: gets a line per request.
        timeout_s: patience of callers that set no deadline, in seconds.
        queue_max: most groups of messages that wait for one logger.
        limits: of one call to a logger.
        spread: picks the loggers.
        now: clock of the log.
    """

    def __init__(
        self,
        loggers: Endpoints,
        messages: Endpoints,
        log: LineLog,
        *,
        timeout_s: float = 10.0,
        queue_max: int = 16384,
        limits: CallLimits = USUAL,
        spread: Spread | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._loggers = loggers
        self._messages = messages
        self._log = log
        self._timeout_s = timeout_s
        self._queue_max = queue_max
        self._limits = limits
        self._spread = spread or Spread()
        self._now = now
        self._lanes: dict[str, Coalescer[Group, Sequence[Word]]] = {}

    async def post(self, text: str, id: str | None = None) -> dict[str, str]:
        """Store one message.

        Args:
            text: 1 to 262,144 bytes of UTF-8.
            id: 1 to 200 printable characters. With an id of its own, a caller may repeat a post
                that failed, and it stays one message. None: a fresh one is made.

        Returns:
            ``{"id"}`` when the message is stored, or was already.

        Raises:
            InvalidRequest: text or id is wrong.
            MessageIdReused: the id is that of a message with another text.
            StoreFull: the store has no room; nothing was done.
            Unavailable: no logger could store it; nothing was done.
            Indefinite: it may have been stored; repeat it with the same id, ``fields['id']``.
        """
        _check_caller()
        check_text(text)
        id = new_message_id() if id is None else check_id(id)
        try:
            [word] = await self._put([(id, text)], "post")
        except errors.Indefinite as error:  # one of many callers' may be: each gets its own
            fields = {**error.fields, "id": id}
            raise errors.make_error(error.code, False, error.message, fields) from error
        if word == "other":
            raise MessageIdReused(
                f"id {id} is that of a message with another text, which stays: use a new id",
                id=id,
            )
        return {"id": id}

    async def post_many(self, messages: Sequence[Sequence[str]]) -> list[Word]:
        """Store many messages.

        Args:
            messages: [id, text] pairs, at most 1,024.

        Returns:
            A word per message, in order: ``new``, ``same`` (it was there already), ``other`` (its
            id has another text, which stays) or ``full`` (it is not there, and the store has no
            room for it; others of the call were stored, or there).

        Raises:
            InvalidRequest: a message breaks a rule; none was stored.
            StoreFull: the store has room for none; nothing was done.
            Unavailable: no logger could store them; nothing was done.
            Indefinite: some may have been stored; repeat all of them with the same ids.
        """
        _check_caller()
        return await self._put(check_batch(messages), "post_many")

    async def page(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read the messages of all loggers, in their order of arrival, from a logger at random.

        Args:
            after: None to begin, or the ``next`` of a page.
            limit: most messages to return, from 1 to 1,000; long texts make it fewer.

        Returns:
            ``{"messages": [{"id", "text", "received_at", "logger"}], "next"}``; ``next`` is None
            on the last page.

        Raises:
            InvalidRequest: *after* or *limit* is wrong.
            LogBegunAnew: *after* is of a log that was lost; read from the beginning.
            Unavailable: no logger answers.
        """
        return await self._read(self._loggers, "page", after, limit)

    async def consumed(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read what was consumed, in order of consumption, from a messages service at random.

        Args:
            after: None to begin, or the ``next`` of a page.
            limit: most messages to return, from 1 to 1,000; long texts make it fewer.

        Returns:
            ``{"messages": [{"id", "text", "consumed_at", "by"}], "next"}``; ``next`` is None on
            the last page.

        Raises:
            InvalidRequest: *after* or *limit* is wrong.
            LogBegunAnew: *after* is of a log that was lost; read from the beginning.
            Unavailable: no messages service answers.
        """
        return await self._read(self._messages, "consumed", after, limit)

    async def _read(
        self, services: Endpoints, method: str, after: object, limit: object
    ) -> dict[str, Any]:
        _check_caller()
        page: dict[str, Any] = await services.call(
            method,
            check_after(after),
            check_limit(limit),
            timeout_s=_OWN_SHARE * current_call().remaining_s(self._timeout_s),
            repeatable=True,
        )
        self._note(method, f"{len(page['messages'])} messages after {after or 'the beginning'}")
        return page

    async def _put(self, messages: Sequence[Pair], method: str) -> list[Word]:
        """Spread messages over the loggers; return their words when all have answered."""
        if not (names := self._takers()):
            await self._until_one_takes(messages, method)
            names = self._takers() or [_ANY]
        places = self._spread.places(len(messages), names)
        waits: list[asyncio.Future[Sequence[Word]]] = []
        orders: list[Sequence[int]] = []
        for logger, order in places.items():
            at = 0
            for part in parts([messages[place] for place in order], self._limits):
                waits.append(self._submit(logger, part))
                orders.append(order[at : at + len(part)])
                at += len(part)
        results = await asyncio.gather(*waits, return_exceptions=True)
        words: list[Word] = ["full"] * len(messages)  # as long as nobody says otherwise
        failures: list[BaseException] = []
        for its_places, result in zip(orders, results, strict=True):
            if isinstance(result, BaseException):
                failures.append(result)
                continue
            for place, word in zip(its_places, result, strict=True):
                words[place] = word
        if failure := _joint_failure(failures, words):
            self._note(method, f"{len(messages)} messages, failed: {failure}")
            raise failure
        counts = ", ".join(f"{words.count(word)} {word}" for word in get_args(Word))
        self._note(method, f"{len(messages)} messages, {counts}")
        return words

    def _takers(self) -> list[str]:
        """Return the names of the loggers that take calls."""
        return [e.name for e in self._loggers.view() if not (e.set_aside or e.draining)]

    async def _until_one_takes(self, messages: Sequence[Pair], method: str) -> None:
        """Wait for a logger, in no lane: each caller by itself, so that it hears in its own time.

        Raises:
            Unavailable: there is none; nothing was done.
        """
        try:
            await self._loggers.ready(_OWN_SHARE * current_call().remaining_s(self._timeout_s))
        except errors.RmiError as error:
            self._note(method, f"{len(messages)} messages, failed: {error}")
            raise

    def _submit(self, logger: str, group: Group) -> asyncio.Future[Sequence[Word]]:
        """Queue a group in the lane of its logger; a lane that is full fails the future only."""
        lane = self._lanes.get(logger)
        if lane is None:
            send = partial(self._send, logger)
            lane = self._lanes[logger] = Coalescer(send, queue_max=self._queue_max)
        try:
            return lane.submit_nowait(group)
        except errors.RmiError as error:
            failed: asyncio.Future[Sequence[Word]] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    async def _send(self, logger: str, groups: list[Group]) -> list[Sequence[Word] | BaseException]:
        async def put(messages: Group) -> list[Word]:
            words: list[Word] = await self._loggers.call(
                "put_many",
                messages,
                timeout_s=_OWN_SHARE * self._timeout_s,
                repeatable=True,
                prefer=logger or None,
            )
            return words

        return await put_groups(put, groups, self._limits)

    def _note(self, method: str, what: str) -> None:
        self._log.write([f"{self._now()} {method}: {what}"])


def _joint_failure(failures: list[BaseException], words: Sequence[Word]) -> BaseException | None:
    """Return the error of a request that was sent in several groups, of which some failed.

    Args:
        failures: of the groups.
        words: of all messages; those that none came for are ``full``.

    Returns:
        None if the words say all.
    """
    for failure in failures:
        if not isinstance(failure, errors.Definite):
            return failure
    if words and all_full(words):
        return failures[0] if failures else no_room()
    untold = [failure for failure in failures if not isinstance(failure, errors.StoreFull)]
    if not untold:
        return None
    error = errors.Interrupted(
        f"some of the messages were stored and some were not ({untold[0]}): "
        "send all of them again with the same ids"
    )
    error.__cause__ = untold[0]
    return error


def _check_caller() -> None:
    """Let in whoever is known, and strangers from this machine.

    Raises:
        Unauthenticated: a stranger from elsewhere.
    """
    call = current_call()
    if call.identity.kind != "anonymous" or call.connection is None:
        return
    if not _is_near(call.connection.peer):
        raise errors.Unauthenticated(
            "the facade takes strangers from its own machine only: send a token or the cluster key "
            "in the connection handshake"
        )


def _is_near(peer: object) -> bool:
    if not isinstance(peer, tuple):
        return True  # a Unix domain socket, which guards itself by its file's mode
    host = str(peer[0]).removeprefix("::ffff:")
    return host == "::1" or host.startswith("127.")


async def _ask_bank(bank: Endpoints, token_hash: str) -> dict[str, Any] | None:
    """Ask the one who knows whose token it is."""
    try:
        found: dict[str, Any] | None = await bank.call(
            "identify", token_hash, timeout_s=ASK_BANK_S, repeatable=True
        )
    except errors.Unavailable as error:
        raise errors.Unavailable(
            f"nobody can say whose token this is: {error.message}. On the facade's own machine, "
            "none is needed"
        ) from error
    return found


async def run_facade(
    settings: Settings, facade_id: int = 1, *, stop: asyncio.Event | None = None
) -> None:
    """Run the service ``msg.facade.N`` until it is told to stop.

    Args:
        settings: the settings in force.
        facade_id: N, from 1.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.
    """

    @asynccontextmanager
    async def build(context: ServiceContext) -> AsyncIterator[FacadeObject]:
        def services(prefix: str) -> Endpoints:
            return Endpoints(
                context.name_servers,
                prefix,
                handshake=context.cluster_handshake,
                policy="random",
                timeout_s=settings.call_timeout_s,
            )

        async with (
            services("msg.logger.") as loggers,
            services("msg.messages.") as messages,
            services("bank.business.") as bank,
        ):
            identities = Identities(partial(_ask_bank, bank), remembered_s=TOKEN_REMEMBERED_S)
            context.identify = identities.find
            with LineLog(context.log_path, limits=context.log_limits) as log:
                yield FacadeObject(
                    loggers,
                    messages,
                    log,
                    timeout_s=settings.call_timeout_s,
                    queue_max=settings.queue_max,
                    limits=CallLimits.within(settings.message_size_bytes_max),
                )

    await run_service(f"msg.facade.{facade_id}", build, settings, stop=stop)


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi facade")
