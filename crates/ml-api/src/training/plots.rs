//! What a report looks like: ROC, calibration, score distribution of the held-out rows, and the coefficients.

use super::{
    report::{HeldOut, Report},
    svg::{BLUE, Chart, Corner, GREY, RED, end_of_axis},
};

/// Bars of the score distribution.
const BARS: usize = 25;
/// Points of a curve that still differ on a screen.
const POINTS: usize = 500;
const UNIT: (f64, f64) = (0.0, 1.0);
/// Room for ticks and text beside the y axis.
const BESIDE: f64 = 75.0;

/// File names and SVG texts. Without held-out rows, only the coefficients: the rest is not known.
pub(super) fn all(report: &Report) -> Vec<(&'static str, String)> {
    let source = report.model.training_data().to_string();
    let mut plots = vec![("coefficients.svg", coefficients(report, &source))];
    if let Some(held_out) = &report.held_out {
        plots.push(("roc.svg", roc(held_out, &source)));
        plots.push(("calibration.svg", calibration(held_out, &source)));
        plots.push(("score_distribution.svg", distribution(held_out, &source)));
    }
    plots
}

fn roc(held_out: &HeldOut, source: &str) -> String {
    let auc = held_out.metrics.roc_auc.map_or("unknown".to_owned(), |auc| format!("{auc:.4}"));
    let title = format!("ROC on {} held-out rows ({source} data), AUC {auc}", held_out.metrics.rows);
    let mut chart = Chart::new(&title, BESIDE, UNIT, UNIT);
    chart.axes("share of repaid loans called defaults (false alarms)", "share of defaults found");
    chart.x_ticks();
    chart.y_ticks();
    chart.reference((0.0, 0.0), (1.0, 1.0));
    chart.line(BLUE, roc_curve(&held_out.scored));
    chart.keys(Corner::BottomRight, &[(BLUE, "the model"), (GREY, "guessing")]);
    chart.finish()
}

/// From the strictest threshold to the loosest. Rows of equal probability are one step.
fn roc_curve(scored: &[(f64, bool)]) -> Vec<(f64, f64)> {
    let mut scored = scored.to_vec();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let defaults = scored.iter().filter(|row| row.1).count().max(1) as f64;
    let repaid = scored.iter().filter(|row| !row.1).count().max(1) as f64;
    let (mut found, mut alarms) = (0.0, 0.0);
    let mut curve = vec![(0.0, 0.0)];
    for tie in scored.chunk_by(|a, b| a.0 == b.0) {
        let tied = tie.iter().filter(|row| row.1).count() as f64;
        found += tied;
        alarms += tie.len() as f64 - tied;
        curve.push((alarms / repaid, found / defaults));
    }
    let last = curve.len() - 1;
    let step = curve.len().div_ceil(POINTS);
    curve
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % step == 0 || *i == last)
        .map(|(_, point)| point)
        .collect()
}

fn calibration(held_out: &HeldOut, source: &str) -> String {
    let title = format!("Calibration on {} held-out rows ({source} data)", held_out.metrics.rows);
    let mut chart = Chart::new(&title, BESIDE, UNIT, UNIT);
    chart.axes("mean probability of default, by tenths", "share that defaulted");
    chart.x_ticks();
    chart.y_ticks();
    chart.reference((0.0, 0.0), (1.0, 1.0));
    let bins = held_out.calibration.iter();
    let points: Vec<_> = bins.filter_map(|bin| bin.mean_probability.zip(bin.default_rate)).collect();
    chart.line(BLUE, points.iter().copied());
    for (x, y) in points {
        chart.dot(BLUE, x, y);
    }
    chart.keys(Corner::TopLeft, &[(BLUE, "the model"), (GREY, "probability = share")]);
    chart.finish()
}

fn coefficients(report: &Report, source: &str) -> String {
    let pairs = report.model.coefficients_by_weight();
    let largest = pairs.iter().fold(f64::MIN_POSITIVE, |largest, pair| largest.max(pair.1.abs()));
    let title = format!("Coefficients of the standardised features ({source} data)");
    let end = end_of_axis(largest);
    let rows = pairs.len() as f64;
    let mut chart = Chart::new(&title, 190.0, (-end, end), (-rows, 0.0));
    chart.axes("change of the log odds of default by one standard deviation", "");
    chart.x_ticks();
    chart.line(GREY, [(0.0, 0.0), (0.0, -rows)]);
    for (place, (feature, coefficient)) in pairs.into_iter().enumerate() {
        let top = -(place as f64);
        let colour = if coefficient > 0.0 { RED } else { BLUE };
        chart.bar(colour, (0.0, top - 0.1), (coefficient, top - 0.9));
        chart.y_label(top - 0.5, feature.name());
    }
    chart.keys(Corner::BottomRight, &[(RED, "raises the risk"), (BLUE, "lowers the risk")]);
    chart.finish()
}

fn distribution(held_out: &HeldOut, source: &str) -> String {
    let mut counts = [[0_u32; BARS]; 2];
    for &(probability, default) in &held_out.scored {
        counts[usize::from(default)][((probability * BARS as f64) as usize).min(BARS - 1)] += 1;
    }
    let highest = counts.iter().flatten().copied().max().unwrap_or(0).max(1);
    let title = format!("Probabilities of {} held-out rows ({source} data)", held_out.metrics.rows);
    let mut chart = Chart::new(&title, BESIDE, UNIT, (0.0, end_of_axis(f64::from(highest))));
    chart.axes("probability of default", "held-out rows");
    chart.x_ticks();
    chart.y_ticks();
    for (colour, counts) in [BLUE, RED].into_iter().zip(counts) {
        for (bar, count) in counts.into_iter().enumerate() {
            let edge = |bar: usize| bar as f64 / BARS as f64;
            chart.bar(colour, (edge(bar), 0.0), (edge(bar + 1), f64::from(count)));
        }
    }
    chart.keys(Corner::TopRight, &[(BLUE, "repaid"), (RED, "defaulted")]);
    chart.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_goes_from_corner_to_corner_and_up_first_for_a_perfect_order() {
        assert_eq!(roc_curve(&[(0.9, true), (0.1, false)]), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
        assert_eq!(roc_curve(&[(0.5, true), (0.5, false)]), [(0.0, 0.0), (1.0, 1.0)]);
    }

    #[test]
    fn a_curve_of_many_rows_is_thinned_and_keeps_its_end() {
        let scored: Vec<_> = (0..10_007).map(|i| (f64::from(i) / 10_007.0, i % 3 == 0)).collect();
        let curve = roc_curve(&scored);
        assert!(curve.len() <= POINTS + 1);
        assert_eq!(curve.last(), Some(&(1.0, 1.0)));
    }
}
