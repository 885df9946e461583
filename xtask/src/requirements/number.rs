//! Numbers of requirements and of their clauses.

use std::fmt;

/// A requirement, such as R46, or one of its clauses, such as R46d.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Number {
    /// The requirement's number.
    pub requirement: u16,
    /// The clause's letter.
    pub clause: Option<char>,
}

impl Number {
    /// Reads a number such as `R46d`; anything else is none.
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word.strip_prefix('R')?;
        let digits = rest.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let mut clause = rest[digits.len()..].chars();
        let clause = (clause.next(), clause.next());
        let sound = (1..=3).contains(&digits.len()) && !digits.starts_with('0') && clause.1.is_none();
        let requirement = digits.parse().ok().filter(|_| sound)?;
        Some(Self { requirement, clause: clause.0 })
    }

    /// The requirement, without a clause.
    pub fn whole(self) -> Self {
        Self { clause: None, ..self }
    }

    /// Whether `other` is this requirement or clause, or a clause of this requirement.
    pub fn has(self, other: Self) -> bool {
        self == other || self == other.whole()
    }

    /// How the names of its tests begin.
    pub fn prefix(self) -> String {
        self.to_string().to_lowercase()
    }

    /// Numbers that a test's name begins with, such as R1 and R3 in `r1_r3_golden`.
    pub fn leading(name: &str) -> Vec<Self> {
        let numbered = |word: &str| word.strip_prefix('r').and_then(|rest| Self::parse(&format!("R{rest}")));
        name.split('_').map_while(numbered).collect()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}", self.requirement)?;
        self.clause.map_or(Ok(()), |clause| write!(f, "{clause}"))
    }
}

/// Numbers that stand in a text as words of their own.
pub fn find(text: &str) -> Vec<Number> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter_map(Number::parse).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn words(numbers: &[Number]) -> Vec<String> {
        numbers.iter().map(Number::to_string).collect()
    }

    #[test]
    fn numbers_are_words_of_their_own() {
        assert_eq!(words(&find("as R24-R26, R46d and (R8)")), ["R24", "R26", "R46d", "R8"]);
        assert_eq!(words(&find("R, R0, R01, R1234, R46ab, XR1, R1_x, r5, RFC")), Vec::<String>::new());
    }

    #[test]
    fn a_test_begins_with_its_numbers() {
        assert_eq!(words(&Number::leading("r1_r46c_the_vm_returns")), ["R1", "R46c"]);
        assert_eq!(words(&Number::leading("rings_of_r1")), Vec::<String>::new());
    }

    #[test]
    fn a_requirement_has_its_clauses() {
        let (r46, r46d) = (Number::parse("R46").expect("a number"), Number::parse("R46d").expect("a clause"));
        assert!(r46.has(r46d) && r46.has(r46) && !r46d.has(r46));
        assert_eq!(r46d.prefix(), "r46d");
    }
}
