//! A model with all that is known of its training: what is stored as a version.

use serde::{Deserialize, Serialize};

use super::{
    Example, FitError, Metrics, Model, RowSources, Sources, Split, TrainingData,
    calibration::{Bin, calibration},
    drift::Reference,
    generator::generate,
    heuristic,
    split::HELD_OUT,
    stratified,
};

/// Enough for the measures to be stable in their second digit; a training takes some 10 ms.
const STARTING_ROWS: usize = 10_000;
/// Of these, by the usual held-out part, to train on and to judge by.
const STARTING_SPLIT: [usize; 2] = [8_000, 2_000];

/// Any number would do; a fixed one makes every fresh service give the same answers.
const SEED: u64 = 42;

/// A model and what it was judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// Its measures on rows it has not seen.
    pub metrics: Metrics,
    /// The heuristic's measures on the same rows.
    pub heuristic: Metrics,
    /// Its probabilities on these rows beside what came true; versions stored before they were kept have none.
    pub calibration: Vec<Bin>,
    /// Where the rows came from.
    pub row_sources: RowSources,
    /// What it was not worse than when it was taken into use; `None` for a starting model.
    pub compared_with: Option<ComparedWith>,
    /// What its training rows looked like; versions stored before it was kept have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// The model that was in use before, on the held-out rows of the new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedWith {
    /// Its number.
    pub version: u32,
    /// Its measures.
    pub metrics: Metrics,
}

/// Why no model came out.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The rows cannot be learnt from.
    #[error("the model cannot be trained")]
    Fit(#[from] FitError),
    /// The rows leave none to judge by.
    #[error("too few rows to hold some of them out")]
    NothingHeldOut,
}

impl Trained {
    /// Trains the model that a fresh service starts with, on synthetic loans.
    ///
    /// Blocks for some ten milliseconds: not for an async thread.
    ///
    /// # Errors
    /// Never for the rows of our generator, which a test holds.
    pub fn starting() -> Result<Self, TrainingError> {
        let split = Self::starting_data();
        let sources = RowSources::of(&split, &Split::default());
        Self::fit(&split, TrainingData::Synthetic, sources, 1)
    }

    /// The synthetic loans that every training begins with, always split the same way.
    pub fn starting_data() -> Split {
        stratified(&generate(STARTING_ROWS, SEED), HELD_OUT, SEED)
    }

    /// Trains on the starting data merged with recorded loans, and returns all rows that were held out as well.
    /// Blocks.
    ///
    /// # Errors
    /// The rows cannot be learnt from.
    pub fn recorded(recorded: Split, version: u32) -> Result<(Self, Vec<Example>), TrainingError> {
        let mut split = Self::starting_data();
        let sources = RowSources::of(&split, &recorded);
        split.train.extend(recorded.train);
        split.held_out.extend(recorded.held_out);
        let trained = Self::fit(&split, TrainingData::Recorded, sources, version)?;
        Ok((trained, split.held_out))
    }

    fn fit(
        split: &Split,
        training_data: TrainingData,
        row_sources: RowSources,
        version: u32,
    ) -> Result<Self, TrainingError> {
        let model = Model::fit(&split.train, training_data, version)?;
        let scored = scored(&model, &split.held_out);
        Ok(Self {
            metrics: Metrics::scored(&scored).ok_or(TrainingError::NothingHeldOut)?,
            heuristic: Metrics::of(heuristic, &split.held_out).ok_or(TrainingError::NothingHeldOut)?,
            calibration: calibration(&scored),
            row_sources,
            compared_with: None,
            reference: Some(Reference::of(&split.train)),
            model,
        })
    }

    /// Its measures on other rows.
    ///
    /// # Errors
    /// There are none.
    pub fn measured_on(&self, held_out: &[Example]) -> Result<Metrics, TrainingError> {
        Metrics::scored(&scored(&self.model, held_out)).ok_or(TrainingError::NothingHeldOut)
    }
}

fn scored(model: &Model, examples: &[Example]) -> Vec<(f64, bool)> {
    examples.iter().map(|example| (model.probability(&example.features), example.default)).collect()
}

/// As it was stored, by whichever version of this program.
#[derive(Deserialize)]
struct Stored {
    model: Model,
    metrics: Metrics,
    heuristic: Metrics,
    #[serde(default)]
    calibration: Vec<Bin>,
    row_sources: Option<RowSources>,
    compared_with: Option<ComparedWith>,
    reference: Option<Reference>,
}

impl From<Stored> for Trained {
    fn from(stored: Stored) -> Self {
        let Stored { model, metrics, heuristic, calibration, row_sources, compared_with, reference } = stored;
        // The starting data has always been in them all.
        let sources = |rows: usize, starting: usize| {
            let recorded = rows.saturating_sub(starting);
            Sources { synthetic: rows - recorded, recorded }
        };
        let row_sources = row_sources.unwrap_or_else(|| RowSources {
            training: sources(model.rows(), STARTING_SPLIT[0]),
            held_out: sources(metrics.rows, STARTING_SPLIT[1]),
        });
        Self { model, metrics, heuristic, calibration, row_sources, compared_with, reference }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_starting_model_is_better_than_the_heuristic_on_rows_neither_has_seen() {
        let trained = Trained::starting().unwrap();
        assert_eq!([trained.model.rows(), trained.metrics.rows], STARTING_SPLIT);
        assert_eq!(trained.heuristic.rows, 2_000);
        assert!(trained.metrics.roc_auc > trained.heuristic.roc_auc);
        assert!(trained.metrics.brier < trained.heuristic.brier);
    }

    #[test]
    fn a_stored_version_is_the_same_with_its_report() {
        let recorded = stratified(&generate(100, 7), HELD_OUT, SEED);
        let (mut trained, _) = Trained::recorded(recorded, 2).unwrap();
        trained.compared_with = Some(ComparedWith { version: 1, metrics: trained.metrics.clone() });
        let text = serde_json::to_string(&trained).unwrap();
        assert_eq!(serde_json::from_str::<Trained>(&text).unwrap(), trained);
        assert_eq!(trained.calibration.iter().map(|bin| bin.rows).sum::<usize>(), trained.metrics.rows);
    }

    #[test]
    fn versions_stored_before_sources_were_kept_still_name_their_synthetic_rows() {
        let recorded = stratified(&generate(100, 7), HELD_OUT, SEED);
        let (trained, _) = Trained::recorded(recorded, 2).unwrap();
        let mut stored = serde_json::to_value(&trained).unwrap();
        let members = stored.as_object_mut().unwrap();
        members.retain(|name, _: &mut Value| ["model", "metrics", "heuristic"].contains(&name.as_str()));
        let old: Trained = serde_json::from_value(stored).unwrap();
        assert_eq!(old.row_sources, trained.row_sources);
        assert_eq!(json!(old.row_sources.training), json!({ "synthetic": 8000, "recorded": 80 }));
        assert!(old.calibration.is_empty() && old.reference.is_none());
    }
}
