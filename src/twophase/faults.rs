//! Points at which a test lets the process die.

use std::sync::OnceLock;

/// The environment variable that names a point.
const VARIABLE: &str = "PGYARD_FAULT_POINT";

/// A step of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Nothing is prepared yet.
    BeforePrepare,
    /// PREPARE TRANSACTION was sent.
    Preparing,
    /// All but the decider have prepared.
    Prepared,
    /// The decider's commit was sent.
    Deciding,
    /// The decision is made.
    Decided,
    /// COMMIT PREPARED was sent.
    Following,
}

impl FaultPoint {
    /// Every point, in order.
    pub const ALL: [FaultPoint; 6] = [
        FaultPoint::BeforePrepare,
        FaultPoint::Preparing,
        FaultPoint::Prepared,
        FaultPoint::Deciding,
        FaultPoint::Decided,
        FaultPoint::Following,
    ];

    /// Its name in the variable.
    pub fn name(self) -> &'static str {
        match self {
            FaultPoint::BeforePrepare => "before_prepare",
            FaultPoint::Preparing => "preparing",
            FaultPoint::Prepared => "prepared",
            FaultPoint::Deciding => "deciding",
            FaultPoint::Decided => "decided",
            FaultPoint::Following => "following",
        }
    }

    /// Whether `PGYARD_FAULT_POINT` names it: then the process ends there, as in a crash. Costs a look at a cell.
    pub fn is_chosen(self) -> bool {
        static CHOSEN: OnceLock<Option<FaultPoint>> = OnceLock::new();
        let choose = || {
            let name = std::env::var(VARIABLE).ok()?;
            FaultPoint::ALL.into_iter().find(|point| point.name() == name)
        };
        *CHOSEN.get_or_init(choose) == Some(self)
    }
}
