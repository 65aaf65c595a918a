//! What a simulator starts with, and its start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::limiter::Limiter;
use crate::operations::{add_transfer, seed_transfers};
use crate::server;
use crate::sim::Sim;
use crate::spec::TransferSpec;
use crate::state::{Shared, State};

/// What a simulator starts with.
#[derive(Debug)]
pub struct Builder {
    state: State,
    listen: SocketAddr,
    transfers: Vec<TransferSpec>,
    seed: (u32, i64),
}

impl Default for Builder {
    fn default() -> Builder {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        Builder { state: State::default(), listen, transfers: Vec::new(), seed: (0, 1) }
    }
}

impl Builder {
    /// Where to listen, instead of a free port of the loopback.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.listen = address;
        self
    }

    /// A transfer that is there from the start.
    #[must_use]
    pub fn transfer(mut self, transfer: TransferSpec) -> Builder {
        self.transfers.push(transfer);
        self
    }

    /// As [`Sim::allow_keys`].
    #[must_use]
    pub fn allow_keys<'a>(mut self, keys: impl IntoIterator<Item = &'a str>) -> Builder {
        self.state.api_keys = Some(keys.into_iter().map(str::to_owned).collect());
        self
    }

    /// As [`Sim::set_rate_limit`].
    #[must_use]
    pub fn rate_limit(mut self, per_second: u32) -> Builder {
        self.state.limiter = Some(Limiter::new(per_second, self.state.clock.now()));
        self
    }

    /// As [`Sim::set_list_lag`].
    #[must_use]
    pub fn list_lag(mut self, lag: Duration) -> Builder {
        self.state.list_lag = lag;
        self
    }

    /// As [`Sim::seed_transfers`].
    #[must_use]
    pub fn seed_transfers(mut self, count: u32, amount: i64) -> Builder {
        self.seed = (count, amount);
        self
    }

    /// As [`Sim::set_null_metadata`].
    #[must_use]
    pub fn null_metadata(mut self) -> Builder {
        self.state.null_metadata = true;
        self
    }

    /// Keeps only the newest requests in the ledger: at least so many, and at most twice as many. By default it keeps all.
    #[must_use]
    pub fn log_limit(mut self, requests: usize) -> Builder {
        self.state.log_limit = requests;
        self
    }

    /// Keeps no requests in the ledger, which only counts them then.
    #[must_use]
    pub fn no_log(self) -> Builder {
        self.log_limit(0)
    }

    /// Starts it in the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime, when the address is taken, and when two transfers have one id.
    #[must_use]
    #[expect(clippy::panic, reason = "for tests, which can't go on without it; `try_start` is for programs")]
    pub fn start(self) -> Sim {
        match self.try_start() {
            Ok(sim) => sim,
            Err(error) => panic!("the simulator can't start: {error}"),
        }
    }

    /// Starts it in the current tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, and when two transfers have one id.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn try_start(mut self) -> io::Result<Sim> {
        for transfer in self.transfers {
            add_transfer(&mut self.state, transfer).map_err(io::Error::other)?;
        }
        let (count, amount) = self.seed;
        seed_transfers(&mut self.state, count, amount).map_err(io::Error::other)?;
        let listener = std::net::TcpListener::bind(self.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared::new(self.state));
        let server = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Sim { shared, address, server })
    }
}
