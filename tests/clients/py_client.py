"""The generated Python client as an application would use it; a test generates it into a directory of PYTHONPATH.

    SESSIOND_URL=… SESSIOND_TOKEN=… python py_client.py <application> <kind of its sessions> <an application that is not there>

Imports every module of it, and prints one line of JSON: how many sessions of that kind there are, how many terminals, and
the status and code of what is not there.
"""

import importlib
import json
import os
import pkgutil
import sys
from uuid import UUID

import sessiond_client
from sessiond_client import AuthenticatedClient
from sessiond_client.api.agent_sessions import agent_sessions_list
from sessiond_client.models import Problem, SessionKind, SessionList

for module in pkgutil.walk_packages(sessiond_client.__path__, "sessiond_client."):
    importlib.import_module(module.name)

application, kind, unknown = sys.argv[1:]
client = AuthenticatedClient(base_url=os.environ["SESSIOND_URL"], token=os.environ["SESSIOND_TOKEN"])


def count(kind: SessionKind) -> int:
    page = agent_sessions_list.sync(UUID(application), client=client, kind=kind)
    assert isinstance(page, SessionList), page
    return len(page.items)


missing = agent_sessions_list.sync_detailed(UUID(unknown), client=client)
assert isinstance(missing.parsed, Problem), missing
said = {
    "all": count(SessionKind(kind)),
    "terminals": count(SessionKind.TERMINAL),
    "missing": [int(missing.status_code), missing.parsed.code],
}
print(json.dumps(said))
