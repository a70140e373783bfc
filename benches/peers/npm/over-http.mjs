// mcp-proxy's own proxy before an upstream that is reached over Streamable HTTP. Its command line only starts servers that
// speak over standard input and output; this does what that does (its dist/bin/mcp-proxy.mjs), with another transport.
//
//   node over-http.mjs <upstream URL> <port>

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Server } from "@modelcontextprotocol/server";
import { proxyServer, startHTTPServer } from "mcp-proxy";

const [url, port] = process.argv.slice(2);
const client = new Client({ name: "mcp-proxy", version: "1.0.0" }, { capabilities: {} });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

const createServer = async () => {
  const serverCapabilities = client.getServerCapabilities();
  const server = new Server(client.getServerVersion(), { capabilities: serverCapabilities });
  await proxyServer({ client, server, serverCapabilities });
  return server;
};

await startHTTPServer({ createServer, host: "127.0.0.1", modern: true, port: Number(port), sseEndpoint: null });
