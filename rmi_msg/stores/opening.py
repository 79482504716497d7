"""Opens the store of the settings: the one place that knows which stores there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from rmi_msg.stores import Stores
from rmi_runtime import Settings, errors


def open_stores(
    settings: Settings, logger_id: int | None = None
) -> AbstractAsyncContextManager[Stores]:
    """Open the store that ``settings.store`` names.

    Args:
        settings: the settings in force.
        logger_id: the logger that opens it, whose own member of the store (if the store has
            members) is to run meanwhile; None: whoever uses the store without being part of it.

    Returns:
        An async context manager that opens it, yields the interfaces, and closes it.

    Raises:
        InvalidRequest: no store of that name can be opened here.
    """
    opener = _openers().get(settings.store)
    if opener is None:
        known = ", ".join(sorted(_openers()))
        raise errors.InvalidRequest(
            f"store {settings.store!r} is not one of those built in: {known}", field="store"
        )
    return opener(settings, logger_id)


Opener = Callable[[Settings, int | None], AbstractAsyncContextManager[Stores]]


def _openers() -> Mapping[str, Opener]:
    return {"sqlite": _open_sqlite, "hazelcast": _open_hazelcast}


# Imported when asked for: a store may need packages that the others do without.


def _open_sqlite(settings: Settings, logger_id: int | None) -> AbstractAsyncContextManager[Stores]:
    from rmi_msg.stores import sqlite  # noqa: PLC0415

    return sqlite.open_stores(settings)


def _open_hazelcast(
    settings: Settings, logger_id: int | None
) -> AbstractAsyncContextManager[Stores]:
    from rmi_msg.hazelcast.install import check_client  # noqa: PLC0415

    check_client()
    from rmi_msg.hazelcast.opening import open_stores as opener  # noqa: PLC0415

    return opener(settings, logger_id)
