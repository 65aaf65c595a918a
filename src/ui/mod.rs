//! The pages under `/ui/`, for operators: HTML made on the server, plain links and forms. The one script renews what is under way.
//!
//! They read and act through the same functions as the API and the command line. `guard.rs` stands before every page: it knows
//! who looks, refuses what another site sends, and puts each page into the frame of `frame.rs`.

mod act;
mod attention;
mod audit;
mod broker;
mod chart;
mod claims;
mod doctor;
mod failures;
mod frame;
mod guard;
mod html;
mod input;
mod login;
mod money;
mod next;
mod operations;
mod overview;
mod page;
mod parked;
mod processes;
mod reconcile;
mod reversals;
mod sellers;
mod session;
mod style;
mod trace;
mod transfers;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{any, get, post};
use axum::{Router, middleware};
use queues::ConnectionState;
use tokio::sync::watch;
use url::Url;

use crate::http::{Looks, Tokens};
use crate::ledger::{Ledger, Situation, Trace};
use crate::operator::Operator;
use crate::reconcile::StripeNow;

/// The largest form.
const FORM_MAX_BYTES: usize = 16 * 1024;

/// What surrounds a page is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the pages need.
#[derive(Clone, Debug)]
pub struct Ui {
    /// All reads, and what needs no broker.
    pub ledger: Ledger,
    /// What operators do.
    pub operator: Operator,
    /// Log in.
    pub tokens: Tokens,
    /// The outbox's connection.
    pub broker: Option<watch::Receiver<ConnectionState>>,
    /// Stripe, as previews ask it; `None` without a key.
    pub stripe_now: Option<StripeNow>,
    /// The queues on the broker, and what `clawback doctor` finds.
    pub looks: Looks,
    /// A story as text, as `clawback trace` prints it.
    pub story: fn(&Trace, &Situation) -> String,
    /// What this installation is.
    pub instance: Arc<Instance>,
}

/// What an installation is, as every page shows it.
#[derive(Debug)]
pub struct Instance {
    /// The machine's name.
    pub name: String,
    /// Whether Stripe's key is one of live mode; `None` where this process does not know.
    pub livemode: Option<bool>,
    /// RabbitMQ's management API, if it is known.
    pub management: Option<Url>,
}

impl Ui {
    /// Who is alive, and what keeps jobs waiting; `None` where the database does not say so at once.
    async fn situation(&self) -> Option<Arc<Situation>> {
        tokio::time::timeout(PATIENCE, self.ledger.situation()).await.ok()?.ok()
    }
}

/// `/ui/…`.
pub fn routes(ui: Ui) -> Router {
    Router::new()
        .route("/ui/", get(overview::show))
        .route("/ui/login", get(login::show).post(login::log_in))
        .route("/ui/logout", get(login::ask_to_log_out).post(login::log_out))
        .route("/ui/refunds", get(claims::refunds))
        .route("/ui/disputes", get(claims::disputes))
        .route("/ui/attention", get(attention::attention))
        .route("/ui/held", get(attention::held))
        .route("/ui/doctor", get(doctor::show))
        .route("/ui/reversals", get(reversals::list))
        .route("/ui/transfers", get(transfers::list))
        .route("/ui/parked", get(parked::list))
        .route("/ui/parked/message", get(parked::preview).post(parked::act))
        .route("/ui/groups/note", get(failures::ask_note).post(failures::note))
        .route("/ui/act/{verb}", get(act::ask).post(act::act))
        .route("/ui/sellers", get(sellers::show))
        .route("/ui/trace", get(trace::show))
        .route("/ui/queues", get(broker::show))
        .route("/ui/pauses", post(processes::pause))
        .route("/ui/pauses/{id}/resume", post(processes::resume))
        .route("/ui/breaker/probe", post(processes::probe))
        .route("/ui/audit", get(audit::list))
        .route("/ui/reconcile", get(reconcile::list))
        .route("/ui/reconcile/{id}", get(reconcile::show))
        .route("/ui/operations", get(operations::list).post(operations::preview))
        .route("/ui/operations/{id}", get(operations::show))
        .route("/ui/operations/{id}/start", post(operations::start))
        .route("/ui/operations/{id}/abort", post(operations::abort))
        .route("/ui/style.css", get(style::css))
        .route("/ui/icon.svg", get(style::icon))
        .route("/ui/refresh.js", get(style::refresh))
        .route("/ui/{*rest}", any(page::unknown))
        .method_not_allowed_fallback(page::unknown)
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .layer(middleware::from_fn_with_state(ui.clone(), guard::guard))
        .route("/ui", get(async || Redirect::permanent("/ui/")))
        .with_state(ui)
}
