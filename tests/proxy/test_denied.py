"""Who is kept out, by the configuration or by command, is reset; everybody else is served."""

from __future__ import annotations

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, own, refused
from tests.proxy.limited import config, header, is_served, waiting


def test_who_is_denied_by_the_configuration_is_reset(start: Start) -> None:
    proxy = start(config(top='deny = ["127.0.0.8/29", "203.0.113.0/24"]'))
    proxy.ended(refused(proxy.here, 8443, source="127.0.0.15"), "denied")
    is_served(proxy, "127.0.0.16")
    who = refused(proxy.here, 8444, header("203.0.113.7"), "127.0.0.2")
    assert proxy.ended(who, "denied")["header_in"] == "v2"
    is_served(proxy, "127.0.0.2", 8444, header("203.0.112.7"))


def test_who_is_denied_by_command_is_reset_until_the_time_is_over(start: Start) -> None:
    proxy = start(config())
    is_served(proxy, "127.0.0.9")
    with waiting(proxy, 1, "127.0.0.9") as (before,):
        assert proxy.ask("deny", "127.0.0.8/30", "--for", "1h") == "1\n"
        who = refused(proxy.here, 8443, source="127.0.0.9")
        proxy.ended(who, "denied")
        assert "127.0.0.8/30" in proxy.ask("denied")
        is_served(proxy, "127.0.0.12")
        assert own(before) in {line["peer"] for line in proxy.connections()}, "who is in stays in"
    assert proxy.ask("deny", "127.0.0.8/30", "--for", "1s") == "1\n"
    wait_until(lambda: not proxy.ask("denied"), DEADLINE, "the time is over")
    is_served(proxy, "127.0.0.9")
    proxy.ask("deny", "127.0.0.9", "127.0.0.10", "--for", "1h")
    assert proxy.ask("undeny", "127.0.0.9") == "1\n"
    assert proxy.ask("undeny", "127.0.0.8/30") == "0\n", "a prefix is taken back as it was given"
    is_served(proxy, "127.0.0.9")
    proxy.ended(refused(proxy.here, 8443, source="127.0.0.10"), "denied")
    proxy.reload(config())
    proxy.ended(refused(proxy.here, 8443, source="127.0.0.10"), "denied")
