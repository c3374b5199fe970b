//! The hosts of a URL, which the driver does not know several of.

/// The URL of each host, in their order: `mysql://me@a,b:3307/orders` names two.
pub(super) fn each_host(url: &str) -> Vec<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let before = url.strip_suffix(path).and_then(|url| url.strip_suffix(hosts)).unwrap_or(scheme);
    hosts.split(',').map(|host| format!("{before}{host}{path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_all_that_the_url_says() {
        for (url, hosts) in [
            ("mysql://me@db/orders", &["mysql://me@db/orders"][..]),
            (
                "mysql://me:s,e@a,b:7,[::1]:8/orders?x=y,z@w",
                &[
                    "mysql://me:s,e@a/orders?x=y,z@w",
                    "mysql://me:s,e@b:7/orders?x=y,z@w",
                    "mysql://me:s,e@[::1]:8/orders?x=y,z@w",
                ],
            ),
            ("mysql://a,b", &["mysql://a", "mysql://b"]),
            ("nonsense", &["nonsense"]),
        ] {
            assert_eq!(each_host(url), hosts);
        }
    }
}
