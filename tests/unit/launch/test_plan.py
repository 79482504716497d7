"""Which services there are, and when a dead one is started again."""

from __future__ import annotations

import pytest

from rmi_launch.backoff import LONGEST_S, Backoff
from rmi_launch.plan import check_gateways, is_gateway, plan_services
from rmi_runtime.settings import Settings, SettingsError


def test_the_plan_starts_what_others_need_first_and_counts_as_the_settings_say() -> None:
    groups = plan_services(Settings(business=2, loggers=1, messages=3))
    assert [[spec.name for spec in group] for group in groups] == [
        ["Pyro.NameServer"],
        ["bank.data"],
        ["bank.business.1", "bank.business.2"],
        ["msg.logger.1"],
        ["msg.facade.1"],
        ["msg.messages.1", "msg.messages.2", "msg.messages.3"],
        ["gateway"],
    ]


def test_numbered_services_are_told_their_number() -> None:
    specs = [spec for group in plan_services(Settings()) for spec in group]
    assert {spec.args for spec in specs if not spec.name[-1].isdigit()} == {()}
    assert all(spec.args == (int(spec.name[-1]),) for spec in specs if spec.name[-1].isdigit())


def test_several_gateways_share_one_port_which_must_be_named() -> None:
    settings = Settings(gateway_workers=2, http="127.0.0.1:8080")
    names = [spec.name for spec in plan_services(settings)[-1]]
    assert names == ["gateway.1", "gateway.2"]
    assert all(map(is_gateway, names))
    check_gateways(settings)
    check_gateways(Settings(http="127.0.0.1:0"))
    with pytest.raises(SettingsError, match="one port"):
        check_gateways(Settings(gateway_workers=2, http="127.0.0.1:0"))


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff()
    delays = [backoff.delay_s(0.0) for _ in range(9)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_S
    assert max(delays) == LONGEST_S


def test_a_service_that_was_killed_often_does_not_stay_away_for_two_seconds() -> None:
    backoff = Backoff()
    assert max(backoff.delay_s(ready_for_s=0.3) for _ in range(20)) <= 1.0


def test_a_healthy_time_makes_the_next_delay_short_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(1.0)
    assert backoff.delay_s(60.0) == 0.1
    assert backoff.delay_s(0.0) == 0.2
