//! Chance that can be had again: the same seed gives the same choices on every machine and in every version.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// Dice for somebody else, independent of how often these are thrown afterwards.
    pub fn fork(&mut self) -> Dice {
        Dice::new(self.next())
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from the range.
    pub fn between(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in this many cases of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(0..100) < percent
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.between(0..from.len() as u64)).unwrap()]
    }
}

/// The seed of a run: `PGYARD_CHAOS_SEED`, or a new one. It is printed, so that the run can be had again.
pub fn seed_of_run() -> u64 {
    match std::env::var("PGYARD_CHAOS_SEED") {
        Ok(text) if !text.is_empty() => text.parse().expect("PGYARD_CHAOS_SEED is a number"),
        _ => rand::random::<u32>().into(),
    }
}

/// How long a run goes on: `PGYARD_CHAOS_MINUTES`; `None` is the short run of the suite.
pub fn minutes_of_run() -> Option<std::time::Duration> {
    let text = std::env::var("PGYARD_CHAOS_MINUTES").ok().filter(|text| !text.is_empty())?;
    let minutes: f64 = text.parse().expect("PGYARD_CHAOS_MINUTES is a number");
    Some(std::time::Duration::from_secs_f64(minutes * 60.0))
}

#[test]
fn the_same_seed_gives_the_same_choices() {
    let throw = |seed| (0..5).map(|_| seed).scan(Dice::new(seed), |dice, _| Some(dice.next())).collect::<Vec<_>>();
    // Spec: the reference implementation of SplitMix64.
    assert_eq!(throw(1_234_567)[..2], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    assert_ne!(throw(1), throw(2));
}
