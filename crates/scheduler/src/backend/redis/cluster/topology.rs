//! Which node serves which slot, as the nodes say it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::{
    Pipeline, RedisResult, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    from_redis_value,
};
use tokio::time::{Instant, timeout_at};

use super::Address;

/// How long an answer of one node waits for those of others, which may know better.
const OTHERS: Duration = Duration::from_millis(100);

/// Slots of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: Address,
}

/// What one node knew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topology {
    ranges: Vec<Range>,
    /// Masters and replicas.
    pub(super) all: BTreeSet<Address>,
    /// The node belongs to a majority.
    healthy: bool,
    /// The newest configuration that it had heard of.
    epoch: u64,
}

// === impl Topology ===

impl Topology {
    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let serves = |range: &&Range| (range.first..=range.last).contains(&slot);
        self.ranges.iter().find(serves).map(|range| &range.master)
    }

    pub(super) fn masters(&self) -> BTreeSet<&Address> {
        self.ranges.iter().map(|range| &range.master).collect()
    }

    /// A node said that another one serves a slot.
    pub(super) fn moved(&mut self, slot: u16, to: Address) {
        // The first range that has the slot counts.
        let range = Range {
            first: slot,
            last: slot,
            master: to.clone(),
        };
        self.ranges.insert(0, range);
        self.all.insert(to);
    }

    /// Asks nodes at once. Of their answers counts that of a majority with the newest configuration: a node that was cut off still
    /// claims its slots.
    pub(super) async fn ask<N>(nodes: Vec<N>, deadline: Instant) -> RedisResult<Self>
    where
        N: Future<Output = RedisResult<(Address, MultiplexedConnection)>>,
    {
        let mut asked: FuturesUnordered<_> = nodes.into_iter().map(Self::of).collect();
        let (mut best, mut failure) = (None::<Self>, None);
        let mut until = deadline;
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(topology) => {
                    if topology.healthy {
                        until = until.min(Instant::now() + OTHERS);
                    }
                    let rank = |topology: &Self| (topology.healthy, topology.epoch);
                    if best
                        .as_ref()
                        .is_none_or(|best| rank(&topology) > rank(best))
                    {
                        best = Some(topology);
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        match (best, failure) {
            (Some(best), _) => Ok(best),
            (None, Some(error)) => Err(error),
            (None, None) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    async fn of(
        node: impl Future<Output = RedisResult<(Address, MultiplexedConnection)>>,
    ) -> RedisResult<Self> {
        let (address, mut connection) = node.await?;
        let mut pipeline = Pipeline::new();
        pipeline
            .cmd("CLUSTER")
            .arg("SLOTS")
            .cmd("CLUSTER")
            .arg("INFO");
        let answers = connection.req_packed_commands(&pipeline, 0, 2).await?;
        let mut answers = answers.into_iter();
        let slots = answers.next().unwrap_or(Value::Nil).extract_error()?;
        let state = answers.next().unwrap_or(Value::Nil).extract_error()?;
        let state: String = from_redis_value(state)?;
        let field = |name: &str| {
            let line = state.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(':'))
        };
        let mut topology = Self {
            healthy: field("cluster_state") == Some("ok"),
            epoch: field("cluster_current_epoch")
                .and_then(|epoch| epoch.parse().ok())
                .unwrap_or(0),
            ..Self::default()
        };
        for range in from_redis_value::<Vec<Vec<Value>>>(slots)? {
            let mut range = range.into_iter();
            let (Some(first), Some(last)) = (range.next(), range.next()) else {
                continue;
            };
            let (first, last) = (from_redis_value(first)?, from_redis_value(last)?);
            let nodes: Vec<Option<Address>> =
                range.map(|node| Address::read(node, &address)).collect();
            // A master whose address nobody knows cannot be reached; what it serves is not served.
            if let Some(Some(master)) = nodes.first() {
                topology.ranges.push(Range {
                    first,
                    last,
                    master: master.clone(),
                });
            }
            topology.all.extend(nodes.into_iter().flatten());
        }
        Ok(topology)
    }
}

/// The slot of a key or channel: that of its hash tag, if it has one.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key).as_bytes()) % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(
            text,
            &Address {
                host: "sender".into(),
                port: 1,
            },
        )
        .unwrap()
    }

    #[test]
    fn slot_is_that_of_the_hash_tag() {
        // From the specification of Redis Cluster.
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("vorrang:8:{foo}:meta"), slot("foo"));
        assert_eq!(slot("foo"), 12182);
        assert_ne!(slot("{}foo"), slot("foo"));
    }

    #[test]
    fn moved_slot_replaces_its_range_only() {
        let mut topology = Topology {
            ranges: vec![Range {
                first: 0,
                last: 16383,
                master: address("a:1"),
            }],
            ..Topology::default()
        };
        topology.moved(7, address("b:1"));
        assert_eq!(topology.master(7), Some(&address("b:1")));
        assert_eq!(topology.master(8), Some(&address("a:1")));
    }
}
