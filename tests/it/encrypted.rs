//! TLS to PostgreSQL, with certificates made here. TLS to RabbitMQ is in broker_outage.rs, whose broker starts again anyway.

use std::path::PathBuf;
use std::process::Stdio;

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{Authority, clawback, settings, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_spoken_to_encrypted_and_only_with_the_right_certificate() {
    let postgres = OwnPostgres::start().await;
    let (right, wrong) = (Authority::new(), Authority::new());
    let (certificate, key) = right.for_this_machine();
    // The server writes its files itself: they must be its own user's.
    let write = |name: &str, pem: &str| {
        format!("COPY (SELECT 1) TO PROGRAM $$umask 077; cat >/dev/null; printf %s '{pem}' >{name}$$")
    };
    let mut options = ConnectOptions::new(&postgres.url);
    options.max_connections(1).sqlx_logging(false);
    let admin = Database::connect(options).await.unwrap();
    for sql in [
        write("server.crt", &certificate),
        write("server.key", &key),
        "ALTER SYSTEM SET ssl = on".to_owned(),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        admin.execute_unprepared(&sql).await.unwrap();
    }
    admin.close().await.unwrap();

    let verified = |authority: &Authority| format!("sslmode=verify-full&sslrootcert={}", text(&authority.file()));
    let migrate = async |query: &str| {
        let url = format!("{}?{query}", postgres.url);
        clawback(&["migrate", "up"], &settings(&[("DATABASE_URL", &url)])).await
    };
    let refused = migrate(&verified(&wrong)).await;
    assert!(refused.code == 1 && refused.stderr.contains("certificate"), "{refused:?}");
    let run = migrate(&verified(&right)).await;
    assert_eq!((run.code, run.stdout.as_str()), (0, "2 migrations applied\n"), "{run:?}");
    // Whose certificate it is does not matter, but it must have one.
    assert_eq!(migrate("sslmode=require").await.code, 0);
    let mut options = ConnectOptions::new(format!("{}?{}", postgres.url, verified(&right)));
    options.max_connections(1).sqlx_logging(false);
    let sessions = Database::connect(options).await.unwrap();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND NOT ssl";
    sessions.execute_unprepared(sql).await.expect("this session is not encrypted");
    sessions.close().await.unwrap();
    postgres.dev("remove").await;
}

struct OwnPostgres {
    folder: PathBuf,
    url: String,
}

impl OwnPostgres {
    async fn start() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{}", Uuid::new_v4().simple()));
        let mut postgres = Self { folder, url: String::new() };
        let exports = postgres.dev("start").await;
        let url = exports.lines().find_map(|line| line.split_once("DATABASE_URL=")).expect("no DATABASE_URL").1;
        postgres.url = url.trim_matches(['\'', '"']).to_owned();
        postgres
    }

    /// `./dev database <verb> DIR`.
    async fn dev(&self, verb: &str) -> String {
        let dev = concat!(env!("CARGO_MANIFEST_DIR"), "/dev");
        let run =
            Command::new(dev).args(["database", verb]).arg(&self.folder).stdin(Stdio::null()).output().await.unwrap();
        assert!(run.status.success(), "./dev database {verb}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }
}
