//! W3C trace context: how one trace goes on from caller to ledger, outbox, broker and job.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Of HTTP requests, and of messages.
pub(crate) const HEADER: &str = "traceparent";

/// The present span as a `traceparent`, if it is exported.
pub(crate) fn current() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(HEADER)
}

/// Makes `span` go on from a `traceparent`. One that is none is ignored: `span` begins a trace of its own then.
///
/// The span must not have been entered.
pub(crate) fn go_on(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    // An error says that nothing is exported, or that the span is filtered out.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}
