// An official TypeScript MCP SDK, which gets in by its own provider of client credentials:
//
//   node sign_in.mjs 1|2 URL CLIENT_ID CLIENT_SECRET [ISSUER]
//
// It is told nothing but these: where to get a token it finds out. Prints the names of the tools that it was shown.

const [version, url, clientId, clientSecret, expectedIssuer] = process.argv.slice(2);

async function sdk1() {
  const parts = ["index", "streamableHttp", "auth-extensions"];
  const read = parts.map((part) => import(`@modelcontextprotocol/sdk/client/${part}.js`));
  return Object.assign({}, ...(await Promise.all(read)));
}

const sdk = await (version === "1" ? sdk1() : import("@modelcontextprotocol/client"));
const authProvider = new sdk.ClientCredentialsProvider({ clientId, clientSecret, expectedIssuer });
const client = new sdk.Client({ name: "sign-in", version: "0" }, {});
await client.connect(new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider }));
const { tools } = await client.listTools();
console.log(JSON.stringify(tools.map((tool) => tool.name)));
await client.close();
process.exit(0);
