//! How many connections each address has.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Open connections by address, where their number has a limit.
#[derive(Debug, Default)]
pub(crate) struct AddressCounts(Mutex<HashMap<IpAddr, usize>>);

/// A connection that counts for its address, until the drop.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<AddressCounts>,
    address: IpAddr,
}

// === impl AddressCounts ===

impl AddressCounts {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection; `None` where its address has `most` of them.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let address = counted_as(address);
        let mut counts = self.lock();
        let open = counts.entry(address).or_default();
        // Zero is no limit that can be set: an entry that is refused has others.
        if *open >= most {
            return None;
        }
        *open += 1;
        Some(Counted {
            counts: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.counts.lock().entry(self.address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// A host has all addresses of its /64 in IPv6.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_by_address_and_by_64_bits_of_ipv6() {
        let counts = Arc::<AddressCounts>::default();
        let count = |address: &str| counts.count(address.parse().unwrap(), 2);
        let first = count("10.0.0.1");
        let second = count("::ffff:10.0.0.1");
        assert!(first.is_some() && second.is_some());
        assert!(count("10.0.0.1").is_none());
        let other = count("10.0.0.2");
        assert!(other.is_some());
        drop(first);
        let third = count("10.0.0.1");
        assert!(third.is_some() && count("10.0.0.1").is_none());

        let sixes = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"].map(count);
        assert!(sixes.iter().all(Option::is_some));
        assert!(count("2001:db8:0:1::3").is_none());
        assert!(count("2001:db8:0:2::1").is_some());
        drop((second, third, other, sixes));
        assert!(
            counts.lock().is_empty(),
            "nothing is kept of what is closed"
        );
    }
}
