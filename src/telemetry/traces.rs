//! Traces, exported as OTLP over HTTP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set. A collector that is away costs the spans alone.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use url::Url;

const SERVICE: &str = "clawback";
/// For one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Exports spans in batches. What is left is sent when it is dropped, which takes as long as the collector, at most the
/// timeout.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports to `endpoint`, the base URL of a collector; the path `/v1/traces` is added, as OpenTelemetry asks for.
    pub(super) fn to(endpoint: &Url) -> Result<Self, ExporterBuildError> {
        // An error only says that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url(endpoint))
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let resource = Resource::builder().with_service_name(SERVICE).build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer(SERVICE)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last traces could not be exported");
        }
    }
}

fn traces_url(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}
