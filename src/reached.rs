//! Marks the rare places on the way of a refund. The tests and `./dev chaos` together must reach every one of them, or `./dev check`
//! fails: a test that never gets there shows nothing.

/// Says that this place was reached: an event at TRACE under the target `reached`, which nobody hears who does not ask for it
/// (`RUST_LOG=info,reached=trace`). Takes the place's name.
macro_rules! reached {
    ($name:literal) => {
        tracing::trace!(target: "reached", $name)
    };
}

pub(crate) use reached;
