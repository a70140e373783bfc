// The official TypeScript SDK 2 as `mcp-proxy` (npm) serves it over HTTP. See common.py.

import net from "node:net";
import { Server } from "@modelcontextprotocol/server";
import { startHTTPServer } from "mcp-proxy";
import { announce, given_up, text, wait } from "./common.mjs";

const number = { type: "number" };
const tools = [
  { name: "echo", inputSchema: { type: "object", properties: { message: { type: "string" } } } },
  { name: "wait", inputSchema: { type: "object", properties: { seconds: number, steps: number } } },
  { name: "given_up", inputSchema: { type: "object" } },
];

async function createServer() {
  const server = new Server({ name: "mcp-proxy", version: "0" }, { capabilities: { tools: {} } });
  server.setRequestHandler("tools/list", async () => ({ tools }));
  server.setRequestHandler("tools/call", async ({ params }, context) => {
    const { name, arguments: asked = {} } = params;
    if (name === "echo") return text(`Echo: ${asked.message}`);
    if (name === "given_up") return text(String(given_up));
    const progressToken = params._meta?.progressToken;
    const report = async (progress, total) => {
      if (progressToken === undefined) return;
      await context.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total } });
    };
    return text(await wait(asked, context.mcpReq.signal, report));
  });
  return server;
}

// It does not say which port it got.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...asked) {
  this.once("listening", () => announce(this));
  return listen.apply(this, asked);
};
await startHTTPServer({ createServer, host: "127.0.0.1", port: Number(process.env.PORT ?? 0), sseEndpoint: null });
