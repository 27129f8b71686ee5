//! How each fault comes about.

use std::{mem, time::Duration};

use anyhow::Result;
use redis::Value;
use tokio::time::sleep;
use vorrang_tests::{Act, Relay, relay::LinkState, until};

use super::{INSTANCES, Soak, faults::Fault, setup::USER};
use crate::{
    fleet::CALL_MS,
    pace::{CALLS, PACE},
};

/// Pieces of the load's streams.
pub(super) const PIECES: usize = 5;

impl Soak {
    pub(super) async fn strike(&mut self, fault: Fault, round: usize) -> Result<()> {
        let index = self.dice.below(INSTANCES);
        let pause = self.dice.time(3 * PACE.lease);
        // Not the veteran.
        let replaced = index % (INSTANCES - 1);
        match fault {
            Fault::Kill | Fault::KillAndFlush => {
                self.fleet.kill(replaced)?;
                if matches!(fault, Fault::KillAndFlush) {
                    self.fleet.redis.flush().await?;
                }
                sleep(pause).await;
                self.fleet.revive(replaced).await?;
            }
            Fault::Restart => self.fleet.replace(replaced).await?,
            Fault::RollOut => {
                self.configurations.change(replaced);
                self.fleet.replace(replaced).await?;
            }
            Fault::Reload => {
                let text = self.configurations.change(index);
                self.fleet.gateways[index].reconfigure(text).await?;
            }
            Fault::Clock => {
                let days = i64::try_from(self.dice.below(7))? - 3;
                self.configurations.set_clock(index, days)?;
            }
            Fault::Stop => {
                self.fleet.gateways[index].freeze()?;
                sleep(pause).await;
                self.fleet.gateways[index].thaw()?;
            }
            Fault::CutOff(state) => {
                self.relays[index].set(state);
                sleep(pause).await;
                self.relays[index].set(LinkState::Up);
            }
            Fault::CutAllOff(state) => {
                self.relays.iter().for_each(|relay| relay.set(state));
                sleep(pause).await;
                self.relays
                    .iter()
                    .for_each(|relay| relay.set(LinkState::Up));
            }
            Fault::Reset => self.relays.iter().for_each(Relay::reset),
            Fault::Storm => {
                let busy = Act {
                    retry_after: Some("1".into()),
                    ..Act::fail(429)
                };
                self.acts(busy).await?;
            }
            Fault::Errors => {
                let act =
                    [Act::fail(500), Act::fail(503), Act::late_reset()][self.dice.below(3)].clone();
                self.acts(act).await?;
            }
            // Longer than an attempt may take. A held stream would have begun, and have all the time there is.
            Fault::Stalls => self.acts(Act::after(10_000)).await?,
            Fault::Leavers => {
                let gateway = &self.fleet.gateways[index];
                self.guests.leavers(gateway, round, pause).await?;
            }
            Fault::LeavingReaders => {
                let gateway = &self.fleet.gateways[index];
                self.guests.leaving_readers(gateway, round, pause).await?;
            }
            Fault::Streams => {
                let gateway = &self.fleet.gateways[index];
                self.guests.streams(gateway, round)?;
            }
            Fault::Overload => {
                let all = self.dice.below(2) == 0;
                let gateways = &self.fleet.gateways;
                let hit = if all {
                    &gateways[..]
                } else {
                    &gateways[index..=index]
                };
                self.guests.overload(hit, round, pause).await?;
            }
            Fault::Quiet => sleep(pause).await,
            of_redis => self.strike_redis(of_redis, pause).await?,
        }
        Ok(())
    }

    async fn strike_redis(&mut self, fault: Fault, pause: Duration) -> Result<()> {
        match fault {
            Fault::EmptyRedis => {
                self.fleet.redis.stop()?;
                sleep(pause).await;
                self.fleet.redis.restart().await?;
            }
            Fault::Snapshot => {
                self.command(&["SAVE"]).await?;
                sleep(pause + PACE.lease).await;
                self.fleet.redis.stop()?;
                self.fleet.redis.restart().await?;
            }
            Fault::Scripts => self.command(&["FUNCTION", "FLUSH"]).await?,
            Fault::Connections => {
                for kind in ["normal", "pubsub"] {
                    self.command(&["CLIENT", "KILL", "TYPE", kind]).await?;
                }
            }
            Fault::Memory => {
                self.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
                sleep(pause).await;
                self.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
            }
            Fault::Sleep => {
                let seconds = pause.as_secs_f64().to_string();
                self.command(&["DEBUG", "SLEEP", &seconds]).await?;
            }
            Fault::Failover => self.fail_over(None).await?,
            Fault::LaggingFailover => self.fail_over(Some(pause + PACE.lease)).await?,
            Fault::Right(less, more) => {
                self.set_user(less).await?;
                sleep(pause).await;
                self.set_user(more).await?;
            }
            Fault::Password => {
                self.set_user(&["resetpass", ">other"]).await?;
                self.command(&["CLIENT", "KILL", "USER", "vorrang"]).await?;
                sleep(pause).await;
                self.set_user(&["resetpass", ">soak"]).await?;
            }
            Fault::User => {
                self.command(&["ACL", "DELUSER", "vorrang"]).await?;
                sleep(pause).await;
                self.set_user(&USER[1..]).await?;
            }
            _ => self.fleet.redis.flush().await?,
        }
        Ok(())
    }

    /// The master is killed, and its replica takes over: the spare, which is empty until now. `lag`: how long it misses writes before.
    /// There are never two masters: what they would both grant is no fault of the gateway.
    async fn fail_over(&mut self, lag: Option<Duration>) -> Result<()> {
        let port = self.fleet.redis.port().to_string();
        let spare = &self.spare;
        spare.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
        let synced = async || -> Result<bool> {
            let info = spare.command(&["INFO", "replication"]).await?;
            let info: String = redis::from_redis_value(info)?;
            Ok(info.contains("master_link_status:up"))
        };
        until("a synced replica", synced, |synced| *synced).await?;
        if let Some(lag) = lag {
            spare.command(&["REPLICAOF", "NO", "ONE"]).await?;
            sleep(lag).await;
        }
        self.fleet.redis.stop()?;
        self.spare.command(&["REPLICAOF", "NO", "ONE"]).await?;
        mem::swap(&mut self.fleet.redis, &mut self.spare);
        let port = self.fleet.redis.port();
        self.relays.iter().for_each(|relay| relay.retarget(port));
        self.spare.restart().await
    }

    async fn set_user(&self, rules: &[&str]) -> Result<()> {
        let set = ["ACL", "SETUSER", "vorrang"];
        self.command(&[&set, rules].concat()).await
    }

    async fn command(&self, words: &[&str]) -> Result<()> {
        let answer: Value = self.fleet.redis.command(words).await?;
        drop(answer);
        Ok(())
    }

    /// Some of the next calls are answered so.
    async fn acts(&mut self, act: Act) -> Result<()> {
        let fine = Act::after(CALL_MS);
        let count = 1 + self.dice.below(2 * CALLS);
        let mut acts = Vec::new();
        for _ in 0..count {
            acts.push(if self.dice.below(2) == 0 {
                act.clone()
            } else {
                fine.clone()
            });
        }
        self.fleet.upstream.plan(&acts, fine).await
    }
}
