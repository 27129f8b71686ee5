//! A scenario at another scale: the ready ones have short windows, so that they take less than a minute.

use std::time::Duration;

use crate::{
    amount::Time,
    scenario::{Pattern, Scenario},
};

impl Scenario {
    /// With a window of another length, and everything that happens by the clock as much longer. How long answers take, and when
    /// single clients leave, stays as it is, and so do the gateway's own settings.
    pub fn stretch(&mut self, window: Time) {
        let factor = window.0.as_secs_f64() / self.provider.window.0.as_secs_f64();
        let longer = |time: &mut Time| {
            let seconds = time.0.as_secs_f64() * factor;
            time.0 = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        };
        self.provider.window = window;
        for phase in &mut self.phases {
            longer(&mut phase.length);
        }
        for traffic in &mut self.traffic {
            if let Pattern::Bursts(every) = &mut traffic.arrivals {
                longer(every);
            }
            if let Some(timeout) = &mut traffic.timeout {
                longer(timeout);
            }
        }
        for event in &mut self.events {
            longer(&mut event.at);
        }
        longer(&mut self.drain);
        longer(&mut self.expect.slots_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn stretched_scenario_scales_all_times_with_the_window() {
        let mut scenario = Scenario::parse(scenario::ready("pacing").unwrap(), "pacing").unwrap();
        let (length, window) = (scenario.length(), scenario.provider.window.0);
        let last = scenario.events[0].at.0;
        scenario.stretch(Time(window * 12));
        assert_eq!(scenario.provider.window.0, window * 12);
        assert_eq!(scenario.length(), length * 12);
        assert_eq!(scenario.events[0].at.0, last * 12);
        assert!(
            scenario
                .traffic
                .iter()
                .any(|one| one.arrivals == Pattern::Bursts(Time(window * 12)))
        );
    }
}
