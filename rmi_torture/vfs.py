"""A layer between SQLite and the file system, put in from outside, that a test disk can steer.

SQLite calls the file system through a table of functions, its VFS
(https://www.sqlite.org/vfs.html). This registers, in the very library that Python's ``sqlite3``
uses, a copy of the default table whose open, read, write, truncate, sync, size and delete go
through a :class:`Disk` first. The program that uses SQLite stays as it is: it names the VFS in a
URI, or gets it because it is the default one.

The structures are those of ``sqlite3.h``, which SQLite keeps compatible for ever.
"""

from __future__ import annotations

import ctypes
import logging
import sqlite3
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Protocol, cast

log = logging.getLogger(__name__)

OK = 0
IOERR = 10
IOERR_WRITE = 10 | (3 << 8)
IOERR_FSYNC = 10 | (4 << 8)
FULL = 13
READ_SHORT = 10 | (2 << 8)

_OPEN_KINDS = {0x100: "db", 0x800: "journal", 0x80000: "wal"}


class Disk(Protocol):
    """What steers the layer. Each answer is an SQLite result code, 0 if all is well."""

    def opened(self, path: str, raw: RawFile) -> None:
        """Take note that a connection opened a file."""

    def read(self, path: str, raw: RawFile, size: int, offset: int) -> bytes | int:
        """Read; fewer bytes than asked at the end of the file."""

    def write(self, path: str, raw: RawFile, data: bytes, offset: int) -> int:
        """Write."""

    def truncate(self, path: str, raw: RawFile, size: int) -> int:
        """Cut a file off."""

    def sync(self, path: str, raw: RawFile) -> int:
        """Make what was written last."""

    def size(self, path: str, raw: RawFile) -> int:
        """Return the size of a file, in bytes."""

    def delete(self, path: str) -> None:
        """Take note that a file is deleted."""


_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Move = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_Size = CFUNCTYPE(c_int, c_void_p, POINTER(c_int64))


class _Vfs(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        ("others", c_void_p * 14),  # xAccess to xNextSystemCall
    )


class _Methods(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("xClose", c_void_p),
        ("xRead", c_void_p),
        ("xWrite", c_void_p),
        ("xTruncate", c_void_p),
        ("xSync", c_void_p),
        ("xFileSize", c_void_p),
        ("others", c_void_p * 12),  # xLock to xUnfetch
    )


class _File(Structure):
    _fields_ = (("pMethods", POINTER(_Methods)),)


class RawFile:
    """A file as the layer below sees it: what a disk uses to do what it was asked.

    Args:
        address: of SQLite's file object.
        methods: of the layer below.
    """

    def __init__(self, address: int, methods: _Methods) -> None:
        self._address = address
        self._read = _Move(methods.xRead)
        self._write = _Move(methods.xWrite)
        self._truncate = _Truncate(methods.xTruncate)
        self._sync = _Sync(methods.xSync)
        self._size = _Size(methods.xFileSize)
        self.close = _Close(methods.xClose)

    def read(self, size: int, offset: int) -> bytes | int:
        """Read; returns the bytes there are, or a result code."""
        held = max(0, min(size, self.size() - offset))
        if not held:
            return b""
        buffer = ctypes.create_string_buffer(held)
        code = int(self._read(self._address, ctypes.addressof(buffer), held, offset))
        return buffer.raw if code == OK else code

    def write(self, data: bytes, offset: int) -> int:
        """Write; returns a result code."""
        return int(self._write(self._address, cast(Any, data), len(data), offset))

    def truncate(self, size: int) -> int:
        """Cut off; returns a result code."""
        return int(self._truncate(self._address, size))

    def sync(self) -> int:
        """Sync (with the flag for a full one); returns a result code."""
        return int(self._sync(self._address, 2))

    def size(self) -> int:
        """Return the size in bytes."""
        found = c_int64(0)
        self._size(self._address, byref(found))
        return found.value


class Vfs:
    """The layer; register it once per process, and keep it: SQLite holds pointers into it.

    Args:
        name: to be used in URIs, as ``file:…?vfs=NAME``.
        disk: steers it; may be replaced between two uses.
        default: use it for every file that is opened without naming one.
    """

    def __init__(self, name: str, disk: Disk, *, default: bool = False) -> None:
        self.disk = disk
        self._library = _sqlite_library()
        below = self._library.sqlite3_vfs_find(None)
        self._below_address = ctypes.cast(below, c_void_p).value
        self._below_open = _Open(below.contents.xOpen)
        self._below_delete = _Delete(below.contents.xDelete)
        self._paths: dict[int, tuple[str, RawFile]] = {}
        self._tables: dict[int, _Methods] = {}
        self._callbacks: list[Any] = []
        self._vfs = _Vfs()
        ctypes.memmove(byref(self._vfs), below, ctypes.sizeof(_Vfs))
        self._vfs.zName = name.encode()
        self._vfs.pNext = None
        self._vfs.xOpen = self._keep(_Open, self._open)
        self._vfs.xDelete = self._keep(_Delete, self._delete)
        code = self._library.sqlite3_vfs_register(byref(self._vfs), int(default))
        if code != OK:
            raise sqlite3.OperationalError(f"SQLite refuses the VFS {name!r}: code {code}")

    def unregister(self) -> None:
        """Take it out again; no file of it may be open."""
        self._library.sqlite3_vfs_unregister(byref(self._vfs))

    def _keep(self, kind: Any, function: Callable[..., int]) -> int | None:
        """Return the address of a C function that calls *function*."""

        def guarded(*args: Any) -> int:
            try:
                return function(*args)
            except Exception:
                log.exception("the disk failed in a way that nobody planned")
                return IOERR

        callback = kind(guarded)
        self._callbacks.append(callback)
        return ctypes.cast(callback, c_void_p).value

    def _open(self, _vfs: int, name: int | None, file: int, flags: int, out: Any) -> int:
        code = self._below_open(self._below_address, name, file, flags, out)
        kind = next((kind for bit, kind in _OPEN_KINDS.items() if flags & bit), "")
        if code != OK or not kind or not name:
            return int(code)
        opened = _File.from_address(file)
        below = opened.pMethods.contents
        address = ctypes.addressof(below)
        table = self._tables.get(address)
        if table is None:
            table = self._tables[address] = self._table(below)
        path = cast(bytes, ctypes.cast(name, c_char_p).value).decode()
        raw = RawFile(file, below)
        opened.pMethods = ctypes.pointer(table)
        self._paths[file] = path, raw
        self.disk.opened(path, raw)
        return OK

    def _table(self, below: _Methods) -> _Methods:
        table = _Methods()
        size = ctypes.sizeof(_Methods)
        if below.iVersion < 3:  # shorter tables end before xFetch
            size -= ctypes.sizeof(c_void_p) * (2 if below.iVersion == 2 else 6)
        ctypes.memmove(byref(table), byref(below), size)
        table.xClose = self._keep(_Close, self._close)
        table.xRead = self._keep(_Move, self._read)
        table.xWrite = self._keep(_Move, self._write)
        table.xTruncate = self._keep(_Truncate, self._truncate)
        table.xSync = self._keep(_Sync, self._sync)
        table.xFileSize = self._keep(_Size, self._file_size)
        return table

    def _close(self, file: int) -> int:
        _, raw = self._paths.pop(file)
        return int(raw.close(file))

    def _read(self, file: int, buffer: int, size: int, offset: int) -> int:
        path, raw = self._paths[file]
        found = self.disk.read(path, raw, size, offset)
        if isinstance(found, int):
            return found
        ctypes.memmove(buffer, found, len(found))
        if len(found) < size:
            ctypes.memset(buffer + len(found), 0, size - len(found))
            return READ_SHORT
        return OK

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        path, raw = self._paths[file]
        return self.disk.write(path, raw, ctypes.string_at(data, size), offset)

    def _truncate(self, file: int, size: int) -> int:
        path, raw = self._paths[file]
        return self.disk.truncate(path, raw, size)

    def _sync(self, file: int, _flags: int) -> int:
        path, raw = self._paths[file]
        return self.disk.sync(path, raw)

    def _file_size(self, file: int, out: Any) -> int:
        path, raw = self._paths[file]
        out[0] = self.disk.size(path, raw)
        return OK

    def _delete(self, _vfs: int, name: bytes, sync: int) -> int:
        code = int(self._below_delete(self._below_address, name, sync))
        if code == OK:
            self.disk.delete(name.decode())
        return code


def _sqlite_library() -> Any:
    """Return the SQLite library that Python's own module is linked to.

    Raises:
        OSError: its functions cannot be reached.
    """
    import _sqlite3  # noqa: PLC0415 (only here, to find the library)

    library = ctypes.CDLL(str(Path(_sqlite3.__file__)))
    try:
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [c_char_p]
        library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
        library.sqlite3_vfs_unregister.argtypes = [POINTER(_Vfs)]
    except AttributeError as error:
        raise OSError(f"Python's SQLite does not show its functions: {error}") from error
    return library
