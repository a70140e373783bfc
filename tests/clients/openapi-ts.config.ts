// How the TypeScript client is generated from openapi.yaml, so that operation `agentSessions.list` reads
//
//   const sessiond = new Sessiond({ client: createClient(createConfig({ baseUrl, auth: () => token })) });
//   const { data, error } = await sessiond.agentSessions.list({ applicationId, status: "active" });
//
// The dots of the operation id make the path (`single` builds one root class and nests below it; the other strategies,
// `flat` and `byTags`, make functions or static methods, of which byTags repeats the tag as `AgentSessions2`); `flat`
// parameters take path, query and body together, where the default wants {path: {...}, query: {...}}.
import { defineConfig } from "@hey-api/openapi-ts";

const out = "../../target/clients/typescript";

export default defineConfig({
  input: process.env.OPENAPI ?? "../../openapi.yaml",
  output: { path: `${out}/sdk`, module: { extension: ".js" } },
  logs: { file: false },
  plugins: [
    "@hey-api/client-fetch",
    "@hey-api/typescript",
    {
      name: "@hey-api/sdk",
      operations: { strategy: "single", containerName: "Sessiond" },
      paramsStructure: "flat",
    },
  ],
});
