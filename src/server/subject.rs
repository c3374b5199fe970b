//! The subject of a certificate as text, for the log: `CN=orders,O=Example`.
//!
//! Only reads certificates that rustls has verified; whatever does not look like one has no subject.

/// A certificate's subject, the most specific part first, as RFC 4514 writes it; `None` if it can't be read.
///
/// Two different subjects never read the same: what a name contains is escaped, and what is unknown shows its bytes.
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
    let (_, names, _) = element(fields)?;
    let mut parts = elements(names, |set| Some(elements(set, write_attribute)?.join("+")))?;
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The tag in front of a certificate's version, which old ones don't have.
const VERSION: u8 = 0xa0;

/// Tags of texts that are UTF-8 or a part of it: `UTF8String`, `PrintableString`, `IA5String`.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

fn write_attribute(bytes: &[u8]) -> Option<String> {
    let (_, oid, value) = element(bytes)?;
    let name = match oid {
        [0x55, 0x04, 0x03] => "CN".to_owned(),
        [0x55, 0x04, 0x06] => "C".to_owned(),
        [0x55, 0x04, 0x07] => "L".to_owned(),
        [0x55, 0x04, 0x08] => "ST".to_owned(),
        [0x55, 0x04, 0x0a] => "O".to_owned(),
        [0x55, 0x04, 0x0b] => "OU".to_owned(),
        oid => format!("OID.{}", hex(oid)),
    };
    let (tag, content, _) = element(value)?;
    let text = TEXTS.contains(&tag).then(|| std::str::from_utf8(content).ok()).flatten();
    Some(format!("{name}={}", text.map_or_else(|| format!("#{}", hex(value)), escape)))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push_str(&format!("\\{:02X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `each` makes of every element; `None` if one of them can't be read.
fn elements<T>(mut bytes: &[u8], each: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut made = Vec::new();
    while !bytes.is_empty() {
        let (_, content, rest) = element(bytes)?;
        made.push(each(content)?);
        bytes = rest;
    }
    Some(made)
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
        assert_eq!(of(&certificate()).unwrap(), "CN=orders,O=Example\\, Größe");
    }

    #[test]
    fn a_certificate_cut_anywhere_is_survived() {
        let certificate = certificate();
        for end in 0..certificate.len() {
            assert_eq!(of(&certificate[..end]), None, "cut at {end}");
        }
    }
}
