//! Draws from a seed that are the same on every platform.
//!
//! The generator is PCG64, whose output is fixed by reference vectors; logarithms and the like come from the `libm`
//! crate, because the standard library's differ in the last bit between platforms (decision 0010).

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A stream of draws.
pub(super) struct Random(Pcg64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Uniform in 0 ≤ u < 1, with all 53 bits of a double.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller. The second value of the pair is not kept: two draws for each normal
    /// keep the stream simple.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Poisson, by Knuth's product of uniforms: as many draws as the result, so for small means only.
    pub(super) fn poisson(&mut self, mean: f64) -> f64 {
        let floor = libm::exp(-mean);
        let (mut product, mut count) = (self.uniform(), 0.0);
        while product > floor {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }

    /// How many of `trials` succeed.
    pub(super) fn binomial(&mut self, trials: f64, probability: f64) -> f64 {
        (0..trials as u32).filter(|_| self.uniform() < probability).count() as f64
    }

    /// A random order, by Fisher and Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (self.uniform() * (last + 1) as f64) as usize;
            items.swap(last, other);
        }
    }
}
