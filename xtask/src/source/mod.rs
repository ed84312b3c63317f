//! Getting bytes: one file a kind of coordinate; unpacking; patching. Whatever comes from outside
//! is hostile until its digest is known.

pub mod choice;
mod crates;
pub mod deb;
pub mod debian;
mod fetch;
pub mod git;
mod http;
pub mod patch;
pub mod pypi;
pub mod tarball;
pub mod unpack;

pub use fetch::{Fetcher, Want};
pub use http::{
    agent as http_agent, agent_within as http_agent_within, body as http_body, download_to, get as http_get,
    minutes_apart, server_clock, text as http_text,
};
