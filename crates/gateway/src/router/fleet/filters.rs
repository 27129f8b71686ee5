//! Filters of tickets that can match nothing: a typing error would look like an empty queue.

use super::{Fleet, FleetError, TicketQuery};
use crate::group::OpenGroup;

impl Fleet {
    /// Whether a query that matched no ticket could match one, as far as that is known. Tenants are known by their tickets only, and
    /// programs may make calls with keys that no configuration has.
    pub(super) async fn could_match(
        &self,
        group: &OpenGroup,
        query: &TicketQuery,
    ) -> Result<(), FleetError> {
        let router = self.router.inner();
        if query.tenant.is_some() && group.settings.fair.is_none() {
            let name = &group.settings.name;
            return Err(FleetError::Invalid(format!(
                "Tickets of the group {name} have no tenants: it has no fair shares"
            )));
        }
        if let Some(key) = &query.key {
            let mut keys = router.config.keys.iter();
            let configured = keys.any(|known| known.policy.name == *key);
            let digits = key.strip_prefix('#');
            let number = digits.is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok());
            if !configured && !number {
                return Err(FleetError::NotFound(format!(
                    "There is no key of the name {key}, and nothing of it waits"
                )));
            }
        }
        if let Some(instance) = &query.instance {
            let own = self.member.office.instance();
            if **own != **instance && !self.instances(&router).await.contains(instance) {
                return Err(FleetError::NotFound(format!(
                    "There is no instance {instance}, and nothing of it waits"
                )));
            }
        }
        Ok(())
    }
}
