use super::*;
use crate::risk::generator::generate;

fn window(reference: &Reference, rows: impl IntoIterator<Item = Features>) -> Window {
    let mut window = Window::default();
    rows.into_iter().for_each(|row| window.add(&reference.bins(&row)));
    window
}

fn indices(reference: &Reference, rows: impl IntoIterator<Item = Features>) -> Features {
    window(reference, rows).drift(reference).indices.expect("there are enough rows")
}

#[test]
fn the_training_rows_themselves_have_not_moved() {
    let examples = generate(4_000, 1);
    let reference = Reference::of(&examples);
    let moved = indices(&reference, examples.iter().map(|example| example.features));
    assert!(moved.iter().all(|index| index.abs() < 1e-12), "{moved:?}");
}

#[test]
fn other_rows_of_the_same_kind_stay_below_a_tenth_and_a_shifted_feature_alone_rises_above_a_quarter() {
    let reference = Reference::of(&generate(10_000, 1));
    let others = || generate(12_000, 2).into_iter().skip(10_000).map(|example| example.features);
    assert!(indices(&reference, others()).iter().all(|&index| (0.0..0.1).contains(&index)));

    let moved = indices(
        &reference,
        others().map(|mut row| {
            row[Feature::InterestRate as usize] *= 2.0;
            row
        }),
    );
    for feature in Feature::ALL {
        let index = moved[feature as usize];
        assert_eq!(index > 0.25, feature == Feature::InterestRate, "{}: {index}", feature.name());
    }
}

#[test]
fn the_index_is_the_textbooks_sum_over_the_bins() {
    let row = |value: f64| {
        let mut features = [0.0; FEATURE_COUNT];
        features[0] = value;
        features
    };
    // 80 % at 0, 20 % at 1, and nothing below, between or above.
    let training: Vec<_> = (0..1_000)
        .map(|i| Example { features: row(if i % 5 == 0 { 1.0 } else { 0.0 }), default: false })
        .collect();
    let reference = Reference::of(&training);
    let half = indices(&reference, (0..200).map(|i| row(f64::from(i % 2))))[0];
    let expected = (0.5 - 0.8) * (0.5_f64 / 0.8).ln() + (0.5 - 0.2) * (0.5_f64 / 0.2).ln();
    assert!((half - expected).abs() < 1e-9, "{half} {expected}");
}

#[test]
fn a_constant_feature_moves_in_either_direction() {
    let training = vec![Example { features: [5.0; FEATURE_COUNT], default: false }; 100];
    let reference = Reference::of(&training);
    for value in [0.0, 9.0] {
        assert!(indices(&reference, vec![[value; FEATURE_COUNT]; 100])[0] > 1.0, "{value}");
    }
    assert!(indices(&reference, vec![[5.0; FEATURE_COUNT]; 100])[0].abs() < 1e-9);
}

#[test]
fn too_few_rows_have_no_index() {
    let reference = Reference::of(&generate(100, 1));
    let few = window(&reference, vec![[0.0; FEATURE_COUNT]; ENOUGH as usize - 1]).drift(&reference);
    assert_eq!(few, Drift { rows: ENOUGH - 1, indices: None });
}

#[test]
fn what_is_long_ago_is_forgotten() {
    let reference = Reference::of(&generate(1_000, 1));
    let calm = || generate(HALF as usize, 3).into_iter().map(|example| example.features);
    let strange = vec![[1e9; FEATURE_COUNT]; HALF as usize];
    let mut window = window(&reference, strange);
    assert!(window.drift(&reference).indices.unwrap()[0] > 1.0);
    for row in calm().chain(calm()) {
        window.add(&reference.bins(&row));
    }
    let drift = window.drift(&reference);
    assert!(drift.rows <= 2 * HALF && drift.indices.unwrap()[0] < 0.1, "{drift:?}");
}

#[test]
fn rows_together_count_as_rows_one_by_one() {
    let reference = Reference::of(&generate(1_000, 1));
    let mut together = Counts::default();
    let mut alone = Window::default();
    for example in generate(300, 2) {
        let bins = reference.bins(&example.features);
        together.add(&bins);
        alone.add(&bins);
    }
    let mut window = Window::default();
    window.add_all(&together);
    assert_eq!(window.drift(&reference), alone.drift(&reference));
}

#[test]
fn a_stored_reference_is_the_same_and_a_broken_one_is_refused() {
    let reference = Reference::of(&generate(1_000, 1));
    let text = serde_json::to_string(&reference).unwrap();
    assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
    let least = vec![Example { features: [f64::MIN; FEATURE_COUNT], default: false }; 100];
    let least = Reference::of(&least);
    assert_eq!(serde_json::from_value::<Reference>(serde_json::json!(least)).unwrap(), least);
    let mut broken: serde_json::Value = serde_json::from_str(&text).unwrap();
    broken["tx_count"]["shares"] = serde_json::json!([1.0]);
    let error = serde_json::from_value::<Reference>(broken).unwrap_err().to_string();
    assert!(error.contains("tx_count"), "{error}");
}
