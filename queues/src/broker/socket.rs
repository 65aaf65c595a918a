//! The TCP connection under an AMQP connection that is being made, so that it can be ended from outside: a peer that accepts
//! and then says nothing would keep lapin's thread, and the socket, for ever. Used by `connection` alone. It has nothing to
//! do with an AMQP connection that is there.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Ends the socket that it holds when it is dropped, unless it was told to keep it.
pub(super) struct Socket(Held);

/// The other end, for whoever opens the socket.
#[derive(Clone)]
pub(super) struct Held(Arc<Mutex<State>>);

enum State {
    /// The socket, a second handle of it, once it is open.
    Connecting(Option<TcpStream>),
    Kept,
    GivenUp,
}

impl Socket {
    pub(super) fn new() -> Self {
        Self(Held(Arc::new(Mutex::new(State::Connecting(None)))))
    }

    pub(super) fn held(&self) -> Held {
        self.0.clone()
    }

    /// The AMQP connection is there, and owns its socket alone.
    pub(super) fn keep(self) {
        *self.0.state() = State::Kept;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Connecting(socket) = &*state {
            // An error means that it has ended already.
            let _ = socket.as_ref().map(|socket| socket.shutdown(Shutdown::Both));
            *state = State::GivenUp;
        }
    }
}

impl Held {
    /// # Errors
    /// When the connection has been given up, so that its socket must be dropped; or there are no handles left.
    pub(super) fn hold(&self, socket: &tokio::net::TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if !matches!(*state, State::Connecting(_)) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = State::Connecting(Some(second_handle(socket)?));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn second_handle(socket: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::fd::AsFd;
    Ok(socket.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn second_handle(socket: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::windows::io::AsSocket;
    Ok(socket.as_socket().try_clone_to_owned()?.into())
}
