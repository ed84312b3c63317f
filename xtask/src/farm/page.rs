//! The page about a farm and what was compiled with it: a file of its own, which asks for nothing from anywhere.

use maud::{Markup, html};

use crate::error::Result;
use crate::mirror::{ICON, STYLE};
use crate::stage::compiled::Compiled;
use crate::stage::farm::Status;
use crate::ui::page::document;

/// The page: the farm, if one was named, by its address and by what its scheduler says, and the compiles of a store, `at`
/// a time.
pub fn render(farm: Option<&(String, Result<Status>)>, builds: &[Compiled], at: &str) -> String {
    let head = html! {
        meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
        link rel="icon" href=(ICON);
    };
    let body = html! {
        main {
            h1 { "Farm and compiler cache" }
            p.soft { "As of " (at) }
            @if let Some((address, said)) = farm { (the_farm(address, said)) }
            h2 { "Compiles of this store" }
            @if builds.is_empty() {
                p { "None whose work folder stands." }
            } @else {
                (the_builds(builds))
            }
        }
    };
    document("torchmill: farm and compiler cache", STYLE, &head, &body)
}

fn the_farm(address: &str, said: &Result<Status>) -> Markup {
    html! {
        h2 { code { (address) } }
        @match said {
            Ok(status) => {
                div.scroll { table {
                    thead { tr { th { "workers" } th { "cores" } th { "objects with them" } } }
                    tbody { tr { td { (status.num_servers) } td { (status.num_cpus) } td { (status.in_progress) } } }
                } }
                @if status.num_servers == 0 {
                    p.bad { "No worker was heard of within the last 90 seconds." }
                }
            }
            Err(e) => p.bad { (e.what()) }
        }
    }
}

fn the_builds(builds: &[Compiled]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "torch" } th { "Python" } th { "compiler" } th { "compiled here" } th { "compiler cache" }
                th { "archive" } th { "farm" } th { "hit rate" } th { "from elsewhere" } th { "of these compiled again" }
                th { "who answers for them" }
            } }
            tbody { @for build in builds { tr {
                td { (build.version) }
                td { (build.python) }
                td { (build.compiler) }
                @if let Some(whence) = &build.record.whence {
                    td { (whence.local) } td { (whence.cache) } td { (whence.archive) } td { (whence.farm) }
                    td { (rate(whence.cache + whence.archive, whence.local + whence.farm)) }
                } @else {
                    @for _ in 0..5 { td.soft { "not noted" } }
                }
                @if let Some(from) = &build.record.objects {
                    td { (from.elsewhere()) " of " (from.objects) }
                    td { (from.audited) }
                    td { (from.writer) }
                } @else {
                    td { "none" } td {} td {}
                }
            } } }
        } }
        p.soft {
            "Compiled here to farm: the objects of the last run of the compile. The compiler cache is this machine's, or one "
            "that machines share. From elsewhere: of an archive, a shared cache or a farm, in all runs."
        }
    }
}

/// Hits of all, in percent.
fn rate(hits: u64, misses: u64) -> String {
    match hits + misses {
        0 => "nothing to do".into(),
        all => format!("{:.1} %", 100.0 * hits as f64 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::event::Whence;
    use crate::stage::steps::compile::Record;

    fn build(whence: Option<Whence>) -> Compiled {
        let record = Record { cache: "ccache".into(), jobs: 2, whence, objects: None };
        Compiled { version: "2.12.1+<cpu>".into(), python: "3.11.7".into(), compiler: "c++ 12".into(), record }
    }

    #[test]
    fn what_was_not_noted_is_called_so_and_text_of_others_is_no_markup() {
        let whence = Whence { local: 1, cache: 7, archive: 0, farm: 2 };
        let page = render(None, &[build(Some(whence)), build(None)], "now");
        assert!(page.contains("70.0 %") && page.contains("2.12.1+&lt;cpu&gt;"), "{page}");
        assert_eq!(page.matches("not noted").count(), 5);
        let asked = ("http://10.0.0.1:10600".to_owned(), Err(Error::world("farm", "it does not answer")));
        let page = render(Some(&asked), &[], "now");
        assert!(page.contains("it does not answer") && page.contains("None whose work folder stands"), "{page}");
        let asked = (asked.0, Ok(Status { num_servers: 0, num_cpus: 0, in_progress: 0, minutes_apart: None }));
        assert!(render(Some(&asked), &[], "now").contains("No worker was heard of"));
    }
}
