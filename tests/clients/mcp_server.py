"""An MCP server that speaks every revision, 2026-07-28 included, which everything.mjs does not: the official Python SDK's.

    PORT=0 .venv/bin/python mcp_server.py        (0 = any free port)

Prints `ready <port>` on stdout once http://127.0.0.1:<port>/mcp accepts connections; its log goes to stderr. Ends when
its standard input closes, and on SIGTERM. Streams of the revisions with sessions can be resumed.

Tools: `echo {message}`; `wait {seconds, steps, label}`, which reports progress after each step; `given_up {label}`, how many
of these with this label were cancelled; `add_tool {name}`, which tells whoever listens that the list of tools changed; `headers`, which answers
with the HTTP headers it was called with, so that a test can see what a gateway forwarded.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from collections import Counter

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage, EventStore

cancelled = Counter()
server = MCPServer("sessiond-test-upstream", version="0", log_level="WARNING")


@server.tool()
async def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool()
async def wait(ctx: Context, seconds: float = 10, steps: int = 5, label: str = "") -> str:
    try:
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            await ctx.report_progress(step, steps)
    except asyncio.CancelledError:
        cancelled[label] += 1
        raise
    return f"waited {seconds:g} seconds"


@server.tool()
async def given_up(label: str = "") -> str:
    return str(cancelled[label])


@server.tool()
async def add_tool(ctx: Context, name: str) -> str:
    server.add_tool(echo, name=name)
    await ctx.notify_tools_changed()
    return f"added {name}"


@server.tool()
async def headers(ctx: Context) -> str:
    return json.dumps(dict(ctx.headers or {}))


class Events(EventStore):
    """Every event of every stream, for ever: a test's server does not live long."""

    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id, send_callback):
        last = int(last_event_id)
        if not 0 < last <= len(self.events):
            return None
        stream = self.events[last - 1][0]
        for number, (stream_id, message) in enumerate(self.events[last:], last + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready", listener.getsockname()[1], flush=True)
    app = server.streamable_http_app(event_store=Events(), retry_interval=200)
    http = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    http.handle_exit = lambda *_: os._exit(0)  # without waiting for open streams, which may never end
    http.run([listener])
