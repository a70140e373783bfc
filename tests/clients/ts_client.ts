// The generated TypeScript client as an application would use it; generate_client.sh copies it beside that client.
//
//   SESSIOND_URL=http://127.0.0.1:8080 SESSIOND_TOKEN=… node target/clients/typescript/js/ts_client.js
//       list <applicationId> [{"status":"active"}]   |   get <applicationId> <sessionId>   |   revokeAll <applicationId>
//
// Prints one line of JSON, {"status":200,"data":{…}} or {"status":404,"error":{…}}, and exits with 0 unless it got
// no answer at all.
import { createClient, createConfig } from "./sdk/client/index.js";
import { Sessiond } from "./sdk/index.js";

const { SESSIOND_URL: baseUrl, SESSIOND_TOKEN: token } = process.env;
const [operation, applicationId = "", more] = process.argv.slice(2);

const { agentSessions } = new Sessiond({ client: createClient(createConfig({ baseUrl, auth: () => token })) });

type Filter = Omit<Parameters<typeof agentSessions.list>[0], "applicationId">;

function ask() {
  switch (operation) {
    case "list":
      return agentSessions.list({ applicationId, ...(JSON.parse(more ?? "{}") as Filter) });
    case "get":
      return agentSessions.get({ applicationId, sessionId: more ?? "" });
    case "revokeAll":
      return agentSessions.revokeAll({ applicationId });
    default:
      throw new Error(`unknown operation ${operation}`);
  }
}

const { data, error, response } = await ask();
if (!response) throw error;
console.log(JSON.stringify({ status: response.status, data, error }));
