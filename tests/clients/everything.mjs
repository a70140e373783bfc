// An MCP server for the gateway's tests to stand in front of: the reference server `server-everything`, Streamable HTTP.
//
//   PORT=0 node everything.mjs        (0 = any free port)
//
// Prints one line, `ready <port>`, on stdout once it accepts connections at http://127.0.0.1:<port>/mcp; its own log
// goes to stderr. Ends when its standard input closes, so that it cannot outlive the test that started it, and on SIGTERM.

import net from "node:net";

// By itself the server listens on every interface; a test server has no business outside this machine.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => process.stdout.write(`ready ${this.address().port}\n`));
  return listen.call(this, { host: "127.0.0.1", port: Number(port) }, ...rest);
};

// It logs with console.log; stdout belongs to the `ready` line.
console.log = console.error;

process.stdin.on("end", () => process.exit(0)).resume();
process.on("SIGTERM", () => process.exit(0));

await import("@modelcontextprotocol/server-everything/dist/transports/streamableHttp.js");
