//! What the program tells of itself: log lines to stderr, `traces` to a collector, `metrics` to whoever scrapes them.

mod metrics;
mod traces;

use std::io::IsTerminal;

use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};
use url::Url;

use self::traces::Traces;
use crate::config::LogFormat;

pub use self::metrics::{Recorder, RecorderError};

/// The broker's client says four lines of ERROR whenever a connection is lost. One of ours says the same, and what follows from
/// it. The operator's filter comes later, so it can turn them on.
const SILENT: &str = "lapin=off";

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
    /// Traces can't be exported to where they should go.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT can't be used: {0}")]
    Traces(#[from] ExporterBuildError),
    /// This process logs already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Exports what is left of the traces when it is dropped: keep it until the program ends.
#[derive(Debug)]
#[must_use = "the last traces are exported when this is dropped"]
pub struct Telemetry {
    _traces: Option<Traces>,
}

/// Starts logging for the whole process, in the format and with the filter given, and the export of traces if a collector
/// is named. The filter is for both. `lapin` is silent unless the filter names it.
///
/// # Errors
/// [`TelemetryError`] when the filter can't be parsed, the endpoint can't be used, or logging was set up before. A
/// collector that can't be reached is no error: it may come later.
pub fn init(format: LogFormat, filter: &str, otlp_endpoint: Option<&Url>) -> Result<Telemetry, TelemetryError> {
    let env_filter = EnvFilter::try_new(format!("{SILENT},{filter}"))
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let traces = otlp_endpoint.map(Traces::to).transpose()?;
    let exporting = traces.as_ref().map(|traces| tracing_opentelemetry::layer().with_tracer(traces.tracer()));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(exporting).with(env_filter).try_init()?;
    Ok(Telemetry { _traces: traces })
}
