"""Fetches the pinned Hazelcast jar and what it depends on, once per data directory, with Maven."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rmi_runtime import errors

VERSION: Final = "5.7.0"
"""Of the member's jar, pinned in ``pom.xml``; the Python client is pinned in ``setup.cfg``."""

JAVA_VERSION_MIN: Final = 17
MAVEN_S_MAX: Final = 600.0
"""How long Maven may take before it is killed, in seconds."""

_TAIL_LINES: Final = 15

Tell = Callable[[str], None]


class PartMissing(errors.Definite):
    """Something that Hazelcast needs is not on this machine: a failure, whatever runs here."""

    code = "part_missing"


class ClientMissing(PartMissing):
    """There is no client library to reach Hazelcast with."""

    code = "client_missing"


class JavaMissing(PartMissing):
    """There is no Java that can run a Hazelcast member."""

    code = "java_missing"


class MavenMissing(PartMissing):
    """There is no Maven to fetch Hazelcast with."""

    code = "maven_missing"


class FetchFailed(PartMissing):
    """Maven could not fetch Hazelcast."""

    code = "fetch_failed"


def hazelcast_dir(data_dir: Path) -> Path:
    """Return the directory of everything about Hazelcast below *data_dir*."""
    return data_dir / "hazelcast"


def lib_dir(data_dir: Path) -> Path:
    """Return the directory of the jars below *data_dir*."""
    return hazelcast_dir(data_dir) / "lib"


def is_installed(data_dir: Path) -> bool:
    """Say whether the pinned jar is there."""
    return (lib_dir(data_dir) / f"hazelcast-{VERSION}.jar").is_file()


def check_client() -> None:
    """See that the Hazelcast client library is installed, without loading it.

    Raises:
        ClientMissing: it is not.
    """
    found = find_spec("hazelcast")
    # A directory may be called so, or another library: what is used of it counts.
    places = list((found and found.submodule_search_locations) or ())
    if PathFinder.find_spec("hazelcast.asyncio", places) is None:
        other = f" ({places[0]} is something else)" if places else ""
        raise ClientMissing(
            f"Hazelcast needs its client library{other}; "
            "install it with `pip install 'rmi-bank-msg[hazelcast]'`"
        )


def find_java() -> str:
    """Return the path of the Java to use: that of ``JAVA_HOME``, or the first in ``PATH``.

    Raises:
        JavaMissing: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    if home and os.access(java := Path(home) / "bin" / "java", os.X_OK):
        return str(java)
    if found := shutil.which("java"):
        return found
    raise JavaMissing(
        f"Java {JAVA_VERSION_MIN} or newer is needed for --store hazelcast, and none was found. "
        "Install it from your system (Debian, Ubuntu: `apt install openjdk-17-jre-headless`), "
        "or unpack one from https://adoptium.net and set JAVA_HOME to where it is; "
        "`--store sqlite` needs none"
    )


def check_java(java: str) -> int:
    """Return the major version of *java*.

    Raises:
        JavaMissing: it is too old, or cannot be run.
    """
    try:
        said = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise JavaMissing(f"{java} cannot be run: {error}") from None
    version = java_version(said)
    if version < JAVA_VERSION_MIN:
        raise JavaMissing(
            f"{java} is Java {version or 'of an unknown version'}; Hazelcast {VERSION} needs "
            f"{JAVA_VERSION_MIN} or newer. Install it from your system (Debian, Ubuntu: `apt "
            "install openjdk-17-jre-headless`), or unpack one from https://adoptium.net and set "
            "JAVA_HOME to where it is"
        )
    return version


def java_version(said: str) -> int:
    """Return the major version in what ``java -version`` said; 0 if there is none.

    The form is ``version "17.0.15"``, and ``version "1.8.0_292"`` for Java 8.
    """
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if not found:
        return 0
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major


def find_maven() -> str:
    """Return the path of Maven.

    Raises:
        MavenMissing: there is none.
    """
    if found := shutil.which("mvn"):
        return found
    raise MavenMissing(
        f"Maven is needed to fetch Hazelcast {VERSION}, and none was found. Install it from your "
        "system (Debian, Ubuntu: `apt install maven`), or unpack one from "
        "https://maven.apache.org/download.cgi and put its bin directory on PATH"
    )


def install_hazelcast(data_dir: Path, tell: Tell = lambda line: None) -> Path:
    """Fetch the jars, if they are not there.

    Args:
        data_dir: the data directory; it is made if missing.
        tell: gets what happens, a line at a time.

    Returns:
        The directory of the jars.

    Raises:
        JavaMissing: there is no Java, or too old a one.
        MavenMissing: there is no Maven.
        FetchFailed: Maven failed; the message has what it said last.
    """
    lib = lib_dir(data_dir)
    check_java(find_java())
    if is_installed(data_dir):
        return lib
    maven = find_maven()
    lib.parent.mkdir(parents=True, exist_ok=True)
    with _turn(lib.with_name("lib.lock")):
        if not is_installed(data_dir):  # somebody else may have, meanwhile
            new = lib.with_name("lib.new")
            shutil.rmtree(new, ignore_errors=True)
            tell(f"fetching Hazelcast {VERSION} with Maven into {lib}")
            _fetch(maven, new, tell)
            shutil.rmtree(lib, ignore_errors=True)
            new.rename(lib)
            tell(f"Hazelcast {VERSION} is in {lib}")
    return lib


def _fetch(maven: str, into: Path, tell: Tell) -> None:
    with resources.as_file(resources.files(__package__) / "pom.xml") as pom:
        command = [maven, "--batch-mode", "--strict-checksums", "--file", str(pom)]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        command += [f"-DoutputDirectory={into.absolute()}"]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that all of it can be ended
        ) as process:
            assert process.stdout is not None
            said: list[str] = []
            late = threading.Timer(MAVEN_S_MAX, _end, [process])
            late.start()
            try:
                for line in process.stdout:
                    said = [*said, line.rstrip()][-_TAIL_LINES:]
                    tell(line.rstrip())
                status = process.wait()
            finally:
                late.cancel()
                _end(process)  # on Ctrl-C too
    if status == -signal.SIGKILL:
        said.append(f"it was killed; {MAVEN_S_MAX:g} s are the longest that it may take")
    if status or not (into / f"hazelcast-{VERSION}.jar").is_file():
        last = "\n".join(said)
        raise FetchFailed(
            f"Maven could not fetch Hazelcast {VERSION} (status {status}); is there a way to a "
            f"Maven repository? It said last:\n{last}"
        )


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process that has not ended, and what it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):  # it did just now
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
