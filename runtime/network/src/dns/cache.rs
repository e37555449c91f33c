//! Other servers' answers, for as long as they may be kept and there is room. No I/O, no clock of its own.
use super::wire::{Passed, Query};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// However long a server allows (CoreDNS' limits for what is there and for what is not).
const TTL_LIMIT: Duration = Duration::from_secs(3600);
const NEGATIVE_TTL_LIMIT: Duration = Duration::from_secs(1800);
/// How long "nobody answers" is remembered, so that a dead uplink is not asked for every question.
pub const FAILURE_TTL: Duration = Duration::from_secs(2);
/// What an entry weighs besides its bytes.
const ENTRY_BYTES: usize = 200;

/// What makes two questions the same to another server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    name: Vec<u8>,
    kind: u16,
    class: u16,
    /// With EDNS, wanting DNSSEC records, with checking disabled.
    flags: (bool, bool, bool),
}

impl Question {
    pub fn of(query: &Query) -> Question {
        let wants_dnssec = query.edns.is_some_and(|edns| edns.wants_dnssec);
        Question {
            name: query.name.wire().to_ascii_lowercase(),
            kind: query.kind,
            class: query.class,
            flags: (query.edns.is_some(), wants_dnssec, query.checking_disabled()),
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub known: Passed,
    pub since: Instant,
}

impl Answer {
    /// How long after `since` it may still be given.
    fn lasts(&self) -> Duration {
        let ttl = Duration::from_secs(self.known.ttl.into());
        match self.known.code {
            0 if self.bytes.get(6..8) != Some(&[0, 0]) => ttl.min(TTL_LIMIT),
            0 | 3 => ttl.min(NEGATIVE_TTL_LIMIT),
            _ => FAILURE_TTL,
        }
    }

    pub fn age_seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

/// None: nobody gave an answer.
type Kept = Option<Arc<Answer>>;

pub struct Cache {
    limit_bytes: usize,
    bytes: usize,
    entries: HashMap<Question, (Instant, Kept)>,
    /// Oldest first; the oldest goes when room is needed.
    order: VecDeque<Question>,
}

impl Cache {
    pub fn new(limit_bytes: usize) -> Cache {
        Cache { limit_bytes, bytes: 0, entries: HashMap::new(), order: VecDeque::new() }
    }

    pub fn get(&mut self, question: &Question, now: Instant) -> Option<Kept> {
        let (until, kept) = self.entries.get(question)?;
        (*until > now).then(|| kept.clone())
    }

    pub fn put(&mut self, question: Question, kept: Kept, now: Instant) {
        let lasts = kept.as_ref().map_or(FAILURE_TTL, |answer| answer.lasts());
        let weight = weight(&question, &kept);
        self.remove(&question);
        if lasts.is_zero() || weight > self.limit_bytes {
            return;
        }
        while self.bytes + weight > self.limit_bytes {
            let Some(oldest) = self.order.front().cloned() else { break };
            self.remove(&oldest);
        }
        self.bytes += weight;
        self.order.push_back(question.clone());
        self.entries.insert(question, (now + lasts, kept));
    }

    fn remove(&mut self, question: &Question) {
        if let Some((_, kept)) = self.entries.remove(question) {
            self.bytes -= weight(question, &kept);
            self.order.retain(|other| other != question);
        }
    }
}

fn weight(question: &Question, kept: &Kept) -> usize {
    let answer = kept.as_ref().map_or(0, |answer| answer.bytes.len() + answer.known.ttls_at.len() * 2);
    ENTRY_BYTES + question.name.len() * 2 + answer
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Name, kind};
    use super::*;

    fn question(name: &str) -> Question {
        Question::of(&Query::new(0, Name::from_text(name).unwrap(), kind::A))
    }

    fn answer(ttl: u32, code: u8, now: Instant) -> Kept {
        let known = Passed { code, truncated: false, ttls_at: Vec::new(), ttl };
        Some(Arc::new(Answer { bytes: vec![1; 100], known, since: now }))
    }

    #[test]
    fn answers_end_with_their_time() {
        let (mut cache, now) = (Cache::new(10_000), Instant::now());
        let check = |cache: &mut Cache, kept: Kept, seconds: u64| {
            let lasts = Duration::from_secs(seconds);
            cache.put(question("a.example"), kept, now);
            assert_eq!(cache.get(&question("A.Example"), now).is_some(), seconds > 0);
            assert!(cache.get(&question("a.example"), now + lasts).is_none(), "{seconds}");
        };
        check(&mut cache, answer(60, 0, now), 60);
        check(&mut cache, answer(1_000_000, 0, now), 3600);
        check(&mut cache, answer(1_000_000, 3, now), 1800);
        check(&mut cache, answer(0, 0, now), 0);
        check(&mut cache, answer(600, 2, now), 2);
        check(&mut cache, None, 2);
        assert!(cache.get(&question("b.example"), now).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut cache, now) = (Cache::new(2000), Instant::now());
        for n in 0..1000 {
            cache.put(question(&format!("n{n}.example")), answer(60, 0, now), now);
            assert!(cache.bytes <= 2000 && cache.order.len() == cache.entries.len());
        }
        assert!(cache.get(&question("n999.example"), now).is_some());
        assert!(cache.get(&question("n0.example"), now).is_none());
    }
}
