//! Three nodes on loopback, one of which is killed under load and comes back: `./dev cluster-test`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod own_cluster;
#[path = "../faults/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the fault tests, which need more of it")]
mod support;

use own_cluster::OwnCluster;
use std::time::Duration;
use support::{Place, Proxy, Random, handled_everything};
use tokio::time::{Instant, timeout};

/// How long 5000 jobs may take while a node is away: seconds for the election of the queues' new leaders, the rest for a slow
/// machine.
const WITHOUT_A_NODE: Duration = Duration::from_secs(60);

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what it measures is part of its result")]
async fn nothing_is_lost_when_a_node_of_a_cluster_is_killed_under_load_and_comes_back() {
    let cluster = OwnCluster::start().await;
    // As a load balancer would: to the first node, as long as that is there.
    let proxy = Proxy::in_front_of(&cluster.urls, 0, Random::seeded()).await;
    let started = Instant::now();
    let told =
        |what: &str, confirmed: u32, since: Duration| println!("{since:>8.1?} {what}, {confirmed} jobs are confirmed");
    Place::run(&proxy.url, &proxy.url, async |place| {
        handled_everything(&place, async |mut confirmed| {
            let at_least = async |confirmed: &mut tokio::sync::watch::Receiver<u32>, count: u32| {
                *confirmed.wait_for(|confirmed| *confirmed >= count).await.unwrap()
            };
            let before = at_least(&mut confirmed, 3000).await;
            told("killing the first node", before, started.elapsed());
            cluster.kill_first().await;
            let went_on = timeout(WITHOUT_A_NODE, at_least(&mut confirmed, before + 5000)).await;
            let without = went_on.expect("two nodes of three must take jobs while the third is away");
            told("two nodes have gone on", without, started.elapsed());
            cluster.start_first_again().await;
            let again = at_least(&mut confirmed, without + 5000).await;
            told("the first node is back", again, started.elapsed());
        })
        .await;
        println!("{:>8.1?} every job has been handled, and nothing is left", started.elapsed());
    })
    .await;
}
