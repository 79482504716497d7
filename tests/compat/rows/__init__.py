"""The rows of the table, by group; importing this adds them, in this order."""

# ruff: noqa: F401, I001
from tests.compat.rows import calls
from tests.compat.rows import exceptions
from tests.compat.rows import streams
from tests.compat.rows import members
from tests.compat.rows import proxies
from tests.compat.rows import context
from tests.compat.rows import instances
from tests.compat.rows import data
from tests.compat.rows import wire
from tests.compat.rows import transport
from tests.compat.rows import daemon_object
from tests.compat.rows import lifetime
from tests.compat.rows import names
