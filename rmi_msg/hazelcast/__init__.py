"""Messages on a Hazelcast cluster: members, client, store, queue, statistics.

install            fetch the pinned jar, once
member_config      a member's configuration, as a commented YAML file
member, keeper     start a member, wait for it, keep it running, stop it
link               one process's client, rebuilt whenever it has ended
acknowledged       the writing steps, and who has acknowledged them
others             whether a part of the cluster may go on alone
expulsion          ends a member that the others went on without
table              single steps on one map, repeated until their outcome is known
blocks, order      the order of arrival, as a log on a map
records            put-once entries in that order
turns              who may consume what, as plain decisions
room               how much more may be put
cluster            the maps, and the bounds of every operation
stores             the three interfaces of :mod:`rmi_msg.stores`
watch              an eye on the cluster, for people
opening            all of it put together
statistics         what members measure of themselves (a private API)
map_stats          that as the table of ``rmi map-stats``

The client library is an extra (``pip install 'rmi-bank-msg[hazelcast]'``), so nothing outside this
package imports it when the messages are kept elsewhere. ``docs/hazelcast.md`` describes the whole.
"""
