"""FastMCP of the package `fastmcp` (`.venv`), with sessions. See common.py."""

from fastmcp import Context, FastMCP

import common

server = FastMCP("fastmcp")


@server.tool
async def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool
async def wait(ctx: Context, seconds: float = 10, steps: int = 5) -> str:
    return await common.wait(seconds, steps, ctx.report_progress)


@server.tool
async def given_up() -> str:
    return str(common.given_up)


common.serve(server.http_app(path="/mcp"))
