//! What was found, for people.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Statements fail, or would be answered wrongly.
    Problem,
    /// Something may fail some day, or is probably not meant so.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub gravity: Gravity,
    /// What is so.
    pub says: String,
    /// What to do about it.
    pub advice: String,
}

impl Finding {
    /// Statements fail, or would be answered wrongly.
    pub fn problem(says: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { gravity: Gravity::Problem, says: says.into(), advice: advice.into() }
    }

    /// Something may fail some day, or is probably not meant so.
    pub fn warning(says: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { gravity: Gravity::Warning, says: says.into(), advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.gravity {
            Gravity::Problem => "PROBLEM",
            Gravity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.says)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n    -> {}", self.advice) }
    }
}

/// What a look at one database gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// What was looked at, a line each.
    pub seen: Vec<String>,
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// How many findings are of this gravity.
    pub fn count(&self, gravity: Gravity) -> usize {
        self.findings.iter().filter(|finding| finding.gravity == gravity).count()
    }

    /// As lines for people.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.iter().map(|line| format!("  {line}"));
        seen.chain(self.findings.iter().map(|finding| format!("  {finding}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        let finding = Finding::problem("it is broken", "mend it");
        assert_eq!(finding.to_string(), "PROBLEM: it is broken\n    -> mend it");
        assert_eq!(Finding::warning("odd", "").to_string(), "warning: odd");
        let inspection = Inspection { seen: vec!["a host".into()], findings: vec![finding] };
        assert_eq!(inspection.lines(), ["  a host", "  PROBLEM: it is broken\n    -> mend it"]);
        assert_eq!((inspection.count(Gravity::Problem), inspection.count(Gravity::Warning)), (1, 0));
    }
}
