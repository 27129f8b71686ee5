//! Rounds: each visits every contender once, each time beginning with another one.

/// The contenders of a round, in its order.
pub(crate) fn order(contenders: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..contenders).map(move |place| (place + round) % contenders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_visits_all_contenders_and_begins_with_another_one() {
        let orders: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }
}
