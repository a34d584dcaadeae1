//! The proxy between real sockets, driven through its control API.

mod faults;
mod frames;
mod harness;
mod leased_toxics;
mod passing;
mod selection;
mod tls;
mod toxiproxy;
mod websocket;
