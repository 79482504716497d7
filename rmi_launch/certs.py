"""``rmi certs``: a private CA, and certificates of the machines that services run on."""

from __future__ import annotations

import json
import shlex
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from rmi_launch.options import WholeRange, with_settings
from rmi_launch.tables import new_table, plain, show
from rmi_launch.up_view import shown
from rmi_runtime import Loaded, load_or_create_cluster_key
from rmi_runtime.credentials.authenticator import KEY_FILE
from rmi_runtime.credentials.certificates import (
    CA,
    HOST_DAYS,
    HOST_DAYS_MAX,
    NAMES_MAX,
    Issued,
    create_authority,
    create_certificate,
    list_certificates,
    normal_name,
)
from rmi_runtime.credentials.tls import EXPIRES_SOON
from rmi_runtime.errors import InvalidRequest, NotFound


@click.group(short_help="Make a private CA, and certificates for machines.")
def certs() -> None:
    """Make a private CA, and certificates for the machines of a cluster.

    They lie in DATA_DIR/certs. Nothing is ever overwritten.
    """


@certs.command("create-ca")
@with_settings("data_dir")
def create_ca(loaded: Loaded) -> None:
    """Make the private CA: once per cluster, on one machine."""
    made = create_authority(_directory(loaded), datetime.now(UTC))
    click.echo(f"{shown(made.certificate)}: {made.subject}, good until {made.not_after:%Y-%m-%d}")
    click.echo(
        f"{shown(made.key)}: its key. Whoever has it can pass for any machine: it stays here, or "
        "goes offline"
    )
    click.echo("next, for each machine: rmi certs host NAME_OR_ADDRESS…")


def _names(
    context: click.Context, argument: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse what can be no machine's name, and too many, as what it is: wrong use."""
    if len(names) > NAMES_MAX:
        raise click.BadParameter(f"{len(names)} names; a certificate takes {NAMES_MAX} at most")
    for name in names:
        try:
            normal_name(name)
        except InvalidRequest as error:
            raise click.BadParameter(error.message) from None
    return names


@certs.command(short_help="Make a certificate for one machine.")
@click.argument("names", metavar="NAME_OR_ADDRESS...", nargs=-1, required=True, callback=_names)
@click.option(
    "--days",
    type=WholeRange(1, HOST_DAYS_MAX),
    default=HOST_DAYS,
    show_default=True,
    help="How long it is good.",
)
@with_settings("data_dir")
def host(loaded: Loaded, names: tuple[str, ...], days: int) -> None:
    """Make a certificate for one machine, under all NAMES AND ADDRESSES that others use for it."""
    directory = _directory(loaded)
    if (loaded.settings.data_dir / KEY_FILE).exists():  # else it is made when all went well
        load_or_create_cluster_key(loaded.settings.data_dir)
    made = create_certificate(directory, names, datetime.now(UTC), days)
    authority = directory / f"{CA}.crt"
    load_or_create_cluster_key(loaded.settings.data_dir)  # all machines need the same one
    click.echo(f"{shown(made.certificate)}: good until {made.not_after:%Y-%m-%d}, for")
    click.echo(f"  {', '.join(made.names)}")
    click.echo("copy to that machine, the key and cluster.key readable by their owner only:")
    for path in (made.certificate, made.key, authority, loaded.settings.data_dir / KEY_FILE):
        click.echo(f"  {shown(path)}")
    click.echo("and start its services with")
    paths = {"tls-cert": made.certificate, "tls-key": made.key, "tls-ca": authority}
    options = (f"--{name} {shlex.quote(shown(path))}" for name, path in paths.items())
    click.echo(f"  --host {names[0]} {' '.join(options)}")


@certs.command("show", short_help="Show the certificates, and until when they are good.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@with_settings("data_dir")
def show_(loaded: Loaded, as_json: bool) -> None:
    """Show the certificates: whose they are, until when they are good, where their keys are."""
    directory = _directory(loaded)
    found = list_certificates(directory)
    if not found:
        raise NotFound(f"there is no certificate in {directory}; 'rmi certs create-ca' begins")
    now = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps([_row(each, now) for each in found], indent=1))
        return
    table = new_table("file", "names", "state", "until", "days", "key", "SHA-256", right=("days",))
    for each in found:
        row = _row(each, now)
        colour = {"good": "green", "expires soon": "yellow"}.get(row["state"], "red")
        names = "private CA" if each.authority else ", ".join(each.names)
        state = f"[{colour}]{row['state']}[/]"
        until, days = row["not_after"][:10], str(row["days_left"])
        fingerprint = f"{each.fingerprint[:16]}…"
        file, key = plain(each.certificate.name), plain(row["key"])
        table.add_row(file, plain(names), state, until, days, key, fingerprint)
    show(table)


def _directory(loaded: Loaded) -> Path:
    return loaded.settings.data_dir / "certs"


def _row(issued: Issued, now: datetime) -> dict[str, Any]:
    return {
        "file": str(issued.certificate),
        "subject": issued.subject,
        "names": list(issued.names),
        "ca": issued.authority,
        "state": certificate_state(issued, now),
        "not_after": issued.not_after.isoformat(),
        "days_left": (issued.not_after - now) // timedelta(days=1),
        "key": _key_state(issued.key),
        "sha256": issued.fingerprint,
    }


def certificate_state(issued: Issued, now: datetime) -> str:
    """Return ``good``, ``expires soon`` or ``expired``."""
    if issued.not_after <= now:
        return "expired"
    return "expires soon" if issued.not_after - now < EXPIRES_SOON else "good"


def _key_state(path: Path) -> str:
    """Say of a key whether it is here, and whether only its owner can read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return "elsewhere"
    return "here" if not mode & 0o077 else f"here, mode {mode:04o}: chmod 600 it"
