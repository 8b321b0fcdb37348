//! Bytes between two sockets. An empty [`Buffer`] owns no memory: its storage comes from a free list of the thread and goes
//! back there as soon as it is empty, so that thousands of idle sessions share a few blocks.

use std::cell::RefCell;

/// Capacity of a block from the free list. Bytes.
const BLOCK: usize = 8 * 1024;
/// Blocks larger than this are freed rather than kept. Bytes.
const KEEP_MAX: usize = 64 * 1024;
/// Blocks kept per thread.
const KEEP_COUNT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_block() -> Vec<u8> {
    FREE.with(|free| free.borrow_mut().pop()).unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

fn return_block(mut block: Vec<u8>) {
    if block.capacity() == 0 || block.capacity() > KEEP_MAX {
        return;
    }
    block.clear();
    FREE.with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEEP_COUNT {
            free.push(block);
        }
    });
}

/// A queue of bytes: appended at the end, consumed from the front.
#[derive(Debug, Default)]
pub struct Buffer {
    block: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty buffer, which owns no memory.
    pub const fn new() -> Self {
        Buffer { block: Vec::new(), start: 0 }
    }

    /// The bytes that were not consumed.
    pub fn as_slice(&self) -> &[u8] {
        &self.block[self.start..]
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.block.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.block.len() == self.start
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.writer().extend_from_slice(bytes);
        }
    }

    /// The storage, for appending messages. Only to append: bytes before its present end must stay.
    pub fn writer(&mut self) -> &mut Vec<u8> {
        if self.block.capacity() == 0 {
            self.block = take_block();
        } else if self.start > KEEP_MAX && self.start > self.block.len() / 2 {
            self.block.drain(..self.start);
            self.start = 0;
        }
        &mut self.block
    }

    /// Drops `count` bytes at the front, at most all.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.block.len());
        if self.start == self.block.len() {
            self.clear();
        }
    }

    /// Drops everything and gives the storage back.
    pub fn clear(&mut self) {
        self.start = 0;
        if self.block.capacity() > 0 {
            return_block(std::mem::take(&mut self.block));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_buffer_owns_nothing_and_blocks_are_shared() {
        let mut first = Buffer::new();
        first.push(b"hello");
        let address = first.as_slice().as_ptr();
        first.consume(2);
        assert_eq!(first.as_slice(), b"llo");
        first.consume(99);
        assert!(first.is_empty());
        assert_eq!(first.block.capacity(), 0);
        let mut second = Buffer::new();
        second.push(b"again");
        assert_eq!(second.as_slice().as_ptr(), address);
    }

    #[test]
    fn a_long_queue_does_not_grow_for_ever() {
        let mut buffer = Buffer::new();
        buffer.push(b"x");
        for _ in 0..1000 {
            buffer.push(&[7; 4096]);
            buffer.consume(4096);
        }
        assert_eq!(buffer.len(), 1);
        assert!(buffer.block.capacity() < 1024 * 1024);
    }
}
