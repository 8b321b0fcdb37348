//! Sockets and the bytes in flight on them: streams (plain and TLS), buffers that idle sessions do not own, socket options.

pub mod buffer;
pub mod open;
pub mod scratch;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod watched;

pub use buffer::Buffer;
pub use stream::Stream;
