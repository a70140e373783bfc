// MCP servers of the TypeScript SDKs, and one behind mcp-proxy, for the gateway's tests to stand in front of:
//
//   PORT=0 node more_servers.mjs sdk1         @modelcontextprotocol/sdk, Streamable HTTP with sessions
//   PORT=0 node more_servers.mjs sdk2         @modelcontextprotocol/server and /node, the same
//   PORT=0 node more_servers.mjs mcp-proxy    the command line of mcp-proxy before this file's `stdio`
//   node more_servers.mjs stdio               @modelcontextprotocol/sdk over standard input and output
//
// Each HTTP server prints one line, `ready <port>`, on stdout once http://127.0.0.1:<port>/mcp accepts connections (0 = any
// free port); its log goes to stderr. It ends when its standard input closes, and on SIGTERM. Streams cannot be resumed at the
// SDKs' servers: that takes a store of events, which is for whoever runs them to bring. mcp-proxy brings one.
//
// Tools: `echo {message}`; `wait {seconds, steps, label}`, which reports progress after each step; `given_up {label}`, how
// many with this label were cancelled.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import net from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const kind = process.argv[2];
const port = Number(process.env.PORT ?? 0);

const cancelled = new Map();
const text = (text) => ({ content: [{ type: "text", text }] });

const tools = {
  echo: ({ message }) => text(`Echo: ${message}`),
  async wait({ seconds, steps, label }, signal, report) {
    for (let step = 1; step <= steps; step++) {
      // Pausing ends with an error once the call is cancelled.
      await pause((seconds * 1000) / steps, undefined, { signal }).catch((error) => {
        cancelled.set(label, (cancelled.get(label) ?? 0) + 1);
        throw error;
      });
      await report(step, steps);
    }
    return text(`waited ${seconds} seconds`);
  },
  given_up: ({ label }) => text(`${cancelled.get(label) ?? 0}`),
};

const number = { type: "number" };
const string = { type: "string" };
const described = [
  ["echo", { message: string }],
  ["wait", { seconds: number, steps: number, label: string }],
  ["given_up", { label: string }],
].map(([name, properties]) => ({ name, inputSchema: { type: "object", properties } }));

/** Runs a tool for a `tools/call`; `notify` sends a notification on the call's own stream. */
function call({ name, arguments: given, _meta }, signal, notify) {
  const report = async (progress, total) => {
    const progressToken = _meta?.progressToken;
    if (progressToken !== undefined) {
      await notify({ method: "notifications/progress", params: { progressToken, progress, total } });
    }
  };
  return tools[name](given ?? {}, signal, report);
}

const about = { name: kind, version: "0" };
const offers = { capabilities: { tools: {} } };

async function serverOfSdk1() {
  const { Server } = await import("@modelcontextprotocol/sdk/server/index.js");
  const { CallToolRequestSchema, ListToolsRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
  return () => {
    const server = new Server(about, offers);
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: described }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }, { signal, sendNotification }) =>
      call(params, signal, sendNotification));
    return server;
  };
}

async function serverOfSdk2() {
  const { Server } = await import("@modelcontextprotocol/server");
  return () => {
    const server = new Server(about, offers);
    server.setRequestHandler("tools/list", () => ({ tools: described }));
    server.setRequestHandler("tools/call", ({ params }, { mcpReq }) =>
      call({ _meta: mcpReq._meta, ...params }, mcpReq.signal, mcpReq.notify));
    return server;
  };
}

/** A transport and a server for each session, as the examples of both SDKs have it. */
async function serve(newServer, Transport) {
  const sessions = new Map();
  const server = createServer(async (request, response) => {
    const id = request.headers["mcp-session-id"];
    if (id && !sessions.has(id)) {
      const error = { code: -32001, message: "Session not found" };
      response.writeHead(404, { "content-type": "application/json" });
      return response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
    }
    let transport = sessions.get(id);
    if (!transport) {
      transport = new Transport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => void sessions.set(id, transport),
        onsessionclosed: (id) => void sessions.delete(id),
      });
      await newServer().connect(transport);
    }
    await transport.handleRequest(request, response);
  });
  server.listen(port, "127.0.0.1", () => process.stdout.write(`ready ${server.address().port}\n`));
}

/** Its command line, as it is but for what it prints. */
async function proxy() {
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...all) {
    this.once("listening", () => process.stdout.write(`ready ${this.address().port}\n`));
    return listen.apply(this, all);
  };
  console.log = console.info = console.error;
  const own = [process.execPath, fileURLToPath(import.meta.url), "stdio"];
  process.argv.splice(2, 1, "--host", "127.0.0.1", "--port", String(port), "--server", "stream", "--", ...own);
  await import("./node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs");
}

if (kind === "stdio") {
  const { StdioServerTransport } = await import("@modelcontextprotocol/sdk/server/stdio.js");
  await (await serverOfSdk1())().connect(new StdioServerTransport());
  process.stdin.on("end", () => process.exit(0));
} else {
  process.stdin.on("end", () => process.exit(0)).resume();
  process.on("SIGTERM", () => process.exit(0));
  if (kind === "sdk1") {
    const { StreamableHTTPServerTransport } = await import("@modelcontextprotocol/sdk/server/streamableHttp.js");
    await serve(await serverOfSdk1(), StreamableHTTPServerTransport);
  } else if (kind === "sdk2") {
    const { NodeStreamableHTTPServerTransport } = await import("@modelcontextprotocol/node");
    await serve(await serverOfSdk2(), NodeStreamableHTTPServerTransport);
  } else {
    await proxy();
  }
}
