//! A run as a picture: four panels over one time axis.

use std::fmt::Write as _;

use crate::{
    record::{Record, Sample},
    script::Script,
};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 70.0;
const PANEL: f64 = 110.0;
const GAP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// The height of a line's name.
const NAME: f64 = 14.0;
/// Points of a line at most: more of them can't be seen.
const POINTS: usize = 400;

const INK: &str = "#333";
const GRID: &str = "#ddd";
const FIRST: &str = "#1f5fa8";
const SECOND: &str = "#c2571a";
const KILL: &str = "#b3261e";
const AWAY: &str = "#e8edf4";
const FULL: &str = "#fbe3b5";

/// What one panel shows.
struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

/// One line of a panel.
struct Line {
    name: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// What stands for several samples.
    reduce: fn(&[f64]) -> f64,
}

const PANELS: [Panel; 4] = [
    Panel { title: "Memory, MB", lines: &[Line { name: "resident", of: |sample| sample.memory_mb, reduce: most }] },
    Panel { title: "Disk, MB", lines: &[Line { name: "used", of: |sample| sample.disk_mb, reduce: most }] },
    Panel {
        title: "Open handles and threads",
        lines: &[
            Line { name: "handles", of: |sample| sample.handles, reduce: most },
            Line { name: "threads", of: |sample| sample.threads, reduce: most },
        ],
    },
    Panel {
        title: "Messages a second",
        lines: &[
            Line { name: "confirmed", of: |sample| sample.confirmed, reduce: mean },
            Line { name: "settled", of: |sample| sample.settled, reduce: mean },
        ],
    },
];

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The picture, as SVG.
pub(crate) fn draw(record: &Record, script: &Script) -> String {
    let seconds = record.samples.last().map_or(script.seconds(), |last| last.at.max(script.seconds()));
    let mut picture = Picture { svg: String::new(), seconds };
    picture.draw(record, script);
    picture.svg
}

struct Picture {
    svg: String,
    /// What the width stands for.
    seconds: f64,
}

impl Picture {
    fn draw(&mut self, record: &Record, script: &Script) {
        let height = top_of(PANELS.len()) - GAP + BOTTOM;
        self.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"{INK}\">"
        ));
        self.put(&format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"));
        self.title(script);
        for (number, panel) in PANELS.iter().enumerate() {
            self.panel(top_of(number), panel, record);
        }
        self.time_axis(top_of(PANELS.len()) - GAP);
        self.put("</svg>");
    }

    fn title(&mut self, script: &Script) {
        let minutes = script.seconds() / 60.0;
        self.text(LEFT, 24.0, "start", &format!("<tspan font-size=\"15\">A soak of {minutes:.0} minutes</tspan>"));
        let mut x = LEFT;
        for (colour, name, width) in [(AWAY, "consumers away", 130.0), (FULL, "disk full", 95.0)] {
            self.rect(x, 37.0, 14.0, 12.0, colour);
            self.text(x + 20.0, 47.0, "start", name);
            x += width;
        }
        self.kill(x + 7.0, 37.0, 49.0);
        self.text(x + 20.0, 47.0, "start", "kill -9 and start");
    }

    fn panel(&mut self, top: f64, panel: &Panel, record: &Record) {
        let bottom = top + PANEL;
        for span in &record.spans {
            let (from, to) = (self.x(span.from), self.x(span.to));
            if span.consumers_away {
                self.rect(from, top, to - from, PANEL, AWAY);
            }
            if span.disk_full {
                let height = if span.consumers_away { PANEL / 2.0 } else { PANEL };
                self.rect(from, bottom - height, to - from, height, FULL);
            }
        }
        let lines: Vec<_> = panel.lines.iter().map(|line| points(line, &record.samples)).collect();
        let highest = lines.iter().flatten().flatten().map(|(_, value)| *value).fold(1.0, f64::max);
        let scale = round_up(highest);
        for part in [0.0, 0.5, 1.0] {
            let y = bottom - part * PANEL;
            self.line(LEFT, WIDTH - RIGHT, y, y, GRID);
            self.text(LEFT - 8.0, y + 4.0, "end", &(part * scale).to_string());
        }
        self.text(LEFT, top - 8.0, "start", panel.title);
        for kill in &record.kills {
            self.kill(self.x(*kill), top, bottom);
        }
        let y = |value: f64| bottom - value / scale * PANEL;
        let mut name_above = f64::INFINITY;
        for ((line, points), colour) in panel.lines.iter().zip(&lines).zip([FIRST, SECOND]) {
            self.path(points, y, colour);
            let Some((_, last)) = points.iter().rev().flatten().next() else { continue };
            // Names beside lines that end at the same height stand above each other.
            let middle = if (y(*last) - name_above).abs() < NAME { name_above - NAME } else { y(*last) };
            let name = format!("<tspan fill=\"{colour}\">{}</tspan>", line.name);
            self.text(WIDTH - RIGHT + 8.0, middle + 4.0, "start", &name);
            name_above = middle;
        }
    }

    fn time_axis(&mut self, y: f64) {
        let minutes = self.seconds / 60.0;
        let step = round_up(minutes / 12.0).max(1.0);
        let mut at = 0.0;
        while at <= minutes {
            let x = self.x(at * 60.0);
            self.line(x, x, y, y + 4.0, INK);
            self.text(x, y + 18.0, "middle", &at.to_string());
            at += step;
        }
        self.text(WIDTH - RIGHT + 8.0, y + 18.0, "start", "minutes");
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    /// A line with a gap wherever a point is absent.
    fn path(&mut self, points: &[Option<(f64, f64)>], y: impl Fn(f64) -> f64, colour: &str) {
        let (mut path, mut is_down) = (String::new(), false);
        for point in points {
            if let Some((at, value)) = point {
                let command = if is_down { 'L' } else { 'M' };
                // Writing to a String can't fail.
                write!(path, "{command}{:.1} {:.1}", self.x(*at), y(*value)).expect("a String takes everything");
            }
            is_down = point.is_some();
        }
        self.put(&format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"));
    }

    fn kill(&mut self, x: f64, from: f64, to: f64) {
        self.put(&format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from}\" y2=\"{to}\" stroke=\"{KILL}\" stroke-dasharray=\"3 3\"/>"
        ));
    }

    fn line(&mut self, x1: f64, x2: f64, y1: f64, y2: f64, colour: &str) {
        self.put(&format!("<line x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1}\" y2=\"{y2}\" stroke=\"{colour}\"/>"));
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        self.put(&format!("<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.put(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    fn put(&mut self, element: &str) {
        self.svg.push_str(element);
        self.svg.push('\n');
    }
}

fn top_of(panel: usize) -> f64 {
    TOP + GAP / 2.0 + panel as f64 * (PANEL + GAP)
}

/// At most [`POINTS`] of them: time and value, absent where all samples were.
fn points(line: &Line, samples: &[Sample]) -> Vec<Option<(f64, f64)>> {
    let each = samples.len().div_ceil(POINTS).max(1);
    let point = |samples: &[Sample]| {
        let values: Vec<f64> = samples.iter().filter_map(line.of).collect();
        let at = samples.first()?.at;
        (!values.is_empty()).then(|| (at, (line.reduce)(&values)))
    };
    samples.chunks(each).map(point).collect()
}

/// The next 1, 2, 5 or 10 of its power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}
