//! The embedded servers over real sockets, as clients and publishers meet them.

mod defects;
mod golden;
mod khala;
mod log;
mod probes;
mod real;
mod spacetime;
mod strangers;
mod support;
mod tokens;
