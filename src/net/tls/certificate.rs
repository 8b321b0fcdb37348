//! What is read out of certificates.
//!
//! Certificates of peers are untrusted input: under `prefer` and `require` nobody has verified them. x509-cert parses them as strict DER.
//! It is preferred to x509-certificate, which pgwire brings along, because that one is about making certificates and its list of signature
//! algorithms has neither RSA-PSS nor ECDSA with SHA-512.

use crate::config::CertName;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierRef;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// A hash that a certificate can be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignatureHash {
    /// SHA-256, and whatever RFC 5929 replaces by it: MD5 and SHA-1.
    Sha256,
    Sha224,
    Sha384,
    Sha512,
}

/// The `tls-server-end-point` channel binding of a certificate: its hash, by the hash function of its signature. `None` if the signature
/// has no such function (Ed25519) or it is not known: then there is no channel binding, with PostgreSQL neither.
///
/// Spec: RFC 5929, section 4.1; PostgreSQL `be_tls_get_certificate_hash`.
pub fn endpoint_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let parameters = parsed.signature_algorithm.parameters.as_ref().map(AnyRef::from);
    Some(match signature_hash(parsed.signature_algorithm.oid, parameters)? {
        SignatureHash::Sha224 => Sha224::digest(certificate).to_vec(),
        SignatureHash::Sha256 => Sha256::digest(certificate).to_vec(),
        SignatureHash::Sha384 => Sha384::digest(certificate).to_vec(),
        SignatureHash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// The first common name of the first certificate of a chain: who a client says it is. Only of a chain that the handshake has verified does
/// it mean anything. `None` also for a name with a zero byte, which other programs would cut short.
pub fn peer_common_name(chain: &[CertificateDer<'_>]) -> Option<String> {
    let parsed = Certificate::from_der(chain.first()?).ok()?;
    let mut attributes = parsed.tbs_certificate.subject.0.iter().flat_map(|names| names.0.iter());
    let value = AnyRef::from(&attributes.find(|attribute| attribute.oid == COMMON_NAME)?.value);
    let name = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().to_owned(),
        _ => return None,
    };
    Some(name).filter(|name| !name.is_empty() && !name.contains('\0'))
}

/// The names that a field of a certificate holds; only of one that the handshake has verified do they mean anything. Names with a zero byte,
/// which other programs would cut short, are left out.
pub fn certificate_names(certificate: &CertificateDer<'_>, field: CertName) -> Vec<String> {
    let Ok(parsed) = Certificate::from_der(certificate) else { return Vec::new() };
    let alternatives = || match parsed.tbs_certificate.get::<SubjectAltName>() {
        Ok(Some((_, names))) => names.0,
        _ => Vec::new(),
    };
    let mut names: Vec<String> = match field {
        CertName::Cn => peer_common_name(std::slice::from_ref(certificate)).into_iter().collect(),
        CertName::Dn => vec![parsed.tbs_certificate.subject.to_string()],
        CertName::Dns | CertName::Email | CertName::Uri => alternatives()
            .into_iter()
            .filter_map(|name| match (field, name) {
                (CertName::Dns, GeneralName::DnsName(name)) => Some(name.to_string()),
                (CertName::Email, GeneralName::Rfc822Name(name)) => Some(name.to_string()),
                (CertName::Uri, GeneralName::UniformResourceIdentifier(name)) => Some(name.to_string()),
                _ => None,
            })
            .collect(),
    };
    names.retain(|name| !name.is_empty() && !name.contains('\0'));
    names
}

/// Whether a certificate is valid at `now`; `None` if it can't be read.
pub(super) fn is_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<bool> {
    let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
    let from = validity.not_before.to_unix_duration().as_secs();
    let to = validity.not_after.to_unix_duration().as_secs();
    Some((from..=to).contains(&now.as_secs()))
}

/// Spec: RFC 3279, 4055, 5758 for signatures, RFC 8017 for RSA-PSS.
fn signature_hash(algorithm: ObjectIdentifier, parameters: Option<AnyRef<'_>>) -> Option<SignatureHash> {
    if algorithm == RSA_PSS {
        return pss_hash(parameters?);
    }
    Some(match algorithm.to_string().as_str() {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1, DSA with SHA-1.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => SignatureHash::Sha256,
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.3.2" => SignatureHash::Sha256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => SignatureHash::Sha384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => SignatureHash::Sha512,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.3.1" => SignatureHash::Sha224,
        _ => return None,
    })
}

/// RSA-PSS names its hash in its parameters' field 0; left out, it is SHA-1.
fn pss_hash(parameters: AnyRef<'_>) -> Option<SignatureHash> {
    if parameters.tag() != Tag::Sequence {
        return None;
    }
    let mut reader = SliceReader::new(parameters.value()).ok()?;
    let first: Option<AnyRef<'_>> = if reader.is_finished() { None } else { Some(reader.decode().ok()?) };
    let field_zero = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
    let Some(field) = first.filter(|field| field.tag() == field_zero) else {
        return Some(SignatureHash::Sha256);
    };
    let hash = AlgorithmIdentifierRef::from_der(field.value()).ok()?;
    Some(match hash.oid.to_string().as_str() {
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => SignatureHash::Sha256,
        "2.16.840.1.101.3.4.2.2" => SignatureHash::Sha384,
        "2.16.840.1.101.3.4.2.3" => SignatureHash::Sha512,
        "2.16.840.1.101.3.4.2.4" => SignatureHash::Sha224,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use std::time::Duration;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm, names: &[DnValue]) -> CertificateDer<'static> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "pgyard");
        for name in names {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_endpoint_hash_follows_the_signature() {
        let check = |algorithm, expect: fn(&[u8]) -> Option<Vec<u8>>| {
            let certificate = certificate(algorithm, &[]);
            assert_eq!(endpoint_hash(&certificate), expect(&certificate), "{algorithm:?}");
        };
        check(&PKCS_ECDSA_P256_SHA256, |der| Some(Sha256::digest(der).to_vec()));
        check(&PKCS_ECDSA_P384_SHA384, |der| Some(Sha384::digest(der).to_vec()));
        check(&PKCS_ED25519, |_| None);
        assert_eq!(endpoint_hash(&CertificateDer::from(b"0".to_vec())), None);
    }

    #[test]
    fn the_hash_of_every_signature_algorithm() {
        let check = |oid: &str, parameters: Option<&[u8]>, expect| {
            let parameters = parameters.map(|der| AnyRef::from_der(der).unwrap());
            assert_eq!(signature_hash(ObjectIdentifier::new_unwrap(oid), parameters), expect, "{oid} {parameters:?}");
        };
        let (rsa, ecdsa) = ("1.2.840.113549.1.1", "1.2.840.10045.4");
        check(&format!("{rsa}.4"), None, Some(SignatureHash::Sha256));
        check(&format!("{rsa}.5"), None, Some(SignatureHash::Sha256));
        check(&format!("{rsa}.11"), Some(b"\x05\x00"), Some(SignatureHash::Sha256));
        check(&format!("{rsa}.12"), None, Some(SignatureHash::Sha384));
        check(&format!("{rsa}.13"), None, Some(SignatureHash::Sha512));
        check(&format!("{rsa}.14"), None, Some(SignatureHash::Sha224));
        check(&format!("{ecdsa}.1"), None, Some(SignatureHash::Sha256));
        check(&format!("{ecdsa}.3.2"), None, Some(SignatureHash::Sha256));
        check(&format!("{ecdsa}.3.4"), None, Some(SignatureHash::Sha512));
        check("1.3.101.112", None, None);
        // RSA-PSS: SHA-384 named; nothing named; only the salt length named; no parameters; damaged ones; an unknown hash.
        let pss = format!("{rsa}.10");
        let sha384 = b"\x30\x0f\xa0\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02";
        check(&pss, Some(sha384), Some(SignatureHash::Sha384));
        check(&pss, Some(b"\x30\x00"), Some(SignatureHash::Sha256));
        check(&pss, Some(b"\x30\x05\xa2\x03\x02\x01\x20"), Some(SignatureHash::Sha256));
        check(&pss, None, None);
        check(&pss, Some(b"\x05\x00"), None);
        check(&pss, Some(b"\x30\x03\xa0\x05\x30"), None);
        check(&pss, Some(b"\x30\x09\xa0\x07\x30\x05\x06\x03\x2b\x65\x70"), None);
    }

    #[test]
    fn the_common_name_of_the_first_certificate() {
        let check = |names: &[DnValue], expect: Option<&str>| {
            let chain = [certificate(&PKCS_ECDSA_P256_SHA256, names), certificate(&PKCS_ECDSA_P256_SHA256, &["issuer".into()])];
            assert_eq!(peer_common_name(&chain).as_deref(), expect, "{names:?}");
        };
        check(&["alice".into()], Some("alice"));
        check(&[DnValue::PrintableString("bob".try_into().unwrap())], Some("bob"));
        check(&[DnValue::Ia5String("carol@db".try_into().unwrap())], Some("carol@db"));
        check(&["sch\u{f6}n".into()], Some("sch\u{f6}n"));
        check(&["alice\0.evil".into()], None);
        check(&["".into()], None);
        check(&[], None);
        assert_eq!(peer_common_name(&[]), None);
        assert_eq!(peer_common_name(&[CertificateDer::from(vec![0x30, 0x00])]), None);
    }

    #[test]
    fn names_are_read_from_every_field() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["app.test".to_owned()]).unwrap();
        let text = |text: &str| text.try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name(text("alice@example.com")));
        params.subject_alt_names.push(rcgen::SanType::URI(text("spiffe://example.com/app")));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "ops, inc");
        params.distinguished_name.push(DnType::CommonName, "alice");
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let check = |field, expect: &[&str]| assert_eq!(certificate_names(&certificate, field), expect, "{field:?}");
        check(CertName::Cn, &["alice"]);
        check(CertName::Dn, &["CN=alice,O=ops\\, inc"]);
        check(CertName::Dns, &["app.test"]);
        check(CertName::Email, &["alice@example.com"]);
        check(CertName::Uri, &["spiffe://example.com/app"]);
        assert!(certificate_names(&CertificateDer::from(vec![0x30, 0x00]), CertName::Dn).is_empty());
    }

    #[test]
    fn validity_is_read() {
        let certificate = certificate(&PKCS_ECDSA_P256_SHA256, &[]);
        let at = |seconds| is_valid_at(&certificate, UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        assert_eq!(at(1_700_000_000), Some(true));
        assert_eq!(at(0), Some(false));
        assert_eq!(at(u64::MAX), Some(false));
    }

    proptest! {
        #[test]
        fn damaged_certificates_do_not_panic(at in 0..400usize, with: u8, cut in 0..400usize) {
            let mut der = certificate(&PKCS_ECDSA_P256_SHA256, &["alice".into()]).to_vec();
            let at = at % der.len();
            der[at] = with;
            for der in [der.clone(), der[..cut.min(der.len())].to_vec()] {
                let der = CertificateDer::from(der);
                endpoint_hash(&der);
                peer_common_name(std::slice::from_ref(&der));
                for field in [CertName::Dn, CertName::Dns, CertName::Email, CertName::Uri] {
                    certificate_names(&der, field);
                }
                is_valid_at(&der, UnixTime::now());
            }
        }
    }
}
