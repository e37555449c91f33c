//! One priority level: its seats, who sits and who waits. Waiting requests stand in several queues; a flow is dealt a
//! hand of them by its hash and stands in the shortest (shuffle sharding, apiserver/pkg/util/shufflesharding), so that a
//! greedy flow fills few of the queues of others. The queues are served in the order of virtual start times, which gives
//! each the same share.
use crate::{Object, deadline::Deadline};
use event_listener::Event;
use futures_lite::FutureExt as _;
use http::HeaderValue;
use mote_schema::Order as _;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::Refused;

/// Bounds of what an object may ask for; upstream's validation has the first, and the second keeps a typing error from
/// filling memory.
const MAX_QUEUES: usize = 1024;
const MAX_QUEUE_LENGTH: usize = 10_000;
const MAX_HAND: usize = 16;

/// What the object says, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    exempt: bool,
    nominal: usize,
    /// Of the nominal seats, those that others may use.
    lendable: usize,
    /// Seats of others that it may use.
    borrowable: usize,
    /// 0: no waiting.
    queues: usize,
    hand: usize,
    length: usize,
    total: usize,
}

impl Limits {
    fn part(level: &Object) -> (bool, &'static str) {
        let exempt = level.root().at("spec.type").str() == "Exempt";
        (exempt, if exempt { "exempt" } else { "limited" })
    }

    pub fn shares(level: &Object) -> u64 {
        let (exempt, part) = Limits::part(level);
        let shares = level.root().get("spec").get(part).get("nominalConcurrencyShares").as_i64();
        shares.and_then(|shares| u64::try_from(shares).ok()).unwrap_or(if exempt { 0 } else { 30 })
    }

    /// `total` seats are dealt by shares, rounded up.
    pub fn read(level: &Object, total: usize, all_shares: u64) -> Limits {
        let (exempt, part) = Limits::part(level);
        let spec = level.root().get("spec").get(part);
        let number = |path: &str| spec.at(path).as_i64().and_then(|number| usize::try_from(number).ok());
        let dealt = (total as u128 * u128::from(Limits::shares(level))).div_ceil(u128::from(all_shares.max(1)));
        let nominal = usize::try_from(dealt).unwrap_or(usize::MAX);
        let percent = |percent: usize| usize::try_from(nominal as u128 * percent as u128 / 100).unwrap_or(usize::MAX);
        let queues = match spec.at("limitResponse.type").str() {
            "Queue" => number("limitResponse.queuing.queues").unwrap_or(64).clamp(1, MAX_QUEUES),
            _ => 0,
        };
        Limits {
            exempt,
            nominal,
            lendable: percent(number("lendablePercent").unwrap_or(0)).min(nominal),
            borrowable: number("borrowingLimitPercent").map_or(usize::MAX, percent),
            queues,
            hand: number("limitResponse.queuing.handSize").unwrap_or(8).clamp(1, MAX_HAND.min(queues.max(1))),
            length: number("limitResponse.queuing.queueLengthLimit").unwrap_or(50).clamp(1, MAX_QUEUE_LENGTH),
            total,
        }
    }
}

pub struct Level {
    pub name: Box<str>,
    state: Mutex<State>,
}

struct State {
    uid: HeaderValue,
    limits: Limits,
    executing: usize,
    waiting: usize,
    /// Empty while nobody waits.
    queues: Vec<Queue>,
    /// Virtual time: the start of the request that was served last.
    now: u64,
    dispatched: u64,
    queue_full: u64,
    no_seat: u64,
    timed_out: u64,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Arc<Waiter>>,
    /// When the first of it starts, in virtual time.
    start: u64,
}

struct Waiter {
    /// Under the level's lock: it has a seat.
    seated: Mutex<bool>,
    changed: Event,
}

/// A seat, given back when dropped.
pub struct Ticket {
    level: Arc<Level>,
    all: Arc<Vec<Arc<Level>>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.level.state();
        state.executing = state.executing.saturating_sub(1);
        drop(state);
        // Whoever waits may get the seat: first those of this level, then those who would borrow it.
        for level in std::iter::once(&self.level).chain(self.all.iter()) {
            level.dispatch(&self.all);
        }
    }
}

impl Level {
    pub fn new(name: &str) -> Level {
        let state = State {
            uid: HeaderValue::from_static(""),
            limits: Limits::default(),
            executing: 0,
            waiting: 0,
            queues: Vec::new(),
            now: 0,
            dispatched: 0,
            queue_full: 0,
            no_seat: 0,
            timed_out: 0,
        };
        Level { name: name.into(), state: Mutex::new(state) }
    }

    pub fn set(&self, limits: Limits, uid: &str) {
        let mut state = self.state();
        state.limits = limits;
        state.uid = HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn uid(&self) -> HeaderValue {
        self.state().uid.clone()
    }
    pub fn nominal(&self) -> u64 {
        self.state().limits.nominal as u64
    }
    pub fn executing(&self) -> u64 {
        self.state().executing as u64
    }
    pub fn waiting(&self) -> u64 {
        self.state().waiting as u64
    }
    pub fn dispatched(&self) -> u64 {
        self.state().dispatched
    }
    /// By upstream's reasons.
    pub fn rejected(&self) -> [(&'static str, u64); 3] {
        let state = self.state();
        [("queue-full", state.queue_full), ("concurrency-limit", state.no_seat), ("time-out", state.timed_out)]
    }

    /// May a level that is full take one more? What others use or keep for themselves is counted; no two levels are
    /// locked at once.
    fn may_borrow(&self, limits: Limits, executing: usize, all: &[Arc<Level>]) -> bool {
        if executing >= limits.nominal.saturating_add(limits.borrowable) {
            return false;
        }
        let others = all.iter().filter(|level| level.name != self.name).map(|level| {
            let state = level.state();
            let kept = state.limits.nominal - state.limits.lendable.min(state.limits.nominal);
            if state.limits.exempt { kept } else { kept.max(state.executing) }
        });
        let taken = others.fold(executing, usize::saturating_add);
        taken < limits.total
    }

    /// A seat now, or after a wait of at most `limit`; `flow` tells the flow's hash when it has to wait.
    pub async fn take(
        level: &Arc<Level>,
        all: &Arc<Vec<Arc<Level>>>,
        flow: impl FnOnce() -> u64,
        limit: Duration,
    ) -> Result<Ticket, Refused> {
        let ticket = || Ticket { level: level.clone(), all: all.clone() };
        let (limits, executing, waiting) = {
            let mut state = level.state();
            if state.limits.exempt || state.waiting == 0 && state.executing < state.limits.nominal {
                state.executing += 1;
                state.dispatched += 1;
                drop(state);
                return Ok(ticket());
            }
            (state.limits, state.executing, state.waiting)
        };
        if waiting == 0 && level.may_borrow(limits, executing, all) {
            let mut state = level.state();
            state.executing += 1;
            state.dispatched += 1;
            drop(state);
            return Ok(ticket());
        }
        let waiter = level.state().enqueue(flow())?;
        let mut place = Place { level, all, waiter: &waiter, left: false };
        // A seat may have become free since it was asked for.
        level.dispatch(all);
        let seated = async {
            loop {
                let changed = waiter.changed.listen();
                if waiter.is_seated() {
                    return true;
                }
                changed.await;
            }
        };
        let late = async {
            Deadline::after(limit).await;
            false
        };
        if seated.or(late).await {
            place.left = true;
            return Ok(ticket());
        }
        level.state().timed_out += 1;
        Err(Refused)
    }

    /// Seats those who wait as long as there are seats.
    fn dispatch(&self, all: &[Arc<Level>]) {
        loop {
            let (limits, executing) = {
                let state = self.state();
                if state.waiting == 0 {
                    return;
                }
                (state.limits, state.executing)
            };
            if !limits.exempt && executing >= limits.nominal && !self.may_borrow(limits, executing, all) {
                return;
            }
            let Some(waiter) = self.state().next() else { return };
            waiter.changed.notify(1);
        }
    }
}

/// Somebody who waits; one who gives up leaves the queue, or gives the seat on that came at the same moment.
struct Place<'a> {
    level: &'a Arc<Level>,
    all: &'a Arc<Vec<Arc<Level>>>,
    waiter: &'a Arc<Waiter>,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut state = self.level.state();
        if !self.waiter.is_seated() {
            return state.leave(self.waiter);
        }
        drop(state);
        drop(Ticket { level: self.level.clone(), all: self.all.clone() });
    }
}

impl Waiter {
    fn is_seated(&self) -> bool {
        *self.seated.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn enqueue(&mut self, flow: u64) -> Result<Arc<Waiter>, Refused> {
        let Limits { queues, hand, length, .. } = self.limits;
        if queues == 0 {
            self.no_seat += 1;
            return Err(Refused);
        }
        if self.queues.len() < queues {
            self.queues.resize_with(queues, Queue::default);
        }
        let dealt = deal(flow, queues, hand);
        let shortest =
            dealt.into_iter().take(hand).min_by_key(|at| self.queues.get(*at).map(|queue| queue.waiters.len()));
        let queue = shortest.and_then(|at| self.queues.get_mut(at)).filter(|queue| queue.waiters.len() < length);
        let Some(queue) = queue else {
            self.queue_full += 1;
            return Err(Refused);
        };
        if queue.waiters.is_empty() {
            queue.start = queue.start.max(self.now);
        }
        let waiter = Arc::new(Waiter { seated: Mutex::new(false), changed: Event::new() });
        queue.waiters.push_back(waiter.clone());
        self.waiting += 1;
        Ok(waiter)
    }

    /// Seats the first of the queue whose turn it is.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        let queue = self.queues.iter_mut().filter(|queue| !queue.waiters.is_empty()).min_by_key(|queue| queue.start)?;
        let waiter = queue.waiters.pop_front()?;
        self.now = queue.start;
        queue.start += 1;
        *waiter.seated.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.executing += 1;
        self.dispatched += 1;
        self.left();
        Some(waiter)
    }

    fn leave(&mut self, waiter: &Arc<Waiter>) {
        for queue in &mut self.queues {
            if let Some(at) = queue.waiters.iter().position(|known| Arc::ptr_eq(known, waiter)) {
                queue.waiters.remove(at);
                self.left();
                return;
            }
        }
    }

    fn left(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.queues = Vec::new();
            self.now = 0;
        }
    }
}

/// `hand` different queues out of `queues`, by the hash alone (shufflesharding.Dealer).
fn deal(hash: u64, queues: usize, hand: usize) -> [usize; MAX_HAND] {
    let mut dealt = [0; MAX_HAND];
    let mut rest = hash;
    for at in 0..hand.min(MAX_HAND).min(queues) {
        let left = (queues - at) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        // The card's number among those that are left: past each smaller one that is gone.
        let mut gone = dealt;
        gone[..at].order();
        for earlier in &gone[..at] {
            if card >= *earlier {
                card += 1;
            }
        }
        dealt[at] = card;
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    fn level(name: &str, limits: Limits) -> Arc<Level> {
        let level = Level::new(name);
        level.set(limits, "uid");
        Arc::new(level)
    }

    const LONG: Duration = Duration::from_secs(3600);
    const QUEUED: Limits =
        Limits { exempt: false, nominal: 1, lendable: 0, borrowable: 0, queues: 8, hand: 2, length: 2, total: 10 };

    fn now(level: &Arc<Level>, all: &Arc<Vec<Arc<Level>>>) -> Option<Result<Ticket, Refused>> {
        block_on(poll_once(pin!(Level::take(level, all, || 7, LONG))))
    }

    #[test]
    fn hands_are_dealt_without_doubles() {
        for (queues, hand) in [(64, 6), (128, 6), (16, 4), (4, 4), (1, 1)] {
            for hash in 0..2000u64 {
                let dealt = deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), queues, hand);
                let mut hand: Vec<usize> = dealt[..hand].to_vec();
                hand.order();
                let count = hand.len();
                hand.dedup();
                assert!(hand.len() == count && hand.iter().all(|at| *at < queues), "{hash} {hand:?}");
            }
        }
    }

    /// Polls; one that has its seat gives it on at once.
    fn one_waits(one: &mut std::pin::Pin<Box<impl Future<Output = Result<Ticket, Refused>>>>) -> bool {
        block_on(poll_once(one)).is_none()
    }

    #[test]
    fn seats_queues_and_refusals() {
        let level = level("a", QUEUED);
        let all = Arc::new(vec![level.clone()]);
        let first = now(&level, &all).unwrap().ok().unwrap();
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(Level::take(&level, &all, || 7, LONG))).collect();
        let mut answers: Vec<Option<bool>> = Vec::new();
        for one in &mut waiting {
            answers.push(block_on(poll_once(one)).map(|answer| answer.is_ok()));
        }
        // A hand of two queues of two: four wait, the fifth is refused.
        assert_eq!(answers, [None, None, None, None, Some(false)]);
        assert_eq!((level.executing(), level.waiting(), level.rejected()[0].1), (1, 4, 1));
        drop(first);
        assert_eq!((level.executing(), level.waiting()), (1, 3));
        // Which of the two queues comes first is theirs to say.
        let seated = waiting[..2].iter_mut().position(|one| !one_waits(one)).unwrap();
        assert_eq!((level.executing(), level.waiting()), (1, 2));
        // Who goes away makes room; who was seated and goes away gives the seat on.
        drop(waiting.remove(1 - seated));
        assert_eq!(level.waiting(), 1);
        drop(waiting);
        assert_eq!((level.executing(), level.waiting()), (0, 0));
    }

    #[test]
    fn a_wait_has_an_end() {
        let level = level("a", QUEUED);
        let all = Arc::new(vec![level.clone()]);
        let _held = now(&level, &all).unwrap().ok().unwrap();
        let late = block_on(Level::take(&level, &all, || 7, Duration::from_millis(5)));
        assert!(late.is_err());
        assert_eq!((level.executing(), level.waiting(), level.rejected()[2].1), (1, 0, 1));
    }

    #[test]
    fn seats_are_lent() {
        let lender = level("a", Limits { nominal: 4, lendable: 2, ..QUEUED });
        let borrower = level("b", Limits { nominal: 1, borrowable: 3, queues: 0, total: 5, ..QUEUED });
        let all = Arc::new(vec![lender.clone(), borrower.clone()]);
        let mut held: Vec<Ticket> = Vec::new();
        while let Some(Ok(ticket)) = now(&borrower, &all) {
            held.push(ticket);
        }
        // Its own one, and the two that may be lent.
        assert_eq!(held.len(), 3);
        held.clear();
        let _lenders: Vec<_> = (0..3).map(|_| now(&lender, &all).unwrap().ok().unwrap()).collect();
        while let Some(Ok(ticket)) = now(&borrower, &all) {
            held.push(ticket);
        }
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn a_quiet_flow_does_not_wait_for_a_greedy_one() {
        let level = level("a", Limits { hand: 1, length: 50, ..QUEUED });
        let all = Arc::new(vec![level.clone()]);
        let mut seat = now(&level, &all).unwrap().ok();
        let mut greedy: Vec<_> = (0..20).map(|_| Box::pin(Level::take(&level, &all, || 0, LONG))).collect();
        greedy.iter_mut().for_each(|one| assert!(block_on(poll_once(one)).is_none()));
        let mut quiet = Box::pin(Level::take(&level, &all, || 1, LONG));
        assert!(block_on(poll_once(&mut quiet)).is_none());
        let mut turns = 0;
        let mut at = 0;
        loop {
            drop(seat.take());
            turns += 1;
            if let Some(Ok(_)) = block_on(poll_once(&mut quiet)) {
                break;
            }
            seat = block_on(poll_once(&mut greedy[at])).and_then(Result::ok);
            at += 1;
        }
        assert!(turns <= 2, "{turns}");
    }
}
