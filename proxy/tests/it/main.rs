//! The proxy between real sockets, driven through its control API.

mod faults;
mod frames;
mod harness;
mod passing;
mod selection;
mod tls;
mod toxiproxy;
mod websocket;
