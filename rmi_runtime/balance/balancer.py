"""Which of several equal services gets the next call: plain decisions.

The clock and the random source are handed in, so that a test can drive every case with a seed.
:class:`rmi_runtime.balance.endpoints.Endpoints` puts connections around this.

A service that fails is set aside, for a time that doubles with every failure in a row, and gets
calls again only after somebody has probed it. One that vanishes from the name server is still used
if there is nothing better, and forgotten when it cannot be reached either: a name server that has
just been restarted and knows nobody must not stop calls that would succeed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from rmi_runtime.registry.nametable import Entry

Policy = Literal["random", "less_busy"]

ENDPOINTS_MAX = 1024

SILENT_S = 1.0
"""How long an endpoint that has calls under way may answer none of them, before it is asked whether
it is still there."""

_DOUBLINGS_MAX = 5  # of that time, for one that is found silent again and again


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint as it is now.

    Attributes:
        name: its Pyro name.
        uri: where it is.
        inflight: calls of ours that are under way there.
        set_aside: whether it gets no calls, because it failed and has not answered a probe since.
        draining: whether it gets no calls, because it said that it is leaving.
    """

    name: str
    uri: str
    inflight: int
    set_aside: bool
    draining: bool


class Endpoint:
    """One service, as a balancer sees it.

    Attributes:
        name: its Pyro name.
        uri: where it is.
        inflight: calls under way; the caller counts them.
        uncut: how many of those must not be cut off to be made elsewhere.
        busy_since: when the first of them was begun, by the caller's clock, which notes it.
        listed: whether the name server knew it when last asked.
        draining: whether it takes nothing new.
        failures: failures in a row.
        aside: whether it gets no calls until it has been probed.
        aside_until: when it may be probed, by the balancer's clock.
        probing: whether somebody probes it, or listens to it.
        heard_at: when it was last found to be there although it answered no calls.
        gone: whether the balancer has forgotten it.
        answered_at: when a call was last answered, by the caller's clock; the caller notes it.
    """

    __slots__ = (
        "answered_at",
        "aside",
        "aside_until",
        "busy_since",
        "draining",
        "failures",
        "gone",
        "heard_at",
        "inflight",
        "listed",
        "name",
        "probing",
        "uncut",
        "unlisted_since",
        "uri",
    )

    def __init__(self, name: str, uri: str, draining: bool) -> None:
        self.name = name
        self.uri = uri
        self.draining = draining
        self.listed = True
        self.unlisted_since = math.inf
        self.inflight = 0
        self.uncut = 0
        self.busy_since = -math.inf
        self.failures = 0
        self.aside = False
        self.aside_until = 0.0
        self.probing = False
        self.gone = False
        self.answered_at = -math.inf
        self.heard_at = -math.inf

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.uri} inflight={self.inflight} aside={self.aside}>"


class Balancer:
    """Chooses endpoints, and remembers how they did.

    Args:
        policy: ``random``, or ``less_busy``: the one with fewer calls under way of two picked at
            random.
        clock: monotonic, in seconds.
        rng: source of the choices.
        backoff_s_min: how long an endpoint is set aside after its first failure in a row.
        backoff_s_max: the most it is set aside after many.
        forget_s: how long an endpoint is kept that the name server does not list any more, while
            it lists others.
        silent_s: after how long without an answer :meth:`silent` tells an endpoint.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Callable[[], float],
        rng: Random,
        backoff_s_min: float = 0.1,
        backoff_s_max: float = 2.0,
        forget_s: float = 30.0,
        silent_s: float = SILENT_S,
    ) -> None:
        if policy not in ("random", "less_busy"):
            raise ValueError(f"policy is 'random' or 'less_busy', not {policy!r}")
        self._less_busy = policy == "less_busy"
        self._clock = clock
        self._random = rng.random
        self._backoff_s_min = backoff_s_min
        self._backoff_s_max = backoff_s_max
        self._forget_s = forget_s
        self._silent_s = silent_s
        self._endpoints: dict[str, Endpoint] = {}
        self._ready: list[Endpoint] = []

    @property
    def endpoints(self) -> list[Endpoint]:
        """All endpoints that are known, also those that get no calls."""
        return list(self._endpoints.values())

    @property
    def ready(self) -> int:
        """How many endpoints :meth:`pick` chooses from."""
        return len(self._ready)

    def pick(self, tried: Container[Endpoint] = (), prefer: str | None = None) -> Endpoint | None:
        """Choose an endpoint for one call.

        Args:
            tried: endpoints not to choose.
            prefer: name of the one to choose if it can be had.

        Returns:
            The endpoint, or None if there is none to be had.
        """
        ready = self._ready
        if tried:
            ready = [endpoint for endpoint in ready if endpoint not in tried]
        if prefer is not None:
            for endpoint in ready:
                if endpoint.name == prefer:
                    return endpoint
        count = len(ready)
        if count < 2:
            return ready[0] if ready else None
        first = int(self._random() * count)
        if not self._less_busy:
            return ready[first]
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = ready[first], ready[second]
        return other if other.inflight < one.inflight else one

    def others(self, endpoint: Endpoint, tried: Container[Endpoint]) -> bool:
        """Say whether :meth:`pick` would have others left than *endpoint*."""
        return any(other is not endpoint and other not in tried for other in self._ready)

    def update(self, listing: Mapping[str, Entry]) -> list[Endpoint]:
        """Take over what a name server says.

        Args:
            listing: all services it knows, by name.

        Returns:
            Endpoints that are forgotten by this: their connections can go when their calls have
            ended.
        """
        now = self._clock()
        known = self._endpoints
        forgotten = []
        for name, entry in listing.items():
            endpoint = known.get(name)
            if endpoint is not None and endpoint.uri != entry.uri:
                forgotten.append(self._forget(endpoint))  # the service was started anew
                endpoint = None
            if endpoint is None:
                if len(known) < ENDPOINTS_MAX:
                    known[name] = Endpoint(name, entry.uri, entry.draining)
                continue
            endpoint.listed = True
            endpoint.draining = entry.draining
        for endpoint in self.endpoints:
            if endpoint.name in listing:
                continue
            if endpoint.listed:
                endpoint.listed = False
                endpoint.unlisted_since = now
            elif listing and now - endpoint.unlisted_since >= self._forget_s:
                forgotten.append(self._forget(endpoint))
        self._sort_out()
        return forgotten

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that a call was answered. Need not be told of endpoints without ``failures``."""
        endpoint.failures = 0
        self._bring_back(endpoint)

    def failed(self, endpoint: Endpoint, *, reachable: bool = False) -> bool:
        """Set an endpoint aside.

        Args:
            endpoint: the one that failed.
            reachable: it answered, but would not do the work.

        Returns:
            Whether the endpoint is forgotten by this: nobody lists it, and it cannot be reached.
        """
        if endpoint.gone:
            return False
        if not endpoint.listed and not reachable:
            self._forget(endpoint)
            self._sort_out()
            return True
        # Calls that were under way together and fail together are one failure.
        if not endpoint.aside:
            pause_s = self._backoff_s_min * 2.0 ** min(endpoint.failures, 30)
            endpoint.aside_until = self._clock() + min(pause_s, self._backoff_s_max)
            endpoint.failures += 1
        endpoint.aside = True
        self._sort_out()
        return False

    def due(self) -> list[Endpoint]:
        """Return the endpoints to be probed now; each must be reported by :meth:`probed`."""
        now = self._clock()
        due = [e for e in self._waiting_aside() if e.aside_until <= now]
        for endpoint in due:
            endpoint.probing = True
        return due

    def next_due(self) -> float:
        """Return when :meth:`due` has something next, by the clock; infinity if never."""
        return min((endpoint.aside_until for endpoint in self._waiting_aside()), default=math.inf)

    def probed(self, endpoint: Endpoint, answered: bool) -> bool:
        """Note how a probe ended.

        Its failures in a row are forgotten only when a call succeeds: a service that answers
        probes and nothing else is asked ever more rarely.

        Returns:
            Whether the endpoint is forgotten by this, as in :meth:`failed`.
        """
        endpoint.probing = False
        endpoint.aside = False
        if not answered:
            return self.failed(endpoint)
        self._bring_back(endpoint)
        return False

    def silent(self) -> list[Endpoint]:
        """Return the endpoints to be listened to: each must be reported by :meth:`listened`.

        They have calls under way and have answered none for too long; and there are others that
        could take the calls. Who failed before is given more time: it may be slow. One that gets
        no new calls is among them if its old ones can be made elsewhere.
        """
        if not self._ready:
            return []
        now = self._clock()
        silent = []
        for endpoint in self._endpoints.values():
            if not endpoint.inflight or endpoint.probing or self._ready == [endpoint]:
                continue
            if endpoint.uncut and endpoint not in self._ready:
                continue
            since = max(endpoint.busy_since, endpoint.answered_at, endpoint.heard_at)
            patience_s = self._silent_s * 2.0 ** min(endpoint.failures, _DOUBLINGS_MAX)
            if now - since >= patience_s:
                endpoint.probing = True
                silent.append(endpoint)
        return silent

    def listened(self, endpoint: Endpoint, answered: bool) -> None:
        """Note whether a silent endpoint is there. One that is not is to be set aside."""
        endpoint.probing = False
        if answered:
            endpoint.heard_at = self._clock()

    def _waiting_aside(self) -> list[Endpoint]:
        return [e for e in self._endpoints.values() if e.aside and not e.probing]

    def _bring_back(self, endpoint: Endpoint) -> None:
        endpoint.aside = False
        self._sort_out()

    def _forget(self, endpoint: Endpoint) -> Endpoint:
        endpoint.gone = True
        del self._endpoints[endpoint.name]
        return endpoint

    def _sort_out(self) -> None:
        usable = [e for e in self._endpoints.values() if not (e.aside or e.draining)]
        self._ready = [e for e in usable if e.listed] or usable
