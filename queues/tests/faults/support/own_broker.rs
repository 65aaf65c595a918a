//! A RabbitMQ that a test owns, and may break: `./dev broker`, with its data in a folder of the build's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tokio::task::spawn_blocking;
use url::Url;

pub(crate) struct OwnBroker {
    pub(crate) url: String,
    pub(crate) management_url: Url,
    /// Its data, configuration and logs.
    pub(crate) folder: PathBuf,
}

impl OwnBroker {
    pub(crate) async fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broker-{}", uuid::Uuid::now_v7()));
        let printed = dev(&["broker", "start"], &folder).await;
        let value = |name: &str| {
            let of_name =
                |line: &str| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            printed.lines().find_map(of_name).unwrap_or_else(|| panic!("./dev broker start prints no {name}"))
        };
        let management_url = value("RABBITMQ_MANAGEMENT_URL").parse().unwrap();
        Self { url: value("AMQP_URL"), management_url, folder }
    }

    /// Starts it again after [`kill`](Self::kill): the same data, the same ports.
    pub(crate) async fn start_again(&self) {
        dev(&["broker", "start"], &self.folder).await;
    }

    /// SIGKILL.
    pub(crate) async fn kill(&self) {
        dev(&["broker", "kill"], &self.folder).await;
    }

    /// Suspends the process of a queue in this virtual host (`%2F` for `/`): it answers nothing, as without a leader, until it is
    /// [resumed](Self::resume).
    pub(crate) async fn suspend(&self, vhost: &str, queue: &str) {
        self.rabbitmqctl(&["eval", &format!(r#"sys:suspend(list_to_atom("{vhost}_{queue}"))."#)]).await;
    }

    pub(crate) async fn resume(&self, vhost: &str, queue: &str) {
        self.rabbitmqctl(&["eval", &format!(r#"sys:resume(list_to_atom("{vhost}_{queue}"))."#)]).await;
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
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("dev").is_file()).unwrap().to_owned()
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
