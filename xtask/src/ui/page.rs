//! What all pages for people begin with: a document of its own, which brings its look along.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A page called `title`, that looks as `style` says; `head` is what else belongs there.
pub fn document(title: &str, style: &str, head: &Markup, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                (head)
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    }
    .into_string()
}
