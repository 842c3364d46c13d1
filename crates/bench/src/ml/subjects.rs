//! Who is measured, and how each is started.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Postgres, Service, Signal};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::goals::{OURS, PEER, SOLVERS};
use crate::{Fault, api::Api, home, peer, peer::Peer, program, runs::Runs};

/// Imports of the peer take some seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked whether the first prediction can be had.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Ours,
    Peer,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Peer => PEER,
        }
    }

    /// Where it records.
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Ours => "loans",
            Self::Peer => "peer_loans",
        }
    }
}

/// The means to start each of them.
pub(super) struct Subjects {
    ours: PathBuf,
    python: Option<PathBuf>,
    pub(super) folder: TempDir,
}

/// A subject that answers.
pub(super) struct Running {
    service: Service,
    pub(super) api: Api,
    pub(super) ready_after: Duration,
}

impl Subjects {
    /// Builds ours, trains its model, and gives the peer the same; a peer that cannot be had is noted in `runs`.
    pub(super) async fn prepare(server: &Postgres, runs: &mut Runs) -> Result<Self, Fault> {
        let ours = program::build("ml-api").await?;
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        // What a fresh service starts with: the same rows, split by the same seed.
        ml_api(&ours, &["generate", "--rows", "10000", "--seed", "42", "--out", &file("loans.csv")]).await?;
        ml_api(&ours, &["train", "--seed", "42", "--data", &file("loans.csv"), "--out", &file("model.json")])
            .await?;
        let python = match install(server, &file("model.json"), &file("model.joblib")).await {
            Ok(python) => Some(python),
            Err(fault) => {
                for subject in [PEER].iter().chain(SOLVERS) {
                    runs.fail(subject, fault.to_string());
                }
                None
            }
        };
        Ok(Self { ours, python, folder })
    }

    pub(super) fn ours(&self) -> &Path {
        &self.ours
    }

    /// scikit-learn alone.
    pub(super) fn scikit_learn(&self) -> Result<Peer, Fault> {
        Peer::of(self.python.as_deref().ok_or("it is not installed")?, "ml_model.py")
    }

    /// Starts a service and waits for its first prediction.
    pub(super) async fn start(&self, subject: Subject, server: &Postgres) -> Result<Running, Fault> {
        let port = testkit::free_port();
        let (number, bind, url) = (port.to_string(), format!("127.0.0.1:{port}"), server.url());
        let model = self.folder.path().join("model.joblib").display().to_string();
        let peers = home().join("peers").display().to_string();
        let started = Instant::now();
        let service = match subject {
            Subject::Ours => {
                let environment =
                    [("ML_PORT", number.as_str()), ("DATABASE_URL", &url), ("LOG_LEVEL", "error")];
                testkit::service(&self.ours, &[], &environment)
            }
            Subject::Peer => {
                let python = self.python.as_deref().ok_or("it is not installed")?;
                // Threads keep connections alive: 740 us for a /predict here, against 1330 us of sync workers.
                let arguments =
                    ["-m", "gunicorn", "--chdir", &peers, "-b", &bind, "-w", "2", "-k", "gthread"];
                let arguments: Vec<&str> =
                    arguments.into_iter().chain(["--threads", "4", "ml_app:app"]).collect();
                testkit::service(python, &arguments, &[("MODEL", &model), ("DATABASE_URL", &url)])
            }
        };
        let api = Api::on(port);
        let ready_after = first_prediction(&service, &api, started).await?;
        until_recording(&api).await?;
        Ok(Running { service, api, ready_after })
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.service.pid()
    }

    pub(super) async fn end(self) -> Result<(), Fault> {
        self.service.signal(Signal::Term);
        match timeout(PATIENCE, self.service.wait(PATIENCE)).await? {
            0 => Ok(()),
            code => Err(format!("it ended with {code}").into()),
        }
    }
}

async fn first_prediction(service: &Service, api: &Api, started: Instant) -> Result<Duration, Fault> {
    while api.expect("/predict", "{}").await.is_err() {
        if !service.is_running() || started.elapsed() > PATIENCE {
            return Err(format!("it does not start: {}", service.lines().join("; ")).into());
        }
        sleep(LOOK).await;
    }
    Ok(started.elapsed())
}

/// Ours listens before it has reached the database.
async fn until_recording(api: &Api) -> Result<(), Fault> {
    let body = r#"{"loan_id":"first","loan_amount":1}"#;
    let recorded = async {
        while api.expect("/data/record", body).await.is_err() {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, recorded).await.map_err(|_| "it does not record".into())
}

async fn ml_api(program: &Path, arguments: &[&str]) -> Result<(), Fault> {
    let output = Command::new(program).args(arguments).output().await?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(told.into()) }
}

/// The interpreter, after the peer's model and table were made.
async fn install(server: &Postgres, model: &str, pipeline: &str) -> Result<PathBuf, Fault> {
    let python = peer::python("ml", "ml-requirements.txt").await?;
    let mut maker = Peer::of(&python, "ml_model.py")?;
    let request = json!({ "do": "model", "from": model, "to": pipeline, "database": server.url() });
    let made: Result<Value, Fault> = maker.ask(&request).await;
    maker.end().await;
    made.map(|_| python)
}
