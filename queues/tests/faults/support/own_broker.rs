//! A RabbitMQ that a test owns, and may break: `./dev broker`, with its data in a folder of the build's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tokio::task::spawn_blocking;

pub(crate) struct OwnBroker {
    pub(crate) url: String,
    folder: PathBuf,
}

impl OwnBroker {
    pub(crate) async fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broker-{}", uuid::Uuid::now_v7()));
        let printed = dev(&["broker", "start"], &folder).await;
        let url = printed.lines().find_map(|line| line.strip_prefix("export AMQP_URL="));
        Self { url: url.expect("./dev broker start prints AMQP_URL").to_owned(), folder }
    }

    /// Starts it again after [`kill`](Self::kill): the same data, the same ports.
    pub(crate) async fn start_again(&self) {
        dev(&["broker", "start"], &self.folder).await;
    }

    /// SIGKILL.
    pub(crate) async fn kill(&self) {
        dev(&["broker", "kill"], &self.folder).await;
    }

    pub(crate) async fn rabbitmqctl(&self, arguments: &[&str]) {
        let script = root().join("scripts/rabbitmqctl");
        let mut command = Command::new(script);
        command.arg(&self.folder).args(arguments);
        run(command).await;
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        // Also when the test has failed; its log is worth keeping then.
        if std::thread::panicking() {
            let _ = fs::copy(self.folder.join("node.log"), self.folder.with_extension("log"));
        }
        let _ = Command::new(root().join("dev")).args(["broker", "remove"]).arg(&self.folder).output();
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

pub(crate) async fn dev(words: &[&str], folder: &Path) -> String {
    let mut command = Command::new(root().join("dev"));
    command.args(words).arg(folder);
    run(command).await
}

pub(crate) async fn run(mut command: Command) -> String {
    let Output { status, stdout, stderr } = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
