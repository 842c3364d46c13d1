//! Synthetic loans: what the service starts with until loans have been recorded.
//!
//! The rows are invented by a documented process, and whatever shows them says synthetic. Each borrower has three
//! hidden traits, independent standard normals: *prudence* (how well debts are served), *experience* (how long and
//! how much the chain has been used) and *wealth*. The features follow from them:
//!
//! | features | process |
//! |---|---|
//! | amounts, volume, counts of transactions, ages | log-normal in the traits |
//! | ratios and indices within 0..1 | logistic of a normal in the traits |
//! | loans, protocols | Poisson, its mean growing with experience |
//! | defaulted loans | binomial, less likely for the prudent; one in twelve of the rest is still running |
//! | loan to collateral | log-normal around 0.65, lower for the prudent; the collateral follows from it |
//! | interest rate | 300 bps, and more for a higher ratio, a longer loan, a record of defaults |
//! | frequency, gap, contract calls | from the count of transactions and the age, so they agree with them |
//!
//! The label is drawn with probability σ(score): `score` weighs eight risk factors, each standardised by
//! fixed numbers near its mean and deviation, and the hidden prudence, which no model can see. About 23 % default.
//!
//! Row k depends on the seed and on k only: a longer set begins with the shorter one.

use super::features::{Example, FEATURE_COUNT, Feature, Features};
use super::random::Random;

#[cfg(test)]
mod tests;

/// Loan durations on offer, in days.
const DURATIONS: [f64; 6] = [7.0, 14.0, 30.0, 90.0, 180.0, 365.0];

/// `rows` loans with their ends, the same for a seed on every platform.
pub fn generate(rows: usize, seed: u64) -> Vec<Example> {
    loans(seed).take(rows).collect()
}

/// Loans with their ends, one after the other, for as long as they are asked for.
pub fn loans(seed: u64) -> impl Iterator<Item = Example> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || example(&mut random))
}

struct Borrower {
    prudence: f64,
    experience: f64,
    wealth: f64,
}

fn example(random: &mut Random) -> Example {
    let borrower =
        Borrower { prudence: random.normal(), experience: random.normal(), wealth: random.normal() };
    let mut draft = Draft { random, values: [0.0; FEATURE_COUNT] };
    draft.activity(&borrower);
    draft.holdings(&borrower);
    draft.history(&borrower);
    draft.defi(&borrower);
    draft.loan(&borrower);
    let features = draft.values;
    let default = random.uniform() < sigmoid(score(&features, borrower.prudence));
    Example { features, default }
}

struct Draft<'a> {
    random: &'a mut Random,
    values: Features,
}

impl Draft<'_> {
    fn get(&self, feature: Feature) -> f64 {
        self.values[feature as usize]
    }

    fn set(&mut self, feature: Feature, value: f64) {
        // Six decimals, as a person would write them into a CSV.
        self.values[feature as usize] = (value * 1e6).round() / 1e6;
    }

    fn log_normal(&mut self, mean_log: f64, deviation: f64) -> f64 {
        libm::exp(mean_log + deviation * self.random.normal())
    }

    fn ratio(&mut self, centre: f64, deviation: f64) -> f64 {
        sigmoid(centre + deviation * self.random.normal())
    }

    fn activity(&mut self, borrower: &Borrower) {
        let age = self.log_normal(5.8 + 0.6 * borrower.experience, 0.4).clamp(1.0, 3650.0).round();
        let count = self.log_normal(4.3 + 0.9 * borrower.experience, 0.6).clamp(1.0, 1e5).round();
        let volume = self.log_normal(2.5 + 1.1 * borrower.wealth + 0.4 * borrower.experience, 0.6);
        let evenness = self.log_normal(-0.1, 0.25);
        self.set(Feature::AccountAgeDays, age);
        self.set(Feature::TxCount, count);
        self.set(Feature::TotalVolume, volume);
        self.set(Feature::AvgFrequency, count / age);
        self.set(Feature::AvgTimeBetween, 24.0 * age / count * evenness);
    }

    fn holdings(&mut self, borrower: &Borrower) {
        let age = self.get(Feature::AccountAgeDays);
        let held = self.log_normal(3.4 + 0.4 * borrower.prudence + 0.3 * borrower.experience, 0.6);
        let stable = self.ratio(-0.6 + 0.6 * borrower.prudence, 0.9);
        let volatility = self.ratio(-0.1 - 0.6 * borrower.prudence, 0.7);
        let diversity = self.ratio(-0.4 + 0.7 * borrower.experience, 0.7);
        self.set(Feature::AvgHoldingPeriod, held.min(age));
        self.set(Feature::StablecoinRatio, stable);
        self.set(Feature::VolatilityIndex, volatility);
        self.set(Feature::DiversityScore, diversity);
    }

    fn history(&mut self, borrower: &Borrower) {
        let total = self.random.poisson(libm::exp(1.0 + 0.5 * borrower.experience).min(30.0));
        let defaulted = self.random.binomial(total, sigmoid(-2.0 - 1.1 * borrower.prudence));
        let running = self.random.binomial(total - defaulted, 1.0 / 12.0);
        let repaid = total - defaulted - running;
        let days = self.log_normal(3.5 - 0.25 * borrower.prudence, 0.4);
        self.set(Feature::TotalLoans, total);
        self.set(Feature::DefaultedLoans, defaulted);
        self.set(Feature::RepaidLoans, repaid);
        self.set(Feature::AvgRepaymentTime, if repaid > 0.0 { days } else { 0.0 });
    }

    fn defi(&mut self, borrower: &Borrower) {
        let protocols = self.random.poisson(libm::exp(1.1 + 0.6 * borrower.experience).min(40.0));
        let farming = self.ratio(-1.4 + 0.6 * borrower.experience, 0.9);
        let calls = self.ratio(0.2 + 0.5 * borrower.experience, 0.6) * self.get(Feature::TxCount);
        let since = self.ratio(0.8 + 0.4 * borrower.experience, 0.6) * self.get(Feature::AccountAgeDays);
        self.set(Feature::ProtocolCount, protocols);
        self.set(Feature::YieldFarmingActivity, farming);
        self.set(Feature::SmartContractCalls, calls.round());
        self.set(Feature::DefiExperience, since.round());
    }

    fn loan(&mut self, borrower: &Borrower) {
        let amount = self.log_normal(0.8 + 0.9 * borrower.wealth, 0.6).max(0.01);
        let ratio = self.log_normal(-0.43 - 0.12 * borrower.prudence, 0.22).clamp(0.2, 1.5);
        let duration = DURATIONS[(self.random.uniform() * DURATIONS.len() as f64) as usize];
        let record = defaulted_share(&self.values);
        let premium = 600.0 * (ratio - 0.4) + 0.8 * duration + 900.0 * record + 120.0 * self.random.normal();
        self.set(Feature::LoanAmount, amount);
        self.set(Feature::CollateralAmount, amount / ratio);
        self.set(Feature::LoanToCollateralRatio, ratio);
        self.set(Feature::DurationDays, duration);
        self.set(Feature::InterestRate, (300.0 + premium).clamp(100.0, 3000.0).round());
    }
}

fn defaulted_share(features: &Features) -> f64 {
    features[Feature::DefaultedLoans as usize] / features[Feature::TotalLoans as usize].max(1.0)
}

/// The log odds that a synthetic loan defaults.
fn score(features: &Features, prudence: f64) -> f64 {
    let value = |feature: Feature| features[feature as usize];
    let standard = |value: f64, mean: f64, deviation: f64| (value - mean) / deviation;
    let log = |feature| libm::log(1.0 + value(feature));
    -1.93
        + 0.80 * standard(value(Feature::LoanToCollateralRatio), 0.67, 0.17)
        + 0.55 * standard(defaulted_share(features), 0.14, 0.22)
        + 0.45 * standard(value(Feature::VolatilityIndex), 0.48, 0.20)
        + 0.30 * standard(value(Feature::InterestRate), 680.0, 310.0)
        + 0.25 * standard(value(Feature::DurationDays), 113.0, 126.0)
        - 0.35 * standard(value(Feature::StablecoinRatio), 0.38, 0.21)
        - 0.35 * standard(log(Feature::DefiExperience), 5.3, 0.9)
        - 0.20 * standard(log(Feature::ProtocolCount), 1.3, 0.6)
        - 0.30 * prudence
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}
