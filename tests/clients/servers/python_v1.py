"""FastMCP of the official Python SDK 1 (`.venv-v1`), with sessions. See common.py."""

from mcp.server.fastmcp import Context, FastMCP

import common

server = FastMCP("python-v1", log_level="WARNING")


@server.tool()
async def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool()
async def wait(ctx: Context, seconds: float = 10, steps: int = 5) -> str:
    return await common.wait(seconds, steps, ctx.report_progress)


@server.tool()
async def given_up() -> str:
    return str(common.given_up)


common.serve(server.streamable_http_app())
