"""pyroute2's message classes, without the rest of pyroute2.

Importing any of its modules first runs the package's own `__init__`, which imports all of the library: its database,
its asyncio sockets, TLS. That is 160 ms and 12 MiB for a supervisor that needs 35 ms of it. So the package is entered
into `sys.modules` by its place alone. Only the supervisor's process may do this, and only before pyroute2 is imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

if "pyroute2" not in sys.modules:
    _spec = find_spec("pyroute2")
    if _spec is not None:
        sys.modules["pyroute2"] = module_from_spec(_spec)  # made, not executed

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    rt_proto,
    rt_scope,
    rt_type,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = [
    "NLM_F_ACK",
    "NLM_F_CREATE",
    "NLM_F_EXCL",
    "NLM_F_REQUEST",
    "RTM_DELADDR",
    "RTM_DELLINK",
    "RTM_DELROUTE",
    "RTM_NEWADDR",
    "RTM_NEWLINK",
    "RTM_NEWROUTE",
    "ifaddrmsg",
    "ifinfmsg",
    "nlmsg",
    "rt_proto",
    "rt_scope",
    "rt_type",
    "rtmsg",
]
