//! Settings that are one of a few words.

use super::access::{AccessMethod, CertName, ClientCertRule, ConnectionKind};
use super::settings::{
    AuthMethod, Balance, Consistency, LogFormat, PoolMode, ReadsOnPrimary, ReuseUnnamed, RoleSetting, ServerTlsMode,
};

/// A setting whose values have names.
pub trait NamedChoice: Copy + PartialEq + 'static {
    /// Every value with the name it has in the file, in the order in which they are listed to people.
    const CHOICES: &'static [(&'static str, Self)];

    /// The value's name.
    fn name(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, value)| *value == self).map_or("?", |(name, _)| name)
    }

    /// The value of that name; case, `-` and `_` do not matter.
    fn from_name(text: &str) -> Option<Self> {
        let plain = |text: &str| text.trim().replace('-', "_").to_ascii_lowercase();
        Self::CHOICES.iter().find(|(name, _)| plain(name) == plain(text)).map(|(_, value)| *value)
    }
}

macro_rules! choices {
    ($($type:ident: $($name:literal = $variant:ident),+;)*) => {
        $(impl NamedChoice for $type {
            const CHOICES: &'static [(&'static str, Self)] = &[$(($name, $type::$variant)),+];
        })*
    };
}

choices! {
    LogFormat: "text" = Text, "json" = Json;
    PoolMode: "transaction" = Transaction, "session" = Session;
    Balance: "round_robin" = RoundRobin, "least_connections" = LeastConnections, "weighted" = Weighted, "random" = Random,
        "ip_hash" = IpHash, "peak_ewma" = PeakEwma;
    ReadsOnPrimary: "fallback" = Fallback, "always" = Always, "never" = Never;
    Consistency: "eventual" = Eventual, "session" = Session, "monotonic" = Monotonic, "global" = Global;
    ReuseUnnamed: "off" = Off, "on" = On, "custom_plans" = CustomPlans;
    AuthMethod: "auto" = Auto, "scram" = Scram, "md5" = Md5, "plain" = Plain, "trust" = Trust;
    ConnectionKind: "any" = Any, "tls" = Tls, "plain" = Plain, "unix" = Unix;
    AccessMethod: "auto" = Auto, "scram" = Scram, "md5" = Md5, "plain" = Plain, "trust" = Trust, "cert" = Cert, "peer" = Peer, "reject" = Reject;
    ClientCertRule: "off" = Off, "verify-ca" = VerifyCa, "verify-full" = VerifyFull;
    CertName: "cn" = Cn, "dn" = Dn, "dns" = Dns, "email" = Email, "uri" = Uri;
    RoleSetting: "auto" = Auto, "primary" = Primary, "replica" = Replica;
    ServerTlsMode: "disable" = Disable, "allow" = Allow, "prefer" = Prefer, "require" = Require, "verify-ca" = VerifyCa, "verify-full" = VerifyFull;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all<C: NamedChoice + std::fmt::Debug>() {
        for (name, value) in C::CHOICES {
            assert_eq!(value.name(), *name);
            assert_eq!(C::from_name(name), Some(*value));
        }
        assert_eq!(C::from_name("no such thing"), None);
    }

    #[test]
    fn names_are_read_back() {
        check_all::<LogFormat>();
        check_all::<PoolMode>();
        check_all::<Balance>();
        check_all::<ReadsOnPrimary>();
        check_all::<Consistency>();
        check_all::<ReuseUnnamed>();
        check_all::<AuthMethod>();
        check_all::<RoleSetting>();
        check_all::<ServerTlsMode>();
        check_all::<ConnectionKind>();
        check_all::<AccessMethod>();
        check_all::<ClientCertRule>();
        check_all::<CertName>();
        assert_eq!(Balance::from_name("Round-Robin"), Some(Balance::RoundRobin));
        assert_eq!(ServerTlsMode::from_name("verify_full"), Some(ServerTlsMode::VerifyFull));
    }
}
