"""A member's configuration, written out with the reasons for each line. Plain code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rmi_msg.hazelcast.addresses import among_members
from rmi_runtime import split_address

_TEMPLATE = """\
# Written by rmi for one Hazelcast member, anew at each of its starts: change the settings instead.
# docs/hazelcast.md has more about every choice.
hazelcast:
  cluster-name: {cluster}
  # A port for clients and one for the other members. With one for both, a member that connects to
  # a frozen one waits for its first word in a loop that never ends, and everything else that it
  # would have to send waits too, at worst for ever (5.7.0).
  advanced-network:
    enabled: true
    # One port each, the one that the others expect. One address: open source members have neither
    # passwords nor TLS.
    client-server-socket-endpoint-config:
      port: {{port: {port}, auto-increment: false}}
      interfaces: {{enabled: true, interfaces: [{host}]}}
    member-server-socket-endpoint-config:
      port: {{port: {inner_port}, auto-increment: false}}
      interfaces: {{enabled: true, interfaces: [{host}]}}
    join:
      # Only the members named here: nobody is found, or lets itself be found, by chance.
      auto-detection: {{enabled: false}}
      multicast: {{enabled: false}}
      tcp-ip:
        enabled: true
        member-list: {members}
  map:
    default:
      # Every entry in its owner's memory and in two more: any two members may be lost at once.
      # (Fewer members hold fewer copies; one alone holds one.)
      backup-count: 2
      # Nothing is ever thrown out to make room.
      eviction: {{eviction-policy: NONE}}
      # The values are JSON, but nobody queries them: do not parse each one as it is stored.
      metadata-policy: "OFF"
      # Should the cluster ever have been split: keep entries of both halves, the larger half first.
      merge-policy: {{class-name: PutIfAbsentMergePolicy}}
    # Logs cannot be merged entry by entry: what the smaller half added is added again, from the
    # entries, by whoever puts them again.
    "*.order":
      backup-count: 2
      metadata-policy: "OFF"
      merge-policy: {{class-name: DiscardMergePolicy}}
    queue:
      backup-count: 2
      metadata-policy: "OFF"
      merge-policy: {{class-name: DiscardMergePolicy}}
  queue:
    default: {{backup-count: 2}}
  # What `rmi map-stats` asks for; a member collects it this often.
  metrics:
    enabled: true
    collection-frequency-seconds: 1
    management-center: {{enabled: true, retention-seconds: 5}}
    jmx: {{enabled: false}}
  # Streaming, which nobody uses here.
  jet: {{enabled: false}}
  properties:
    hazelcast.logging.type: jdk
    hazelcast.socket.bind.any: "false"
    hazelcast.phone.home.enabled: "false"
    # It would write to the log every 20 s on a busy machine.
    hazelcast.health.monitoring.level: "OFF"
    # SIGTERM hands the data over before the end; otherwise it would be a crash like any other.
    hazelcast.shutdownhook.policy: GRACEFUL
    hazelcast.graceful.shutdown.max.wait: "20"
    # A member that is silent for 10 s is taken to be dead.
    hazelcast.heartbeat.interval.seconds: "1"
    hazelcast.max.no.heartbeat.seconds: "10"
    # A write whose backups do not acknowledge it fails: nobody is told that it is safe.
    hazelcast.operation.fail.on.indeterminate.state: "true"
    hazelcast.operation.backup.timeout.millis: "1000"
    # What meets a member that has just died is tried again this soon.
    hazelcast.invocation.retry.pause.millis: "100"
    # One that was not dead after all comes back as soon as it notices.
    hazelcast.merge.first.run.delay.seconds: "5"
    hazelcast.merge.next.run.delay.seconds: "5"
    # All start at the same time, and know each other: no need to wait for strangers.
    hazelcast.wait.seconds.before.join: "0"
"""

_SMALL = """\
    # Few processors: three threads to read from the network, and three to write to it, would mostly
    # take turns with each other.
    hazelcast.io.thread.count: "1"
"""

FEW_PROCESSORS: Final = 4
"""So many, or fewer, are few for some members, loggers and all that uses them."""


def member_config(address: str, members: Sequence[str], cluster: str, *, processors: int) -> str:
    """Return the YAML for one member.

    There is no smallest number of members to go on with: a cluster that lost two of three serves
    on with one. That is what the backups are for, on one machine or a network that does not part.

    Args:
        address: ``host:port`` where it listens for clients; :func:`among_members` says where it
            does for other members.
        members: ``host:port`` of all members for clients, this one too.
        cluster: name of the cluster.
        processors: how many the member's machine has.

    Returns:
        The text of the file.
    """
    host, port = split_address(address)
    text = _TEMPLATE.format(
        cluster=json.dumps(cluster),
        port=port,
        inner_port=split_address(among_members(address))[1],
        host=json.dumps(host),
        members=json.dumps([among_members(member) for member in members]),
    )
    return text + _SMALL if processors <= FEW_PROCESSORS else text


def java_options(heap_mib: int, *, processors: int) -> list[str]:
    """Return how a member's JVM is to run.

    Args:
        heap_mib: of its heap.
        processors: how many its machine has.
    """
    options = [
        f"-Xms{heap_mib}m",
        f"-Xmx{heap_mib}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+UseSerialGC",
    ]
    if processors <= FEW_PROCESSORS:
        # The quick compiler alone: the thorough one takes a processor for the first minute, which
        # is then missed, and gains little for what members do here.
        options.append("-XX:TieredStopAtLevel=1")
    return options
