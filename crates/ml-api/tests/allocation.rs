//! A prediction allocates nothing: counted by an allocator that counts for each thread, in a program of its own.

use std::hint::black_box;

use allocation_counter::measure;
use ml_api::risk::{FeatureRow, Features, Trained, generator, service::RiskService};

fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

fn rows() -> Vec<Features> {
    generator::generate(1_000, 5).into_iter().map(|example| example.features).collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1_u64)))), 1);
}

#[test]
fn a_thousand_single_predictions_allocate_nothing() {
    let model = Trained::starting().unwrap().model;
    let rows = rows();
    let count = allocations(|| {
        for row in &rows {
            black_box(model.predict(black_box(row)));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn the_service_allocates_nothing_for_them_either_though_it_counts_what_it_is_asked() {
    let risk = RiskService::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(risk.train()).unwrap();
    let rows = rows().into_iter().map(|values| FeatureRow { values, missing_features: Vec::new() });
    let rows: Vec<FeatureRow> = rows.collect();
    let count = allocations(|| {
        for row in &rows {
            black_box(risk.predict(black_box(row))).unwrap();
        }
    });
    assert_eq!(count, 0);
    assert_eq!(risk.in_use().unwrap().drift().unwrap().rows, 1_000);
}

#[test]
fn a_batch_allocates_its_answer_and_no_more() {
    let model = Trained::starting().unwrap().model;
    let rows = rows();
    assert_eq!(allocations(|| drop(black_box(model.predict_batch(&rows)))), 1);
}
