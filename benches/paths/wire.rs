//! Looking through messages.

use super::{HotPath, Run};
use pgyard::wire::frame::{header, put_message};
use std::hint::black_box;

/// A chunk as it is read from a server. Bytes.
pub const CHUNK: usize = 64 * 1024;

pub const PATHS: &[HotPath] = &[HotPath { bytes: CHUNK, ..HotPath::new("frame_scan_64k", frame_scan) }];

/// About `len` bytes of whole DataRow messages of about 100 bytes.
pub fn rows(len: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(len);
    while rows.len() + 103 <= len {
        put_message(&mut rows, b'D', |body| {
            body.extend_from_slice(&1_u16.to_be_bytes());
            body.extend_from_slice(&92_u32.to_be_bytes());
            body.extend_from_slice(&[b'.'; 92]);
        });
    }
    rows
}

fn frame_scan() -> Run {
    let chunk = rows(CHUNK);
    Ok(Box::new(move || {
        let mut rest = black_box(chunk.as_slice());
        while let Ok(Some(head)) = header(rest) {
            black_box(head.tag);
            rest = &rest[head.total..];
        }
    }))
}
