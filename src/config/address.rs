//! Values that name a place in the network: listening addresses, client networks, WeChat's base URLs, and the
//! database. Pure functions like those of value.rs; no name is ever looked up here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use ureq::http::Uri;

use super::Dsn;
use super::key::Key;
use super::value::{Parsed, must_be, switch};

/// Names are not looked up: a daemon must not come up on another address than it did yesterday.
pub fn address(key: &Key, text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    match port.parse() {
        Ok(port) if host.eq_ignore_ascii_case("localhost") => {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        Ok(_) if !host.is_empty() && !host.contains(':') => {
            Err(format!("host names other than localhost are not looked up; {}", must_be(key)))
        }
        _ => Err(must_be(key)),
    }
}

/// Bits behind the prefix length are cleared; an address alone is a network of one.
pub fn network(key: &Key, text: &str) -> Parsed<IpNet> {
    let network = text.parse::<IpNet>();
    let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|n| n.trunc()).map_err(|_| must_be(key))
}

/// Base URLs without the slash at their end.
pub fn hosts(key: &Key, text: &str) -> Parsed<Vec<String>> {
    let urls = text.split(',').map(|url| host(key, url.trim()));
    urls.collect()
}

fn host(key: &Key, text: &str) -> Parsed<String> {
    let url = match text.contains("://") {
        true => text.trim_end_matches('/').to_owned(),
        false => format!("https://{}", text.trim_end_matches('/')),
    };
    let uri: Uri = url.parse().map_err(|_| must_be(key))?;
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Err(must_be(key));
    };
    // Parsing drops a fragment, and takes a port that is no number for a part of the name.
    let port_is_bad = authority.as_str() != host && uri.port_u16().is_none();
    if host.is_empty() || port_is_bad || url.contains(['?', '#', '@']) {
        return Err(must_be(key));
    }
    match uri.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(host) => Ok(url),
        Some("http") => {
            Err(format!("the access token would travel in clear text; {}", must_be(key)))
        }
        _ => Err(must_be(key)),
    }
}

/// A proxy's URL, or None.
pub fn address_or_off(key: &Key, text: &str) -> Parsed<Option<SocketAddr>> {
    match switch(text) {
        Some(false) => Ok(None),
        _ => address(key, text).map(Some),
    }
}

pub fn proxy(key: &Key, text: &str) -> Parsed<Option<String>> {
    match text {
        "none" => Ok(None),
        _ => match ureq::Proxy::new(text) {
            Ok(proxy) if text.contains("://") && connects(&proxy) => Ok(Some(text.to_owned())),
            _ => Err(must_be(key)),
        },
    }
}

/// SOCKS is not spoken, and must not be taken for "directly".
fn connects(proxy: &ureq::Proxy) -> bool {
    matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback())
}

/// A data source name as PDO has it: <https://www.php.net/manual/en/ref.pdo-mysql.connection.php>.
pub fn dsn(root: &Path) -> impl Fn(&Key, &str) -> Parsed<Dsn> {
    move |key, text| match text.split_once(':') {
        Some(("mysql", parts)) => mysql(key, parts),
        Some(("sqlite", ":memory:")) => {
            Err("would forget every template when mega stops; name a file".to_owned())
        }
        Some(("sqlite", path)) if !path.is_empty() => Ok(Dsn::Sqlite(root.join(path))),
        _ => Err(must_be(key)),
    }
}

fn mysql(key: &Key, parts: &str) -> Parsed<Dsn> {
    let (mut host, mut port, mut charset) = ("localhost", 3306, "utf8mb4");
    let (mut dbname, mut unix_socket) = ("", None);
    for part in parts.split(';').filter(|part| !part.trim().is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| must_be(key))?;
        let value = value.trim();
        match name.trim() {
            "host" => host = value,
            "port" => port = value.parse().map_err(|_| "port must be 0 to 65535")?,
            "dbname" => dbname = value,
            "unix_socket" => unix_socket = Some(PathBuf::from(value)),
            "charset" => charset = value,
            "user" | "password" => {
                return Err("user and password go into username and password".to_owned());
            }
            _ => return Err(must_be(key)),
        }
    }
    // What is left of an unquoted dsn after PHP's comment sign, too, is one without dbname.
    if dbname.is_empty() {
        return Err(format!("dbname is missing (is the dsn in quotes?); {}", must_be(key)));
    }
    // The charset becomes part of an SQL statement.
    if host.is_empty() || !charset.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(must_be(key));
    }
    Ok(Dsn::Mysql {
        host: host.to_owned(),
        port,
        dbname: dbname.to_owned(),
        unix_socket,
        charset: charset.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::find;

    fn key(section: &str, name: &str) -> &'static Key {
        find(section, name).unwrap()
    }

    #[test]
    fn addresses_are_numeric_or_localhost() {
        let listen = |text| address(key("server", "listen[]"), text);
        let is = |text: &str| Ok(text.parse().unwrap());
        assert_eq!(listen("0.0.0.0:0"), is("0.0.0.0:0"));
        assert_eq!(listen("[::1]:9501"), is("[::1]:9501"));
        assert_eq!(listen("localhost:80"), is("127.0.0.1:80"));
        let syntax = "must be ADDRESS:PORT, IPv6 as [::1]:9501";
        for bad in ["", "9501", ":9501", "::1:9501", "127.0.0.1", "127.0.0.1:65536"] {
            assert_eq!(listen(bad), Err(syntax.to_owned()), "{bad}");
        }
        assert_eq!(
            listen("wx.example.com:80"),
            Err(format!("host names other than localhost are not looked up; {syntax}"))
        );
    }

    #[test]
    fn networks_lose_their_host_bits() {
        let allow = |text| network(key("server", "allow[]"), text).map(|n| n.to_string());
        assert_eq!(allow("10.1.2.3/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(allow("10.1.2.3").as_deref(), Ok("10.1.2.3/32"));
        assert_eq!(allow("fe80::1/10").as_deref(), Ok("fe80::/10"));
        assert_eq!(allow("::1").as_deref(), Ok("::1/128"));
        for bad in ["", "10.0.0.0/33", "10.0.0", "localhost"] {
            assert!(allow(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_none_or_the_url_of_one_that_connects() {
        let proxy = |text| proxy(key("wechat", "proxy"), text);
        assert_eq!(proxy("none"), Ok(None));
        for url in ["http://10.0.0.1:3128", "https://user:word@proxy:8443"] {
            assert_eq!(proxy(url), Ok(Some(url.to_owned())));
        }
        for wrong in ["", "10.0.0.1:3128", "socks5://10.0.0.1:1080", "ftp://proxy", "http://"] {
            assert!(proxy(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn api_hosts_become_base_urls() {
        let hosts = |text| hosts(key("wechat", "api_hosts"), text);
        assert_eq!(
            hosts(
                "api.weixin.qq.com, https://proxy:8443/wx/ ,http://127.0.0.1:9580,http://[::1]:1"
            ),
            Ok([
                "https://api.weixin.qq.com",
                "https://proxy:8443/wx",
                "http://127.0.0.1:9580",
                "http://[::1]:1"
            ]
            .map(str::to_owned)
            .to_vec())
        );
        for bad in [
            "",
            "a,,b",
            "https://",
            "a:b",
            "a:99999",
            "ftp://a",
            "https://u:p@a",
            "https://a?b",
            "a#b",
            "a b",
            "http://localhost.example.com",
        ] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
        let clear = hosts("http://api.weixin.qq.com").unwrap_err();
        assert!(clear.starts_with("the access token would travel in clear text; must be "));
    }

    #[test]
    fn a_dsn_is_read_as_pdo_does() {
        let dsn = |text| dsn(Path::new("/srv/mega"))(key("pdo", "dsn"), text);
        let mysql = |port, unix_socket: Option<&str>, charset: &str| {
            Ok(Dsn::Mysql {
                host: "db".to_owned(),
                port,
                dbname: "mega".to_owned(),
                unix_socket: unix_socket.map(PathBuf::from),
                charset: charset.to_owned(),
            })
        };
        assert_eq!(dsn("mysql:host=db;dbname=mega"), mysql(3306, None, "utf8mb4"));
        assert_eq!(
            dsn("mysql:unix_socket=/run/m.sock; dbname=mega; host=db; port=3307; charset=utf8;"),
            mysql(3307, Some("/run/m.sock"), "utf8")
        );
        assert_eq!(dsn("sqlite:run/a.db"), Ok(Dsn::Sqlite("/srv/mega/run/a.db".into())));
        assert_eq!(dsn("sqlite:/a.db"), Ok(Dsn::Sqlite("/a.db".into())));
        let allowed = "must be \"mysql:host=..;port=..;dbname=..;unix_socket=..;charset=..\" or \"sqlite:PATH\"";
        for (text, why) in [
            ("pgsql:host=db", allowed.to_owned()),
            ("sqlite:", allowed.to_owned()),
            ("mysql:host", allowed.to_owned()),
            ("mysql:hots=db;dbname=mega", allowed.to_owned()),
            ("mysql:dbname=mega;charset=a'b", allowed.to_owned()),
            ("mysql:dbname=mega;port=x", "port must be 0 to 65535".to_owned()),
            (
                "mysql:host=127.0.0.1",
                format!("dbname is missing (is the dsn in quotes?); {allowed}"),
            ),
            (
                "mysql:dbname=mega;password=p",
                "user and password go into username and password".to_owned(),
            ),
            (
                "sqlite::memory:",
                "would forget every template when mega stops; name a file".to_owned(),
            ),
        ] {
            assert_eq!(dsn(text), Err(why), "{text}");
        }
    }
}
