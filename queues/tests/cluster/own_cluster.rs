//! A cluster that the test owns: `scripts/cluster`, with its data in a folder of the build's.

use crate::support::own_broker::{dev, root, run};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Three nodes as one cluster; the first can be killed and started again like an own broker.
pub(crate) struct OwnCluster {
    pub(crate) urls: Vec<String>,
    folder: PathBuf,
}

impl OwnCluster {
    pub(crate) async fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{}", uuid::Uuid::now_v7()));
        let mut command = Command::new(root().join("scripts/cluster"));
        command.arg("start").arg(&folder);
        // There before it is started, so that all is removed when a part of it fails to start.
        let mut cluster = Self { urls: Vec::new(), folder };
        cluster.urls = run(command).await.lines().map(str::to_owned).collect();
        cluster
    }

    pub(crate) async fn kill_first(&self) {
        dev(&["broker", "kill"], &self.folder.join("1")).await;
    }

    pub(crate) async fn start_first_again(&self) {
        dev(&["broker", "start"], &self.folder.join("1")).await;
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let _ = Command::new(root().join("scripts/cluster")).arg("remove").arg(&self.folder).output();
    }
}
