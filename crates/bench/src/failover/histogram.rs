//! A picture of how long kills took, as plain SVG: it reads on light and dark ground, and aloud.

use std::fmt::Write;

use crate::numbers::count;

/// One histogram of the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Milliseconds.
    pub samples: Vec<f64>,
    /// Width of a bar, ms.
    pub bin: f64,
    /// How many bars there are. What took longer is in the last one.
    pub bars: u32,
    /// Marks: where, and what is said there.
    pub marks: Vec<(f64, String)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 44.0;

const STYLE: &str = "\
  text { font: 13px system-ui, sans-serif; fill: #24292f }\n\
  .title { font-weight: 600 }\n\
  .bar { fill: #0969da }\n\
  .axis { stroke: #57606a; stroke-width: 1 }\n\
  .mark { stroke: #bc4c00; stroke-width: 1.5; stroke-dasharray: 4 3 }\n\
  @media (prefers-color-scheme: dark) {\n\
    text { fill: #e6edf3 }\n\
    .bar { fill: #58a6ff }\n\
    .axis { stroke: #8b949e }\n\
    .mark { stroke: #ffa657 }\n\
  }\n";

/// The picture; `title` and `description` are what a screen reader says.
pub fn svg(title: &str, description: &str, panels: &[Panel]) -> String {
    let height = HEIGHT * count(panels.len());
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"title description\">\n\
         <title id=\"title\">{}</title>\n<desc id=\"description\">{}</desc>\n<style>\n{STYLE}</style>\n",
        escaped(title),
        escaped(description)
    );
    for (number, panel) in (0_u32..).zip(panels) {
        let _infallible = writeln!(picture, "<g transform=\"translate(0 {})\">", f64::from(number) * HEIGHT);
        draw(panel, &mut picture);
        picture += "</g>\n";
    }
    picture + "</svg>\n"
}

fn draw(panel: &Panel, picture: &mut String) {
    let counts = counts(panel);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let end = panel.bin * f64::from(panel.bars);
    let (right, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |ms: f64| LEFT + (right - LEFT) * ms / end;
    let y = |kills: u32| floor - (floor - TOP) * f64::from(kills) / f64::from(most);
    let mut text = |class: &str, anchor: &str, x: f64, y: f64, said: &str| {
        let said = escaped(said);
        let _infallible = writeln!(
            picture,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{said}</text>"
        );
    };
    text("title", "start", LEFT, 22.0, &panel.title);
    text("said", "end", LEFT - 6.0, TOP + 4.0, &most.to_string());
    text("said", "end", LEFT - 6.0, floor, "0");
    for step in 0..=5 {
        let ms = end * f64::from(step) / 5.0;
        text("said", "middle", x(ms), floor + 18.0, &format!("{ms:.0}"));
    }
    text("said", "end", right, floor + 36.0, "ms after the kill");
    let last = panel.marks.len().saturating_sub(1);
    for (number, (ms, said)) in panel.marks.iter().enumerate() {
        // Marks may be close together: what is said of the last stands to its right, of the others to their left.
        let (anchor, aside) = if number == last { ("start", 4.0) } else { ("end", -4.0) };
        text("said", anchor, x(ms.min(end)) + aside, TOP - 8.0, said);
    }
    for (number, kills) in (0_u32..).zip(&counts).filter(|(_, kills)| **kills > 0) {
        let (from, to) = (x(panel.bin * f64::from(number)), x(panel.bin * f64::from(number + 1)));
        let _infallible = writeln!(
            picture,
            "<rect class=\"bar\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            y(*kills),
            (to - from - 0.8).max(0.4),
            floor - y(*kills)
        );
    }
    let _infallible = writeln!(
        picture,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{right}\" y2=\"{floor}\"/>"
    );
    for (ms, _) in &panel.marks {
        let at = x(ms.min(end));
        let _infallible = writeln!(
            picture,
            "<line class=\"mark\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{floor}\"/>"
        );
    }
}

fn counts(panel: &Panel) -> Vec<u32> {
    let last = panel.bars.saturating_sub(1);
    let bar_of = |sample: f64| (1..=last).take_while(|bar| f64::from(*bar) * panel.bin <= sample).count();
    let mut counts: Vec<u32> = (0..=last).map(|_| 0).collect();
    for sample in &panel.samples {
        counts[bar_of(*sample)] += 1;
    }
    counts
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        Panel {
            title: "dead < gray".to_owned(),
            samples: vec![5.0, 15.0, 16.0, 99.0, 2_000.0],
            bin: 10.0,
            bars: 10,
            marks: vec![(40.0, "p50".to_owned())],
        }
    }

    #[test]
    fn every_sample_is_in_a_bar_and_what_took_longer_than_the_axis_in_the_last() {
        assert_eq!(counts(&panel()), [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn the_picture_says_what_it_is_and_has_a_bar_for_each_that_is_not_empty() {
        let picture = svg("Times & places", "Of 5 kills", &[panel(), panel()]);
        assert!(picture.contains("<title id=\"title\">Times &amp; places</title>"));
        assert!(picture.contains("<desc id=\"description\">Of 5 kills</desc>"));
        assert!(picture.contains("dead &lt; gray") && picture.contains("prefers-color-scheme: dark"));
        assert_eq!(picture.matches("class=\"bar\"").count(), 6);
        assert_eq!(picture.matches("<g ").count(), picture.matches("</g>").count());
    }
}
