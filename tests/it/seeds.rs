//! Money moves once, whatever happens: random refunds, faults, deaths and duplicates, from a seed.
//!
//! The Stripe step runs for real (SQLite, HTTP, the simulator); the broker is played by the test, so that it can deliver
//! early, twice, late or never, and kill the worker at any await. A failing seed prints the command that repeats it.

mod world;

use futures_util::{StreamExt, stream};

use crate::support::list_what_is_reached;
use world::World;

/// How many seeds one run tries, and from which; `SEEDS` and `SEEDS_FROM` change that.
const SEEDS: u64 = 200;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_every_seed_our_ledger_and_stripes_agree_and_nothing_is_reversed_twice() {
    list_what_is_reached();
    let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (from, count) = (number("SEEDS_FROM", 0), number("SEEDS", SEEDS));
    let outcomes = stream::iter(from..from + count).map(|seed| async move {
        let result = tokio::spawn(async move {
            let mut world = World::create(seed).await;
            world.live().await;
            world.end().await;
            world.remove().await;
        });
        (seed, result.await.is_ok())
    });
    let failed = outcomes.buffer_unordered(AT_ONCE).filter(|(_, is_well)| std::future::ready(!is_well));
    let failed: Vec<u64> = failed.map(|(seed, _)| seed).collect().await;
    assert!(failed.is_empty(), "seeds {failed:?} failed; repeat one with: ./dev seeds --from SEED --count 1");
}
