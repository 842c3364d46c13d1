//! The synthetic data: the same everywhere, and plausible.

use super::*;
use crate::risk::metrics::Metrics;
use crate::risk::model::{Model, TrainingData};
use crate::risk::split::stratified;

fn value(example: &Example, feature: Feature) -> f64 {
    example.features[feature as usize]
}

/// Of the first 1000 rows of seed 42, as first computed on x86-64 Linux.
const PINNED: u64 = 0xfd0b_8dbe_1664_df96;

/// FNV-1a over the bits of every value and label.
fn fingerprint(examples: &[Example]) -> u64 {
    let words = examples.iter().flat_map(|example| {
        example.features.iter().map(|value| value.to_bits()).chain([u64::from(example.default)])
    });
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    words.flat_map(u64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, step)
}

#[test]
fn a_seed_gives_the_same_rows_to_the_last_bit_on_every_platform() {
    assert_eq!(
        fingerprint(&generate(1000, 42)),
        PINNED,
        "the starting data has changed: so has every starting model"
    );
    assert_ne!(fingerprint(&generate(1000, 43)), PINNED);
}

#[test]
fn a_longer_set_begins_with_the_shorter_one() {
    assert_eq!(generate(50, 1)[..20], generate(20, 1));
}

#[test]
fn about_a_quarter_defaults_whatever_the_seed() {
    for seed in 0..5 {
        let examples = generate(4000, seed);
        let share = examples.iter().filter(|example| example.default).count() as f64 / 4000.0;
        assert!((0.20..0.26).contains(&share), "seed {seed}: {share}");
    }
}

#[test]
fn the_values_of_a_row_agree_with_each_other() {
    for example in generate(2000, 12) {
        let get = |feature| value(&example, feature);
        assert!(example.features.iter().all(|value| value.is_finite() && *value >= 0.0));
        for ratio in [
            Feature::StablecoinRatio,
            Feature::VolatilityIndex,
            Feature::DiversityScore,
            Feature::YieldFarmingActivity,
        ] {
            assert!(get(ratio) <= 1.0);
        }
        assert!(get(Feature::RepaidLoans) + get(Feature::DefaultedLoans) <= get(Feature::TotalLoans));
        assert!(get(Feature::SmartContractCalls) <= get(Feature::TxCount));
        assert!(get(Feature::DefiExperience) <= get(Feature::AccountAgeDays));
        assert!(get(Feature::AvgHoldingPeriod) <= get(Feature::AccountAgeDays));
        let ratio = get(Feature::LoanAmount) / get(Feature::CollateralAmount);
        assert!((ratio / get(Feature::LoanToCollateralRatio) - 1.0).abs() < 1e-3, "{ratio}");
    }
}

#[test]
fn the_labels_can_be_learnt_but_not_known() {
    let split = stratified(&generate(5000, 42), 0.2, 1);
    let model = Model::fit(&split.train, TrainingData::Synthetic, 1).unwrap();
    let auc = Metrics::of(|features| model.probability(features), &split.held_out).unwrap().roc_auc.unwrap();
    assert!((0.80..0.95).contains(&auc), "{auc}");
}
