//! What is held out.

use super::*;
use crate::risk::features::FEATURE_COUNT;
use crate::risk::generator::generate;

fn defaults(examples: &[Example]) -> usize {
    examples.iter().filter(|example| example.default).count()
}

#[test]
fn both_parts_have_the_same_share_of_defaults_and_no_row_is_lost_or_doubled() {
    let examples = generate(1000, 3);
    let split = stratified(&examples, HELD_OUT, 42);
    let expected = (defaults(&examples) as f64 * HELD_OUT).round() as usize;
    assert_eq!(defaults(&split.held_out), expected);
    assert!(split.held_out.len().abs_diff(200) <= 1);
    let mut both = [split.train, split.held_out].concat();
    let mut all = examples;
    let order = |a: &Example, b: &Example| a.features.partial_cmp(&b.features).unwrap();
    both.sort_by(order);
    all.sort_by(order);
    assert_eq!(both, all);
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let examples = generate(300, 3);
    assert_eq!(stratified(&examples, 0.2, 1), stratified(&examples, 0.2, 1));
    assert_ne!(stratified(&examples, 0.2, 1), stratified(&examples, 0.2, 2));
}

#[test]
fn a_single_row_of_a_class_is_trained_on() {
    let row = |default| Example { features: [0.0; FEATURE_COUNT], default };
    let examples = [row(true), row(false), row(false), row(false)];
    for fraction in [0.2, 0.5, 1.0] {
        let split = stratified(&examples, fraction, 1);
        assert_eq!(defaults(&split.train), 1);
        assert!(split.train.len() > 1, "a repaid row too");
    }
    assert_eq!(stratified(&examples, 0.0, 1).train.len(), 4);
    assert_eq!(stratified(&[], 0.2, 1).train.len(), 0);
}
