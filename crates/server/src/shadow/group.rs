//! One group of the shadow.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use vorrang_gateway::{Config, GroupSettings, Joined, RecordedRequest, WaitOutcome};
use vorrang_scheduler::{
    GroupConfig, Tokens,
    simulate::{VirtualCall, VirtualEvent, VirtualGroup},
};

use crate::metrics::shadow::{ShadowMetrics, Than};

/// More requests than this are not followed at once: some are lost, and counted.
const MOST: usize = 50_000;

/// A step of the shadow takes no time; this stands for the real one's.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A new call counts so much of the mean of all.
const SMOOTHING: f64 = 16.0;

/// Grants within this are at the same time: two round trips, and what a busy machine adds.
const SAME: Duration = Duration::from_millis(20);

/// A request that both know, or one of them still does.
#[derive(Debug)]
struct Followed {
    priority: i32,
    since: Duration,
    deadline: Duration,
    /// How long it really waited, and its real call.
    real: Option<(Duration, WaitOutcome)>,
    called: Option<(Duration, Option<Tokens>)>,
    /// When the shadow granted it, and the call.
    granted: Option<(Duration, VirtualCall)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The request's time is up, if it waits.
    Deadline,
    /// Its call is over.
    CallEnds,
    /// If it really waits still, its call is over: it takes as long as others do.
    MeanCallEnds,
}

/// What another configuration decides about the requests of a group.
pub(super) struct ShadowGroup {
    name: String,
    config: Arc<Config>,
    settings: GroupSettings,
    whole: GroupConfig,
    instances: usize,
    group: VirtualGroup,
    followed: HashMap<u64, Followed>,
    due: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    /// The mean of the real calls.
    mean: f64,
    events: Vec<VirtualEvent>,
    metrics: Arc<ShadowMetrics>,
}

impl ShadowGroup {
    /// `None`: the configuration has no such group.
    pub(super) fn new(
        config: &Arc<Config>,
        name: &str,
        instances: usize,
        metrics: &Arc<ShadowMetrics>,
    ) -> Option<Self> {
        let settings = config.group_called(name)?.clone();
        let whole = config.group_config(&settings);
        Some(Self {
            name: name.into(),
            config: config.clone(),
            group: VirtualGroup::new(&whole.part(instances), ROUND_TRIP, 1),
            settings,
            whole,
            instances,
            followed: HashMap::new(),
            due: BinaryHeap::new(),
            mean: 1.0,
            events: Vec::new(),
            metrics: metrics.clone(),
        })
    }

    /// So many instances share the limits now.
    pub(super) fn shared_by(&mut self, instances: usize) {
        if instances.max(1) != self.instances.max(1) {
            self.instances = instances;
            self.group.reconfigure(&self.whole.part(instances));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        let due = self.due.peek().map(|Reverse((at, ..))| *at);
        match (due, self.group.next()) {
            (Some(due), Some(next)) => Some(due.min(next)),
            (due, next) => due.or(next),
        }
    }

    pub(super) fn joined(&mut self, number: u64, at: Duration, key: Option<&str>, joined: &Joined) {
        if self.followed.len() >= MOST {
            self.metrics.lost();
            return;
        }
        let claim = self.config.claim_of(
            &self.settings,
            &RecordedRequest {
                key,
                asked_priority: joined.asked_priority,
                priority: joined.claim.priority,
                tenant: joined.claim.share.tenant,
                tokens: joined.claim.tokens,
            },
        );
        let followed = Followed {
            priority: claim.priority,
            since: at,
            deadline: at + joined.left,
            real: None,
            called: None,
            granted: None,
        };
        self.group.join(number, claim);
        self.due
            .push(Reverse((followed.deadline, number, Due::Deadline)));
        self.followed.insert(number, followed);
    }

    /// Its real wait has ended.
    pub(super) fn waited(
        &mut self,
        number: u64,
        at: Duration,
        waited: Duration,
        outcome: WaitOutcome,
    ) {
        let Some(followed) = self.followed.get_mut(&number) else {
            return;
        };
        followed.real = Some((waited, outcome));
        match (outcome, &followed.granted) {
            (WaitOutcome::Granted, Some(_)) => self.compare(number),
            // A client that has left, or whose time is up, is in no queue. What the real queue refused, another may take.
            (WaitOutcome::Gone | WaitOutcome::TimedOut, None) => {
                self.leave(number, at, outcome.as_str());
            }
            _ => {}
        }
    }

    /// Its real call is over.
    pub(super) fn called(
        &mut self,
        number: u64,
        at: Duration,
        took: Duration,
        used: Option<Tokens>,
    ) {
        let Some(followed) = self.followed.get_mut(&number) else {
            return;
        };
        self.mean += (took.as_secs_f64() - self.mean) / SMOOTHING;
        followed.called = Some((took, used));
        if let Some((granted, _)) = followed.granted {
            let over = (granted + took).max(at);
            self.due.push(Reverse((over, number, Due::CallEnds)));
        }
    }

    /// Does what is due until now.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(Reverse((at, number, due))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            self.is_due(number, now, due);
        }
        let mut events = std::mem::take(&mut self.events);
        self.group.advance(now, &mut events);
        for event in events.drain(..) {
            self.receive(event, now);
        }
        self.events = events;
    }

    fn is_due(&mut self, number: u64, now: Duration, due: Due) {
        let Some(followed) = self.followed.get(&number) else {
            return;
        };
        let waits = followed.real.is_none();
        match (due, &followed.granted) {
            (Due::Deadline, None) => self.leave(number, now, WaitOutcome::TimedOut.as_str()),
            (Due::CallEnds, Some(_)) => self.end(number, now),
            (Due::MeanCallEnds, Some(_)) if waits => self.end(number, now),
            _ => {}
        }
    }

    fn receive(&mut self, event: VirtualEvent, now: Duration) {
        match event {
            VirtualEvent::Granted { ticket, call } => {
                let Some(followed) = self.followed.get_mut(&ticket) else {
                    self.group.end(now, &call, None);
                    return;
                };
                followed.granted = Some((now, call));
                let waited = now.saturating_sub(followed.since);
                self.metrics.granted(&self.name, followed.priority, waited);
                let over = match (&followed.called, &followed.real) {
                    (Some((took, _)), _) => Some((now + *took, Due::CallEnds)),
                    // It will be known.
                    (None, Some((_, WaitOutcome::Granted))) => None,
                    // It never will be.
                    (None, Some(_)) => Some((now + self.mean_call(), Due::CallEnds)),
                    (None, None) => Some((now + self.mean_call(), Due::MeanCallEnds)),
                };
                if let Some((at, due)) = over {
                    self.due.push(Reverse((at, ticket, due)));
                }
                self.compare(ticket);
            }
            VirtualEvent::Refused { ticket, .. } => {
                if self.followed.remove(&ticket).is_some() {
                    self.metrics.ended(&self.name, "refused");
                }
            }
            VirtualEvent::Waits { .. } => {}
        }
    }

    fn mean_call(&self) -> Duration {
        Duration::from_secs_f64(self.mean.clamp(0.0, 3600.0))
    }

    /// It leaves the queue without a grant.
    fn leave(&mut self, number: u64, now: Duration, outcome: &'static str) {
        self.group.leave(number);
        self.group.advance(now, &mut Vec::new());
        self.followed.remove(&number);
        self.metrics.ended(&self.name, outcome);
    }

    /// Its call is over.
    fn end(&mut self, number: u64, now: Duration) {
        let followed = self.followed.get_mut(&number);
        let Some((_, call)) = followed.and_then(|followed| followed.granted.take()) else {
            return;
        };
        let used = self.followed.get(&number).and_then(|one| one.called);
        self.group.end(now, &call, used.and_then(|(_, used)| used));
        // The real grant may still follow, and is compared then.
        if let Some(followed) = self.followed.remove(&number)
            && followed.real.is_none()
        {
            self.metrics.compared(&self.name, Than::Earlier);
        }
    }

    /// Both have granted it.
    fn compare(&mut self, number: u64) {
        let Some(followed) = self.followed.get(&number) else {
            return;
        };
        let (Some((granted, _)), Some((real, WaitOutcome::Granted))) =
            (&followed.granted, &followed.real)
        else {
            return;
        };
        let waited = granted.saturating_sub(followed.since);
        let than = if waited > *real + SAME {
            Than::Later
        } else if waited + SAME < *real {
            Than::Earlier
        } else {
            Than::Same
        };
        self.metrics.compared(&self.name, than);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vorrang_scheduler::Claim;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn group(limits: &str, instances: usize) -> ShadowGroup {
        let text = format!(
            "model_list: [{{model_name: chat, litellm_params: {{model: openai/x, mock_response: hello, {limits}}}}}]"
        );
        let loaded = Config::parse(&text, "shadow.yaml", &BTreeMap::new()).unwrap();
        ShadowGroup::new(&Arc::new(loaded.config), "chat", instances, &Arc::default()).unwrap()
    }

    fn join(group: &mut ShadowGroup, number: u64, at: Duration) {
        let joined = Joined::new(Claim::new(0, 0), 600 * SECOND);
        group.joined(number, at, None, &joined);
        group.advance(at);
    }

    /// Everything between two times.
    fn run(group: &mut ShadowGroup, from: Duration, until: Duration) {
        let mut now = from;
        while let Some(next) = group.next().filter(|next| *next <= until) {
            now = next.max(now);
            group.advance(now);
        }
        group.advance(until);
    }

    fn granted(group: &ShadowGroup) -> usize {
        let followed = group.followed.values();
        followed.filter(|one| one.granted.is_some()).count()
    }

    #[test]
    fn shadow_uses_its_instances_part_of_the_limits() {
        let mut group = group("rpm: 10", 2);
        for number in 1..=20 {
            join(&mut group, number, SECOND);
        }
        run(&mut group, SECOND, SECOND + SECOND / 2);
        assert_eq!(granted(&group), 5);
        // The other instance has left.
        group.shared_by(1);
        run(&mut group, SECOND + SECOND / 2, SECOND * 7 / 4);
        assert_eq!(granted(&group), 10);
    }

    #[test]
    fn shadow_holds_a_slot_as_long_as_the_real_call_takes() {
        let mut group = group("max_parallel_requests: 1", 1);
        for number in 1..=2 {
            join(&mut group, number, SECOND);
            group.waited(number, SECOND, Duration::ZERO, WaitOutcome::Granted);
        }
        run(&mut group, SECOND, 5 * SECOND);
        assert_eq!(
            (granted(&group), group.followed.len()),
            (1, 2),
            "its call goes on"
        );
        group.called(1, 5 * SECOND, 4 * SECOND, None);
        run(&mut group, 5 * SECOND, 5 * SECOND + SECOND / 2);
        assert_eq!(
            (granted(&group), group.followed.len()),
            (1, 1),
            "the second one's turn"
        );
        // The real call of the second one was as short as that: it is known when it is granted here.
        group.called(2, 6 * SECOND, SECOND, None);
        run(&mut group, 6 * SECOND, 8 * SECOND);
        assert!(group.followed.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn shadow_does_not_wait_for_real_calls_of_requests_that_still_wait() {
        let mut group = group("max_parallel_requests: 1", 1);
        join(&mut group, 1, SECOND);
        join(&mut group, 2, SECOND);
        // The first one really waits; its call is taken to be as long as the mean.
        run(&mut group, SECOND, 4 * SECOND);
        assert!(!group.followed.contains_key(&1), "{:?}", group.followed);
    }

    #[test]
    fn shadow_forgets_requests_whose_client_has_left() {
        let mut group = group("rpm: 1", 1);
        join(&mut group, 1, SECOND);
        join(&mut group, 2, SECOND);
        run(&mut group, SECOND, 2 * SECOND);
        group.waited(2, 3 * SECOND, 2 * SECOND, WaitOutcome::Gone);
        run(&mut group, 3 * SECOND, 3 * SECOND);
        assert!(!group.followed.contains_key(&2));
        assert_eq!(group.group.waiting(), 0);
    }
}
