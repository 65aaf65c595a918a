//! A network between the library and a healthy broker that cuts, stalls and half-closes connections.

use crate::support::{Place, Proxy, Random, handled_everything, shared_broker};

#[tokio::test]
async fn nothing_is_lost_in_a_network_that_cuts_stalls_and_half_closes_connections() {
    let broker = shared_broker();
    let proxy = Proxy::start(&broker, 2, Random::seeded()).await;
    // So that a stalled connection is noticed within seconds.
    let url = format!("{}?heartbeat=1&connection_timeout=2000", proxy.url);
    Place::run(&url, &broker, async |place| {
        handled_everything(&place, async |_| proxy.all_happened().await).await;
    })
    .await;
}
