"""A live view of equal services, and calls that go to one of them that works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl as tls
import time
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from types import TracebackType
from typing import Any

from Pyro5.errors import DaemonError

from rmi_runtime import errors
from rmi_runtime.balance.balancer import SILENT_S, Balancer, Endpoint, EndpointView, Policy
from rmi_runtime.balance.endpoint_proxies import EndpointProxies, Hurried, Unreached
from rmi_runtime.proxy.calls import Late
from rmi_runtime.proxy.state import checked_timeout, deadline_after
from rmi_runtime.registry.client import NameServers

log = logging.getLogger(__name__)

HURRY_S = 0.1
"""Pause between two looks at the name server while something is amiss."""

TROUBLE_S = 3.0
"""For so long after a failure the name server is asked in a hurry."""

LOOK_GAP_S = 0.02
"""Least time between two looks at the name server."""

_SERVICE_REFUSALS = (errors.Unavailable, errors.Draining, errors.Overloaded)
_NO_ANSWERS = (errors.CallTimeout, errors.ConnectionLost, errors.Unavailable)


class Endpoints:
    """All services whose names start with a prefix; an async context manager.

    The view is fetched from the name servers every *refresh_s*, and at once when a service fails.
    Without any name server the last known view stays. Entering waits for nothing: a call waits for
    an endpoint as long as its own deadline allows.

    Args:
        name_servers: whom to ask; stays open when this is closed.
        prefix: such as ``bank.business.``; a whole name is a prefix too.
        handshake: data for the services' authentication.
        policy: ``random`` or ``less_busy`` (see :class:`~rmi_runtime.balance.balancer.Balancer`).
        rng: source of the choices.
        refresh_s: pause between two looks at the name server.
        timeout_s: deadline of calls that do not bring their own.
        serializer: of the calls.
        ssl: client context for TLS; None takes that of *name_servers*, if they have one.
        waiting_max: most calls that wait for an endpoint at once; one more is ``Overloaded``.
        silent_s: a service that has answered no call for so long, while some were under way, is
            asked whether it is still there, unless it is the only one.
    """

    def __init__(
        self,
        name_servers: NameServers,
        prefix: str,
        *,
        handshake: object = "hello",
        policy: Policy = "random",
        rng: Random | None = None,
        refresh_s: float = 0.5,
        timeout_s: float = 10.0,
        serializer: str = "msgpack",
        ssl: tls.SSLContext | None = None,
        waiting_max: int = 16384,
        silent_s: float = SILENT_S,
    ) -> None:
        self.prefix = prefix
        self._name_servers = name_servers
        self._refresh_s = refresh_s
        self._timeout_s = checked_timeout(timeout_s)
        self._waiting_max = waiting_max
        self._silent_s = silent_s
        # Balancing needs no secrets: the default source is fast and seeded by the system.
        rng = rng or Random()  # noqa: S311
        self._balancer = Balancer(policy, clock=time.monotonic, rng=rng, silent_s=silent_s)
        self._proxies = EndpointProxies(
            handshake=handshake,
            timeout_s=timeout_s,
            serializer=serializer,
            ssl=ssl or name_servers.ssl,
        )
        self._waiting: set[asyncio.Future[None]] = set()
        self._look_now = asyncio.Event()
        self._probe_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble_at = -math.inf
        self._blind: Exception | None = None  # why nothing is known, or no more than before
        self._closed = True

    async def __aenter__(self) -> Endpoints:
        self._closed = False
        self._spawn(self._keep_looking())
        self._spawn(self._keep_probing())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._wake()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # whoever waits for this may be cancelled
            await self._proxies.aclose()

    def view(self) -> list[EndpointView]:
        """Return the endpoints as they are now, by name."""
        return [
            EndpointView(e.name, e.uri, e.inflight, e.aside, e.draining)
            for e in sorted(self._balancer.endpoints, key=lambda endpoint: endpoint.name)
        ]

    async def ready(self, timeout_s: float | None = None) -> None:
        """Return when there is an endpoint that takes calls.

        Args:
            timeout_s: how long to wait; None takes the deadline of calls.

        Raises:
            ValueError: the deadline is no number of seconds.
            Unavailable: there is none by then.
        """
        deadline = deadline_after(self._timeout_s if timeout_s is None else timeout_s)
        while not self._balancer.ready:
            await self._wait_for_change(deadline, None)

    async def call(
        self,
        method: str,
        *args: Any,
        timeout_s: float | None = None,
        repeatable: bool = False,
        prefer: str | None = None,
        late: Late | None = None,
        unsure: Callable[[errors.Indefinite], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a method of one of the services.

        A service that is not there, is leaving or is overloaded has done nothing: the next one is
        tried at once, and when there is no other left, the call waits for one until its deadline.

        Args:
            method, args, kwargs: its name and arguments.
            timeout_s: deadline of it all; None takes the default.
            repeatable: twice does no harm (it changes nothing, or carries its own id): tried again
                elsewhere if a service may have done it; each try but the last has half the time.
            prefer: name of the service to try first, if it takes calls; then the policy decides.
            late: takes a result that nobody waits for any more, while the connection stands.
            unsure: told of each try that may have been done, if another follows.

        Returns:
            What the method returns.

        Raises:
            Unavailable, DeadlinePassed: nobody took the call in time; it had no effect.
            Overloaded: too many calls wait for an endpoint.
            Indefinite: a service may have done it, and *repeatable* is false, or time is up.
            ValueError: the deadline is no number of seconds.
            Exception: what the method raises.
        """
        deadline = deadline_after(self._timeout_s if timeout_s is None else timeout_s)
        tried: set[Endpoint] = set()  # those that failed without being set aside for it
        may_be_cut = repeatable  # off a service that stands still; once: it may be busy with this
        last: BaseException | None = None
        while True:
            endpoint = self._balancer.pick(tried, prefer)
            if endpoint is None and not tried:
                await self._wait_for_change(deadline, last)
                continue
            left_s = deadline - (began := time.monotonic())
            if endpoint is None or left_s <= 0:
                raise self._given_up(last)
            try_s = left_s / 2 if repeatable and self._balancer.others(endpoint, tried) else left_s
            try:
                return await self._call_at(endpoint, method, args, kwargs, try_s, late, may_be_cut)
            except (errors.RmiError, DaemonError) as error:
                if not self._may_go_on(endpoint, error, began, repeatable, last):
                    raise
                may_be_cut = may_be_cut and not isinstance(error, errors.ConnectionLost)
                if not endpoint.aside and not endpoint.gone:
                    tried.add(endpoint)
                if unsure is not None and isinstance(error, errors.Indefinite):
                    unsure(error)
                if not isinstance(last, errors.Indefinite):  # no refusal undoes it
                    last = error

    async def _call_at(
        self,
        endpoint: Endpoint,
        method: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout_s: float,
        late: Late | None,
        may_be_cut: bool,
    ) -> Any:
        if not endpoint.inflight:
            endpoint.busy_since = time.monotonic()
        endpoint.inflight += 1
        endpoint.uncut += not may_be_cut
        try:
            proxy = self._proxies.connected(endpoint)
            if proxy is None:
                proxy, timeout_s = await self._proxies.connect(endpoint, timeout_s)
            sent = proxy._call(method, args, kwargs, timeout_s=timeout_s, late=late)
            try:
                result = await sent
            except Exception as error:
                if not isinstance(error, _NO_ANSWERS):
                    endpoint.answered_at = time.monotonic()
                raise
            endpoint.answered_at = time.monotonic()
            if endpoint.failures:
                self._balancer.succeeded(endpoint)
                self._wake()
            return result
        finally:
            endpoint.inflight -= 1
            endpoint.uncut -= not may_be_cut
            self._hang_up(endpoint)

    def _may_go_on(
        self,
        endpoint: Endpoint,
        error: Exception,
        began: float,
        repeatable: bool,
        last: BaseException | None,
    ) -> bool:
        """Note a failed try; return whether the call may be tried again.

        Raises:
            Indefinite: it may not, and *error* leaves *last*, an earlier try, in doubt.
        """
        if isinstance(error, (Unreached, DaemonError)):
            self._set_aside(endpoint, reachable=False)
            return True
        if isinstance(error, _SERVICE_REFUSALS):
            self._set_aside(endpoint, reachable=True)
            return True
        if isinstance(error, errors.CallTimeout):
            # If others were answered meanwhile, the call was slow or impatient, and nobody dead.
            if endpoint.answered_at < began:
                self._set_aside(endpoint, reachable=False)
        elif isinstance(error, errors.ConnectionLost):
            self._set_aside(endpoint, reachable=False)
        elif isinstance(error, Hurried) and not (endpoint.probing or self._closed):
            endpoint.probing = True  # somebody with more time finds out whether it is there
            self._spawn(self._listen(endpoint))
        late = isinstance(error, errors.DeadlinePassed)  # of this try: it was too busy to begin
        if late or (repeatable and isinstance(error, errors.Indefinite)):
            return True
        if isinstance(last, errors.Indefinite) and not errors.settles(error):
            raise last from error
        return False

    def _set_aside(self, endpoint: Endpoint, *, reachable: bool) -> None:
        self._balancer.failed(endpoint, reachable=reachable)
        self._hang_up(endpoint)
        self._trouble_at = time.monotonic()
        self._look_now.set()
        self._probe_now.set()

    def _given_up(self, last: BaseException | None) -> BaseException:
        if isinstance(last, (errors.Indefinite, errors.DeadlinePassed)):
            return last
        known = len(self.view())
        absent = f"of {known} known, none answered when last asked" if known else "none is known"
        why = last or self._blind or absent
        error = errors.Unavailable(
            f"no service {self.prefix}* took the call in time ({why}); see 'rmi status'"
        )
        error.__cause__ = last
        return error

    async def _wait_for_change(self, deadline: float, last: BaseException | None) -> None:
        """Return when an endpoint may have become ready; raise when the deadline has passed."""
        left_s = deadline - time.monotonic()
        if left_s <= 0 or self._closed:
            raise self._given_up(last)
        if len(self._waiting) >= self._waiting_max:
            raise errors.Overloaded(f"{self._waiting_max} calls wait for {self.prefix}* already")
        change = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        self._look_now.set()
        try:
            async with asyncio.timeout(left_s):
                await change
        except TimeoutError:
            pass  # said below, where nothing hides what the last try said
        else:
            return
        finally:
            self._waiting.discard(change)
        raise self._given_up(last)

    def _wake(self) -> None:
        """Let the waiting calls look again, if there is something to see."""
        if self._waiting and (self._balancer.ready or self._closed):
            for change in self._waiting:
                if not change.done():
                    change.set_result(None)
            self._waiting.clear()

    def _hang_up(self, endpoint: Endpoint) -> None:
        """Close the connection to an endpoint that is forgotten, once its calls have ended."""
        if endpoint.gone and not endpoint.inflight:
            self._proxies.forget(endpoint)

    async def _keep_looking(self) -> None:
        while True:
            self._look_now.clear()
            await self._look()
            now = time.monotonic()
            pause_s = self._refresh_s
            if self._waiting or now - self._trouble_at < TROUBLE_S:
                pause_s = min(pause_s, HURRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look_now.wait()
            # At once, but not without end when every call fails.
            await asyncio.sleep(max(0.0, now + LOOK_GAP_S - time.monotonic()))

    async def _look(self) -> None:
        try:
            listing = await self._name_servers.list(self.prefix)
        except Exception as error:  # whatever a name server may raise: it will be asked again
            if self._blind is None:
                log.warning("%s*: keeping what is known; %s", self.prefix, error)
            self._blind = error
            return
        self._blind = None
        for endpoint in self._balancer.update(listing):
            self._hang_up(endpoint)
        self._wake()

    async def _keep_probing(self) -> None:
        while True:
            self._probe_now.clear()
            for endpoint in self._balancer.due():
                self._spawn(self._probe(endpoint))
            for endpoint in self._balancer.silent():
                self._spawn(self._listen(endpoint))
            next_due_s = self._balancer.next_due() - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(next_due_s, self._silent_s / 2)):
                    await self._probe_now.wait()

    async def _probe(self, endpoint: Endpoint) -> None:
        answered = False
        try:
            await self._proxies.ping(endpoint)
            answered = True
        except Exception as error:
            log.debug("%r does not answer: %s", endpoint, error)
            # "Not now" is an answer too.
            answered = isinstance(error, _SERVICE_REFUSALS) and not isinstance(error, Unreached)
        finally:
            self._balancer.probed(endpoint, answered)
        self._hang_up(endpoint)
        self._probe_now.set()
        self._wake()

    async def _listen(self, endpoint: Endpoint) -> None:
        """Find out whether a service is slow or stands still; leave it in the latter case."""
        asked_at = time.monotonic()
        answered = True
        try:
            answered = await self._proxies.is_heard(endpoint)
        finally:
            answered = answered or endpoint.answered_at > asked_at
            self._balancer.listened(endpoint, answered)
        if answered:
            return
        log.warning("%s at %s stands still: calls go elsewhere", endpoint.name, endpoint.uri)
        self._set_aside(endpoint, reachable=False)
        if not endpoint.uncut:
            self._proxies.cut(endpoint)  # its calls are made again, elsewhere

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
