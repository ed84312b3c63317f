//! `mirror`: a wheel index that any web server or object store can serve (PEP 503, 691, 700, 714,
//! 592), a server for it, and uploads to servers that teams run already.
//!
//! ```text
//! gather (what is asked for, as files here) ─► wheel (what a file is) ─► index (what is published) ─► page (as HTML, JSON)
//!                              ├─► check, depends (what is missing)
//!                              ├─► copy (to another index), lock (to make it again), prune (what is old)
//!                              └─► serve
//! push: to a server that speaks the upload API
//! publish: what is judged first, then added or pushed
//! ```

mod check;
pub mod copy;
pub mod depends;
pub mod gather;
mod index;
pub mod lock;
mod page;
pub mod prune;
pub mod publish;
pub mod push;
pub mod requirements;
pub mod serve;
mod wheel;

pub use check::{Finding, check};
pub use index::{Added, Index, Outcome, Project, now, now_for_people};
pub use page::{File, ICON, ProjectPage, RootPage, STYLE, Yanked};
pub use wheel::Wheel;
