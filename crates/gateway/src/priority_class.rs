//! Classes of priorities, for metrics and lists: priorities are any i32, a label must not be.

/// A class of priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PriorityClass {
    /// Below 0.
    Negative,
    /// 0.
    Zero,
    /// 1 to 9.
    Ones,
    /// 10 to 99.
    Tens,
    /// 100 to 999.
    Hundreds,
    /// 1000 and above.
    ThousandUp,
}

impl PriorityClass {
    /// All classes, the best first.
    pub const ALL: [Self; 6] = [
        Self::Negative,
        Self::Zero,
        Self::Ones,
        Self::Tens,
        Self::Hundreds,
        Self::ThousandUp,
    ];

    /// The class of a priority.
    pub fn of(priority: i32) -> Self {
        match priority {
            ..0 => Self::Negative,
            0 => Self::Zero,
            1..=9 => Self::Ones,
            10..=99 => Self::Tens,
            100..=999 => Self::Hundreds,
            1000.. => Self::ThousandUp,
        }
    }

    /// The metrics' label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Negative => "<0",
            Self::Zero => "0",
            Self::Ones => "1-9",
            Self::Tens => "10-99",
            Self::Hundreds => "100-999",
            Self::ThousandUp => "1000+",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_classes_cover_all_priorities() {
        let classes = [
            (i32::MIN, "<0"),
            (-1, "<0"),
            (0, "0"),
            (1, "1-9"),
            (9, "1-9"),
            (10, "10-99"),
            (99, "10-99"),
            (100, "100-999"),
            (999, "100-999"),
            (1000, "1000+"),
            (i32::MAX, "1000+"),
        ];
        for (priority, expected) in classes {
            assert_eq!(PriorityClass::of(priority).as_str(), expected, "{priority}");
        }
        for (index, class) in PriorityClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
