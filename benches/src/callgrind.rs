//! What callgrind counted.

/// Of a whole process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) instructions: u64,
    /// Calls of the allocator, but for those that it makes of itself.
    pub(crate) allocations: u64,
}

/// Entries of mimalloc.
const ALLOCATORS: [&str; 6] = [
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_realloc",
    "mi_realloc_aligned",
];

/// Reads a file of callgrind. None where it has no totals: the process was killed.
pub(crate) fn parse(text: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    let total = text.lines().find_map(|line| line.strip_prefix("totals:"));
    totals.instructions = total?.trim().parse().ok()?;
    // A name is written once: `fn=(12) name`, later `fn=(12)`.
    let mut allocators: Vec<&str> = Vec::new();
    let mut own: Vec<&str> = Vec::new();
    let (mut from_own, mut to_allocator) = (false, false);
    for line in text.lines() {
        let name = line
            .strip_prefix("fn=")
            .or_else(|| line.strip_prefix("cfn="));
        if let Some(name) = name {
            let (id, name) = name.split_once(' ').unwrap_or((name, ""));
            if ALLOCATORS.contains(&name) {
                allocators.push(id);
            }
            if name.starts_with("mi_") || name.starts_with("_mi_") {
                own.push(id);
            }
            if line.starts_with("fn=") {
                from_own = own.contains(&id);
            } else {
                to_allocator = allocators.contains(&id);
            }
        } else if let Some(calls) = line.strip_prefix("calls=")
            && to_allocator
            && !from_own
        {
            totals.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(totals)
}

/// What each of the further requests cost: two runs differ only in their number.
pub(crate) fn each(fewer: (u64, Totals), more: (u64, Totals)) -> (f64, f64) {
    let by = (more.0 - fewer.0) as f64;
    let each = |of: fn(&Totals) -> u64| (of(&more.1) as f64 - of(&fewer.1) as f64) / by;
    (each(|t| t.instructions), each(|t| t.allocations))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "events: Ir\n\
        fn=(1) main\n3 10\ncfn=(2) mi_malloc\ncalls=5 0\n3 50\ncfn=(3) other\ncalls=7 0\n3 70\n\
        \nfn=(4) mi_heap_grow\n1 1\ncfn=(2)\ncalls=100 0\n1 1\n\
        \nfn=(3)\n1 1\ncfn=(5) mi_realloc_aligned\ncalls=2 0\n1 1\ntotals: 1234\n";

    #[test]
    fn allocations_are_calls_from_outside_of_the_allocator() {
        let expected = Totals {
            instructions: 1234,
            allocations: 7,
        };
        assert_eq!(parse(FILE), Some(expected));
        assert_eq!(parse("events: Ir\n"), None);
    }

    #[test]
    fn cost_of_a_request_leaves_out_what_both_runs_have() {
        let totals = |instructions, allocations| Totals {
            instructions,
            allocations,
        };
        let each = each(
            (500, totals(1_500_000, 9_000)),
            (2500, totals(3_500_000, 69_000)),
        );
        assert_eq!(each, (1000.0, 30.0));
    }
}
