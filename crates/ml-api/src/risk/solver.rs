//! The minimum of the penalised, weighted logistic loss, by damped Newton steps.
//!
//! ```text
//! loss(w, b) = ½ w·w + Σ weight(yᵢ) · ln(1 + exp(-(2yᵢ-1)(w·xᵢ + b)))      b is not penalised
//! ```
//!
//! Why it cannot diverge: the loss is strictly convex and grows without bound in every direction as long as both classes
//! are there (the penalty holds w, the two classes hold b), so it has exactly one minimum; each step is
//! accepted only if it lowers the loss, halved until it does. Separable, collinear and constant columns are ordinary
//! cases of this. Decision 0011 compares it with the crates there are.

use super::{
    features::FEATURE_COUNT,
    parts::{PART, in_parts},
};

#[cfg(test)]
mod tests;

/// The features, the intercept's 1 and a 0, so that a row is a whole number of vector registers.
pub(super) const WIDTH: usize = FEATURE_COUNT + 2;
const INTERCEPT: usize = FEATURE_COUNT;
const PARAMETERS: usize = FEATURE_COUNT + 1;

/// One standardised row: features, 1, 0.
pub(super) type Row = [f64; WIDTH];
type Vector = [f64; WIDTH];
type Matrix = [[f64; WIDTH]; WIDTH];

/// Newton needs about 8 steps; data that needs more than this has defeated the arithmetic.
const MAX_ITERATIONS: u32 = 100;
/// Largest gradient component per row at the minimum.
const GRADIENT_TOLERANCE: f64 = 1e-10;
/// Largest last step of a parameter. Newton's error after a step of s is of the order s².
const STEP_TOLERANCE: f64 = 1e-8;
/// Share of the promised decrease that a step must bring (Armijo's rule, its usual constant).
const SUFFICIENT: f64 = 1e-4;
/// Losses closer than this, relatively, are equal but for rounding.
const ROUNDING: f64 = 1e-13;

/// What is minimised.
pub(super) struct Problem {
    pub(super) rows: Vec<Row>,
    pub(super) defaults: Vec<bool>,
    /// Of a repaid and of a defaulted row.
    pub(super) weights: [f64; 2],
}

/// Where the minimum is.
pub(super) struct Minimum {
    pub(super) coefficients: [f64; FEATURE_COUNT],
    pub(super) intercept: f64,
    pub(super) iterations: u32,
}

/// The largest gradient component per row where the solver stopped short.
pub(super) struct Stuck {
    pub(super) iterations: u32,
    pub(super) gradient: f64,
}

/// A point, with what the next step needs.
struct Point {
    parameters: Vector,
    loss: f64,
    probabilities: Vec<f64>,
}

pub(super) fn minimise(problem: &Problem) -> Result<Minimum, Stuck> {
    let mut point = problem.at([0.0; WIDTH]);
    let mut spare = Vec::new();
    for iterations in 0..MAX_ITERATIONS {
        let (gradient, hessian) = problem.derivatives(&point);
        let steepest = largest(&gradient) / problem.rows.len() as f64;
        let flat = steepest <= GRADIENT_TOLERANCE;
        let step = newton_step(&hessian, &gradient);
        if flat && largest(&step) <= STEP_TOLERANCE {
            return Ok(point.minimum(&step, iterations));
        }
        match problem.search(&point, &step, &gradient, &mut spare) {
            Some(next) => spare = std::mem::replace(&mut point, next).probabilities,
            // Only rounding is left in the step.
            None if flat => return Ok(point.minimum(&[0.0; WIDTH], iterations)),
            None => return Err(Stuck { iterations, gradient: steepest }),
        }
    }
    let (gradient, _) = problem.derivatives(&point);
    Err(Stuck { iterations: MAX_ITERATIONS, gradient: largest(&gradient) / problem.rows.len() as f64 })
}

impl Point {
    /// With the last step taken: it is computed already, and squares the error.
    fn minimum(&self, step: &Vector, iterations: u32) -> Minimum {
        let parameter = |place: usize| self.parameters[place] + step[place];
        let coefficients = std::array::from_fn(parameter);
        Minimum { coefficients, intercept: parameter(INTERCEPT), iterations }
    }
}

impl Problem {
    fn at(&self, parameters: Vector) -> Point {
        self.evaluate(parameters, Vec::with_capacity(self.rows.len()))
    }

    /// The loss, and the probability of each row, into the buffer of an earlier point.
    fn evaluate(&self, parameters: Vector, mut probabilities: Vec<f64>) -> Point {
        probabilities.resize(self.rows.len(), 0.0);
        let parts =
            self.rows.chunks(PART).zip(self.defaults.chunks(PART)).zip(probabilities.chunks_mut(PART));
        let parts = in_parts(parts, |((rows, defaults), probabilities)| {
            losses(&parameters, rows, defaults, probabilities)
        });
        let mut losses = [0.0; 2];
        for [repaid, defaulted] in parts {
            losses[0] += repaid;
            losses[1] += defaulted;
        }
        let penalty = 0.5 * dot(&parameters, &parameters) - 0.5 * parameters[INTERCEPT].powi(2);
        let loss = penalty + self.weights[0] * losses[0] + self.weights[1] * losses[1];
        Point { parameters, loss, probabilities }
    }

    /// Gradient and Hessian. Of the Hessian, the lower triangle is right.
    fn derivatives(&self, point: &Point) -> (Vector, Matrix) {
        let mut gradient = point.parameters;
        gradient[INTERCEPT] = 0.0;
        let mut hessian = [[0.0; WIDTH]; WIDTH];
        for (column, row) in hessian.iter_mut().enumerate().take(FEATURE_COUNT) {
            row[column] = 1.0; // The penalty's share; the intercept has none.
        }
        let parts =
            self.rows.chunks(PART).zip(self.defaults.chunks(PART)).zip(point.probabilities.chunks(PART));
        let parts = in_parts(parts, |((rows, defaults), probabilities)| {
            self.derivatives_of(rows, defaults, probabilities)
        });
        for (of_part, matrix) in parts {
            gradient.iter_mut().zip(of_part).for_each(|(sum, value)| *sum += value);
            hessian.iter_mut().flatten().zip(matrix.iter().flatten()).for_each(|(sum, value)| *sum += value);
        }
        (gradient, hessian)
    }

    /// The rows' share of both, without the penalty.
    fn derivatives_of(&self, rows: &[Row], defaults: &[bool], probabilities: &[f64]) -> (Vector, Matrix) {
        let mut gradient = [0.0; WIDTH];
        let mut hessian = [[0.0; WIDTH]; WIDTH];
        let mut curvatures = [0.0; BLOCK];
        for (block, rows) in rows.chunks(BLOCK).enumerate() {
            for (offset, row) in rows.iter().enumerate() {
                let place = block * BLOCK + offset;
                let (default, probability) = (defaults[place], probabilities[place]);
                let weight = self.weights[usize::from(default)];
                curvatures[offset] = weight * probability * (1.0 - probability);
                let residual = weight * (probability - f64::from(u8::from(default)));
                for (sum, value) in gradient.iter_mut().zip(row) {
                    *sum += residual * value;
                }
            }
            match rows.try_into() {
                Ok(rows) => add_block(&mut hessian, rows, &curvatures),
                Err(_) => {
                    rows.iter().zip(curvatures).for_each(|(row, c)| add_block(&mut hessian, &[*row], &[c]))
                }
            }
        }
        (gradient, hessian)
    }

    /// The first of step, step/2, step/4, … that lowers the loss enough; `None` if none does.
    fn search(&self, from: &Point, step: &Vector, gradient: &Vector, spare: &mut Vec<f64>) -> Option<Point> {
        let promised = -dot(gradient, step);
        let mut length = 1.0;
        // Below 2^-60 of a step, no parameter changes.
        for _ in 0..60 {
            let mut parameters = from.parameters;
            for (parameter, change) in parameters.iter_mut().zip(step) {
                *parameter += length * change;
            }
            let next = self.evaluate(parameters, std::mem::take(spare));
            if next.loss <= from.loss - SUFFICIENT * length * promised + ROUNDING * from.loss {
                return Some(next);
            }
            *spare = next.probabilities;
            length *= 0.5;
        }
        None
    }
}

/// The losses of repaid and defaulted rows, and each row's probability.
fn losses(parameters: &Vector, rows: &[Row], defaults: &[bool], probabilities: &mut [f64]) -> [f64; 2] {
    let mut losses = [0.0; 2];
    for ((row, &default), probability) in rows.iter().zip(defaults).zip(probabilities) {
        let margin = dot(row, parameters);
        let small = (-margin.abs()).exp();
        let likely = 1.0 / (1.0 + small);
        *probability = if margin >= 0.0 { likely } else { small * likely };
        let wrong_by = if default { -margin } else { margin };
        losses[usize::from(default)] += wrong_by.max(0.0) + small.ln_1p();
    }
    losses
}

/// Rows that share one pass over the Hessian: its loads and stores cost more than the arithmetic.
const BLOCK: usize = 4;

/// Adds Σ curvature · row · rowᵀ to the lower triangle.
fn add_block<const N: usize>(hessian: &mut Matrix, rows: &[Row; N], curvatures: &[f64; N]) {
    for column in 0..PARAMETERS {
        let mut scaled = [0.0; N];
        for k in 0..N {
            scaled[k] = curvatures[k] * rows[k][column];
        }
        // Up to the diagonal, rounded up to whole registers.
        let end = (column / 4 + 1) * 4;
        for (place, sum) in hessian[column][..end].iter_mut().enumerate() {
            for k in 0..N {
                *sum += scaled[k] * rows[k][place];
            }
        }
    }
}

/// -H⁻¹g, by Cholesky. H is positive definite; where rounding says otherwise (probabilities of exactly 0 and 1 leave
/// the intercept without curvature), the diagonal is raised until it is.
fn newton_step(hessian: &Matrix, gradient: &Vector) -> Vector {
    let scale = (0..PARAMETERS).fold(1.0_f64, |scale, i| scale.max(hessian[i][i]));
    let mut ridge = 0.0;
    loop {
        if let Some(factor) = cholesky(hessian, ridge) {
            return solve(&factor, gradient);
        }
        ridge = if ridge == 0.0 { scale * f64::EPSILON } else { ridge * 100.0 };
    }
}

/// The lower factor of H + ridge; `None` if that is not positive definite.
fn cholesky(hessian: &Matrix, ridge: f64) -> Option<Matrix> {
    let mut factor = [[0.0; WIDTH]; WIDTH];
    for i in 0..PARAMETERS {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| factor[i][k] * factor[j][k]).sum();
            let rest = hessian[i][j] - known;
            if i != j {
                factor[i][j] = rest / factor[j][j];
                continue;
            }
            let pivot = rest + ridge;
            // Less than the rounding of what was subtracted is no pivot.
            if pivot <= hessian[i][i] * f64::EPSILON {
                return None;
            }
            factor[i][i] = pivot.sqrt();
        }
    }
    Some(factor)
}

fn solve(factor: &Matrix, gradient: &Vector) -> Vector {
    let mut step = [0.0; WIDTH];
    for i in 0..PARAMETERS {
        let known: f64 = (0..i).map(|k| factor[i][k] * step[k]).sum();
        step[i] = (-gradient[i] - known) / factor[i][i];
    }
    for i in (0..PARAMETERS).rev() {
        let known: f64 = (i + 1..PARAMETERS).map(|k| factor[k][i] * step[k]).sum();
        step[i] = (step[i] - known) / factor[i][i];
    }
    step
}

/// In four sums, which the processor adds at the same time.
fn dot(a: &Vector, b: &Vector) -> f64 {
    let mut sums = [0.0; 4];
    for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

fn largest(vector: &Vector) -> f64 {
    vector.iter().fold(0.0, |largest, value| value.abs().max(largest))
}
