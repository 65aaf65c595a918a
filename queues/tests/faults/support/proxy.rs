//! A network that breaks: a TCP proxy in front of a broker. Connections break after a number of bytes that chance says, as
//! long as there are faults left; later ones live.

use super::{PATIENCE, Random};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};
use url::Url;

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both sides get a reset.
    Cut,
    /// Nothing more comes through, in either direction, and nobody is told.
    Stall,
    /// The client is told that there is nothing more to read; what it writes still arrives.
    HalfCloseToClient,
    /// The broker is told so; what it writes still arrives.
    HalfCloseToBroker,
}

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::Stall, Fault::HalfCloseToClient, Fault::HalfCloseToBroker];
/// Less than the load is, for certain; more than a handshake, mostly.
const BYTES_UNTIL_A_FAULT: u64 = 200_000;

pub(crate) struct Proxy {
    /// The broker's URL, through the proxy.
    pub(crate) url: String,
    plan: Arc<Plan>,
    task: JoinHandle<()>,
}

struct Plan {
    /// The first that accepts is taken.
    upstreams: Vec<String>,
    /// Still to come, the next one last, with the number of bytes after which it does.
    faults: Mutex<Vec<(Fault, u64)>>,
    /// How many have not happened yet.
    left: watch::Sender<usize>,
}

impl Proxy {
    /// `rounds` times each kind of fault, in an order and at places that `random` decides.
    pub(crate) async fn start(broker_url: &str, rounds: usize, random: Random) -> Self {
        Self::in_front_of(&[broker_url.to_owned()], rounds, random).await
    }

    /// In front of several brokers, whose users are the same.
    pub(crate) async fn in_front_of(broker_urls: &[String], rounds: usize, mut random: Random) -> Self {
        let mut faults: Vec<Fault> = FAULTS.into_iter().cycle().take(rounds * FAULTS.len()).collect();
        for place in (1..faults.len()).rev() {
            faults.swap(place, random.below(place as u64 + 1) as usize);
        }
        let faults: Vec<_> = faults.into_iter().map(|fault| (fault, random.below(BYTES_UNTIL_A_FAULT))).collect();
        let upstreams = broker_urls.iter().map(|url| {
            let url = Url::parse(url).unwrap();
            format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672))
        });
        let upstreams = upstreams.collect();
        let mut url = Url::parse(&broker_urls[0]).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(address.port())).unwrap();
        let left = watch::Sender::new(faults.len());
        let plan = Arc::new(Plan { upstreams, faults: Mutex::new(faults), left });
        let serving = Arc::clone(&plan);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&serving).connection(client));
            }
        });
        Self { url: url.to_string(), plan, task }
    }

    /// Waits until all faults have happened. Under a load that does not end before, they do.
    pub(crate) async fn all_happened(&self) {
        self.plan.left.subscribe().wait_for(|left| *left == 0).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plan {
    async fn connection(self: Arc<Self>, client: TcpStream) {
        let mut accepted = None;
        for upstream in &self.upstreams {
            if accepted.is_none() {
                accepted = TcpStream::connect(upstream).await.ok();
            }
        }
        // All may be away: then this connection ends at once.
        let Some(broker) = accepted else { return };
        let planned = self.faults.lock().unwrap().pop();
        let (limit, passed) = (planned.map_or(u64::MAX, |(_, bytes)| bytes), AtomicU64::new(0));
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_broker, mut to_broker) = broker.into_split();
        let broken = Notify::new();
        let ended_by_itself = {
            let up = forward(&mut from_client, &mut to_broker, &passed, limit, &broken);
            let down = forward(&mut from_broker, &mut to_client, &passed, limit, &broken);
            select! {
                () = up => true,
                () = down => true,
                () = broken.notified() => false,
            }
        };
        let Some((fault, bytes)) = planned else { return };
        // One that was planned for a connection that ended before is the next one's.
        if ended_by_itself {
            self.faults.lock().unwrap().push((fault, bytes));
            return;
        }
        self.left.send_modify(|left| *left -= 1);
        let (free, never) = (AtomicU64::new(0), Notify::new());
        match fault {
            Fault::Cut => {
                let (client, broker) =
                    (from_client.reunite(to_client).unwrap(), from_broker.reunite(to_broker).unwrap());
                client.set_zero_linger().unwrap();
                broker.set_zero_linger().unwrap();
            }
            Fault::Stall => {
                // Both sides are left alone with their ends for longer than the test lasts.
                sleep(PATIENCE).await;
            }
            Fault::HalfCloseToClient => {
                let _ = to_client.shutdown().await;
                forward(&mut from_client, &mut to_broker, &free, u64::MAX, &never).await;
            }
            Fault::HalfCloseToBroker => {
                let _ = to_broker.shutdown().await;
                forward(&mut from_broker, &mut to_client, &free, u64::MAX, &never).await;
            }
        }
    }
}

/// Until one side ends; says `broken` when `limit` bytes have passed, in both directions together.
async fn forward(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, passed: &AtomicU64, limit: u64, broken: &Notify) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if passed.fetch_add(count as u64, Ordering::Relaxed) + count as u64 > limit {
            broken.notify_one();
            return std::future::pending().await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
