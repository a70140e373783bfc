"""An MCP server that speaks every revision, 2026-07-28 included, which everything.mjs does not: the official Python SDK's.

    PORT=0 .venv/bin/python mcp_server.py        (0 = any free port)

Prints `ready <port>` on stdout once http://127.0.0.1:<port>/mcp accepts connections; its log goes to stderr. Ends when
its standard input closes, and on SIGTERM. Tools: `echo {message}`; `wait {seconds, steps}`, which reports progress after
each step; `add_tool {name}`, which tells whoever listens that the list of tools changed; `headers`, which answers with
the HTTP headers it was called with, so that a test can see what a gateway forwarded.
"""

import asyncio
import json
import os
import socket
import sys
import threading

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sessiond-test-upstream", version="0", log_level="WARNING")


@server.tool()
async def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool()
async def wait(ctx: Context, seconds: float = 10, steps: int = 5) -> str:
    for step in range(1, steps + 1):
        await asyncio.sleep(seconds / steps)
        await ctx.report_progress(step, steps)
    return f"waited {seconds} seconds"


@server.tool()
async def add_tool(ctx: Context, name: str) -> str:
    server.add_tool(echo, name=name)
    await ctx.notify_tools_changed()
    return f"added {name}"


@server.tool()
async def headers(ctx: Context) -> str:
    return json.dumps(dict(ctx.headers or {}))


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready", listener.getsockname()[1], flush=True)
    http = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning"))
    http.handle_exit = lambda *_: os._exit(0)  # without waiting for open streams, which may never end
    http.run([listener])
