//! A request body that is not sent once its time is over: a process may be suspended between its check and its request, and
//! Stripe executes no request without its body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Until when a request may be written, by two clocks: Linux's monotonic one stands still while a machine sleeps, and the other
/// one is set now and then.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteBy {
    monotonic: Instant,
    wall: SystemTime,
}

impl WriteBy {
    /// From now on.
    pub(super) fn within(time: Duration) -> Self {
        Self { monotonic: Instant::now() + time, wall: SystemTime::now() + time }
    }

    fn has_passed(self) -> bool {
        Instant::now() > self.monotonic || SystemTime::now() > self.wall
    }
}

/// A form, and until when it may be written.
pub(super) struct Fenced {
    form: Option<Bytes>,
    until: Option<WriteBy>,
}

/// Nothing was sent: too much time has passed.
#[derive(Debug, thiserror::Error)]
#[error("too much time passed since the call was checked, so it was not sent")]
pub(super) struct TooLate;

impl Fenced {
    pub(super) fn new(form: &[(&'static str, String)], until: Option<WriteBy>) -> Self {
        let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Self { form: Some(Bytes::from(encoded)), until }
    }
}

impl Body for Fenced {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        if self.form.is_some() && self.until.is_some_and(WriteBy::has_passed) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_written(until: WriteBy) -> bool {
        let mut body = Fenced::new(&[("amount", "100".to_owned())], Some(until));
        let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        matches!(frame, Poll::Ready(Some(Ok(_))))
    }

    #[test]
    fn nothing_is_written_once_either_clock_has_passed_the_time() {
        let in_time = WriteBy::within(Duration::from_secs(3_600));
        assert!(is_written(in_time));
        // The machine has slept: only the wall clock went on.
        assert!(!is_written(WriteBy { wall: SystemTime::now() - Duration::from_secs(1), ..in_time }));
        // The wall clock was set back meanwhile.
        assert!(!is_written(WriteBy { monotonic: Instant::now() - Duration::from_millis(1), ..in_time }));
    }
}
