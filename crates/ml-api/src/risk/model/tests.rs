//! The optimum against scikit-learn's (`tests/peer/logistic.py` wrote the golden files), and data that is out to
//! break the solver.

use serde_json::Value;

use super::*;
use crate::risk::generator::generate;

const GOLDEN: [(&str, &str, &str); 4] = [
    (
        "plain",
        include_str!("../../../tests/golden/plain.csv"),
        include_str!("../../../tests/golden/plain.json"),
    ),
    (
        "one default in twenty",
        include_str!("../../../tests/golden/imbalanced.csv"),
        include_str!("../../../tests/golden/imbalanced.json"),
    ),
    (
        "collinear and constant columns",
        include_str!("../../../tests/golden/collinear.csv"),
        include_str!("../../../tests/golden/collinear.json"),
    ),
    (
        "separable",
        include_str!("../../../tests/golden/separable.csv"),
        include_str!("../../../tests/golden/separable.json"),
    ),
];

fn fit(examples: &[Example]) -> Result<Model, FitError> {
    Model::fit(examples, TrainingData::Synthetic, 1)
}

fn read(csv: &str) -> Vec<Example> {
    let (header, lines) = csv.split_once('\n').unwrap();
    let names: Vec<&str> = Feature::ALL.into_iter().map(Feature::name).chain(["default"]).collect();
    assert_eq!(header, names.join(","), "the golden files have the features in order");
    lines.lines().map(parse).collect()
}

fn parse(line: &str) -> Example {
    let values: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
    let (&label, features) = values.split_last().unwrap();
    Example { features: features.try_into().unwrap(), default: label == 1.0 }
}

fn by_feature(values: &Value) -> Features {
    Feature::ALL.map(|feature| values[feature.name()].as_f64().unwrap())
}

fn assert_close(ours: f64, theirs: f64, what: &str) {
    let difference = (ours - theirs).abs() / theirs.abs().max(1.0);
    assert!(difference < 1e-8, "{what}: {ours} here, {theirs} there");
}

#[test]
fn the_optimum_is_scikit_learns_on_every_golden_data_set() {
    for (name, csv, golden) in GOLDEN {
        let golden: Value = serde_json::from_str(golden).unwrap();
        let model = fit(&read(csv)).unwrap();

        assert_close(model.intercept, golden["intercept"].as_f64().unwrap(), name);
        for (key, ours) in
            [("coefficients", model.coefficients), ("means", model.means), ("deviations", model.deviations)]
        {
            let theirs = by_feature(&golden[key]);
            for feature in Feature::ALL {
                let place = feature as usize;
                assert_close(ours[place], theirs[place], &format!("{name}: {key} of {}", feature.name()));
            }
        }
    }
}

/// The gradient of the loss as the definition has it, by code that shares nothing with the solver.
fn steepest_gradient_per_row(model: &Model, examples: &[Example]) -> f64 {
    let rows = examples.len() as f64;
    let defaults = examples.iter().filter(|example| example.default).count() as f64;
    let mut gradient = model.coefficients.to_vec();
    gradient.push(0.0);
    for example in examples {
        let class = if example.default { defaults } else { rows - defaults };
        let label = f64::from(u8::from(example.default));
        let residual = rows / (2.0 * class) * (model.probability(&example.features) - label);
        for (column, &value) in example.features.iter().enumerate() {
            gradient[column] += residual * (value - model.means[column]) / model.deviations[column];
        }
        gradient[FEATURE_COUNT] += residual;
    }
    gradient.iter().fold(0.0, |steepest: f64, g| steepest.max(g.abs())) / rows
}

#[test]
fn the_gradient_at_the_optimum_is_zero_on_generated_data_of_any_balance() {
    for seed in 0..8 {
        let mut examples = generate(3000, seed);
        // From about 1 default in 4 rows to 1 in 1000.
        let mut kept = 0;
        examples.retain(|example| {
            kept += usize::from(example.default);
            !example.default || kept % (1 << seed) == 1 || seed == 0
        });
        let model = fit(&examples).unwrap();
        let gradient = steepest_gradient_per_row(&model, &examples);
        assert!(gradient < 1e-12, "seed {seed}: {gradient:e} after {} steps", model.iterations);
        assert!(model.iterations < 20, "seed {seed}: {} steps", model.iterations);
    }
}

#[test]
fn separable_data_has_a_finite_optimum_that_separates_it() {
    for gap in [1e-9, 1.0, 1e9] {
        let mut examples = generate(200, 7);
        for example in &mut examples {
            example.features = [0.0; FEATURE_COUNT];
            example.features[0] = if example.default { gap } else { -gap };
        }
        let model = fit(&examples).unwrap();
        assert!(model.coefficients[0].is_finite() && model.coefficients[0] > 1.0);
        assert!(examples.iter().all(|e| (model.probability(&e.features) > 0.5) == e.default));
    }
}

#[test]
fn a_column_that_never_varies_has_coefficient_zero_whatever_its_value() {
    for constant in [0.0, 0.1, -7.0, 1e18, 1e300, f64::MAX, 5e-324] {
        let mut examples = generate(300, 3);
        examples.iter_mut().for_each(|example| example.features[5] = constant);
        let model = fit(&examples).unwrap();
        assert_eq!((model.coefficients[5], model.deviations[5]), (0.0, 1.0), "constant {constant:e}");
        assert_eq!(model.means[5], constant);
    }
}

#[test]
fn a_column_that_varies_by_rounding_only_has_coefficient_zero() {
    for (value, noise) in [(1e16, 2.0), (0.1, 2e-17), (-1e300, 2e284)] {
        let mut examples = generate(300, 3);
        examples.iter_mut().for_each(|e| e.features[5] = if e.default { value + noise } else { value });
        assert!(examples.iter().any(|e| e.features[5] != value), "there is noise in {value:e}");
        let model = fit(&examples).unwrap();
        assert_eq!((model.coefficients[5], model.deviations[5]), (0.0, 1.0), "{value:e}");
    }
}

#[test]
fn values_whose_difference_overflows_are_standardised_all_the_same() {
    let with_column = |scale: f64| {
        let mut examples = generate(300, 3);
        for (i, example) in examples.iter_mut().enumerate() {
            example.features[5] = if i % 4 == 0 { -scale } else { scale };
        }
        (fit(&examples).unwrap(), examples)
    };
    let ((huge, huge_rows), (plain, plain_rows)) = (with_column(f64::MAX), with_column(1.0));
    assert!((huge.coefficients[5] - plain.coefficients[5]).abs() < 1e-12);
    for (a, b) in huge_rows.iter().zip(&plain_rows) {
        assert!((huge.probability(&a.features) - plain.probability(&b.features)).abs() < 1e-12);
    }
}

#[test]
fn rows_without_any_information_predict_one_half() {
    let examples: Vec<Example> =
        (0..50).map(|i| Example { features: [3.0; FEATURE_COUNT], default: i % 10 == 0 }).collect();
    let model = fit(&examples).unwrap();
    assert!((model.probability(&[3.0; FEATURE_COUNT]) - 0.5).abs() < 1e-12, "the classes weigh the same");
}

#[test]
fn the_scale_of_a_column_changes_no_probability() {
    let examples = generate(400, 11);
    let expected = fit(&examples).unwrap();
    for exponent in [-1000, -500, -40, 40, 500, 990] {
        let scale = 2.0_f64.powi(exponent);
        let mut scaled = examples.clone();
        scaled.iter_mut().for_each(|example| example.features.iter_mut().for_each(|value| *value *= scale));
        let model = fit(&scaled).unwrap();
        for (scaled, original) in scaled.iter().zip(&examples) {
            let (ours, theirs) =
                (model.probability(&scaled.features), expected.probability(&original.features));
            assert!((ours - theirs).abs() < 1e-9, "2^{exponent}: {ours} and {theirs}");
        }
    }
}

#[test]
fn hostile_columns_still_give_a_finite_model_at_the_optimum() {
    let hostile: [fn(usize) -> f64; 6] = [
        |i| if i % 2 == 0 { f64::MAX } else { f64::MIN },
        |i| if i == 0 { f64::MAX } else { 1.0 },
        |i| if i % 3 == 0 { 5e-324 } else { 0.0 },
        |i| 1e16 + 2.0 * (i % 2) as f64,
        |i| 10.0_f64.powi(i as i32 % 600 - 300),
        |i| if i == 17 { -1e-300 } else { 1e300 },
    ];
    for (case, value) in hostile.iter().enumerate() {
        let mut examples = generate(250, 5);
        for (i, example) in examples.iter_mut().enumerate() {
            example.features[..4].fill(value(i));
        }
        let model = fit(&examples).unwrap();
        assert!(model.coefficients.iter().all(|c| c.is_finite()), "case {case}");
        assert!(model.deviations.iter().all(|&d| d > 0.0 && d.is_finite()), "case {case}");
        assert!(examples.iter().all(|e| model.probability(&e.features).is_finite()), "case {case}");
    }
}

#[test]
fn the_smallest_data_sets_have_an_optimum() {
    let (repaid, defaulted) = ([1.0; FEATURE_COUNT], [2.0; FEATURE_COUNT]);
    let two = [Example { features: repaid, default: false }, Example { features: defaulted, default: true }];
    let model = fit(&two).unwrap();
    assert!(model.probability(&repaid) < 0.5 && model.probability(&defaulted) > 0.5);
}

#[test]
fn data_that_teaches_nothing_is_refused_by_name() {
    let mut examples = generate(20, 1);
    assert_eq!(fit(&[]), Err(FitError::NoRows));
    examples[13].features[Feature::LoanAmount as usize] = f64::NAN;
    assert_eq!(fit(&examples), Err(FitError::NotFinite { row: 13, field: "loan_amount" }));
    for default in [false, true] {
        examples.iter_mut().for_each(|example| example.default = default);
        assert_eq!(fit(&examples), Err(FitError::OneClass { rows: 20, default }));
    }
}

#[test]
fn the_same_rows_give_the_same_model_to_the_last_bit() {
    assert_eq!(fit(&generate(500, 9)), fit(&generate(500, 9)));
}

#[test]
fn no_finite_features_give_anything_but_a_probability() {
    let model = fit(&generate(500, 2)).unwrap();
    for value in [0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e9, -1e9] {
        let prediction = model.predict(&[value; FEATURE_COUNT]);
        assert!((0.0..=1.0).contains(&prediction.default_probability), "{value:e}: {prediction:?}");
        assert!(prediction.risk_score <= 1000);
    }
}

#[test]
fn a_batch_answers_as_the_single_rows_do() {
    let examples = generate(100, 4);
    let model = fit(&examples).unwrap();
    let rows: Vec<Features> = examples.iter().map(|example| example.features).collect();
    let singly: Vec<Prediction> = rows.iter().map(|features| model.predict(features)).collect();
    assert_eq!(model.predict_batch(&rows), singly);
}

#[test]
fn a_stored_model_predicts_what_the_trained_one_did() {
    let examples = generate(200, 6);
    let model = fit(&examples).unwrap();
    let restored: Model = serde_json::from_str(&serde_json::to_string(&model).unwrap()).unwrap();
    assert_eq!((restored.version(), restored.training_data()), (1, TrainingData::Synthetic));
    for example in &examples {
        let difference = restored.probability(&example.features) - model.probability(&example.features);
        assert!(difference.abs() < 1e-14);
    }
}

#[test]
fn a_stored_model_that_cannot_predict_is_refused() {
    let good = serde_json::to_value(fit(&generate(50, 6)).unwrap()).unwrap();
    let refusal = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        serde_json::from_value::<Model>(bad).unwrap_err().to_string()
    };
    let zero = refusal(|model| model["deviations"]["tx_count"] = 0.into());
    assert!(zero.contains("deviation of tx_count"), "{zero}");
    let huge = refusal(|model| model["intercept"] = 1e200.into());
    assert!(huge.contains("at most"), "{huge}");
    let short = refusal(|model| {
        model["means"].as_object_mut().unwrap().remove("loan_amount");
    });
    assert!(short.contains("loan_amount"), "{short}");
    let alien = refusal(|model| model["means"]["shoe_size"] = 44.into());
    assert!(alien.contains("shoe_size"), "{alien}");
}

#[test]
fn coefficients_are_listed_the_weightiest_first() {
    let listed = fit(&generate(500, 8)).unwrap().coefficients_by_weight();
    assert_eq!(listed.len(), FEATURE_COUNT);
    assert!(listed.is_sorted_by(|a, b| a.1.abs() >= b.1.abs()));
}
