//! The report for people: one HTML page that needs nothing else, and the same as Markdown for a CI
//! summary. Both are made of the JSON form and of nothing else.

mod figures;
mod html;
mod markdown;
mod svg;

pub use html::page;
pub use markdown::summary;
