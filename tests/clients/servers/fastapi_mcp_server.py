"""An API of FastAPI that `fastapi-mcp` (`.venv-v1`) makes tools of. Its tools know no progress. See common.py."""

from fastapi import FastAPI
from fastapi_mcp import FastApiMCP

import common

app = FastAPI()


@app.get("/echo", operation_id="echo")
async def echo(message: str) -> str:
    return f"Echo: {message}"


@app.get("/wait", operation_id="wait")
async def wait(seconds: float = 10, steps: int = 5) -> str:
    return await common.wait(seconds, steps)


@app.get("/given-up", operation_id="given_up")
async def given_up() -> str:
    return str(common.given_up)


FastApiMCP(app).mount_http()
common.serve(app)
