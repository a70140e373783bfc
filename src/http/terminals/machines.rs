//! The machines that terminals are opened on.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::machine::Machine;
use utoipa::{IntoParams, ToSchema};

use super::surface::TerminalError;
use super::{Admin, Body, Id, MACHINE, Said, Success, User, id, seconds};
use crate::directory::{ChangedMachine, MachineSecret, NewMachine};
use crate::error::Error;
use crate::http::App;
use crate::http::extract::{Query, given};
use crate::http::problem::Problem;
use crate::terminal::ssh::{self, Pin};

/// How many machines a page may have.
const MOST: usize = 100;
const PAGE: usize = 20;

/// A machine.
#[derive(Serialize, ToSchema)]
#[schema(as = Machine)]
pub struct MachineView {
    id: String,
    name: String,
    host: String,
    port: u16,
    /// Whom sessions log in as.
    user: String,
    /// `password` or `private_key`; the secret itself is shown nowhere.
    credential: &'static str,
    /// The key that it must show, as OpenSSH writes it, or its fingerprint; null until one is pinned.
    #[schema(required = true)]
    host_key: Option<String>,
    /// The same as `ssh-keygen -l` shows it.
    #[schema(required = true)]
    host_key_fingerprint: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<Machine> for MachineView {
    fn from(machine: Machine) -> Self {
        let pin = machine.host_key.as_deref().and_then(|text| text.parse::<Pin>().ok());
        Self {
            id: id("mch", machine.id),
            name: machine.name,
            host: machine.host,
            port: machine.port,
            user: machine.user,
            credential: machine.credential.word(),
            host_key_fingerprint: pin.map(|pin| pin.fingerprint()),
            host_key: machine.host_key,
            created_at: seconds(machine.created_at),
            updated_at: seconds(machine.updated_at),
        }
    }
}

/// What a machine is logged into with. Sealed, and shown nowhere again.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialBody {
    Password {
        #[schema(min_length = 1)]
        password: String,
    },
    /// A private key as OpenSSH writes it; RSA keys are not supported.
    PrivateKey { private_key: String, passphrase: Option<String> },
}

impl From<CredentialBody> for MachineSecret {
    fn from(body: CredentialBody) -> Self {
        match body {
            CredentialBody::Password { password } => Self::Password { password },
            CredentialBody::PrivateKey { private_key, passphrase } => {
                Self::PrivateKey { private_key, passphrase }
            }
        }
    }
}

/// A new machine.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMachine {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// A name or an address; what `--allow-machine` adds, and for the first organization this machine itself.
    #[schema(min_length = 1, max_length = 255)]
    host: String,
    #[serde(default = "ssh_port")]
    #[schema(minimum = 1, default = 22)]
    port: u16,
    #[schema(min_length = 1, max_length = 255)]
    user: String,
    credential: CredentialBody,
    /// The key that it must show, as OpenSSH writes it (`ssh-ed25519 AAAA…`). Without one, learn it by `POST …/test`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    host_key: Option<String>,
}

fn ssh_port() -> u16 {
    22
}

/// What is to be changed; the rest stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMachine {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    name: Option<String>,
    /// With another host or port the key that was pinned is forgotten, and the credential must come along.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    host: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1)]
    port: Option<u16>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    user: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    credential: Option<CredentialBody>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    host_key: Option<String>,
}

/// A page of machines, oldest first.
#[derive(Serialize, ToSchema)]
pub struct MachineList {
    machines: Vec<MachineView>,
    pagination: Pagination,
}

/// Where a page is.
#[derive(Serialize, ToSchema)]
pub struct Pagination {
    pub page: usize,
    pub limit: usize,
    pub total: usize,
    pub total_pages: usize,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Which page, from 1 on.
    #[param(value_type = u32, required = false, minimum = 1, default = 1)]
    page: Option<String>,
    /// Most of a page, 1 to 100.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
}

/// Reads `page` and `limit`.
pub fn read_page(page: Option<&str>, limit: Option<&str>, usual: usize) -> Result<(usize, usize), Problem> {
    let number = |field: &'static str, text: Option<&str>, usual: usize, most: usize| match text
        .map(str::parse)
    {
        None => Ok(usual),
        Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(Problem::invalid(field, format!("{field} must be a whole number from 1 to {most}"))),
    };
    Ok((number("page", page, 1, 100_000)?, number("limit", limit, usual, MOST)?))
}

impl Pagination {
    pub fn of(page: usize, limit: usize, total: usize) -> Self {
        Self { page, limit, total, total_pages: total.div_ceil(limit) }
    }
}

/// Checks a credential. What is wrong with a key is said to the person who brings it, and not to one who opens a terminal
/// later.
async fn usable(credential: CredentialBody) -> Result<MachineSecret, Problem> {
    if let CredentialBody::PrivateKey { private_key, passphrase } = &credential {
        let (pem, passphrase) = (private_key.clone(), passphrase.clone());
        // Trying a passphrase is made to be slow.
        let read = tokio::task::spawn_blocking(move || ssh::private_key(&pem, passphrase.as_deref()).err());
        if let Some(error) = read.await.map_err(|error| Error::Internal(error.to_string()))? {
            return Err(Problem::invalid("credential", format!("credential.private_key: {error}")));
        }
    }
    Ok(credential.into())
}

/// Reads the host key of a body, and brings it into its normal form.
fn host_key(text: Option<String>) -> Result<Option<String>, Problem> {
    text.map(|text| match text.parse::<Pin>() {
        Ok(pin) => Ok(pin.to_string()),
        Err(what) => Err(Problem::invalid("host_key", format!("host_key: {what}"))),
    })
    .transpose()
}

/// List machines
#[utoipa::path(get, path = "/v1/machines", operation_id = "terminals.listMachines", tag = "terminals",
    security(("terminalKey" = [])), params(PageQuery),
    responses(
        (status = 200, description = "A page of them.", body = Success<MachineList>),
    ))]
pub async fn list_machines(
    User(caller): User,
    Query(query): Query<PageQuery>,
    State(app): State<App>,
) -> Result<Json<Success<MachineList>>, Problem> {
    let (page, limit) = read_page(query.page.as_deref(), query.limit.as_deref(), PAGE)?;
    let (machines, total) = app.directory.machines.list(&caller, (page - 1) * limit, limit);
    let machines = machines.into_iter().map(MachineView::from).collect();
    let pagination = Pagination::of(page, limit, total);
    Ok(Json(Success::of(MachineList { machines, pagination })))
}

/// Add a machine
///
/// Its credential is sealed with the installation's key. Pin its key here, or learn it by a test.
#[utoipa::path(post, path = "/v1/machines", operation_id = "terminals.createMachine", tag = "terminals",
    security(("terminalKey" = [])), request_body = CreateMachine,
    responses(
        (status = 201, description = "It is there.", body = Success<MachineView>),
        (status = 409, description = "There are as many as there may be.", body = TerminalError),
    ))]
pub async fn create_machine(
    Admin(caller): Admin,
    State(app): State<App>,
    Body(body): Body<CreateMachine>,
) -> Result<(StatusCode, Json<Success<MachineView>>), Problem> {
    app.terminals.check_host(caller.organization, &body.host)?;
    let new = NewMachine {
        name: body.name,
        host: body.host,
        port: body.port,
        user: body.user,
        secret: usable(body.credential).await?,
        host_key: host_key(body.host_key)?,
    };
    let machine = app.directory.machines.create(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(Success::of(machine.into()))))
}

/// Get a machine
#[utoipa::path(get, path = "/v1/machines/{machineId}", operation_id = "terminals.getMachine", tag = "terminals",
    security(("terminalKey" = [])), params(("machineId" = String, Path, description = "`mch_…`")),
    responses(
        (status = 200, description = "The machine.", body = Success<MachineView>),
    ))]
pub async fn get_machine(
    User(caller): User,
    Id(id): Id<MACHINE>,
    State(app): State<App>,
) -> Result<Json<Success<MachineView>>, Problem> {
    Ok(Json(Success::of(app.directory.machines.find(&caller, id)?.into())))
}

/// Change a machine
#[utoipa::path(patch, path = "/v1/machines/{machineId}", operation_id = "terminals.updateMachine", tag = "terminals",
    security(("terminalKey" = [])), params(("machineId" = String, Path, description = "`mch_…`")),
    request_body = UpdateMachine,
    responses(
        (status = 200, description = "As it is now.", body = Success<MachineView>),
    ))]
pub async fn update_machine(
    Admin(caller): Admin,
    Id(id): Id<MACHINE>,
    State(app): State<App>,
    Body(body): Body<UpdateMachine>,
) -> Result<Json<Success<MachineView>>, Problem> {
    if let Some(host) = &body.host {
        app.terminals.check_host(caller.organization, host)?;
    }
    let secret = match body.credential {
        Some(credential) => Some(usable(credential).await?),
        None => None,
    };
    let changed = ChangedMachine {
        name: body.name,
        host: body.host,
        port: body.port,
        user: body.user,
        secret,
        host_key: host_key(body.host_key)?,
    };
    Ok(Json(Success::of(app.directory.machines.change(&caller, id, changed).await?.into())))
}

/// Delete a machine
///
/// No session is opened on it any more; those that are open stay, and what was recorded stays.
#[utoipa::path(delete, path = "/v1/machines/{machineId}", operation_id = "terminals.deleteMachine", tag = "terminals",
    security(("terminalKey" = [])), params(("machineId" = String, Path, description = "`mch_…`")),
    responses(
        (status = 200, description = "It is gone.", body = Said),
    ))]
pub async fn delete_machine(
    Admin(caller): Admin,
    Id(id): Id<MACHINE>,
    State(app): State<App>,
) -> Result<Json<Said>, Problem> {
    app.directory.machines.delete(&caller, id).await?;
    Ok(Json(Said::that("Machine deleted successfully")))
}
