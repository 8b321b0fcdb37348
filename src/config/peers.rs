//! The other pgyard processes behind the same address.

/// The pgyard processes that share an address, so that a cancel request finds its client whichever of them it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// This process's number among them, from 1 to 255; 0 (default): it is alone.
    pub id: usize,
    /// The others' numbers and addresses.
    pub others: Vec<PeerAddress>,
}

/// Where another pgyard process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its number.
    pub id: u8,
    /// A DNS name, an IP address or the directory of a Unix socket.
    pub address: String,
    /// Its port.
    pub port: u16,
}
