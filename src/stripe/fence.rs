//! A request body that is not sent once its time is over: a process may be suspended between its check and its request, and
//! Stripe executes no request without its body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A form, and until when it may be written.
pub(super) struct Fenced {
    form: Option<Bytes>,
    until: Option<Instant>,
}

/// Nothing was sent: too much time has passed.
#[derive(Debug, thiserror::Error)]
#[error("too much time passed since the call was checked, so it was not sent")]
pub(super) struct TooLate;

impl Fenced {
    pub(super) fn new(form: &[(&'static str, String)], until: Option<Instant>) -> Self {
        let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Self { form: Some(Bytes::from(encoded)), until }
    }
}

impl Body for Fenced {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        if self.form.is_some() && self.until.is_some_and(|until| Instant::now() > until) {
            return Poll::Ready(Some(Err(TooLate)));
        }
        Poll::Ready(self.form.take().map(|form| Ok(Frame::data(form))))
    }

    fn is_end_stream(&self) -> bool {
        self.form.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.form.as_ref().map_or(0, |form| form.len() as u64))
    }
}
