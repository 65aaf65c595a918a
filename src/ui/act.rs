//! What an operator does to one thing: a page that says what will happen and asks for the reason, and the act itself.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tracing::{Instrument, Span};

use super::Ui;
use super::guard::Actor;
use super::html::{facts, query, status, story};
use super::input::{Amount, Asked, Sent};
use super::money::{money, text};
use super::page::{Answer, Page, Refusal};
use super::session::Session;
use crate::http::Rights;
use crate::ledger::{CallKind, ClaimKind, RefundView, ReversalView, SideCall, TransferView};
use crate::operator::limits::REASON_MAX_CHARS;
use crate::operator::{Leftovers, Operator};

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Verb {
    /// Lets a held claim take, or tries a conflicting one again.
    Accept,
    /// Records that nothing more needs to be done about a claim.
    Acknowledge,
    /// Has a reversal tried again that failed permanently; or a look-up, or an event.
    Replay,
    /// Records that a debt was settled elsewhere.
    Close,
    /// Has the creation of a transfer tried again.
    Retry,
    /// Throws away parked messages; of many at once only.
    Discard,
}

/// What it is done to.
enum Subject {
    Claim(Box<RefundView>),
    Reversal(Box<ReversalView>),
    Transfer(Box<TransferView>),
    Side(Box<SideCall>),
}

impl Verb {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Acknowledge => "Acknowledge",
            Self::Replay => "Replay",
            Self::Close => "Close",
            Self::Retry => "Retry",
            Self::Discard => "Discard messages",
        }
    }

    /// What follows from it.
    pub(super) const fn consequence(self) -> &'static str {
        match self {
            Self::Accept => {
                "It takes back from its payment's transfers, as if it had just been reported. If its payment is not \
                 registered, it waits for that."
            }
            Self::Acknowledge => {
                "It counts nowhere as needing attention any more, until there is news of it. No money moves."
            }
            Self::Replay => {
                "Its retries start over, with a new job. Before the worker calls Stripe it looks there whether the reversal \
                 has happened after all: nothing is taken twice."
            }
            Self::Close => {
                "The debt counts as settled elsewhere: paid by invoice, offset or written off. It is not tried again, and \
                 this can't be undone."
            }
            Self::Retry => {
                "Its retries start over, with a new job. Before the worker calls Stripe it looks there whether the transfer \
                 exists: no seller is paid twice."
            }
            Self::Discard => {
                "The parked messages about them are thrown away. The debts stay as they are: still owed, and can still be \
                 replayed."
            }
        }
    }

    async fn subject(self, ui: &Ui, id: &str) -> Result<Subject, Refusal> {
        let found = match self {
            Self::Accept | Self::Acknowledge => {
                let mut claim = ui.ledger.claim(ClaimKind::Refund, id).await?;
                if claim.is_none() {
                    claim = ui.ledger.claim(ClaimKind::Dispute, id).await?;
                }
                claim.map(|claim| Subject::Claim(Box::new(claim)))
            }
            Self::Replay | Self::Close => match ui.ledger.reversal(id).await? {
                Some(reversal) => Some(Subject::Reversal(Box::new(reversal))),
                None if self == Self::Close => None,
                None => ui.ledger.side_call(id).await?.map(|call| Subject::Side(Box::new(call))),
            },
            Self::Retry => ui.ledger.transfer(id).await?.map(|transfer| Subject::Transfer(Box::new(transfer))),
            Self::Discard => None,
        };
        found.ok_or_else(|| Refusal::not_found(format!("Nothing that this can be done to has the id {id}.")))
    }
}

/// Does something with the ledger and the broker in view, to its end: also when the browser goes away meanwhile.
pub(super) async fn to_its_end<T: Send + 'static>(
    operator: &Operator,
    work: impl AsyncFnOnce(&Operator) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let (operator, runtime, span) = (operator.clone(), Handle::current(), Span::current());
    let done = spawn_blocking(move || runtime.block_on(work(&operator).instrument(span))).await;
    done.map_err(|error| {
        tracing::error!(%error, "a page's work has crashed");
        let detail = "It crashed on the way; the log says why.";
        let to_do = html! { "Look at the " a href="/ui/audit" { "audit" } " for what was done, and try again." };
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Not finished", detail, to_do)
    })
}

/// A link to the page that asks, for those who may act.
pub(super) fn button(session: &Session, verb: Verb, id: &str) -> Markup {
    html! {
        @if session.rights == Rights::Operate { a.button href={ "/ui/act/" (verb) (query(&[("id", id)])) } { (verb.name()) } }
    }
}

/// `GET /ui/act/{verb}?id=`.
pub(super) async fn ask(State(ui): State<Ui>, _: Actor, Path(verb): Path<String>, Asked(mut fields): Asked) -> Answer {
    let verb = parse(&verb)?;
    let id = fields.text("id").unwrap_or_default();
    fields.done()?;
    let subject = verb.subject(&ui, &id).await?;
    let needed = match &subject {
        Subject::Reversal(of) if verb == Verb::Replay => ui.ledger.to_confirm_of(&[of.id]).await?,
        Subject::Transfer(of) => ui.ledger.to_confirm_of(&[of.id]).await?,
        _ => None,
    };
    let body = html! {
        (subject.shown())
        p { (subject.consequence(verb)) }
        form.stacked method="post" action={ "/ui/act/" (verb) } {
            input type="hidden" name="id" value=(subject.id());
            @if let (Verb::Replay, Subject::Reversal(reversal)) = (verb, &subject) { (part(reversal)) }
            (confirm(needed.as_deref()))
            (reason())
            p { button.go type="submit" { (verb.name()) } " " a href=(subject.story()) { "Cancel" } }
        }
    };
    Ok(Page::new(format!("{} {}", verb.name(), subject.named()), body))
}

/// `POST /ui/act/{verb}`.
pub(super) async fn act(
    State(ui): State<Ui>,
    Actor(session): Actor,
    Path(verb): Path<String>,
    Sent(mut fields): Sent,
) -> Answer {
    let verb = parse(&verb)?;
    let (id, note) = (fields.text("id").unwrap_or_default(), fields.note(&session.operator));
    let amount = if verb == Verb::Replay { fields.parsed("amount").map(|Amount(amount)| amount) } else { None };
    let typed = if matches!(verb, Verb::Replay | Verb::Retry) { fields.text("confirm_amount") } else { None };
    fields.done()?;
    let subject = verb.subject(&ui, &id).await?;
    let (id, kind) = (subject.id(), subject.kind());
    match verb {
        Verb::Replay if kind == CallKind::Reverse => {
            ui.ledger.check_replay(CallKind::Reverse, &id, amount, typed.as_deref()).await?
        }
        Verb::Retry => ui.ledger.check_replay(CallKind::Create, &id, None, typed.as_deref()).await?,
        Verb::Accept | Verb::Acknowledge | Verb::Replay | Verb::Close | Verb::Discard => {}
    }
    let left = match verb {
        Verb::Accept => ui.ledger.accept_claim(&id, note).await.map(|_| None)?,
        Verb::Acknowledge => ui.ledger.acknowledge_claim(&id, note).await.map(|_| None)?,
        Verb::Replay | Verb::Close | Verb::Retry | Verb::Discard => {
            let id = id.clone();
            let done = to_its_end(&ui.operator, async move |operator| match verb {
                Verb::Close => operator.close_reversal(&id, &note).await,
                _ => operator.replay(kind, &id, amount, &note).await,
            });
            Some(done.await??.1)
        }
    };
    let now = verb.subject(&ui, &id).await?;
    let body = html! {
        p.done role="status" { "Done, and in the history with your name and reason." }
        @if let Some(left) = &left { (leftovers(left)) }
        (now.shown())
        p { a href=(now.story()) { "What happens to it" } " · " a href="/ui/audit" { "Audit" } }
    };
    Ok(Page::new(format!("{}: {}", verb.name(), now.named()), body))
}

fn parse(verb: &str) -> Result<Verb, Refusal> {
    verb.parse().map_err(|_| Refusal::new(StatusCode::NOT_FOUND, "Not found", "There is no such page.", html! {}))
}

/// The field for the reason.
pub(super) fn reason() -> Markup {
    html! {
        label { "Reason"
            input name="reason" required maxlength=(REASON_MAX_CHARS) aria-describedby="reason-help" autocomplete="off";
        }
        p.help id="reason-help" { "For later readers of the history, on one line." }
    }
}

/// The field for a large amount, where there is one.
pub(super) fn confirm(needed: Option<&str>) -> Markup {
    html! {
        @if let Some(needed) = needed {
            label { "That is a large amount. Type " strong { (needed) } " (in minor units)"
                input name="confirm_amount" required autocomplete="off" spellcheck="false";
            }
        }
    }
}

/// The field for a part of the debt.
fn part(reversal: &ReversalView) -> Markup {
    html! {
        label { "Take only this much, in minor units (optional)"
            input name="amount" inputmode="numeric" pattern="[0-9]*" aria-describedby="amount-help" autocomplete="off";
        }
        p.help id="amount-help" {
            "Empty: all of " (text(reversal.amount.into(), &reversal.currency)) ", which is " (reversal.amount)
            ". The rest counts as settled elsewhere. For debts of which less is left at Stripe (more_than_left)."
        }
    }
}

/// What became of parked messages.
pub(super) fn leftovers(left: &Leftovers) -> Markup {
    html! {
        @match &left.problem {
            Some(problem) => p.notice {
                "A parked message about it may still be there. It does no harm, and goes when somebody next acts on a parked message. (" (problem) ")"
            },
            None if left.removed > 0 => p { "Parked messages taken away: " (left.removed) "." },
            None => {},
        }
    }
}

impl Subject {
    fn id(&self) -> String {
        match self {
            Self::Claim(claim) => claim.id.to_string(),
            Self::Reversal(reversal) => reversal.id.to_string(),
            Self::Transfer(transfer) => transfer.id.to_string(),
            Self::Side(call) => call.id.to_string(),
        }
    }

    /// What a replay of it opens again.
    fn kind(&self) -> CallKind {
        match self {
            Self::Claim(_) | Self::Reversal(_) => CallKind::Reverse,
            Self::Transfer(_) => CallKind::Create,
            Self::Side(call) => call.kind,
        }
    }

    fn consequence(&self, verb: Verb) -> &'static str {
        match self {
            Self::Side(_) => "Its retries start over, with a new job. No money moves by it.",
            Self::Claim(_) | Self::Reversal(_) | Self::Transfer(_) => verb.consequence(),
        }
    }

    fn story(&self) -> String {
        match self {
            // An event has no story of its own.
            Self::Side(call) if call.kind == CallKind::Notify => "/ui/parked".to_owned(),
            _ => format!("/ui/trace{}", query(&[("id", &self.id())])),
        }
    }

    fn named(&self) -> String {
        match self {
            Self::Claim(claim) => claim.refund_ref.clone(),
            Self::Reversal(reversal) => format!("the reversal for {}", reversal.refund_ref),
            Self::Transfer(transfer) => format!("the transfer to {}", transfer.seller_id),
            Self::Side(call) => format!("{} {}", call.kind.entity(), call.subject),
        }
    }

    fn shown(&self) -> Markup {
        match self {
            Self::Claim(claim) => facts(&[
                ("Reported", story(&claim.refund_ref)),
                ("Amount", money(claim.amount, &claim.currency)),
                ("Payment", story(&claim.payment_ref)),
                ("Status", status(claim.status)),
                ("Why", html! { (claim.status_reason.as_deref().unwrap_or("–")) }),
                ("To do", html! { (claim.attention.as_deref().unwrap_or("–")) }),
            ]),
            Self::Reversal(reversal) => facts(&[
                ("For", story(&reversal.refund_ref)),
                ("Amount", money(reversal.amount, &reversal.currency)),
                ("Status", status(reversal.status)),
                ("Failure", html! { (reversal.failure_message.as_deref().unwrap_or("–")) }),
            ]),
            Self::Transfer(transfer) => facts(&[
                ("Seller", html! { (transfer.seller_id) " (" (transfer.destination) ")" }),
                ("Amount", money(transfer.amount, &transfer.currency)),
                ("Status", status(transfer.status)),
                ("Failure", html! { (transfer.failure_message.as_deref().unwrap_or("–")) }),
            ]),
            Self::Side(call) => facts(&[
                ("What", html! { (call.kind.entity()) " " (call.subject) }),
                ("About", html! { @if let Some(id) = &call.reference { (story(id)) } @else { "–" } }),
                ("Status", status(call.state)),
                ("Failure", html! { (call.failure_message.as_deref().unwrap_or("–")) }),
            ]),
        }
    }
}
