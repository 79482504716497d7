"""What the bank's clients ask for."""

from __future__ import annotations

from random import Random

from rmi_torture.workloads.bank_requests import TRIES_MAX, Requests, Wish

ACCOUNTS = [1, 2, 3, 4, 5, 6, 7, 8]


def wishes(seed: int, count: int) -> list[Wish]:
    requests = Requests(Random(seed), "w", ACCOUNTS)
    return [requests.next() for _ in range(count)]


def test_the_same_seed_asks_for_the_same() -> None:
    assert wishes(5, 100) == wishes(5, 100)
    assert wishes(5, 100) != wishes(6, 100)


def test_every_kind_is_asked_for_and_two_accounts_are_hot() -> None:
    asked = wishes(1, 2000)
    assert {wish.f for wish in asked} == {"transfer", "deposit", "withdrawal", "balance"}
    touched = [wish.asked.get("source", wish.asked.get("account")) for wish in asked]
    hot = sum(account in ACCOUNTS[:2] for account in touched)
    assert hot > len(touched) / 2


def test_a_transfer_has_two_accounts_and_each_change_an_id_of_its_own() -> None:
    asked = wishes(2, 2000)
    assert all(w.asked["source"] != w.asked["target"] for w in asked if w.f == "transfer")
    ids = [w.asked["request_id"] for w in asked if w.f != "balance"]
    assert len(ids) == len(set(ids))


def test_what_got_no_answer_is_asked_again_with_its_id_but_not_for_ever() -> None:
    requests = Requests(Random(1), "w", ACCOUNTS)
    first = wish = next(w for w in iter(requests.next, None) if w.f != "balance")
    for _ in range(TRIES_MAX):
        requests.unanswered(wish)
        wish = requests.next()
        assert wish.asked == first.asked
    requests.unanswered(wish)
    assert requests.in_doubt == 0


def test_some_acknowledged_requests_are_asked_again_once() -> None:
    requests = Requests(Random(1), "w", ACCOUNTS)
    seen: dict[str, list[int]] = {}
    for _ in range(5000):
        wish = requests.next()
        if wish.f != "balance":
            seen.setdefault(wish.asked["request_id"], []).append(wish.asked["amount"])
            requests.answered(wish)
    again = [amounts for amounts in seen.values() if len(amounts) > 1]
    assert max(map(len, again)) == 2
    others = [amounts for amounts in again if amounts[0] != amounts[1]]
    assert 0 < len(others) < len(again) - len(others)
