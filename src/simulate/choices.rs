//! What a simulation does where something is unknown: it follows every possibility, and compares the results.

use super::path::PacketPath;
use super::run::TooComplex;

/// The number of possibilities that are followed; beyond, the result counts as uncertain.
const MAX_RUNS: usize = 256;

/// Decisions about what is unknown, in the order in which a run meets them. By default, each is no.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    made: Vec<bool>,
    /// How many of them were given; the rest are defaults.
    given: usize,
    used: usize,
}

impl Choices {
    /// The next decision.
    pub fn next(&mut self) -> bool {
        if self.used == self.made.len() {
            self.made.push(false);
        }
        self.used += 1;
        self.made[self.used - 1]
    }

    /// The decisions with one default reversed, and those before it.
    fn alternatives(&self) -> impl Iterator<Item = Self> {
        (self.given..self.made.len()).map(|at| {
            let mut made = self.made[..at].to_vec();
            made.push(true);
            Self {
                given: made.len(),
                made,
                used: 0,
            }
        })
    }
}

/// The path with default decisions; it is certain if every other possibility has the same result.
///
/// # Errors
/// A run failed.
pub fn explore<'r>(
    run: impl Fn(Choices) -> Result<(PacketPath<'r>, Choices), TooComplex>,
) -> Result<PacketPath<'r>, TooComplex> {
    let (mut path, choices) = run(Choices::default())?;
    let mut pending: Vec<Choices> = choices.alternatives().collect();
    let mut runs = 1;
    while let Some(next) = pending.pop().filter(|_| path.certain) {
        if runs == MAX_RUNS {
            path.certain = false;
            break;
        }
        runs += 1;
        let (other, choices) = run(next)?;
        pending.extend(choices.alternatives());
        if !other.certain || !path.has_same_result(&other) {
            path.certain = false;
            let new: Vec<String> = other
                .doubts
                .into_iter()
                .filter(|doubt| !path.doubts.contains(doubt))
                .collect();
            path.doubts.extend(new);
        }
    }
    if path.certain {
        path.doubts.clear();
    }
    Ok(path)
}

impl PacketPath<'_> {
    /// Whether the packet gets to the same place with the same properties.
    fn has_same_result(&self, other: &Self) -> bool {
        (self.verdict, &self.end, self.redirected_to) == (other.verdict, &other.end, other.redirected_to)
            && (self.mark, self.zone, self.connection_mark) == (other.mark, other.zone, other.connection_mark)
    }
}
