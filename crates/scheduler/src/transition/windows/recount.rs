//! Other lists of windows: entries of the former ones are recounted in parts (P16), and count by those until then.

use std::sync::Arc;

use super::{Dispatch, FIRST, Former, Key, List, WindowEntry, Windows, spans};
use crate::{message::MAX_RECOUNT, rules::Rules, units::Micros};

impl Windows {
    fn retire(&mut self, deployment: &Arc<str>, spans: Vec<Micros>) {
        let totals = self.totals.remove(deployment).unwrap_or_default();
        self.former.push(Former {
            generation: self.generation,
            deployment: deployment.clone(),
            spans,
            totals,
        });
    }

    fn begin_recount(&mut self) {
        self.generation += 1;
        self.recount = (!self.former.is_empty()).then_some(Micros::ZERO);
    }

    /// Other lists of windows are in force: entries of the former ones are recounted in parts (P16), and count by those until then.
    pub(in crate::transition) fn change_lists(&mut self, former: &Rules, rules: &Rules) {
        for known in &former.deployments {
            let list = spans(former, &known.id);
            if list != spans(rules, &known.id) {
                self.retire(&known.id, list.unwrap_or_default());
            }
        }
        self.begin_recount();
    }

    /// The group recovers: all entries are recounted, without the open charges. After a partial write the totals may be wrong, so none is used: nothing is granted
    /// before the recount has ended.
    pub(in crate::transition) fn recount_all(&mut self, rules: &Rules) {
        for deployment in &rules.deployments {
            let list = spans(rules, &deployment.id).unwrap_or_default();
            self.retire(&deployment.id, list);
            let former = self.former.iter_mut();
            former
                .filter(|f| f.deployment == deployment.id)
                .for_each(|f| f.totals.clear());
        }
        self.begin_recount();
    }

    pub(in crate::transition) fn is_counted(&self) -> bool {
        self.recount.is_none()
    }

    /// A part of all entries, from a time in the order of their blocks on (P16), and the time where the next part begins.
    pub(in crate::transition) fn part(&self, from: Micros) -> (Vec<Key>, Option<Micros>) {
        let mut found: Vec<Key> = Vec::new();
        let mut last = from;
        for (at, block) in self.order.range((from, FIRST)..) {
            // A part has all blocks of its last time, because the next one begins at a time.
            if found.len() >= MAX_RECOUNT && *at > last {
                break;
            }
            last = *at;
            found.extend(self.block(*block).map(|(key, _)| key));
        }
        let more = found.len() >= MAX_RECOUNT;
        (found, more.then_some(last + Micros(1)))
    }

    /// Recounts a part of the entries. `now`: entries have expired up to then; `recovering`: open charges are dropped. Returns whether there are more to be recounted.
    pub(in crate::transition) fn recount(
        &mut self,
        rules: &Rules,
        now: Micros,
        recovering: bool,
    ) -> bool {
        // The blocks of this part are recounted wholly, wherever they move.
        let Some(from) = self.recount.take() else {
            return false;
        };
        let (found, next) = self.part(from);
        for key in &found {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            let deployment = &entry.charge.deployment;
            let named = rules.deployments.iter().any(|d| d.id == *deployment);
            let (list, _) = self.list(rules, deployment, entry.generation);
            let void = recovering && entry.charge.dispatch == Dispatch::Open;
            if !void && (list == List::Current || !named) {
                continue;
            }
            let charge = self.remove(rules, *key);
            if let Some(charge) = charge.filter(|_| !void) {
                self.insert(rules, now, *key, charge);
            }
        }
        self.recount = next;
        if next.is_none() {
            self.drop_empty();
        }
        next.is_some()
    }

    /// A former list counts the entry though the rules name its deployment.
    pub(super) fn is_to_be_recounted(&self, rules: &Rules, entry: &WindowEntry) -> bool {
        let deployment = &entry.charge.deployment;
        let (list, _) = self.list(rules, deployment, entry.generation);
        list != List::Current && spans(rules, deployment).is_some()
    }

    /// The number of entries that are to be recounted.
    pub(in crate::transition) fn unrecounted(&self, rules: &Rules) -> u64 {
        let entries = self.entries.values();
        entries
            .filter(|entry| self.is_to_be_recounted(rules, entry))
            .count() as u64
    }
}
