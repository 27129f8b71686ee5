//! A sound log passes; each manipulated log fails exactly the expected verdict.

use anyhow::Result;
use serde_json::json;
use vorrang_load::{
    judge::Judged,
    log::{Ended, Happened, Log, Record, Ticket},
    provider::{Arrival, Counts, Kind, Limits, Outcome, Report, Tally},
    report::Summary,
    scenario::Scenario,
};

const SECOND: u64 = 1_000_000;
const LIMIT: u64 = 10;

/// Forty requests at once: ten go at once, the others ten by ten, a second and its guard later each.
fn sound() -> Result<Log> {
    let scenario = Scenario::parse(
        "name: doctored
phases: [{name: all, for: 1s, rate: 40/s}]
traffic: [{name: users, priority: 0}, {name: jobs, priority: 9}]
",
        "doctored",
    )?;
    let mut records = Vec::new();
    let mut arrivals = Vec::new();
    for index in 0..40 {
        let (traffic, priority) = if index < 20 { (0, 0) } else { (1, 9) };
        let at = index / LIMIT * (SECOND + SECOND / 20) + 1000;
        let id = format!("r-{index}");
        records.push(Record {
            id: id.clone(),
            phase: 0,
            traffic,
            tenant: 1,
            meant: 0,
            sent: 500,
            head: Some(at + 1000),
            end: at + 2000,
            target: 0,
            ended: Ended::Answered,
            ticket: Some(Ticket {
                group: "model".into(),
                priority,
                arrival: 100 + index,
                entered: 100 + index,
                granted: 1000 + index,
                start: 0,
                score: None,
                waited: at - 1000,
                least_wait: None,
                retries: 0,
            }),
        });
        arrivals.push(Arrival {
            id,
            at,
            end: Some(at + 500),
            model: "m".into(),
            reserved: 0,
            used: Some(0),
            outcome: Outcome::Answered,
            fault: None,
            violated: None,
        });
    }
    Ok(Log {
        scenario,
        seed: 1,
        started: 0,
        targets: vec!["http://a".into(), "http://b".into()],
        events: Vec::new(),
        records,
        provider: Some(Report {
            now: 5 * SECOND,
            window_seconds: 1.0,
            limits: Limits {
                rpm: Some(LIMIT),
                ..Limits::default()
            },
            counts: Counts {
                arrived: 40,
                ..Counts::default()
            },
            fullest: Tally {
                requests: LIMIT,
                ..Tally::default()
            },
            arrivals,
            held_up: 0,
        }),
    })
}

/// The names of the verdicts that fail after a change.
fn failing(change: impl FnOnce(&mut Log)) -> Result<Vec<&'static str>> {
    let mut log = sound()?;
    change(&mut log);
    let judged = Judged::new(&log, 20);
    let failed = judged
        .verdicts
        .iter()
        .filter(|one| one.passed == Some(false));
    let failed: Vec<_> = failed.map(|one| one.name).collect();
    assert_eq!(judged.passed(), failed.is_empty());
    Ok(failed)
}

#[expect(clippy::expect_used, reason = "the sound log has one")]
fn provider(log: &mut Log) -> &mut Report {
    log.provider.as_mut().expect("the log has one")
}

#[test]
fn sound_log_passes_all_verdicts_with_all_slots_used() -> Result<()> {
    assert!(failing(|_| {})?.is_empty());
    let log = sound()?;
    let judged = Judged::new(&log, 20);
    assert!(judged.verdicts.iter().all(|one| one.passed == Some(true)));
    let slots = judged.slots.expect("there is a limit");
    assert!(slots.used.expect("tickets waited") > 0.999, "{slots:?}");
    Ok(())
}

/// A1
#[test]
fn grant_to_a_worse_priority_before_a_waiting_better_one_is_an_inversion() -> Result<()> {
    let swap = |log: &mut Log| {
        for (index, granted) in [(19, 1020), (20, 1019)] {
            let ticket = log.records[index].ticket.as_mut().expect("all have one");
            ticket.granted = granted;
        }
        // A ticket that entered after the grant was not overtaken.
        let job = log.records[20].ticket.as_mut().expect("all have one");
        job.entered = 50;
    };
    assert_eq!(failing(swap)?, ["inversions"]);
    let twice = |log: &mut Log| {
        let granted = log.records[7].ticket.as_ref().map_or(0, |one| one.granted);
        log.records[8]
            .ticket
            .as_mut()
            .expect("all have one")
            .granted = granted;
    };
    assert_eq!(failing(twice)?, ["inversions"], "one grant, two answers");
    Ok(())
}

/// A3
#[test]
fn violation_at_the_provider_fails_the_limit_verdict() -> Result<()> {
    let over = |log: &mut Log| {
        provider(log).counts.violations.requests = 1;
        provider(log).arrivals[39].violated = Some(Kind::Requests);
    };
    assert_eq!(failing(over)?, ["over the limit"]);
    Ok(())
}

#[test]
fn request_without_an_answer_or_without_a_provider_call_is_lost() -> Result<()> {
    let silent = |log: &mut Log| log.records[3].ended = Ended::Unanswered;
    assert_eq!(failing(silent)?, ["lost"]);
    let cut = |log: &mut Log| log.records[3].ended = Ended::Cut;
    assert_eq!(failing(cut)?, ["lost"]);
    let ghost = |log: &mut Log| provider(log).arrivals[3].id = "another".into();
    assert_eq!(failing(ghost)?, ["lost"]);
    let allowed = |log: &mut Log| {
        cut(log);
        log.scenario.expect.cut = 1;
    };
    assert!(failing(allowed)?.is_empty());
    Ok(())
}

#[test]
fn cut_requests_pass_only_if_kills_are_expected() -> Result<()> {
    let killed = |log: &mut Log| {
        log.records[3].ended = Ended::Cut;
        let (from, at) = (log.records[3].end - 10, log.records[3].end + 10);
        let what = "kill -9 1".into();
        let killed = Some(0);
        log.events.push(Happened {
            from,
            at,
            what,
            killed,
        });
    };
    assert_eq!(failing(killed)?, ["failed"]);
    let expected = |log: &mut Log| {
        killed(log);
        log.scenario.expect.failed = vec!["killed".into()];
    };
    assert!(failing(expected)?.is_empty());
    let elsewhere = |log: &mut Log| {
        expected(log);
        log.events[0].killed = Some(1);
    };
    assert_eq!(
        failing(elsewhere)?,
        ["lost"],
        "another instance's death explains nothing"
    );
    Ok(())
}

#[test]
fn second_provider_call_is_doubled_unless_it_failed() -> Result<()> {
    let again = |log: &mut Log, outcome: Outcome| {
        let mut second = provider(log).arrivals[3].clone();
        second.outcome = outcome;
        provider(log).arrivals.push(second);
    };
    assert_eq!(failing(|log| again(log, Outcome::Answered))?, ["doubled"]);
    assert_eq!(failing(|log| again(log, Outcome::Left))?, ["doubled"]);
    assert!(failing(|log| again(log, Outcome::Failed))?.is_empty());
    Ok(())
}

#[test]
fn unexpected_error_kind_fails_its_verdict() -> Result<()> {
    let late = |log: &mut Log| log.records[3].ended = Ended::Status(408);
    assert_eq!(failing(late)?, ["failed"]);
    let expected = |log: &mut Log| {
        late(log);
        log.scenario.expect.failed = vec!["408".into()];
    };
    assert!(failing(expected)?.is_empty());
    Ok(())
}

/// A4
#[test]
fn idle_slots_while_tickets_wait_fail_the_slots_verdict() -> Result<()> {
    // The last twenty come half a second later, and waited so much longer.
    let idle = |log: &mut Log| {
        for index in 20..40 {
            provider(log).arrivals[index].at += SECOND / 2;
            log.records[index].end += SECOND / 2;
            let ticket = log.records[index].ticket.as_mut().expect("all have one");
            ticket.waited += SECOND / 2;
        }
    };
    assert_eq!(failing(idle)?, ["slots used"]);
    Ok(())
}

/// A stalled generator must not hide the latency of a user (coordinated omission).
#[test]
fn latency_is_measured_from_the_intended_start() -> Result<()> {
    let mut log = sound()?;
    for record in &mut log.records {
        record.sent += SECOND / 2;
    }
    let summary = Summary::new(&log);
    let latency = summary.total.latency.expect("all were answered");
    assert!(
        (latency.most - (3.0 * 1.05 + 0.003)).abs() < 1e-6,
        "{latency:?}"
    );
    let late = summary.lateness.expect("all were sent");
    assert!((late.p50 - 0.5005).abs() < 1e-6, "{late:?}");
    Ok(())
}

/// P18: the order is by the score, where there is one.
#[test]
fn grant_to_an_aged_job_before_a_user_is_no_inversion() -> Result<()> {
    let aged = |log: &mut Log, gain: u64| {
        let tickets = log.records.iter_mut().filter_map(|one| one.ticket.as_mut());
        for (index, ticket) in tickets.enumerate() {
            ticket.entered = 50;
            // Job 20 came before all others, and was granted first.
            (ticket.arrival, ticket.granted) = match index {
                20 => (1, 900),
                _ => (ticket.arrival, ticket.granted),
            };
            let handicap = u64::try_from(ticket.priority).unwrap_or(0) * gain;
            ticket.score = i64::try_from(ticket.arrival + handicap).ok();
        }
    };
    assert!(failing(|log| aged(log, 11))?.is_empty());
    assert_eq!(failing(|log| aged(log, 100))?, ["inversions"]);
    Ok(())
}

#[test]
fn waits_below_their_estimate_are_counted_as_wrong_estimates() -> Result<()> {
    let mut log = sound()?;
    assert!(!Summary::new(&log).text().contains("least wait"));
    for record in &mut log.records {
        let ticket = record.ticket.as_mut().expect("all have one");
        ticket.least_wait = Some(ticket.waited);
    }
    let mut tell = |index: usize, more: u64, retries: u64| {
        let ticket = log.records[index].ticket.as_mut().expect("all have one");
        ticket.least_wait = Some(ticket.waited + more);
        ticket.retries = retries;
    };
    tell(11, 3000, 0);
    tell(12, 250_000, 0);
    // Of a retried request only the sum of its waits is known.
    tell(13, SECOND, 1);
    let summary = Summary::new(&log);
    let expected = json!({"told": 39, "wrong": 2, "most": 0.25});
    assert_eq!(json!(summary.estimates), expected);
    let line = "39 tickets got an estimate of their wait; 2 waited less, by up to 0.250 s";
    assert!(summary.text().contains(line), "{}", summary.text());
    Ok(())
}

#[test]
fn slots_verdict_begins_at_slots_from_and_use_is_reported_by_phase() -> Result<()> {
    // The first ten come a second late: until then nothing is used.
    let late = |log: &mut Log| {
        for index in 0..10 {
            provider(log).arrivals[index].at += SECOND;
            let ticket = log.records[index].ticket.as_mut().expect("all have one");
            ticket.waited += SECOND;
        }
    };
    assert_eq!(failing(late)?, ["slots used"]);
    let warm = |log: &mut Log| {
        late(log);
        log.scenario.expect.slots_from = "1050ms".parse().expect("a time");
    };
    assert!(failing(warm)?.is_empty());
    let summary = Summary::new(&sound()?);
    assert_eq!(
        (summary.phases[0].calls, summary.phases[0].of_limit),
        (10, Some(1.0))
    );
    Ok(())
}

#[test]
fn saved_log_gets_the_same_verdict() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let log = sound()?;
    log.save(directory.path())?;
    let summary = Summary::new(&Log::load(directory.path())?);
    assert_eq!(json!(summary), json!(Summary::new(&log)));
    vorrang_load::report::write(&summary, directory.path())?;
    let page = std::fs::read_to_string(directory.path().join("report.html"))?;
    assert!(page.contains("\"name\":\"doctored\""));
    Ok(())
}
