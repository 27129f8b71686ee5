//! A day of 100 requests a second, in virtual time: urgent and batch requests behind one limit.
//!
//! ```sh
//! time cargo run --release --example simulate
//! ```

use std::time::Duration;

use vorrang_scheduler::{
    Claim, Deployment, GroupConfig, LimitKind,
    simulate::{Ended, Request, Simulator},
};

fn main() {
    let day = Duration::from_secs(24 * 3600);
    let minute = Duration::from_secs(60);
    let deployment = Deployment::new("a").limit(LimitKind::Requests, 6600, minute);
    let deployment = deployment.limit(LimitKind::Concurrency, 1000, minute);
    let config = GroupConfig::new(vec![deployment]);
    let mut random = fastrand::Rng::with_seed(1);
    let mut simulator = Simulator::new(&config, Duration::from_millis(1), 1);
    // Urgent and batch: how many were granted, and how long they waited.
    let mut granted = [(0_u64, Duration::ZERO, Duration::ZERO); 2];
    let mut late = 0_u64;
    let mut ended = |urgent: bool, waited: Duration, how: Ended| match how {
        Ended::Granted => {
            let (count, sum, most) = &mut granted[usize::from(!urgent)];
            *count += 1;
            *sum += waited;
            *most = waited.max(*most);
        }
        Ended::TimedOut | Ended::Refused(_) => late += 1,
    };
    let mut at = Duration::ZERO;
    while at < day {
        // By day there is more to do than by night: from 60 to 140 a second.
        let hour = at.as_secs_f64() / 3600.0;
        let rate = 100.0 - 40.0 * (hour / 24.0 * std::f64::consts::TAU).cos();
        at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        let urgent = random.u8(..10) == 0;
        let request = Request {
            claim: Claim::new(if urgent { 0 } else { 100 }, 0),
            patience: Duration::from_secs(600),
            calls: 1,
            took: Duration::from_secs_f64(1.0 + 2.0 * random.f64()),
            used: None,
        };
        simulator.arrive(at, request, urgent, &mut ended);
    }
    simulator.finish(&mut ended);
    let usage = simulator.usage();
    for (name, (count, sum, most)) in ["urgent", "batch"].into_iter().zip(granted) {
        let mean = sum.as_secs_f64() / (count.max(1) as f64);
        println!(
            "{name}: {count} granted, {mean:.3} s on average, {:.1} s at most",
            most.as_secs_f64()
        );
    }
    println!(
        "{late} timed out; room lost while others waited: {:.2} %",
        usage.lost.unwrap_or(0.0) * 100.0
    );
}
