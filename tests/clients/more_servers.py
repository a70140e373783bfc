"""MCP servers of Python's other frameworks, for the gateway's tests to stand in front of:

    PORT=0 .venv-v1/bin/python more_servers.py sdk1           the official SDK 1, FastMCP
    PORT=0 .venv-v1/bin/python more_servers.py fastapi-mcp    fastapi-mcp: its tools are the routes of an application
    PORT=0 .venv/bin/python more_servers.py fastmcp           the package fastmcp

Each is set up as its own documentation begins. It prints `ready <port>` on stdout once http://127.0.0.1:<port>/mcp accepts
connections (0 = any free port); its log goes to stderr. It ends when its standard input closes, and on SIGTERM.

Tools: `echo {message}`; `wait {seconds, steps, label}`, which reports progress after each step where its framework lets it;
`given_up {label}`, how many with this label were cancelled; where nothing reports, `begun {label}`, how many have begun.
"""

import asyncio
import os
import socket
import sys
import threading
from collections import Counter

import uvicorn

begun = Counter()
cancelled = Counter()


async def waited(seconds: float, steps: int, label: str, report) -> str:
    begun[label] += 1
    try:
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            await report(step, steps)
    except asyncio.CancelledError:
        cancelled[label] += 1
        raise
    return f"waited {seconds:g} seconds"


def with_tools(server, Context):
    """Both FastMCPs, the SDK's and the package, take the same functions."""

    @server.tool()
    async def echo(message: str) -> str:
        return f"Echo: {message}"

    @server.tool()
    async def wait(ctx: Context, seconds: float = 10, steps: int = 5, label: str = "") -> str:
        return await waited(seconds, steps, label, ctx.report_progress)

    @server.tool()
    async def given_up(label: str = "") -> str:
        return str(cancelled[label])


def sdk1():
    from mcp.server.fastmcp import Context, FastMCP

    server = FastMCP("sdk1", log_level="WARNING")
    with_tools(server, Context)
    return server.streamable_http_app()


def fastmcp():
    from fastmcp import Context, FastMCP

    server = FastMCP("fastmcp")
    with_tools(server, Context)
    return server.http_app(path="/mcp")


def fastapi_mcp():
    from fastapi import FastAPI
    from fastapi_mcp import FastApiMCP

    app = FastAPI()

    @app.get("/echo", operation_id="echo")
    async def echo(message: str) -> str:
        return f"Echo: {message}"

    @app.get("/wait", operation_id="wait")
    async def wait(seconds: float = 10, steps: int = 5, label: str = "") -> str:
        return await waited(seconds, steps, label, lambda *_: asyncio.sleep(0))

    @app.get("/given_up", operation_id="given_up")
    async def given_up(label: str = "") -> str:
        return str(cancelled[label])

    @app.get("/begun", operation_id="begun")
    async def have_begun(label: str = "") -> str:
        return str(begun[label])

    FastApiMCP(app).mount_http()
    return app


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    app = {"sdk1": sdk1, "fastmcp": fastmcp, "fastapi-mcp": fastapi_mcp}[sys.argv[1]]()
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print("ready", listener.getsockname()[1], flush=True)
    http = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    http.handle_exit = lambda *_: os._exit(0)  # without waiting for open streams, which may never end
    http.run([listener])
