//! docs/mcp-clients.md, from the table that the runs are held to.

use super::table::TABLE;
use super::{Event, MOMENTS};
use crate::support::tree::hold;

const HEAD: &str = "\
# What the callers of MCP clients see

Written by `make mcp-clients` from the table in `tests/it/mcp/matrix/table.rs`. The tests beside it hold every line of it
to a run of the real client through the gateway, before the official Python SDK's server. Each client is as its package
is by itself, without an OAuth provider of its own, but for timeouts.

`ok`: the call's result, as if nothing had happened. *no answer, until its time is over*: the caller hears of it only
when the client's own timeout ends the call. *the client has broken down*: the SDK's whole client is of no use any more,
and its caller must make another. Otherwise the error that the call ends with: the SDK's type, its code, the beginning of
its message, the HTTP status where an answer had one, and the reason that the gateway gave, where the caller can get at it.

Connecting anew works in every case that is not named below: after a terminate with the same token, after a revoke with a
fresh one.
";

fn title(event: Event) -> &'static str {
    match event {
        Event::Broken => {
            "\n## Its connection breaks\n\nEvery connection of the client is cut in the middle of a call, and can be made \
             again at once. 2026-07-28 has nothing to resume with: who goes away has given up the call.\n"
        }
        Event::Restarted => {
            "\n## sessiond restarts\n\nIt is stopped in the middle of a call, and started again; meanwhile connections \
             wait. The session is the same before and after.\n"
        }
        Event::Terminated => {
            "\n## Its session is terminated\n\n`POST …/sessions/{sessionId}/terminate` in the middle of a call. The \
             client's token stays good.\n"
        }
        Event::Revoked => {
            "\n## Its credential is revoked\n\n`DELETE …/sessions` in the middle of a call. The token opens nothing any \
             more.\n"
        }
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for event in [Event::Broken, Event::Restarted, Event::Terminated, Event::Revoked] {
        let moments: Vec<_> = (0..MOMENTS.len()).filter(|at| MOMENTS[*at].0 == event).collect();
        page += title(event);
        page += "\n| client | revision |";
        page.extend(moments.iter().map(|at| format!(" {} |", MOMENTS[*at].1)));
        page += "\n|---|---|";
        page += &"---|".repeat(moments.len());
        for row in TABLE {
            page += &format!("\n| {}, {} | {} |", row.name, row.mode, row.revision);
            page.extend(moments.iter().map(|at| format!(" {} |", row.sees[*at])));
        }
        page += "\n";
    }
    page
}

#[test]
fn the_page_about_clients_is_what_the_runs_are_held_to() {
    hold("docs/mcp-clients.md", &page(), "WRITE_MCP_CLIENTS", "mcp-clients");
}
