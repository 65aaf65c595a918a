//! Where log lines go: to stderr, as text for people or as JSON for programs.
//!
//! `main` calls [`init`] once, before anything else can log. It never exports traces or metrics.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use url::Url;

use crate::config::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("RUST_LOG is {filter:?}: {source}; allowed: directives like info or info,clawback=debug")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// This process logs already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process, in the format and with the filter given.
///
/// An OTLP endpoint is accepted, and leads to one warning: traces are not exported yet.
///
/// # Errors
/// [`TelemetryError`] when the filter can't be parsed, or when logging was set up before.
pub fn init(format: LogFormat, filter: &str, otlp_endpoint: Option<&Url>) -> Result<(), TelemetryError> {
    let env_filter =
        EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(env_filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    if let Some(endpoint) = otlp_endpoint {
        tracing::warn!(%endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces are not exported yet");
    }
    Ok(())
}
