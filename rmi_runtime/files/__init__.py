"""What is kept on disk: databases, files that must not be lost, logs with a bound."""

from rmi_runtime.files.checkpoints import EarlyCheckpoints
from rmi_runtime.files.log_files import LogLimits
from rmi_runtime.files.oplog import OperationLog
from rmi_runtime.files.sqlite import SqliteThread, check_tables, lengthen_log, open_reader
from rmi_runtime.files.store_files import StoreFiles, StoreGone, StoreLost, write_private

__all__ = [
    "EarlyCheckpoints",
    "LogLimits",
    "OperationLog",
    "SqliteThread",
    "StoreFiles",
    "StoreGone",
    "StoreLost",
    "check_tables",
    "lengthen_log",
    "open_reader",
    "write_private",
]
