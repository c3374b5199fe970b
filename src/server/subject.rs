//! The subject of a certificate as text, for the log: `CN=orders,O=Example`.
//!
//! Only reads certificates that rustls has verified; whatever does not look like one has no subject.

/// A certificate's subject, the most specific part first, as RFC 4514 writes it; `None` if it can't be read.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer, validity; then the subject (RFC 5280, 4.1).
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (_, mut names, _) = element(fields)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (_, set, rest) = element(names)?;
        parts.push(attribute(element(set)?.1)?);
        names = rest;
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The tag in front of a certificate's version, which old ones don't have.
const VERSION: u8 = 0xa0;

/// Tags of texts that are UTF-8 or a part of it: `UTF8String`, `PrintableString`, `IA5String`.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

fn attribute(bytes: &[u8]) -> Option<String> {
    let (_, oid, rest) = element(bytes)?;
    let (tag, value, _) = element(rest)?;
    let name = match oid {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        _ => "OID",
    };
    let text = TEXTS.contains(&tag).then(|| std::str::from_utf8(value).ok()).flatten().unwrap_or("?");
    Some(format!("{name}={}", text.replace(|c: char| c.is_control() || c == ',', "?")))
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0_usize, |length, digit| (length << 8) | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Größe");
        params.distinguished_name.push(DnType::CommonName, "orders");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_subject_is_read() {
        assert_eq!(of(&certificate()).unwrap(), "CN=orders,O=Example? Größe");
    }

    #[test]
    fn a_certificate_cut_anywhere_is_survived() {
        let certificate = certificate();
        for end in 0..certificate.len() {
            assert_eq!(of(&certificate[..end]), None, "cut at {end}");
        }
    }
}
