//! A chart as SVG text: a frame, ticks, labels, and what is drawn in its coordinates. Decision 0020.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 500.0;
const TOP: f64 = 50.0;
const RIGHT: f64 = 25.0;
const BOTTOM: f64 = 60.0;
/// Parts of an axis between ticks, more or less.
const PARTS: f64 = 8.0;

/// Of repaid loans, and whatever stands alone.
pub(super) const BLUE: &str = "#1f77b4";
/// Of defaults.
pub(super) const RED: &str = "#d62728";
/// Of what is only there to compare with.
pub(super) const GREY: &str = "#777777";
const GRID: &str = "#e4e4e4";

/// A chart whose frame spans `x` and `y`.
pub(super) struct Chart {
    body: String,
    left: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Chart {
    /// `left` is the room for the labels of the y axis.
    pub(super) fn new(title: &str, left: f64, x: (f64, f64), y: (f64, f64)) -> Self {
        let mut chart = Self { body: String::new(), left, x, y };
        chart.label(WIDTH / 2.0, 30.0, "middle", 16, title);
        chart
    }

    /// What the axes show; the y axis' text runs upwards beside its ticks.
    pub(super) fn axes(&mut self, x: &str, y: &str) {
        self.label((self.left + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0, "middle", 13, x);
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        self.push(format_args!(
            "<text transform=\"translate(18 {middle:.2}) rotate(-90)\" text-anchor=\"middle\" font-size=\"13\">{}</text>",
            escaped(y)
        ));
    }

    /// Round numbers, with lines across.
    pub(super) fn x_ticks(&mut self) {
        for (value, text) in ticks(self.x) {
            let (x, bottom) = (self.x(value), HEIGHT - BOTTOM);
            self.push(format_args!(
                "<line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{GRID}\"/>"
            ));
            self.label(x, bottom + 18.0, "middle", 11, &text);
        }
    }

    /// The same.
    pub(super) fn y_ticks(&mut self) {
        for (value, text) in ticks(self.y) {
            let (y, left, right) = (self.y(value), self.left, WIDTH - RIGHT);
            self.push(format_args!(
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.2}\" y2=\"{y:.2}\" stroke=\"{GRID}\"/>"
            ));
            self.y_label(value, &text);
        }
    }

    pub(super) fn y_label(&mut self, value: f64, text: &str) {
        self.label(self.left - 6.0, self.y(value) + 4.0, "end", 11, text);
    }

    pub(super) fn line(&mut self, colour: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        self.path(colour, "", points);
    }

    /// A dashed line, for what is only there to compare with.
    pub(super) fn reference(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.path(GREY, " stroke-dasharray=\"6 4\"", [from, to]);
    }

    fn path(&mut self, colour: &str, style: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            write!(path, "{:.2},{:.2} ", self.x(x), self.y(y)).expect("BUG: a text can be written to");
        }
        let path = path.trim_end();
        self.push(format_args!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{style}/>"
        ));
    }

    pub(super) fn dot(&mut self, colour: &str, x: f64, y: f64) {
        let (x, y) = (self.x(x), self.y(y));
        self.push(format_args!("<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"4\" fill=\"{colour}\"/>"));
    }

    /// Between two corners.
    pub(super) fn bar(&mut self, colour: &str, from: (f64, f64), to: (f64, f64)) {
        let (x, y) = (self.x(from.0).min(self.x(to.0)), self.y(from.1).min(self.y(to.1)));
        let (width, height) = ((self.x(to.0) - self.x(from.0)).abs(), (self.y(to.1) - self.y(from.1)).abs());
        self.push(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{colour}\" \
             fill-opacity=\"0.6\"/>"
        ));
    }

    /// What each colour means, in the corner where the chart has room.
    pub(super) fn keys(&mut self, corner: Corner, keys: &[(&str, &str)]) {
        let line = 18.0;
        let longest = keys.iter().map(|(_, text)| text.len()).max().unwrap_or(0);
        // A letter of this size is some 6.5 wide; the box has room to spare.
        let (width, height) = (40.0 + 6.5 * longest as f64, 10.0 + line * keys.len() as f64);
        let left = match corner {
            Corner::TopLeft => self.left + 12.0,
            Corner::TopRight | Corner::BottomRight => WIDTH - RIGHT - 12.0 - width,
        };
        let top = match corner {
            Corner::TopLeft | Corner::TopRight => TOP + 12.0,
            Corner::BottomRight => HEIGHT - BOTTOM - 12.0 - height,
        };
        self.push(format_args!(
            "<rect x=\"{left:.2}\" y=\"{top:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"white\" \
             stroke=\"{GRID}\"/>"
        ));
        for (place, (colour, text)) in keys.iter().enumerate() {
            let y = top + line * (place as f64 + 1.0);
            let (x, above) = (left + 8.0, y - 10.0);
            self.push(format_args!(
                "<rect x=\"{x:.2}\" y=\"{above:.2}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
            ));
            self.label(left + 28.0, y, "start", 12, text);
        }
    }

    pub(super) fn finish(mut self) -> String {
        let (left, width, height) = (self.left, WIDTH - self.left - RIGHT, HEIGHT - TOP - BOTTOM);
        self.push(format_args!(
            "<rect x=\"{left}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"black\"/>"
        ));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn x(&self, value: f64) -> f64 {
        self.left + (value - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - self.left - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, size: u8, text: &str) {
        let text = escaped(text);
        self.push(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
        ));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("BUG: a text can be written to");
    }
}

/// Where there is room for the keys.
#[derive(Clone, Copy)]
pub(super) enum Corner {
    TopLeft,
    TopRight,
    BottomRight,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The distance of ticks: 1, 2 or 5 times a power of ten.
fn step(span: f64) -> f64 {
    let rough = span / PARTS;
    let unit = libm::exp10(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * unit >= rough * (1.0 - 1e-9));
    unit * factor.unwrap_or(10.0)
}

/// The end of an axis from 0 with some room above `value`.
pub(super) fn end_of_axis(value: f64) -> f64 {
    let step = step(value);
    step * (value * 1.02 / step).ceil()
}

/// Multiples of the step within the range, and their texts with no more digits than needed.
fn ticks(range: (f64, f64)) -> Vec<(f64, String)> {
    let step = step(range.1 - range.0);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let first = (range.0 / step - 1e-9).ceil() as i64;
    let last = (range.1 / step + 1e-9).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).map(|value| (value, format!("{value:.digits$}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(range: (f64, f64)) -> Vec<String> {
        ticks(range).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(texts((0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts((0.0, 200.0)), ["0", "50", "100", "150", "200"]);
        assert_eq!(texts((-0.5, 0.5)), ["-0.4", "-0.2", "0.0", "0.2", "0.4"]);
        assert_eq!(texts((0.0, 1e-3)).len(), 6);
    }

    #[test]
    fn an_axis_leaves_room_above_its_largest_value_but_not_too_much() {
        for value in [1.0, 7.3, 179.0, 0.71, 1e-9, 1e12] {
            let end = end_of_axis(value);
            assert!(value < end && end < 1.5 * value, "{value}: {end}");
        }
    }
}
