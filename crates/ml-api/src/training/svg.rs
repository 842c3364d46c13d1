//! A chart as SVG text: a frame, ticks, labels, and what is drawn in its coordinates. Decision 0020.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 480.0;
const TOP: f64 = 50.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 55.0;

/// Of repaid loans, and whatever stands alone.
pub(super) const BLUE: &str = "#1f77b4";
/// Of defaults.
pub(super) const RED: &str = "#d62728";
/// Of what is only there to compare with.
pub(super) const GREY: &str = "#999999";

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
        chart.label(WIDTH / 2.0, 28.0, "middle", 16, title);
        let (width, height) = (WIDTH - left - RIGHT, HEIGHT - TOP - BOTTOM);
        chart.push(format_args!(
            "<rect x=\"{left}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"black\"/>"
        ));
        chart
    }

    pub(super) fn axes(&mut self, x: &str, y: &str) {
        self.label((self.left + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0, "middle", 13, x);
        self.label(8.0, TOP - 8.0, "start", 13, y);
    }

    /// Five marks from end to end.
    pub(super) fn x_ticks(&mut self) {
        for step in 0..=4 {
            let value = self.x.0 + (self.x.1 - self.x.0) * f64::from(step) / 4.0;
            self.label(self.x(value), HEIGHT - BOTTOM + 18.0, "middle", 11, &tick(value));
        }
    }

    pub(super) fn y_ticks(&mut self) {
        for step in 0..=4 {
            let value = self.y.0 + (self.y.1 - self.y.0) * f64::from(step) / 4.0;
            self.y_label(value, &tick(value));
        }
    }

    pub(super) fn y_label(&mut self, value: f64, text: &str) {
        self.label(self.left - 6.0, self.y(value) + 4.0, "end", 11, text);
    }

    pub(super) fn line(&mut self, colour: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            write!(path, "{:.2},{:.2} ", self.x(x), self.y(y)).expect("BUG: a text can be written to");
        }
        let path = path.trim_end();
        self.push(format_args!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
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

    /// What a colour means.
    pub(super) fn key(&mut self, line: u8, colour: &str, text: &str) {
        let y = TOP + 18.0 + 16.0 * f64::from(line);
        let x = WIDTH - RIGHT - 150.0;
        self.push(format_args!(
            "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            y - 9.0
        ));
        self.label(x + 16.0, y, "start", 12, text);
    }

    pub(super) fn finish(self) -> String {
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
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
        ));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("BUG: a text can be written to");
    }
}

fn tick(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
