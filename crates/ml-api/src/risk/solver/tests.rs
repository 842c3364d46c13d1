//! What standardised rows hardly ever need of the solver; the rest is tested through the model.

use super::*;

/// Full Newton steps on these six rows jump between far-off points for ever.
const OVERSHOOTING: [([f64; 2], bool); 6] = [
    ([2.0, 33.0], true),
    ([50.0, 1.0], false),
    ([-8.0, 23.0], false),
    ([37.0, -29.0], false),
    ([25.0, -1940.0], false),
    ([598.0, 0.0], false),
];

fn problem(rows: &[([f64; 2], bool)]) -> Problem {
    let row = |&([a, b], _): &([f64; 2], bool)| {
        let mut row = [0.0; WIDTH];
        (row[0], row[1], row[INTERCEPT]) = (a, b, 1.0);
        row
    };
    Problem {
        rows: rows.iter().map(row).collect(),
        defaults: rows.iter().map(|&(_, default)| default).collect(),
        weights: [0.6, 3.0],
    }
}

#[test]
fn a_step_that_overshoots_is_shortened_until_it_lowers_the_loss() {
    let problem = problem(&OVERSHOOTING);
    let minimum = minimise(&problem).unwrap_or_else(|stuck| panic!("stuck at {:e}", stuck.gradient));

    let mut parameters = [0.0; WIDTH];
    parameters[..FEATURE_COUNT].copy_from_slice(&minimum.coefficients);
    parameters[INTERCEPT] = minimum.intercept;
    let best = problem.at(parameters);
    let (gradient, _) = problem.derivatives(&best);
    assert!(largest(&gradient) < 1e-8, "{:e}", largest(&gradient));
    for place in [0, 1, INTERCEPT] {
        for change in [-1e-3, 1e-3] {
            let mut beside = parameters;
            beside[place] += change;
            assert!(problem.at(beside).loss > best.loss, "parameter {place} is not at its best");
        }
    }
}

#[test]
fn a_curvature_that_has_vanished_still_gives_a_finite_step() {
    let flat = [[0.0; WIDTH]; WIDTH];
    let mut gradient = [0.0; WIDTH];
    gradient[INTERCEPT] = 1.0;
    let step = newton_step(&flat, &gradient);
    assert!(step.iter().all(|change| change.is_finite()) && step[INTERCEPT] < 0.0);
}
