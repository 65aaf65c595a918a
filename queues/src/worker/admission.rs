//! Which of the messages that a worker holds may start now: of one key only as many as its limit allows, and where the
//! order counts one after the other. Data without I/O; the caller says what time it is.

use super::KeyLimit;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A message whose turn is further away is sent away rather than kept: its place in the prefetch is for others.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Idle keys are forgotten when there are more, and then whenever the keys have doubled.
const MANY_KEYS: usize = 1000;

pub(super) type Key = Arc<str>;

/// What holds for all keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) in_order: bool,
    pub(super) limit: KeyLimit,
    /// How many messages may wait for their turn, where they may be sent away; of one key half as many.
    pub(super) room: usize,
}

pub(super) struct Admission<M> {
    rules: Rules,
    lanes: HashMap<Key, Lane<M>>,
    /// At how many lanes the idle ones are removed.
    sweep_at: usize,
    /// Messages without a key.
    free: VecDeque<M>,
    /// Keys that may start a message, and `None` for each message without a key, in turn.
    open: VecDeque<Option<Key>>,
    /// Keys that may start one at a known time.
    timed: BTreeSet<(Instant, Key)>,
    waiting: usize,
}

struct Lane<M> {
    waiting: VecDeque<M>,
    running: usize,
    /// By its limit.
    not_before: Instant,
    /// For its first message's sake.
    held_until: Instant,
    listed: Listed,
    /// How long its jobs run, on average.
    run_time: Duration,
    /// When the last message that was sent away should come back.
    promised: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    No,
    Open,
    At(Instant),
}

/// A message that has to come again later.
#[derive(Debug)]
pub(super) struct NotNow<M> {
    pub(super) message: M,
    pub(super) delay: Duration,
}

impl<M> Admission<M> {
    pub(super) fn new(rules: Rules) -> Self {
        let (free, open) = (VecDeque::new(), VecDeque::new());
        let (lanes, sweep_at) = (HashMap::new(), MANY_KEYS);
        Self { rules, lanes, sweep_at, free, open, timed: BTreeSet::new(), waiting: 0 }
    }

    /// Takes a message in, behind all others of its key.
    ///
    /// # Errors
    /// When too many wait already. Never where the order counts.
    pub(super) fn arrive(&mut self, key: Option<&str>, message: M, now: Instant) -> Result<(), NotNow<M>> {
        let Some(key) = key else {
            self.free.push_back(message);
            self.open.push_back(None);
            return Ok(());
        };
        self.sweep(now);
        let Rules { in_order, limit, room } = self.rules;
        let key = self.lanes.get_key_value(key).map_or_else(|| Key::from(key), |(key, _)| Arc::clone(key));
        let lane = self.lanes.entry(Arc::clone(&key)).or_insert_with(|| Lane::new(now));
        if !in_order && (lane.running >= limit.concurrency || lane.not_before > now) {
            let pace = limit.spacing.max(lane.run_time / u32::try_from(limit.concurrency).unwrap_or(u32::MAX));
            let before = u32::try_from(lane.waiting.len()).unwrap_or(u32::MAX);
            let turn = lane.not_before.max(now) + pace.saturating_mul(before);
            let is_full = lane.waiting.len() >= (room / 2).max(1) || self.waiting >= room;
            if is_full || turn - now > LONGEST_WAIT {
                // One after the other, as fast as those before them will probably start.
                lane.promised = (lane.promised + pace).max(turn);
                return Err(NotNow { message, delay: lane.promised - now });
            }
        }
        lane.waiting.push_back(message);
        self.waiting += 1;
        self.list(&key, now);
        Ok(())
    }

    /// A message that may start now. Keys take turns.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Option<Key>, M)> {
        while self.wake_at().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.timed.pop_first() else { break };
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.listed = Listed::Open;
            }
            self.open.push_back(Some(key));
        }
        // The messages of a listed key may have been forgotten.
        let (key, lane, message) = loop {
            let Some(key) = self.open.pop_front()? else {
                match self.free.pop_front() {
                    Some(message) => return Some((None, message)),
                    None => continue,
                }
            };
            let lane = self.lanes.get_mut(&key)?;
            lane.listed = Listed::No;
            match lane.waiting.pop_front() {
                Some(message) => break (key, lane, message),
                None => continue,
            }
        };
        self.waiting -= 1;
        lane.running += 1;
        lane.not_before = lane.not_before.max(now);
        lane.not_before += self.rules.limit.spacing;
        self.list(&key, now);
        Some((Some(key), message))
    }

    /// A job of the key has ended after `run_time`; `again` goes first, after its delay, and nothing of its key before it.
    pub(super) fn ended(&mut self, key: &Key, run_time: Duration, again: Option<(M, Duration)>, now: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.running = lane.running.saturating_sub(1);
        lane.run_time = (lane.run_time * 3 + run_time) / 4;
        if let Some((message, delay)) = again {
            lane.waiting.push_front(message);
            lane.held_until = now + delay;
            self.waiting += 1;
        }
        self.list(key, now);
    }

    /// Not at its job's end: with a rate, a key is idle only later.
    fn sweep(&mut self, now: Instant) {
        if self.lanes.len() < self.sweep_at {
            return;
        }
        self.lanes.retain(|_, lane| !lane.is_idle(now));
        self.sweep_at = MANY_KEYS.max(self.lanes.len().saturating_mul(2));
    }

    /// When the next message may start that may not start now; nothing if that depends on a job's end.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.timed.first().map(|(at, _)| *at)
    }

    /// The messages that wait for longest, one of each key.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &M> {
        self.lanes.values().filter_map(|lane| lane.waiting.front())
    }

    /// Takes out those of the messages that wait, also held ones, that `is_gone` names.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&M) -> bool) {
        for lane in self.lanes.values_mut() {
            let before = lane.waiting.len();
            lane.waiting.retain(|message| !is_gone(message));
            self.waiting -= before - lane.waiting.len();
            if lane.waiting.is_empty() {
                lane.held_until = lane.not_before;
            }
        }
        self.free.retain(|message| !is_gone(message));
    }

    /// Takes out all messages that wait, also held ones. With `none_run` no job is left that will end.
    pub(super) fn clear(&mut self, none_run: bool) -> Vec<M> {
        let mut messages: Vec<M> = self.free.drain(..).collect();
        for lane in self.lanes.values_mut() {
            messages.extend(lane.waiting.drain(..));
            lane.listed = Listed::No;
            lane.held_until = lane.not_before;
            if none_run {
                lane.running = 0;
            }
        }
        self.open.clear();
        self.timed.clear();
        self.waiting = 0;
        messages
    }

    /// Puts the key where it is found when its next message may start.
    fn list(&mut self, key: &Key, now: Instant) {
        let concurrency = if self.rules.in_order { 1 } else { self.rules.limit.concurrency };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Listed::At(at) = lane.listed {
            self.timed.remove(&(at, Arc::clone(key)));
            lane.listed = Listed::No;
        }
        if lane.listed == Listed::Open || lane.waiting.is_empty() || lane.running >= concurrency {
            return;
        }
        let start_at = lane.not_before.max(lane.held_until);
        if start_at <= now {
            lane.listed = Listed::Open;
            self.open.push_back(Some(Arc::clone(key)));
        } else {
            lane.listed = Listed::At(start_at);
            self.timed.insert((start_at, Arc::clone(key)));
        }
    }
}

impl<M> Lane<M> {
    fn new(now: Instant) -> Self {
        let (waiting, listed) = (VecDeque::new(), Listed::No);
        Self { waiting, running: 0, not_before: now, held_until: now, listed, run_time: Duration::ZERO, promised: now }
    }

    /// One that is still listed stays: its key would be listed twice when it comes again.
    fn is_idle(&self, now: Instant) -> bool {
        let has_nothing = self.running == 0 && self.waiting.is_empty() && self.listed == Listed::No;
        has_nothing && self.not_before <= now && self.promised <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: [&str; 3] = ["a", "b", "c"];

    fn rules(in_order: bool, limit: KeyLimit) -> Rules {
        Rules { in_order, limit, room: 8 }
    }

    proptest! {
        /// Jobs of three keys arrive, start, end, and are put off, at random; then the clock goes on until all are done.
        #[test]
        fn jobs_of_a_key_run_one_by_one_in_order_also_behind_one_that_is_put_off(
            steps in proptest::collection::vec((0..4_u8, 0..3_usize, 0..500_u64), 1..200),
        ) {
            let mut admission = Admission::new(rules(true, KeyLimit::new()));
            let mut now = Instant::now();
            let (mut arrived, mut done) = ([0_u32; 3], [0_u32; 3]);
            let mut running: Vec<(Key, u32)> = Vec::new();
            let mut held: HashMap<Key, Instant> = HashMap::new();
            let mut step = |action: u8, which: usize, millis: u64, admission: &mut Admission<u32>| {
                match action {
                    0 => {
                        admission.arrive(Some(KEYS[which]), arrived[which], now).unwrap();
                        arrived[which] += 1;
                    }
                    1 => if let Some((key, message)) = admission.next(now) {
                        let key = key.unwrap();
                        assert!(running.iter().all(|(other, _)| *other != key), "two at a time");
                        assert!(held.remove(&key).is_none_or(|until| until <= now), "too early");
                        running.push((key, message));
                    },
                    2 if !running.is_empty() => {
                        let (key, message) = running.remove(which % running.len());
                        let index = KEYS.iter().position(|name| **name == *key).unwrap();
                        assert_eq!(message, done[index], "out of order");
                        if millis.is_multiple_of(3) {
                            let delay = Duration::from_millis(millis);
                            held.insert(Arc::clone(&key), now + delay);
                            admission.ended(&key, Duration::ZERO, Some((message, delay)), now);
                        } else {
                            done[index] += 1;
                            admission.ended(&key, Duration::ZERO, None, now);
                        }
                    }
                    _ => now += Duration::from_millis(millis),
                }
                (arrived, done)
            };
            for (action, which, millis) in steps {
                step(action, which, millis, &mut admission);
            }
            for round in 0.. {
                let (arrived, done) = [3, 1, 2].map(|action| step(action, 0, 1001, &mut admission))[2];
                if arrived == done {
                    break;
                }
                prop_assert!(round < 10_000, "stuck: {:?} of {:?}", done, arrived);
            }
        }

        #[test]
        fn a_key_never_has_more_than_its_limit_and_nothing_is_lost(
            arrivals in proptest::collection::vec((0..3_usize, 0..300_u64), 1..100), concurrency in 1..4_usize,
            per_second in 1..20_u32,
        ) {
            let limit = KeyLimit::new().concurrency(concurrency).rate(per_second, Duration::from_secs(1));
            let mut admission = Admission::new(rules(false, limit));
            let mut now = Instant::now();
            let (mut starts, mut running) = (HashMap::<Key, Vec<Instant>>::new(), HashMap::<Key, usize>::new());
            let (mut started, mut sent_away) = (0, 0);
            let count = arrivals.len();
            let idle = std::iter::repeat_n((usize::MAX, 200), 1000);
            for (which, millis) in arrivals.into_iter().chain(idle) {
                if let Some(key) = KEYS.get(which)
                    && admission.arrive(Some(key), (), now).is_err()
                {
                    sent_away += 1;
                }
                while let Some((key, ())) = admission.next(now) {
                    let key = key.unwrap();
                    *running.entry(Arc::clone(&key)).or_default() += 1;
                    prop_assert!(running[&key] <= concurrency);
                    starts.entry(key).or_default().push(now);
                    started += 1;
                }
                now += Duration::from_millis(millis);
                // Each key's oldest job ends at every second step.
                for key in starts.keys().filter(|_| millis % 2 == 0) {
                    if let Some(count @ 1..) = running.get_mut(key) {
                        *count -= 1;
                        admission.ended(key, Duration::from_millis(50), None, now);
                    }
                }
            }
            prop_assert_eq!(started + sent_away, count);
            for times in starts.values() {
                prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= limit.spacing));
            }
        }
    }

    #[test]
    fn what_has_no_room_is_sent_away_for_as_long_as_those_before_it_need() {
        let mut admission = Admission::new(rules(false, KeyLimit::new().rate(1, Duration::from_secs(1))));
        let now = Instant::now();
        let mut delays = Vec::new();
        for number in 0..8 {
            if let Err(NotNow { delay, .. }) = admission.arrive(Some("a"), number, now) {
                delays.push(delay.as_secs());
            }
            admission.next(now);
        }
        // One has started, four wait for the seconds 1 to 4.
        assert_eq!(delays, [5, 6, 7]);
        assert!(admission.arrive(Some("b"), 8, now).is_ok(), "another key is held up");
        assert_eq!(admission.next(now).map(|(_, number)| number), Some(8));
    }

    #[test]
    fn the_first_that_is_sent_away_comes_back_for_the_next_start_and_each_later_one_a_slot_later() {
        let mut admission = Admission::new(rules(false, KeyLimit::new().rate(1, Duration::from_secs(60))));
        let now = Instant::now();
        admission.arrive(Some("a"), 0, now).unwrap();
        admission.next(now).unwrap();
        let delays = [1, 2].map(|number| admission.arrive(Some("a"), number, now).unwrap_err().delay.as_secs());
        assert_eq!(delays, [60, 120]);
    }

    #[test]
    fn keys_that_never_come_again_are_forgotten_although_their_jobs_ended_before_the_next_might_start() {
        let mut admission = Admission::new(rules(false, KeyLimit::new().rate(1, Duration::from_secs(1))));
        let mut now = Instant::now();
        for number in 0..20 * MANY_KEYS {
            admission.arrive(Some(&number.to_string()), (), now).unwrap();
            let (key, ()) = admission.next(now).unwrap();
            admission.ended(&key.unwrap(), Duration::ZERO, None, now);
            now += Duration::from_millis(10);
        }
        assert!(admission.lanes.len() <= 2 * MANY_KEYS, "{} keys are kept", admission.lanes.len());
    }

    #[test]
    fn what_is_forgotten_stops_neither_its_key_nor_others() {
        let mut admission = Admission::new(rules(true, KeyLimit::new()));
        let now = Instant::now();
        for (key, message) in [(Some("a"), 1), (None, 2), (Some("b"), 3), (Some("a"), 4), (None, 5)] {
            admission.arrive(key, message, now).unwrap();
        }
        let (a, held) = (admission.next(now).unwrap().0.unwrap(), Duration::from_secs(60));
        admission.ended(&a, Duration::ZERO, Some((1, held)), now);
        admission.forget(|message| [1, 2, 4].contains(message));
        admission.arrive(Some("a"), 6, now).unwrap();
        let order: BTreeSet<i32> = std::iter::from_fn(|| admission.next(now)).map(|(_, message)| message).collect();
        assert_eq!(order, [3, 5, 6].into());
    }

    #[test]
    fn messages_without_a_key_take_turns_with_keys() {
        let mut admission = Admission::new(rules(true, KeyLimit::new()));
        let now = Instant::now();
        for (key, message) in [(Some("a"), 1), (None, 2), (Some("a"), 3), (Some("b"), 4), (None, 5)] {
            admission.arrive(key, message, now).unwrap();
        }
        let order: Vec<i32> = std::iter::from_fn(|| admission.next(now)).map(|(_, message)| message).collect();
        assert_eq!(order, [1, 2, 4, 5]);
        admission.ended(&Key::from("a"), Duration::ZERO, None, now);
        assert_eq!(admission.next(now).map(|(_, message)| message), Some(3));
    }
}
