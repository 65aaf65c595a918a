//! Why talking to the broker failed. No text here ever holds the URL or its password.

/// A broker that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The URL is not one of a broker. The text says what is wrong with it, and does not repeat it: it may hold a password.
    #[error("the AMQP URL is not usable: {problem}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST (or amqps://)")]
    Url {
        /// What is wrong.
        problem: String,
    },
    /// There is no connection, or it was lost on the way: try again.
    #[error("the broker at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the operating system or the broker said.
        reason: String,
    },
    /// The broker knows the user, the vhost or the permission not: trying again does not help.
    #[error(
        "the broker at {address} refused us: {reply}; check the user, its password and its permissions on the vhost"
    )]
    Refused {
        /// Host and port.
        address: String,
        /// The broker's reply.
        reply: String,
    },
    /// A queue or the exchange exists and is not as wanted. The broker's reply names the argument that differs.
    #[error(
        "{object} exists and is declared otherwise: {reply}; nothing was changed: drain and delete it, or use another name"
    )]
    Mismatch {
        /// Which one: ``queue `NAME` `` or ``exchange `NAME` ``.
        object: String,
        /// The broker's reply.
        reply: String,
    },
}
