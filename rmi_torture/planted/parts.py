"""Parts of the product, by name: what planted bugs replace.

They are looked up when a bug is planted, inside the process that is to have it. So the harness
itself depends on none of them.
"""

from __future__ import annotations

import importlib
from typing import Any


def part(path: str) -> Any:
    """Return what *path*, ``module:name.name``, names.

    Raises:
        AttributeError: the product has no such part any more; the bug must be planted elsewhere.
    """
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found
