//! What an instance of the model does before it sends a message.

use vorrang_scheduler::{
    Claim, Entry, Micros, Seq, Tokens,
    message::{Grant, Op},
};

use super::{Instance, MOST_WAITING, Permit};
use crate::history::{Action, deployment_name};

impl Instance {
    /// The index of an open permit.
    fn open_permit(&self, which: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.permits.len())
            .filter(|i| !self.permits[*i].ended)
            .collect();
        open.get(which % open.len().max(1)).copied()
    }

    fn give_back(&mut self, index: usize, used: Option<u64>, ops: &mut Vec<Op>) {
        let permit = &mut self.permits[index];
        permit.ended = true;
        // The more input tokens are used, the fewer output tokens are.
        let part = |amount: u64, hundredths: u64| amount.saturating_mul(hundredths) / 100;
        let used = used.map_or(Tokens::MAX, |hundredths| {
            let Tokens { input, output } = permit.tokens;
            Tokens::new(part(input, hundredths), part(output, 250 - hundredths))
        });
        let excess = if used == Tokens::MAX {
            Tokens::ZERO
        } else {
            used.saturating_sub(permit.tokens)
        };
        ops.push(Op::Done {
            granted: permit.grant.granted,
            deployment: permit.grant.deployment.clone(),
            tokens: used.min(permit.tokens),
            excess,
            ok: !permit.grant.granted.0.is_multiple_of(3),
        });
        permit.tokens = used.min(permit.tokens);
    }

    fn join(&mut self, entry: Entry, ops: &mut Vec<Op>) {
        if self.waiting.len() + self.joined.len() < MOST_WAITING {
            ops.push(Op::Join(entry));
            self.joined.push(entry);
        }
    }

    pub(super) fn act(&mut self, action: &Action, ops: &mut Vec<Op>) {
        match *action {
            Action::Move { which, to } => {
                if !self.waiting.is_empty() {
                    let at = which % self.waiting.len();
                    let Entry { claim, arrival, .. } = self.waiting[at];
                    self.waiting[at].claim.priority = to;
                    ops.push(Op::Move { claim, arrival, to });
                }
            }
            Action::Rank { which, claim } => {
                let waiting = which.filter(|_| !self.waiting.is_empty());
                let (claim, arrival) = waiting.map_or((claim, Seq::NONE), |which| {
                    let entry = self.waiting[which % self.waiting.len()];
                    (entry.claim, entry.arrival)
                });
                ops.push(Op::Rank { claim, arrival });
            }
            Action::Look { from, most } => ops.push(Op::Look { from, most }),
            Action::Override(ref change) => ops.push(Op::Override(change.clone())),
            Action::Join(claim) => self.join(Entry::new(claim), ops),
            Action::Joins(claim, count) => {
                (0..count).for_each(|_| self.join(Entry::new(claim), ops));
            }
            Action::Leave(which) => {
                if !self.waiting.is_empty() {
                    let Entry { claim, arrival, .. } =
                        self.waiting.remove(which % self.waiting.len());
                    ops.push(Op::Leave { claim, arrival });
                }
            }
            Action::Done { which, used } => {
                if let Some(index) = self.open_permit(which) {
                    self.give_back(index, used, ops);
                }
            }
            Action::DoneAll => {
                while let Some(index) = self.open_permit(0) {
                    self.give_back(index, None, ops);
                }
            }
            Action::Retry(which) => {
                if let Some(index) = self.open_permit(which) {
                    self.give_back(index, None, ops);
                    let Permit {
                        ref grant, claim, ..
                    } = self.permits[index];
                    let (arrival, start) = (grant.arrival, grant.start);
                    let mut known = self.rules.deployments.iter();
                    let tried = known.position(|d| d.id == grant.deployment);
                    let claim = Claim {
                        tried: claim.tried | tried.map_or(0, |n| 1 << n),
                        ..claim
                    };
                    let entry = Entry {
                        claim,
                        arrival,
                        start,
                    };
                    self.join(entry, ops);
                }
            }
            Action::Sent { which, age } => {
                if let Some(index) = self.open_permit(which) {
                    let permit = &mut self.permits[index];
                    permit.reported = true;
                    ops.push(Op::Sent {
                        granted: permit.grant.granted,
                        age: Micros(age),
                    });
                }
            }
            Action::Unused(which) => {
                if let Some(index) = self.open_permit(which) {
                    let permit = self.permits.remove(index);
                    ops.push(Op::Unused {
                        granted: permit.grant.granted,
                    });
                }
            }
            Action::Report {
                which,
                ok,
                status,
                cool,
            } => {
                if let Some(index) = self.open_permit(which) {
                    let Grant {
                        granted,
                        ref deployment,
                        probe,
                        ..
                    } = self.permits[index].grant;
                    ops.push(Op::Report {
                        granted,
                        deployment: deployment.clone(),
                        probe,
                        again: which % 3 == 0,
                        ok,
                        status,
                        cool,
                    });
                }
            }
            Action::Measured { which, took } => {
                if let Some(index) = self.open_permit(which) {
                    ops.push(Op::Measured {
                        deployment: self.permits[index].grant.deployment.clone(),
                        took: Micros(took),
                    });
                }
            }
            Action::Noise {
                kind,
                number,
                deployment,
                amount,
            } => {
                // Most numbers are near the last one that was drawn. The others are far below all of them.
                let granted = Seq(if number < 20 {
                    number
                } else {
                    self.seen.0.saturating_sub(number % 40).max(number)
                });
                let deployment = deployment_name(deployment);
                ops.push(match kind {
                    0 => Op::Done {
                        granted,
                        deployment,
                        tokens: Tokens::new(amount.saturating_sub(1), amount / 3),
                        excess: Tokens::new(amount / 2, number % 5),
                        ok: number % 2 == 0,
                    },
                    1 => Op::Unused { granted },
                    2 => Op::Hold {
                        granted,
                        deployment,
                        probe: amount % 2 == 0,
                    },
                    3 => {
                        let excess = amount % 2 == 0;
                        Op::Charge {
                            granted,
                            excess,
                            deployment,
                            requests: amount % 3,
                            tokens: Tokens::new(amount % 50, number % 30),
                            age: Micros(amount),
                        }
                    }
                    4 => Op::Cool {
                        deployment,
                        left: Micros(amount),
                        status: if amount % 2 == 0 { 429 } else { 0 },
                    },
                    5 => Op::Measured {
                        deployment,
                        took: Micros(amount),
                    },
                    6 => Op::Sent {
                        granted,
                        age: Micros(amount),
                    },
                    _ => {
                        let ok = amount % 2 == 0;
                        Op::Report {
                            granted,
                            deployment,
                            probe: number % 2 == 0,
                            again: number % 3 == 0,
                            ok,
                            status: 404,
                            cool: amount.cast_signed(),
                        }
                    }
                });
            }
            Action::CloseSession => {
                ops.push(Op::CloseSession {
                    clean: ops.is_empty(),
                });
                self.has_session = false;
            }
        }
    }
}
