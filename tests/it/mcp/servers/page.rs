//! docs/mcp-servers.md, from the table that the runs are held to.

use super::table::TABLE;
use super::{CLIENTS, MOMENTS};
use crate::support::tree::hold;

const HEAD: &str = "\
# How real MCP servers fare behind the gateway

Written by `make mcp-servers` from the table in `tests/it/mcp/servers/table.rs`. The tests beside it hold every cell of it
to a run of the real server behind the gateway, before each real client, through a whole life. Each server is set up as its
own documentation begins, and speaks Streamable HTTP with sessions; each client speaks 2025-11-25. What the callers of each
client see in full is in [mcp-clients.md](mcp-clients.md).

`ok`: as it should be. Anything else is what was seen. Python `mcp` 1.30.0 by itself tells nobody when its caller gives a call
up; here its caller says so to the server by hand.

";

const TAIL: &str = "
## Not here

- `@cap-js/mcp` is not on npm.
- googleapis `mcp-toolbox` is a program of 80 MB outside of the registries that the tests install from.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.extend(MOMENTS.map(|(_, name, meaning)| format!("- *{name}*: {meaning}.\n")));
    for row in TABLE {
        page += &format!("\n## {}\n\n{}\n\n| client |", row.name, row.about);
        page.extend(MOMENTS.map(|(_, name, _)| format!(" {name} |")));
        page += &format!("\n|---|{}", "---|".repeat(MOMENTS.len()));
        for (client, name) in CLIENTS {
            page += &format!("\n| {name} |");
            page.extend(MOMENTS.map(|(moment, ..)| format!(" {} |", row.sees(moment, client))));
        }
        page += "\n";
    }
    page + TAIL
}

#[test]
fn the_page_about_servers_is_what_the_runs_are_held_to() {
    hold("docs/mcp-servers.md", &page(), "WRITE_MCP_SERVERS", "mcp-servers");
}
