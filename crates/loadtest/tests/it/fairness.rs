//! Tenants that are served alike pass; one that gets more than its share fails, unless its weight says so.

use anyhow::{Context as _, Result};
use serde_json::json;
use vorrang_load::{
    judge::{Judged, Verdict},
    log::{Ended, Log, Record},
    provider::{Arrival, Counts, Limits, Outcome, Report, Tally},
    report::Summary,
    scenario::Scenario,
};

const SECOND: u64 = 1_000_000;

/// Windows of a second, twelve of them: three stretches.
const LENGTH: u64 = 12 * SECOND;

/// Traffic, tenant, and every how many milliseconds it is served; 0 for never. All have far more to do than they are served.
type Served = (usize, u64, u64);

/// `heavy` is one tenant, `light` two.
fn scenario(more: &str) -> Result<Scenario> {
    Ok(Scenario::parse(
        &format!(
            "name: doctored
phases: [{{name: all, for: 12s, rate: 10/s}}]
traffic:
  - {{name: heavy, priority: 0, weight: 2, key: one}}
  - {{name: light, priority: 0, tenants: {{count: 2}}, key: two}}
  - {{name: late, priority: 0, tenants: {{count: 3}}, key: two}}
{more}"
        ),
        "doctored",
    )?)
}

fn record(
    id: String,
    (traffic, tenant): (usize, u64),
    sent: u64,
    end: u64,
    ended: Ended,
) -> Record {
    Record {
        id,
        phase: 0,
        traffic,
        tenant,
        meant: sent,
        sent,
        head: None,
        end,
        target: 0,
        ended,
        ticket: None,
    }
}

/// Everything is sent at once; what is not served in time leaves.
fn log(scenario: Scenario, served: &[Served]) -> Log {
    let (mut records, mut arrivals) = (Vec::new(), Vec::new());
    for &(traffic, tenant, every) in served {
        let step = (every * 1000).max(1);
        let grants = if every == 0 { 0 } else { LENGTH / step };
        for number in 1..=grants {
            let (id, at) = (format!("{traffic}-{tenant}-{number}"), number * step);
            arrivals.push(Arrival {
                id: id.clone(),
                at,
                end: Some(at + 10),
                model: "m".into(),
                reserved: 0,
                used: Some(0),
                outcome: Outcome::Answered,
                fault: None,
                violated: None,
            });
            let of = (traffic, tenant);
            records.push(record(id, of, 0, at + 20, Ended::Answered));
        }
        let id = format!("{traffic}-{tenant}-left");
        records.push(record(id, (traffic, tenant), 0, LENGTH, Ended::Left));
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    Log {
        scenario,
        seed: 1,
        started: 0,
        targets: vec!["http://a".into()],
        events: Vec::new(),
        records,
        provider: Some(Report {
            now: LENGTH,
            window_seconds: 1.0,
            limits: Limits::default(),
            counts: Counts::default(),
            fullest: Tally::default(),
            arrivals,
            held_up: 0,
        }),
    }
}

fn verdict(log: &Log) -> Option<Verdict> {
    let verdicts = Judged::new(log, 20).verdicts;
    verdicts.into_iter().find(|one| one.name == "fairness")
}

/// Grants at the edges of a stretch make a difference of one or two.
fn near(verdict: &Verdict, index: f64) -> bool {
    let figure = verdict.figure.parse::<f64>();
    figure.is_ok_and(|figure| (figure - index).abs() < 0.01)
}

const ALIKE: &str = "expect: {fairness: 0.95}";
const BY_USER: &str = "gateway: {vorrang_settings: {groups: {model: {fair_by: user}}}}";
const BY_KEY: &str = "gateway: {vorrang_settings: {groups: {model: {fair_by: key}}}}";

#[test]
fn fairness_passes_only_if_tenants_are_served_alike() -> Result<()> {
    let judge = |served: &[Served]| -> Result<Verdict> {
        let log = log(scenario(ALIKE)?, served);
        verdict(&log).context("it is expected")
    };
    let alike = judge(&[(1, 1, 100), (1, 2, 100)])?;
    assert_eq!((alike.passed, &*alike.figure), (Some(true), "1.000"));
    let words = "Jain's index of 2 tenants of priority 0, the least of 3 stretches of ten windows; mean 1.000; at least 0.95";
    assert_eq!(alike.detail, words);
    // 1 to 3: 16 / (2 x 10).
    let unlike = judge(&[(1, 1, 100), (1, 2, 300)])?;
    assert_eq!(unlike.passed, Some(false));
    assert!(near(&unlike, 0.8), "{unlike:?}");
    // One that was never served counts as much.
    let starved = judge(&[(1, 1, 100), (1, 2, 0)])?;
    assert_eq!(starved.figure, "0.500");
    Ok(())
}

#[test]
fn fairness_divides_service_by_tenant_weight() -> Result<()> {
    // Twice as much for the weight of two; the others' weight is one.
    let served = [(0, 1, 100), (1, 1, 200), (1, 2, 200)];
    let expected = format!("{ALIKE}\n{BY_USER}");
    let weighed = log(scenario(&expected)?, &served);
    let found = verdict(&weighed).context("it is expected")?;
    assert_eq!((found.passed, &*found.figure), (Some(true), "1.000"));
    let mut alike = weighed;
    alike.scenario.traffic[0].weight = 1.0;
    // (2 + 1 + 1)^2 / (3 x 6)
    let found = verdict(&alike).context("it is expected")?;
    assert!(near(&found, 16.0 / 18.0), "{found:?}");
    // By key the two light ones are one, and get half of what they would by user.
    let by_key = log(scenario(&format!("{ALIKE}\n{BY_KEY}"))?, &served);
    let found = verdict(&by_key).context("it is expected")?;
    assert!(found.detail.contains("of 2 tenants"), "{found:?}");
    assert_eq!(Summary::new(&by_key).shares[0].name, "light");
    Ok(())
}

#[test]
fn fairness_excludes_tenants_without_constant_demand() -> Result<()> {
    let mut log = log(scenario(ALIKE)?, &[(1, 1, 100), (1, 2, 300)]);
    // The second's requests come one after the other: each when the one before was served.
    let mut last = 0;
    for record in log.records.iter_mut().filter(|one| one.tenant == 2) {
        (record.meant, record.sent) = (last + 1000, last + 1000);
        last = record.end;
    }
    let found = verdict(&log).context("it is expected")?;
    assert_eq!(
        found.passed, None,
        "one is left, and there is no index of one"
    );
    Ok(())
}

#[test]
fn fairness_uses_only_complete_stretches_of_the_judged_time() -> Result<()> {
    let served = [(1, 1, 100), (1, 2, 300)];
    let stretches = |from: &str| -> Result<Vec<(f64, f64)>> {
        let more = format!("expect: {{fairness: 0.95, slots_from: {from}}}");
        let log = log(scenario(&more)?, &served);
        let found = Judged::new(&log, 20).fairness;
        let all = found.iter().flat_map(|one| &one.stretches);
        Ok(all.map(|one| (one.from, one.to)).collect())
    };
    assert_eq!(stretches("0s")?, [(0.0, 10.0), (1.0, 11.0), (2.0, 12.0)]);
    assert_eq!(stretches("1.5s")?, [(1.5, 11.5)]);
    assert_eq!(stretches("3s")?, []);
    Ok(())
}

#[test]
fn fairness_without_an_expectation_is_reported_without_a_verdict() -> Result<()> {
    let log = log(scenario("")?, &[(1, 1, 100), (1, 2, 300)]);
    assert_eq!(verdict(&log), None);
    let summary = Summary::new(&log);
    let text = summary.text();
    assert!(
        text.contains("fairness 0.798: Jain's index of 2 tenants"),
        "{text}"
    );
    let found = &json!(summary)["fairness"][0];
    assert_eq!(
        (&found["priority"], &found["stretches"][0]["tenants"]),
        (&json!(0), &json!(2))
    );
    let shares = json!(summary.shares);
    let expected = json!([
        {"name": "light-1", "traffic": 1, "asked": 121, "served": 120},
        {"name": "light-2", "traffic": 1, "asked": 41, "served": 40},
    ]);
    assert_eq!(shares, expected);
    Ok(())
}

#[test]
fn first_wait_of_a_new_tenant_is_reported() -> Result<()> {
    let mut log = log(scenario("")?, &[(2, 1, 1000), (2, 2, 4000), (2, 3, 0)]);
    log.records.sort_by_key(|one| one.meant);
    let summary = Summary::new(&log);
    let first = json!(summary.traffic[2].first_waits);
    let expected = json!({"tenants": 3, "unanswered": 1, "median": 4.0, "most": 12.0});
    assert_eq!(first, expected);
    let line = "late: the first requests of 3 tenants waited 4.000 s (median), 12.000 s at most; 1 had no answer to it";
    assert!(summary.text().contains(line), "{}", summary.text());
    assert_eq!(
        summary.traffic[0].first_waits, None,
        "it has one tenant, or none"
    );
    Ok(())
}
