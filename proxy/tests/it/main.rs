//! The proxy between real sockets, driven through its control API.

mod faults;
mod harness;
mod passing;
mod selection;
mod tls;
mod toxiproxy;
mod websocket;
