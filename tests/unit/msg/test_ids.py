"""Message ids: those of the seed, those of keys, and fresh ones."""

from __future__ import annotations

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from rmi_msg.ids import keyed_message_id, message_id, new_message_id, uuid5, uuid7

# From the seed's printed log; two of its lines were cut, these are whole.
SEED_IDS = {
    "msg1": "487e0156-a04c-5aeb-b42c-52c752bc2dd7",
    "msg10": "02f2bfad-3e03-5f09-87e3-1c06de44a9c1",
}


def test_the_id_of_a_text_is_the_seeds() -> None:
    for text, id in SEED_IDS.items():
        assert message_id(text) == id


@given(st.uuids(), st.text())
def test_a_uuid5_is_the_standard_librarys(namespace: uuid.UUID, name: str) -> None:
    assert uuid5(namespace.bytes, name) == str(uuid.uuid5(namespace, name))


@given(st.text())
def test_a_key_never_meets_the_id_of_a_text(key: str) -> None:
    assert keyed_message_id(key) == keyed_message_id(key)
    assert keyed_message_id(key) != message_id(key)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_a_uuid7_carries_its_time_version_variant_and_random_bits(ms: int, bits: int) -> None:
    made = uuid.UUID(uuid7(ms, bits))
    assert str(made) == uuid7(ms, bits)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == ms
    assert made.int >> 64 & 0xFFF == bits >> 62 & 0xFFF
    assert made.int & 2**62 - 1 == bits & 2**62 - 1


def test_new_ids_are_distinct_uuids_that_sort_by_their_millisecond() -> None:
    ids = [new_message_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab].{16}", id) for id in ids)
    stamps = [id[:13] for id in ids]
    assert stamps == sorted(stamps)
