"""What is said of msgpack that cannot be read."""

from __future__ import annotations

from Pyro5.errors import SerializeError


def explain_unreadable(error: Exception, elements_max: int) -> None:
    """Raise what says more than *error*, if there is something to be said.

    Args:
        error: what the msgpack package has raised.
        elements_max: bound on the elements that was given.

    Raises:
        SerializeError: it has too many elements, or keys that no dictionary here can have.
    """
    said = str(error)
    if "exceeds max_" in said:
        raise SerializeError(
            f"the data has more than {elements_max} elements: send less at once"
        ) from None
    if said.startswith("unhashable type"):
        raise SerializeError(
            "a key of a dictionary in the data is a list or a dictionary (msgpack makes lists of "
            "tuples): use text or numbers as keys, or the serializer 'serpent', which keeps tuples"
        ) from None
