//! Measures the pages and the summary from outside, on a ledger with a million reversals: `./dev bench pages`. What is measured and
//! how: docs/benchmarks.md.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::env;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use reqwest::header::{COOKIE, SET_COOKIE};
use sea_orm::sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgPoolOptions, query, query_scalar, raw_sql};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const SEED: &str = include_str!("seed.sql");
/// The role and the database of what is measured; the statements of other roles are not counted.
const MEASURED: &str = "clawback";
const TOKEN: &str = "operate-the-benchmark";
/// No page may be slower, or larger.
const MAX_MILLIS: f64 = 100.0;
const MAX_BYTES: usize = 60 * 1024;
/// No statement may read more blocks of 8 KiB: at most 10,000 rows are counted or measured, with some four blocks each.
const MAX_BLOCKS: i64 = 45_000;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a figure is kept.
const FIGURES_LAPSE: Duration = Duration::from_millis(5_200);
/// Tables that grow with the business.
const GROWING: &str =
    "'payments', 'seller_transfers', 'claims', 'reversals', 'calls', 'webhook_events', 'outbox', 'history',
    'operations', 'operation_items'";

/// Measures every page, and the summary.
#[derive(Debug, Parser)]
#[command(name = "./dev bench pages")]
struct Arguments {
    /// Reversals in the ledger
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    reversals: u32,
    /// Requests for each page
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(20..=1_000))]
    requests: u32,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What came of a page.
struct Measured {
    path: String,
    p50: f64,
    p95: f64,
    bytes: usize,
    /// The most blocks that one execution of a statement read, and the statement.
    blocks: i64,
    statement: String,
}

struct Bench {
    http: reqwest::Client,
    url: String,
    cookie: String,
    db: PgPool,
    requests: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = variable("DATABASE_URL")?;
    let (db, url) = prepare(&base).await?;
    let program = env::var_os("BENCH_CLAWBACK").map_or_else(|| env!("CARGO_BIN_EXE_clawback").into(), PathBuf::from);
    let address = format!("127.0.0.1:{}", variable("BENCH_PORT")?);
    let clawback = |command: &str| {
        let mut process = Command::new(&program);
        process.args(command.split(' ')).env("DATABASE_URL", &url).env("HTTP_ADDR", &address).env("API_TOKEN", TOKEN);
        process
            .env("STRIPE_API_KEY", "sk_test_bench")
            .env("STRIPE_API_BASE", "http://127.0.0.1:1")
            .env("RUST_LOG", "warn");
        process.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        process
    };
    ensure!(clawback("migrate up").status().await?.success(), "clawback migrate up failed");
    let seeded = Instant::now();
    let seed = SEED.replace(":reversals", &arguments.reversals.to_string());
    raw_sql(AssertSqlSafe(seed)).execute(&db).await.context("the sample could not be made")?;
    raw_sql("VACUUM ANALYZE").execute(&db).await?;
    println!("{} reversals made in {:.0} s", arguments.reversals, seeded.elapsed().as_secs_f64());

    let mut serve = clawback("serve").spawn().context("clawback serve can't be started")?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let url = format!("http://{address}");
    ready(&http, &url, &mut serve).await?;
    let cookie = log_in(&http, &url).await?;
    let bench = Bench { http, url, cookie, db, requests: arguments.requests };
    let result = bench.run(arguments.reversals).await;
    serve.kill().await?;
    result
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `./dev bench pages`"))
}

/// The role and the database, and the superuser's connection to it.
async fn prepare(base: &str) -> Result<(PgPool, String)> {
    let admin = PgPoolOptions::new().max_connections(1).connect(base).await?;
    for statement in ["CREATE ROLE clawback LOGIN PASSWORD 'clawback'", "CREATE DATABASE clawback OWNER clawback"] {
        query(statement).execute(&admin).await?;
    }
    admin.close().await;
    let mut url = url::Url::parse(base)?;
    url.set_path(MEASURED);
    let db = PgPoolOptions::new().max_connections(1).connect(url.as_str()).await?;
    query("CREATE EXTENSION pg_stat_statements").execute(&db).await?;
    let of_role = url.set_username(MEASURED).and_then(|()| url.set_password(Some(MEASURED)));
    of_role.map_err(|()| anyhow::anyhow!("DATABASE_URL can't carry a user"))?;
    Ok((db, url.into()))
}

async fn ready(http: &reqwest::Client, url: &str, serve: &mut Child) -> Result<()> {
    let start = Instant::now();
    while !http.get(format!("{url}/health/ready")).send().await.is_ok_and(|answer| answer.status().is_success()) {
        if let Some(status) = serve.try_wait()? {
            bail!("clawback serve ended with {status}");
        }
        ensure!(start.elapsed() < READY_WITHIN, "clawback serve was not ready within {READY_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn log_in(http: &reqwest::Client, url: &str) -> Result<String> {
    let form = [("token", TOKEN), ("operator", "bench")];
    let answer = http.post(format!("{url}/ui/login")).form(&form).send().await?;
    let cookie = answer.headers().get(SET_COOKIE).context("the login was refused")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

impl Bench {
    async fn run(&self, reversals: u32) -> Result<()> {
        let paths = self.paths(reversals).await?;
        let scans = self.scans().await?;
        let mut all = Vec::new();
        println!("{:<58} {:>8} {:>8} {:>8} {:>9}", "page", "p50 ms", "p95 ms", "KB", "blocks");
        for path in paths {
            let lapses = path == "/v1/summary";
            let measured = self.measure(&path, self.requests, Duration::ZERO).await?;
            println!("{measured}");
            all.push(measured);
            if lapses {
                // Each time computed anew.
                let mut measured = self.measure(&path, 20, FIGURES_LAPSE).await?;
                measured.path.push_str(" (computed)");
                println!("{measured}");
                all.push(measured);
            }
        }
        let scanned = self.scans().await?;
        let mut problems: Vec<String> = all.iter().flat_map(Measured::problems).collect();
        for (table, times) in &scanned {
            let before = scans.iter().find(|(name, _)| name == table).map_or(0, |(_, times)| *times);
            if *times > before {
                problems.push(format!("{table} was read as a whole {} times", times - before));
            }
        }
        let results: Vec<Value> = all.iter().map(Measured::json).collect();
        println!("{}", json!({"reversals": reversals, "pages": results, "problems": problems}));
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    /// Every page, with the filters that people use, and the routes that sum up.
    async fn paths(&self, reversals: u32) -> Result<Vec<String>> {
        let middle: String = query_scalar("SELECT id::text FROM reversals ORDER BY id OFFSET $1 LIMIT 1")
            .bind(i64::from(reversals / 2))
            .fetch_one(&self.db)
            .await?;
        let operation: String =
            query_scalar("SELECT id::text FROM operations ORDER BY id LIMIT 1").fetch_one(&self.db).await?;
        let paths = [
            "/ui/",
            "/ui/refunds",
            "/ui/refunds?status=held&acknowledged=no",
            "/ui/refunds?attention=yes",
            "/ui/refunds?status=unmatched&currency=jpy",
            "/ui/disputes",
            "/ui/attention",
            "/ui/held",
            "/ui/reversals",
            "/ui/reversals?status=pending",
            "/ui/reversals?status=pending&waits=yes&currency=gbp",
            "/ui/reversals?status=permanently_failed&failure_code=more_than_left",
            "/ui/reversals?owed=yes&currency=eur",
            "/ui/reversals?status=closed&currency=jpy",
            "/ui/reversals?failure_code=none_of_these",
            "/ui/reversals?status=permanently_failed&currency=eur&since=30d&until=7d",
            "/ui/reversals?status=reversed&currency=eur&changed_since=7d",
            "/ui/reversals?seller=seller-7",
            "/ui/reversals?seller=seller-7&status=permanently_failed",
            "/ui/transfers",
            "/ui/transfers?status=permanently_failed&currency=jpy",
            "/ui/transfers?seller=seller-7",
            "/ui/transfers?not_created=yes",
            "/ui/parked",
            "/ui/sellers",
            "/ui/sellers?debt=open",
            "/ui/sellers?debt=failed",
            "/ui/sellers?id=seller-7",
            "/ui/trace?id=re_5000",
            "/ui/trace?id=unknown_id",
            "/ui/queues",
            "/ui/audit",
            "/ui/audit?actor=ada",
            "/ui/audit?entity=reversal&id=re_5000",
            "/ui/operations",
            "/ui/reconcile",
            "/ui/doctor",
            "/ui/login",
            "/v1/summary",
            "/v1/reversals?status=permanently_failed",
            "/v1/reversals/groups",
            "/v1/sellers",
            "/v1/history",
            "/v1/trace/re_5000",
            "/v1/calls",
            "/v1/queues",
            "/v1/doctor",
        ];
        let mut paths: Vec<String> = paths.map(str::to_owned).into();
        paths.push(format!("/ui/operations/{operation}"));
        paths.push(format!("/ui/reversals?cursor={middle}"));
        Ok(paths)
    }

    async fn measure(&self, path: &str, requests: u32, pause: Duration) -> Result<Measured> {
        // What everybody pays once: plans, and what is computed every few seconds.
        if pause.is_zero() {
            self.get(path).await?;
        }
        query("SELECT pg_stat_statements_reset()").execute(&self.db).await?;
        let (mut millis, mut bytes) = (Vec::new(), 0);
        for _ in 0..requests {
            tokio::time::sleep(pause).await;
            let start = Instant::now();
            bytes = self.get(path).await?;
            millis.push(start.elapsed().as_secs_f64() * 1_000.0);
        }
        millis.sort_by(f64::total_cmp);
        let at = |percent: usize| millis[(millis.len() * percent).div_ceil(100) - 1];
        let worst = query(
            "SELECT (shared_blks_hit + shared_blks_read) / calls AS blocks, query FROM pg_stat_statements s
            JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = $1 AND calls > 0 ORDER BY 1 DESC LIMIT 1",
        );
        let worst = worst.bind(MEASURED).fetch_optional(&self.db).await?;
        let (blocks, statement) = match worst {
            Some(row) => (row.try_get("blocks")?, row.try_get::<String, _>("query")?),
            None => (0, String::new()),
        };
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Measured { path: path.to_owned(), p50: at(50), p95: at(95), bytes, blocks, statement })
    }

    /// The size of the answer.
    async fn get(&self, path: &str) -> Result<usize> {
        let request = self.http.get(format!("{}{path}", self.url));
        let request = match path.starts_with("/v1/") {
            true => request.bearer_auth(TOKEN),
            false => request.header(COOKIE, &self.cookie),
        };
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let is_there = status.is_success() || (status == 404 && path.contains("unknown"));
        ensure!(is_there, "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body.len())
    }

    /// How often each growing table was read as a whole.
    async fn scans(&self) -> Result<Vec<(String, i64)>> {
        // Connections report what they did a second late.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let sql = format!("SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE relname IN ({GROWING})");
        let rows = query(AssertSqlSafe(sql)).fetch_all(&self.db).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

impl Measured {
    fn problems(&self) -> Vec<String> {
        let Self { path, p95, bytes, blocks, statement, .. } = self;
        let mut problems = Vec::new();
        if *p95 > MAX_MILLIS {
            problems.push(format!("{path}: p95 must be at most {MAX_MILLIS} ms (got {p95:.1})"));
        }
        if *bytes > MAX_BYTES && path.starts_with("/ui/") {
            problems.push(format!("{path}: must have at most {MAX_BYTES} bytes (got {bytes})"));
        }
        if *blocks > MAX_BLOCKS {
            problems.push(format!("{path}: a statement reads {blocks} blocks: {statement}"));
        }
        problems
    }

    fn json(&self) -> Value {
        let Self { path, p50, p95, bytes, blocks, .. } = self;
        let round = |millis: f64| (millis * 10.0).round() / 10.0;
        json!({"path": path, "p50_ms": round(*p50), "p95_ms": round(*p95), "bytes": bytes, "blocks": blocks})
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, p50, p95, bytes, blocks, .. } = self;
        write!(f, "{path:<58} {p50:>8.1} {p95:>8.1} {:>8.1} {blocks:>9}", *bytes as f64 / 1024.0)
    }
}
