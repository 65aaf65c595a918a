//! The passwords of the database and of the broker change while Clawback runs.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Backend, TestApp, eventually, refund_event, required, two_sellers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_read_from_its_file_and_one_that_stays_wrong_ends_the_process() {
    TestApp::run(Backend::Postgres, changing_passwords).await;
}

async fn changing_passwords(mut app: TestApp) {
    app.stop().await;
    let them = Credentials::create(&app).await;
    let (database, broker) = (them.file("database"), them.file("broker"));
    let files =
        [("DATABASE_URL", ""), ("DATABASE_URL_FILE", database.as_str()), ("AMQP_URL", ""), ("AMQP_URL_FILE", &broker)];
    app.start(&files).await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.refund_of(1_000, 1).await;
    app.transfer_becomes(0, "partially_reversed").await;

    them.change_both(&app, "new").await;
    them.write(&app, "new");
    them.hang_up(&app).await;
    let event = refund_event("evt_2", "re_2", "pi_1", 9_000).to_string();
    eventually("webhooks are taken again", || async { (app.post_webhook(&event).await.status() == 200).then_some(()) })
        .await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;

    // Nobody writes the file.
    app.vhost.put_user(&them.name, "newer", "", &json!({"configure": ".*", "write": ".*", "read": ".*"})).await;
    let (vhost, name) = (app.vhost.clone(), them.name.clone());
    let hanging_up = async move {
        loop {
            vhost.hang_up(&name).await;
        }
    };
    let ended = tokio::select! {
        ended = app.ends() => ended,
        () = hanging_up => unreachable!("it goes on until it ends"),
    };
    assert!(ended.contains("refused us") && !ended.contains("newer"), "{ended}");
    app.vhost.put_user(&them.name, "new", "", &json!({"configure": ".*", "write": ".*", "read": ".*"})).await;

    app.start(&[]).await;
    them.change_database("newer").await;
    // Again and again: a session that was just being opened with the old password lives on otherwise.
    let hanging_up = async {
        loop {
            them.hang_up_database().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = tokio::select! {
        ended = app.ends() => ended,
        () = hanging_up => unreachable!("it goes on until it ends"),
    };
    assert!(ended.contains("the database has refused the credentials for 2s") && !ended.contains("newer"), "{ended}");
    them.remove(&app).await;
}

/// A role of PostgreSQL and a user of RabbitMQ, both with one name and one password, and files with the URLs.
struct Credentials {
    name: String,
    admin: DatabaseConnection,
    folder: tempfile::TempDir,
}

impl Credentials {
    async fn create(app: &TestApp) -> Self {
        let name = format!("changing_{}", Uuid::new_v4().simple());
        let admin = Database::connect(required("DATABASE_URL")).await.unwrap();
        let them = Self { name, admin, folder: tempfile::tempdir().unwrap() };
        // With the rights of the tables' owner.
        let role = format!("CREATE ROLE {} LOGIN PASSWORD 'old' IN ROLE CURRENT_USER", them.name);
        them.admin.execute_unprepared(&role).await.unwrap();
        them.change_both(app, "old").await;
        them.write(app, "old");
        them
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, app: &TestApp, password: &str) {
        for (file, url) in [("database", &app.db.url), ("broker", &app.vhost.amqp_url)] {
            let mut url = url::Url::parse(url).unwrap();
            url.set_username(&self.name).unwrap();
            url.set_password(Some(password)).unwrap();
            std::fs::write(self.file(file), format!("{url}\n")).unwrap();
        }
    }

    async fn change_both(&self, app: &TestApp, password: &str) {
        app.vhost.put_user(&self.name, password, "", &json!({"configure": ".*", "write": ".*", "read": ".*"})).await;
        self.change_database(password).await;
    }

    async fn change_database(&self, password: &str) {
        self.admin.execute_unprepared(&format!("ALTER ROLE {} PASSWORD '{password}'", self.name)).await.unwrap();
    }

    /// As a restart of both does.
    async fn hang_up(&self, app: &TestApp) {
        self.hang_up_database().await;
        app.vhost.hang_up(&self.name).await;
    }

    async fn hang_up_database(&self) {
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", self.name);
        self.admin.execute_unprepared(&end).await.unwrap();
    }

    async fn remove(self, app: &TestApp) {
        app.vhost.delete_user(&self.name).await;
        self.admin.execute_unprepared(&format!("DROP ROLE {}", self.name)).await.unwrap();
    }
}
