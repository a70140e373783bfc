"""An official Python MCP SDK (whichever this interpreter has), which gets in by its own provider of client credentials:

    python sign_in.py URL CLIENT_ID CLIENT_SECRET [ISSUER]

It is told nothing but these: where to get a token it finds out. Prints the names of the tools that it was shown.
"""

import asyncio
import json
import sys
from importlib.metadata import version

from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider


class Storage:
    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def shown(url, auth):
    if version("mcp").startswith("1."):
        import httpx
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client

        async with httpx.AsyncClient(auth=auth) as http:
            async with streamable_http_client(url, http_client=http) as (read, write, *_):
                async with ClientSession(read, write) as session:
                    await session.initialize()
                    return await session.list_tools()
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(auth=auth) as http:
        async with Client(streamable_http_client(url, http_client=http), mode="legacy") as client:
            return await client.list_tools()


url, client_id, secret, *issuer = sys.argv[1:]
more = {"issuer": issuer[0]} if issuer else {}
provider = ClientCredentialsOAuthProvider(url, Storage(), client_id, secret, **more)
print(json.dumps([tool.name for tool in asyncio.run(shown(url, provider)).tools]))
