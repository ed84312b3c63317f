//! Plots as inline SVG: colours from the page's variables, so that light, dark and print are one
//! picture; a title and a description for those who do not see it; the figures stand in a table below.

use maud::{Markup, html};

/// One line of a plot.
pub struct Series {
    /// Its name, beside the line.
    pub name: String,
    /// Position in the palette: 0 candidate, 1 baseline, 2 and 3 the same, dashed.
    pub style: usize,
    /// Points (x, y), in the order of x; both above zero, for the axes are logarithmic.
    pub points: Vec<(f64, f64)>,
}

/// A plot with logarithmic axes.
pub struct Plot<'a> {
    /// Unique on the page.
    pub id: String,
    /// What it shows, in a sentence.
    pub title: &'a str,
    /// Label of the x axis.
    pub x: &'a str,
    /// Label of the y axis.
    pub y: &'a str,
    /// The lines to draw.
    pub series: Vec<Series>,
    /// Text of an x tick.
    pub x_text: fn(f64) -> String,
    /// Text of a y tick.
    pub y_text: fn(f64) -> String,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 52.0;

/// Draws the plot: lines that have points; nothing where there is no point above 0.
pub fn lines(plot: &Plot<'_>) -> Markup {
    let series: Vec<&Series> =
        plot.series.iter().filter(|s| s.points.iter().any(|(x, y)| *x > 0.0 && *y > 0.0)).collect();
    let points: Vec<(f64, f64)> =
        series.iter().flat_map(|s| s.points.iter().copied()).filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
    let (Some(x_range), Some(y_range)) = (range(points.iter().map(|p| p.0)), range(points.iter().map(|p| p.1))) else {
        return html! {};
    };
    let y_range = (10f64.powf(y_range.0.log10().floor()), 10f64.powf(y_range.1.log10().ceil()));
    let place = |v: f64, (low, high): (f64, f64), from: f64, to: f64| {
        let span = (high / low).ln();
        from + if span > 0.0 { (v / low).ln() / span } else { 0.5 } * (to - from)
    };
    let px = |x: f64| place(x, x_range, LEFT, WIDTH - RIGHT);
    let py = |y: f64| place(y, y_range, HEIGHT - BOTTOM, TOP);
    let mut xs: Vec<f64> = points.iter().map(|p| p.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let every = xs.len().div_ceil(8).max(1);
    let decades = (y_range.1 / y_range.0).log10().round() as i32;
    let step = (decades / 6).max(1);
    let ys: Vec<f64> =
        (0..=decades).step_by(usize::try_from(step).unwrap_or(1)).map(|d| y_range.0 * 10f64.powi(d)).collect();
    let title = format!("{}-title", plot.id);
    let description = format!("{}-description", plot.id);
    let path = |points: &[(f64, f64)]| {
        let mut d = String::new();
        for (i, (x, y)) in points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).enumerate() {
            d.push_str(&format!("{}{:.1} {:.1}", if i == 0 { "M" } else { " L" }, px(*x), py(*y)));
        }
        d
    };
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{title} {description}")) {
            title id=(title) { (plot.title) }
            desc id=(description) {
                (plot.y) " over " (plot.x) ", both axes logarithmic. Lines: "
                @for (i, s) in series.iter().enumerate() { @if i > 0 { ", " } (s.name) }
                ". The figures stand in the table below."
            }
            g class="grid" {
                @for y in &ys {
                    line x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", py(*y))) y2=(format!("{:.1}", py(*y))) {}
                }
            }
            g class="ticks" {
                @for y in &ys {
                    text x=(LEFT - 8.0) y=(format!("{:.1}", py(*y) + 4.0)) text-anchor="end" { ((plot.y_text)(*y)) }
                }
                @for x in xs.iter().step_by(every) {
                    text x=(format!("{:.1}", px(*x))) y=(HEIGHT - BOTTOM + 20.0) text-anchor="middle" { ((plot.x_text)(*x)) }
                }
                text x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (plot.x) }
            }
            @for s in &series {
                path class=(format!("line s{}", s.style)) d=(path(&s.points)) {}
                @for (x, y) in s.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0) {
                    circle class=(format!("dot s{}", s.style)) cx=(format!("{:.1}", px(*x))) cy=(format!("{:.1}", py(*y))) r="3" {}
                }
            }
        }
        ul.legend {
            @for s in &series { li { span class=(format!("swatch s{}", s.style)) {} (s.name) } }
        }
    }
}

/// One bar a ratio, around 1.
pub struct Ratio {
    /// What was measured, as the table calls it.
    pub name: String,
    /// Value and interval.
    pub value: (f64, f64, f64),
    /// Whether it meets its bar.
    pub good: bool,
}

/// Ratios as horizontal bars from 1, on a logarithmic axis.
pub fn ratios(id: &str, what: &str, ratios: &[Ratio]) -> Markup {
    const ROW: f64 = 22.0;
    const NAME: f64 = 290.0;
    let ends = ratios.iter().flat_map(|r| [r.value.0, r.value.1, r.value.2]).filter(|v| *v > 0.0);
    let Some((low, high)) = range(ends) else { return html! {} };
    let far = high.max(1.0 / low).max(1.25);
    let (low, high) = (1.0 / far, far);
    let px = |v: f64| NAME + (v / low).ln() / (high / low).ln() * (WIDTH - NAME - RIGHT);
    let height = ratios.len() as f64 * ROW + 40.0;
    let title = format!("{id}-title");
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby=(title) {
            title id=(title) { (what) ": a bar each, from 1. The figures stand in the table below." }
            g class="grid" {
                line x1=(format!("{:.1}", px(1.0))) x2=(format!("{:.1}", px(1.0))) y1="0" y2=(height - 24.0) {}
            }
            g class="ticks" {
                @for v in [low, 1.0, high] {
                    text x=(format!("{:.1}", px(v).clamp(NAME + 14.0, WIDTH - 18.0))) y=(height - 6.0) text-anchor="middle" { (format!("{v:.2}")) }
                }
                @for (i, r) in ratios.iter().enumerate() {
                    text x=(NAME - 10.0) y=(i as f64 * ROW + 15.0) text-anchor="end" { (r.name) }
                }
            }
            @for (i, r) in ratios.iter().enumerate() {
                @let y = i as f64 * ROW + 4.0;
                @let (from, to) = (px(r.value.0.min(1.0)), px(r.value.0.max(1.0)));
                rect class=(if r.good { "bar good" } else { "bar bad" }) x=(format!("{from:.1}")) y=(y) width=(format!("{:.1}", (to - from).max(1.0))) height=(ROW - 8.0) {}
                line class="whisker" x1=(format!("{:.1}", px(r.value.1))) x2=(format!("{:.1}", px(r.value.2))) y1=(y + 7.0) y2=(y + 7.0) {}
            }
        }
    }
}

/// Smallest and largest.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}
