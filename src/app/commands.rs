//! The commands beside `serve` and `demo`: each looks at a file, or asks a running pgyard through its console.
